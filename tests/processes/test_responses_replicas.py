"""A response in the background of one gateway, while others are asked for it, and when its gateway ends."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from tests.processes.conftest import client_of, eventually
from tests.support.chaos import Replicas, admit, replicas_of
from tests.support.upstream import Answer, Upstream, Usage

CREDIT = 100_000
WORDS = ("one ", "two ", "three ", "four ", "five")
TEXT, HALF = "".join(WORDS), "".join(WORDS[:3])
USAGE = Usage(input=7, output=5)
URL = "/v1/responses"
SWEPT_WITHIN_S = 45
HEARD_MORE = 1000
"""The number of an event that only the gateway which died could tell."""


@dataclass(kw_only=True)
class Town:
    """Alice, as a client of either gateway."""

    replicas: Replicas
    upstream: Upstream
    here: httpx2.AsyncClient
    there: httpx2.AsyncClient

    def gated(self, after: int | None = 3, **more: Any) -> asyncio.Event:
        gate = asyncio.Event()
        self.upstream.always(Answer(chunks=WORDS, usage=USAGE, gate=gate, gate_after=after, **more))
        return gate

    async def begun(self, **more: Any) -> str:
        """The path of a response that this gateway gives in the background."""
        asked = {"model": "claude-3-opus", "input": "Count.", "background": True, **more}
        made = await self.here.post(URL, json=asked)
        assert made.status_code == 200, made.text
        return f"{URL}/{made.json()['id']}"

    async def told(self, url: str) -> dict[str, Any]:
        """As the other gateway tells it."""
        found: dict[str, Any] = (await self.there.get(url)).json()
        return found

    async def ended(self, url: str) -> dict[str, Any]:
        async with asyncio.timeout(SWEPT_WITHIN_S):
            while (found := await self.told(url))["status"] in ("queued", "in_progress"):
                await asyncio.sleep(0.05)
        return found

    async def until_told(self, url: str, text: str) -> None:
        """Until the other gateway tells so much of it."""

        async def is_told() -> bool:
            return text_of(await self.told(url)) == text

        await eventually(is_told)

    async def resumed(self, url: str, after: int | None = None) -> list[dict[str, Any]]:
        """The events that the other gateway tells."""
        query = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
        response = await self.there.get(url, params=query, timeout=60)
        assert response.status_code == 200, response.text
        return events_in(response.text)

    async def standing(self) -> tuple[int, int]:
        """What is spent and what is held."""
        found = (await self.there.get("/api/v1/users/me/tokens")).json()
        return CREDIT - found["balance"], found["held"]

    async def crash(self) -> None:
        gateway = self.replicas.gateways[0]
        gateway.signal(signal.SIGKILL)
        await gateway.wait()


def events_in(text: str) -> list[dict[str, Any]]:
    return [orjson.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def words_in(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def text_of(response: dict[str, Any]) -> str:
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in messages for part in item["content"])


@asynccontextmanager
async def town_of(url: str, upstream: Upstream, directory: Path, **settings: Any) -> AsyncIterator[Town]:
    """Two gateways. Afterwards nothing is held and the books are right."""
    async with replicas_of(2, url, upstream, directory, **settings) as replicas:
        alice = await admit(replicas.addresses[1], "alice", {"tokens": CREDIT})
        here, there = (client_of(gateway, alice.secret) for gateway in replicas.gateways)
        async with here, there:
            town = Town(replicas=replicas, upstream=upstream, here=here, there=there)
            yield town
            assert (await town.standing())[1] == 0
            assert not await asyncio.to_thread(replicas.verify)


@pytest.fixture
async def town(postgres_url: str, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Town]:
    async with town_of(postgres_url, upstream, tmp_path, GATEWAY_HOLD_GRACE_S=1) as made:
        yield made


async def test_it_is_told_resumed_and_continued_at_another_gateway(town: Town) -> None:
    gate = town.gated()
    url = await town.begun()
    assert (await town.told(url))["status"] == "in_progress"
    await town.until_told(url, HALF)
    resuming = asyncio.create_task(town.resumed(url))
    await town.upstream.wait_in_flight(1)
    gate.set()
    events = await resuming
    assert (words_in(events), events[-1]["type"]) == (TEXT, "response.completed")
    assert text_of(await town.ended(url)) == TEXT
    place = next(event["sequence_number"] for event in events if event["type"] == "response.output_text.delta")
    rest = await town.resumed(url, place)
    assert rest == events_in((await town.here.get(f"{url}?stream=true&starting_after={place}")).text)
    assert rest == [event for event in events if event["sequence_number"] > place]
    before = {"previous_response_id": url.rpartition("/")[2]}
    for client in (town.there, town.here):
        on = await client.post(URL, json={"model": "gpt-4o", "input": "On.", **before})
        assert on.status_code == 200, on.text
        assert TEXT in str(town.upstream.requests[-1].json)
    assert await town.standing() == (36, 0)


async def test_a_conversation_is_held_at_both_gateways_at_once(town: Town) -> None:
    gate = town.gated(after=None)
    name = (await town.here.post("/v1/conversations", json={})).json()["id"]
    asking = [
        asyncio.create_task(client.post(URL, json={"model": model, "input": f"{model} {number}", "conversation": name}))
        for number, client in enumerate((town.here, town.there))
        for model in ("gpt-4o", "claude-3-opus")
    ]
    await town.upstream.wait_in_flight(4, timeout_s=30)
    items = [{"type": "message", "role": "user", "content": "meanwhile"}]
    assert (await town.there.post(f"/v1/conversations/{name}/items", json={"items": items})).status_code == 200
    gate.set()
    assert {response.status_code for response in await asyncio.gather(*asking)} == {200}
    listed = (await town.here.get(f"/v1/conversations/{name}/items?order=asc&limit=100")).json()["data"]
    said = ["".join(part["text"] for part in item["content"]) for item in listed]
    assert (said[0], said[2::2]) == ("meanwhile", [TEXT] * 4)
    assert sorted(said[1::2]) == [f"{model} {number}" for model in ("claude-3-opus", "gpt-4o") for number in range(2)]
    assert await town.standing() == (48, 0)


async def test_it_is_cancelled_at_another_gateway(town: Town) -> None:
    town.gated()
    url = await town.begun()
    await town.until_told(url, HALF)
    cancelled = (await town.there.post(f"{url}/cancel")).json()
    assert (cancelled["status"], text_of(cancelled)) == ("cancelled", HALF)
    await town.upstream.requests[-1].wait_disconnected(1)
    assert (await town.here.get(url)).json() == cancelled
    events = await town.resumed(url)
    assert (events[-1]["type"], words_in(events)) == ("response.incomplete", HALF)
    assert await town.standing() == (cancelled["usage"]["total_tokens"], 0)


async def test_what_was_noted_before_a_crash_is_told_charged_and_continued(town: Town) -> None:
    town.gated(thinking="hm hm")
    name = (await town.here.post("/v1/conversations", json={})).json()["id"]
    url = await town.begun(reasoning={"effort": "low"}, model="claude-sonnet-5", conversation=name)
    await town.until_told(url, HALF)
    resuming = [asyncio.create_task(town.resumed(url, after)) for after in (None, HEARD_MORE)]
    await town.crash()
    failed = await town.ended(url)
    assert (failed["status"], text_of(failed)) == ("failed", HALF)
    assert [item["type"] for item in failed["output"]] == ["reasoning", "message"]
    assert "What was delivered was charged" in failed["error"]["message"]
    whole, end = await asyncio.gather(*resuming)
    assert (words_in(whole), whole[-1]["type"]) == (HALF, "response.failed")
    assert [(event["type"], event["sequence_number"]) for event in end] == [("response.failed", HEARD_MORE + 1)]
    spent = failed["usage"]["total_tokens"]
    assert await town.standing() == (spent, 0)
    town.upstream.always(Answer(text="Fine.", usage=USAGE))
    listed = (await town.there.get(f"/v1/conversations/{name}/items?order=asc")).json()["data"]
    assert [item["id"] for item in listed[1:]] == [item["id"] for item in failed["output"]]
    assert [item.get("status") for item in listed] == ["completed", None, "incomplete"]
    for before in ({"previous_response_id": failed["id"]}, {"conversation": name}):
        on = await town.there.post(URL, json={"model": "gpt-4o", "input": "On.", **before})
        assert on.status_code == 200, on.text
        assert HALF.strip() in str(town.upstream.requests[-1].json)
    assert await town.standing() == (spent + 24, 0)


async def test_a_crash_before_the_first_word_costs_nothing_and_says_so(town: Town) -> None:
    town.gated(after=None)
    url = await town.begun()
    await town.upstream.wait_in_flight(1)
    resuming = asyncio.create_task(town.resumed(url))
    await town.crash()
    failed = await town.ended(url)
    assert (failed["status"], failed["output"], failed["usage"]) == ("failed", [], None)
    assert (await resuming)[-1]["type"] == "response.failed"
    assert await town.standing() == (0, 0)


@pytest.mark.parametrize("drain_s", [20, 0.5], ids=["drained", "cut off"])
async def test_a_shutdown_lets_it_end_or_stores_what_there_is(
    drain_s: float, postgres_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    async with town_of(postgres_url, upstream, tmp_path, GATEWAY_DRAIN_TIMEOUT_S=drain_s) as town:
        gate = town.gated()
        url = await town.begun()
        await town.until_told(url, HALF)
        resuming = asyncio.create_task(town.resumed(url))
        gateway = town.replicas.gateways[0]
        gateway.signal(signal.SIGTERM)
        if drain_s > 1:
            assert (await town.told(url))["status"] == "in_progress"
            gate.set()
        ended = await town.ended(url)
        assert await gateway.wait(20) == 0
        events = await resuming
        text, status, end = (TEXT, "completed", "response.completed")
        if drain_s < 1:
            text, status, end = (HALF, "failed", "response.failed")
        assert (text_of(ended), ended["status"]) == (text, status)
        assert (words_in(events), events[-1]["type"]) == (text, end)
        assert await town.standing() == (ended["usage"]["total_tokens"], 0)
