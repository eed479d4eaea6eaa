"""Rate buckets that all replicas share, in Redis: one script a call. While Redis is away, each process counts alone."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from src.domain.limits.model import PARALLEL_WAIT_MS, Bucket, Level, LimitName, Taking
from src.domain.limits.ports import Buckets
from src.domain.limits.window import SLOT_MS, SLOTS
from src.integrations.buckets.memory import MemoryBuckets
from src.integrations.redis_client import GuardedRedis, RedisAway
from src.shared.tasks import end_task

KEY_PREFIX = "llm-gateway:rate:"
LEASE_MS = 30_000
"""How long a call that nobody renews is taken to be under way: its process is gone."""
RENEWALS = 3
"""How often a lease is renewed before it would end."""
RENEWED_AT_ONCE = 500

_CONSTANTS = {"SLOT_MS": SLOT_MS, "SLOTS": SLOTS, "LEASE_MS": LEASE_MS, "WAIT_MS": PARALLEL_WAIT_MS}
SCRIPT = "".join(f"local {name} = {value}\n" for name, value in _CONSTANTS.items()) + Path(__file__).with_name(
    "buckets.lua"
).read_text(encoding="utf-8")
_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


class RedisBuckets(Buckets):
    """`clock_ms` is for tests: without it the time is the server's own, whatever the clocks of the replicas say."""

    def __init__(
        self, redis: GuardedRedis, *, local: MemoryBuckets | None = None, clock_ms: Callable[[], int] | None = None
    ) -> None:
        self._redis = redis
        self._local = local or MemoryBuckets()
        self._clock_ms = clock_ms
        self._under_way: dict[UUID, list[str]] = {}
        self._keeper: asyncio.Task[None] | None = None

    async def take(self, call_id: UUID, buckets: Sequence[Bucket], tokens: int) -> Taking:
        keys = [KEY_PREFIX + bucket.key for bucket in buckets]
        arguments: list[Any] = [call_id.hex]
        for bucket in buckets:
            arguments += (_kind(bucket), bucket.limit, bucket.amount(tokens))
        try:
            slot, *numbers = map(int, (await self._run("take", keys, arguments)).split())
        except RedisAway:
            return await self._local.take(call_id, buckets, tokens)
        levels = [
            Level(bucket, used, reset_ms / 1000, wait_ms / 1000)
            for bucket, used, reset_ms, wait_ms in zip(buckets, numbers[::3], numbers[1::3], numbers[2::3], strict=True)
        ]
        taking = Taking(call_id, levels, tokens, slot, is_local=False)
        if not taking.is_refused:
            self._keep(call_id, buckets)
        return taking

    async def settle(self, taking: Taking, *, requests: int, tokens: int) -> None:
        if taking.is_local:
            await self._local.settle(taking, requests=requests, tokens=tokens)
            return
        self._under_way.pop(taking.call_id, None)
        keys: list[str] = []
        arguments: list[Any] = [taking.call_id.hex, taking.slot]
        for level in taking.levels:
            bucket = level.bucket
            used = {LimitName.REQUESTS: requests, LimitName.TOKENS: tokens, LimitName.PARALLEL: 0}[bucket.name]
            change = used - bucket.amount(taking.tokens)
            if change:
                keys.append(KEY_PREFIX + bucket.key)
                arguments += (_kind(bucket), change)
        if keys:
            with contextlib.suppress(RedisAway):  # then it counts as it was taken, and its lease ends
                await self._run("settle", keys, arguments)

    async def renew(self) -> None:
        """Say of all calls under way that they still are; done by itself, in time."""
        pairs = ((key, call_id.hex) for call_id, keys in list(self._under_way.items()) for key in keys)
        while some := list(islice(pairs, RENEWED_AT_ONCE)):
            await self._run("renew", [key for key, _ in some], [call_id for _, call_id in some])

    async def close(self) -> None:
        await end_task(self._keeper)

    def _keep(self, call_id: UUID, buckets: Sequence[Bucket]) -> None:
        keys = [KEY_PREFIX + bucket.key for bucket in buckets if bucket.name is LimitName.PARALLEL]
        if not keys:
            return
        self._under_way[call_id] = keys
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._renew_all(), name="parallel calls")

    async def _renew_all(self) -> None:
        while self._under_way:
            await asyncio.sleep(LEASE_MS / 1000 / RENEWALS)
            with contextlib.suppress(RedisAway):
                await self.renew()

    async def _run(self, what: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        now_ms = "" if self._clock_ms is None else self._clock_ms()
        words = (*keys, what, now_ms, " ".join(map(str, arguments)))

        async def operation(client: Redis) -> Any:
            try:
                return await client.evalsha(_SHA, len(keys), *words)
            except NoScriptError:
                return await client.eval(SCRIPT, len(keys), *words)

        return await self._redis.ask(operation)


def _kind(bucket: Bucket) -> str:
    return "calls" if bucket.name is LimitName.PARALLEL else "window"
