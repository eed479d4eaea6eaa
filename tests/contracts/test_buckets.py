"""Every store of rate buckets counts the same: in any minute never more than the limit, and no less than it must."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.domain.limits.model import LimitName, LimitScope, Taking
from src.domain.limits.window import SLOT_MS, WINDOW_MS
from src.integrations.buckets.memory import MemoryBuckets
from src.integrations.buckets.redis import RedisBuckets
from tests.contracts.bucket_world import Opener, World, in_memory, in_redis, level_of
from tests.support.redis_server import RedisServer

REQUESTS, TOKENS, PARALLEL = LimitName.REQUESTS, LimitName.TOKENS, LimitName.PARALLEL


@pytest.fixture(params=["memory", "redis"])
def opened(request: pytest.FixtureRequest) -> Opener:
    if request.param == "memory":
        return in_memory
    server: RedisServer = request.getfixturevalue("redis_server")
    return lambda: in_redis(server)


class TestEveryStore:
    async def test_what_is_taken_counts_for_a_minute_and_no_longer_than_a_slot_more(self, opened: Opener) -> None:
        async with opened() as world:
            bucket = world.bucket(REQUESTS, 1)
            assert not (await world.take(bucket)).is_refused
            world.pass_ms(WINDOW_MS)
            assert (await world.take(bucket)).is_refused
            world.pass_ms(SLOT_MS)
            assert not (await world.take(bucket)).is_refused

    async def test_a_fixed_minute_does_not_let_double_through(self, opened: Opener) -> None:
        async with opened() as world:
            bucket = world.bucket(REQUESTS, 10)
            world.pass_ms(WINDOW_MS - world.clock.now_ms % WINDOW_MS - 1)  # just before a minute is full
            before = [await world.take(bucket) for _ in range(10)]
            world.pass_ms(2)
            after = [await world.take(bucket) for _ in range(10)]
            assert [each.is_refused for each in before + after] == [False] * 10 + [True] * 10

    async def test_all_buckets_give_or_none(self, opened: Opener) -> None:
        async with opened() as world:
            wide, narrow = world.bucket(REQUESTS, 5), world.bucket(REQUESTS, 1, "b", LimitScope.TENANT)
            calls = world.bucket(PARALLEL, 5)
            assert not (await world.take(wide, calls, narrow)).is_refused
            refused = await world.take(wide, calls, narrow)
            assert refused.is_refused
            assert [level.wait_s > 0 for level in refused.levels] == [False, False, True]
            assert [level.used for level in refused.levels] == [1, 1, 1], "what the others would have given is theirs"

    async def test_tokens_are_held_and_then_corrected(self, opened: Opener) -> None:
        async with opened() as world:
            bucket = world.bucket(TOKENS, 1000)
            first = await world.take(bucket, tokens=700)
            assert (await world.take(bucket, tokens=301)).is_refused
            await world.end(first, tokens=100)
            assert level_of(await world.take(bucket, tokens=301)).used == 401

    @pytest.mark.parametrize("used", [0, 250])
    async def test_what_was_too_much_is_free_at_once(self, opened: Opener, used: int) -> None:
        async with opened() as world:
            bucket = world.bucket(TOKENS, 1000)
            taking = await world.take(bucket, tokens=1000)
            world.pass_ms(30_000)
            await world.end(taking, tokens=used)
            assert not (await world.take(bucket, tokens=1000 - used)).is_refused

    async def test_what_was_too_little_counts_from_the_end_of_the_call(self, opened: Opener) -> None:
        async with opened() as world:
            bucket = world.bucket(TOKENS, 1000)
            taking = await world.take(bucket, tokens=100)
            world.pass_ms(90_000)
            await world.end(taking, tokens=1500)
            refused = level_of(await world.take(bucket, tokens=1))
            assert (refused.used, refused.remaining) == (1400, 0)
            world.pass_ms(round(refused.wait_s * 1000))
            assert not (await world.take(bucket, tokens=1)).is_refused

    async def test_a_call_that_is_over_long_after_its_minute_gives_nothing_back(self, opened: Opener) -> None:
        async with opened() as world:
            bucket = world.bucket(TOKENS, 1000)
            taking = await world.take(bucket, tokens=900)
            world.pass_ms(WINDOW_MS + SLOT_MS)
            assert level_of(await world.take(bucket, tokens=600)).used == 600
            await world.end(taking, tokens=0)
            assert level_of(await world.take(bucket, tokens=400)).used == 1000

    async def test_a_call_larger_than_the_limit_passes_alone(self, opened: Opener) -> None:
        async with opened() as world:
            bucket = world.bucket(TOKENS, 1000)
            big = await world.take(bucket, tokens=5000)
            assert level_of(big).used == 1000
            assert (await world.take(bucket, tokens=1)).is_refused
            await world.end(big, tokens=0)
            assert not (await world.take(bucket, tokens=1)).is_refused
            assert (await world.take(bucket, tokens=5000)).is_refused, "it is not alone"

    async def test_a_call_that_never_was_counts_nowhere(self, opened: Opener) -> None:
        async with opened() as world:
            every = [world.bucket(REQUESTS, 1), world.bucket(TOKENS, 10), world.bucket(PARALLEL, 1)]
            for _ in range(3):
                taking = await world.take(*every, tokens=10)
                assert [level.remaining for level in taking.levels] == [0, 0, 0]
                await world.buckets.settle(taking, requests=0, tokens=0)

    async def test_calls_under_way_are_counted_until_they_end(self, opened: Opener) -> None:
        async with opened() as world:
            bucket = world.bucket(PARALLEL, 2)
            first, second = await world.take(bucket), await world.take(bucket)
            refused = level_of(await world.take(bucket))
            assert (refused.used, refused.wait_s, refused.reset_s) == (2, 1.0, 0.0)
            await world.end(first)
            third = await world.take(bucket)
            assert level_of(third).used == 2
            for each in (second, third):
                await world.end(each)
            assert level_of(await world.take(bucket)).used == 1

    async def test_a_new_limit_counts_what_was_taken_under_the_old(self, opened: Opener) -> None:
        async with opened() as world:
            for _ in range(5):
                assert not (await world.take(world.bucket(REQUESTS, 5))).is_refused
            lower = level_of(await world.take(world.bucket(REQUESTS, 3)))
            assert (lower.used, lower.remaining) == (5, 0)
            assert lower.wait_s > 0
            assert level_of(await world.take(world.bucket(REQUESTS, 6))).used == 6

    async def test_buckets_of_different_owners_scopes_and_names_are_different(self, opened: Opener) -> None:
        async with opened() as world:
            for bucket in (
                world.bucket(REQUESTS, 1),
                world.bucket(REQUESTS, 1, "b"),
                world.bucket(REQUESTS, 1, scope=LimitScope.TENANT),
                world.bucket(TOKENS, 1),
                world.bucket(PARALLEL, 1),
            ):
                assert not (await world.take(bucket, tokens=1)).is_refused

    async def test_it_is_told_when_nothing_counts_any_more(self, opened: Opener) -> None:
        async with opened() as world:
            bucket = world.bucket(REQUESTS, 5)
            await world.take(bucket)
            world.pass_ms(20_000)
            level = level_of(await world.take(bucket))
            world.pass_ms(round(level.reset_s * 1000) - 1)
            assert level_of(await world.take(world.bucket(REQUESTS, 1))).used == 1
            world.pass_ms(1)
            assert level_of(await world.take(bucket)).used == 1

    @pytest.mark.parametrize("limit", [1, 7, 64])
    async def test_of_many_at_once_exactly_as_many_as_may_pass(self, opened: Opener, limit: int) -> None:
        async with opened() as world:
            every = [world.bucket(REQUESTS, limit), world.bucket(TOKENS, 10 * limit, "b"), world.bucket(PARALLEL, 100)]
            found = await asyncio.gather(*(world.take(*every, tokens=10) for _ in range(80)))
            assert sum(not each.is_refused for each in found) == limit


STEP = st.one_of(
    st.tuples(st.just("pass"), st.sampled_from([1, 400, SLOT_MS, 7_777, 30_000, WINDOW_MS - 1, WINDOW_MS, 61_000])),
    st.tuples(st.just("take"), st.integers(1, 14)),
    st.tuples(st.just("end"), st.integers(0, 20)),
)
LIMIT = 10
"""Requests; as many tokens."""


class Model:
    """Every moment at which something was taken, as a list."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.taken: list[list[int]] = []
        self.open: list[tuple[Taking, list[int]]] = []
        self.buckets = (world.bucket(REQUESTS, LIMIT), world.bucket(TOKENS, LIMIT), world.bucket(PARALLEL, 4))

    def within(self, window_ms: int) -> tuple[int, int]:
        """Requests and tokens of the moments that are younger."""
        now_ms = self.world.clock.now_ms
        young = [each for each in self.taken if now_ms - each[0] < window_ms]
        return sum(each[1] for each in young), sum(each[2] for each in young)

    async def take(self, tokens: int) -> None:
        held = min(tokens, LIMIT)
        taking = await self.world.take(*self.buckets, tokens=tokens)
        requests_s, tokens_s, calls = taking.levels
        exact, longest = self.within(WINDOW_MS), self.within(WINDOW_MS + SLOT_MS)
        assert (calls.wait_s > 0) == (len(self.open) >= 4)
        if taking.is_refused:
            must_pass = longest[0] + 1 <= LIMIT, longest[1] + held <= LIMIT
            assert requests_s.wait_s == 0 or not must_pass[0]
            assert tokens_s.wait_s == 0 or not must_pass[1]
            assert exact[0] <= requests_s.used <= longest[0]
            assert exact[1] <= tokens_s.used <= longest[1]
            return
        assert exact[0] + 1 <= LIMIT
        assert exact[1] + held <= LIMIT
        moment = [self.world.clock.now_ms, 1, held]
        self.taken.append(moment)
        self.open.append((taking, moment))

    async def end(self, tokens: int) -> None:
        if not self.open:
            return
        taking, moment = self.open.pop(0)
        await self.world.end(taking, tokens=tokens)
        if tokens > moment[2]:
            self.taken.append([self.world.clock.now_ms, 0, tokens - moment[2]])
        else:
            moment[2] = tokens


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=60))
def test_any_history_is_counted_as_by_hand(opened: Opener, steps: list[tuple[str, int]]) -> None:
    async def live() -> None:
        async with opened() as world:
            model = Model(world)
            for what, number in steps:
                if what == "pass":
                    world.pass_ms(number)
                    if isinstance(world.buckets, RedisBuckets) and model.open:
                        await world.buckets.renew()
                else:
                    await (model.take(number) if what == "take" else model.end(number))

    asyncio.run(live())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0, 1, 900, 5_000, 40_000])), max_size=12),
    wanted=st.integers(1, 12),
)
def test_who_waits_as_long_as_told_passes_and_who_waits_less_does_not(
    opened: Opener, history: list[tuple[int, int]], wanted: int
) -> None:
    async def live() -> None:
        async with opened() as world:
            bucket = world.bucket(TOKENS, LIMIT)
            for tokens, passed_ms in history:
                await world.take(bucket, tokens=tokens)
                world.pass_ms(passed_ms)
            refused = level_of(await world.take(bucket, tokens=wanted))
            if refused.wait_s:
                world.pass_ms(round(refused.wait_s * 1000) - 1)
                assert level_of(await world.take(bucket, tokens=wanted)).wait_s == 0.001
                world.pass_ms(1)
                assert not (await world.take(bucket, tokens=wanted)).is_refused

    asyncio.run(live())


class TestMemory:
    async def test_windows_are_bounded_and_the_least_recently_used_goes_first(self) -> None:
        world = World(MemoryBuckets(max_windows=2))
        one, two, three = (world.bucket(REQUESTS, 1, owner) for owner in "abc")
        for bucket in (one, two, three):
            await world.take(bucket)
        assert len(world.buckets) == 2
        assert [(await world.take(bucket)).is_refused for bucket in (two, three)] == [True, True]
        assert not (await world.take(one)).is_refused

    async def test_a_window_that_was_forgotten_meanwhile_does_not_go_below_nothing(self) -> None:
        world = World(MemoryBuckets(max_windows=1))
        bucket = world.bucket(TOKENS, 10)
        forgotten = await world.take(bucket, tokens=5)
        await world.take(world.bucket(TOKENS, 10, "b"), tokens=5)
        await world.take(bucket, tokens=1)
        await world.end(forgotten, tokens=0)
        assert level_of(await world.take(bucket, tokens=2)).used == 2

    async def test_calls_that_are_over_leave_nothing(self) -> None:
        world = World(MemoryBuckets())
        takings = [await world.take(world.bucket(PARALLEL, 9)) for _ in range(5)]
        for each in takings:
            await world.end(each)
            await world.end(each)
        assert len(world.buckets) == 0
