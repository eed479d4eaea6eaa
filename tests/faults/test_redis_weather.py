"""A Redis that hangs, dies, drips, lies: whoever meets it first waits a moment, nobody else does, nobody is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from src.integrations.redis_client import GuardedRedis, RedisAway, make_redis
from tests.http.surface import books_are_right
from tests.support.gateway import Person, RunningGateway, gateway_environment, running_gateway, sqlite_url
from tests.support.tcp_proxy import Corrupt, Cut, Drip, Fair, Hang, Refuse, Reset, TcpProxy, Weather
from tests.support.upstream import Answer, Upstream, Usage

WEATHERS: dict[str, Weather] = {
    "refuses": Refuse(),
    "hangs": Hang(),
    "drips": Drip(size=1, every_s=0.1),
    "resets": Reset(),
    "resets in an answer": Reset(3),
    "cuts": Cut(),
    "cuts in an answer": Cut(3),
    "corrupts": Corrupt(every=1),
}
REQUESTS = 30
PATIENCE_S = 4.0
"""Less than if each of the requests waited for Redis once."""
PROBES_BYTES = 2000
"""What a few probes and their handshakes send; so many requests would send several times that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    gateway: RunningGateway
    person: Person
    proxy: TcpProxy

    async def ask(self) -> None:
        """A call that goes through the buckets and the cache, and has no answer there."""
        response = await self.person.http.post("/chat", json={"content": f"hello {uuid4()}", "model": "gpt-4o"})
        assert response.status_code == 200, response.text

    async def cache_state(self) -> str:
        health = await self.gateway.http.get("/health/detailed")
        return str(health.json()["services"]["cache"])

    async def wait_for(self, state: str) -> None:
        async with asyncio.timeout(10):
            while await self.cache_state() != state:
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture
async def scene(tmp_path: Path, upstream: Upstream, redis_url: str) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(TcpProxy(redis_url))
        environment = gateway_environment(sqlite_url(tmp_path), upstream, REDIS_URL=proxy.url)
        gateway = await stack.enter_async_context(running_gateway(environment))
        person = await gateway.new_user("somebody")
        limits = {"scope": "user", "scope_id": person.id, "requests_per_minute": 10_000, "tokens_per_minute": 10**7}
        limited = await gateway.http.put("/api/v1/admin/rate-limits", json=limits)
        assert limited.status_code == 200, limited.text
        await gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": 1_000_000})
        upstream.always(Answer(text="Yes.", usage=Usage(input=3, output=2)))
        scene = Scene(gateway=gateway, person=person, proxy=proxy)
        await scene.ask()
        yield scene
        await books_are_right(gateway)


@pytest.mark.parametrize("name", WEATHERS)
async def test_requests_go_on_while_redis_is_away_and_use_it_when_it_is_back(scene: Scene, name: str) -> None:
    await scene.wait_for("redis")
    await scene.proxy.turn(WEATHERS[name])
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(scene.ask() for _ in range(REQUESTS)))
    assert await scene.cache_state() == "memory"

    asked_bytes = scene.proxy.asked_bytes
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(REQUESTS):
            await scene.ask()
    assert scene.proxy.asked_bytes - asked_bytes < PROBES_BYTES

    await scene.proxy.turn(Fair())
    await scene.wait_for("redis")
    asked_bytes = scene.proxy.asked_bytes
    for _ in range(REQUESTS):
        await scene.ask()
    assert scene.proxy.asked_bytes - asked_bytes > PROBES_BYTES


@pytest.mark.parametrize("name", ["hangs", "refuses", "resets in an answer"])
async def test_a_redis_that_dies_under_load_refuses_nobody(scene: Scene, name: str) -> None:
    under_way = [asyncio.create_task(scene.ask()) for _ in range(REQUESTS)]
    await scene.proxy.turn(WEATHERS[name])
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*under_way)
    balance = (await scene.person.http.get("/api/v1/users/me/tokens")).json()
    assert (balance["balance"], balance["held"]) == (1_000_000 - 5 * (REQUESTS + 1), 0)


@pytest_asyncio.fixture
async def guarded(redis_url: str) -> AsyncIterator[tuple[GuardedRedis, TcpProxy]]:
    async with TcpProxy(redis_url) as proxy:
        redis = GuardedRedis(make_redis(proxy.url), probe_every_s=0.05)
        yield redis, proxy
        await redis.close()


@pytest.mark.parametrize("name", WEATHERS)
async def test_an_answer_that_comes_late_is_never_taken_for_another(
    guarded: tuple[GuardedRedis, TcpProxy], name: str
) -> None:
    """Whoever was cut off leaves no answer on a connection that somebody else is given."""
    redis, proxy = guarded
    keys = [f"key-{number}" for number in range(40)]
    for key in keys:
        await redis.ask(lambda client, key=key: client.set(key, f"value of {key}"))  # type: ignore[misc]

    def asking(key: str) -> Callable[[], Awaitable[object]]:
        return lambda: redis.ask(lambda client: client.get(key))

    under_way = [asyncio.create_task(_or_away(asking(key))) for key in keys]
    await proxy.turn(WEATHERS[name])
    found = dict(zip(keys, await asyncio.gather(*under_way), strict=True))
    assert all(value in (None, f"value of {key}".encode()) for key, value in found.items()) or name == "corrupts"
    await proxy.turn(Fair())
    async with asyncio.timeout(5):
        while redis.is_away:
            await asyncio.sleep(0.01)
    for _ in range(3):
        values = await asyncio.gather(*(asking(key)() for key in keys))
        assert values == [f"value of {key}".encode() for key in keys]


async def _or_away(asking: Callable[[], Awaitable[object]]) -> object:
    try:
        return await asking()
    except RedisAway:
        return None
