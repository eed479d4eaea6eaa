"""What a request needs a model to be able to do, besides reading and writing text."""

from collections.abc import Iterator

from src.domain.catalog.model import Capabilities, Route
from src.domain.completion.content import Media, MediaKind, Part, ToolResult
from src.domain.completion.model import ChatRequest
from src.shared.errors import InvalidRequest

_FILES = {
    MediaKind.IMAGE: "images",
    MediaKind.DOCUMENT: "documents",
    MediaKind.AUDIO: "audio",
    MediaKind.VIDEO: "video",
}


def refuse_other_jobs(route: Route, chat: ChatRequest) -> None:
    """Raises InvalidRequest where none of the models does what is asked at all: answer, or make vectors."""
    if any(model.capabilities.embeddings is (chat.embedding is not None) for model in route.models):
        return
    if chat.embedding is None:
        way_out = "makes vectors and answers nothing: call /v1/embeddings."
    else:
        way_out = "answers and makes no vectors: use a model of embeddings."
    raise InvalidRequest(f"The model {route.name!r} {way_out}", param="model")


def beyond(capabilities: Capabilities, chat: ChatRequest) -> tuple[str, ...]:
    """What the request needs and a model with these capabilities has not, in their own words."""
    if capabilities.embeddings and chat.embedding is None:
        return ("answers",)
    return tuple(need for need in needs(chat) if not getattr(capabilities, need, True))


def needs(chat: ChatRequest) -> list[str]:
    """Names of capabilities. What no capability names (like video) the provider knows best."""
    found = dict.fromkeys(_FILES[part.kind] for message in chat.messages for part in _files(message.parts))
    if chat.embedding is not None:
        found["embeddings"] = None
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
