"""The events of a streamed Responses answer, each with its number in the sequence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.support.upstream_plan import Frames, Plan, compact, split

Json = dict[str, Any]


class Events:
    """Renders one answer; the content frames are the deltas of its text, one for each chunk."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._number = 0

    def frames(self, *, started: Json, items: list[Json], ended: Json) -> Frames:
        head = [self._event(f"response.{kind}", response=started) for kind in ("created", "in_progress")]
        content: list[bytes] = []
        tail: list[bytes] = []
        for index, item in enumerate(items):
            if item["type"] == "message" and self._plan.chunks and not content:
                head += self._open_text(index, item)
                content += self._text_deltas(index, item)
                tail += self._close_text(index, item)
            else:
                (tail if content else head).extend(self._item(index, item))
        for event in self._plan.answer.extra_events:
            tail.append(self._event(**event))
        if self._plan.last_word:
            tail.append(self._event(f"response.{ended['status']}", response=ended))
        return Frames(head=tuple(head), content=tuple(content), tail=tuple(tail))

    def _event(self, type: str, **fields: Any) -> bytes:  # noqa: A002
        event = {"type": type, "sequence_number": self._number, **fields}
        self._number += 1
        return f"event: {type}\ndata: {compact(event)}\n\n".encode()

    def _item(self, index: int, item: Json) -> Iterator[bytes]:
        match item["type"]:
            case "reasoning":
                yield (
                    self._added(index, item, summary=[], encrypted_content="")
                    if "encrypted_content" in item
                    else (self._added(index, item, summary=[]))
                )
                yield from self._summary(index, item)
            case "message":
                yield self._added(index, item, status="in_progress", content=[])
                yield from self._said(index, item, 0)
            case "function_call":
                yield self._added(index, item, status="in_progress", arguments="")
                yield from self._arguments(index, item)
            case _:
                yield self._added(index, item)
        yield self._done(index, item)

    def _added(self, index: int, item: Json, **changed: Any) -> bytes:
        return self._event("response.output_item.added", output_index=index, item=item | changed)

    def _done(self, index: int, item: Json) -> bytes:
        return self._event("response.output_item.done", output_index=index, item=item)

    def _summary(self, index: int, item: Json) -> Iterator[bytes]:
        kind = "response.reasoning_summary"
        for number, part in enumerate(item["summary"]):
            at = {"item_id": item["id"], "output_index": index, "summary_index": number}
            yield self._event(f"{kind}_part.added", **at, part={"type": "summary_text", "text": ""})
            for text in self._plan.thoughts:
                yield self._event(f"{kind}_text.delta", **at, delta=text, **self._obfuscation())
            yield self._event(f"{kind}_text.done", **at, text=part["text"])
            yield self._event(f"{kind}_part.done", **at, part=part)

    def _arguments(self, index: int, item: Json) -> Iterator[bytes]:
        arguments, at = item["arguments"], {"item_id": item["id"], "output_index": index}
        half = len(arguments) // 2
        for piece in (arguments[:half], arguments[half:]):
            yield self._event("response.function_call_arguments.delta", **at, delta=piece, **self._obfuscation())
        yield self._event("response.function_call_arguments.done", **at, arguments=arguments)

    def _open_text(self, index: int, item: Json) -> Iterator[bytes]:
        yield self._added(index, item, status="in_progress", content=[])
        empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield self._event("response.content_part.added", **_place(index, item, 0), part=empty)

    def _text_deltas(self, index: int, item: Json) -> Iterator[bytes]:
        logprobs = item["content"][0]["logprobs"]
        for number, text in enumerate(self._plan.chunks):
            own = logprobs[number : number + 1]
            yield self._event(
                "response.output_text.delta",
                **_place(index, item, 0),
                delta=text,
                logprobs=own,
                **self._obfuscation(),
            )

    def _close_text(self, index: int, item: Json) -> Iterator[bytes]:
        part, at = item["content"][0], _place(index, item, 0)
        yield self._event("response.output_text.done", **at, text=part["text"], logprobs=part["logprobs"])
        yield self._event("response.content_part.done", **at, part=part)
        yield from self._said(index, item, 1)
        yield self._done(index, item)

    def _said(self, index: int, item: Json, content_index: int) -> Iterator[bytes]:
        """The parts of a message from one of them on."""
        for number, part in enumerate(item["content"][content_index:], start=content_index):
            at = _place(index, item, number)
            tell = self._refusal if part["type"] == "refusal" else self._text
            yield from tell(part, at)
            yield self._event("response.content_part.done", **at, part=part)

    def _text(self, part: Json, at: Json) -> Iterator[bytes]:
        empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield self._event("response.content_part.added", **at, part=empty)
        for text in split(part["text"]):
            yield self._event("response.output_text.delta", **at, delta=text, logprobs=[], **self._obfuscation())
        for number, each in enumerate(part["annotations"]):
            told = {**at, "annotation_index": number, "annotation": each}
            yield self._event("response.output_text.annotation.added", **told)
        yield self._event("response.output_text.done", **at, text=part["text"], logprobs=part["logprobs"])

    def _refusal(self, part: Json, at: Json) -> Iterator[bytes]:
        yield self._event("response.content_part.added", **at, part={"type": "refusal", "refusal": ""})
        for text in split(part["refusal"]):
            yield self._event("response.refusal.delta", **at, delta=text, **self._obfuscation())
        yield self._event("response.refusal.done", **at, refusal=part["refusal"])

    def _obfuscation(self) -> Json:
        options = self._plan.asked.body.get("stream_options") or {}
        return {"obfuscation": "x" * 7} if options.get("include_obfuscation", True) else {}


def _place(index: int, item: Json, content_index: int) -> Json:
    return {"item_id": item["id"], "output_index": index, "content_index": content_index}
