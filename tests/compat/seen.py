"""What a client reads out of an answer, whichever dialect it is in."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["name", "count"],
    "additionalProperties": False,
}
ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}


@dataclass(frozen=True, kw_only=True)
class Call:
    """A tool that is to be called."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One answer."""

    text: str = ""
    thoughts: str = ""
    calls: tuple[Call, ...] = ()
    finish: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    turn: Any = None
    """The answer as the client puts it back into the conversation."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a client wants, in no dialect yet."""

    text: str
    stream: bool = False
    image: bool = False
    tools: bool = False
    schema: bool = False
    thinks: bool = False
    most_tokens: int = 2000
    stop: str | None = None
    system: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Speaker(Protocol):
    """A client's dialect: bodies out, answers in. Everything is written by hand, as the provider documents it."""

    name: str
    finishes: Mapping[str, str]
    """What `stop`, `length`, `tools` and `sequence` are called."""
    wishes: Mapping[str, Any]
    """Every parameter that stock clients of the dialect send besides."""

    def path(self, model: str, *, stream: bool) -> str: ...

    def headers(self, key: str) -> Mapping[str, str]: ...

    def body(self, model: str, ask: Ask) -> dict[str, Any]: ...

    def with_results(self, body: Mapping[str, Any], seen: Seen, result: str) -> dict[str, Any]:
        """The same conversation, gone on with the answer and the results of its calls."""
        ...

    def whole(self, answer: Mapping[str, Any]) -> Seen: ...

    def streamed(self, events: Iterable[Mapping[str, Any]]) -> Seen: ...

    def error(self, body: Mapping[str, Any]) -> str:
        """The message of an error, in the dialect's own shape."""
        ...


def events_in(data: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream of events."""
    for line in data.replace(b"\r\n", b"\n").split(b"\n"):
        if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
            yield orjson.loads(line[5:])
