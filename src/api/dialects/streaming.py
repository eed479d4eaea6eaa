"""One way to serve a call to any client: the dialect says how its parts are written."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from fastapi import Request
from starlette.responses import Response

from src.api.container import Gateway
from src.api.dialects.fields import dropped_by, dropped_header
from src.api.dialects.request import ParsedRequest
from src.api.errors import Dialect, error_body, error_response
from src.api.native import answer
from src.api.sse import EventStream
from src.domain.completion.answering import Answering
from src.domain.completion.model import Call, Outcome, TextDelta
from src.domain.completion.use_cases import begin, resolve
from src.domain.identity.model import Principal
from src.shared.errors import GatewayError


class Writer(Protocol):
    """How a dialect writes an answer that was translated. `tells_prompt`: the start of a stream names its tokens."""

    tells_prompt: ClassVar[bool]

    def whole(self, outcome: Outcome, model: str) -> Mapping[str, Any]: ...

    def first(self, model: str, prompt_tokens: int) -> bytes: ...

    def text(self, text: str) -> bytes: ...

    def last(self, outcome: Outcome) -> bytes: ...

    def error(self, body: dict[str, Any]) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One compatible endpoint: its dialect and how it writes."""

    dialect: Dialect
    endpoint: str
    writer: Callable[[ParsedRequest], Writer]


async def serve(
    door: Door, parsed: ParsedRequest, principal: Principal, request: Request, gateway: Gateway
) -> Response:
    """Make the call and answer in the dialect; the caller's errors are raised before anything is called."""
    request_id: str = request.state.request_id
    call = Call(
        principal=principal,
        route=resolve(gateway.catalog.current(), principal, parsed.model),
        chat=parsed.chat,
        endpoint=door.endpoint,
        request_id=request_id,
    )
    writer = door.writer(parsed)
    if not parsed.chat.stream:
        # Generated to its end though the client may leave: what its provider will bill is not known before.
        outcome = await (await begin(call, gateway.completions)).outcome()
        return _whole(outcome, parsed, writer)
    answering = await begin(call, gateway.completions)
    return EventStream(
        _events(answering, writer, door, request_id),
        headers=lambda: _headers(answering, parsed),
        failed=lambda error: error_response(error, door.dialect, request_id),
    )


def _whole(outcome: Outcome, parsed: ParsedRequest, writer: Writer) -> Response:
    if outcome.error is not None:
        raise outcome.error
    headers = _model_headers(outcome.model.name if outcome.model else None, len(outcome.attempts))
    headers["x-gateway-cost-micro-usd"] = str(outcome.cost_micro_usd)
    if outcome.wire is not None:
        return Response(outcome.wire, media_type="application/json", headers=headers)
    sampling = outcome.model is None or outcome.model.capabilities.sampling
    headers |= _dropped(parsed, sampling=sampling)
    return answer(writer.whole(outcome, outcome.upstream_model or parsed.model), headers=headers)


def _headers(answering: Answering, parsed: ParsedRequest) -> Mapping[str, str]:
    """Headers of a stream, known once its first event is there."""
    model = answering.model
    headers = _model_headers(model.name if model else None, answering.attempts)
    if answering.is_relayed:
        return headers
    return headers | _dropped(parsed, sampling=model is None or model.capabilities.sampling)


def _model_headers(model: str | None, attempts: int) -> dict[str, str]:
    return {"x-gateway-attempts": str(attempts)} | ({"x-gateway-model": model} if model else {})


def _dropped(parsed: ParsedRequest, *, sampling: bool) -> dict[str, str]:
    return dropped_header(dropped_by(parsed.chat.parameters, sampling=sampling, untranslated=parsed.untranslated))


async def _events(answering: Answering, writer: Writer, door: Door, request_id: str) -> AsyncGenerator[bytes]:
    """The stream in the dialect. Raises what kept the call from answering at all, before the first event."""
    begun = False
    deltas = answering.deltas()
    try:
        async for delta in deltas:
            if not isinstance(delta, TextDelta):
                yield delta.data
                continue
            if not begun:
                begun = True
                yield await _first(writer, answering)
            yield writer.text(delta.text)
    finally:
        await deltas.aclose()
    try:
        outcome = await answering.outcome()
        if outcome.error is not None:
            raise outcome.error
    except GatewayError as error:
        if not answering.has_begun:
            raise
        yield writer.error(error_body(error, door.dialect, request_id))
        return
    if outcome.wire is not None:
        yield outcome.wire
        return
    yield (b"" if begun else await _first(writer, answering)) + writer.last(outcome)


async def _first(writer: Writer, answering: Answering) -> bytes:
    name = answering.model.upstream if answering.model else answering.call.route.name
    return writer.first(name, await answering.prompt_tokens() if writer.tells_prompt else 0)
