"""Where a relayed stream of a response stood when it was stopped: what is open, and how it ends."""

from collections.abc import Iterator
from typing import Any

from src.api.dialects.relayed import objects_in, payloads_of
from src.api.dialects.responses.open import Event

_FIELDS = {
    "response.output_text.delta": ("content", "content_index", "text"),
    "response.refusal.delta": ("content", "content_index", "refusal"),
    "response.reasoning_text.delta": ("content", "content_index", "text"),
    "response.reasoning_summary_text.delta": ("summary", "summary_index", "text"),
}
"""Where the words of a delta belong: a list of the item, which of its parts, and the field there."""

_CALLS = {
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
}
_ADDED = {"response.content_part.added": "content", "response.reasoning_summary_part.added": "summary"}


class Relayed:
    """What was told so far. `response` is the response object as it began, `number` the highest sequence number."""

    def __init__(self, relayed: bytes) -> None:
        self.response: dict[str, Any] = {}
        self.number = -1
        self._items: dict[int, dict[str, Any]] = {}
        self._done: set[int] = set()
        for payload in payloads_of(relayed):
            self._hear(payload)

    @property
    def output(self) -> list[dict[str, Any]]:
        """All items, those that were open as incomplete."""
        return [self._final(index) for index in sorted(self._items)]

    def end(self) -> Iterator[Event]:
        """The end of every open item, and of its last part."""
        for index in sorted(self._items):
            if index not in self._done:
                yield from self._end_text(index)
                yield "response.output_item.done", {"output_index": index, "item": self._final(index)}

    def _hear(self, payload: dict[str, Any]) -> None:
        number = payload.get("sequence_number")
        if isinstance(number, int):
            self.number = max(self.number, number)
        if isinstance(payload.get("response"), dict):
            self.response = payload["response"]
        index, kind = payload.get("output_index"), payload.get("type")
        if not isinstance(index, int) or not isinstance(kind, str):
            return
        if isinstance(payload.get("item"), dict):
            self._items[index] = payload["item"]
            if kind == "response.output_item.done":
                self._done.add(index)
        elif index in self._items:
            self._hear_more(self._items[index], kind, payload)

    def _hear_more(self, item: dict[str, Any], kind: str, payload: dict[str, Any]) -> None:
        delta = payload.get("delta")
        if kind in _ADDED and isinstance(payload.get("part"), dict):
            item[_ADDED[kind]] = [*objects_in(item.get(_ADDED[kind])), payload["part"]]
        elif kind in _CALLS and isinstance(delta, str):
            item[_CALLS[kind]] = str(item.get(_CALLS[kind]) or "") + delta
        elif kind in _FIELDS and isinstance(delta, str):
            parts, place, field = _FIELDS[kind]
            part = next((each for n, each in enumerate(objects_in(item.get(parts))) if n == payload.get(place)), None)
            if part is not None:
                part[field] = str(part.get(field) or "") + delta

    def _final(self, index: int) -> dict[str, Any]:
        item = self._items[index]
        return item if index in self._done or "status" not in item else {**item, "status": "incomplete"}

    def _end_text(self, index: int) -> Iterator[Event]:
        """A client that waits for the end of a text gets it."""
        item = self._items[index]
        content = list(objects_in(item.get("content")))
        if item.get("type") != "message" or not content:
            return
        part, at = content[-1], {"item_id": item.get("id"), "output_index": index, "content_index": len(content) - 1}
        if part.get("type") == "output_text":
            told = {**at, "text": part.get("text") or "", "logprobs": part.get("logprobs") or []}
            yield "response.output_text.done", told
        elif part.get("type") == "refusal":
            yield "response.refusal.done", {**at, "refusal": part.get("refusal") or ""}
        yield "response.content_part.done", {**at, "part": part}
