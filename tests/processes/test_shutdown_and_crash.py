"""What SIGTERM and kill -9 leave behind: nothing that was paid for is lost, nothing is held for ever."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import orjson

from tests.processes.conftest import Operator, client_of, eventually, new_user, verified
from tests.support.gateway import GatewayProcess, sqlite_url
from tests.support.upstream import Answer

LONG = "word " * 200
CREDIT = 10_000
QUESTION: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Tell me."}],
    "max_tokens": 400,
    "stream": True,
}


async def chunks_of(response: httpx2.Response) -> AsyncIterator[Any]:
    """The JSON of each event."""
    async for line in response.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield orjson.loads(line.removeprefix("data: "))


def text_in(chunks: list[Any]) -> str:
    found = (choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()))
    return "".join(found)


async def balance_after(gateway: GatewayProcess, secret: str) -> tuple[int, int]:
    """Balance and held tokens, asked of a gateway that runs."""
    async with client_of(gateway, secret) as http:
        found = (await http.get("/api/v1/users/me/tokens")).json()
        return found["balance"], found["held"]


async def test_a_stream_under_way_finishes_after_sigterm(operator: Operator) -> None:
    gate = asyncio.Event()
    operator.upstream.always(Answer(text="one two three four", gate=gate, gate_after=2))
    gateway = await operator.started(operator.configured(GATEWAY_DRAIN_TIMEOUT_S=20))
    async with client_of(gateway) as admin:
        secret = await new_user(admin, "alice", CREDIT)
    async with client_of(gateway, secret) as http, http.stream("POST", "/v1/chat/completions", json=QUESTION) as stream:
        chunks = chunks_of(stream)
        heard = [await anext(chunks)]
        gateway.signal(signal.SIGTERM)

        async def is_closed() -> bool:
            try:
                async with client_of(gateway) as other:
                    return (await other.get("/health/ready")).status_code == 503
            except httpx2.TransportError:
                return True

        await eventually(is_closed)
        gate.set()
        heard += [chunk async for chunk in chunks]
    assert text_in(heard) == "one two three four"
    assert heard[-1]["choices"][0]["finish_reason"] == "stop"
    assert await gateway.wait() == 0
    assert await verified(sqlite_url(operator.directory))
    again = operator.configured()
    await again.start()
    assert await balance_after(again, secret) == (CREDIT - 6, 0)


async def test_an_answer_longer_than_the_drain_time_is_cut_off_and_charged(operator: Operator) -> None:
    operator.upstream.always(Answer(text=LONG, gate=asyncio.Event(), gate_after=3))
    gateway = await operator.started(operator.configured(GATEWAY_DRAIN_TIMEOUT_S=0.5))
    async with client_of(gateway) as admin:
        secret = await new_user(admin, "bob", CREDIT)
        dialog = (await admin.post("/api/v1/dialogs", json={"model": "claude-3-opus"})).json()["id"]
        path = f"/api/v1/dialogs/{dialog}/messages"
        asking = {"content": "Tell me.", "stream": True}
        async with (
            client_of(gateway, secret) as http,
            http.stream("POST", "/v1/chat/completions", json=QUESTION) as relayed,
            admin.stream("POST", path, json=asking) as kept,
        ):
            both = (chunks_of(relayed), chunks_of(kept))
            heard = [[await anext(each) for _ in range(3)] for each in both]
            gateway.signal(signal.SIGTERM)
            for chunks, so_far in zip(both, heard, strict=True):
                so_far += [chunk async for chunk in chunks]
    assert text_in(heard[0]) == "word word word "
    assert heard[0][-1]["error"]["code"] == "unavailable"
    assert heard[1][-1]["error"]["code"] == "unavailable"
    assert heard[1][-1]["message"]["content"] == "word word word "
    assert await gateway.wait(8) == 0
    assert await verified(sqlite_url(operator.directory))

    again = operator.configured()
    await again.start()
    balance, held = await balance_after(again, secret)
    assert held == 0
    assert 3 <= CREDIT - balance < 30
    async with client_of(again) as admin:
        answer = (await admin.get(path)).json()["data"][-1]
    assert (answer["status"], answer["content"]) == ("interrupted", "word word word ")
    assert answer["usage"]["output_tokens"] >= 3


async def test_kill_9_loses_no_question_and_its_hold_is_given_back(operator: Operator) -> None:
    short = {"GATEWAY_UPSTREAM_TOTAL_TIMEOUT_S": 3, "GATEWAY_HOLD_GRACE_S": 1}
    operator.upstream.script(Answer(text="First answer."))
    operator.upstream.always(Answer(text=LONG, gate=asyncio.Event(), gate_after=3))
    gateway = await operator.started(operator.configured(**short))
    async with client_of(gateway) as admin:
        secret = await new_user(admin, "carol", CREDIT)
    async with client_of(gateway, secret) as http:
        dialog = (await http.post("/api/v1/dialogs", json={"model": "gpt-4o", "title": "Kept"})).json()["id"]
        path = f"/api/v1/dialogs/{dialog}/messages"
        first = await http.post(path, json={"content": "First question?"})
        spent = first.json()["message"]["usage"]["total_tokens"]
        async with http.stream("POST", path, json={"content": "Second question?", "stream": True}) as stream:
            chunks = chunks_of(stream)
            for _ in range(3):
                await anext(chunks)
            gateway.signal(signal.SIGKILL)
            assert await gateway.wait() == -signal.SIGKILL
            await chunks.aclose()

    assert await verified(sqlite_url(operator.directory))
    again = operator.configured()
    await again.start()
    async with client_of(again, secret) as http:
        kept = (await http.get(path)).json()["data"]
        assert [each["content"] for each in kept[:3]] == ["First question?", "First answer.", "Second question?"]

        async def is_swept() -> bool:
            return (await http.get("/api/v1/users/me/tokens")).json()["held"] == 0

        await eventually(is_swept, timeout_s=15)
        assert await balance_after(again, secret) == (CREDIT - spent, 0)
        lost = (await http.get(path)).json()["data"][-1]
        assert (lost["role"], lost["status"], lost["error"]["code"]) == ("assistant", "failed", "interrupted")
        operator.upstream.always(Answer(text="Third answer."))
        third = await http.post(path, json={"content": "Third question?"})
        assert third.json()["message"]["content"] == "Third answer."
    assert await verified(sqlite_url(operator.directory))
