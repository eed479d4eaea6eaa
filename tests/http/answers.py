"""Answers of dialogs that are heard again, and stopped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson

from tests.support.gateway import Person
from tests.support.upstream import Answer, Upstream, Usage

WORDS = ("one ", "zwei ", "三 ", "😀👩‍👩‍👧 ", "five")
USAGE = Usage(input=7, output=5)


@dataclass(frozen=True)
class Event:
    """One event of an answer."""

    id: int
    name: str
    data: dict[str, Any]


@dataclass(kw_only=True)
class Asked:
    """An answer under way in a dialog: its first two words are there, the rest waits for the gate."""

    person: Person
    path: str
    answer_id: str
    gate: asyncio.Event

    @property
    def url(self) -> str:
        return f"{self.path}/{self.answer_id}"

    async def stored(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.person.http.get(self.url)).json()
        return found

    async def heard(self, seen: object = None, person: Person | None = None) -> list[Event]:
        """All events after the one that was seen."""
        headers = {} if seen is None else {"last-event-id": str(seen)}
        response = await (person or self.person).http.get(f"{self.url}/events", headers=headers)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return [event async for event in events_in(response)]

    async def cancel(self) -> httpx2.Response:
        return await self.person.http.post(f"{self.url}/cancel")

    async def ended(self) -> dict[str, Any]:
        """The answer once it has ended."""
        async with asyncio.timeout(10):
            while (found := await self.stored())["status"] == "in_progress":
                await asyncio.sleep(0.01)
        return found


async def events_in(response: httpx2.Response) -> AsyncIterator[Event]:
    lines: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            lines[name] = value
        elif lines:
            yield Event(int(lines["id"]), lines["event"], orjson.loads(lines["data"]))
            lines = {}


def text_of(events: list[Event]) -> str:
    return "".join(each.data["text"] for each in events if each.name == "message.delta")


async def dialog_of(person: Person) -> str:
    dialog = (await person.http.post("/api/v1/dialogs", json={"model": "gpt-4o"})).json()["id"]
    return f"/api/v1/dialogs/{dialog}/messages"


@asynccontextmanager
async def asking(
    person: Person, upstream: Upstream, *, first_words: int = 2, behaviour: Any = None
) -> AsyncIterator[Asked]:
    """Ask, hear the first words and hang up; whatever still runs at the end is let go on."""
    gate = asyncio.Event()
    words = Answer(chunks=WORDS, usage=USAGE, gate=gate, gate_after=first_words or None)
    upstream.always(behaviour(words) if behaviour else words)
    path = await dialog_of(person)
    async with person.http.stream("POST", path, json={"content": "Count.", "stream": True}) as response:
        heard = []
        async for event in events_in(response):
            heard.append(event)
            if text_of(heard) == "".join(WORDS[:first_words]):
                break
    asked = Asked(person=person, path=path, answer_id=heard[0].data["message"]["id"], gate=gate)
    await upstream.wait_until(lambda up: bool(up.requests))
    yield asked
    gate.set()
    await asked.ended()


async def finished(person: Person, upstream: Upstream, behaviour: Any = None) -> Asked:
    async with asking(person, upstream, behaviour=behaviour) as asked:
        pass
    return asked
