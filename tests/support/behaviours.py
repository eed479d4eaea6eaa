"""What a scripted provider may do with a request: answer it, or fail in one of the ways providers fail."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Finish = Literal["stop", "length", "tool_calls", "content_filter", "none"]
"""Why an answer ends; `none` never says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the provider claims was used; alone, it is a behaviour: the echo answer with this claim.

    `input` counts every prompt token, cached ones included; `output` counts every generated token, reasoning
    included. Each dialect's wire fields are derived from these (Anthropic's `input_tokens` leaves the cached
    ones out, Google's `candidatesTokenCount` leaves the reasoning out). Nothing is checked: lies are the point.
    """

    input: int
    output: int
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoUsage:
    """The echo answer without any usage; also fits `Answer(usage=NoUsage())`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of a tool. Without an `id` each dialect makes one of its own."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A proper answer.

    `text` None echoes: `"echo: " + the last user text`; an answer of tool calls alone has no text. A streamed
    answer sends `chunks`, by default one word each. Unless `usage` says otherwise, tokens are whitespace words.
    `finish` defaults to what fits. An answer longer than the request's output cap is cut at it and finishes with
    `length`, unless `ignores_cap`. `delay_s` passes before the first byte, `chunk_delay_s` before each content
    chunk after the first. With a `gate`, the answer waits for that event: before its first byte, or after
    `gate_after` content chunks. Without `last_word`, a stream ends before its terminal event (Google has none).

    `thinking` comes before the text, as far as the provider shows it: Anthropic always, Google when the request
    includes thoughts, OpenAI's Responses when it asks for a summary, chat completions only with `shows_reasoning` (as
    compatible servers do). Its `signature` is `signature_of(thinking)` unless given; `redacted` is thinking that only
    Anthropic shows, as data. With a `refusal` there is no text unless given. `stop_sequence` is the one that ended the
    text. `cached` counts those of the input tokens that came from a cache, where `usage` says nothing.

    What no client knows yet: `extra_fields` join the answer's top level (in a stream, of each chunk that has one),
    `extra_items` are output items, content blocks or parts after all others, `extra_events` precede a stream's end.
    """

    text: str | None = None
    chunks: tuple[str, ...] | None = None
    usage: Usage | NoUsage | None = None
    finish: Finish | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    model: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    ignores_cap: bool = False
    gate: asyncio.Event | None = None
    gate_after: int | None = None
    last_word: bool = True
    thinking: str | None = None
    signature: str | None = None
    redacted: str | None = None
    shows_reasoning: bool = False
    refusal: str | None = None
    stop_sequence: str | None = None
    cached: int = 0
    extra_fields: Mapping[str, Any] = field(default_factory=dict)
    extra_items: tuple[Mapping[str, Any], ...] = ()
    extra_events: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mind:
    """Answers by what was asked, the same in every dialect; the rest is as in `answer`. The first that fits:

    - the results of tools in the last turn: `"result: "` and their texts
    - a tool that must be called, or tools and "call" in the last user text: a call of the demanded or the first tool
      with `{"q": <last user text>}`; "call twice" makes it two, unless parallel calls are switched off
    - JSON asked for: JSON that fits the schema, without one `{"text": <last user text>}`
    - attachments in the last user message: `"image: image/png 68 bytes"`, `"image: <url>"`; so too `document`, `audio`
    - `"echo: "` and the last user text

    Asked for reasoning, it first thinks `"thinking about <last user text>"`. The text is cut at the first stop
    sequence. Half of the input was cached if the last user text contains "cached".
    """

    answer: Answer = field(default_factory=Answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """An error status; `body` None is the provider's own envelope, anything but bytes is sent as JSON."""

    status: int = 503
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "scripted failure"
    code: str | None = None
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Hang:
    """Silence for `seconds`, then the connection is closed. With `after`, n chunks of a stream come first."""

    seconds: float = 30.0
    after: int | None = None
    answer: Answer = field(default_factory=Answer)


@dataclass(frozen=True, slots=True)
class ResetBeforeAnswer:
    """The request is read, then the connection is reset (RST) without a byte."""


@dataclass(frozen=True, slots=True)
class CutAfter:
    """The connection is dropped after n content chunks of a stream, or in the middle of a whole body."""

    chunks: int = 1
    answer: Answer = field(default_factory=Answer)


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that is no answer at all, as a misconfigured proxy sends it.

    `content_type` None is that of a proper answer.
    """

    body: bytes = b"<html>not an API</html>"
    content_type: str | None = "text/html"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MalformedChunk:
    """After n content chunks one `data:` line is broken JSON and the stream ends; a whole body is cut JSON."""

    after: int = 1
    answer: Answer = field(default_factory=Answer)


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """After n content chunks the provider's own mid-stream error event; not streamed, it is that error status."""

    after: int = 1
    status: int = 503
    message: str = "scripted failure in the stream"
    answer: Answer = field(default_factory=Answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interject:
    """After n content chunks of a stream, or before a whole body: `opening`, then `piece` so many times, or for ever.

    Then the answer goes on. A keep-alive that never ends, a line of 100 MB and garbage between events are all this.
    """

    piece: bytes
    times: int | None = None
    every_s: float = 0.0
    after: int = 1
    opening: bytes = b""
    answer: Answer = field(default_factory=Answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drip:
    """The answer as it should be, a few bytes at a time; with `head`, its status line and headers too."""

    size: int = 1
    every_s: float = 0.02
    head: bool = False
    answer: Answer = field(default_factory=Answer)


@dataclass(frozen=True, slots=True)
class LyingLength:
    """The answer under a content-length that says so many bytes `more` (or fewer); the connection stays open."""

    more: int
    answer: Answer = field(default_factory=Answer)


def signature_of(thinking: str) -> str:
    """How a scripted provider signs a thought unless told otherwise; it accepts this signature in any history."""
    return "sig-" + hashlib.sha256(thinking.encode()).hexdigest()[:32]


def gzip_bomb(mib: int = 64) -> Garbage:
    """Comments or blanks, so many MiB of them, in a thousandth of that."""
    squeezed = gzip.compress(b":" + b" " * (mib * 1024 * 1024))
    return Garbage(squeezed, content_type=None, headers={"content-encoding": "gzip"})


Behaviour: TypeAlias = (
    Answer
    | Mind
    | Usage
    | NoUsage
    | Fail
    | Hang
    | ResetBeforeAnswer
    | CutAfter
    | Garbage
    | MalformedChunk
    | ErrorEvent
    | Interject
    | Drip
    | LyingLength
)


def answer_of(behaviour: Behaviour) -> Answer:
    """The proper answer a behaviour begins with, or would have given."""
    match behaviour:
        case Answer():
            return behaviour
        case Usage() | NoUsage():
            return Answer(usage=behaviour)
        case Fail() | Garbage() | ResetBeforeAnswer():
            return Answer()
        case _:
            return behaviour.answer
