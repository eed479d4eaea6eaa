"""OpenAI's responses, in our words: the parts that items are, and the pieces in which events tell them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
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
    in_one_item,
    particulars_of,
)
from src.domain.completion.deltas import (
    OpaqueDelta,
    PartDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from src.domain.completion.model import Failure
from src.domain.completion.tools import flat_name
from src.integrations.llm.failures import failed_with, told

OWN = WireFormat.RESPONSES

MAX_DEPTH = 100
"""How deep what is kept as it came may nest."""

_ITEM = frozenset({"type", "id", "status"})
_MESSAGE = _ITEM | {"role", "content"}
_CALL = _ITEM | {"call_id", "name", "namespace"}
_THOUGHT = _ITEM | {"summary", "encrypted_content"}
_LISTS = ("annotations", "logprobs")
"""What a text has lists of."""


def pieces_of(event: Mapping[str, Any], *, logprobs: bool) -> Iterator[PartDelta]:
    """What an event adds to the answer. Raises UpstreamFailed for what is no text where there must be some."""
    delta, index = told(event.get("delta")), _count(event.get("output_index"))
    match event.get("type"):
        case "response.output_text.delta":
            yield TextDelta(delta)
        case "response.refusal.delta":
            yield RefusalDelta(delta)
        case "response.content_part.added" | "response.content_part.done" as kind:
            yield from _content(event, begins=kind.endswith("added"), logprobs=logprobs)
        case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
            yield ThinkingDelta(delta, origin=OWN)
        case "response.reasoning_summary_part.added" if event.get("summary_index"):
            yield ThinkingDelta("\n\n", origin=OWN)
        case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
            yield ToolCallDelta(index, arguments=delta)
        case "response.output_item.added":
            yield from _begun(_dict(event.get("item")), index)
        case "response.output_item.done":
            yield from _done(_dict(event.get("item")), index)


def _content(event: Mapping[str, Any], *, begins: bool, logprobs: bool) -> Iterator[PartDelta]:
    """A part of a message's content begins, or has ended: its words come in between."""
    place, content = _count(event.get("content_index")), _dict(event.get("part"))
    part = next(iter(in_one_item([_part(content, logprobs=logprobs)], OWN, first=place)))
    make = RefusalDelta if isinstance(part, Refusal) else TextDelta
    if begins and place:
        yield make("", part.particulars, begins=True)
    elif part.particulars is not None:
        yield make("", part.particulars)


def _begun(item: dict[str, Any], index: int) -> Iterator[PartDelta]:
    if item.get("type") == "message":
        yield TextDelta("", _of_item(item), begins=True)
        return
    for part in _parts(item, logprobs=False):
        match part:
            case ToolCall():
                yield ToolCallDelta(
                    index, part.id, part.name, part.arguments, part.is_custom, particulars=part.particulars
                )
            case Thinking():
                yield ThinkingDelta(origin=part.origin)
            case _:
                pass  # what is opaque is told whole at its end


def _done(item: dict[str, Any], index: int) -> Iterator[PartDelta]:
    if item.get("type") == "message":
        yield TextDelta("", _of_item(item))
        return
    for part in _parts(item, logprobs=False):
        match part:
            case Thinking() if part.signature or part.particulars:
                yield ThinkingDelta(signature=part.signature, origin=part.origin, particulars=part.particulars)
            case ToolCall() if part.particulars:
                yield ToolCallDelta(index, particulars=part.particulars)
            case Opaque():
                yield OpaqueDelta(part)
            case _:
                pass


def _of_item(message: Mapping[str, Any]) -> Particulars | None:
    """What a message says besides its content, told with some of it."""
    found = _particulars(message, _MESSAGE)
    return None if found is None else Particulars(format=OWN, item=found.fields)


def read_output(output: Any, *, logprobs: bool = False) -> tuple[Part, ...]:
    """An answer's items in our words. Raises UpstreamFailed for what is no text where there must be some."""
    return tuple(part for item in _dicts(output) for part in _parts(item, logprobs=logprobs))


def _parts(item: dict[str, Any], *, logprobs: bool) -> Iterator[Part]:
    match item.get("type"):
        case "message":
            content = [_part(each, logprobs=logprobs) for each in _dicts(item.get("content"))]
            yield from in_one_item(content or [Text(text="")], OWN, _particulars(item, _MESSAGE))
        case "reasoning":
            summary = _dicts(item.get("summary"))
            texts = [told(part.get("text")) for part in summary or _dicts(item.get("content"))]
            yield Thinking(
                text="\n\n".join(texts),
                signature=told(item.get("encrypted_content")) or None,
                origin=OWN,
                id=told(item.get("id")) or None,
                particulars=_particulars(item, _THOUGHT if summary else _THOUGHT | {"content"}),
            )
        case "function_call" | "custom_tool_call" as kind:
            is_custom = kind == "custom_tool_call"
            written = "input" if is_custom else "arguments"
            yield ToolCall(
                id=told(item.get("call_id")),
                name=flat_name(told(item.get("namespace")) or None, told(item.get("name"))),
                arguments=told(item.get(written)),
                is_custom=is_custom,
                particulars=_particulars(item, _CALL | {written}),
            )
        case _:
            yield Opaque(format=OWN, body=_storable(item))


def _part(content: Mapping[str, Any], *, logprobs: bool) -> Text | Refusal:
    """A part of a message's content; what is of another kind is a text that says so."""
    if content.get("type") == "refusal":
        return Refusal(text=told(content.get("refusal")), particulars=_particulars(content, {"type", "refusal"}))
    known = {"text", *(name for name in _LISTS if not isinstance(content.get(name), list))}
    if content.get("type") == "output_text":
        known.add("type")
    if not logprobs:
        known.add("logprobs")
    return Text(text=told(content.get("text")), particulars=_particulars(content, known))


def _particulars(body: Mapping[str, Any], known: Collection[str]) -> Particulars | None:
    found = particulars_of(body, known, OWN)
    return None if found is None else replace(found, fields=_storable(found.fields))


def _storable(value: Any, depth: int = 0) -> Any:
    """The same without characters that no database takes. Raises UpstreamFailed for what nests too deep."""
    if depth > MAX_DEPTH:
        raise failed_with(Failure.MALFORMED)
    if isinstance(value, str):
        return told(value)
    if isinstance(value, list):
        return [_storable(each, depth + 1) for each in value]
    if isinstance(value, dict):
        return {told(name): _storable(each, depth + 1) for name, each in value.items()}
    return value


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
