"""One way to serve a call to any client: the dialect says how its parts are written."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, cast
from uuid import UUID

from fastapi import Request
from starlette.responses import Response

from src.api.cache_control import cache_header, cache_wish
from src.api.container import Gateway
from src.api.dialects.fields import dropped_header
from src.api.dialects.request import ParsedRequest
from src.api.errors import Dialect, error_body, error_response
from src.api.idempotency import answered_once
from src.api.native import answer
from src.api.rate_headers import rate_headers
from src.api.sse import KEEPALIVE, STREAM_HEADERS, EventStream
from src.domain.catalog.model import Model
from src.domain.completion.answer import Answer
from src.domain.completion.content import Opaque
from src.domain.completion.deltas import PartDelta
from src.domain.completion.idempotency import Claim, Claimed, ClaimFreed, ClaimState, KeyTaken, answer_of, kept
from src.domain.completion.model import CacheWish, Call, Outcome, WireChunk, no_records
from src.domain.completion.use_cases import begin, resolve
from src.domain.dialogs.storing import Storing
from src.domain.identity.model import Principal
from src.domain.ledger.model import CallStatus, Record
from src.shared.errors import GatewayError, Unavailable

WAIT_S = 0.5
"""How often the answer of a call that another replica makes is looked for."""

UNCACHED = CacheWish(on=False)
"""An answer that its client knows by an id is nobody else's."""

GIVEN_UP = Unavailable("The request that this one repeated was given up; try again.")


class WholeWriter(Protocol):
    """How a dialect writes one whole answer that was translated."""

    def whole(self, outcome: Outcome, model: str) -> Mapping[str, Any]: ...


class Writer(WholeWriter, Protocol):
    """How a dialect writes one answer that was translated, whole or piece by piece.

    `tells_prompt`: the start of a stream names its tokens.
    """

    tells_prompt: ClassVar[bool]

    def first(self, model: str, prompt_tokens: int) -> bytes: ...

    def delta(self, delta: PartDelta) -> bytes:
        """A piece of the answer, with the end of what came before it, if it begins something new."""
        ...

    def last(self, outcome: Outcome) -> bytes:
        """The end of what is open, and of the stream."""
        ...

    def cut(self, outcome: Outcome, relayed: bytes) -> bytes:
        """The end of a stream whose upstream was stopped at the quota's limit, after what was relayed of it."""
        ...

    def error(self, body: dict[str, Any], relayed: bytes = b"") -> bytes:
        """A failure in the middle of a stream, after what was relayed of it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One compatible endpoint: its dialect and how it writes an answer of the given id.

    `names` are the dialect's names of parameters, where it has others than the domain. `keepalive` is what its clients
    pass over while they wait.
    """

    dialect: Dialect
    endpoint: str
    writer: Callable[[ParsedRequest, UUID], WholeWriter]
    names: Mapping[str, str] = field(default_factory=dict)
    keepalive: bytes = KEEPALIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Stateful:
    """An answer that its client knows by an id of its own, and, where it is stored, its messages.

    One in the `background` goes on whoever listens: its stream begins at once, and without a stream `accepted` is what
    its client is told meanwhile; who repeats the request is told `again` of the answer that was begun then.
    """

    answer_id: UUID
    storing: Storing | None = None
    background: bool = False
    accepted: Callable[[], Mapping[str, Any]] | None = None
    again: Callable[[UUID], Awaitable[Mapping[str, Any]]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """One request at a door."""

    door: Door
    parsed: ParsedRequest
    principal: Principal
    request_id: str
    cache: CacheWish
    gateway: Gateway
    stateful: Stateful | None = None

    @property
    def in_background(self) -> bool:
        """Whether it goes on whoever listens."""
        return self.stateful is not None and self.stateful.background

    @property
    def is_told_at_once(self) -> bool:
        """Whether its client waits for no answer, and asks for it by its id."""
        return self.stateful is not None and self.stateful.accepted is not None

    def writer(self, answer_id: UUID) -> Writer:
        """What writes the stream of an answer: the same id, whoever asks for it again."""
        return cast(Writer, self.door.writer(self.parsed, answer_id))  # whose door has none does not stream

    def call(self, claim: Claim | None) -> Call:
        """The call to be made. With a key it goes on though its client leaves, who has said that it may come back."""
        storing = self.stateful.storing if self.stateful else None
        stored = () if storing is None else storing.opening()
        if claim is not None and storing is not None and self.is_told_at_once:
            claim = replace(claim, message_id=storing.answer.id)
        is_stream = self.parsed.chat.stream
        return Call(
            principal=self.principal,
            route=resolve(self.gateway.catalog.current(), self.principal, self.parsed.model),
            chat=self.parsed.chat,
            endpoint=self.door.endpoint,
            request_id=self.request_id,
            opening=stored if claim is None else (*stored, claim),
            noting=no_records if storing is None else storing.noting,
            closing=lambda outcome: self._closing(claim, storing, outcome),
            dialog_id=storing.answer.dialog_id if storing else None,
            message_id=storing.answer.id if storing else None,
            answer_id=self.stateful.answer_id if self.stateful else None,
            detached=self.in_background or not is_stream or (claim is not None and not claim.weak),
            keeps_prompt_estimate=claim is not None and is_stream and self.writer(claim.id).tells_prompt,
            cache=self.cache,
        )

    def _closing(self, claim: Claim | None, storing: Storing | None, outcome: Outcome) -> Sequence[Record]:
        stored = () if storing is None else storing.closing(outcome)
        if claim is None or (self.is_told_at_once and outcome.status is not CallStatus.FAILED):
            return stored
        return (*stored, self._kept(claim, outcome))

    def _kept(self, claim: Claim, outcome: Outcome) -> Record:
        """What a repetition of the request will be answered with; nothing where the next try should be a new one."""
        is_stream = self.parsed.chat.stream
        gone = outcome.status is CallStatus.FAILED or (claim.weak and outcome.status is CallStatus.CANCELLED)
        if gone or (outcome.error is not None and not is_stream):
            return ClaimFreed(claim_id=claim.id)
        if is_stream:
            headers = STREAM_HEADERS | _headers_of(outcome, self)
            return kept(claim, 200, EventStream.media_type, _pieces(self, outcome), headers)
        answer = self.whole(outcome)
        return kept(claim, 200, "application/json", [bytes(answer.body)], _whole_headers(outcome, self))

    async def told_again(self, found: Claimed) -> Response:
        """The answer that was begun at the first request, as far as it has come."""
        assert self.stateful is not None  # noqa: S101
        assert self.stateful.again is not None  # noqa: S101
        return answer(await self.stateful.again(found.claim.message_id or found.claim.id))

    def whole(self, outcome: Outcome) -> Response:
        """An answer that does not stream. Raises what kept it from being given."""
        if outcome.error is not None:
            raise outcome.error
        headers = _whole_headers(outcome, self)
        if outcome.wire is not None:
            return Response(outcome.wire, media_type="application/json", headers=headers)
        written = self.door.writer(self.parsed, outcome.id).whole(outcome, outcome.upstream_model or self.parsed.model)
        return answer(written, headers=headers)


async def serve(
    door: Door,
    parsed: ParsedRequest,
    principal: Principal,
    request: Request,
    gateway: Gateway,
    stateful: Stateful | None = None,
) -> Response:
    """Make the call and answer in the dialect; the caller's errors are raised before anything is called."""
    serving = Serving(
        door=door,
        parsed=parsed,
        principal=principal,
        request_id=request.state.request_id,
        cache=cache_wish(request.headers) if stateful is None else UNCACHED,
        gateway=gateway,
        stateful=stateful,
    )

    async def first(claim: Claim | None) -> Response:
        answering = await begin(serving.call(claim), gateway.completions)
        left = rate_headers(answering.call.permit.levels, anthropic=door.dialect is Dialect.ANTHROPIC)
        if stateful is not None and stateful.accepted is not None:
            return answer(stateful.accepted(), headers=left)
        if parsed.chat.stream:
            stream = _stream(answering, serving)
            stream.add_headers(left)
            return stream
        # Generated to its end though the client may leave: what its provider will bill is not known before.
        response = serving.whole(await answering.outcome())
        response.headers.update(left)
        return response

    async def attach(found: Claimed) -> EventStream:
        answering = gateway.completions.running.find(found.hold_id)
        if answering is None:
            return _events_of(_elsewhere(found.claim, serving), serving, dict)
        if found.claim.weak and answering.is_stopping:  # its listeners left it, and nothing of it will be kept
            await answering.outcome()
            raise KeyTaken("The first request with this X-Client-Request-Id was given up.")
        return _stream(answering, serving)

    repeated = serving.told_again if serving.is_told_at_once else (attach if parsed.chat.stream else None)
    return await answered_once(request, principal, gateway, first, repeated)


def _stream(answering: Answer, serving: Serving) -> EventStream:
    def headers() -> Mapping[str, str]:
        dropped = _dropped(serving, answering.dropped, relayed=answering.is_relayed)
        told = _headers(answering.model, answering.attempts, answering.output_cap)
        return told | dropped_header(dropped) | cache_header(answering.cache)

    return _events_of(_events(answering, serving), serving, headers)


def _events_of(
    events: AsyncGenerator[bytes], serving: Serving, headers: Callable[[], Mapping[str, str]]
) -> EventStream:
    return EventStream(events, headers=headers, failed=_failed(serving), keepalive=serving.door.keepalive)


def _failed(serving: Serving) -> Callable[[GatewayError], Response]:
    return lambda error: error_response(error, serving.door.dialect, serving.request_id)


def _whole_headers(outcome: Outcome, serving: Serving) -> dict[str, str]:
    return _headers_of(outcome, serving) | {"x-gateway-cost-micro-usd": str(outcome.cost_micro_usd)}


def _headers_of(outcome: Outcome, serving: Serving) -> dict[str, str]:
    """Headers of an answer that has ended."""
    relayed = outcome.wire is not None or any(isinstance(delta, WireChunk) for delta in outcome.deltas[:1])
    dropped = (*_dropped(serving, outcome.dropped, relayed=relayed), *_untold(serving, outcome))
    told = _headers(outcome.model, len(outcome.attempts), outcome.output_cap)
    return told | dropped_header(dropped) | cache_header(outcome.cache)


def _headers(model: Model | None, attempts: int, output_cap: int | None) -> dict[str, str]:
    """Headers of an answer; of a stream they are known once its first event is there."""
    headers = {"x-gateway-attempts": str(attempts)}
    if model is not None:
        headers["x-gateway-model"] = model.name
    if output_cap is not None:
        headers["x-gateway-output-cap"] = str(output_cap)
    return headers


def _dropped(serving: Serving, by_upstream: tuple[str, ...], *, relayed: bool) -> tuple[str, ...]:
    """What the model was not told, in the client's own names; what has no place in our words is relayed."""
    names = serving.door.names
    untranslated = () if relayed else serving.parsed.untranslated
    return (*untranslated, *(names.get(name, name) for name in by_upstream))


def _untold(serving: Serving, outcome: Outcome) -> Iterator[str]:
    """Names of what the model answered in a form that the client's dialect has no place for, like pictures."""
    wire = serving.parsed.chat.wire
    for part in outcome.parts:
        if isinstance(part, Opaque) and wire is not None and part.format is not wire.format:
            yield f"answer[{part.kind}]"


async def _events(answering: Answer, serving: Serving) -> AsyncGenerator[bytes]:
    """The stream in the dialect. Raises what kept the call from answering at all, before the first event."""
    writer = serving.writer(answering.call.answer_id or answering.id)
    begun = serving.in_background
    if begun:
        yield writer.first(_name(answering.model, serving), 0)
    relayed: list[bytes] = []
    deltas = answering.deltas()
    try:
        async for delta in deltas:
            if isinstance(delta, WireChunk):
                relayed.append(delta.data)
                yield delta.data
                continue
            if not begun:
                begun = True
                prompt = await answering.prompt_tokens() if writer.tells_prompt else 0
                yield writer.first(_name(answering.model, serving), prompt)
            yield writer.delta(delta)
    finally:
        await deltas.aclose()
    try:
        outcome = await answering.outcome()
    except GatewayError as error:
        if not begun and not answering.has_begun:
            raise
        yield writer.error(error_body(error, serving.door.dialect, serving.request_id), b"".join(relayed))
        return
    if outcome.error is not None and not begun and not answering.has_begun:
        raise outcome.error
    yield _end(writer, outcome, serving, begun=begun)


def _end(writer: Writer, outcome: Outcome, serving: Serving, *, begun: bool) -> bytes:
    """How a stream ends, once it is settled. Who still listens did not cancel it, and must not take it for whole."""
    if outcome.error is None and outcome.wire is not None:
        return outcome.wire
    relayed = b"".join(delta.data for delta in outcome.deltas if isinstance(delta, WireChunk))
    is_given_up = outcome.status is CallStatus.CANCELLED and not serving.in_background
    error = outcome.error or (GIVEN_UP if is_given_up else None)
    if error is not None:
        return writer.error(error_body(error, serving.door.dialect, serving.request_id), relayed)
    if relayed:
        return writer.cut(outcome, relayed)
    head = b"" if begun else writer.first(_name(outcome.model, serving), outcome.usage.input_tokens)
    return head + writer.last(outcome)


def _pieces(serving: Serving, outcome: Outcome) -> Iterator[bytes]:
    """The whole stream of an answer that has ended, as `_events` gave it."""
    writer = serving.writer(outcome.id)
    begun = serving.in_background
    if begun:
        yield writer.first(_name(None, serving), 0)
    for delta in outcome.deltas:
        if isinstance(delta, WireChunk):
            yield delta.data
            continue
        if not begun:
            begun = True
            yield writer.first(_name(outcome.model, serving), outcome.prompt_estimate or 0)
        yield writer.delta(delta)
    yield _end(writer, outcome, serving, begun=begun)


def _name(model: Model | None, serving: Serving) -> str:
    return model.upstream if model else serving.parsed.model


async def _elsewhere(claim: Claim, serving: Serving) -> AsyncGenerator[bytes]:
    """The stream of a call that another replica makes, once it is kept. Until then: comments, which nobody reads.

    Raises, before the first of them, what keeps it from being given.
    """
    gateway = serving.gateway
    answers = gateway.completions.answers
    deadline_s = asyncio.get_running_loop().time() + answers.total_timeout_s + 2 * answers.holding.lease_s
    waited = False
    try:
        while asyncio.get_running_loop().time() < deadline_s:
            found = await _found_again(claim, gateway)
            if found.state is not ClaimState.RUNNING:
                yield answer_of(found).body or b""
                return
            if (answering := gateway.completions.running.find(found.hold_id)) is not None:  # it has just begun, here
                async with aclosing(_events(answering, serving)) as events:
                    async for data in events:
                        yield data
                return
            yield serving.door.keepalive
            waited = True
            await asyncio.sleep(WAIT_S)
        raise Unavailable("The first request with this Idempotency-Key did not end in time; try again later.")
    except GatewayError as error:
        if not waited:
            raise
        yield serving.writer(claim.id).error(error_body(error, serving.door.dialect, serving.request_id))


async def _found_again(claim: Claim, gateway: Gateway) -> Claimed:
    """The same claim as it is now. Raises Unavailable where it is free again, whoever may have taken it since."""
    async with gateway.open_reading(claim.tenant_id) as uow:
        found = await uow.claims.find(claim)
    if found is None or found.claim.id != claim.id:
        raise Unavailable("The first request with this Idempotency-Key failed; nothing was charged. Try again.")
    return found
