"""Answers whose holds live and grow while they are generated: cut off at the quota's end, noted, stopped from afar."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from src.domain.catalog.model import Usage
from src.domain.completion.answering import Answering
from src.domain.completion.deltas import TextDelta
from src.domain.completion.fallback import CUT_OFF
from src.domain.completion.model import (
    Call,
    Delivered,
    Failure,
    Finished,
    FinishReason,
    Outcome,
    UpstreamEvent,
    UpstreamFailed,
    UpstreamRequest,
    WireChunk,
)
from src.domain.completion.use_cases import begin
from src.domain.ledger.model import CallStatus, HoldState, Record, Renewal, Scope, Unit, UsageRecord
from src.domain.ledger.quotas import Adjustment, QuotaKey
from tests.makers import NOW
from tests.unit.support import (
    PROMPT_OVERHEAD,
    FakeLedger,
    FakeUpstreams,
    Gate,
    ScriptedModel,
    Step,
    answers,
    completion_ports,
    make_call,
    make_catalog,
    make_model,
    user_says,
)

STEP = 32
MOST = 128
BOUND = 3 + PROMPT_OVERHEAD
SOON_S = 0.001
NEVER_S = 3600.0
GROWING = make_model(max_output=MOST, output_reserve=STEP)


def done(output: int) -> Finished:
    return Finished(reason=FinishReason.STOP, usage=Usage(input_tokens=3, output_tokens=output))


def words(count: int) -> list[Step]:
    return [TextDelta("word ")] * count


def chunks(count: int) -> list[Step]:
    return [WireChunk(b"word ", lambda data: Delivered(data.decode()))] * count


class Scene:
    """A stream of a model that holds its output in steps, and what became of it."""

    def __init__(self, *script: Step, credit: int | None = 1000, progress_s: float = NEVER_S, **given: Any) -> None:
        self.call: Call = make_call(GROWING, **given)
        self.ledger = FakeLedger()
        self.credit = credit
        if credit is not None:
            self.account = self.ledger.top_up(self.call.principal, credit)
        self.model = ScriptedModel(script)
        self.upstreams = FakeUpstreams(fast=self.model)
        ports = completion_ports(self.ledger, self.upstreams, make_catalog())
        self.ports = replace(ports, answers=replace(ports.answers, progress_s=progress_s))

    async def begin(self) -> Answering:
        return await begin(self.call, self.ports)

    async def outcome(self) -> Outcome:
        async with asyncio.timeout(5):
            return await (await self.begin()).outcome()

    def was_charged(self, tokens: int) -> bool:
        account = self.ledger.book.account(self.account.id)
        assert self.credit is not None
        assert self.ledger.states == [HoldState.SETTLED]
        assert (account.balance, account.held, account.spent) == (self.credit - tokens, 0, tokens)
        assert len(self.ledger.usage_rows) == 1
        return True


class Unhurried(ScriptedModel):
    """Leaves others their turn between two events."""

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        async with aclosing(super().stream(request)) as events:
            async for event in events:
                yield event
                for _ in range(5):
                    await asyncio.sleep(0)


async def until_noted(ledger: FakeLedger) -> Renewal:
    async with asyncio.timeout(5):
        while not (noted := [each for each in ledger.renewals if each.noted is not None]):
            await asyncio.sleep(SOON_S)
    return noted[-1]


@pytest.mark.parametrize("pieces", [words, chunks])
async def test_an_answer_that_the_quota_can_pay_for_is_never_cut(pieces: Any) -> None:
    scene = Scene(*pieces(100), done(100))
    outcome = await scene.outcome()
    assert (outcome.status, outcome.finish_reason) == (CallStatus.COMPLETED, FinishReason.STOP)
    assert (outcome.usage.output_tokens, outcome.flags) == (100, ())
    assert scene.model.requests[0].output_cap == MOST
    assert [each.demand.output_tokens for each in scene.ledger.renewals if each.demand] == [64, 96, MOST]
    assert scene.ledger.usage_rows[0].flags == ()
    assert scene.was_charged(103)


@pytest.mark.parametrize("pieces", [words, chunks])
@pytest.mark.parametrize(("model", "written"), [(Unhurried, STEP - STEP // 16), (ScriptedModel, STEP)])
async def test_an_answer_that_the_quota_cannot_pay_for_ends_at_a_length_and_within_its_hold(
    pieces: Any, model: type[ScriptedModel], written: int
) -> None:
    scene = Scene(credit=BOUND + STEP)
    scene.model = scene.upstreams.models["fast"] = model([*pieces(100), done(100)])
    outcome = await scene.outcome()
    assert (outcome.status, outcome.finish_reason, outcome.error) == (CallStatus.COMPLETED, FinishReason.LENGTH, None)
    assert outcome.text == "word " * written
    assert outcome.usage == Usage(input_tokens=3, output_tokens=written, estimated=True)
    assert [each.outcome for each in outcome.attempts] == [CUT_OFF]
    assert scene.model.left == 1
    assert scene.ledger.usage_rows[0].flags == ()
    assert scene.was_charged(3 + written)


async def test_an_answer_ends_at_a_length_though_its_end_was_there_already() -> None:
    """The piece that goes too far comes together with the provider's last word."""
    gate = Gate()
    scene = Scene(*words(24), gate, TextDelta("word " * 7), done(31), credit=BOUND + STEP)
    answering = await scene.begin()
    await gate.reached.wait()
    await asyncio.sleep(SOON_S)
    gate.opened.set()
    async with asyncio.timeout(5):
        outcome = await answering.outcome()
    assert (outcome.status, outcome.finish_reason) == (CallStatus.COMPLETED, FinishReason.LENGTH)
    assert outcome.text == "word " * 31
    assert scene.was_charged(34)


async def test_a_growing_quota_is_used_as_far_as_it_reaches() -> None:
    scene = Scene(*words(100), done(100), credit=BOUND + STEP + 20)
    outcome = await scene.outcome()
    assert (outcome.finish_reason, outcome.usage.output_tokens) == (FinishReason.LENGTH, STEP + 20)
    assert scene.was_charged(3 + STEP + 20)


async def test_what_a_model_thought_in_silence_is_covered_at_the_end() -> None:
    scene = Scene(*answers("yes", finished=done(90)))
    assert (await scene.outcome()).usage.output_tokens == 90
    assert scene.ledger.usage_rows[0].flags == ()
    assert scene.was_charged(93)


async def test_what_a_model_thought_in_silence_is_charged_as_far_as_it_can_be_paid() -> None:
    scene = Scene(*answers("yes", finished=done(90)), credit=BOUND + STEP + 5)
    await scene.outcome()
    assert scene.ledger.usage_rows[0].flags == ("over_hold",)
    assert scene.was_charged(BOUND + STEP + 5)


async def test_a_user_without_quotas_is_not_cut_and_their_ledger_is_left_in_peace() -> None:
    gate = Gate()
    scene = Scene(*words(100), gate, done(100), credit=None, progress_s=0.01)
    answering = await scene.begin()
    await gate.reached.wait()
    await until_noted(scene.ledger)
    assert len(scene.ledger.renewals) < 5
    gate.opened.set()
    assert (await answering.outcome()).finish_reason is FinishReason.STOP
    assert scene.model.requests[0].output_cap is None
    assert {each.demand for each in scene.ledger.renewals} == {None}


async def test_a_note_says_what_a_cut_off_would_cost_now_with_the_attempt_under_way() -> None:
    gate, row = Gate(), Record()
    noting: list[Outcome] = []

    def note(outcome: Outcome) -> list[Record]:
        noting.append(outcome)
        return [row]

    fallback = make_model(name="slow", max_output=MOST, output_reserve=STEP)
    scene = Scene(progress_s=SOON_S, noting=note)
    scene.call = replace(scene.call, route=replace(scene.call.route, models=(GROWING, fallback)))
    scene.upstreams.models = {
        "fast": ScriptedModel([UpstreamFailed(Failure.SERVER, "It failed.")]),
        "slow": ScriptedModel([TextDelta("one "), TextDelta("two"), gate, done(2)]),
    }
    answering = await scene.begin()
    await gate.reached.wait()
    noted = (await until_noted(scene.ledger)).noted
    assert noted is not None
    assert (noted.id, noted.status, noted.model) == (answering.id, CallStatus.INTERRUPTED, "slow")
    assert noted.usage == Usage(input_tokens=3, output_tokens=2, estimated=True)
    assert noted.cost_micro_usd == 3 + 2 * 2
    found = [(each.model, each.outcome, each.cost_micro_usd) for each in noted.attempts]
    assert found == [("fast", "server_error", 0), ("slow", CUT_OFF, 7)]
    assert noting[0].text == "one two"
    assert row in scene.ledger.records
    gate.opened.set()
    attempts = (await answering.outcome()).attempts
    assert [(each.model, each.outcome) for each in attempts] == [("fast", "server_error"), ("slow", "ok")]


async def test_an_answer_without_a_word_is_not_noted_but_kept_alive() -> None:
    gate = Gate()
    scene = Scene(gate, *answers("fine"), progress_s=SOON_S)
    answering = await scene.begin()
    async with asyncio.timeout(5):
        while not scene.ledger.renewals:
            await asyncio.sleep(SOON_S)
    gate.opened.set()
    await answering.outcome()
    assert {each.noted for each in scene.ledger.renewals if not isinstance(each.noted, UsageRecord)} == {None}


async def test_a_call_that_another_replica_was_asked_to_stop_is_stopped() -> None:
    class Afar(FakeLedger):
        async def renew(self, renewal: Renewal, records: Any = ()) -> Any:
            return replace(await super().renew(renewal, records), cancel_requested=True)

    gate = Gate()
    scene = Scene(TextDelta("one two"), gate, progress_s=SOON_S)
    afar = Afar()
    afar.book = scene.ledger.book
    scene.ports = replace(scene.ports, answers=replace(scene.ports.answers, ledger=afar))
    async with asyncio.timeout(5):
        outcome = await (await scene.begin()).outcome()
    assert (outcome.status, outcome.finish_reason) == (CallStatus.CANCELLED, FinishReason.CANCELLED)
    assert (outcome.text, scene.model.left) == ("one two", 1)
    assert scene.ledger.book.account(scene.account.id).spent == 5


async def test_members_of_a_chain_whose_own_quota_is_used_up_are_not_called() -> None:
    poor, rich = make_model(), make_model(name="slow")
    scene = Scene(*answers("fine"), chat=user_says("how are you", stream=True))
    scene.call = replace(scene.call, route=replace(scene.call.route, name="smart", models=(poor, rich)))
    scene.upstreams.models = {"fast": scene.model, "slow": ScriptedModel(answers("fine"))}
    principal = scene.call.principal
    key = QuotaKey(
        tenant_id=principal.tenant_id, scope=Scope.USER, scope_id=principal.user_id, unit=Unit.TOKENS, model="fast"
    )
    scene.ledger.book.adjust(Adjustment(key=key, amount=1, at=NOW))
    outcome = await scene.outcome()
    assert outcome.model == rich
    assert [each.model for each in outcome.attempts] == ["slow"]
    assert scene.model.requests == []
