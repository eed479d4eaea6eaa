"""Items of a response while they are written: the events that begin them, go on with them and end them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from src.api.dialects.responses.content import message_item, output_content
from src.api.dialects.responses.items import PREFIXES, Namespaces, call_item, item_id, reasoning_item
from src.domain.completion.content import Refusal, Text, Thinking, ToolCall
from src.domain.completion.deltas import ThinkingDelta, ToolCallDelta

Event = tuple[str, dict[str, Any]]
"""The type of an event and its fields. One with a `delta` says more of something, all others are structure."""


class OpenItem:
    """One item of the answer `answer_id`, at the place `index` of its output."""

    def __init__(self, answer_id: UUID, index: int, kind: str) -> None:
        self.index = index
        self._id = item_id(PREFIXES[kind], answer_id, index)
        self._place = {"item_id": self._id, "output_index": index}

    def item(self, status: str) -> dict[str, Any]:
        """The item as far as it has come."""
        raise NotImplementedError

    def begin(self) -> Iterator[Event]:
        """That there is such an item."""
        yield "response.output_item.added", {"output_index": self.index, "item": self.item("in_progress")}

    def end(self, status: str) -> Iterator[Event]:
        """That it has come to its end."""
        yield "response.output_item.done", {"output_index": self.index, "item": self.item(status)}


class OpenMessage(OpenItem):
    """A message: text, a refusal, or several of them. `besides` is told of it from its beginning on."""

    def __init__(self, answer_id: UUID, index: int, besides: Mapping[str, Any]) -> None:
        super().__init__(answer_id, index, "message")
        self._besides = besides
        self._done: list[Text | Refusal] = []
        self._kind: type[Text] | type[Refusal] | None = None
        self._pieces: list[str] = []

    def item(self, status: str) -> dict[str, Any]:
        """The message with its content."""
        told = message_item([*self._done, *self._open_part()])
        return {**self._besides, **told, "id": self._id, "status": status}

    def takes(self, kind: type[Text] | type[Refusal]) -> bool:
        """Whether more of the kind belongs into this message."""
        return kind is Refusal or self._kind is Text

    def add(self, kind: type[Text] | type[Refusal], text: str) -> Iterator[Event]:
        """Say more of the kind."""
        if self._kind is not kind:
            yield from self._begin_part(kind)
        if text:
            self._pieces.append(text)
            yield f"{_NAMES[kind]}.delta", {**self._at(), "delta": text, **_logprobs(kind(text=""))}

    def add_whole(self, part: Text | Refusal) -> Iterator[Event]:
        """A part of its content as it is kept, with all that is told of it."""
        yield from self._begin_part(type(part))
        yield from self.add(type(part), part.text)
        yield from self._end_part(part)

    def end(self, status: str) -> Iterator[Event]:
        """The end of its last part, and of itself."""
        yield from self._end_part()
        yield from super().end(status)

    def _begin_part(self, kind: type[Text] | type[Refusal]) -> Iterator[Event]:
        yield from self._end_part()
        self._kind = kind
        yield "response.content_part.added", {**self._at(), "part": output_content(kind(text=""))}

    def _open_part(self) -> list[Text | Refusal]:
        return [self._kind(text="".join(self._pieces))] if self._kind is not None else []

    def _end_part(self, kept: Text | Refusal | None = None) -> Iterator[Event]:
        for part in self._open_part() if kept is None else [kept]:
            yield from self._annotated(part)
            field = "text" if isinstance(part, Text) else "refusal"
            yield f"{_NAMES[type(part)]}.done", {**self._at(), field: part.text, **_logprobs(part)}
            yield "response.content_part.done", {**self._at(), "part": output_content(part)}
            self._done.append(part)
        self._kind = None
        self._pieces = []

    def _annotated(self, part: Text | Refusal) -> Iterator[Event]:
        for place, each in enumerate(output_content(part).get("annotations", ())):
            at = {**self._at(), "annotation_index": place, "annotation": each}
            yield "response.output_text.annotation.added", at

    def _at(self) -> dict[str, Any]:
        return {**self._place, "content_index": len(self._done)}


_NAMES: dict[type[Text] | type[Refusal], str] = {Text: "response.output_text", Refusal: "response.refusal"}


def _logprobs(part: Text | Refusal) -> dict[str, Any]:
    return {"logprobs": output_content(part).get("logprobs", [])} if isinstance(part, Text) else {}


class OpenThought(OpenItem):
    """A thought. What is told of it is its summary."""

    def __init__(self, answer_id: UUID, index: int) -> None:
        super().__init__(answer_id, index, "reasoning")
        self._thought = Thinking()
        self._pieces: list[str] = []

    @property
    def has_ended(self) -> bool:
        """Whether nothing can follow."""
        return self._thought.signature is not None or self._thought.redacted

    def item(self, status: str) -> dict[str, Any]:
        """The thought as far as it was told; what proves it comes with its end alone."""
        if status == "in_progress":
            return {"id": self._id, **reasoning_item(Thinking())}
        told = self._thought
        return {"id": self._id, **reasoning_item(replace(told, text="".join(self._pieces)))}

    def add(self, delta: ThinkingDelta) -> Iterator[Event]:
        """Think on."""
        self._thought = Thinking(
            signature=delta.signature,
            redacted=delta.redacted,
            origin=delta.origin or self._thought.origin,
            particulars=delta.particulars or self._thought.particulars,
        )
        if not delta.text:
            return
        if not self._pieces:
            yield "response.reasoning_summary_part.added", {**self._at(), "part": _summary("")}
        self._pieces.append(delta.text)
        yield "response.reasoning_summary_text.delta", {**self._at(), "delta": delta.text}

    def end(self, status: str) -> Iterator[Event]:
        """The end of its summary, and of itself."""
        if self._pieces:
            text = "".join(self._pieces)
            yield "response.reasoning_summary_text.done", {**self._at(), "text": text}
            yield "response.reasoning_summary_part.done", {**self._at(), "part": _summary(text)}
        yield from super().end(status)

    def _at(self) -> dict[str, Any]:
        return {**self._place, "summary_index": 0}


def _summary(text: str) -> dict[str, Any]:
    return {"type": "summary_text", "text": text}


class OpenCall(OpenItem):
    """A call of a tool."""

    def __init__(self, answer_id: UUID, index: int, first: ToolCallDelta, namespaces: Namespaces) -> None:
        super().__init__(answer_id, index, "custom_tool_call" if first.is_custom else "function_call")
        self._call_id, self._name, self._is_custom = first.id or "", first.name or "", first.is_custom
        self._signature, self._particulars = first.signature, first.particulars
        self._namespaces = namespaces
        self._pieces: list[str] = []

    def item(self, status: str) -> dict[str, Any]:
        """The call as far as it was told."""
        call = ToolCall(
            id=self._call_id,
            name=self._name,
            arguments="" if status == "in_progress" else "".join(self._pieces),
            is_custom=self._is_custom,
            signature=self._signature,
            particulars=self._particulars,
        )
        return {"id": self._id, **call_item(call, self._namespaces), "status": status}

    def add(self, delta: ToolCallDelta) -> Iterator[Event]:
        """More of what it is called with."""
        self._call_id, self._name = self._call_id or delta.id or "", self._name or delta.name or ""
        self._signature = self._signature or delta.signature
        if delta.arguments:
            self._pieces.append(delta.arguments)
            yield f"{self._event_name}.delta", {**self._place, "delta": delta.arguments}

    def end(self, status: str) -> Iterator[Event]:
        """The end of its arguments, and of itself."""
        field = "input" if self._is_custom else "arguments"
        named = {} if self._is_custom else {"name": self.item(status)["name"]}
        yield f"{self._event_name}.done", {**self._place, field: "".join(self._pieces), **named}
        yield from super().end(status)

    @property
    def _event_name(self) -> str:
        return "response.custom_tool_call_input" if self._is_custom else "response.function_call_arguments"
