"""An answer as server-sent events, while it is generated and whenever it is asked for again.

The id of an event is how many characters of the answer a client has after it, so it means the same on every replica:
0 for `message.created`, one more than all for the last event.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import Request

from src.api.cache_control import cache_header
from src.api.container import Gateway
from src.api.dialects.fields import dropped_header
from src.api.errors import Dialect, error_response
from src.api.rate_headers import rate_headers
from src.api.routes.schemas import message_shape
from src.api.sse import KEEPALIVE, EventStream, event
from src.domain.completion.deltas import RefusalDelta, TextDelta
from src.domain.dialogs.following import Piece, before_its_first_word, follow
from src.domain.dialogs.model import Message, MessageStatus
from src.domain.dialogs.sending import Exchanged, Exchanging
from src.domain.identity.model import Principal
from src.shared.errors import GatewayError, InvalidRequest

MAX_DIGITS = 12


def last_event_id(request: Request) -> int | None:
    """The id of the last event that a client saw. Raises InvalidRequest for what is none of ours."""
    seen = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    if not seen:
        return None
    if not (seen.isascii() and seen.isdigit() and len(seen) <= MAX_DIGITS):
        raise InvalidRequest("Last-Event-ID must be the id of an event of this answer.", param="last-event-id")
    return int(seen)


def exchange_headers(exchanged: Exchanged) -> dict[str, str]:
    """What is told of a whole answer."""
    outcome = exchanged.outcome
    return {
        "x-gateway-model": exchanged.answer.model or "",
        "x-gateway-attempts": str(len(outcome.attempts)),
        "x-gateway-cost-micro-usd": str(outcome.cost_micro_usd),
        **cache_header(outcome.cache),
        **_cap_and_dropped(outcome.output_cap, outcome.dropped),
    }


def asked_stream(exchange: Exchanging, request_id: str) -> EventStream:
    """The answer to a question that was just asked."""
    return EventStream(
        _asked(exchange),
        headers=lambda: _early_headers(exchange),
        failed=lambda error: error_response(error, Dialect.NATIVE, request_id),
    )


def followed_stream(
    answer: Message,
    created: Mapping[str, Any] | None,
    position: int,
    principal: Principal,
    gateway: Gateway,
    request_id: str,
) -> EventStream:
    """The events of an answer after a position; with `created`, which its first event tells besides, all of them."""
    return EventStream(
        _followed(answer, created, position, principal, gateway),
        headers=dict,
        failed=lambda error: error_response(error, Dialect.NATIVE, request_id),
    )


def _early_headers(exchange: Exchanging) -> dict[str, str]:
    answering = exchange.answering
    told = _cap_and_dropped(answering.output_cap, answering.dropped)
    return told | cache_header(answering.cache) | rate_headers(answering.call.permit.levels)


def _cap_and_dropped(output_cap: int | None, dropped: tuple[str, ...]) -> dict[str, str]:
    """The cap, where the quota shrank it, and parameters that the model was not told."""
    cap = {} if output_cap is None else {"x-gateway-output-cap": str(output_cap)}
    return cap | dropped_header(dropped)


def _created(answer: Message, **more: Any) -> bytes:
    content = {"message": message_shape(before_its_first_word(answer)), **more}
    return event(content, name="message.created", event_id="0")


def _delta(text: str, position: int) -> bytes:
    return event({"text": text}, name="message.delta", event_id=str(position))


def _ended(message: Message, position: int) -> bytes:
    content: dict[str, Any] = {"message": message_shape(message)}
    if message.error is None:
        # The headers went out before it was known which provider answers.
        content |= {"dropped_params": list(message.dropped)} if message.dropped else {}
        return event(content, name="message.completed", event_id=str(position + 1))
    return event({"error": message.error, **content}, name="message.failed", event_id=str(position + 1))


def _lost(answer: Message, error: GatewayError, position: int) -> bytes:
    """The answer could not be stored, or read to its end."""
    told: Mapping[str, Any] = {"code": error.specific_code, "message": error.message}
    failed = {**message_shape(before_its_first_word(answer)), "status": MessageStatus.FAILED.value}
    return event({"error": told, "message": failed}, name="message.failed", event_id=str(position + 1))


async def _asked(exchange: Exchanging) -> AsyncGenerator[bytes]:
    """message.created, message.delta …, and message.completed or message.failed."""
    yield _created(exchange.answer, user_message=message_shape(exchange.question), omitted_turns=exchange.omitted_turns)
    position = 0
    async with aclosing(exchange.answering.deltas()) as deltas:
        async for delta in deltas:
            if isinstance(delta, TextDelta | RefusalDelta) and delta.text:
                position += len(delta.text)
                yield _delta(delta.text, position)
    try:
        outcome = await exchange.answering.outcome()
    except GatewayError as error:
        yield _lost(exchange.answer, error, position)
        return
    yield _ended(exchange.storing.ended(outcome), position)


async def _followed(
    answer: Message, created: Mapping[str, Any] | None, position: int, principal: Principal, gateway: Gateway
) -> AsyncGenerator[bytes]:
    yield KEEPALIVE if created is None else _created(answer, **created)  # headers go out with it, however long it waits
    try:
        async with aclosing(follow(principal, answer, position, gateway.dialogs, gateway.completions)) as found:
            async for each in found:
                if isinstance(each, Piece):
                    position = each.position
                    yield _delta(each.text, position)
                else:
                    yield _ended(each, len(each.content))
    except GatewayError as error:
        yield _lost(answer, error, position)
