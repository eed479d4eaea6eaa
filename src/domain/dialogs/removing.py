"""What is left of a message where something was taken out of it: a hole of the same shape."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from src.domain.catalog.model import WireFormat
from src.domain.completion.content import (
    Opaque,
    Part,
    Particulars,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    answer_text,
    part_body,
    part_from,
    text_of,
)
from src.domain.dialogs.model import REMOVED, Message, MessageRole


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """A hole. `shape`: blank parts, of the kinds and lengths of those that stood here."""

    shape: tuple[Part, ...]


Entry = Part | Removed
"""What a stored message is made of."""


def entries_of(message: Message) -> tuple[Entry, ...]:
    """A stored message in its parts, with its holes."""
    if message.parts:
        return tuple(_hole(part) if part["type"] == REMOVED else part_from(part) for part in message.parts)
    says_nothing = not message.content and message.role is MessageRole.ASSISTANT
    return () if says_nothing else (Text(text=message.content),)


def without(message: Message, gone: slice) -> Message:
    """The message with one hole in place of some neighbouring entries, whose words are not kept."""
    entries = entries_of(message)
    bodies = list(message.parts) or [part_body(each) for each in entries if not isinstance(each, Removed)]
    was = [_measured(each) for each in entries[gone] if not isinstance(each, Removed)]
    bodies[gone] = [{"type": REMOVED, "was": was}]
    left = [each for place, each in enumerate(entries) if place not in range(gone.start, gone.stop)]
    words = answer_text if message.role is MessageRole.ASSISTANT else text_of
    content = words(each for each in left if not isinstance(each, Removed))
    return replace(message, content=content, parts=tuple(bodies))


def _measured(part: Part) -> Mapping[str, Any]:
    """How much of what kind it was: all that its place in a stream depends on."""
    match part:
        case Text(text=text) | Refusal(text=text):
            bare = part_body(replace(part, text="", particulars=_outline(part.particulars)))
            return {name: value for name, value in bare.items() if name != "text"} | {"length": len(text)}
        case Thinking():
            has_ended = part.signature is not None
            return {"type": "thinking", "length": len(part.text), "ended": has_ended, "redacted": part.redacted}
        case ToolCall():
            return {"type": "tool_call", "length": len(part.arguments), "is_custom": part.is_custom}
        case _:
            return {"type": "opaque"}


def _outline(particulars: Particulars | None) -> Particulars | None:
    """Its place and how long its lists are."""
    if particulars is None:
        return None
    lists: dict[str, Any] = {
        name: len(value) * [{}] for name, value in particulars.fields.items() if isinstance(value, list)
    }
    return Particulars(format=particulars.format, fields=lists, place=particulars.place)


def _hole(body: Mapping[str, Any]) -> Removed:
    return Removed(shape=tuple(map(_blank, body["was"])))


def _blank(measured: Mapping[str, Any]) -> Part:
    nothing = " " * measured.get("length", 0)
    match measured["type"]:
        case "text" | "refusal":
            return part_from({name: value for name, value in measured.items() if name != "length"} | {"text": nothing})
        case "thinking":
            signature = "" if measured["ended"] else None
            return Thinking(text=nothing, signature=signature, redacted=measured["redacted"])
        case "tool_call":
            return ToolCall(id="", name="", arguments=nothing, is_custom=measured["is_custom"])
        case _:
            return Opaque(format=WireFormat.RESPONSES, body={})
