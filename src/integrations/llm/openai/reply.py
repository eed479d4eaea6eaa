"""Answers of OpenAI's chat completions, and what compatible servers make of them, in our words.

They come as JSON that nobody has checked: what cannot be read fails as malformed, unknown fields are passed over.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.content import Text, text_of
from src.domain.completion.deltas import PartDelta, RefusalDelta, TextDelta, ThinkingDelta, ToolCallDelta, parts_of
from src.domain.completion.model import Failure, Finished, FinishReason, Reply
from src.integrations.llm.failures import failed_with, told
from src.integrations.llm.openai.relay_chat import FAILED, REASONS, read_usage
from src.integrations.llm.relay_failures import of_error_object
from src.shared.ids import new_id

OWN = WireFormat.CHAT_COMPLETIONS

_NO_IDS = ("", "null")
"""Mistral writes the id of a call that goes on as the word null."""


def reply_of(body: Any) -> Reply:
    """A whole answer. Raises UpstreamFailed (malformed) for what is none."""
    choices = body.get("choices") if isinstance(body, dict) else None
    if not choices and isinstance(body, dict) and body.get("error"):
        raise of_error_object(body["error"])
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise failed_with(Failure.MALFORMED)
    if not isinstance(message := choices[0].get("message"), dict):
        raise failed_with(Failure.MALFORMED)
    reader = AnswerReader()
    deltas = [*reader.message(message)]
    reader.note(body, choices[0])
    parts = parts_of(deltas)
    is_plain = all(isinstance(part, Text) for part in parts)
    return Reply(text=text_of(parts), finished=reader.finished(), parts=() if is_plain else parts)


@dataclass(slots=True)
class AnswerReader:
    """Reads one answer, and what was said about its end so far."""

    _reason: Any = None
    _usage: Usage | None = None
    _model: str = ""
    _stop_sequence: str | None = None
    _calls: "_Calls" = field(default_factory=lambda: _Calls())

    def chunk(self, chunk: Any) -> Iterator[PartDelta]:
        """What is new in a chunk of the stream, often nothing."""
        if not isinstance(chunk, dict):
            raise failed_with(Failure.MALFORMED)
        self.note(chunk, {})
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict) or choice.get("index"):
                continue
            self.note({}, choice)
            if isinstance(delta := choice.get("delta"), dict):
                yield from self.message(delta)

    def message(self, message: Mapping[str, Any]) -> Iterator[PartDelta]:
        """The pieces of a message, or of what is new of it."""
        yield from _thoughts(message)
        yield from _content(message.get("content"))
        if refusal := told(message.get("refusal")):
            yield RefusalDelta(refusal)
        for call in _objects(message.get("tool_calls")):
            yield from self._calls.piece(call)
        if function := message.get("function_call"):
            yield from self._calls.piece({"function": function})

    def note(self, body: Mapping[str, Any], choice: Mapping[str, Any]) -> None:
        """What a body and its choice tell of the answer's end."""
        self._model = told(body.get("model")) or self._model
        self._usage = read_usage(body.get("usage")) or self._usage
        self._reason = choice.get("finish_reason") or self._reason
        stopped_at = choice.get("stop_reason")  # as vLLM tells it
        self._stop_sequence = told(stopped_at) if isinstance(stopped_at, str) else self._stop_sequence

    def finished(self) -> Finished:
        """Raises UpstreamFailed for an answer that just stopped (malformed), and one that broke off."""
        if not self._calls.are_named or not isinstance(self._reason, str | None):
            raise failed_with(Failure.MALFORMED)
        if self._reason is None and not self._calls.are_whole:  # some servers give no reason after a call
            raise failed_with(Failure.MALFORMED)
        if self._reason == FAILED:
            raise failed_with(Failure.SERVER)
        reason = REASONS.get(self._reason or "tool_calls", FinishReason.STOP)
        if reason is FinishReason.STOP and self._calls.any:  # as some servers say it
            reason = FinishReason.TOOL_CALLS
        return Finished(
            reason=reason,
            usage=self._usage,
            upstream_model=self._model or None,
            stop_sequence=self._stop_sequence,
        )


@dataclass(slots=True)
class _Begun:
    """A tool call so far. What comes before its name waits for it. `said_id` is the server's word, `id` is its own."""

    id: str
    said_id: str | None
    name: str = ""
    is_custom: bool = False
    pieces: list[str] = field(default_factory=list)
    signature: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether its arguments have come to their end."""
        return self.is_custom or _is_object("".join(self.pieces) or "{}")

    def is_another(self, call_id: str | None, name: str) -> bool:
        """Whether what has this id and name, of which a piece that goes on may have either, is another call."""
        if not name or not self.name:
            return False
        return name != self.name if call_id is None else call_id != self.said_id


@dataclass(slots=True)
class _Calls:
    """Tells the pieces of several calls apart: by the server's index, by id, or by nothing but their order."""

    _begun: list[_Begun] = field(default_factory=list)
    _places: dict[int, int] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        """Whether something is called."""
        return bool(self._begun)

    @property
    def are_named(self) -> bool:
        """Whether it is known of each call what is called."""
        return all(call.name for call in self._begun)

    @property
    def are_whole(self) -> bool:
        """Whether something is called, and nothing of it is missing."""
        return self.any and all(call.is_whole for call in self._begun)

    def piece(self, piece: Any) -> Iterator[ToolCallDelta]:
        """Some more of a call. Raises UpstreamFailed (malformed) for what calls nothing."""
        is_custom = "custom" in piece if isinstance(piece, dict) else False
        body = piece.get("custom" if is_custom else "function") if isinstance(piece, dict) else None
        if body is None and self._begun:  # of which some servers remind once more
            return
        if not isinstance(body, dict):
            raise failed_with(Failure.MALFORMED)
        call_id = call_id if (call_id := told(piece.get("id"))) not in _NO_IDS else None
        name, text = told(body.get("name")), _arguments(body.get("input" if is_custom else "arguments"))
        index = piece.get("index")
        place = self._place(index if isinstance(index, int) else None, call_id, name)
        call = self._begun[place]
        call.is_custom = call.is_custom or is_custom
        call.pieces.append(text)
        signature = _googles_signature(piece)
        if call.name:
            if text or signature:
                yield ToolCallDelta(place, arguments=text, is_custom=call.is_custom, signature=signature)
            return
        call.signature = call.signature or signature
        if name:
            call.name = name
            yield ToolCallDelta(place, call.id, name, "".join(call.pieces), call.is_custom, call.signature)

    def _place(self, index: int | None, call_id: str | None, name: str) -> int:
        """Which call it is of. Some servers number none of them, or all alike: then an id and a name begin one."""
        if index is not None:
            known = self._places.get(index)
            begins = known is None or self._begun[known].is_another(call_id, name)
        else:
            said = [call.said_id for call in self._begun]
            known = said.index(call_id) if call_id in said and call_id is not None else len(said) - 1
            is_new = bool(name) if call_id is None else known < 0 or said[known] != call_id
            begins = known < 0 or is_new
        if not begins and known is not None:
            return known
        is_taken = any(call.id == call_id for call in self._begun)
        own_id = f"call_{new_id().hex}" if call_id is None or is_taken else call_id
        self._begun.append(_Begun(id=own_id, said_id=call_id))
        if index is not None:
            self._places[index] = len(self._begun) - 1
        return len(self._begun) - 1


def _arguments(value: Any) -> str:
    """JSON as the model wrote it; some servers have read it already."""
    if isinstance(value, dict):
        return told(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    return told(value)


def _is_object(text: str) -> bool:
    """Whether it is a whole JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _googles_signature(call: Mapping[str, Any]) -> str | None:
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    return (told(google.get("thought_signature")) or None) if isinstance(google, dict) else None


def _thoughts(message: Mapping[str, Any]) -> Iterator[ThinkingDelta]:
    """As routers tell them, with what proves them; else as most servers do."""
    details = [detail for detail in _objects(message.get("reasoning_details")) if isinstance(detail, dict)]
    for detail in details:
        if detail.get("type") == "reasoning.encrypted":
            yield ThinkingDelta(signature=told(detail.get("data")), redacted=True, origin=OWN)
        elif text := told(detail.get("text") or detail.get("summary")):
            yield ThinkingDelta(text, told(detail.get("signature")) or None, origin=OWN)
        elif signature := told(detail.get("signature")):
            yield ThinkingDelta(signature=signature, origin=OWN)
    # Servers that renamed the field send both for a while.
    text = "" if details else _plain(message.get("reasoning_content")) or _plain(message.get("reasoning"))
    if text:
        yield ThinkingDelta(text, origin=OWN)


def _content(content: Any) -> Iterator[PartDelta]:
    """Text, or Mistral's list of texts and thoughts."""
    if not isinstance(content, list):
        if text := told(content):
            yield TextDelta(text)
        return
    for part in content:
        if not isinstance(part, dict):
            raise failed_with(Failure.MALFORMED)
        if text := told(part.get("text")):
            yield TextDelta(text)
        elif thought := _plain(part.get("thinking")):
            yield ThinkingDelta(thought, origin=OWN)


def _plain(value: Any) -> str:
    """Text, or the texts of a list; nothing for what has none."""
    if isinstance(value, list):
        return "".join(_plain(part.get("text")) for part in value if isinstance(part, dict))
    return told(value) if isinstance(value, str) else ""


def _objects(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
