"""Answers given again, and identical questions at once that are one call."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from src.domain.catalog.model import CachePolicy
from src.domain.completion import caching
from src.domain.completion.answer import Answer
from src.domain.completion.caching import MOST_FAILURES, SharedAnswers
from src.domain.completion.deltas import TextDelta
from src.domain.completion.model import (
    CacheUse,
    CacheWish,
    Call,
    Delivered,
    Failure,
    Finished,
    FinishReason,
    Outcome,
    UpstreamFailed,
    WireChunk,
)
from src.domain.completion.use_cases import begin
from src.domain.ledger.model import CallStatus, HoldState, Record
from src.shared.errors import Conflict, InvalidRequest, ProvidersFailed, QuotaExceeded, Unavailable
from tests.makers import NOW, make_tenant
from tests.unit.support import (
    USAGE,
    FakeCache,
    FakeLedger,
    FakeUpstreams,
    Gate,
    ScriptedModel,
    Step,
    answers,
    completion_ports,
    make_call,
    make_catalog,
    make_principal,
    user_says,
)

LOST = UpstreamFailed(Failure.SERVER, "The provider failed.")
WRONG = UpstreamFailed(Failure.CALLER, "That is no request.")
FILTERED = Finished(reason=FinishReason.CONTENT_FILTER, usage=USAGE)
TENANT = make_tenant()


class Scene:
    """Users of one tenant who ask the same, each with its own call, at one or several gateways."""

    def __init__(self, *scripts: list[Step], store: FakeCache | None = None) -> None:
        self.store = store or FakeCache()
        self.ledger = FakeLedger()
        self.model = ScriptedModel(*(scripts or (answers("fi", "ne"),)))
        self.ports = completion_ports(self.ledger, FakeUpstreams(fast=self.model), make_catalog(), self.store)

    @property
    def cache(self) -> SharedAnswers:
        found = self.ports.cache
        assert isinstance(found, SharedAnswers)
        return found

    def call(self, text: str = "how are you", **given: Any) -> Call:
        base = {"principal": make_principal(tenant=TENANT), "chat": user_says(text, stream=True)}
        return make_call(**{**base, "cache": CacheWish(on=True), **given})

    async def begin(self, text: str = "how are you", **given: Any) -> Answer:
        return await begin(self.call(text, **given), self.ports)

    async def outcome(self, text: str = "how are you", **given: Any) -> Outcome:
        return await (await self.begin(text, **given)).outcome()

    def asking(self, count: int, **given: Any) -> list["asyncio.Task[Outcome]"]:
        return [asyncio.create_task(self.outcome(**given)) for _ in range(count)]

    async def is_quiet(self) -> bool:
        """Once all is said and stored, nothing is left behind."""
        await asyncio.gather(*self.ports.keeper.running)
        await asyncio.gather(*self.cache._tasks)
        return not self.cache._under_way and not self.store.turns


async def turns() -> None:
    """Let everybody go on as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def texts_of(answer: Answer) -> list[str]:
    return [delta.text async for delta in answer.deltas() if isinstance(delta, TextDelta)]


async def test_an_answer_is_given_again_and_costs_nothing() -> None:
    scene = Scene()
    first = await scene.begin()
    assert (await texts_of(first), first.cache) == (["fi", "ne"], CacheUse.MISS)
    assert await scene.is_quiet()
    again = await scene.begin()
    assert (await texts_of(again), again.cache, again.model.name) == (["fine"], CacheUse.HIT, "fast")
    assert (again.attempts, again.output_cap, again.is_stopping, again.is_relayed) == (0, None, False, False)
    assert (again.has_begun, await again.prompt_tokens()) == (True, 0)
    outcome = await again.outcome()
    assert (outcome.id, outcome.text, outcome.cost_micro_usd, outcome.ended_at) == (again.id, "fine", 0, NOW)
    assert (len(scene.model.requests), len(scene.ledger.requests), len(scene.ledger.usage_rows)) == (1, 1, 1)


async def test_without_a_wish_every_question_is_a_call_and_nothing_is_kept() -> None:
    scene = Scene()
    outcomes = [await scene.outcome(cache=CacheWish()) for _ in range(2)]
    assert [outcome.cache for outcome in outcomes] == [None, None]
    assert (len(scene.model.requests), scene.store.kept) == (2, {})


async def test_rows_of_the_caller_are_stored_with_a_kept_answer() -> None:
    scene = Scene()
    await scene.outcome()
    await scene.is_quiet()
    opening, closing = Record(), Record()
    told: list[Outcome] = []
    scene.ledger.records.clear()
    outcome = await scene.outcome(opening=(opening,), closing=lambda end: told.append(end) or (closing,))
    assert scene.ledger.records == [opening, closing]
    assert told == [outcome]


async def test_where_they_cannot_be_stored_the_answer_is_not_given() -> None:
    scene = Scene()
    await scene.outcome()
    await scene.is_quiet()

    async def refused(_: Any) -> None:
        raise Conflict("Somebody was faster.")

    scene.ledger.record = refused  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        await scene.begin(opening=(Record(),))
    assert (await scene.outcome()).cache is CacheUse.HIT  # who has no rows needs no ledger


async def test_it_is_kept_as_long_as_the_policy_says() -> None:
    scene = Scene()
    await scene.outcome()
    await scene.is_quiet()
    assert [ttl_s for _, ttl_s in scene.store.kept.values()] == [60]


async def test_a_fresh_answer_replaces_what_was_kept() -> None:
    scene = Scene(answers("old"), answers("new"))
    await scene.outcome()
    assert await scene.is_quiet()
    fresh = await scene.outcome(cache=CacheWish(on=True, fresh=True))
    assert (fresh.text, fresh.cache) == ("new", CacheUse.MISS)
    assert await scene.is_quiet()
    assert (await scene.outcome()).text == "new"


async def test_relayed_streams_are_given_again_byte_for_byte() -> None:
    chunks = [WireChunk(data, lambda _: Delivered("")) for data in (b"data: 1\n\n", b"data: 2\n\n")]
    end = Finished(reason=FinishReason.STOP, usage=USAGE, wire=b"data: [DONE]\n\n")
    scene = Scene([*chunks, end])
    await scene.outcome()
    await scene.is_quiet()
    again = await scene.begin()
    assert again.is_relayed
    data = [delta.data async for delta in again.deltas() if isinstance(delta, WireChunk)]
    assert b"".join(data) + ((await again.outcome()).wire or b"") == b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"


async def test_what_others_wrote_under_our_key_is_a_miss() -> None:
    scene = Scene()
    await scene.outcome()
    await scene.is_quiet()
    scene.store.kept = dict.fromkeys(scene.store.kept, (b"something else", 60))
    assert (await scene.outcome()).cache is CacheUse.MISS
    assert await scene.is_quiet()
    assert (await scene.outcome()).cache is CacheUse.HIT


async def test_identical_questions_at_once_are_one_call() -> None:
    gate = Gate()
    scene = Scene([gate, *answers("fine")])
    asking = scene.asking(5)
    await gate.reached.wait()
    await turns()
    gate.opened.set()
    outcomes = await asyncio.gather(*asking)
    assert [outcome.text for outcome in outcomes] == ["fine"] * 5
    assert [outcome.cache for outcome in outcomes] == [CacheUse.MISS] + [CacheUse.JOINED] * 4
    assert (len(scene.model.requests), scene.ledger.states) == (1, [HoldState.SETTLED])
    assert await scene.is_quiet()


async def test_different_questions_do_not_wait_for_each_other() -> None:
    gate = Gate()
    scene = Scene([gate, *answers("slowly")], answers("fine"))
    (waiting,) = scene.asking(1)
    await gate.reached.wait()
    assert (await scene.outcome("another")).text == "fine"
    gate.opened.set()
    assert (await waiting).text == "slowly"


async def test_who_wants_it_fresh_waits_for_nobody() -> None:
    gate = Gate()
    scene = Scene([gate, *answers("old")], answers("new"))
    (waiting,) = scene.asking(1)
    await gate.reached.wait()
    assert (await scene.outcome(cache=CacheWish(on=True, fresh=True))).text == "new"
    gate.opened.set()
    assert (await waiting).text == "old"


async def test_a_caller_who_leaves_the_line_blocks_nobody() -> None:
    gate = Gate()
    scene = Scene([gate, *answers("fine")])
    first, second, third = scene.asking(3)
    await gate.reached.wait()
    await turns()
    second.cancel()
    await turns()
    gate.opened.set()
    assert (await first).text == (await third).text == "fine"
    assert second.cancelled()
    assert await scene.is_quiet()


@pytest.mark.parametrize("followers", [0, 1])
async def test_a_stream_whose_client_leaves_goes_on_only_where_others_wait_for_it(followers: int) -> None:
    gate = Gate()
    scene = Scene([TextDelta("fi"), gate, *answers("ne")])
    leader = await scene.begin()
    deltas = leader.deltas()
    await anext(deltas)
    await gate.reached.wait()
    following = scene.asking(followers)
    await turns()
    await deltas.aclose()
    assert leader.is_stopping is (followers == 0)
    gate.opened.set()
    outcome = await leader.outcome()
    assert outcome.status is (CallStatus.COMPLETED if followers else CallStatus.CANCELLED)
    assert [each.text for each in await asyncio.gather(*following)] == ["fine"] * followers
    assert await scene.is_quiet()
    assert len(scene.store.kept) == followers


async def test_who_joins_while_the_first_call_is_being_held_keeps_it_going_too() -> None:
    gate = Gate()
    scene = Scene([TextDelta("fi"), gate, *answers("ne")])
    opened = Gate()
    really = scene.ledger.open

    async def slowly(*given: Any) -> Any:
        await opened.wait()
        return await really(*given)

    scene.ledger.open = slowly  # type: ignore[method-assign]
    leading = asyncio.create_task(scene.begin())
    await opened.reached.wait()
    following = scene.asking(1)
    await turns()
    opened.opened.set()
    deltas = (await leading).deltas()
    await anext(deltas)
    await deltas.aclose()
    gate.opened.set()
    assert (await following[0]).text == "fine"


@pytest.mark.parametrize(("failure", "error"), [(LOST, ProvidersFailed), (WRONG, InvalidRequest)])
async def test_what_fails_is_tried_once_more_and_then_has_failed_for_all(
    failure: UpstreamFailed, error: type[Exception]
) -> None:
    gate = Gate()
    scene = Scene([gate, failure], [failure])
    asking = scene.asking(6)
    await gate.reached.wait()
    await turns()
    gate.opened.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    failed = [result.error if isinstance(result, Outcome) else result for result in results]
    assert [type(each) for each in failed] == [error] * 6
    assert len(scene.model.requests) == MOST_FAILURES
    assert await scene.is_quiet()
    assert scene.store.kept == {}


async def test_when_the_first_of_identical_calls_fails_the_next_answers_all_others() -> None:
    gate = Gate()
    scene = Scene([gate, LOST], answers("fine"))
    asking = scene.asking(4)
    await gate.reached.wait()
    await turns()
    gate.opened.set()
    first, *others = await asyncio.gather(*asking)
    assert isinstance(first.error, ProvidersFailed)
    assert [outcome.text for outcome in others] == ["fine"] * 3
    assert len(scene.model.requests) == 2


async def test_an_answer_that_is_not_kept_leaves_everybody_to_themselves_at_once() -> None:
    gate = Gate()
    together = Gate()
    scene = Scene([gate, *answers("no", finished=FILTERED)], [together, *answers("no", finished=FILTERED)])
    asking = scene.asking(4)
    await gate.reached.wait()
    await turns()
    gate.opened.set()
    await turns()
    assert len(scene.model.requests) == 4
    together.opened.set()
    outcomes = await asyncio.gather(*asking)
    assert [outcome.cache for outcome in outcomes] == [CacheUse.MISS] * 4
    assert await scene.is_quiet()
    assert scene.store.kept == {}


async def test_who_cannot_pay_is_no_failure_of_those_who_can() -> None:
    gate = Gate()
    scene = Scene([gate, *answers("fine")])
    poor = scene.call()
    scene.ledger.top_up(poor.principal, 5)
    refused = asyncio.create_task(begin(poor, scene.ports))
    others = scene.asking(3)
    await gate.reached.wait()
    gate.opened.set()
    with pytest.raises(QuotaExceeded):
        await refused
    assert [outcome.text for outcome in await asyncio.gather(*others)] == ["fine"] * 3
    assert len(scene.model.requests) == 1
    assert (await (await begin(poor, scene.ports)).outcome()).text == "fine"  # what is kept costs nothing


async def test_an_answer_that_was_stopped_is_not_kept() -> None:
    gate = Gate()
    scene = Scene([TextDelta("fi"), gate])
    answer = await scene.begin()
    await gate.reached.wait()
    answer.cancel()
    assert (await answer.outcome()).status is CallStatus.CANCELLED
    assert await scene.is_quiet()
    assert scene.store.kept == {}


async def test_an_answer_cut_by_a_quota_that_did_not_grow_is_not_kept() -> None:
    """It ends like any other at a length, and only this caller's quota knows better."""
    gate = Gate()
    scene = Scene([TextDelta("fi"), gate, *answers("ne")])
    call = scene.call()
    limited = replace(call, chat=replace(call.chat, parameters=replace(call.chat.parameters, max_output_tokens=50)))
    answer = await begin(limited, scene.ports)
    await gate.reached.wait()
    answer._exhausted()  # type: ignore[attr-defined]
    outcome = await answer.outcome()
    assert (outcome.status, outcome.finish_reason) == (CallStatus.COMPLETED, FinishReason.LENGTH)
    assert await scene.is_quiet()
    assert scene.store.kept == {}


async def test_an_answer_that_could_not_be_stored_is_not_given_to_others() -> None:
    gate = Gate()
    scene = Scene([gate, *answers("fine")], answers("fine"))
    scene.ledger.failure = Unavailable("The database is away.")
    asking = scene.asking(2)
    await gate.reached.wait()
    await turns()
    gate.opened.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable, Unavailable]
    assert scene.store.kept == {}
    assert await scene.is_quiet()


class TestReplicas:
    """Two gateways with one store."""

    @pytest.fixture(autouse=True)
    def _hurry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(caching, "POLL_S", (0.001, 0.002))

    async def test_what_one_makes_the_other_waits_for(self) -> None:
        gate = Gate()
        here = Scene([gate, *answers("fine")])
        there = Scene(answers("wrong"), store=here.store)
        first = here.asking(2)
        await gate.reached.wait()
        second = there.asking(2)
        await asyncio.sleep(0.02)
        gate.opened.set()
        outcomes = await asyncio.gather(*first, *second)
        assert [outcome.text for outcome in outcomes] == ["fine"] * 4
        uses = [CacheUse.MISS, CacheUse.JOINED, CacheUse.HIT, CacheUse.JOINED]
        assert [outcome.cache for outcome in outcomes] == uses
        assert there.model.requests == []
        assert await here.is_quiet()
        assert await there.is_quiet()

    async def test_what_fails_there_is_tried_here(self) -> None:
        gate = Gate()
        here = Scene([gate, LOST])
        there = Scene(store=here.store)
        (first,) = here.asking(1)
        await gate.reached.wait()
        (second,) = there.asking(1)
        await turns()
        gate.opened.set()
        assert isinstance((await first).error, ProvidersFailed)
        assert (await second).cache is CacheUse.MISS

    async def test_a_turn_that_is_over_is_anybodys(self) -> None:
        """A gateway that died holds it until its lease ends."""
        scene = Scene()
        (asking,) = scene.asking(1)
        await asking
        await scene.is_quiet()
        (key,) = scene.store.kept
        scene.store.kept.clear()
        scene.store.turns[key] = "a gateway that died"
        (waiting,) = scene.asking(1)
        await asyncio.sleep(0.02)
        assert len(scene.model.requests) == 1
        del scene.store.turns[key]
        assert (await waiting).cache is CacheUse.MISS

    async def test_nobody_waits_for_ever(self) -> None:
        scene = Scene()
        await scene.outcome()
        await scene.is_quiet()
        (key,) = scene.store.kept
        scene.store.kept.clear()
        scene.store.turns[key] = "a gateway that renews and renews"
        scene.cache._patience_s = 0.02
        assert (await scene.outcome()).cache is CacheUse.MISS
        await asyncio.gather(*scene.cache._tasks)
        assert scene.store.turns == {key: "a gateway that renews and renews"}

    async def test_whoever_waits_is_told_when_the_gateway_stops(self) -> None:
        gate = Gate()
        here = Scene([gate, *answers("fine")])
        there = Scene(store=here.store)
        (first,) = here.asking(1)
        await gate.reached.wait()
        there.cache._patience_s = 600
        waiting = there.asking(2)
        await turns()
        there.ports.keeper.stop_admitting()
        async with asyncio.timeout(2):
            results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable, Unavailable]
        gate.opened.set()
        await first

    async def test_a_long_call_keeps_its_turn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(caching, "LEASE_S", 0.03)
        gate = Gate()
        scene = Scene([gate, *answers("fine")])
        asked: list[str] = []
        really = scene.store.seek

        async def seek(key: str, seeker: str, lease_s: float) -> bytes | bool:
            asked.append(seeker)
            return await really(key, seeker, lease_s)

        scene.store.seek = seek  # type: ignore[method-assign]
        (asking,) = scene.asking(1)
        async with asyncio.timeout(5):
            while len(asked) < 3:
                await asyncio.sleep(0.005)
        gate.opened.set()
        await asking
        assert len(set(asked)) == 1


async def test_closing_waits_until_what_has_ended_is_kept() -> None:
    class Slow(FakeCache):
        async def put(self, key: str, value: bytes, ttl_s: float) -> None:
            await asyncio.sleep(0.01)
            await super().put(key, value, ttl_s)

    scene = Scene(store=Slow())
    await scene.outcome()
    await scene.cache.close()
    assert len(scene.store.kept) == 1


async def test_the_models_own_policy_counts_without_any_wish() -> None:
    scene = Scene()
    model = replace(scene.call().route.models[0], cache=CachePolicy(ttl_s=7))
    call = scene.call(cache=CacheWish())
    call = replace(call, route=replace(call.route, models=(model,)))
    for use in (CacheUse.MISS, CacheUse.HIT):
        assert (await (await begin(call, scene.ports)).outcome()).cache is use
        await scene.is_quiet()
    assert [ttl_s for _, ttl_s in scene.store.kept.values()] == [7]
