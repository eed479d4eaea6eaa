"""The blocks of Anthropic messages, outwards: whole, and one after the other as a stream of events.

Clients read a stream by its last block, so no block begins before the one before it has ended. Blank texts beside other
blocks, which some models write before they call a tool, are no blocks: Anthropic would not take them back.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import orjson

from src.api.dialects.signatures import sealed
from src.api.sse import event
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import Opaque, Part, Refusal, Text, Thinking, ToolCall
from src.domain.completion.deltas import (
    OpaqueDelta,
    PartDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)

OWN = WireFormat.MESSAGES
RAW = "_raw"
"""The input of a call whose arguments are no JSON object has them here, as the model wrote them."""


def blocks_of(parts: Sequence[Part], answer_id: str) -> list[dict[str, Any]]:
    """The parts of a whole answer as blocks."""
    found: list[dict[str, Any]] = []
    blanks = ""
    for part in parts:
        if isinstance(part, Text | Refusal) and not part.text.strip():
            blanks += part.text
        elif (block := block_of(part, answer_id, len(found))) is not None:
            found.append(block)
    return found or ([_text_block(blanks)] if blanks else [])


def block_of(part: Part, answer_id: str, index: int) -> dict[str, Any] | None:
    """A part of an answer as a block; None for what this dialect has no words for."""
    match part:
        case Text(text=text) | Refusal(text=text):
            return _text_block(text)
        case Thinking(redacted=True):
            return {"type": "redacted_thinking", "data": sealed(part.signature, part.origin, OWN)}
        case Thinking():
            signature = sealed(part.signature, part.origin, OWN)
            return {"type": "thinking", "thinking": part.text, "signature": signature}
        case ToolCall():
            return {**_call_block(part, answer_id, index), "input": _input_of(part.arguments)}
        case Opaque(format=WireFormat.MESSAGES):
            return dict(part.body)
        case _:
            return None


def block_stop(index: int) -> bytes:
    """The end of a block."""
    return event({"type": "content_block_stop", "index": index}, name="content_block_stop")


def _text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text, "citations": None}


def _call_block(call: ToolCall, answer_id: str, index: int) -> dict[str, Any]:
    """Without its input. A signature of Google's stands where its OpenAI-compatible API has it."""
    block: dict[str, Any] = {
        "type": "tool_use",
        "id": call.id or f"toolu_{answer_id}_{index}",
        "name": call.name,
        "input": {},
    }
    if call.signature is not None:
        block["extra_content"] = {"google": {"thought_signature": call.signature}}
    return block


def _input_of(arguments: str) -> dict[str, Any]:
    if not arguments:
        return {}
    try:
        found = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {RAW: arguments}


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


class BlockStream:
    """Deltas in, events out. What comes while the arguments of a call are incomplete waits for their rest."""

    def __init__(self, answer_id: str) -> None:
        self.has_refused = False
        self._answer_id = answer_id
        self._index = -1
        self._blanks = ""
        """With which a text begins, if one comes."""
        self._open: str | int | None = None
        """Of which kind the open block is; a call goes by its number."""
        self._origin: WireFormat | None = None
        self._called: set[int] = set()
        self._arguments: list[str] = []
        self._is_call_whole = False
        self._waiting: deque[PartDelta] = deque()

    @property
    def has_called(self) -> bool:
        """Whether a tool was called."""
        return bool(self._called)

    def write(self, delta: PartDelta) -> bytes:
        """The events of a delta, and of those that waited for it."""
        if self._must_wait(delta):
            self._waiting.append(delta)
            return b""
        written = self._written(delta)
        if self._waiting and self._has_whole_call():
            written += b"".join(map(self.write, self._in_order()))
        return written

    def end(self) -> bytes:
        """Everything that waited, and the end of what is open."""
        written = b"".join(map(self._written, self._in_order()))
        if self._index < 0 and self._blanks:
            written += self._more_text(self._blanks)
        return written + self._close()

    def _in_order(self) -> list[PartDelta]:
        """What waits, the pieces of each call together."""
        waiting, self._waiting = list(self._waiting), deque()
        places: dict[int, int] = {}
        for place, delta in enumerate(waiting):
            if isinstance(delta, ToolCallDelta):
                places.setdefault(delta.index, place)
        at = [places[each.index] if isinstance(each, ToolCallDelta) else place for place, each in enumerate(waiting)]
        return [waiting[place] for place in sorted(range(len(waiting)), key=lambda place: (at[place], place))]

    def _must_wait(self, delta: PartDelta) -> bool:
        if not isinstance(self._open, int) or (isinstance(delta, ToolCallDelta) and delta.index == self._open):
            return False
        return bool(self._waiting) or not self._has_whole_call()

    def _has_whole_call(self) -> bool:
        self._is_call_whole = self._is_call_whole or _is_json("".join(self._arguments))
        return self._is_call_whole

    def _written(self, delta: PartDelta) -> bytes:
        match delta:
            case TextDelta(text=text):
                return self._text(text)
            case RefusalDelta(text=text):
                self.has_refused = True
                return self._text(text)
            case ThinkingDelta():
                return self._thought(delta)
            case ToolCallDelta():
                return self._call(delta)
            case OpaqueDelta(part=part):
                return self._whole(block_of(part, self._answer_id, self._index + 1))

    def _text(self, text: str) -> bytes:
        if self._open != "text":
            text, self._blanks = self._blanks + text, ""
            if not text.strip():
                self._blanks = text
                return self._close()
        return self._more_text(text) if text else b""

    def _more_text(self, text: str) -> bytes:
        return self._begun("text", _text_block("")) + self._more({"type": "text_delta", "text": text})

    def _thought(self, delta: ThinkingDelta) -> bytes:
        if delta.redacted:
            thought = Thinking(signature=delta.signature, redacted=True, origin=delta.origin)
            return self._whole(block_of(thought, self._answer_id, self._index + 1))
        if not (delta.text or delta.signature or self._open == "thinking"):
            return b""
        begun = self._begun("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        self._origin = delta.origin or self._origin
        more = self._more({"type": "thinking_delta", "thinking": delta.text}) if delta.text else b""
        return begun + more + (self._close(delta.signature) if delta.signature else b"")

    def _call(self, delta: ToolCallDelta) -> bytes:
        begun = b""
        if self._open != delta.index:
            if delta.index in self._called:
                return b""  # it had ended: what comes after whole JSON is nothing
            self._called.add(delta.index)
            call = ToolCall(id=delta.id or "", name=delta.name or "", arguments="", signature=delta.signature)
            begun = self._begun(delta.index, _call_block(call, self._answer_id, self._index + 1))
            self._arguments.clear()
            self._is_call_whole = False
        if not delta.arguments:
            return begun
        self._arguments.append(delta.arguments)
        self._is_call_whole = False
        return begun + self._more({"type": "input_json_delta", "partial_json": delta.arguments})

    def _begun(self, kind: str | int, block: dict[str, Any]) -> bytes:
        """The start of a block, unless it is the one that is open."""
        if self._open == kind:
            return b""
        ended = self._close()
        self._blanks = ""
        self._open = kind
        self._index += 1
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return ended + event(start, name="content_block_start")

    def _more(self, told: dict[str, Any]) -> bytes:
        return event({"type": "content_block_delta", "index": self._index, "delta": told}, name="content_block_delta")

    def _whole(self, block: dict[str, Any] | None) -> bytes:
        return b"" if block is None else self._begun("whole", block) + self._close()

    def _close(self, signature: str | None = None) -> bytes:
        """The end of the open block; a thought that nobody signed says at least whose it is."""
        if self._open is None:
            return b""
        told = b""
        if self._open == "thinking":
            signed = sealed(signature, self._origin, OWN)
            told = self._more({"type": "signature_delta", "signature": signed}) if signed else b""
            self._origin = None
        self._open = None
        return told + block_stop(self._index)
