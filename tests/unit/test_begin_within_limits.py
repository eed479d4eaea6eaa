"""Calls begin within rate limits, and whatever becomes of them, they give back what they did not use."""

import asyncio
from collections.abc import Sequence

import pytest

from src.domain.completion.answering import Answering
from src.domain.completion.idempotency import KeyTaken
from src.domain.completion.model import CacheWish, Call, Failure, UpstreamFailed
from src.domain.completion.use_cases import CompletionPorts, begin
from src.domain.ledger.model import Hold, HoldRequest, Record
from src.domain.limits.limiter import UNLIMITED, Limiter
from src.domain.limits.model import Level, LimitName, LimitReached, LimitScope
from src.integrations.buckets.memory import MemoryBuckets
from src.shared.errors import GatewayError, QuotaExceeded, Unavailable
from tests.makers import make_rate_limit
from tests.unit import support
from tests.unit.support import (
    FakeLedger,
    FakeRateLimitsView,
    FakeUpstreams,
    Gate,
    ScriptedModel,
    answers,
    completion_ports,
    make_call,
    make_catalog,
    make_model,
    user_says,
)

LIMIT = 1000
PROMPT_AND_CAP = 3 + 100
"""What is held for "how are you" to a model of at most 100 tokens."""
USED = support.USAGE.total_tokens


class RefusingLedger(FakeLedger):
    """Refuses to hold."""

    def __init__(self, refusal: Exception) -> None:
        super().__init__()
        self.refusal: Exception | None = refusal

    async def open(self, request: HoldRequest, records: Sequence[Record] = ()) -> Hold:
        if self.refusal is not None:
            raise self.refusal
        return await super().open(request, records)


class Scene:
    """One model under one limit of each kind."""

    def __init__(self, *steps: support.Step, ledger: FakeLedger | None = None, parallel: int = 1) -> None:
        limits = {"requests_per_minute": LIMIT, "tokens_per_minute": LIMIT, "parallel": parallel}
        view = FakeRateLimitsView(make_rate_limit(scope=LimitScope.MODEL, scope_id="fast", **limits))
        self.limiter = Limiter(view, MemoryBuckets())
        self.upstream = ScriptedModel(steps or answers("fine", " thanks"))
        self.ledger = ledger or FakeLedger()
        catalog = make_catalog(make_model())
        upstreams = FakeUpstreams(fast=self.upstream)
        self.ports: CompletionPorts = completion_ports(self.ledger, upstreams, catalog, limiter=self.limiter)

    async def begin(self, call: Call | None = None) -> Answering:
        answering = await begin(call or make_call(), self.ports)
        assert isinstance(answering, Answering)
        return answering

    async def left(self) -> dict[LimitName, int]:
        """What was used so far, found out by a call that never was."""
        permit = await self.limiter.admit(make_call().principal, "fast", self._nothing)
        await permit.undo()
        return {level.bucket.name: level.used - self._own(level) for level in permit.levels}

    @staticmethod
    def _own(level: Level) -> int:
        return 0 if level.bucket.name is LimitName.TOKENS else 1

    @staticmethod
    async def _nothing() -> int:
        return 0


def used(requests: int, tokens: int, parallel: int = 0) -> dict[LimitName, int]:
    return {LimitName.REQUESTS: requests, LimitName.TOKENS: tokens, LimitName.PARALLEL: parallel}


async def test_while_a_call_goes_on_the_most_it_may_use_is_held_and_then_what_it_used() -> None:
    gate = Gate()
    scene = Scene(gate, *answers("fine"), parallel=2)
    answering = await scene.begin()
    await gate.reached.wait()
    assert await scene.left() == used(1, PROMPT_AND_CAP, 1)
    assert [level.used for level in answering.call.permit.levels] == [1, PROMPT_AND_CAP, 1]
    gate.opened.set()
    await answering.outcome()
    assert await scene.left() == used(1, USED)


async def test_when_somebody_hears_of_the_end_there_is_room_again() -> None:
    scene = Scene()
    for _ in range(5):
        await (await scene.begin()).outcome()
    assert await scene.left() == used(5, 5 * USED)


async def test_a_refused_call_holds_nothing_and_calls_nobody() -> None:
    gate = Gate()
    scene = Scene(gate, *answers("fine"))
    answering = await scene.begin()
    await gate.reached.wait()
    with pytest.raises(LimitReached):
        await scene.begin()
    assert len(scene.ledger.requests) == len(scene.upstream.requests) == 1
    gate.opened.set()
    await answering.outcome()


@pytest.mark.parametrize(
    ("refusal", "requests"),
    [(QuotaExceeded("No credit."), 1), (Unavailable("No database."), 1), (KeyTaken("Taken."), 0)],
)
async def test_a_call_that_is_not_held_gives_back_all_but_its_request_which_counts_unless_it_repeats_another(
    refusal: Exception, requests: int
) -> None:
    ledger = RefusingLedger(refusal)
    scene = Scene(ledger=ledger)
    with pytest.raises(type(refusal)):
        await scene.begin()
    assert await scene.left() == used(requests, 0)
    ledger.refusal = None
    await (await scene.begin()).outcome()


async def test_a_call_that_failed_used_no_tokens() -> None:
    scene = Scene(UpstreamFailed(Failure.CALLER, "No."))
    outcome = await (await scene.begin()).outcome()
    assert isinstance(outcome.error, GatewayError)
    assert await scene.left() == used(1, 0)


async def test_a_call_that_was_cancelled_used_what_was_written() -> None:
    gate = Gate()
    scene = Scene(*answers("fine thanks")[:1], gate)
    answering = await scene.begin()
    await gate.reached.wait()
    answering.cancel()
    outcome = await answering.outcome()
    assert await scene.left() == used(1, outcome.usage.total_tokens)
    assert outcome.usage.total_tokens == 3 + 2


async def test_a_call_that_could_not_be_stored_is_no_longer_under_way() -> None:
    ledger = FakeLedger()
    ledger.failure = Unavailable("No database.")
    scene = Scene(ledger=ledger)
    answering = await scene.begin()
    with pytest.raises(Unavailable):
        await answering.outcome()
    assert await scene.left() == used(1, USED)


async def test_an_answer_from_the_cache_is_a_request_without_tokens() -> None:
    scene = Scene()
    call = make_call(chat=user_says("how are you"), cache=CacheWish(on=True))
    await (await scene.begin(call)).outcome()
    async with asyncio.timeout(5):
        while isinstance(kept := await begin(call, scene.ports), Answering):  # until it is stored
            await kept.outcome()
    assert len(kept.call.permit.levels) == 3
    found = await scene.left()
    assert found[LimitName.PARALLEL] == 0
    assert found[LimitName.TOKENS] == USED * len(scene.upstream.requests)
    assert found[LimitName.REQUESTS] == len(scene.upstream.requests) + 1


async def test_without_limits_a_call_carries_nothing() -> None:
    ports = completion_ports(
        FakeLedger(), FakeUpstreams(fast=ScriptedModel(answers("fine"))), make_catalog(make_model())
    )
    answer = await begin(make_call(), ports)
    assert answer.call.permit is UNLIMITED
    await answer.outcome()
