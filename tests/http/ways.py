"""Every way in for a completion, so that what must hold for all is asked of all."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2

from tests.http.surface import ANTHROPIC, GEMINI, NATIVE, OPENAI
from tests.support.gateway import Person

QUESTION = "Count to five."
RESPONSES = "/v1/responses"


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
    def is_stateful(self) -> bool:
        """Whether its answers are kept in dialogs, and so never in the response cache."""
        return self.path == RESPONSES

    @property
    def url(self) -> str:
        """The path, with the model where that is part of it."""
        return self.path.format(model=self.model)

    @property
    def exhausted(self) -> int:
        """The status of a refusal for want of quota."""
        return 429 if self.dialect in (OPENAI, GEMINI) else 402

    @property
    def status(self) -> int:
        """Of an answer."""
        return 201 if self.dialect == NATIVE and not self.stream and not self.is_cached else 200

    def body(self, question: str = QUESTION) -> dict[str, Any]:
        """What is asked."""
        if self.dialect == NATIVE:
            asked: dict[str, Any] = {"content": question, "model": self.model}
            return asked | ({"stream": True} if self.stream else {})
        if self.dialect == GEMINI:
            return {"contents": [{"role": "user", "parts": [{"text": question}]}]}
        if self.path == RESPONSES:
            return {"model": self.model, "input": question, "stream": self.stream}
        limit = {"max_tokens": 100} if self.dialect == ANTHROPIC else {}
        messages = [{"role": "user", "content": question}]
        return {"model": self.model, "messages": messages, "stream": self.stream, **limit}

    async def prepare(self, person: Person) -> "Sender":
        """Ready to ask, in a dialog of its own where it is one."""
        path = self.url
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


def gemini_path(*, stream: bool) -> str:
    """With a place for the model's name."""
    return f"/v1beta/models/{{model}}:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}"


def _ways(*, stream: bool) -> list[Way]:
    openai, anthropic = "/v1/chat/completions", "/v1/messages"
    gemini = gemini_path(stream=stream)
    return [
        Way(name="native", dialect=NATIVE, model="gpt-4o", stream=stream),
        *([] if stream else [Way(name="chat", dialect=NATIVE, model="gpt-4o", stream=False, path="/chat")]),
        Way(name="openai relayed", dialect=OPENAI, model="gpt-4o", stream=stream, path=openai),
        Way(name="openai translated", dialect=OPENAI, model="claude-3-opus", stream=stream, path=openai),
        Way(name="anthropic relayed", dialect=ANTHROPIC, model="claude-3-opus", stream=stream, path=anthropic),
        Way(name="anthropic translated", dialect=ANTHROPIC, model="gpt-4o", stream=stream, path=anthropic),
        Way(name="responses relayed", dialect=OPENAI, model="gpt-4o", stream=stream, path=RESPONSES),
        Way(name="responses translated", dialect=OPENAI, model="claude-3-opus", stream=stream, path=RESPONSES),
        Way(name="gemini relayed", dialect=GEMINI, model="gemini-2.5-flash", stream=stream, path=gemini),
        Way(name="gemini translated", dialect=GEMINI, model="gpt-4o", stream=stream, path=gemini),
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
        case "openai" if way.path == RESPONSES:
            return "".join(part["text"] for item in body["output"] for part in item["content"])
        case "openai":
            return str(body["choices"][0]["message"]["content"])
        case "gemini":
            return _candidate_text(body)
        case "anthropic":
            return "".join(block["text"] for block in body["content"])
        case _:
            return str((body if way.is_cached else body["message"])["content"])


def _delta(event: dict[str, Any]) -> str:
    if "choices" in event:
        return "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    if "candidates" in event:
        return _candidate_text(event)
    if "sequence_number" in event:
        return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""
    if isinstance(event.get("delta"), dict):
        return str(event["delta"].get("text", ""))
    return str(event.get("text", ""))


def _candidate_text(body: dict[str, Any]) -> str:
    parts = (part for each in body["candidates"] for part in (each.get("content") or {}).get("parts") or [])
    return "".join(part.get("text", "") for part in parts)


def error_of(event: dict[str, Any]) -> Any:
    """What an event says went wrong."""
    return event.get("error") or (event.get("response") or {}).get("error")


def details_of(error: dict[str, Any], way: Way) -> dict[str, str]:
    """What an error tells besides its message, as texts."""
    details = error["details"][0]["metadata"] if way.dialect == GEMINI else error["details"]
    return {name: str(value) for name, value in details.items()}


def code_of(error: dict[str, Any], way: Way) -> str:
    """Our own word in an error."""
    match way.dialect:
        case "anthropic":
            return str(error["details"]["error_code"])
        case "gemini":
            return str(error["details"][0]["reason"])
        case _:
            return str(error["code"])
