"""The first seed's surface at the root: one-shot chat with a cache, its history, health, and who we are."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from src.api.deps import GatewayDep, PrincipalDep, RequestId
from src.api.native import NativeRoute, answer
from src.api.routes.schemas import ChatBody, exchange_shape
from src.domain.dialogs.one_shot import answer_once, history
from src.domain.identity.administration import spoken_for, user_named

router = APIRouter(tags=["chat"], route_class=NativeRoute)

MAX_HISTORY = 100


@router.post("/chat")
async def chat(body: ChatBody, principal: PrincipalDep, gateway: GatewayDep, request_id: RequestId) -> Response:
    """Answer one question. Administrators may name the user (by external id) whom they ask for."""
    user = await spoken_for(principal, body.user_id, open_uow=gateway.open_uow, clock=gateway.clock)
    message = await answer_once(principal, user, body.content, body.model, request_id, gateway.one_shot)
    headers = {
        "x-gateway-cache": "hit" if message.cached else "miss",
        "x-gateway-model": message.model or "",
        "x-gateway-cost-micro-usd": str(message.cost_micro_usd),
    }
    content: dict[str, Any] = {
        "id": message.id,
        "content": message.content,
        "timestamp": message.completed_at,
        "cached": message.cached,
        "model": message.model,
    }
    return answer(content, headers=headers)


@router.get("/history/{user_id}")
async def read_history(
    user_id: str,
    principal: PrincipalDep,
    gateway: GatewayDep,
    limit: Annotated[int, Query(ge=1, le=MAX_HISTORY)] = 10,
) -> Response:
    """A user's one-shot questions and answers, newest first: one's own, or any of the tenant for administrators."""
    user = await user_named(principal, user_id, open_uow=gateway.open_uow)
    found = await history(principal, user, limit, gateway.dialogs)
    return answer([exchange_shape(exchange) for exchange in found])
