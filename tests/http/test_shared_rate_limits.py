"""Rate limits of two gateways with one database and one Redis, which dies, hangs and comes back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice

import httpx2
import pytest
import pytest_asyncio
import structlog

from src.api import bootstrap
from tests.http.surface import CHAT
from tests.support.gateway import Person, RunningGateway, gateway_environment, running_gateway
from tests.support.redis_server import RedisServer
from tests.support.upstream import Upstream

REMAINING = "x-ratelimit-remaining-requests"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two gateways, a user of both, and their Redis."""

    first: RunningGateway
    second: RunningGateway
    person: Person
    redis: RedisServer

    async def limit(self, **limits: int) -> None:
        """Set the user's limits at the first gateway, and wait until the second knows them."""
        path = f"/api/v1/admin/users/{self.person.id}/limits"
        assert (await self.first.http.patch(path, json=limits)).status_code == 200
        probe = await self.first.new_user(f"probe-{self.person.id}")
        scope = {"scope": "user", "scope_id": probe.id}
        put = await self.first.http.put("/api/v1/admin/rate-limits", json={**scope, "requests_per_minute": 1000})
        assert put.status_code == 200
        there = self.second.client(probe.secret)

        async def is_known() -> bool:
            return REMAINING in (await there.post("/v1/chat/completions", json=CHAT)).headers

        await eventually(is_known)

    @property
    def clients(self) -> list[httpx2.AsyncClient]:
        return [self.person.http, self.second.client(self.person.secret)]


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def pair(
    postgres_url: str, upstream: Upstream, disposable_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pair]:
    monkeypatch.setattr(bootstrap, "GuardedRedis", partial(bootstrap.GuardedRedis, probe_every_s=0.05))
    # What is counted is asked here, not how long a busy machine takes.
    given = {"REDIS_URL": disposable_redis.url, "GATEWAY_REDIS_TIMEOUT_S": 2}
    environment = gateway_environment(postgres_url, upstream, **given)
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(running_gateway(environment)) for _ in range(2)]
        yield Pair(first=first, second=second, person=await first.new_user("alice"), redis=disposable_redis)


async def called(clients: list[httpx2.AsyncClient], times: int) -> list[int]:
    """The statuses of so many calls at once, in turn by the clients."""
    turns = islice(cycle(clients), times)
    found = await asyncio.gather(*(client.post("/v1/chat/completions", json=CHAT) for client in turns))
    return sorted(response.status_code for response in found)


async def test_two_gateways_let_through_what_one_limit_allows(pair: Pair) -> None:
    await pair.limit(requests_per_minute=7, parallel=30)
    assert await called(pair.clients, 24) == [200] * 7 + [429] * 17
    assert await called(pair.clients, 2) == [429, 429]


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_without_redis_limits_are_weaker_and_nobody_is_refused_for_it(pair: Pair, fault: str) -> None:
    await pair.limit(requests_per_minute=5)
    with structlog.testing.capture_logs():
        assert await called(pair.clients, 3) == [200] * 3
        getattr(pair.redis, fault)()
        alone = await called(pair.clients, 24)
        assert alone == [200] * 10 + [429] * 14, "each gateway counts by itself"
        pair.redis.restart() if fault == "kill" else pair.redis.thaw()
        for gateway in (pair.first, pair.second):
            await eventually(partial(has_redis, gateway))
        together = await called(pair.clients, 24)
    if fault == "kill":
        assert together == [200] * 5 + [429] * 19, "Redis has forgotten all, and counts for both again"
    else:
        assert together.count(200) <= 2, "what it counted before still counts; what it was asked meanwhile may"


async def has_redis(gateway: RunningGateway) -> bool:
    services = (await gateway.http.get("/health")).json()["services"]
    return bool(services["cache"] == "redis")
