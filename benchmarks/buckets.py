"""What rate limits cost a call: CPU of this process for admitting it and ending it.

Run it with `python -m benchmarks.buckets [calls]`; it is bounded by the number of calls.
"""

import asyncio
import sys
import time
from collections.abc import Sequence

import uvloop

from src.domain.limits.limiter import Limiter
from src.domain.limits.model import LimitScope, RateLimit
from src.integrations.buckets import open_buckets
from src.integrations.redis_client import GuardedRedis, make_redis
from tests.makers import make_key, make_rate_limit, make_tenant, make_user
from tests.support.redis_server import RedisServer
from tests.unit.support import FakeRateLimitsView, make_principal

CALLS = 20_000
CONCURRENCY = 16
TENANT = make_tenant()
USER = make_user(TENANT)
KEY = make_key(USER)
PRINCIPAL = make_principal(tenant=TENANT, user=USER, api_key=KEY)


def limits(*names: str) -> list[RateLimit]:
    """These limits of the tenant, the user and the key; larger than what is called."""
    amounts = dict.fromkeys(names, 10**9)
    return [
        make_rate_limit(TENANT, **amounts),
        make_rate_limit(TENANT, scope=LimitScope.USER, scope_id=str(USER.id), **amounts),
        make_rate_limit(TENANT, scope=LimitScope.API_KEY, scope_id=str(KEY.id), **amounts),
    ]


async def estimate() -> int:
    return 900


async def measure(name: str, given: Sequence[RateLimit], redis: GuardedRedis | None, calls: int) -> None:
    """Make the calls, so many at once; print a line."""
    buckets = open_buckets(redis)
    limiter = Limiter(FakeRateLimitsView(*given), buckets)
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            permit = await limiter.admit(PRINCIPAL, "gpt-4o", estimate)
            await permit.end(250)

    started, cpu_started = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))
    cpu_us = (time.process_time() - cpu_started) / calls * 1e6
    elapsed_us = (time.perf_counter() - started) / calls * 1e6
    await buckets.close()
    print(f"{name:<58} {cpu_us:7.1f} us CPU  {elapsed_us:7.1f} us elapsed a call, {CONCURRENCY} at once")


async def main(calls: int) -> None:
    """Without limits, in memory, and in Redis."""
    requests, everything = ("requests_per_minute",), ("requests_per_minute", "tokens_per_minute", "parallel")
    others = [make_rate_limit(make_tenant(), requests_per_minute=5)]
    server = await asyncio.to_thread(RedisServer.start_own)
    redis = GuardedRedis(make_redis(server.url, timeout_s=5), timeout_s=5)
    try:
        for _ in range(2):  # the first round warms everything
            await measure("nobody has limits", [], redis, calls)
            await measure("others have limits", others, redis, calls)
            await measure("3 scopes, requests, in memory", limits(*requests), None, calls)
            await measure("3 scopes, requests, tokens and parallel, in memory", limits(*everything), None, calls)
            await measure("3 scopes, requests, in Redis", limits(*requests), redis, calls)
            await measure("3 scopes, requests, tokens and parallel, in Redis", limits(*everything), redis, calls)
            print()
    finally:
        await redis.close()
        await asyncio.to_thread(server.stop)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else CALLS))
