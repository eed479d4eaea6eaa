"""Every response cache keeps the same promises; Redis also those of a server that dies, hangs and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import pytest_asyncio

from src.domain.completion.ports import ResponseCache
from src.integrations.cache.memory import ENTRY_OVERHEAD_BYTES, MemoryCache
from src.integrations.cache.redis import KEY_PREFIX, TURN_PREFIX, RedisCache
from src.integrations.redis_client import GuardedRedis, make_redis
from tests.support.processes import free_port
from tests.support.redis_server import RedisServer
from tests.unit.support import FakeCache

ANSWER = b'\x00\xff{"text":"h\xc3\xa4llo"}\n'
ME, OTHER = "one seeker", "another"
LEASE_S = 60.0

T = TypeVar("T")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


async def found(cache: ResponseCache, key: str) -> bytes | None:
    """What is kept."""
    sought = await cache.seek(key, ME, LEASE_S)
    return sought if isinstance(sought, bytes) else None


@asynccontextmanager
async def cache_on(server: RedisServer, **options: float) -> AsyncIterator[RedisCache]:
    guarded = GuardedRedis(make_redis(server.url, timeout_s=options.get("timeout_s", 0.2)), **options)
    cache = RedisCache(guarded)
    yield cache
    await cache.close()
    await guarded.close()


@pytest_asyncio.fixture(params=["memory", "redis", "fake"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[ResponseCache]:
    if request.param != "redis":
        made: ResponseCache = MemoryCache() if request.param == "memory" else FakeCache()
        yield made
        await made.close()
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    async with make_redis(server.url, timeout_s=10) as client:
        await client.flushdb()
    async with cache_on(server, timeout_s=10) as made:  # what is stored is asked here, not how long it takes
        yield made


@pytest_asyncio.fixture
async def shared(redis_url: str, redis_server: RedisServer) -> AsyncIterator[RedisCache]:
    """On the emptied server that all tests share."""
    async with cache_on(redis_server, timeout_s=10) as made:
        yield made


@pytest_asyncio.fixture
async def frail(disposable_redis: RedisServer) -> AsyncIterator[RedisCache]:
    """A cache on a server of its own."""
    async with cache_on(disposable_redis, probe_every_s=0.02) as made:
        yield made


class TestEveryCache:
    async def test_what_was_put_is_there(self, cache: ResponseCache) -> None:
        assert await found(cache, "a") is None
        await cache.put("a", ANSWER, 60)
        await cache.put("b", b"", 60)
        assert await found(cache, "a") == ANSWER
        assert await found(cache, "b") == b""

    async def test_the_last_value_wins(self, cache: ResponseCache) -> None:
        await cache.put("a", b"1", 60)
        await cache.put("a", b"2", 60)
        assert await found(cache, "a") == b"2"

    async def test_whoever_seeks_first_may_make_it_and_ask_again(self, cache: ResponseCache) -> None:
        assert [await cache.seek("a", ME, LEASE_S) for _ in range(2)] == [True, True]
        await cache.leave("a", ME)
        assert await cache.seek("a", OTHER, LEASE_S) is True
        await cache.put("a", ANSWER, 60)
        await cache.leave("a", OTHER)
        assert await cache.seek("a", ME, LEASE_S) == ANSWER

    async def test_leaving_what_is_not_ones_own_changes_nothing(self, cache: ResponseCache) -> None:
        await cache.put("a", ANSWER, 60)
        await cache.leave("a", ME)
        assert await found(cache, "a") == ANSWER

    async def test_to_look_takes_no_turn(self, cache: ResponseCache) -> None:
        assert await cache.get("a") is None
        assert await cache.seek("a", ME, LEASE_S) is True
        await cache.put("a", ANSWER, 60)
        assert await cache.get("a") == ANSWER
        await cache.put("a", b"", 60)
        assert await cache.get("a") == b""

    async def test_hundreds_at_once_are_served(self, cache: ResponseCache) -> None:
        await asyncio.gather(*(cache.put(str(n), str(n).encode(), 60) for n in range(400)))
        values = await asyncio.gather(*(found(cache, str(n)) for n in range(400)))
        assert values == [str(n).encode() for n in range(400)]


class TestMemory:
    async def test_time_is_the_clocks(self) -> None:
        clock = Clock()
        cache = MemoryCache(clock=clock)
        await cache.put("a", ANSWER, 10)
        clock.now_s += 9.9
        assert await found(cache, "a") == ANSWER
        clock.now_s += 0.1
        assert await found(cache, "a") is None
        assert (len(cache), cache.size_bytes) == (0, 0)

    async def test_the_least_recently_used_goes_first(self) -> None:
        cache = MemoryCache(max_entries=2)
        for key in ("a", "b"):
            await cache.put(key, b"", 60)
        await found(cache, "a")
        await cache.put("c", b"", 60)
        assert [await found(cache, key) for key in "abc"] == [b"", None, b""]

    async def test_bytes_are_bounded(self) -> None:
        cache = MemoryCache(max_bytes=10_000)
        for number in range(100):
            await cache.put(str(number), b"x" * 1000, 60)
            assert cache.size_bytes <= 10_000
        assert len(cache) == 10_000 // (1002 + ENTRY_OVERHEAD_BYTES)
        await cache.put("99", b"x" * 10_000, 60)
        assert await found(cache, "99") is None
        assert await found(cache, "98") is not None


class TestRedis:
    """What it shares among replicas; of several of them, one makes an answer."""

    async def test_values_expire(self, shared: RedisCache) -> None:
        await shared.put("a", ANSWER, 0.05)
        await shared.put("never", ANSWER, 0)
        assert await found(shared, "never") is None
        async with asyncio.timeout(10):
            while await found(shared, "a") is not None:
                await asyncio.sleep(0.01)

    async def test_one_seeker_has_the_turn_until_it_leaves(self, shared: RedisCache, redis_server: RedisServer) -> None:
        async with cache_on(redis_server, timeout_s=10) as there:
            assert await shared.seek("a", ME, LEASE_S) is True
            assert await there.seek("a", OTHER, LEASE_S) is False
            await there.leave("a", OTHER)
            assert await there.seek("a", OTHER, LEASE_S) is False
            assert await there.seek("b", OTHER, LEASE_S) is True
            await shared.leave("a", ME)
            assert await there.seek("a", OTHER, LEASE_S) is True

    async def test_of_hundreds_at_once_one_has_it(self, shared: RedisCache, redis_server: RedisServer) -> None:
        async with cache_on(redis_server, timeout_s=10) as there:
            seeking = [each.seek("a", f"{each is there} {n}", LEASE_S) for n in range(200) for each in (shared, there)]
            assert sorted(await asyncio.gather(*seeking)) == [False] * 399 + [True]

    async def test_a_lease_ends_by_itself_and_is_renewed_by_asking_again(
        self, shared: RedisCache, redis_server: RedisServer
    ) -> None:
        async with make_redis(redis_server.url, timeout_s=10) as client:
            await shared.seek("a", ME, 0.05)
            async with asyncio.timeout(10):
                while await shared.seek("a", OTHER, LEASE_S) is False:
                    await asyncio.sleep(0.01)
            await client.pexpire(TURN_PREFIX + "a", 1000)
            assert await shared.seek("a", OTHER, LEASE_S) is True
            assert 1000 < await client.pttl(TURN_PREFIX + "a") <= LEASE_S * 1000

    async def test_who_finds_a_value_takes_no_turn(self, shared: RedisCache) -> None:
        await shared.put("a", ANSWER, 60)
        await shared.seek("a", ME, LEASE_S)
        await shared.put("a", b"", 0.001)
        async with asyncio.timeout(10):
            while await shared.seek("a", OTHER, LEASE_S) is not True:
                await asyncio.sleep(0.01)


async def quickly(operation: Callable[[], Awaitable[T]]) -> T:
    """Not a measure: the client's own defaults would wait for a minute."""
    async with asyncio.timeout(15):
        return await operation()


class TestRedisAway:
    @pytest.mark.parametrize("fault", ["kill", "freeze"])
    async def test_each_process_remembers_by_itself_and_it_is_always_its_turn(
        self, disposable_redis: RedisServer, frail: RedisCache, fault: str
    ) -> None:
        await frail.put("a", ANSWER, 60)
        await frail.seek("b", OTHER, LEASE_S)
        getattr(disposable_redis, fault)()
        assert await quickly(lambda: frail.seek("a", ME, LEASE_S)) is True
        assert await quickly(lambda: frail.seek("b", ME, LEASE_S)) is True
        await quickly(lambda: frail.put("b", b"2", 60))
        assert await quickly(lambda: frail.seek("b", ME, LEASE_S)) == b"2"
        assert await quickly(lambda: frail.get("b")) == b"2"
        await quickly(lambda: frail.leave("b", ME))

    @pytest.mark.parametrize("fault", ["kill", "freeze"])
    async def test_many_calls_at_once_fail_as_quickly_as_one(
        self, disposable_redis: RedisServer, frail: RedisCache, fault: str
    ) -> None:
        await frail.put("a", ANSWER, 60)
        getattr(disposable_redis, fault)()

        async def storm() -> Any:
            return await asyncio.gather(*(found(frail, "a") for _ in range(400)))

        assert await quickly(storm) == [None] * 400

    @pytest.mark.parametrize("fault", ["kill", "freeze"])
    async def test_a_server_that_comes_back_is_used_again(
        self, disposable_redis: RedisServer, frail: RedisCache, fault: str
    ) -> None:
        getattr(disposable_redis, fault)()
        assert await found(frail, "a") is None
        disposable_redis.restart() if fault == "kill" else disposable_redis.thaw()
        async with make_redis(disposable_redis.url, timeout_s=10) as client, asyncio.timeout(10):
            while not await client.exists(KEY_PREFIX + "a"):
                await frail.put("a", ANSWER, 60)
                await asyncio.sleep(0.01)
            assert 0 < await client.pttl(KEY_PREFIX + "a") <= 60_000
        assert await found(frail, "a") == ANSWER

    async def test_a_port_where_nobody_listens_is_done_without(self) -> None:
        guarded = GuardedRedis(make_redis(f"redis://127.0.0.1:{free_port()}/0"))
        cache = RedisCache(guarded)
        assert await quickly(lambda: cache.seek("a", ME, LEASE_S)) is True
        await cache.put("a", ANSWER, 60)
        assert await found(cache, "a") == ANSWER
        await guarded.close()

    async def test_what_others_wrote_under_our_key_is_passed_over(
        self, disposable_redis: RedisServer, frail: RedisCache
    ) -> None:
        async with make_redis(disposable_redis.url) as client:
            await client.lpush(KEY_PREFIX + "a", b"1")
        assert await frail.seek("a", ME, LEASE_S) is True
        assert await frail.get("a") is None
        await frail.put("a", ANSWER, 60)
        assert await found(frail, "a") == ANSWER
