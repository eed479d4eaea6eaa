"""Idempotency-Key: requests that are repeated get the first one's answer, whichever replica they reach.

`X-Client-Request-Id`, which some clients repeat with their retries, works the same for an identical body; the call is
stopped like any other when its client hangs up.
"""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta

from fastapi import Request
from starlette.responses import Response

from src.api.container import Gateway
from src.api.sse import EventStream
from src.domain.completion.idempotency import (
    KEPT_HOURS,
    Claim,
    Claimed,
    ClaimState,
    Kept,
    KeyTaken,
    answer_of,
    owner_of,
    same_request,
)
from src.domain.identity.model import Principal
from src.shared.errors import Conflict, InvalidRequest
from src.shared.ids import new_id

MAX_KEY = 255
MOST_TRIES = 3
REPLAYED = {"idempotent-replayed": "true"}
"""What tells a client that this request made no call of its own."""

First = Callable[[Claim | None], Awaitable[Response]]
Attach = Callable[[Claimed], Awaitable[Response]]


async def answered_once(
    request: Request, principal: Principal, gateway: Gateway, first: First, attach: Attach | None = None
) -> Response:
    """What `first` answers, or what it answered before under the same key.

    `attach` serves a repetition whose first request still runs, or keeps its answer elsewhere; it raises KeyTaken where
    that has just changed. Without it a repetition waits for nothing. Raises KeyReused for another
    body, Conflict while the first is running.
    """
    claim = await _claim(request, principal, gateway)
    if claim is None:
        return await first(None)
    for _ in range(MOST_TRIES):
        async with gateway.open_reading(principal.tenant_id) as uow:
            found = await uow.claims.find(claim)
        try:
            return await (first(claim) if found is None else _repeated(same_request(found, claim), attach))
        except KeyTaken:  # somebody was faster, or what was found is over
            continue
    raise Conflict("Requests with this Idempotency-Key are failing at the moment; try again later.")


async def _repeated(found: Claimed, attach: Attach | None) -> Response:
    if attach is None or not (found.state is ClaimState.RUNNING or found.claim.message_id is not None):
        return replayed(answer_of(found))
    response = await attach(found)
    if isinstance(response, EventStream):
        response.add_headers(REPLAYED)
    else:
        response.headers.update(REPLAYED)
    return response


def replayed(kept: Kept) -> Response:
    """The answer as it was sent."""
    return Response(
        kept.body, status_code=kept.status, media_type=kept.media_type, headers={**kept.headers, **REPLAYED}
    )


async def _claim(request: Request, principal: Principal, gateway: Gateway) -> Claim | None:
    """The claim that the request makes. Raises InvalidRequest for keys that are none."""
    strong, weak = (request.headers.get(name) for name in ("idempotency-key", "x-client-request-id"))
    if strong is not None and not _is_key(strong):
        raise InvalidRequest(f"Idempotency-Key must be 1 to {MAX_KEY} printable characters.", param="idempotency-key")
    if strong is None and (weak is None or not _is_key(weak)):
        return None
    endpoint = f"{request.method} {request.url.path}"
    body_hash = _hash(await request.body())
    now = gateway.clock()
    tenant_id, user_id, api_key_id = owner_of(principal)
    words = ("key", strong) if strong is not None else ("request id", weak or "", body_hash)
    key_hash = _hash(*(word.encode() for word in (endpoint, *words)))
    return Claim(
        id=new_id(),
        tenant_id=tenant_id,
        user_id=user_id,
        api_key_id=api_key_id,
        key_hash=key_hash,
        body_hash=body_hash,
        created_at=now,
        expires_at=now + timedelta(hours=KEPT_HOURS),
        weak=strong is None,
    )


def _is_key(text: str) -> bool:
    return 1 <= len(text) <= MAX_KEY and text.isprintable()


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
