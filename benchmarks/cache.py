"""What the response cache adds to a call in this process's CPU: off, hits and misses, in memory and in Redis.

    python -m benchmarks.cache [--seconds 10]

A hit is everything from the call to its answer: policy, key, lookup, unpacking. A miss is that and the storing of an
answer that is ready at once. The Redis server is a process of its own whose CPU is not counted. The cases take turns in
short rounds, so that whatever else the machine does falls on all of them alike.
"""

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from src.domain.catalog.model import CachePolicy, Usage, WireFormat
from src.domain.completion.answering import Answering
from src.domain.completion.caching import SharedAnswers
from src.domain.completion.model import CacheUse, CacheWish, Call, FinishReason, Outcome, WireBody
from src.domain.completion.ports import ResponseCache
from src.domain.ledger.model import CallStatus
from src.integrations.cache.memory import MemoryCache
from src.integrations.cache.redis import RedisCache
from src.integrations.redis_client import GuardedRedis, make_redis
from src.shared.clock import utc_now
from src.shared.ids import new_id
from src.shared.money import MicroDollars
from tests.support.redis_server import RedisServer
from tests.unit.support import FakeLedger, make_call, make_model, user_says

ROUND_S = 0.1
BATCH = 20
ANSWER_BYTES = 1500
SIZES = {"1 kB": 1_000, "24 kB": 24_000}
MODEL = make_model()

Ask = Callable[[], Awaitable[CacheUse | None]]


class Ready:
    """An answer that is there at once."""

    is_stopping = False

    def __init__(self, call: Call) -> None:
        self.call = call
        self.cache = call.cache_use

    async def outcome(self) -> Outcome:
        return Outcome(
            id=new_id(),
            status=CallStatus.COMPLETED,
            text="",
            finish_reason=FinishReason.STOP,
            usage=Usage(input_tokens=10, output_tokens=10),
            cost_micro_usd=MicroDollars(0),
            model=MODEL,
            upstream_model=None,
            attempts=(),
            ended_at=utc_now(),
            wire=b"x" * ANSWER_BYTES,
            cache=self.cache,
        )


async def ready(call: Call) -> Answering:
    return cast(Answering, Ready(call))


def call_of(text: str, wish: CacheWish) -> Call:
    body: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": text}], "temperature": 0.5}
    wire = WireBody(format=WireFormat.CHAT_COMPLETIONS, body=body)
    return make_call(MODEL, chat=user_says(text, wire=wire), cache=wish)


@dataclass(slots=True)
class Case:
    """One way to ask, and what the cache must have for it."""

    name: str
    ask: Ask
    expected: CacheUse | None
    costs_us: list[float] = field(default_factory=list)

    async def round(self) -> None:
        """Ask one call after the other for a while; note the CPU per call."""
        calls = 0
        cpu_s, until_s = time.process_time(), time.monotonic() + ROUND_S
        while time.monotonic() < until_s:
            for _ in range(BATCH):
                found = await self.ask()
            if found is not self.expected:
                raise RuntimeError(f"{self.name}: {found}")
            calls += BATCH
        self.costs_us.append((time.process_time() - cpu_s) * 1e6 / calls)


def shared(store: ResponseCache) -> SharedAnswers:
    return SharedAnswers(
        store,
        ledger=FakeLedger(),
        clock=utc_now,
        default=CachePolicy(ttl_s=3600),
        patience_s=10,
        admit=lambda: None,
    )


async def cases_of(name: str, store: ResponseCache, size: str, length: int) -> list[Case]:
    cache, numbers = shared(store), itertools.count()
    known = call_of("known" + "x" * length, CacheWish(on=True))

    async def hit() -> CacheUse | None:
        return (await cache.answered(known, ready)).cache

    async def miss() -> CacheUse | None:
        asked = call_of(f"{next(numbers):09}" + "x" * length, CacheWish(on=True))
        answer = await cache.answered(asked, ready)
        await asyncio.gather(*cache._tasks)
        return answer.cache

    await hit()
    await asyncio.gather(*cache._tasks)
    return [
        Case(f"{name}, hit, {size}", hit, CacheUse.HIT),
        Case(f"{name}, miss and stored, {size}", miss, CacheUse.MISS),
    ]


@asynccontextmanager
async def redis_store() -> AsyncIterator[ResponseCache]:
    server = await asyncio.to_thread(RedisServer.start_own)
    guarded = GuardedRedis(make_redis(server.url, timeout_s=5), timeout_s=5)
    try:
        yield RedisCache(guarded)
    finally:
        await guarded.close()
        await asyncio.to_thread(server.stop)


async def main(seconds: float) -> None:
    async with redis_store() as redis:
        off_cache = shared(MemoryCache())
        off_call = replace(call_of("x" * 1000, CacheWish()), cache=CacheWish())

        async def off() -> CacheUse | None:
            return (await off_cache.answered(off_call, ready)).cache

        cases = [Case("off", off, None)]
        for size, length in SIZES.items():
            cases += await cases_of("memory", MemoryCache(max_bytes=2**30), size, length)
            cases += await cases_of("redis", redis, size, length)
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            for case in cases:
                await case.round()
    print(f"CPU per call, median of rounds of {ROUND_S} s; prompts of 1 and 24 kB, an answer of {ANSWER_BYTES} bytes\n")
    for case in cases:
        print(f"{case.name:30} {statistics.median(case.costs_us):8.1f} us   (best {min(case.costs_us):.1f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    try:
        import uvloop
    except ImportError:
        asyncio.run(main(arguments.seconds))
    else:
        uvloop.run(main(arguments.seconds))
