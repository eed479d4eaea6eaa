"""Scripts are played in order, and what the clients did is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import httpx2
import openai
import pytest
import pytest_asyncio

from tests.support.upstream import Answer, Behaviour, Hang, NoUsage, Upstream, Usage

QUESTION: list[Any] = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello there"}]


@pytest_asyncio.fixture
async def openai_client(upstream: Upstream) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=upstream.openai_base_url, api_key="sk", max_retries=0) as client:
        yield client


async def openai_stream(client: openai.AsyncOpenAI) -> list[Any]:
    stream = await client.chat.completions.create(model="gpt-4o", messages=QUESTION, stream=True)
    return [chunk async for chunk in stream]


class TestScript:
    async def test_one_shots_come_in_order_before_the_defaults(self, upstream: Upstream) -> None:
        upstream.always(Answer(text="default"))
        upstream.always(Answer(text="mini"), model="gpt-4o-mini")
        upstream.script(Answer(text="first"), Answer(text="second"))
        upstream.script(Answer(text="own"), model="gpt-4o-mini")
        async with openai.AsyncOpenAI(base_url=upstream.openai_base_url, api_key="sk") as client:
            models = ["gpt-4o-mini", "gpt-4o", "gpt-4o-mini", "gpt-4o-mini", "gpt-4o"]
            replies = [await client.chat.completions.create(model=m, messages=QUESTION) for m in models]
        texts = [reply.choices[0].message.content for reply in replies]
        assert texts == ["own", "first", "second", "mini", "default"]
        assert len(upstream.requests_for("gpt-4o-mini")) == 3

    @pytest.mark.parametrize("claim", [Usage(input=-5, output=10**12), NoUsage()])
    async def test_usage_may_lie_or_be_missing(self, upstream: Upstream, claim: Usage | NoUsage) -> None:
        upstream.always(claim)
        async with aiohttp.ClientSession(headers={"authorization": "Bearer sk"}) as http:
            body = {"model": "m", "messages": QUESTION}
            async with http.post(f"{upstream.openai_base_url}/chat/completions", json=body) as response:
                usage = (await response.json()).get("usage")
        assert usage is None if isinstance(claim, NoUsage) else usage["prompt_tokens"] == -5

    async def test_a_request_without_or_with_a_foreign_key_is_refused(self) -> None:
        async with Upstream(keys={"good"}) as up, httpx2.AsyncClient() as http:
            for key, status in (("bad", 401), ("good", 200)):
                reply = await http.post(
                    f"{up.openai_base_url}/chat/completions",
                    json={"model": "m", "messages": QUESTION},
                    headers={"authorization": f"Bearer {key}"},
                )
                assert reply.status_code == status


class TestRecording:
    @pytest.mark.parametrize("behaviour", [Hang(30.0), Hang(30.0, after=2), Answer(gate=asyncio.Event())])
    async def test_a_client_that_hangs_up_is_noticed(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI, behaviour: Behaviour
    ) -> None:
        upstream.script(behaviour)
        task = asyncio.create_task(openai_stream(openai_client))
        expected = 2 if isinstance(behaviour, Hang) and behaviour.after else 0
        await upstream.wait_until(lambda up: up.in_flight == 1 and up.requests[0].chunks_sent == expected)
        task.cancel()
        [seen] = upstream.requests
        await seen.wait_disconnected()
        assert seen.disconnected
        assert not seen.finished.is_set()
        await upstream.wait_until(lambda up: up.in_flight == 0)

    async def test_a_gate_holds_requests_in_flight_together(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI
    ) -> None:
        gate = asyncio.Event()
        upstream.always(Answer(gate=gate))
        ask: Callable[[], Any] = lambda: openai_client.chat.completions.create(model="m", messages=QUESTION)  # noqa: E731
        tasks = [asyncio.create_task(ask()) for _ in range(5)]
        await upstream.wait_in_flight(5)
        gate.set()
        await asyncio.gather(*tasks)
        assert upstream.max_in_flight == 5
        assert upstream.in_flight == 0

    async def test_a_gate_holds_a_stream_after_n_chunks(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI
    ) -> None:
        gate = asyncio.Event()
        upstream.script(Answer(text="a b c", gate=gate, gate_after=2))
        task = asyncio.create_task(openai_stream(openai_client))
        await upstream.wait_until(lambda up: bool(up.requests) and up.requests[0].chunks_sent == 2)
        assert not task.done()
        gate.set()
        chunks = await task
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == "a b c"
