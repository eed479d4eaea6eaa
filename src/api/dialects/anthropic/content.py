"""The blocks of Anthropic messages, inwards."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from src.api.dialects.signatures import opened
from src.api.json import dumps
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import Media, MediaKind, Opaque, Part, Text, Thinking, ToolCall, ToolResult, text_of
from src.domain.completion.model import ChatMessage, ChatRole
from src.shared.errors import InvalidRequest

OWN = WireFormat.MESSAGES

_ROLES = {"user": ChatRole.USER, "assistant": ChatRole.ASSISTANT, "system": ChatRole.SYSTEM}

_ONLY_IN = {
    "tool_use": ChatRole.ASSISTANT,
    "thinking": ChatRole.ASSISTANT,
    "redacted_thinking": ChatRole.ASSISTANT,
    "tool_result": ChatRole.USER,
}

_MESSAGE_FIELDS = ("role", "content", "clear_at")

_HOSTED_CALLS = ("server_tool_use", "mcp_tool_use")

_FIELDS = {
    "text": frozenset({"type", "text"}),
    "image": frozenset({"type", "source"}),
    "document": frozenset({"type", "source", "title", "context"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool_use": frozenset({"type", "id", "name", "input", "caller", "extra_content"}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error"}),
}
"""What is read of the blocks that there are in our words."""


class Notes:
    """Names of what a body says that has no place in our words: `untranslated` goes missing, with `untranslatable`
    the body cannot be translated at all. `has_foreign`: it holds what Anthropic itself would not know.
    """

    def __init__(self) -> None:
        self.untranslated: dict[str, None] = {}
        self.untranslatable: dict[str, None] = {}
        self.has_foreign = False

    def leave_out(self, name: str) -> None:
        self.untranslated[name[:64]] = None

    def keep_out(self, name: str) -> None:
        self.untranslatable[name[:64]] = None

    def leave_out_rest(self, given: Mapping[str, Any], read: Collection[str], prefix: str = "") -> None:
        """All fields that are set and not read."""
        for name, value in given.items():
            if name not in read and value is not None:
                self.leave_out(prefix + name)


def system_message(system: Any, notes: Notes) -> ChatMessage | None:
    """The field system, which is text or blocks; None where it says nothing. Raises InvalidRequest."""
    text = "" if system is None else _system_text(system, "system", notes)
    return ChatMessage(role=ChatRole.SYSTEM, text=text) if text else None


def messages_of(messages: Sequence[Mapping[str, Any]], notes: Notes) -> tuple[ChatMessage, ...]:
    """The messages, but for those that a model is no longer shown. Raises InvalidRequest."""
    said = [message_of(message, f"messages[{index}]", notes) for index, message in enumerate(messages)]
    last = max((index for index, message in enumerate(said) if message.role is ChatRole.USER), default=0)
    return tuple(
        message
        for index, message in enumerate(said)
        if message.role is not ChatRole.SYSTEM
        or (message.text and (index > last or messages[index].get("clear_at") != "next_user_message"))
    )


def message_of(message: Mapping[str, Any], where: str, notes: Notes) -> ChatMessage:
    """One of the messages. Raises InvalidRequest."""
    name = message.get("role")
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise InvalidRequest(f"{where}.role must be user or assistant.", param=f"{where}.role")
    notes.leave_out_rest(message, _MESSAGE_FIELDS, "messages.")
    where = f"{where}.content"
    if role is ChatRole.SYSTEM and "content" not in message:  # one that sets how to answer, and says nothing
        return ChatMessage(role=role, text="")
    if "content" not in message:
        raise InvalidRequest(f"{where} is required.", param=where)
    if role is ChatRole.SYSTEM:
        return ChatMessage(role=role, text=_system_text(message["content"], where, notes))
    if isinstance(message["content"], str):
        return ChatMessage(role=role, text=message["content"])
    parts: list[Part] = []
    for index, block in enumerate(_blocks(message["content"], where)):
        parts += _parts(block, f"{where}[{index}]", role, notes)
    is_plain = all(isinstance(part, Text) for part in parts)
    return ChatMessage(role=role, text=text_of(parts), parts=() if is_plain else tuple(parts))


def _blocks(content: Any, where: str) -> list[Any]:
    if not isinstance(content, list):
        raise InvalidRequest(f"{where} must be a string or a list of blocks.", param=where)
    return content


def _system_text(content: Any, where: str, notes: Notes) -> str:
    """System prompts are text; what else is among them nobody else understands."""
    if isinstance(content, str):
        return content
    parts: list[Part] = []
    for index, block in enumerate(_blocks(content, where)):
        kind = _kind(block, f"{where}[{index}]")
        if kind == "text":
            parts += _parts(block, f"{where}[{index}]", ChatRole.SYSTEM, notes)
        else:
            notes.keep_out(kind)
    return text_of(parts)


def _kind(block: Any, where: str) -> str:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        raise InvalidRequest(f"{where} must be an object with a type.", param=where)
    kind: str = block["type"]
    return kind


def _parts(block: Any, where: str, role: ChatRole, notes: Notes) -> tuple[Part, ...]:
    """What a block is in our words: mostly one part, none where there are no words for it."""
    kind = _kind(block, where)
    if role is ChatRole.ASSISTANT and _is_hosted(kind):
        return (Opaque(format=OWN, body=block),)
    if kind not in _FIELDS:
        notes.keep_out(kind)
        return ()
    if _ONLY_IN.get(kind, role) is not role:
        raise InvalidRequest(f"{where}: {kind} stands in messages of the {_ONLY_IN[kind].value} alone.", param=where)
    notes.leave_out_rest(block, _FIELDS[kind])
    match kind:
        case "text":
            return (Text(text=_string(block, "text", where)),)
        case "image" | "document":
            return _file(block, where, notes)
        case "thinking" | "redacted_thinking":
            return (_thought(block, where, notes),)
        case "tool_use":
            notes.has_foreign |= "extra_content" in block
            return (_call(block, where),)
        case _:
            return (_result(block, where, notes),)


def _is_hosted(kind: str) -> bool:
    """Whether it is what a tool did that Anthropic runs itself."""
    return kind in _HOSTED_CALLS or kind.endswith("_tool_result")


def _string(given: Mapping[str, Any], name: str, where: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}.{name} must be a string.", param=f"{where}.{name}")
    return value


def _optional(given: Mapping[str, Any], name: str, where: str) -> str | None:
    return None if given.get(name) is None else _string(given, name, where)


def _object(given: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    value = given.get(name)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where}.{name} must be an object.", param=f"{where}.{name}")
    return value


def _file(block: Mapping[str, Any], where: str, notes: Notes) -> tuple[Text | Media, ...]:
    """An image or a document; a document of text is that text."""
    kind = MediaKind(block["type"])
    source = _object(block, "source", where)
    title, context = _optional(block, "title", where), _optional(block, "context", where)
    about = (Text(text=context),) if context else ()
    where = f"{where}.source"
    match source.get("type"):
        case "base64":
            media_type, data = _string(source, "media_type", where), _string(source, "data", where)
            return (*about, Media(kind=kind, media_type=media_type, data=data, name=title))
        case "url":
            likely = "application/pdf" if kind is MediaKind.DOCUMENT else None
            return (*about, Media(kind=kind, media_type=likely, url=_string(source, "url", where), name=title))
        case "text" if kind is MediaKind.DOCUMENT:
            return (*_titled(title), *about, Text(text=_string(source, "data", where)))
        case "content" if kind is MediaKind.DOCUMENT:
            return (*_titled(title), *about, *_inner(source.get("content"), f"{where}.content", notes))
        case other:
            notes.keep_out(f"{kind.value}.source.{other}" if isinstance(other, str) else f"{kind.value}.source")
            return ()


def _titled(title: str | None) -> tuple[Text, ...]:
    return (Text(text=title),) if title else ()


def _inner(content: Any, where: str, notes: Notes) -> tuple[Text | Media, ...]:
    """What stands inside a document or the result of a tool: text and files."""
    if isinstance(content, str):
        return (Text(text=content),) if content else ()
    found: list[Text | Media] = []
    for index, block in enumerate(_blocks(content, where)):
        kind = _kind(block, f"{where}[{index}]")
        if kind in ("text", "image", "document"):
            parts = _parts(block, f"{where}[{index}]", ChatRole.USER, notes)
            found += [part for part in parts if isinstance(part, Text | Media)]
        else:
            notes.keep_out(kind)
    return tuple(found)


def _thought(block: Mapping[str, Any], where: str, notes: Notes) -> Thinking:
    is_redacted = block["type"] == "redacted_thinking"
    seal = _string(block, "data", where) if is_redacted else _optional(block, "signature", where) or ""
    signature, origin = opened(seal, OWN)
    notes.has_foreign |= origin is not OWN
    if is_redacted:
        return Thinking(signature=signature, redacted=True, origin=origin)
    return Thinking(text=_string(block, "thinking", where), signature=signature, origin=origin)


def _call(block: Mapping[str, Any], where: str) -> ToolCall:
    return ToolCall(
        id=_string(block, "id", where),
        name=_string(block, "name", where),
        arguments=dumps(_object(block, "input", where)).decode(),
        signature=_thought_signature(block),
    )


def _thought_signature(block: Mapping[str, Any]) -> str | None:
    """Google's, as its OpenAI-compatible API carries it; see `anthropic_reply`."""
    found: Any = block
    for name in ("extra_content", "google", "thought_signature"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def _result(block: Mapping[str, Any], where: str, notes: Notes) -> ToolResult:
    content = block.get("content")
    is_error = block.get("is_error")
    if is_error is not None and not isinstance(is_error, bool):
        raise InvalidRequest(f"{where}.is_error must be true or false.", param=f"{where}.is_error")
    return ToolResult(
        call_id=_string(block, "tool_use_id", where),
        content=() if content is None else _inner(content, f"{where}.content", notes),
        is_error=bool(is_error),
    )
