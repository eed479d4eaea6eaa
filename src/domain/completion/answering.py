"""An answer being generated, in a task of its own: whoever listens may come and go, the books are kept all the same."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from src.domain.catalog.model import Model, Provider, Usage
from src.domain.completion.content import answer_text
from src.domain.completion.deltas import words_in
from src.domain.completion.fallback import ChainCall, Routing, Trace, as_gateway_error
from src.domain.completion.holding import HoldingPolicy, Plan
from src.domain.completion.lease import Lease, Noted
from src.domain.completion.model import (
    CacheUse,
    Call,
    Delivered,
    Delta,
    Failure,
    Finished,
    FinishReason,
    Outcome,
    UpstreamFailed,
    WireChunk,
)
from src.domain.completion.ports import TokenMeter
from src.domain.completion.progress import Progress
from src.domain.completion.settlement import closing_of, fault_of, is_plausible, usage_record
from src.domain.ledger.model import CallStatus, Hold
from src.domain.ledger.ports import Ledger
from src.domain.routing.candidates import Candidate, can_do, candidates, sticky_word
from src.shared.clock import Clock
from src.shared.errors import GatewayError, ProvidersFailed, Unavailable
from src.shared.money import MicroDollars


@dataclass(frozen=True, slots=True)
class _CutOff:
    """An end before the provider's own. `error` is what listeners are told, if it was not they who left."""

    status: CallStatus
    error: GatewayError | None
    reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPorts:
    """What an answer needs while it is generated and when it ends.

    Every `progress_s` its hold is renewed, and what has been delivered is noted in it.
    """

    ledger: Ledger
    routing: Routing
    meter: TokenMeter
    clock: Clock
    total_timeout_s: float
    progress_s: float = 3.0
    holding: HoldingPolicy = field(default_factory=HoldingPolicy)


class Answering:
    """The events of one answer as they come, kept until it is settled, for any number of listeners."""

    def __init__(
        self, call: Call, hold: Hold, plan: Plan, providers: Mapping[str, Provider], ports: AnswerPorts
    ) -> None:
        self.call = call
        self.id = hold.id
        self.output_cap = plan.shrunk_cap(hold)
        self._upstream_cap = plan.upstream_cap(hold)
        self._prompt_bound = plan.request.demand.prompt_tokens
        self._lease = Lease(
            hold,
            plan,
            ledger=ports.ledger,
            clock=ports.clock,
            lease_s=ports.holding.lease_s,
            every_s=ports.progress_s,
            note=self._noted,
            cancelled=self.cancel,
            exhausted=self._exhausted,
        )
        self._providers = providers
        self._ports = ports
        self._started_at = ports.clock()
        self._trace = Trace()
        self._deltas: list[Delta] = []
        self._progress = Progress(self._deltas)
        self._outcome: Outcome | None = None
        self._broken: GatewayError | None = None
        self._listeners: set[asyncio.Future[None]] = set()
        self._followers = 0
        self._is_detached = call.detached
        self._task: asyncio.Task[None] | None = None
        self._is_generating = False
        self._cancelled: _CutOff | None = None
        self._prompt_tokens: int | None = None

    def start(self) -> "asyncio.Task[None]":
        """Begin; the caller keeps the task alive and drains it at shutdown."""
        self._task = asyncio.create_task(self._run(), name=f"answer {self.id}")
        return self._task

    def cancel(self, reason: GatewayError | None = None) -> None:
        """Stop the upstream; what was generated is charged and kept. The settlement itself is never cancelled.

        `reason` is what listeners are told, where it was not they who wanted it to stop.
        """
        if reason is None:
            self._stop(_CutOff(CallStatus.CANCELLED, None, FinishReason.CANCELLED))
        else:
            self._stop(_CutOff(CallStatus.INTERRUPTED, reason, FinishReason.ERROR))

    def _exhausted(self) -> None:
        """The quota pays for no more: the answer ends here, as it does at any other limit of its length."""
        self._stop(_CutOff(CallStatus.COMPLETED, None, FinishReason.LENGTH))

    def _stop(self, how: _CutOff) -> None:
        if self._cancelled is None:
            self._cancelled = how
            if self._task is not None and self._is_generating and self._task is not asyncio.current_task():
                self._task.cancel()

    def detach(self) -> None:
        """From now on it goes on when nobody listens: others wait for its end."""
        self._is_detached = True

    async def deltas(self, start: int = 0) -> AsyncGenerator[Delta]:
        """Deltas from the given position until the answer is settled.

        When the last listener leaves early the call is stopped, unless it is detached.
        """
        self._followers += 1
        try:
            position = start
            while True:
                while position < len(self._deltas):
                    yield self._deltas[position]
                    position += 1
                if self._is_over:
                    return
                await self._news()
        finally:
            self._followers -= 1
            if not self._is_over and not self._is_detached and not self._followers:
                self.cancel()

    async def outcome(self) -> Outcome:
        """How it ended, once that is durable. Raises Unavailable when it could not be stored."""
        while not self._is_over:
            await self._news()
        if self._broken is not None:
            raise self._broken
        assert self._outcome is not None  # noqa: S101
        return self._outcome

    @property
    def model(self) -> Model | None:
        """The model that is answering, once one is."""
        return self._trace.answering

    @property
    def attempts(self) -> int:
        """Upstream calls so far, the one under way included."""
        return self._trace.begun

    @property
    def cache(self) -> CacheUse | None:
        """What the response cache had for it: nothing, or it is off."""
        return self.call.cache_use

    @property
    def dropped(self) -> tuple[str, ...]:
        """Names of parameters that the model which is answering was not told."""
        return self._trace.dropped

    async def prompt_tokens(self) -> int:
        """Our own estimate of the prompt, for whoever must know it where or when the provider does not say.

        Made at most once.
        """
        if self._prompt_tokens is None:
            model = self.model or self.call.route.models[0]
            self._prompt_tokens = await self._ports.meter.prompt_estimate(self.call.chat, model)
        return self._prompt_tokens

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to end before its upstream's own end."""
        return self._cancelled is not None

    @property
    def has_begun(self) -> bool:
        """Whether anything was delivered."""
        return bool(self._deltas)

    @property
    def is_relayed(self) -> bool:
        """Whether the upstream's own bytes are handed on."""
        return bool(self._deltas) and isinstance(self._deltas[0], WireChunk)

    @property
    def _is_over(self) -> bool:
        return self._outcome is not None or self._broken is not None

    async def _news(self) -> None:
        listener: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listeners.add(listener)
        try:
            await listener
        finally:
            self._listeners.discard(listener)

    def _announce(self) -> None:
        for listener in tuple(self._listeners):
            if not listener.done():
                listener.set_result(None)

    async def _run(self) -> None:
        used_tokens = 0
        try:
            outcome = await self._generate()
            used_tokens = outcome.usage.total_tokens
            await self._lease.cover(outcome.usage.output_tokens)
            hold = self._lease.hold
            closing = closing_of(self.call, hold, outcome)
            row = usage_record(self.call, hold, outcome, closing, self._started_at)
            await self._ports.ledger.close(closing, (row, *self.call.closing(outcome)))
            self._outcome = outcome
        except GatewayError as error:
            self._broken = error
        except BaseException:
            self._broken = Unavailable("The answer could not be stored; it was not charged. Try again.")
            raise
        finally:
            try:
                await self.call.permit.end(used_tokens)  # before anybody hears of it, who may ask again at once
            finally:
                self._announce()

    async def _generate(self) -> Outcome:
        """However the call ends, an outcome. What must be counted is counted when nothing can cancel it any more."""
        ended = await self._ended()
        outcome = await (self._completed(ended) if isinstance(ended, Finished) else self._cut_off(ended))
        if self.call.keeps_prompt_estimate and self._deltas and not self.is_relayed:
            return replace(outcome, prompt_estimate=await self.prompt_tokens())
        return outcome

    async def _ended(self) -> Finished | _CutOff:
        """Call the chain within the total time, to any of its ends."""
        if self._cancelled is not None:  # before the task had its first turn
            return self._cancelled
        self._is_generating = True
        self._lease.start()
        try:
            async with asyncio.timeout(self._ports.total_timeout_s):
                return await self._listen()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101
            task.uncancel()
            return self._cancelled or _CutOff(CallStatus.CANCELLED, None, FinishReason.CANCELLED)
        except TimeoutError:
            seconds = f"{self._ports.total_timeout_s:g}"
            late = UpstreamFailed(Failure.TIMEOUT, f"The provider did not finish within {seconds} seconds.")
            return _CutOff(CallStatus.INTERRUPTED, self._error_of(late), FinishReason.ERROR)
        except UpstreamFailed as failure:
            return _CutOff(CallStatus.INTERRUPTED, self._error_of(failure), FinishReason.ERROR)
        except Exception as error:  # noqa: BLE001 - an adapter's own fault must not lose the hold
            broken = UpstreamFailed(Failure.MALFORMED, "The provider's answer could not be read.")
            broken.__cause__ = error
            return _CutOff(CallStatus.INTERRUPTED, self._error_of(broken), FinishReason.ERROR)
        finally:
            self._is_generating = False
            self._lease.stop()

    def _error_of(self, failure: UpstreamFailed) -> GatewayError:
        error = as_gateway_error(failure, len(self._trace.attempts))
        error.__cause__ = failure
        return error

    async def _listen(self) -> Finished | _CutOff:
        chain = ChainCall(
            await self._candidates(),
            self.call.chat,
            self._upstream_cap,
            self._trace,
            self._ports.routing,
            total_s=self._ports.total_timeout_s,
        )
        events = chain.events()
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Finished):
                    return event
                self._deltas.append(event)
                self._announce()
                if self._lease.counts_output:
                    await self._lease.wrote(self._written_tokens())
                if self._cancelled is not None:  # this very piece was more than can be paid for
                    return self._cancelled
        raise UpstreamFailed(Failure.MALFORMED, "The provider's answer had no end.")

    async def _candidates(self) -> list[Candidate]:
        """Where the call may go, best first: not where it cannot be paid for, nor where it cannot be done.

        Where no model can do what is asked, all are left, for one of them to say so.
        """
        call = self.call
        sticky = sticky_word(call.chat, call.dialog_id)
        found = candidates(
            call.route,
            self._providers,
            self._ports.routing.board,
            stream=call.chat.stream,
            sticky=sticky,
            now=self._started_at,
        )
        paid = [each for each in found if each.model.name not in self._lease.hold.excluded_models]
        able = [each for each in paid if can_do(each, call.chat)] or paid
        return [each for each in able if await self._fits(each.model)] or able

    async def _fits(self, model: Model) -> bool:
        """Whether the prompt is within the model's window (of which several have one each): counted if need be."""
        window = model.context_window * self.call.chat.prompts
        surely = len(self.call.route.models) == 1 or self._prompt_bound <= window
        return surely or await self._ports.meter.prompt_estimate(self.call.chat, model) <= window

    def _written_tokens(self) -> int:
        model = self._trace.answering
        return 0 if model is None else self._progress.tokens(lambda text: self._ports.meter.count(text, model))

    async def _noted(self) -> Noted | None:
        """The call as it would be settled if it were cut off now, for whoever closes its hold if we die."""
        if not self._deltas or self._trace.answering is None:
            return None
        so_far = await self._cut_off(_CutOff(CallStatus.INTERRUPTED, None, FinishReason.ERROR))
        hold = self._lease.hold
        closing = closing_of(self.call, hold, so_far)
        usage = usage_record(self.call, hold, so_far, closing, self._started_at)
        return Noted(usage, self.call.noting(so_far))

    async def _counted(self, delivered: Delivered, model: Model) -> Usage:
        """Our own count of what was generated, and of the prompt where the stream told none that can be true."""
        written = self._ports.meter.count(delivered.text, model)
        told = delivered.usage
        if told is not None and told.input_tokens > 0 and is_plausible(told, model):
            # It may have told of more output so far than there are words: of thoughts that nobody is shown.
            return replace(told, output_tokens=max(written, told.output_tokens), estimated=True)
        return Usage(input_tokens=await self.prompt_tokens(), output_tokens=written, estimated=True)

    async def _completed(self, finished: Finished) -> Outcome:
        model = self._trace.answering
        assert model is not None  # noqa: S101 - somebody said Finished
        usage = finished.usage
        fault = fault_of(usage, model, max(self.call.chat.prompts, finished.readings))
        if usage is None or fault:
            usage = await self._counted(self._progress.delivered(), model)
        return replace(
            self._ending(CallStatus.COMPLETED, model, usage),
            text=words_in(self._deltas) or answer_text(finished.parts),
            finish_reason=finished.reason,
            upstream_model=finished.upstream_model,
            wire=finished.wire,
            told_parts=finished.parts,
            stop_sequence=finished.stop_sequence,
            vectors=finished.vectors,
            flags=(fault,) if fault else (),
        )

    async def _cut_off(self, cut_off: _CutOff) -> Outcome:
        """Charged for what was delivered; a call that delivered nothing has failed and costs nothing."""
        error, reason = cut_off.error, cut_off.reason
        model = self._trace.answering
        if model is None or not self._deltas:
            error = error or ProvidersFailed("The call was cancelled before the provider answered.")
            return replace(self._ending(CallStatus.FAILED, model, Usage()), finish_reason=reason, error=error)
        delivered = self._progress.delivered()
        ending = self._ending(cut_off.status, model, await self._counted(delivered, model))
        text = delivered.words if self.is_relayed else words_in(self._deltas)
        return replace(ending, text=text, told_parts=delivered.parts, finish_reason=reason, error=error)

    def _ending(self, status: CallStatus, model: Model | None, usage: Usage) -> Outcome:
        return Outcome(
            id=self.call.answer_id or self.id,
            status=status,
            text="",
            finish_reason=FinishReason.STOP,
            usage=replace(usage, reasoning_tokens=max(0, min(usage.reasoning_tokens, usage.output_tokens))),
            cost_micro_usd=model.price_at(self._started_at).cost(usage) if model else MicroDollars(0),
            model=model,
            upstream_model=None,
            attempts=self._trace.so_far,
            ended_at=self._ports.clock(),
            deltas=self._deltas,
            output_cap=self.output_cap,
            cache=self.cache,
            dropped=self.dropped,
        )
