"""From a request and a scripted `Answer` to what every dialect renders: a `Plan`."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.support.behaviours import Answer, Finish, NoUsage, ToolCall, Usage

_WORD_WITH_SPACE = re.compile(r"\s*\S+\s*")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a dialect read from a request."""

    model: str
    texts: tuple[str, ...]
    last_user_text: str
    stream: bool
    cap: int | None
    body: dict[str, Any] = field(default_factory=dict)
    choices: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request the provider itself would not accept."""

    status: int
    message: str
    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One answer, ready to be rendered."""

    number: int
    model: str
    chunks: tuple[str, ...]
    tool_calls: tuple[ToolCall, ...]
    usage: Usage | None
    finish: Finish
    asked: Asked
    last_word: bool

    @property
    def text(self) -> str:
        return "".join(self.chunks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """A streamed answer: what precedes the content, one entry per content chunk, what follows."""

    head: tuple[bytes, ...]
    content: tuple[bytes, ...]
    tail: tuple[bytes, ...]


class Dialect(Protocol):
    """One provider's wire format, as pure functions."""

    name: str

    def read(self, body: dict[str, Any], headers: Any, path_model: str, path_verb: str) -> Asked | Refusal: ...
    def whole(self, plan: Plan) -> Any: ...
    def frames(self, plan: Plan) -> Frames: ...
    def error(self, status: int, message: str, code: str | None = None) -> dict[str, Any]: ...
    def error_event(self, status: int, message: str) -> bytes: ...
    def malformed_event(self) -> bytes: ...
    def headers(self, number: int) -> dict[str, str]: ...


def words(text: str) -> int:
    return len(text.split())


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def make_plan(asked: Asked, answer: Answer) -> Plan:
    """Resolve the defaults of an answer against the request it answers."""
    whole_chunks = _chunks_of(asked, answer)
    chunks = whole_chunks if answer.ignores_cap else _cut_at(whole_chunks, asked.cap)
    was_cut = len(chunks) < len(whole_chunks)
    return Plan(
        number=next(_numbers),
        model=answer.model or asked.model,
        chunks=chunks,
        tool_calls=answer.tool_calls,
        usage=_usage_of(asked, answer, chunks),
        finish=_finish_of(answer, was_cut),
        asked=asked,
        last_word=answer.last_word,
    )


def arguments_json(call: ToolCall) -> str:
    return compact(dict(call.arguments))


def _chunks_of(asked: Asked, answer: Answer) -> tuple[str, ...]:
    if answer.chunks is not None:
        return answer.chunks
    text = answer.text
    if text is None:
        text = "" if answer.tool_calls else f"echo: {asked.last_user_text}"
    return tuple(_WORD_WITH_SPACE.findall(text))


def _cut_at(chunks: tuple[str, ...], cap: int | None) -> tuple[str, ...]:
    if cap is None:
        return chunks
    lengths = (words("".join(chunks[:n])) for n in range(1, len(chunks) + 1))
    fitting = sum(1 for _ in itertools.takewhile(lambda length: length <= cap, lengths))
    return chunks[:fitting]


def _usage_of(asked: Asked, answer: Answer, chunks: Sequence[str]) -> Usage | None:
    match answer.usage:
        case NoUsage():
            return None
        case Usage() as claimed:
            return claimed
        case None:
            output = words("".join(chunks)) + sum(_tool_words(call) for call in answer.tool_calls)
            return Usage(input=sum(map(words, asked.texts)), output=output * asked.choices)


def _tool_words(call: ToolCall) -> int:
    return words(call.name) + words(arguments_json(call))


def _finish_of(answer: Answer, was_cut: bool) -> Finish:
    if answer.finish is not None:
        return answer.finish
    if was_cut:
        return "length"
    return "tool_calls" if answer.tool_calls else "stop"


def texts_in(content: Any) -> Iterable[str]:
    """Every text in a message's content: a string, or parts that carry `text` or nested `content`."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        yield from texts_in(content.get("text"))
        yield from texts_in(content.get("content"))
    elif isinstance(content, list):
        for part in content:
            yield from texts_in(part)
