"""What fails on one replica is left alone by the others, as long as there is a Redis; without one nobody waits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from src.domain.completion.model import Failure, UpstreamFailed
from src.domain.routing.board import Board
from src.domain.routing.breaker import BreakerPolicy, BreakerState
from src.integrations.redis_client import GuardedRedis, make_redis
from src.integrations.shared_breakers import KEY, SharedBreakers
from tests.support.redis_server import RedisServer

DEPLOYMENT = "openai/gpt-4o"
POLICY = BreakerPolicy(most_in_a_row=1, open_s=20)
EVERY_S = 0.02


@asynccontextmanager
async def replica(url: str) -> AsyncIterator[Board]:
    board = Board(POLICY)
    redis = GuardedRedis(make_redis(url, timeout_s=1), timeout_s=1, probe_every_s=EVERY_S)
    shared = SharedBreakers(board, redis, every_s=EVERY_S)
    shared.start()
    try:
        yield board
    finally:
        await shared.close()
        await redis.close()


def fail(board: Board, kind: Failure = Failure.SERVER, retry_after_s: float | None = None) -> None:
    board.failed(DEPLOYMENT, UpstreamFailed(kind, "It failed.", retry_after_s=retry_after_s))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_breaker_that_opens_here_is_open_there(redis_url: str) -> None:
    async with replica(redis_url) as here, replica(redis_url) as there:
        fail(here, Failure.TIMEOUT)
        await until(lambda: not there.admits(DEPLOYMENT))
        health = there.health(DEPLOYMENT)
        assert (health.state, health.reason) == (BreakerState.OPEN, Failure.TIMEOUT)
        assert 15 < (health.retry_in_s or 0) <= 20


async def test_a_replica_that_comes_later_hears_of_it(redis_url: str) -> None:
    async with replica(redis_url) as here:
        fail(here)
        await asyncio.sleep(5 * EVERY_S)
        async with replica(redis_url) as there:
            await until(lambda: not there.admits(DEPLOYMENT))


async def test_one_that_closed_again_is_no_news(redis_url: str) -> None:
    async with replica(redis_url) as here:
        fail(here)
        here.succeeded(DEPLOYMENT)
        async with replica(redis_url) as there:
            await asyncio.sleep(10 * EVERY_S)
            assert there.admits(DEPLOYMENT)


async def test_who_found_it_well_is_not_told_the_same_again(redis_url: str) -> None:
    async with replica(redis_url) as here, replica(redis_url) as there:
        fail(here)
        await until(lambda: not there.admits(DEPLOYMENT))
        there.succeeded(DEPLOYMENT)
        await asyncio.sleep(10 * EVERY_S)
        assert there.admits(DEPLOYMENT)


async def test_nonsense_in_redis_is_no_news(redis_url: str) -> None:
    redis = make_redis(redis_url)
    words = {"a": b"no json", "b": b"[]", "c": b"{}", "d": b'{"until_ms": "x", "reason": "boredom", "by": 1}'}
    await redis.hset(KEY, mapping=dict(words))
    async with replica(redis_url) as here, replica(redis_url) as there:
        fail(here)
        await until(lambda: not there.admits(DEPLOYMENT))
        assert all(there.admits(name) for name in words)
    await redis.aclose()


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_without_redis_each_finds_out_for_itself_and_afterwards_they_tell(
    disposable_redis: RedisServer, fault: str
) -> None:
    async with replica(disposable_redis.url) as here, replica(disposable_redis.url) as there:
        getattr(disposable_redis, fault)()
        await asyncio.sleep(5 * EVERY_S)
        fail(here)
        assert not here.admits(DEPLOYMENT)
        assert there.admits(DEPLOYMENT)
        {"kill": disposable_redis.restart, "freeze": disposable_redis.thaw}[fault]()
        await until(lambda: not there.admits(DEPLOYMENT))
