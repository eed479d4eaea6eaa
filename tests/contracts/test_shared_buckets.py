"""Rate buckets that processes share: exact over all of them, healed after a crash, local while Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from src.domain.limits.model import Bucket, LimitName
from src.domain.limits.window import SLOT_MS, WINDOW_MS
from src.integrations.buckets.redis import KEY_PREFIX, LEASE_MS, RedisBuckets
from src.integrations.redis_client import GuardedRedis, make_redis
from tests.contracts.bucket_world import Clock, World, level_of, patient
from tests.support.redis_server import RedisServer

REQUESTS, TOKENS, PARALLEL = LimitName.REQUESTS, LimitName.TOKENS, LimitName.PARALLEL


@asynccontextmanager
async def shared(server: RedisServer, clock: Clock | None = None) -> AsyncIterator[tuple[World, World]]:
    """Two processes with one Redis, whose own time it is without a clock."""
    guards = [patient(server) for _ in range(2)]
    stores = [RedisBuckets(guard, clock_ms=clock) for guard in guards]
    names: dict[str, str] = {}
    yield tuple(World(store, clock or Clock(), names) for store in stores)  # type: ignore[misc]
    for store, guard in zip(stores, guards, strict=True):
        await store.close()
        await guard.close()


class TestRedis:
    async def test_64_callers_over_two_processes_get_exactly_what_there_is(self, redis_server: RedisServer) -> None:
        async with shared(redis_server) as (one, two):
            every = [one.bucket(REQUESTS, 40), one.bucket(TOKENS, 230, "b"), one.bucket(PARALLEL, 1000)]
            found = await asyncio.gather(*(world.take(*every, tokens=10) for world in (one, two) * 32))
            admitted = [each for each in found if not each.is_refused]
            assert len(admitted) == 23
            await asyncio.gather(*(one.end(each, tokens=10) for each in admitted))
            assert {await held(redis_server, bucket) for bucket in every[:2]} == {23, 230}

    async def test_parallel_calls_are_counted_over_processes(self, redis_server: RedisServer) -> None:
        async with shared(redis_server) as (one, two):
            bucket = one.bucket(PARALLEL, 8)
            found = await asyncio.gather(*(world.take(bucket) for world in (one, two) * 32))
            admitted = [each for each in found if not each.is_refused]
            assert len(admitted) == 8
            for world, each in zip((one, two) * 4, admitted, strict=True):
                await world.end(each)
            assert level_of(await two.take(bucket)).used == 1

    async def test_calls_of_a_process_that_crashed_are_forgotten_when_their_leases_end(
        self, redis_server: RedisServer
    ) -> None:
        clock = Clock()
        async with shared(redis_server, clock) as (crashed, healthy):
            bucket = crashed.bucket(PARALLEL, 2)
            await crashed.take(bucket)
            await healthy.take(bucket)
            for _ in range(3):
                clock.now_ms += LEASE_MS // 2
                await healthy.buckets.renew()
            found = level_of(await healthy.take(bucket))
            assert (found.used, found.wait_s) == (2, 0), "its own that goes on, and the new one"
            assert (await healthy.take(bucket)).is_refused

    async def test_calls_under_way_are_renewed_by_themselves(
        self, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("src.integrations.buckets.redis.RENEWALS", 3000)
        clock = Clock()
        async with shared(redis_server, clock) as (one, two):
            bucket = one.bucket(PARALLEL, 1)
            taking = await one.take(bucket)
            for _ in range(4):
                clock.now_ms += LEASE_MS - 1
                await renewed(redis_server, bucket, clock)
                assert (await two.take(bucket)).is_refused
            await one.end(taking)
            assert not (await two.take(bucket)).is_refused

    async def test_a_lease_that_has_ended_is_not_taken_up_again(self, redis_server: RedisServer) -> None:
        clock = Clock()
        async with shared(redis_server, clock) as (late, other):
            bucket = late.bucket(PARALLEL, 1)
            await late.take(bucket)
            clock.now_ms += LEASE_MS + 1
            assert not (await other.take(bucket)).is_refused
            await late.buckets.renew()
            assert (await other.take(bucket)).is_refused
            assert await members(redis_server, bucket) == 1

    async def test_everything_expires_in_redis(self, redis_server: RedisServer) -> None:
        async with shared(redis_server) as (one, _):
            every = [one.bucket(REQUESTS, 5), one.bucket(TOKENS, 5), one.bucket(PARALLEL, 5)]
            await one.take(*every, tokens=3)
            async with make_redis(redis_server.url, timeout_s=20) as client:
                left_ms = [await client.pttl(KEY_PREFIX + bucket.key) for bucket in every]
            assert all(0 < each <= WINDOW_MS + 2 * SLOT_MS for each in left_ms)

    async def test_a_server_that_forgot_the_script_is_told_it_again(self, redis_server: RedisServer) -> None:
        async with shared(redis_server) as (one, _):
            bucket = one.bucket(REQUESTS, 2)
            for expected in (1, 2):
                async with make_redis(redis_server.url, timeout_s=20) as client:
                    await client.script_flush()
                assert level_of(await one.take(bucket)).used == expected

    async def test_slots_that_do_not_count_leave_the_hash(self, redis_server: RedisServer) -> None:
        clock = Clock()
        async with shared(redis_server, clock) as (one, _):
            bucket = one.bucket(REQUESTS, 1000)
            for _ in range(200):
                await one.take(bucket)
                clock.now_ms += SLOT_MS
            async with make_redis(redis_server.url, timeout_s=20) as client:
                assert await client.hlen(KEY_PREFIX + bucket.key) <= 61 + 3


class TestRedisAway:
    @pytest.mark.parametrize("fault", ["kill", "freeze"])
    async def test_each_process_counts_alone_until_redis_is_back(
        self, disposable_redis: RedisServer, fault: str
    ) -> None:
        guarded = GuardedRedis(make_redis(disposable_redis.url, timeout_s=1), timeout_s=1, probe_every_s=0.02)
        world = World(RedisBuckets(guarded))
        bucket = world.bucket(REQUESTS, 2)
        with structlog.testing.capture_logs():
            assert not (await world.take(bucket)).is_local
            getattr(disposable_redis, fault)()
            found = [await world.take(bucket) for _ in range(3)]
            assert [each.is_refused for each in found] == [False, False, True], "limited, though weaker"
            assert {each.is_local for each in found} == {True}
            disposable_redis.restart() if fault == "kill" else disposable_redis.thaw()
            await until(lambda: not guarded.is_away)
            assert not (await world.take(bucket)).is_local
        await world.buckets.close()
        await guarded.close()

    async def test_a_call_ends_where_it_began(self, disposable_redis: RedisServer) -> None:
        guarded = GuardedRedis(make_redis(disposable_redis.url, timeout_s=1), timeout_s=1, probe_every_s=0.02)
        world = World(RedisBuckets(guarded))
        bucket = world.bucket(PARALLEL, 1)
        with structlog.testing.capture_logs():
            in_redis = await world.take(bucket)
            disposable_redis.freeze()
            in_memory = await world.take(bucket)
            assert (in_redis.is_local, in_memory.is_local) == (False, True)
            await world.end(in_redis)  # nobody hears it; the lease will end
            assert (await world.take(bucket)).is_refused
            disposable_redis.thaw()
            await until(lambda: not guarded.is_away)
            assert (await world.take(bucket)).is_refused, "its lease has not ended yet"
            await world.end(in_memory)
            disposable_redis.freeze()
            assert not (await world.take(bucket)).is_refused
        await world.buckets.close()
        await guarded.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.005)


async def held(server: RedisServer, bucket: Bucket) -> int:
    """What the slots of a window say."""
    return await asked(server, lambda client: client.hget(KEY_PREFIX + bucket.key, "total"))


async def members(server: RedisServer, bucket: Bucket) -> int:
    return await asked(server, lambda client: client.zcard(KEY_PREFIX + bucket.key))


async def renewed(server: RedisServer, bucket: Bucket, clock: Clock) -> None:
    """Wait until every lease is a whole one again."""
    async with asyncio.timeout(15):
        while True:
            ends = await asked_for(
                server, lambda client: client.zrange(KEY_PREFIX + bucket.key, 0, -1, withscores=True)
            )
            if ends and all(end == clock.now_ms + LEASE_MS for _, end in ends):
                return
            await asyncio.sleep(0.005)


async def asked(server: RedisServer, question: Callable[[Any], Awaitable[Any]]) -> int:
    return int(await asked_for(server, question))


async def asked_for(server: RedisServer, question: Callable[[Any], Awaitable[Any]]) -> Any:
    async with make_redis(server.url, timeout_s=20) as client:
        return await question(client)
