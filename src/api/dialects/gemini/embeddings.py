"""Google's embedContent and batchEmbedContents, inwards and outwards."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from src.api.dialects.fields import MAX_DIMENSIONS, MAX_INPUTS, text_field
from src.api.dialects.gemini.content import read_parts
from src.api.dialects.gemini.fields import Notes, camel_fields, listed, whole_field
from src.api.dialects.request import ParsedRequest
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import Media, Text, text_of
from src.domain.completion.model import ChatMessage, ChatRequest, ChatRole, EmbeddingWish, Outcome, WireBody
from src.shared.errors import InvalidRequest
from src.shared.vectors import unpacked

_READ = frozenset({"model", "content", "outputDimensionality"})
CONFIG = "embedContentConfig"
MAX_TITLE = 100_000


def parse_embed_content(model: str, body: Mapping[str, Any]) -> ParsedRequest:
    """The body of :embedContent in our words, with the original beside it. Raises InvalidRequest."""
    return _parsed(model, body, WireFormat.EMBED_CONTENT, [("", body)], Notes())


def parse_batch_embed_contents(model: str, body: Mapping[str, Any]) -> ParsedRequest:
    """The body of :batchEmbedContents in our words, with the original beside it. Raises InvalidRequest."""
    requests = listed(body.get("requests"), "requests", MAX_INPUTS)
    if not requests:
        raise InvalidRequest("requests must have at least one request.", param="requests")
    notes = Notes()
    for name in body.keys() - {"requests", "model"}:
        notes.leave_out(name)
    named = [(f"requests[{index}]", request) for index, request in enumerate(requests)]
    return _parsed(model, body, WireFormat.BATCH_EMBED_CONTENTS, named, notes)


def _parsed(
    model: str, body: Mapping[str, Any], wire_format: WireFormat, requests: Sequence[tuple[str, Any]], notes: Notes
) -> ParsedRequest:
    reader = _Reader(notes)
    messages = tuple(reader.message(request, where) for where, request in requests)
    if len(reader.dimensions) > 1:
        notes.refuse("outputDimensionality")
    wish = EmbeddingWish(dimensions=next(iter(reader.dimensions)), titles=tuple(reader.titles))
    wire = WireBody(format=wire_format, body=body, untranslatable=tuple(notes.untranslatable))
    chat = ChatRequest(messages=messages, embedding=wish, wire=wire)
    return ParsedRequest(model=model, chat=chat, untranslated=tuple(sorted(notes.untranslated)))


class _Reader:
    """Reads the requests of a body: each is one input."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.dimensions: set[int | None] = set()
        self.titles: list[str] = []

    def message(self, request: Any, where: str) -> ChatMessage:
        fields = camel_fields(request, where or "The body")
        fields = camel_fields(fields.pop(CONFIG, None) or {}, CONFIG) | fields
        dotted = f"{where}." if where else ""
        for name in fields.keys() - _READ:
            self._notes.leave_out(name)
        named = {dotted + name: value for name, value in fields.items()}
        self.dimensions.add(whole_field(named, f"{dotted}outputDimensionality", least=1, most=MAX_DIMENSIONS))
        if title := text_field(named, f"{dotted}title", longest=MAX_TITLE):
            self.titles.append(title)
        return self._content(fields.get("content"), f"{dotted}content")

    def _content(self, value: Any, where: str) -> ChatMessage:
        parts = read_parts({"parts": [{"text": value}]} if isinstance(value, str) else value, where, self._notes)
        if not parts:
            raise InvalidRequest(f"{where} must have parts.", param=where)
        if all(isinstance(part, Text) for part in parts):
            return ChatMessage(role=ChatRole.USER, text=text_of(parts))
        for part in parts:
            if not isinstance(part, Text):
                self._notes.refuse(part.kind.value if isinstance(part, Media) else "content.parts")
        return ChatMessage(role=ChatRole.USER, text=text_of(parts), parts=tuple(parts))


class GeminiEmbeddingsWriter:
    """Writes one vector, or those of a batch."""

    def __init__(self, parsed: ParsedRequest, answer_id: UUID) -> None:
        wire = parsed.chat.wire
        self._is_batch = wire is not None and wire.format is WireFormat.BATCH_EMBED_CONTENTS

    def whole(self, outcome: Outcome, model: str) -> Mapping[str, Any]:
        """The body of an answer."""
        vectors = [{"values": unpacked(vector)} for vector in outcome.vectors]
        made = {"embeddings": vectors} if self._is_batch else {"embedding": vectors[0]}
        return {**made, "usageMetadata": {"promptTokenCount": outcome.usage.input_tokens}}
