"""From a request and a scripted `Answer` to what every dialect renders: a `Plan`."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.support.behaviours import Answer, Finish, NoUsage, ToolCall, Usage, signature_of

_WORD_WITH_SPACE = re.compile(r"\s*\S+\s*")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wants:
    """What a request asks for beyond text, in no dialect's words.

    `tools` are the names that may be called, none if calls are switched off; `forced` says that one must be, `tool`
    which. `results` are the texts of the tool results since the model's last turn, `attachments` those of the last
    user message as `Mind` names them.
    """

    tools: tuple[str, ...] = ()
    forced: bool = False
    tool: str | None = None
    parallel: bool = True
    json: bool = False
    schema: Mapping[str, Any] | None = None
    thinking: bool = False
    stops: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()


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
    wants: Wants = field(default_factory=Wants)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request the provider itself would not accept; `param` names the field where the provider does."""

    status: int = 400
    message: str
    code: str | None = None
    param: str | None = None


class Refused(Exception):
    """Raised where a request breaks a rule."""

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.refusal = Refusal(status=status, message=message, code=code, param=param)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One answer, ready to be rendered."""

    number: int
    model: str
    answer: Answer
    chunks: tuple[str, ...]
    thoughts: tuple[str, ...]
    tool_calls: tuple[ToolCall, ...]
    usage: Usage | None
    finish: Finish
    asked: Asked
    last_word: bool

    @property
    def text(self) -> str:
        return "".join(self.chunks)

    @property
    def thinking(self) -> str:
        return "".join(self.thoughts)

    @property
    def signature(self) -> str:
        """Of the thinking; empty if there is none."""
        return self.answer.signature or signature_of(self.thinking) if self.thoughts else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """A streamed answer: what precedes the content, one entry per content chunk, what follows."""

    head: tuple[bytes, ...]
    content: tuple[bytes, ...]
    tail: tuple[bytes, ...]


class Dialect(Protocol):
    """One provider's wire format. Reading a request may raise `Refused`."""

    name: str

    def read(self, body: dict[str, Any], headers: Any, path_model: str, path_verb: str) -> Asked: ...
    def whole(self, plan: Plan) -> Any: ...
    def frames(self, plan: Plan) -> Frames: ...
    def error(self, status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]: ...
    def error_event(self, status: int, message: str, plan: Plan, events_sent: int) -> bytes: ...
    def malformed_event(self) -> bytes: ...
    def headers(self, number: int) -> dict[str, str]: ...


def words(text: str) -> int:
    return len(text.split())


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def make_plan(asked: Asked, answer: Answer) -> Plan:
    """Resolve the defaults of an answer against the request it answers."""
    cap = None if answer.ignores_cap else asked.cap
    whole_thoughts, whole_chunks = split(answer.thinking or ""), _chunks_of(asked, answer)
    thoughts = _cut_at(whole_thoughts, cap)
    chunks = _cut_at(whole_chunks, None if cap is None else cap - words("".join(thoughts)))
    was_cut = len(thoughts) + len(chunks) < len(whole_thoughts) + len(whole_chunks)
    return Plan(
        number=next(_numbers),
        model=answer.model or asked.model,
        answer=answer,
        chunks=chunks,
        thoughts=thoughts,
        tool_calls=answer.tool_calls,
        usage=_usage_of(asked, answer, chunks, thoughts),
        finish=_finish_of(answer, was_cut),
        asked=asked,
        last_word=answer.last_word,
    )


def split(text: str) -> tuple[str, ...]:
    """One piece for each word, with the blanks around it."""
    return tuple(_WORD_WITH_SPACE.findall(text))


def call_id(plan: Plan, number: int, prefix: str) -> str:
    """The id of an answer's nth tool call: its own, or one that only this answer has."""
    return plan.tool_calls[number].id or f"{prefix}{plan.number:08x}{number:04x}"


def arguments_json(call: ToolCall) -> str:
    return compact(dict(call.arguments))


def _chunks_of(asked: Asked, answer: Answer) -> tuple[str, ...]:
    if answer.chunks is not None:
        return answer.chunks
    text = answer.text
    if text is None:
        text = "" if answer.tool_calls or answer.refusal else f"echo: {asked.last_user_text}"
    return split(text)


def _cut_at(chunks: tuple[str, ...], cap: int | None) -> tuple[str, ...]:
    if cap is None:
        return chunks
    lengths = (words("".join(chunks[:n])) for n in range(1, len(chunks) + 1))
    fitting = sum(1 for _ in itertools.takewhile(lambda length: length <= cap, lengths))
    return chunks[:fitting]


def _usage_of(asked: Asked, answer: Answer, chunks: Sequence[str], thoughts: Sequence[str]) -> Usage | None:
    match answer.usage:
        case NoUsage():
            return None
        case Usage() as claimed:
            return claimed
        case None:
            reasoning = words("".join(thoughts))
            said = words("".join(chunks)) + words(answer.refusal or "")
            output = reasoning + said + sum(_tool_words(call) for call in answer.tool_calls)
            return Usage(
                input=sum(map(words, asked.texts)),
                output=output * asked.choices,
                cached=answer.cached,
                reasoning=reasoning * asked.choices,
            )


def _tool_words(call: ToolCall) -> int:
    return words(call.name) + words(arguments_json(call))


def _finish_of(answer: Answer, was_cut: bool) -> Finish:
    if answer.finish is not None:
        return answer.finish
    if was_cut:
        return "length"
    return "tool_calls" if answer.tool_calls else "stop"


def texts_in(content: Any) -> Iterable[str]:
    """Every text in a message's content: a string, or parts that carry `text` or nested `content`; no thoughts."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict) and not content.get("thought"):
        yield from texts_in(content.get("text"))
        yield from texts_in(content.get("content"))
    elif isinstance(content, list):
        for part in content:
            yield from texts_in(part)
