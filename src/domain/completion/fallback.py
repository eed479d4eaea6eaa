"""A chain of models: the first that answers, answers."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from src.domain.catalog.model import PATIENT, Deadlines, Model
from src.domain.completion.model import (
    ChatRequest,
    Delta,
    Dropped,
    Failure,
    Finished,
    UpstreamEvent,
    UpstreamFailed,
    UpstreamRequest,
)
from src.domain.completion.ports import ChatModel, Upstreams
from src.domain.ledger.model import Attempt
from src.domain.routing.board import Board
from src.domain.routing.candidates import Candidate
from src.domain.routing.retry import RetryBudget, RetryPolicy, pause_s
from src.shared.errors import (
    CONTEXT_TOO_LONG,
    GatewayError,
    InvalidRequest,
    ProvidersFailed,
    ProvidersResting,
    ProvidersTimedOut,
)

CUT_OFF = "cut_off"
"""The outcome of an attempt that was left before its end: cancelled, out of time, or broken by a fault of ours."""


@dataclass(slots=True)
class Trace:
    """What has been tried so far, how many attempts have begun, which model is answering, and what it was not told."""

    attempts: list[Attempt] = field(default_factory=list)
    begun: int = 0
    answering: Model | None = None
    dropped: tuple[str, ...] = ()
    last: UpstreamFailed | None = None
    started_s: float = 0.0

    @property
    def so_far(self) -> tuple[Attempt, ...]:
        """Every attempt; the one that is answering at the moment as it would be remembered if it were left now."""
        if self.answering is None or self.begun == len(self.attempts):
            return tuple(self.attempts)
        return (*self.attempts, self._attempt(self.answering, CUT_OFF, None))

    @property
    def lasted_s(self) -> float:
        """How long the attempt under way has lasted."""
        return time.monotonic() - self.started_s

    def begin(self) -> None:
        """An attempt begins."""
        self.begun += 1
        self.dropped = ()
        self.started_s = time.monotonic()

    def note(self, model: Model, outcome: str, status: int | None = None) -> None:
        """Remember the attempt."""
        self.attempts.append(self._attempt(model, outcome, status))

    def failed(self, model: Model, failure: UpstreamFailed) -> None:
        """Remember that the attempt failed."""
        self.last = failure
        self.note(model, failure.kind.value, failure.status)

    def _attempt(self, model: Model, outcome: str, status: int | None) -> Attempt:
        return Attempt(
            model=model.name,
            provider=model.provider,
            outcome=outcome,
            duration_ms=int(self.lasted_s * 1000),
            status=status,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """What chains are called with; one for all calls of a process."""

    upstreams: Upstreams
    board: Board = field(default_factory=Board)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    budget: RetryBudget


class ChainCall:
    """One call of a chain: its candidates in order, what is still worth trying, and what has failed."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        chat: ChatRequest,
        output_cap: int | None,
        trace: Trace,
        routing: Routing,
        *,
        total_s: float,
    ) -> None:
        self._chat = chat
        self._output_cap = output_cap
        self._trace = trace
        self._routing = routing
        self._until_s = time.monotonic() + total_s
        self._line = deque(candidates)
        self._resting: list[Candidate] = []
        self._failed: list[tuple[Candidate, UpstreamFailed]] = []
        self._dropped: set[str] = set()
        self._retries = 0
        self._is_answered = False

    async def events(self) -> AsyncGenerator[Delta | Finished]:
        """The events of the first candidate that gives any. Raises UpstreamFailed: the last failure, or one mid-stream.

        Falls through on technical failures and on what a model cannot do; never on the caller's own mistake and never
        after the first event.
        """
        self._routing.budget.called()
        while (candidate := await self._next()) is not None:
            async with aclosing(self._attempt(candidate)) as events:
                async for event in events:
                    yield event
            if self._is_answered:
                return
        raise self._trace.last or self._nobody_admits()

    async def _attempt(self, candidate: Candidate) -> AsyncGenerator[Delta | Finished]:
        """What this candidate answers; where it fails and others may do better, nothing."""
        model, trace, board = candidate.model, self._trace, self._routing.board
        request = UpstreamRequest(model=model, chat=self._chat, output_cap=self._output_cap)
        trace.begin()
        try:
            upstream = self._routing.upstreams.chat_model(model, candidate.provider)
            async with aclosing(_in_time(_events_of(upstream, request), request)) as events:
                async for event in events:
                    if isinstance(event, Dropped):
                        trace.dropped = event.names
                        continue
                    if trace.answering is None:
                        trace.answering = model
                        board.answered(candidate.key, trace.lasted_s, stream=self._chat.stream)
                    if isinstance(event, Finished):
                        finished = event
                    else:
                        yield event
            trace.note(model, "ok")
            board.succeeded(candidate.key)
        except UpstreamFailed as failure:
            trace.failed(model, failure)
            board.failed(candidate.key, failure)
            if trace.answering is not None or failure.kind is Failure.CALLER:
                raise
            self._note(candidate, failure)
        except BaseException:
            trace.note(model, CUT_OFF)
            board.left(candidate.key)
            raise
        else:
            self._is_answered = True
            yield finished  # whoever hears it listens no further, so it comes when all is noted

    def _note(self, candidate: Candidate, failure: UpstreamFailed) -> None:
        """A connection that was dropped is tried again at once: those that are kept alive die of old age."""
        if failure.kind is Failure.CONTEXT_WINDOW:
            window = candidate.model.context_window
            self._line = deque(each for each in self._line if each.model.context_window > window)
        elif failure.kind is Failure.DROPPED and candidate.key not in self._dropped and self._may_retry():
            self._dropped.add(candidate.key)
            self._line.appendleft(candidate)
        else:
            self._failed.append((candidate, failure))

    async def _next(self) -> Candidate | None:
        """The next candidate that is not resting; when all have failed, one of them again, if that may help."""
        while True:
            while self._line:
                candidate = self._line.popleft()
                if self._routing.board.admit(candidate.key):
                    return candidate
                self._resting.append(candidate)
            if not await self._paused():
                return None

    async def _paused(self) -> bool:
        """Wait until the likeliest of those that failed may be tried again; False where that is not to be."""
        policy, left_s = self._routing.retry, self._until_s - time.monotonic()
        pauses = [
            (seconds, place)
            for place, (_, failure) in enumerate(self._failed)
            if (seconds := pause_s(policy, self._retries, failure, left_s)) is not None
        ]
        if not pauses or not self._may_retry():
            return False
        seconds, place = min(pauses)
        candidate, _ = self._failed.pop(place)
        self._retries += 1
        await asyncio.sleep(seconds)
        self._line.append(candidate)
        return True

    def _may_retry(self) -> bool:
        return self._routing.budget.take(time.monotonic())

    def _nobody_admits(self) -> UpstreamFailed:
        """Nothing was called: every deployment is resting after failures."""
        wait_s = min((self._routing.board.retry_in_s(each.key) for each in self._resting), default=0.0)
        return UpstreamFailed(
            Failure.RESTING, "The providers of this model are failing and are given a rest.", retry_after_s=wait_s
        )


async def _events_of(upstream: ChatModel, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
    """Whole answers and streams as the same kind of events."""
    if not request.chat.stream:
        for event in (await upstream.complete(request)).events():
            yield event
        return
    async with aclosing(upstream.stream(request)) as events:
        async for event in events:
            yield event
            if isinstance(event, Finished):
                return
    raise UpstreamFailed(Failure.DROPPED, "The provider's stream ended before the answer did.")


def _in_time(events: AsyncGenerator[UpstreamEvent], request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
    """The same events, unless one is late by the model's own deadlines."""
    deadlines = request.model.deadlines
    return events if deadlines == PATIENT else _limited(events, deadlines, stream=request.chat.stream)


async def _limited(
    events: AsyncGenerator[UpstreamEvent], deadlines: Deadlines, *, stream: bool
) -> AsyncGenerator[UpstreamEvent]:
    """A whole answer is silent until it is there: only its total counts."""
    began_s = time.monotonic()
    wait_s = deadlines.first_event_s if stream else None
    async with aclosing(events):
        while True:
            left_s = None if deadlines.total_s is None else began_s + deadlines.total_s - time.monotonic()
            limits = [each for each in (wait_s, left_s) if each is not None]
            try:
                async with asyncio.timeout(min(limits, default=None)):
                    event = await anext(events)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise UpstreamFailed(Failure.TIMEOUT, "The provider did not answer in time.") from None
            yield event
            wait_s = deadlines.between_events_s


def as_gateway_error(failure: UpstreamFailed, tried: int) -> GatewayError:
    """What the caller is told when the chain is exhausted."""
    if failure.kind in (Failure.CALLER, Failure.UNSUPPORTED, Failure.CONTEXT_WINDOW):
        code = CONTEXT_TOO_LONG if failure.kind is Failure.CONTEXT_WINDOW else failure.code
        return InvalidRequest(failure.message, param=failure.param, code=code)
    details = {"attempts": tried, "reason": failure.kind.value}
    if failure.kind is Failure.RESTING:
        return ProvidersResting(failure.message, details=details, retry_after_s=failure.retry_after_s)
    if failure.kind is Failure.TIMEOUT:
        return ProvidersTimedOut(failure.message, details=details, retry_after_s=failure.retry_after_s)
    return ProvidersFailed(failure.message, details=details, retry_after_s=failure.retry_after_s)
