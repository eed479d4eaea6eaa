"""Every way in for a completion, so that what must hold for all is asked of all."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2

from tests.http.surface import ANTHROPIC, NATIVE, OPENAI
from tests.support.gateway import Person

QUESTION = "Count to five."


@dataclass(frozen=True, kw_only=True)
class Way:
    """An endpoint, a model behind it, and whether the answer is streamed. Without a path it is a dialog's."""

    name: str
    dialect: str
    model: str
    stream: bool
    path: str = ""

    def __str__(self) -> str:
        return f"{self.name}{' stream' if self.stream else ''}"

    @property
    def is_cached(self) -> bool:
        """Whether identical questions are answered from the cache."""
        return self.path == "/chat"

    @property
    def status(self) -> int:
        """Of an answer."""
        return 201 if self.dialect == NATIVE and not self.stream and not self.is_cached else 200

    def body(self, question: str = QUESTION) -> dict[str, Any]:
        """What is asked."""
        if self.dialect == NATIVE:
            asked: dict[str, Any] = {"content": question, "model": self.model}
            return asked | ({"stream": True} if self.stream else {})
        limit = {"max_tokens": 100} if self.dialect == ANTHROPIC else {}
        messages = [{"role": "user", "content": question}]
        return {"model": self.model, "messages": messages, "stream": self.stream, **limit}

    async def prepare(self, person: Person) -> "Sender":
        """Ready to ask, in a dialog of its own where it is one."""
        path = self.path
        if not path:
            dialog = await person.http.post("/api/v1/dialogs", json={})
            path = f"/api/v1/dialogs/{dialog.json()['id']}/messages"
        return Sender(self, person.http, path)

    @asynccontextmanager
    async def streamed(self, person: Person, path: str, headers: Mapping[str, str]) -> AsyncIterator[httpx2.Response]:
        """The answer as it comes."""
        async with person.http.stream("POST", path, json=self.body(), headers=dict(headers)) as response:
            yield response

    async def hang_up_after(self, person: Person, path: str, headers: Mapping[str, str], heard: bytes) -> None:
        """Leave when this much of the answer has come."""
        seen = b""
        async with self.streamed(person, path, headers) as response:
            async for data in response.aiter_bytes():
                seen += data
                if heard in seen:
                    return
        raise AssertionError(f"the answer ended before: {seen!r}")


@dataclass(frozen=True)
class Sender:
    """One path, to be asked any number of times."""

    way: Way
    http: httpx2.AsyncClient
    path: str
    name: str = field(default_factory=lambda: uuid4().hex)

    async def __call__(self, headers: Mapping[str, str], question: str = QUESTION) -> httpx2.Response:
        raw = [(name.encode(), text.encode("latin-1")) for name, text in headers.items()]
        return await self.http.post(self.path, json=self.body(question), headers=raw)

    def body(self, question: str = QUESTION) -> dict[str, Any]:
        """What is asked; the name sees to it that the cache has no answer to it yet."""
        return self.way.body(f"{question} {self.name}" if self.way.is_cached else question)


def _ways(*, stream: bool) -> list[Way]:
    openai, anthropic = "/v1/chat/completions", "/v1/messages"
    return [
        Way(name="native", dialect=NATIVE, model="gpt-4o", stream=stream),
        *([] if stream else [Way(name="chat", dialect=NATIVE, model="gpt-4o", stream=False, path="/chat")]),
        Way(name="openai relayed", dialect=OPENAI, model="gpt-4o", stream=stream, path=openai),
        Way(name="openai translated", dialect=OPENAI, model="claude-3-opus", stream=stream, path=openai),
        Way(name="anthropic relayed", dialect=ANTHROPIC, model="claude-3-opus", stream=stream, path=anthropic),
        Way(name="anthropic translated", dialect=ANTHROPIC, model="gpt-4o", stream=stream, path=anthropic),
    ]


WHOLES = _ways(stream=False)
STREAMS = _ways(stream=True)
EVERY_WAY = WHOLES + STREAMS


def events_in(response: httpx2.Response) -> list[dict[str, Any]]:
    """The JSON of each event."""
    lines = response.text.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ") and line != "data: [DONE]"]


def text_of(response: httpx2.Response, way: Way) -> str:
    """What the model said."""
    assert response.status_code == way.status, response.text
    if way.stream:
        return "".join(_delta(each) for each in events_in(response))
    body = response.json()
    match way.dialect:
        case "openai":
            return str(body["choices"][0]["message"]["content"])
        case "anthropic":
            return "".join(block["text"] for block in body["content"])
        case _:
            return str((body if way.is_cached else body["message"])["content"])


def _delta(event: dict[str, Any]) -> str:
    if "choices" in event:
        return "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    if isinstance(event.get("delta"), dict):
        return str(event["delta"].get("text", ""))
    return str(event.get("text", ""))
