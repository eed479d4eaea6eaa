"""Every response cache keeps the same promises; Redis also those of a server that dies, hangs and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import pytest
import pytest_asyncio
import structlog

from src.domain.completion.ports import ResponseCache
from src.integrations.cache.memory import ENTRY_OVERHEAD_BYTES, MemoryCache
from src.integrations.cache.redis import KEY_PREFIX, RedisCache
from src.integrations.redis_client import make_redis
from tests.support.processes import free_port
from tests.support.redis_server import RedisServer

ANSWER = {"text": "häl\u0000lo", "usage": {"input": 1}, "parts": [1, None, True, 1.5]}

T = TypeVar("T")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[ResponseCache]:
    if request.param == "memory":
        made: ResponseCache = MemoryCache()
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        client = make_redis(server.url, timeout_s=10)  # what is stored is asked here, not how long a busy machine takes
        await client.flushdb()
        made = RedisCache(client, timeout_s=10)
    yield made
    await made.close()


@pytest_asyncio.fixture
async def frail(disposable_redis: RedisServer, clock: Clock) -> AsyncIterator[RedisCache]:
    """A cache on a server of its own."""
    made = RedisCache(make_redis(disposable_redis.url), clock=clock)
    yield made
    await made.close()


class TestEveryCache:
    async def test_what_was_put_is_there(self, cache: ResponseCache) -> None:
        assert await cache.get("a") is None
        await cache.put("a", ANSWER, 60)
        await cache.put("b", {}, 60)
        assert await cache.get("a") == ANSWER
        assert await cache.get("b") == {}

    async def test_the_last_value_wins(self, cache: ResponseCache) -> None:
        await cache.put("a", {"v": 1}, 60)
        await cache.put("a", {"v": 2}, 60)
        assert await cache.get("a") == {"v": 2}

    async def test_a_value_cannot_be_changed_from_outside(self, cache: ResponseCache) -> None:
        value: dict[str, Any] = {"parts": [1]}
        await cache.put("a", value, 60)
        value["parts"].append(2)
        read = await cache.get("a")
        assert read is not None
        read["parts"].append(3)
        assert await cache.get("a") == {"parts": [1]}

    async def test_values_expire(self, cache: ResponseCache) -> None:
        await cache.put("a", ANSWER, 0.05)
        await cache.put("never", ANSWER, 0)
        assert await cache.get("never") is None
        assert await cache.get("a") == ANSWER
        await asyncio.sleep(0.08)
        assert await cache.get("a") is None

    async def test_what_is_no_json_is_refused(self, cache: ResponseCache) -> None:
        with pytest.raises(TypeError):
            await cache.put("a", {"x": object()}, 60)

    async def test_hundreds_at_once_are_served(self, cache: ResponseCache) -> None:
        await asyncio.gather(*(cache.put(str(n), {"n": n}, 60) for n in range(400)))
        values = await asyncio.gather(*(cache.get(str(n)) for n in range(400)))
        assert values == [{"n": n} for n in range(400)]


class TestMemory:
    async def test_time_is_the_clocks(self, clock: Clock) -> None:
        cache = MemoryCache(clock=clock)
        await cache.put("a", ANSWER, 10)
        clock.now_s += 9.9
        assert await cache.get("a") == ANSWER
        clock.now_s += 0.1
        assert await cache.get("a") is None
        assert (len(cache), cache.size_bytes) == (0, 0)

    async def test_the_least_recently_used_goes_first(self) -> None:
        cache = MemoryCache(max_entries=2)
        for key in ("a", "b"):
            await cache.put(key, {}, 60)
        await cache.get("a")
        await cache.put("c", {}, 60)
        assert [await cache.get(key) for key in "abc"] == [{}, None, {}]

    async def test_bytes_are_bounded(self) -> None:
        cache = MemoryCache(max_bytes=10_000)
        for number in range(100):
            await cache.put(str(number), {"text": "x" * 1000}, 60)
            assert cache.size_bytes <= 10_000
        assert len(cache) == 10_000 // (1013 + ENTRY_OVERHEAD_BYTES)
        await cache.put("99", {"text": "x" * 10_000}, 60)
        assert await cache.get("99") is None
        assert await cache.get("98") is not None


async def quickly(operation: Callable[[], Awaitable[T]]) -> T:
    """Not a measure: the client's own defaults would wait for a minute."""
    async with asyncio.timeout(15):
        return await operation()


class TestRedisAway:
    @pytest.mark.parametrize("fault", ["kill", "freeze"])
    async def test_a_server_that_dies_or_hangs_is_done_without(
        self, disposable_redis: RedisServer, frail: RedisCache, clock: Clock, fault: str
    ) -> None:
        await frail.put("a", ANSWER, 60)
        getattr(disposable_redis, fault)()
        with structlog.testing.capture_logs() as logs:
            assert await quickly(lambda: frail.get("a")) is None
            for _ in range(50):
                assert await quickly(lambda: frail.get("a")) is None
            await quickly(lambda: frail.put("b", ANSWER, 60))
            assert await frail.get("b") == ANSWER
            clock.now_s += 5
            assert await quickly(lambda: frail.get("b")) == ANSWER
        assert [entry["event"] for entry in logs] == ["cache.redis_away"]
        assert disposable_redis.url not in str(logs)

    @pytest.mark.parametrize("fault", ["kill", "freeze"])
    async def test_many_calls_at_once_fail_as_quickly_as_one(
        self, disposable_redis: RedisServer, frail: RedisCache, fault: str
    ) -> None:
        await frail.put("a", ANSWER, 60)
        getattr(disposable_redis, fault)()

        async def storm() -> Any:
            return await asyncio.gather(*(frail.get("a") for _ in range(400)))

        assert await quickly(storm) == [None] * 400

    @pytest.mark.parametrize("fault", ["kill", "freeze"])
    async def test_a_server_that_comes_back_is_used_again(
        self, disposable_redis: RedisServer, frail: RedisCache, clock: Clock, fault: str
    ) -> None:
        await frail.put("a", ANSWER, 60)
        with structlog.testing.capture_logs() as logs:
            getattr(disposable_redis, fault)()
            assert await frail.get("a") is None
            disposable_redis.restart() if fault == "kill" else disposable_redis.thaw()
            assert await frail.get("a") is None
            clock.now_s += 5
            await frail.put("b", ANSWER, 60)
        assert [entry["event"] for entry in logs] == ["cache.redis_away", "cache.redis_back"]
        async with make_redis(disposable_redis.url) as client:
            assert 0 < await client.pttl(KEY_PREFIX + "b") <= 60_000

    async def test_during_an_outage_one_call_asks_for_all(
        self, disposable_redis: RedisServer, frail: RedisCache, clock: Clock
    ) -> None:
        await frail.put("a", ANSWER, 60)
        disposable_redis.freeze()
        await frail.get("a")
        clock.now_s += 5
        probe = asyncio.create_task(frail.get("a"))
        await asyncio.sleep(0)
        assert await quickly(lambda: frail.get("a")) is None
        assert not probe.done()
        assert await probe is None

    async def test_a_port_where_nobody_listens_is_done_without(self) -> None:
        cache = RedisCache(make_redis(f"redis://127.0.0.1:{free_port()}/0"))
        assert await quickly(lambda: cache.get("a")) is None
        await cache.put("a", ANSWER, 60)
        assert await cache.get("a") == ANSWER
        await cache.close()

    async def test_what_others_wrote_under_our_key_is_a_miss(
        self, disposable_redis: RedisServer, frail: RedisCache
    ) -> None:
        async with make_redis(disposable_redis.url) as client:
            await client.set(KEY_PREFIX + "a", b"\xff{")
            await client.set(KEY_PREFIX + "b", b"[1]")
            await client.lpush(KEY_PREFIX + "c", b"1")
        assert [await frail.get(key) for key in "abc"] == [None, None, None]
