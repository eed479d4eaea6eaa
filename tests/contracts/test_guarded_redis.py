"""A Redis that dies, hangs and comes back, asked by many: nobody waits for it but once, and only the probe asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
import structlog
from redis.asyncio import Redis

from src.integrations.redis_client import GuardedRedis, RedisAway, make_redis
from tests.support.processes import free_port
from tests.support.redis_server import RedisServer

FAULTS = {"kill": RedisServer.restart, "freeze": RedisServer.thaw}
"""What can happen to a server, and what ends it."""


@pytest_asyncio.fixture
async def guarded(disposable_redis: RedisServer) -> AsyncIterator[GuardedRedis]:
    """A guard of a server of its own: patient enough for a busy machine, with an eager probe."""
    made = GuardedRedis(make_redis(disposable_redis.url, timeout_s=1), timeout_s=1, probe_every_s=0.02)
    yield made
    await made.close()


async def answer(client: Redis) -> Any:
    return await client.incr("asked")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.005)


class Counting:
    """An operation that counts how often it is tried."""

    def __init__(self) -> None:
        self.tries = 0

    async def __call__(self, client: Redis) -> Any:
        self.tries += 1
        return await answer(client)


async def test_what_redis_answers_is_what_is_returned(guarded: GuardedRedis) -> None:
    assert await guarded.ask(answer) == 1
    assert await guarded.ask(answer) == 2
    assert not guarded.is_away


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_first_failure_makes_it_away_for_all(
    disposable_redis: RedisServer, guarded: GuardedRedis, fault: str
) -> None:
    await guarded.ask(answer)
    getattr(disposable_redis, fault)()
    with pytest.raises(RedisAway):
        await guarded.ask(answer)
    assert guarded.is_away
    counting = Counting()
    for _ in range(1000):
        with pytest.raises(RedisAway):
            await guarded.ask(counting)
    assert counting.tries == 0, "nobody asks a Redis that is away"


@pytest.mark.parametrize("fault", FAULTS)
async def test_many_at_once_fail_as_quickly_as_one(
    disposable_redis: RedisServer, guarded: GuardedRedis, fault: str
) -> None:
    await guarded.ask(answer)
    getattr(disposable_redis, fault)()
    async with asyncio.timeout(15):  # not a measure: the client's own defaults would wait for a minute
        found = await asyncio.gather(*(guarded.ask(answer) for _ in range(400)), return_exceptions=True)
    assert {type(each) for each in found} == {RedisAway}


@pytest.mark.parametrize("fault", FAULTS)
async def test_it_is_used_again_when_it_is_back_though_nobody_asks(
    disposable_redis: RedisServer, guarded: GuardedRedis, fault: str
) -> None:
    await guarded.ask(answer)
    with structlog.testing.capture_logs() as logs:
        getattr(disposable_redis, fault)()
        for _ in range(3):
            with pytest.raises(RedisAway):
                await guarded.ask(answer)
        FAULTS[fault](disposable_redis)
        await until(lambda: not guarded.is_away)
        assert await guarded.ask(answer) > 0
    assert [entry["event"] for entry in logs] == ["redis_away", "redis_back"]
    assert disposable_redis.url not in str(logs)


async def test_one_outage_after_the_other_is_survived(disposable_redis: RedisServer, guarded: GuardedRedis) -> None:
    for _ in range(3):
        assert await guarded.ask(answer) > 0
        disposable_redis.kill()
        with pytest.raises(RedisAway):
            await guarded.ask(answer)
        disposable_redis.restart()
        await until(lambda: not guarded.is_away)


async def test_probes_come_one_after_the_other(disposable_redis: RedisServer, guarded: GuardedRedis) -> None:
    disposable_redis.freeze()
    with pytest.raises(RedisAway):
        await guarded.ask(answer)
    for _ in range(20):
        with pytest.raises(RedisAway):
            await guarded.ask(answer)
        assert len([task for task in asyncio.all_tasks() if task.get_name() == "redis probe"]) == 1
        await asyncio.sleep(0.005)


async def test_what_redis_refuses_is_refused_alone(guarded: GuardedRedis) -> None:
    async def wrong_type(client: Redis) -> Any:
        await client.set("text", "a")
        return await client.incr("text")

    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(RedisAway):
                await guarded.ask(wrong_type)
    assert not guarded.is_away
    assert await guarded.ask(answer) == 1
    assert [entry["event"] for entry in logs] == ["redis_refused"]


async def test_faults_of_ours_are_no_outage(guarded: GuardedRedis) -> None:
    async def fault(_: Redis) -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        await guarded.ask(fault)
    assert not guarded.is_away


async def test_who_is_cancelled_while_asking_makes_it_not_away(
    disposable_redis: RedisServer, guarded: GuardedRedis
) -> None:
    await guarded.ask(answer)
    disposable_redis.freeze()
    asking = asyncio.create_task(guarded.ask(answer))
    await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    disposable_redis.thaw()
    assert not guarded.is_away
    assert await guarded.ask(answer) > 0


async def test_a_port_where_nobody_listens_is_done_without() -> None:
    guarded = GuardedRedis(make_redis(f"redis://127.0.0.1:{free_port()}/0"))
    with pytest.raises(RedisAway):
        await guarded.ask(answer)
    assert guarded.is_away
    await guarded.close()


async def test_closing_ends_the_probe(disposable_redis: RedisServer) -> None:
    guarded = GuardedRedis(make_redis(disposable_redis.url))
    disposable_redis.freeze()
    with pytest.raises(RedisAway):
        await guarded.ask(answer)
    await guarded.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_the_length_of_an_outage_is_told(disposable_redis: RedisServer) -> None:
    seconds = iter((100.0, 107.5))
    guarded = GuardedRedis(make_redis(disposable_redis.url), probe_every_s=0.02, clock=lambda: next(seconds))
    with structlog.testing.capture_logs() as logs:
        disposable_redis.freeze()
        with pytest.raises(RedisAway):
            await guarded.ask(answer)
        disposable_redis.thaw()
        await until(lambda: not guarded.is_away)
    assert logs[-1]["away_s"] == 7.5
    await guarded.close()
