"""A chain of models: the first that answers, answers."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from src.domain.catalog.model import Model, Provider
from src.domain.completion.model import (
    ChatRequest,
    Failure,
    Finished,
    TextDelta,
    UpstreamEvent,
    UpstreamFailed,
    UpstreamRequest,
)
from src.domain.completion.ports import ChatModel, Upstreams
from src.domain.ledger.model import Attempt
from src.shared.errors import GatewayError, InvalidRequest, ProvidersFailed, ProvidersTimedOut

TRIES_PER_MODEL = 2
"""A connection that was dropped before it answered is tried once more: kept-alive connections die of old age."""

CUT_OFF = "cut_off"
"""The outcome of an attempt that was left before its end: cancelled, out of time, or broken by a fault of ours."""


@dataclass(slots=True)
class Trace:
    """What has been tried so far, how many attempts have begun, and which model is answering."""

    attempts: list[Attempt] = field(default_factory=list)
    begun: int = 0
    answering: Model | None = None
    last: UpstreamFailed | None = None
    started_s: float = 0.0

    @property
    def so_far(self) -> tuple[Attempt, ...]:
        """Every attempt; the one that is answering at the moment as it would be remembered if it were left now."""
        if self.answering is None or self.begun == len(self.attempts):
            return tuple(self.attempts)
        return (*self.attempts, self._attempt(self.answering, CUT_OFF, None))

    def begin(self) -> None:
        """An attempt begins."""
        self.begun += 1
        self.started_s = time.monotonic()

    def note(self, model: Model, outcome: str, status: int | None = None) -> None:
        """Remember the attempt."""
        self.attempts.append(self._attempt(model, outcome, status))

    def failed(self, model: Model, failure: UpstreamFailed) -> None:
        """Remember that the attempt failed."""
        self.last = failure
        self.note(model, failure.kind.value, failure.status)

    def _attempt(self, model: Model, outcome: str, status: int | None) -> Attempt:
        duration_ms = int((time.monotonic() - self.started_s) * 1000)
        return Attempt(model=model.name, outcome=outcome, duration_ms=duration_ms, status=status)


async def chain_events(
    models: Sequence[Model],
    providers: Mapping[str, Provider],
    upstreams: Upstreams,
    chat: ChatRequest,
    output_cap: int | None,
    trace: Trace,
) -> AsyncGenerator[UpstreamEvent]:
    """The events of the first model that gives any. Raises UpstreamFailed: the last failure, or one mid-stream.

    Falls through on technical failures and on what a model cannot do; never on the caller's own mistake and never after
    the first event.
    """
    for model in models:
        request = UpstreamRequest(model=model, chat=chat, output_cap=output_cap)
        for tries_left in reversed(range(TRIES_PER_MODEL)):
            trace.begin()
            try:
                upstream = upstreams.chat_model(model, providers[model.provider])
                async with aclosing(_events_of(upstream, request)) as events:
                    async for event in events:
                        trace.answering = model
                        if not isinstance(event, Finished):
                            yield event
                trace.note(model, "ok")
            except UpstreamFailed as failure:
                trace.failed(model, failure)
                if trace.answering is not None or failure.kind is Failure.CALLER:
                    raise
                if failure.kind is not Failure.DROPPED or not tries_left:
                    break
            except BaseException:
                trace.note(model, CUT_OFF)
                raise
            else:
                yield event  # the Finished; whoever hears it listens no further, so it comes when all is noted
                return
    assert trace.last is not None  # noqa: S101 - a route is never empty
    raise trace.last


async def _events_of(upstream: ChatModel, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
    """Whole answers and streams as the same kind of events."""
    if not request.chat.stream:
        reply = await upstream.complete(request)
        if reply.text:
            yield TextDelta(reply.text)
        yield reply.finished
        return
    async with aclosing(upstream.stream(request)) as events:
        async for event in events:
            yield event
            if isinstance(event, Finished):
                return
    raise UpstreamFailed(Failure.DROPPED, "The provider's stream ended before the answer did.")


def as_gateway_error(failure: UpstreamFailed, tried: int) -> GatewayError:
    """What the caller is told when the chain is exhausted."""
    if failure.kind in (Failure.CALLER, Failure.UNSUPPORTED):
        return InvalidRequest(failure.message)
    details = {"attempts": tried, "reason": failure.kind.value}
    if failure.kind is Failure.TIMEOUT:
        return ProvidersTimedOut(failure.message, details=details)
    return ProvidersFailed(failure.message, details=details)
