"""Items of OpenAI's Responses API, to and from messages in our words.

An item that we wrote has an id that tells its message and its place among the message's items: `msg_<hex>` is the
first one, `fc_<hex>_2` the third. An item that was taken out leaves its place empty.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from src.api.dialects.fields import object_at, text_at
from src.api.dialects.responses.content import (
    OWN,
    content_parts,
    input_content,
    message_item,
    particulars,
    told_besides,
)
from src.api.dialects.signatures import opened, sealed
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import (
    Media,
    Opaque,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    in_one_item,
    text_of,
)
from src.domain.completion.model import ChatMessage, ChatRole
from src.domain.completion.tools import flat_name
from src.shared.errors import InvalidRequest

T = TypeVar("T")

Namespaces = Mapping[str, tuple[str, str]]
"""Flat names of tools with their namespaces and their names there."""

REDACTED = "redacted "
"""Before the signature of a thought that is nothing but it."""

DEVELOPER = "developer"
_ROLES = {
    "user": ChatRole.USER,
    "system": ChatRole.SYSTEM,
    DEVELOPER: ChatRole.SYSTEM,
    "assistant": ChatRole.ASSISTANT,
}
_RESULTS = {"function_call_output": False, "custom_tool_call_output": True}
_ITEM_ID = re.compile(r"[a-z]{1,16}_([0-9a-f]{32})(?:_(\d{1,6}))?")


def messages_of(items: str | list[Any], where: str = "input") -> tuple[ChatMessage, ...]:
    """What a conversation's items say. Raises InvalidRequest, which names the field by its place in `where`.

    Neighbouring items of the model's are one message, and so are the results of tools.
    """
    if isinstance(items, str):
        return (ChatMessage(role=ChatRole.USER, text=items),)
    said = [_said(object_at(item, f"{where}[{index}]"), f"{where}[{index}]") for index, item in enumerate(items)]
    found: list[ChatMessage] = []
    for key, group in groupby(enumerate(said), key=_grouping):
        parts = tuple(part for _, each in group for part in each.parts)
        found.append(_message(key[0], parts, by_developer=key[2]))
    return tuple(found)


class _Said(NamedTuple):
    """What one item says. `alone`: it is a message of its own."""

    role: ChatRole
    parts: tuple[Part, ...]
    alone: bool
    by_developer: bool = False


def _grouping(numbered: tuple[int, _Said]) -> tuple[ChatRole, int, bool]:
    """The same for neighbours that are one message."""
    index, said = numbered
    return said.role, index if said.alone else -1, said.by_developer


def _message(role: ChatRole, parts: tuple[Part, ...], *, by_developer: bool) -> ChatMessage:
    is_plain = len(parts) == 1 and isinstance(parts[0], Text) and parts[0].particulars is None
    return ChatMessage(role=role, text=text_of(parts), parts=() if is_plain else parts, by_developer=by_developer)


def _said(item: Mapping[str, Any], where: str) -> _Said:
    kind = kind_of(item)
    if kind is None:
        raise InvalidRequest(f"{where}.type must be a string.", param=f"{where}.type")
    if kind == "message":
        return _message_said(item, where)
    if kind in _RESULTS:
        return _Said(ChatRole.USER, (_result(item, kind, where),), alone=False)
    if kind in _MODELS_OWN:
        return _Said(ChatRole.ASSISTANT, (_MODELS_OWN[kind](item, where),), alone=False)
    side = ChatRole.USER if kind.endswith(("_output", "_response")) else ChatRole.ASSISTANT
    return _Said(side, (Opaque(format=OWN, body=item),), alone=False)


def kind_of(item: Mapping[str, Any]) -> str | None:
    """The type of an item: messages and references may leave it out."""
    kind = item.get("type")
    if kind is None:
        return "message" if "role" in item or "content" in item else "item_reference"
    return kind if isinstance(kind, str) else None


def _message_said(item: Mapping[str, Any], where: str) -> _Said:
    name = item.get("role")
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise InvalidRequest(f"{where}.role must be one of {', '.join(_ROLES)}.", param=f"{where}.role")
    parts = content_parts(item.get("content"), f"{where}.content")
    if role is ChatRole.ASSISTANT:
        parts = in_one_item(parts, OWN, particulars(item, "role", "content"))
    return _Said(role, parts, alone=role is not ChatRole.ASSISTANT, by_developer=name == DEVELOPER)


def _reasoning(item: Mapping[str, Any], where: str) -> Thinking:
    texts: list[str] = []
    for name in ("summary", "content"):
        if item.get(name) is not None and not texts:
            texts = [part.text for part in content_parts(item[name], f"{where}.{name}") if isinstance(part, Text)]
    sealed_up = item.get("encrypted_content")
    told = (None, OWN) if sealed_up is None else opened(text_at(sealed_up, f"{where}.encrypted_content"), OWN)
    signature, origin = told
    redacted = signature is not None and origin is not OWN and signature.startswith(REDACTED)
    return Thinking(
        text="\n\n".join(texts),
        signature=signature.removeprefix(REDACTED) if signature is not None and redacted else signature,
        redacted=redacted,
        origin=origin,
        id=_foreign_id(item),
        particulars=particulars(item, "summary", "encrypted_content", *(() if item.get("summary") else ("content",))),
    )


def _foreign_id(item: Mapping[str, Any]) -> str | None:
    """The id that a provider gave it, not we."""
    found = item.get("id")
    return found if isinstance(found, str) and place_of(found) is None else None


def _function_call(item: Mapping[str, Any], where: str) -> ToolCall:
    return _call(item, "arguments", where)


def _custom_call(item: Mapping[str, Any], where: str) -> ToolCall:
    return replace(_call(item, "input", where), is_custom=True)


def _call(item: Mapping[str, Any], written: str, where: str) -> ToolCall:
    namespace = item.get("namespace")
    if namespace is not None:
        text_at(namespace, f"{where}.namespace")
    return ToolCall(
        id=text_at(item.get("call_id"), f"{where}.call_id"),
        name=flat_name(namespace, text_at(item.get("name"), f"{where}.name")),
        arguments=text_at(item.get(written), f"{where}.{written}"),
        signature=_thought_signature(item),
        particulars=particulars(item, "call_id", "name", "namespace", "extra_content", written),
    )


def _thought_signature(item: Mapping[str, Any]) -> str | None:
    """Google's, as its OpenAI-compatible API carries it."""
    found: Any = item
    for name in ("extra_content", "google", "thought_signature"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, str) and found else None


def _result(item: Mapping[str, Any], kind: str, where: str) -> ToolResult | Opaque:
    if item.get("call_id") is None and item.get("name") is not None:
        return Opaque(format=OWN, body=item)  # the result of a call that nobody made
    call_id = text_at(item.get("call_id"), f"{where}.call_id")
    content = content_parts(item.get("output"), f"{where}.output")
    known = tuple(part for part in content if isinstance(part, Text | Media))
    if len(known) < len(content):
        return Opaque(format=OWN, body=item)
    return ToolResult(call_id=call_id, content=known, is_custom=_RESULTS[kind])


_MODELS_OWN: dict[str, Callable[[Mapping[str, Any], str], Part]] = {
    "reasoning": _reasoning,
    "function_call": _function_call,
    "custom_tool_call": _custom_call,
}


def place_of(item_id: str) -> tuple[UUID, int] | None:
    """The message that an item is of, and its place among the message's items; None for an id that is none of ours."""
    found = _ITEM_ID.fullmatch(item_id)
    return None if found is None else (UUID(hex=found[1]), int(found[2] or 0))


def item_id(prefix: str, message_id: UUID, place: int) -> str:
    """The id of the item at a place among its message's items."""
    return f"{prefix}_{message_id.hex}" + (f"_{place}" if place else "")


def references_in(items: Any) -> tuple[str, ...]:
    """The ids of items that are named instead of told."""
    return tuple(found for item in _objects(items) if (found := _referenced(item)) is not None)


def with_items(items: list[Any], found: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """The same with each reference to one of the found items replaced by it."""
    return [found.get(_referenced(item) or "", item) if isinstance(item, dict) else item for item in items]


def _objects(items: Any) -> Iterator[Mapping[str, Any]]:
    return (item for item in items if isinstance(item, dict)) if isinstance(items, list) else iter(())


def _referenced(item: Mapping[str, Any]) -> str | None:
    found = item.get("id")
    return found if kind_of(item) == "item_reference" and isinstance(found, str) else None


def items_of(message: ChatMessage, *, namespaces: Namespaces | None = None) -> list[dict[str, Any]]:
    """A message as input for an upstream: without ids, and without thoughts that OpenAI cannot read."""
    groups = grouped(message.all_parts or _nothing(message.role), message.role)
    kept = (group for group in groups if not isinstance(group[0], Thinking) or _is_openais(group[0]))
    role = role_name(message.role, by_developer=message.by_developer)
    return [_for_upstream(item) for group in kept for item in written(group, role, namespaces or {})]


def _nothing(role: ChatRole) -> tuple[Part, ...]:
    """A model may say nothing; what others say is something, though it be empty."""
    return () if role is ChatRole.ASSISTANT else (Text(text=""),)


def role_name(role: ChatRole, *, by_developer: bool) -> str:
    """What somebody is called here."""
    return DEVELOPER if by_developer else role.value


def prefix_of(item: Mapping[str, Any]) -> str:
    """How ids of items of its type begin: what is opaque to us keeps the beginning that its provider gave it."""
    kind = item.get("type")
    if isinstance(kind, str) and kind in PREFIXES:
        return PREFIXES[kind]
    known = re.match(r"([a-z]{1,16})_", str(item.get("id")))
    return known[1] if known else "item"


PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "function_call_output": "fco",
    "custom_tool_call_output": "ctco",
}
"""How ids of items begin."""


def grouped(parts: Iterable[T], role: ChatRole) -> Iterator[tuple[T, ...]]:
    """The runs of neighbours that are one item: what a model said in one message, a refusal in that of the text before
    it where nothing tells its place; what others say between results of tools is one message.
    """
    run: list[T] = []
    for part in parts:
        if run and not _goes_on(run[-1], part, is_models=role is ChatRole.ASSISTANT):
            yield tuple(run)
            run = []
        run.append(part)
    if run:
        yield tuple(run)


def _goes_on(before: object, part: object, *, is_models: bool) -> bool:
    if is_models:
        if not isinstance(before, Text | Refusal) or not isinstance(part, Text | Refusal):
            return False
        place = told_besides(part).place
        return isinstance(before, Text) and isinstance(part, Refusal) if place is None else place > 0
    return _is_content(before) and _is_content(part)


def written(group: Sequence[Part], role: str, namespaces: Namespaces) -> list[dict[str, Any]]:
    """The item that parts make, without an id; none where only another format can say it."""
    if role == ChatRole.ASSISTANT:
        said = [part for part in group if isinstance(part, Text | Refusal)]
        return [message_item(said)] if said else model_item(group[0], namespaces)
    return [_user_item(role, group)] if _is_content(group[0]) else _result_items(group[0])


def _is_content(part: object) -> bool:
    """Whether it stands inside a message of somebody who is no model."""
    if isinstance(part, Opaque):
        return str(part.body.get("type")).startswith(("input_", "encrypted_"))
    return isinstance(part, Text | Refusal | Media | Thinking | ToolCall)


def _user_item(role: str, content: Sequence[Part]) -> dict[str, Any]:
    return {"type": "message", "role": role, "status": "completed", "content": input_content(content)}


def _result_items(part: Part) -> list[dict[str, Any]]:
    if isinstance(part, Opaque):
        return [dict(part.body)] if part.format is OWN else []
    assert isinstance(part, ToolResult)  # noqa: S101 - nothing else stands beside what was said
    kind = "custom_tool_call_output" if part.is_custom else "function_call_output"
    has_files = any(isinstance(each, Media) for each in part.content)
    output = input_content(part.content) if has_files else part.text
    return [{"type": kind, "call_id": part.call_id, "output": output, "status": "completed"}]


def unsaid(messages: Iterable[ChatMessage]) -> tuple[str, ...]:
    """Names of what `items_of` leaves out of messages for an upstream: thoughts and items of other formats."""
    names: dict[str, None] = {}
    for part in (part for message in messages for part in message.parts):
        if isinstance(part, Thinking) and not _is_openais(part):
            names["thinking"] = None
        elif isinstance(part, Opaque) and part.format is not OWN:
            names[f"items[{part.kind}]"] = None
    return tuple(names)


def _is_openais(thought: Thinking) -> bool:
    return thought.origin is OWN and thought.signature is not None


def model_item(part: Part, namespaces: Namespaces) -> list[dict[str, Any]]:
    """A part of an answer as an item without an id; none where only another format can say it."""
    match part:
        case Text() | Refusal():
            return [message_item([part])]
        case Thinking():
            return [reasoning_item(part)]
        case ToolCall():
            return [call_item(part, namespaces)]
        case Opaque(format=WireFormat.RESPONSES):
            return [dict(part.body)]
        case Media():
            return [{"type": "message", "role": "assistant", "status": "completed", "content": input_content((part,))}]
        case _:
            return []


def reasoning_item(thought: Thinking) -> dict[str, Any]:
    """A thought. What proves it to its model goes along, be it asked for or not: clients hand it back."""
    summary = [{"type": "summary_text", "text": thought.text}] if thought.text else []
    item: dict[str, Any] = {**told_besides(thought).fields, "type": "reasoning", "summary": summary}
    if thought.signature is not None or thought.origin not in (None, OWN):
        signature = REDACTED + (thought.signature or "") if thought.redacted else thought.signature
        item["encrypted_content"] = sealed(signature, thought.origin, OWN)
    return item | ({"id": thought.id} if thought.id else {})


def call_item(call: ToolCall, namespaces: Namespaces) -> dict[str, Any]:
    """A call of a tool."""
    namespace, name = namespaces.get(call.name, (None, call.name))
    said = {"type": "custom_tool_call", "input": call.arguments}
    if not call.is_custom:
        said = {"type": "function_call", "arguments": call.arguments}
    besides = told_besides(call).fields
    item: dict[str, Any] = {**besides, **said, "call_id": call.id, "name": name, "status": "completed"}
    if namespace is not None:
        item["namespace"] = namespace
    if call.signature is not None:
        item["extra_content"] = {"google": {"thought_signature": call.signature}}
    return item


def _for_upstream(item: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing to a model."""
    told = {name: value for name, value in item.items() if name not in ("status", "extra_content")}
    if item.get("type") == "message" and item["role"] == ChatRole.ASSISTANT:
        told["content"] = [part | ({"logprobs": []} if part.get("logprobs") else {}) for part in item["content"]]
    return told


def own_item(item: Any) -> Any:
    """A client's item as OpenAI takes it: without what it got from us alone; None for a thought of another model."""
    if not isinstance(item, dict):
        return item
    kind = kind_of(item)
    if kind == "reasoning" and not _is_openais(_reasoning(item, "input")):
        return None
    left_out = {"extra_content"} if kind in ("function_call", "custom_tool_call") else set()
    if kind in PREFIXES and _foreign_id(item) is None:
        left_out.add("id")
    left_out = left_out.intersection(item)
    return {name: value for name, value in item.items() if name not in left_out} if left_out else item
