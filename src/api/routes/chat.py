"""The first seed's surface at the root: one-shot chat with a cache, its history, health, and who we are."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from src.api.cache_control import cache_header, cache_wish
from src.api.deps import GatewayDep, PrincipalDep
from src.api.idempotency import answered_once
from src.api.json import dumps
from src.api.native import NativeRoute, answer
from src.api.rate_headers import rate_headers
from src.api.routes.schemas import ChatBody, exchange_shape
from src.domain.completion.idempotency import Claim, Kept, kept
from src.domain.dialogs.model import Message
from src.domain.dialogs.one_shot import CACHED, OneShot, answer_once, history
from src.domain.dialogs.sending import Exchanged, Keeping
from src.domain.identity.administration import spoken_for, user_named

router = APIRouter(tags=["chat"], route_class=NativeRoute)

MAX_HISTORY = 100


@router.post("/chat")
async def chat(request: Request, body: ChatBody, principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """Answer one question. Administrators may name the user (by external id) whom they ask for."""

    wish = cache_wish(request.headers, CACHED)

    async def first(claim: Claim | None) -> Response:
        asked = OneShot(
            user=await spoken_for(principal, body.user_id, open_uow=gateway.open_uow, clock=gateway.clock),
            content=body.content,
            request_id=request.state.request_id,
            model=body.model,
            keeping=None if claim is None else Keeping(claim, _rendered(claim)),
            cache=wish,
        )
        exchanged = await answer_once(principal, asked, gateway.dialogs, gateway.completions)
        return answer(_content(exchanged.answer), headers=_headers(exchanged) | rate_headers(exchanged.levels))

    return await answered_once(request, principal, gateway, first)


def _rendered(claim: Claim) -> Callable[[Exchanged], Kept]:
    """How the answer is kept for whoever repeats the request."""
    return lambda exchanged: kept(
        claim, 200, "application/json", [dumps(_content(exchanged.answer))], _headers(exchanged)
    )


def _headers(exchanged: Exchanged) -> dict[str, str]:
    return {
        **cache_header(exchanged.outcome.cache),
        "x-gateway-model": exchanged.answer.model or "",
        "x-gateway-cost-micro-usd": str(exchanged.answer.cost_micro_usd),
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
