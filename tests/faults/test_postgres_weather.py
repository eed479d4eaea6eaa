"""A PostgreSQL whose connections break or fall silent: calls are answered or clearly refused, the books are right."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx2
import pytest
import pytest_asyncio

from tests.http.surface import books_are_right, check_error
from tests.support.gateway import Person, RunningGateway, gateway_environment, running_gateway
from tests.support.tcp_proxy import Cut, Fair, Hang, Refuse, Reset, TcpProxy, Weather
from tests.support.upstream import Answer, Upstream, Usage

WEATHERS: dict[str, Weather] = {
    "refuses": Refuse(),
    "resets": Reset(),
    "resets in an answer": Reset(20),
    "cuts": Cut(),
    "cuts in an answer": Cut(20),
}
CREDIT, TOKENS = 1_000_000, 5
REQUESTS = 20
OUTAGE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    gateway: RunningGateway
    person: Person
    proxy: TcpProxy

    async def ask(self) -> httpx2.Response:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
        return await self.person.http.post("/v1/chat/completions", json=body)

    async def spent(self) -> int:
        """Once nothing is held any more."""
        async with asyncio.timeout(20):
            while (standing := (await self.person.http.get("/api/v1/users/me/tokens")).json())["held"]:
                await asyncio.sleep(0.1)
        return CREDIT - int(standing["balance"])

    async def wait_until_it_answers(self) -> None:
        async with asyncio.timeout(20):
            while (await self.ask()).status_code != 200:
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture
async def scene(upstream: Upstream, postgres_url: str) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(TcpProxy(postgres_url))
        environment = gateway_environment(proxy.url, upstream, GATEWAY_HOLD_GRACE_S=1)
        gateway = await stack.enter_async_context(running_gateway(environment))
        person = await gateway.new_user("somebody")
        await gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": CREDIT})
        upstream.always(Answer(text="Yes.", usage=Usage(input=3, output=2), delay_s=0.02))
        yield Scene(gateway=gateway, person=person, proxy=proxy)
        await books_are_right(gateway)


@pytest.mark.parametrize("name", WEATHERS)
async def test_connections_may_break_under_load(scene: Scene, upstream: Upstream, name: str) -> None:
    assert (await scene.ask()).status_code == 200
    under_way = [asyncio.create_task(scene.ask()) for _ in range(REQUESTS)]
    await upstream.wait_until(lambda up: len(up.requests) > 1)
    await scene.proxy.turn(WEATHERS[name])
    under_way += [asyncio.create_task(scene.ask()) for _ in range(3)]
    await asyncio.wait(under_way, timeout=OUTAGE_S)
    await scene.proxy.turn(Fair())
    answers = await asyncio.gather(*under_way)
    for answer in answers:
        if answer.status_code != 200:
            check_error(answer, 503)
    statuses = Counter(answer.status_code for answer in answers)
    await scene.wait_until_it_answers()
    # Whether what broke off in its commit was committed nobody can know; it was said that it may not have been.
    sure = TOKENS * (statuses[200] + 2)
    assert sure <= await scene.spent() <= sure + TOKENS * statuses[503]


async def test_a_short_silence_only_delays(scene: Scene, upstream: Upstream) -> None:
    assert (await scene.ask()).status_code == 200
    under_way = [asyncio.create_task(scene.ask()) for _ in range(REQUESTS)]
    await upstream.wait_until(lambda up: len(up.requests) > 1)
    await scene.proxy.turn(Hang())
    _, waiting = await asyncio.wait(under_way, timeout=OUTAGE_S)
    await scene.proxy.turn(Fair())
    assert waiting
    assert {answer.status_code for answer in await asyncio.gather(*under_way)} == {200}
    assert await scene.spent() == TOKENS * (REQUESTS + 1)
