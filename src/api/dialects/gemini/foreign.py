"""What only we put into a client's history, taken out again for Google itself, which could not read it."""

from collections.abc import Mapping, Sequence
from typing import Any

from src.api.dialects.gemini.fields import camel_fields, listed
from src.api.dialects.gemini.signatures import thought_from
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import Thinking
from src.domain.completion.model import ChatMessage

_OWN = WireFormat.GENERATE_CONTENT


def has_foreign(messages: Sequence[ChatMessage]) -> bool:
    """Whether there are thoughts of other models; one that nobody signed is its client's own words."""
    parts = (part for message in messages for part in message.parts if isinstance(part, Thinking))
    return any(part.origin is not _OWN and (part.origin or part.signature) for part in parts)


def without_foreign(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body, which was read without fault, without thoughts of other models."""
    contents = [_content(content) for content in listed(body["contents"], "contents")]
    return {**body, "contents": [content for content in contents if content is not None]}


def _content(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """None where nothing is left of it."""
    given = listed(content.get("parts") or [], "parts")
    parts = [part for part in given if not _is_foreign(part)]
    if len(parts) == len(given):
        return content
    return {**content, "parts": parts} if parts else None


def _is_foreign(part: Any) -> bool:
    fields = {} if isinstance(part, str) else camel_fields(part, "part")
    signature = fields.get("thoughtSignature")
    return fields.get("thought") is True and bool(signature) and thought_from("", signature).origin is not _OWN
