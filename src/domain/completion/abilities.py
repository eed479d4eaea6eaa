"""What a request needs a model to be able to do, besides reading and writing text."""

from collections.abc import Iterator

from src.domain.catalog.model import Capabilities
from src.domain.completion.content import Media, MediaKind, Part, ToolResult
from src.domain.completion.model import ChatRequest

_FILES = {
    MediaKind.IMAGE: "images",
    MediaKind.DOCUMENT: "documents",
    MediaKind.AUDIO: "audio",
    MediaKind.VIDEO: "video",
}


def beyond(capabilities: Capabilities, chat: ChatRequest) -> tuple[str, ...]:
    """What the request needs and a model with these capabilities has not, in their own words."""
    return tuple(need for need in needs(chat) if not getattr(capabilities, need, True))


def needs(chat: ChatRequest) -> list[str]:
    """Names of capabilities. What no capability names (like video) the provider knows best."""
    found = dict.fromkeys(_FILES[part.kind] for message in chat.messages for part in _files(message.parts))
    if chat.tools:
        found["tools"] = None
    if chat.parameters.response_format is not None:
        found["structured_output"] = None
    return list(found)


def _files(parts: tuple[Part, ...]) -> Iterator[Media]:
    for part in parts:
        if isinstance(part, Media):
            yield part
        elif isinstance(part, ToolResult):
            yield from (each for each in part.content if isinstance(each, Media))
