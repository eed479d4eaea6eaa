"""Parts of messages as Anthropic's blocks."""

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import orjson

from src.domain.catalog.model import WireFormat
from src.domain.completion.content import Media, MediaKind, Opaque, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from src.domain.completion.model import Failure, UpstreamFailed

OWN = WireFormat.MESSAGES
RAW = "_raw"
"""What is no JSON object is the input of a call under this name."""

_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_BEGINNINGS = (
    ("/9j/", "image/jpeg"),
    ("iVBORw0KGgo", "image/png"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
    ("JVBERi", "application/pdf"),
)
"""Of files in base64."""


def block_of(part: Part, *, by_user: bool) -> dict[str, Any] | None:
    """None for what is not to be said: blanks, and thoughts that are not the model's own.

    Raises UpstreamFailed (unsupported) for files that its models do not take.
    """
    match part:
        case Text(text=text) | Refusal(text=text):
            return {"type": "text", "text": text} if text.strip() else None
        case Thinking():
            return _thought(part)
        case ToolCall():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": _input_of(part.arguments)}
        case ToolResult():
            return _result(part)
        case Media() if by_user:
            return _file(part)
        case Opaque(format=WireFormat.MESSAGES):
            return dict(part.body)
        case _:
            raise UpstreamFailed(Failure.UNSUPPORTED, "Anthropic's models take files from the user alone.")


def is_own(thought: Thinking) -> bool:
    """Whether the model will know it for its own."""
    return thought.origin is OWN and bool(thought.signature)


def _thought(thought: Thinking) -> dict[str, Any] | None:
    if not is_own(thought):
        return None
    if thought.redacted:
        return {"type": "redacted_thinking", "data": thought.signature}
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}


def _input_of(arguments: str) -> dict[str, Any]:
    try:
        found = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {RAW: arguments}


def _result(result: ToolResult) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": result.call_id}
    found = (block_of(part, by_user=True) for part in result.content)
    content = [each for each in found if each is not None]
    if content:
        is_text = len(content) == 1 and content[0]["type"] == "text"
        block["content"] = content[0]["text"] if is_text else content
    return block | ({"is_error": True} if result.is_error else {})


def _file(media: Media) -> dict[str, Any]:
    match media.kind:
        case MediaKind.IMAGE:
            return {"type": "image", "source": _image_source(media)}
        case MediaKind.DOCUMENT:
            return {"type": "document", "source": _document_source(media)} | dict(_title(media))
        case _:
            raise UpstreamFailed(Failure.UNSUPPORTED, f"Anthropic's models take no {media.kind.value}.")


def _title(media: Media) -> Iterator[tuple[str, str]]:
    if media.name:
        yield "title", media.name[:500]


def _image_source(media: Media) -> dict[str, Any]:
    if media.data is None:
        return {"type": "url", "url": media.url}
    media_type = _media_type(media)
    if media_type not in _IMAGES:
        raise UpstreamFailed(Failure.UNSUPPORTED, f"Anthropic's models take images as {', '.join(_IMAGES)}.")
    return {"type": "base64", "media_type": media_type, "data": media.data}


def _document_source(media: Media) -> dict[str, Any]:
    if media.data is None:
        return {"type": "url", "url": media.url}
    media_type = _media_type(media)
    if media_type == "application/pdf":
        return {"type": "base64", "media_type": media_type, "data": media.data}
    if not media_type.startswith("text/") and media_type != "application/json":
        raise UpstreamFailed(Failure.UNSUPPORTED, "Anthropic's models take documents as PDF and as plain text.")
    try:
        text = base64.b64decode(media.data, validate=True).decode()
    except (binascii.Error, ValueError):
        raise UpstreamFailed(Failure.UNSUPPORTED, "A document of plain text is not base64 of UTF-8.") from None
    return {"type": "text", "media_type": "text/plain", "data": text}


def _media_type(media: Media) -> str:
    """As it says; where it does not, as its first bytes do."""
    said = (media.media_type or "").partition(";")[0].strip().lower()
    if said == "image/jpg":
        return "image/jpeg"
    data = media.data or ""
    return said or next((kind for beginning, kind in _BEGINNINGS if data.startswith(beginning)), "")
