"""Rate buckets to test with: a store, and the time in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from src.domain.limits.model import Bucket, Level, LimitName, LimitScope, Taking
from src.integrations.buckets.memory import MemoryBuckets
from src.integrations.buckets.redis import RedisBuckets
from src.integrations.redis_client import GuardedRedis, make_redis
from tests.support.redis_server import RedisServer


class Clock:
    """Milliseconds that pass when told to."""

    def __init__(self) -> None:
        self.now_ms = 1_790_000_000_123

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class World:
    """A store, and the time in it."""

    buckets: Any
    clock: Clock = field(default_factory=Clock)
    names: dict[str, str] = field(default_factory=dict)

    def bucket(self, name: LimitName, limit: int, owner: str = "a", scope: LimitScope = LimitScope.USER) -> Bucket:
        """A bucket that no other test has."""
        return Bucket(name, scope, self.names.setdefault(owner, str(uuid4())), limit)

    async def take(self, *buckets: Bucket, tokens: int = 0) -> Taking:
        found: Taking = await self.buckets.take(uuid4(), buckets, tokens)
        return found

    async def end(self, taking: Taking, tokens: int = 0) -> None:
        await self.buckets.settle(taking, requests=1, tokens=tokens)

    def pass_ms(self, passed_ms: int) -> None:
        self.clock.now_ms += passed_ms


Opener = Callable[[], AbstractAsyncContextManager[World]]


@asynccontextmanager
async def in_memory() -> AsyncIterator[World]:
    clock = Clock()
    yield World(MemoryBuckets(clock_ms=clock), clock)


@asynccontextmanager
async def in_redis(server: RedisServer) -> AsyncIterator[World]:
    clock = Clock()
    guarded = patient(server)
    buckets = RedisBuckets(guarded, clock_ms=clock)
    yield World(buckets, clock)
    assert not guarded.is_away
    await buckets.close()
    await guarded.close()


def patient(server: RedisServer) -> GuardedRedis:
    """What is counted is asked here, not how long a busy machine takes."""
    return GuardedRedis(make_redis(server.url, timeout_s=20), timeout_s=20)


def level_of(taking: Taking) -> Level:
    (level,) = taking.levels
    return level
