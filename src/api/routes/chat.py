"""The first seed's surface at the root: one-shot chat with a cache, its history, health, and who we are."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from src.api.deps import GatewayDep, PrincipalDep
from src.api.idempotency import answered_once
from src.api.json import dumps
from src.api.native import NativeRoute, answer
from src.api.routes.schemas import ChatBody, exchange_shape
from src.domain.completion.idempotency import Claim, Kept, kept
from src.domain.dialogs.model import Message
from src.domain.dialogs.one_shot import OneShotKeeping, answer_once, history
from src.domain.identity.administration import spoken_for, user_named

router = APIRouter(tags=["chat"], route_class=NativeRoute)

MAX_HISTORY = 100


@router.post("/chat")
async def chat(request: Request, body: ChatBody, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """Answer one question. Administrators may name the user (by external id) whom they ask for."""

    async def first(claim: Claim | None) -> Response:
        user = await spoken_for(principal, body.user_id, open_uow=gateway.open_uow, clock=gateway.clock)
        keeping = None if claim is None else OneShotKeeping(claim, _rendered(claim))
        request_id = request.state.request_id
        message = await answer_once(principal, user, body.content, body.model, request_id, gateway.one_shot, keeping)
        return answer(_content(message), headers=_headers(message))

    return await answered_once(request, principal, gateway, first)


def _rendered(claim: Claim) -> Callable[[Message], Kept]:
    """How the answer is kept for whoever repeats the request."""
    return lambda message: kept(claim, 200, "application/json", [dumps(_content(message))], _headers(message))


def _headers(message: Message) -> dict[str, str]:
    return {
        "x-gateway-cache": "hit" if message.cached else "miss",
        "x-gateway-model": message.model or "",
        "x-gateway-cost-micro-usd": str(message.cost_micro_usd),
    }


def _content(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "content": message.content,
        "timestamp": message.completed_at,
        "cached": message.cached,
        "model": message.model,
    }


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
