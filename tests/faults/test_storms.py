"""Many callers while providers throttle or are down: few calls upstream, clear answers, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.http.surface import books_are_right, check_error, open_holds
from tests.support.gateway import Person, RunningGateway, gateway_environment, running_gateway, sqlite_url
from tests.support.tcp_proxy import Fair, Hang, Refuse, TcpProxy, Weather
from tests.support.upstream import Answer, Behaviour, Fail, Upstream, Usage

AS_SHIPPED: Mapping[str, Any] = {
    "GATEWAY_RETRIES": 2,
    "GATEWAY_RETRY_SHARE": 0.1,
    "GATEWAY_BREAKER_FAILURES": 5,
    "GATEWAY_UPSTREAM_CONNECT_TIMEOUT_S": 0.5,
    "GATEWAY_UPSTREAM_READ_TIMEOUT_S": 0.5,
    "GATEWAY_UPSTREAM_TOTAL_TIMEOUT_S": 5,
}
CALLERS, CALLS = 8, 25
STORM_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    gateway: RunningGateway
    person: Person
    upstream: Upstream
    proxy: TcpProxy

    async def ask(self, model: str, *, stream: bool = False) -> httpx2.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": stream}
        return await self.person.http.post("/v1/chat/completions", json=body)

    async def storm(self, model: str) -> Counter[int]:
        """Callers who ask one after the other, all at once; every other call is a stream."""
        told: Counter[int] = Counter()

        async def caller() -> None:
            for number in range(CALLS):
                response = await self.ask(model, stream=bool(number % 2))
                told[response.status_code] += 1
                if response.status_code != 200:
                    check_error(response, response.status_code)

        async with asyncio.timeout(STORM_S):
            await asyncio.gather(*(caller() for _ in range(CALLERS)))
        assert open_holds(self.gateway) == 0
        return told

    async def chain(self) -> tuple[str, list[str]]:
        """Two models of one provider, behind the proxy."""
        models = [f"m-{uuid4().hex[:8]}" for _ in range(2)]
        for name in models:
            body = {"name": name, "provider": "openai", "context_window": 100_000, "max_output": 1000}
            made = await self.gateway.http.post("/api/v1/admin/models", json=body)
            assert made.status_code == 201, made.text
        name = f"c-{uuid4().hex[:8]}"
        await self.gateway.http.post("/api/v1/admin/chains", json={"name": name, "models": models})
        return name, models


@asynccontextmanager
async def opened(tmp_path: Path, upstream: Upstream, **settings: Any) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(TcpProxy(upstream.url))
        environment = gateway_environment(sqlite_url(tmp_path), upstream, **{**AS_SHIPPED, **settings})
        environment["OPENAI_BASE_URL"] = f"{proxy.url}/v1"
        gateway = await stack.enter_async_context(running_gateway(environment))
        person = await gateway.new_user("somebody")
        await gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": 10_000_000})
        upstream.always(Answer(text="Yes.", usage=Usage(input=3, output=2)))
        yield Scene(gateway=gateway, person=person, upstream=upstream, proxy=proxy)
        await books_are_right(gateway)


async def test_retries_do_not_multiply_a_storm_of_429(tmp_path: Path, upstream: Upstream) -> None:
    """Even where no breaker opens."""
    async with opened(tmp_path, upstream, GATEWAY_BREAKER_FAILURES=0) as scene:
        upstream.always(Fail(status=429), model="gpt-4o")
        told = await scene.storm("gpt-4o")
    assert told == {502: CALLERS * CALLS}
    assert len(upstream.requests) <= 1.2 * CALLERS * CALLS


@pytest.mark.parametrize("behaviour", [Fail(status=429, headers={"retry-after": "30"}), Fail(status=500)])
async def test_who_throttles_or_fails_is_left_alone(tmp_path: Path, upstream: Upstream, behaviour: Behaviour) -> None:
    async with opened(tmp_path, upstream, GATEWAY_BREAKER_OPEN_S=60) as scene:
        upstream.always(behaviour, model="gpt-4o")
        told = await scene.storm("gpt-4o")
    assert told.keys() == {502, 503}
    assert told[502] <= CALLERS + 5
    assert len(upstream.requests) <= CALLERS + 10


async def test_with_its_first_model_dead_a_chain_answers_everybody(tmp_path: Path, upstream: Upstream) -> None:
    async with opened(tmp_path, upstream, GATEWAY_BREAKER_OPEN_S=60) as scene:
        name, (dead, _) = await scene.chain()
        upstream.always(Fail(status=500), model=dead)
        assert await scene.storm(name) == {200: CALLERS * CALLS}
        upstream.requests.clear()
        assert await scene.storm(name) == {200: CALLERS * CALLS}
    assert len(upstream.requests) <= 1.05 * CALLERS * CALLS


@pytest.mark.parametrize(("weather", "status"), [(Refuse(), 502), (Hang(), 504)], ids=["refuses", "hangs"])
async def test_with_all_down_everybody_is_told_so_and_served_when_they_are_back(
    tmp_path: Path, upstream: Upstream, weather: Weather, status: int
) -> None:
    async with opened(tmp_path, upstream, GATEWAY_BREAKER_OPEN_S=0.5) as scene:
        name, _ = await scene.chain()
        await scene.proxy.turn(weather)
        told = await scene.storm(name)
        assert told.keys() <= {status, 502, 503}
        assert told[503] > told[status] > 0
        standing = (await scene.person.http.get("/api/v1/users/me/tokens")).json()
        assert (standing["balance"], standing["held"]) == (10_000_000, 0)
        await scene.proxy.turn(Fair())
        async with asyncio.timeout(20):
            while (await scene.ask(name)).status_code != 200:
                await asyncio.sleep(0.05)
        assert await scene.storm(name) == {200: CALLERS * CALLS}
