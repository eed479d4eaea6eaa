"""An answer in a task of its own: however it ends, it is settled exactly once."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from src.domain.catalog.model import Model, Usage
from src.domain.completion.answering import Answering
from src.domain.completion.deltas import TextDelta
from src.domain.completion.fallback import CUT_OFF
from src.domain.completion.holding import plan_hold
from src.domain.completion.model import (
    Call,
    ChatRequest,
    Delivered,
    Failure,
    Finished,
    FinishReason,
    Outcome,
    Parameters,
    UpstreamFailed,
    WireChunk,
)
from src.domain.completion.settlement import USAGE_ABSURD, USAGE_MISSING
from src.domain.completion.use_cases import begin
from src.domain.ledger.model import CallStatus, Demand, HoldRequest, HoldState, Record
from src.shared.errors import Conflict, ProvidersFailed, ProvidersTimedOut, QuotaExceeded, Unavailable
from tests.makers import make_hold_request, nobody
from tests.unit.support import (
    DONE,
    USAGE,
    FakeLedger,
    FakeUpstreams,
    Gate,
    ScriptedModel,
    Step,
    WordMeter,
    answers,
    completion_ports,
    make_call,
    make_catalog,
    make_model,
    user_says,
)

CHARGED_TOKENS = USAGE.total_tokens
COUNTED = Usage(input_tokens=3, output_tokens=1, estimated=True)
"""What our meter counts for `how are you` and one word."""


class Estimator(WordMeter):
    """Notes how often a prompt is estimated, which may wait at a gate. `tools` is what it has beside its messages."""

    def __init__(self) -> None:
        self.estimates = 0
        self.tools = 0
        self.gate: Gate | None = None

    async def prompt_estimate(self, chat: ChatRequest, model: Model) -> int:
        self.estimates += 1
        if self.gate is not None:
            await self.gate.wait()
        return await super().prompt_estimate(chat, model) + self.tools


class Scene:
    """A call of a user with a thousand tokens, and what became of it."""

    def __init__(self, *script: Step, call: Call | None = None, timeout_s: float = 5.0, **given: Any) -> None:
        self.call = call or make_call(**given)
        self.ledger = FakeLedger()
        self.account = self.ledger.top_up(self.call.principal, 1000)
        self.model = ScriptedModel(script)
        ports = completion_ports(self.ledger, FakeUpstreams(fast=self.model), make_catalog())
        self.meter = Estimator()
        self.ports = replace(ports, answers=replace(ports.answers, total_timeout_s=timeout_s, meter=self.meter))
        self.answering: Answering | None = None

    async def begin(self) -> Answering:
        self.answering = await begin(self.call, self.ports)
        return self.answering

    async def outcome(self) -> Outcome:
        return await (await self.begin()).outcome()

    async def over(self) -> None:
        await asyncio.gather(*self.ports.keeper.running)

    def was_settled_once(self, *, tokens: int) -> bool:
        account = self.ledger.book.account(self.account.id)
        state = HoldState.SETTLED if tokens else HoldState.RELEASED
        assert self.ledger.states == [state]
        assert (account.balance, account.held, account.spent) == (1000 - tokens, 0, tokens)
        assert len(self.ledger.usage_rows) == 1
        return True


def words_in(data: bytes) -> Delivered:
    return Delivered(data.decode())


async def texts_of(answering: Answering, start: int = 0) -> list[str]:
    return [delta.text async for delta in answering.deltas(start) if isinstance(delta, TextDelta)]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_whole_answer_is_charged_as_reported(stream: bool) -> None:
    scene = Scene(*answers("fi", "ne"), chat=user_says("how are you", stream=stream))
    outcome = await scene.outcome()
    assert (outcome.status, outcome.text, outcome.finish_reason) == (CallStatus.COMPLETED, "fine", FinishReason.STOP)
    assert (outcome.usage, outcome.flags, outcome.error) == (USAGE, (), None)
    assert (outcome.cost_micro_usd, outcome.upstream_model) == (5 + 2 * 2, "fast-2026")
    assert [(each.model, each.outcome) for each in outcome.attempts] == [("fast", "ok")]
    assert scene.was_settled_once(tokens=CHARGED_TOKENS)


async def test_rows_of_the_caller_commit_with_the_hold_and_with_the_settlement() -> None:
    opening, closing = Record(), Record()
    scene = Scene(*answers("fine"), opening=(opening,), closing=lambda _: (closing,), message_id=nobody())
    outcome = await scene.outcome()
    row = scene.ledger.usage_rows[0]
    assert scene.ledger.records == [opening, row, closing]
    assert (row.usage, row.cost_micro_usd, row.message_id) == (USAGE, outcome.cost_micro_usd, scene.call.message_id)


async def test_what_cannot_be_paid_is_not_called() -> None:
    scene = Scene(*answers("fine"))
    await scene.ledger.open(request_of_everything(scene))
    with pytest.raises(QuotaExceeded):
        await scene.begin()
    assert scene.model.requests == []
    assert not scene.ports.keeper.running


def request_of_everything(scene: Scene) -> HoldRequest:
    return make_hold_request(scene.call.principal.user, demand=Demand(prompt_tokens=1000, output_tokens=0))


async def test_the_worst_case_is_held_while_the_model_thinks() -> None:
    gate = Gate()
    scene = Scene(gate, *answers("fine"), chat=user_says("how are you", parameters=Parameters(max_output_tokens=40)))
    answering = await scene.begin()
    await gate.reached.wait()
    assert scene.ledger.book.account(scene.account.id).held == 3 + 10 + 40
    assert scene.model.requests[0].max_output_tokens == 40
    gate.opened.set()
    await answering.outcome()
    assert scene.was_settled_once(tokens=CHARGED_TOKENS)


@pytest.mark.parametrize(
    ("reported", "flags"),
    [
        (None, (USAGE_MISSING,)),
        (Usage(), (USAGE_MISSING,)),
        (Usage(input_tokens=-5, output_tokens=-5), (USAGE_ABSURD,)),
        (Usage(input_tokens=10**12, output_tokens=1), (USAGE_ABSURD,)),
        (Usage(input_tokens=1, output_tokens=1, cache_read_tokens=2), (USAGE_ABSURD,)),
    ],
)
async def test_a_report_that_cannot_be_true_is_replaced_by_our_count(
    reported: Usage | None, flags: tuple[str, ...]
) -> None:
    scene = Scene(*answers("fine", finished=Finished(reason=FinishReason.STOP, usage=reported)))
    outcome = await scene.outcome()
    assert (outcome.usage, outcome.flags) == (COUNTED, flags)
    assert scene.was_settled_once(tokens=4)


@pytest.mark.parametrize(("readings", "flags"), [(1, (USAGE_ABSURD,)), (2, ())])
async def test_a_model_may_read_as_much_again_after_each_tool_that_its_provider_ran(
    readings: int, flags: tuple[str, ...]
) -> None:
    claim = Usage(input_tokens=2 * make_model().context_window, output_tokens=1)
    finished = Finished(reason=FinishReason.STOP, usage=claim, readings=readings)
    outcome = await Scene(*answers("fine", finished=finished)).outcome()
    assert (outcome.flags, outcome.usage == claim) == (flags, not flags)


async def test_a_claim_above_the_hold_is_charged_up_to_the_hold() -> None:
    chat = user_says("how are you", stream=True, parameters=Parameters(max_output_tokens=1))
    claim = Finished(reason=FinishReason.STOP, usage=Usage(input_tokens=3, output_tokens=500))
    scene = Scene(*answers("fine", finished=claim), chat=chat)
    assert (await scene.outcome()).usage.output_tokens == 500
    assert scene.was_settled_once(tokens=14)
    assert scene.ledger.usage_rows[0].flags == ("over_hold",)


async def test_a_failed_call_costs_nothing() -> None:
    scene = Scene(UpstreamFailed(Failure.SERVER, "The provider failed.", status=500))
    outcome = await scene.outcome()
    assert (outcome.status, outcome.usage, outcome.cost_micro_usd) == (CallStatus.FAILED, Usage(), 0)
    assert isinstance(outcome.error, ProvidersFailed)
    assert outcome.error.details == {"attempts": 1, "reason": "server_error"}
    assert (outcome.model, outcome.finish_reason) == (None, FinishReason.ERROR)
    assert scene.was_settled_once(tokens=0)


async def test_an_answer_cut_off_is_charged_for_what_was_delivered() -> None:
    scene = Scene(TextDelta("fine"), UpstreamFailed(Failure.DROPPED, "The connection was lost."))
    outcome = await scene.outcome()
    assert (outcome.status, outcome.text, outcome.usage) == (CallStatus.INTERRUPTED, "fine", COUNTED)
    assert isinstance(outcome.error, ProvidersFailed)
    assert scene.was_settled_once(tokens=4)


async def test_relayed_bytes_that_were_cut_off_are_read_for_their_words() -> None:
    chunks = [WireChunk(text, words_in) for text in (b"one two ", b"three")]
    scene = Scene(*chunks, UpstreamFailed(Failure.DROPPED, "The connection was lost."))
    outcome = await scene.outcome()
    assert (outcome.text, outcome.usage.output_tokens) == ("one two three", 3)
    assert scene.answering is not None
    assert scene.answering.is_relayed
    assert scene.was_settled_once(tokens=6)


TOLD = Usage(input_tokens=50, output_tokens=1, cache_read_tokens=20, cache_write_tokens=10)


@pytest.mark.parametrize(
    "end", [UpstreamFailed(Failure.DROPPED, "The connection was lost."), Finished(reason=FinishReason.STOP)]
)
async def test_a_prompt_that_the_stream_told_is_charged_where_its_end_tells_none(end: Step) -> None:
    scene = Scene(WireChunk(b"one two", lambda data: Delivered(data.decode(), TOLD)), end)
    outcome = await scene.outcome()
    assert outcome.usage == replace(TOLD, output_tokens=2, estimated=True)
    assert scene.meter.estimates == 0


async def test_thoughts_that_the_stream_told_of_are_charged_where_nobody_saw_them() -> None:
    told = Usage(input_tokens=5, output_tokens=9, reasoning_tokens=8)
    failure = UpstreamFailed(Failure.DROPPED, "The connection was lost.")
    scene = Scene(WireChunk(b"one", lambda data: Delivered(data.decode(), told)), failure)
    assert (await scene.outcome()).usage == replace(told, estimated=True)
    assert scene.was_settled_once(tokens=14)


@pytest.mark.parametrize("lie", [-1, 10])
async def test_no_more_thoughts_are_told_than_there_was_output(lie: int) -> None:
    reported = Usage(input_tokens=5, output_tokens=9, reasoning_tokens=lie)
    outcome = await Scene(TextDelta("fine"), Finished(reason=FinishReason.STOP, usage=reported)).outcome()
    assert outcome.usage == replace(reported, reasoning_tokens=max(0, min(lie, 9)))


@pytest.mark.parametrize(
    "told",
    [
        Usage(output_tokens=1),
        Usage(input_tokens=-1),
        Usage(input_tokens=10**12),
        Usage(input_tokens=5, cache_read_tokens=6),
    ],
)
async def test_a_told_prompt_that_cannot_be_true_is_replaced_by_our_estimate(told: Usage) -> None:
    failure = UpstreamFailed(Failure.DROPPED, "The connection was lost.")
    scene = Scene(WireChunk(b"one", lambda data: Delivered(data.decode(), told)), failure)
    assert (await scene.outcome()).usage == COUNTED
    assert scene.was_settled_once(tokens=4)


async def test_a_cut_off_answer_is_charged_for_more_of_the_prompt_than_its_messages() -> None:
    scene = Scene(TextDelta("fine"), UpstreamFailed(Failure.DROPPED, "The connection was lost."))
    scene.meter.tools = 7
    assert (await scene.outcome()).usage.input_tokens == 10
    assert scene.was_settled_once(tokens=11)


async def test_a_prompt_is_estimated_only_where_somebody_asks_and_then_once() -> None:
    scene = Scene(*answers("fine"))
    answering = await scene.begin()
    await answering.outcome()
    assert scene.meter.estimates == 0
    assert [await answering.prompt_tokens(), await answering.prompt_tokens()] == [3, 3]
    assert scene.meter.estimates == 1


async def test_cancelling_does_not_disturb_the_count() -> None:
    gate = Gate()
    scene = Scene(TextDelta("fine"), gate)
    scene.meter.gate = Gate()
    answering = await scene.begin()
    await gate.reached.wait()
    answering.cancel()
    await scene.meter.gate.reached.wait()
    answering.cancel()
    await asyncio.sleep(0)
    scene.meter.gate.opened.set()
    assert (await answering.outcome()).usage == COUNTED
    assert scene.was_settled_once(tokens=4)


async def test_relayed_bytes_of_a_whole_answer_are_handed_on() -> None:
    tail = Finished(reason=FinishReason.STOP, usage=USAGE, wire=b"data: [DONE]\n\n")
    scene = Scene(WireChunk(b"data: hi\n\n", words_in), tail)
    answering = await scene.begin()
    assert [delta async for delta in answering.deltas()] == [WireChunk(b"data: hi\n\n", words_in)]
    assert (await answering.outcome()).wire == tail.wire
    assert scene.was_settled_once(tokens=CHARGED_TOKENS)


@pytest.mark.parametrize("error", [ValueError("oops"), KeyError("choices"), RuntimeError()])
@pytest.mark.parametrize(("before", "tokens"), [((), 0), ((TextDelta("fine"),), 4)])
async def test_a_fault_of_an_adapter_loses_no_hold(error: Exception, before: tuple[Step, ...], tokens: int) -> None:
    scene = Scene(*before, error)
    outcome = await scene.outcome()
    assert isinstance(outcome.error, ProvidersFailed)
    assert outcome.error.message == "The provider's answer could not be read."
    assert scene.was_settled_once(tokens=tokens)


@pytest.mark.parametrize(("before", "tokens"), [((), 0), ((TextDelta("fine"),), 4)])
async def test_an_answer_that_takes_too_long_is_cut_off(before: tuple[Step, ...], tokens: int) -> None:
    scene = Scene(*before, Gate(), timeout_s=0.01)
    outcome = await scene.outcome()
    assert isinstance(outcome.error, ProvidersTimedOut)
    assert outcome.error.details == {"attempts": 1, "reason": "timeout"}
    assert [each.outcome for each in outcome.attempts] == [CUT_OFF]
    assert scene.model.left == 1
    assert scene.was_settled_once(tokens=tokens)


@pytest.mark.parametrize(
    ("before", "status", "tokens"),
    [((), CallStatus.FAILED, 0), ((TextDelta("fine"),), CallStatus.CANCELLED, 4)],
)
async def test_a_cancelled_answer_is_charged_for_what_was_delivered(
    before: tuple[Step, ...], status: CallStatus, tokens: int
) -> None:
    gate = Gate()
    scene = Scene(*before, gate)
    answering = await scene.begin()
    await gate.reached.wait()
    answering.cancel()
    outcome = await answering.outcome()
    assert (outcome.status, outcome.finish_reason) == (status, FinishReason.CANCELLED)
    assert (outcome.error is None) == (status is CallStatus.CANCELLED)
    assert scene.model.left == 1
    assert scene.was_settled_once(tokens=tokens)


async def test_an_answer_cancelled_before_its_first_turn_gives_back_its_hold() -> None:
    scene = Scene(*answers("fine"))
    answering = await scene.begin()
    answering.cancel()
    assert (await answering.outcome()).status is CallStatus.FAILED
    assert scene.model.requests == []
    assert scene.was_settled_once(tokens=0)


async def test_cancelling_does_not_disturb_the_settlement() -> None:
    scene = Scene(*answers("fine"))
    scene.ledger.gate = Gate()
    answering = await scene.begin()
    await scene.ledger.gate.reached.wait()
    for _ in range(3):
        answering.cancel()
        await asyncio.sleep(0)
    scene.ledger.gate.opened.set()
    assert (await answering.outcome()).status is CallStatus.COMPLETED
    assert scene.was_settled_once(tokens=CHARGED_TOKENS)


async def test_cancelling_again_and_again_settles_once() -> None:
    gate = Gate()
    scene = Scene(TextDelta("fine"), gate)
    scene.ledger.gate = Gate()
    answering = await scene.begin()
    await gate.reached.wait()
    answering.cancel()
    answering.cancel()
    await scene.ledger.gate.reached.wait()
    answering.cancel()
    scene.ledger.gate.opened.set()
    assert (await answering.outcome()).status is CallStatus.CANCELLED
    answering.cancel()
    assert scene.was_settled_once(tokens=4)


async def test_an_answer_that_was_never_started_is_cancelled_quietly() -> None:
    scene = Scene(*answers("fine"))
    answers_ports = scene.ports.answers
    plan = await plan_hold(scene.call, answers_ports.meter, answers_ports.clock, answers_ports.holding)
    Answering(scene.call, await scene.ledger.open(plan.request), plan, {}, answers_ports).cancel()
    assert scene.ledger.states == []


async def test_listeners_come_and_go() -> None:
    gate = Gate()
    scene = Scene(TextDelta("one"), TextDelta("two"), gate, TextDelta("three"), DONE, detached=True)
    answering = await scene.begin()
    early = asyncio.create_task(texts_of(answering))
    await gate.reached.wait()
    assert (answering.has_begun, answering.attempts) == (True, 1)
    async with aclosing(answering.deltas()) as passing:
        assert await anext(passing) == TextDelta("one")
    waiting = asyncio.create_task(texts_of(answering, 2))
    await asyncio.sleep(0)
    gate.opened.set()
    assert await early == ["one", "two", "three"]
    assert await waiting == ["three"]
    assert await texts_of(answering, 1) == ["two", "three"]
    assert scene.was_settled_once(tokens=CHARGED_TOKENS)


async def test_deltas_end_when_the_answer_is_settled_and_not_before() -> None:
    scene = Scene(*answers("fine"))
    scene.ledger.gate = Gate()
    answering = await scene.begin()
    heard = asyncio.create_task(texts_of(answering))
    await scene.ledger.gate.reached.wait()
    assert not heard.done()
    scene.ledger.gate.opened.set()
    assert await heard == ["fine"]
    assert scene.was_settled_once(tokens=CHARGED_TOKENS)


@pytest.mark.parametrize(("detached", "status"), [(False, CallStatus.CANCELLED), (True, CallStatus.COMPLETED)])
async def test_leaving_early_stops_the_call_unless_it_is_detached(detached: bool, status: CallStatus) -> None:
    gate = Gate()
    scene = Scene(TextDelta("fine"), gate, DONE, detached=detached)
    answering = await scene.begin()
    async with aclosing(answering.deltas()) as deltas:
        await anext(deltas)
    gate.opened.set()
    assert (await answering.outcome()).status is status
    assert scene.was_settled_once(tokens=CHARGED_TOKENS if detached else 4)


async def test_a_listener_that_is_cancelled_while_it_waits_stops_the_call() -> None:
    gate = Gate()
    scene = Scene(TextDelta("fine"), gate)
    listener = asyncio.create_task(texts_of(await scene.begin()))
    await gate.reached.wait()
    listener.cancel()
    await scene.over()
    assert scene.ledger.usage_rows[0].status is CallStatus.CANCELLED
    assert scene.was_settled_once(tokens=4)


@pytest.mark.parametrize("error", [Unavailable("The database is away."), Conflict("Closed already.")])
async def test_an_answer_that_cannot_be_stored_is_not_given(error: Exception) -> None:
    scene = Scene(*answers("fine"))
    scene.ledger.failure = error
    answering = await scene.begin()
    assert await texts_of(answering) == ["fine"]
    with pytest.raises(type(error)) as caught:
        await answering.outcome()
    assert caught.value is error
    assert scene.ledger.usage_rows == []


async def test_a_ledger_that_breaks_leaves_nobody_waiting() -> None:
    scene = Scene(*answers("fine"))
    scene.ledger.failure = ZeroDivisionError()
    answering = await scene.begin()
    with pytest.raises(ZeroDivisionError):
        await scene.over()
    with pytest.raises(Unavailable):
        await answering.outcome()


async def test_a_count_that_breaks_leaves_nobody_waiting() -> None:
    def broken(_: bytes) -> Delivered:
        raise ValueError("no text in there")

    scene = Scene(WireChunk(b"?", broken), UpstreamFailed(Failure.DROPPED, "The connection was lost."))
    answering = await scene.begin()
    with pytest.raises(ValueError):
        await scene.over()
    with pytest.raises(Unavailable):
        await answering.outcome()
    assert scene.ledger.states == []


async def test_a_chain_answers_with_the_model_that_works() -> None:
    fast, slow = make_model(), make_model(name="slow")
    scene = Scene(call=make_call(fast, slow, name="smart"))
    scene.ports.answers.routing.upstreams.models = {
        "fast": ScriptedModel([UpstreamFailed(Failure.SERVER, "It failed.")]),
        "slow": ScriptedModel(answers("fine")),
    }
    outcome = await scene.outcome()
    assert scene.answering is not None
    assert (outcome.model, scene.answering.model, scene.answering.attempts) == (slow, slow, 2)
    row = scene.ledger.usage_rows[0]
    assert (row.requested_model, row.model) == ("smart", "slow")
    assert [each.outcome for each in row.attempts] == ["server_error", "ok"]


async def test_a_model_whose_provider_is_gone_loses_no_hold() -> None:
    scene = Scene(call=make_call(make_model(provider="gone")))
    assert isinstance((await scene.outcome()).error, ProvidersFailed)
    assert scene.was_settled_once(tokens=0)


async def test_a_user_without_accounts_is_neither_capped_nor_charged() -> None:
    call = make_call()
    ledger = FakeLedger()
    model = ScriptedModel(answers("fine"))
    answering = await begin(call, completion_ports(ledger, FakeUpstreams(fast=model), make_catalog()))
    assert (await answering.outcome()).usage == USAGE
    assert model.requests[0].output_cap is None
    assert (ledger.states, ledger.book.entries) == ([HoldState.SETTLED], [])
    assert ledger.usage_rows[0].usage == USAGE
