"""Answers in Anthropic's words, from the stock SDK."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.content import Opaque, Text
from src.domain.completion.deltas import OpaqueDelta, PartDelta, TextDelta, ThinkingDelta, ToolCallDelta, parts_of
from src.domain.completion.model import Failure, Finished, FinishReason, Reply
from src.integrations.llm.failures import failed_with, told
from src.integrations.llm.relay_failures import of_error_object

if TYPE_CHECKING:
    from anthropic.types import Message

OWN = WireFormat.MESSAGES

_FINISH_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}


def reply_of(message: "Message") -> Reply:
    """Raises UpstreamFailed (malformed) for what is no message."""
    content = getattr(message, "content", None)
    if content is None and (error := getattr(message, "error", None)):
        raise of_error_object(error)
    if content is None:
        raise failed_with(Failure.MALFORMED)
    answer = AnswerReader(upstream_model=told(message.model) or None)
    deltas = [delta for index, block in enumerate(content) for delta in answer.whole(index, block)]
    answer.note_end(message)
    answer.note_usage(message.usage)
    parts = parts_of(deltas)
    is_plain = all(isinstance(part, Text) for part in parts)
    text = "".join(part.text for part in parts if isinstance(part, Text))
    return Reply(text=text, finished=answer.finished(), parts=() if is_plain else parts)


@dataclass(slots=True)
class AnswerReader:
    """What an answer has said so far. Usage comes in pieces: each replaces what it names."""

    upstream_model: str | None = None
    reason: str | None = None
    stop_sequence: str | None = None
    fresh: int | None = None
    written: int = 0
    read: int = 0
    thought: int = 0
    output: int | None = None
    calls: dict[int, int] = field(default_factory=dict)
    """The numbers of calls, by those of their blocks."""
    silent_calls: set[int] = field(default_factory=set)
    """Those that have no arguments yet."""
    opaque: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Blocks of Anthropic's own that are not whole yet; their input as it comes."""

    def hear(self, event: Any) -> Iterator[PartDelta]:
        """What an event adds to the answer, often nothing."""
        match event.type:
            case "message_start":
                self.upstream_model = told(event.message.model) or None
                self.note_usage(event.message.usage)
            case "content_block_start":
                yield from self._begun(event.index, event.content_block)
            case "content_block_delta":
                yield from self._more(event.index, event.delta)
            case "content_block_stop":
                yield from self._ended(event.index)
            case "message_delta":
                self.note_end(event.delta)
                self.note_usage(event.usage)

    def whole(self, index: int, block: Any) -> Iterator[PartDelta]:
        """A block that comes at once."""
        yield from self._begun(index, block)
        if block.type == "thinking" and block.signature:
            yield ThinkingDelta(signature=told(block.signature), origin=OWN)
        yield from self._ended(index)

    def note_end(self, said: Any) -> None:
        """Why it stopped, once that is known."""
        self.reason = said.stop_reason or self.reason
        self.stop_sequence = told(getattr(said, "stop_sequence", None)) or self.stop_sequence

    def note_usage(self, usage: Any) -> None:
        """Some numbers of it."""
        if usage is None:
            return
        self.fresh = _given(usage, "input_tokens", self.fresh)
        self.output = _given(usage, "output_tokens", self.output)
        self.written = _given(usage, "cache_creation_input_tokens", self.written) or 0
        self.read = _given(usage, "cache_read_input_tokens", self.read) or 0
        self.thought = _given(getattr(usage, "output_tokens_details", None), "thinking_tokens", self.thought) or 0

    def finished(self) -> Finished:
        """Raises UpstreamFailed (malformed) for an answer that just stopped."""
        if not isinstance(self.reason, str):
            raise failed_with(Failure.MALFORMED)
        return Finished(
            reason=_FINISH_REASONS.get(self.reason, FinishReason.STOP),
            usage=self._usage(),
            upstream_model=self.upstream_model,
            stop_sequence=self.stop_sequence,
        )

    def _begun(self, index: int, block: Any) -> Iterator[PartDelta]:
        """A block begins, empty or not."""
        match block.type:
            case "text":
                if text := told(block.text):
                    yield TextDelta(text)
            case "thinking":
                if thought := told(block.thinking):
                    yield ThinkingDelta(thought, origin=OWN)
            case "redacted_thinking":
                yield ThinkingDelta(signature=told(block.data), redacted=True, origin=OWN)
            case "tool_use":
                if not block.name:
                    raise failed_with(Failure.MALFORMED)
                number = self.calls.setdefault(index, len(self.calls))
                given = _json(block.input) if block.input else ""
                if not given:
                    self.silent_calls.add(index)
                yield ToolCallDelta(number, told(block.id), told(block.name), given)
            case None:
                raise failed_with(Failure.MALFORMED)
            case _:
                self.opaque[index] = {"block": orjson.loads(_json(block.to_dict())), "input": ""}

    def _more(self, index: int, delta: Any) -> Iterator[PartDelta]:
        match delta.type:
            case "text_delta":
                if text := told(delta.text):
                    yield TextDelta(text)
            case "thinking_delta":
                yield ThinkingDelta(told(delta.thinking), origin=OWN)
            case "signature_delta":
                yield ThinkingDelta(signature=told(delta.signature), origin=OWN)
            case "input_json_delta" if index in self.calls:
                if piece := told(delta.partial_json):
                    self.silent_calls.discard(index)
                    yield ToolCallDelta(self.calls[index], arguments=piece)
            case "input_json_delta" if index in self.opaque:
                self.opaque[index]["input"] += told(delta.partial_json)

    def _ended(self, index: int) -> Iterator[PartDelta]:
        if index in self.silent_calls:
            self.silent_calls.discard(index)
            yield ToolCallDelta(self.calls[index], arguments="{}")
        if (found := self.opaque.pop(index, None)) is not None:
            yield OpaqueDelta(Opaque(format=OWN, body=found["block"] | _parsed_input(found["input"])))

    def _usage(self) -> Usage | None:
        """Anthropic's input tokens leave out the cached ones, ours include them."""
        if self.fresh is None or self.output is None:
            return None
        return Usage(
            input_tokens=self.fresh + self.written + self.read,
            output_tokens=self.output,
            cache_read_tokens=self.read,
            cache_write_tokens=self.written,
            reasoning_tokens=self.thought,
        )


def _given(usage: Any, name: str, before: int | None) -> int | None:
    value = getattr(usage, name, None)
    return before if value is None else int(value)


def _json(value: Any) -> str:
    """Compact, and fit to be sent on."""
    return told(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _parsed_input(pieces: str) -> dict[str, Any]:
    """The input of a tool that the provider runs, where it came in pieces."""
    if not pieces:
        return {}
    return {"input": orjson.loads(pieces)}
