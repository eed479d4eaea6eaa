"""The messages of OpenAI's chat completions, inwards."""

import json
import mimetypes
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, groupby
from typing import Any

from src.api.dialects.fields import list_at, object_at, text_at
from src.api.dialects.media import kind_of, opened_data_url
from src.api.dialects.signatures import opened
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import Media, MediaKind, Part, Refusal, Text, Thinking, ToolCall, ToolResult, text_of
from src.domain.completion.model import ChatMessage, ChatRole
from src.shared.errors import InvalidRequest

OWN = WireFormat.CHAT_COMPLETIONS

_ROLES = {
    "system": ChatRole.SYSTEM,
    "developer": ChatRole.SYSTEM,
    "user": ChatRole.USER,
    "assistant": ChatRole.ASSISTANT,
    "tool": ChatRole.USER,
    "function": ChatRole.USER,
}
_READ = {
    **dict.fromkeys(("system", "developer", "user"), frozenset({"role", "content"})),
    "assistant": frozenset(
        {
            *("role", "content", "refusal", "audio", "tool_calls", "function_call"),
            *("reasoning", "reasoning_content", "reasoning_details"),
        }
    ),
    "tool": frozenset({"role", "content", "tool_call_id", "name"}),
    "function": frozenset({"role", "content", "name"}),
}
"""What is read of messages, by their role."""
_READ_OF_CALLS = frozenset({"id", "type", "index", "function", "custom", "extra_content"})
_LINKS = {"image_url": MediaKind.IMAGE, "video_url": MediaKind.VIDEO}
_NOTHING: tuple[Any, ...] = (None, [], {})
_AUDIO_TYPES = {"mp3": "audio/mpeg"}


@dataclass(slots=True)
class MessageReader:
    """Reads the messages of one body, in their order.

    `untranslatable` collects the names of what we cannot say, `untranslated` those of what goes missing.
    """

    untranslatable: dict[str, None] = field(default_factory=dict)
    untranslated: dict[str, None] = field(default_factory=dict)
    _functions: dict[str, str] = field(default_factory=dict)
    """Ids for the calls of functions, which had none before there were tools: the newest by name."""
    _numbers: Iterator[int] = field(default_factory=count)

    def read(self, messages: Sequence[Mapping[str, Any]]) -> tuple[ChatMessage, ...]:
        """Raises InvalidRequest, which names the field."""
        return tuple([self._message(message, f"messages[{index}]") for index, message in enumerate(messages)])

    def _message(self, message: Mapping[str, Any], where: str) -> ChatMessage:
        name = message.get("role")
        role = _ROLES.get(name) if isinstance(name, str) else None
        if role is None:
            raise InvalidRequest(f"{where}.role must be one of {', '.join(_ROLES)}.", param=f"{where}.role")
        leave_out_rest(message, _READ[str(name)], self.untranslated, "messages.")
        match name:
            case "tool":
                call_id = text_at(message.get("tool_call_id"), f"{where}.tool_call_id")
                return _said(role, [self._result(message, call_id, where)])
            case "function":
                called = text_at(message.get("name"), f"{where}.name")
                return _said(role, [self._result(message, self._functions.get(called, called), where)])
            case "assistant":
                return _said(role, list(self._answer(message, where)))
        parts = self._content(message, where)
        if role is ChatRole.SYSTEM and any(isinstance(part, Media) for part in parts):
            self.untranslatable["files in system messages"] = None
        return _said(role, parts)

    def _result(self, message: Mapping[str, Any], call_id: str, where: str) -> ToolResult:
        content = self._content(message, where)
        told = tuple([part for part in content if isinstance(part, (Text, Media))])
        name = message.get("name")
        return ToolResult(call_id=call_id, content=told, name=name if isinstance(name, str) else None)

    def _answer(self, message: Mapping[str, Any], where: str) -> Iterator[Part]:
        yield from _thoughts(message, where)
        if message.get("content") is not None:
            yield from self._content(message, where)
        if message.get("refusal") is not None:
            yield Refusal(text=text_at(message["refusal"], f"{where}.refusal"))
        if message.get("audio") is not None:
            self.untranslatable["audio"] = None
        for index, call in enumerate(list_at(message.get("tool_calls"), f"{where}.tool_calls")):
            place = f"{where}.tool_calls[{index}]"
            if (read := self._call(object_at(call, place), place)) is not None:
                yield read
        if message.get("function_call"):
            yield self._function_call(message["function_call"], where)

    def _call(self, call: Mapping[str, Any], where: str) -> ToolCall | None:
        kind = call.get("type", "function")
        if kind not in ("function", "custom"):
            self.untranslatable[f"tool_calls[{str(kind)[:50]}]"] = None
            return None
        body = object_at(call.get(kind), f"{where}.{kind}")
        leave_out_rest(call, _READ_OF_CALLS, self.untranslated)
        return ToolCall(
            id=text_at(call.get("id"), f"{where}.id"),
            name=text_at(body.get("name"), f"{where}.{kind}.name"),
            arguments=_arguments(body.get("arguments"), f"{where}.{kind}.arguments")
            if kind == "function"
            else text_at(body.get("input"), f"{where}.{kind}.input"),
            is_custom=kind == "custom",
            signature=_googles_signature(call),
        )

    def _function_call(self, value: Any, where: str) -> ToolCall:
        call = object_at(value, f"{where}.function_call")
        name = text_at(call.get("name"), f"{where}.function_call.name")
        arguments = _arguments(call.get("arguments"), f"{where}.function_call.arguments")
        self._functions[name] = f"call_{next(self._numbers)}"
        return ToolCall(id=self._functions[name], name=name, arguments=arguments)

    def _content(self, message: Mapping[str, Any], where: str) -> list[Part]:
        content, place = message.get("content"), f"{where}.content"
        if isinstance(content, str):
            return [Text(text=content)] if content else []
        if content is None:
            raise InvalidRequest(f"{place} is required.", param=place)
        if not isinstance(content, list) or not content:
            raise InvalidRequest(f"{place} must be a string or a list of parts.", param=place)
        parts = (self._part(part, f"{place}[{index}]") for index, part in enumerate(content))
        return [part for part in parts if part is not None]

    def _part(self, part: Any, where: str) -> Part | None:
        """None for an empty text, and for what we cannot say."""
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise InvalidRequest(f"{where} must be an object with a type.", param=where)
        read: Part | None = None
        leave_out_rest(part, ("type", part["type"]), self.untranslated)
        match kind := part["type"]:
            case "text" | "refusal":
                text = text_at(part.get(kind), f"{where}.{kind}")
                return (Text if kind == "text" else Refusal)(text=text) if text else None
            case "image_url" | "video_url":
                read = _link(part.get(kind), _LINKS[kind], f"{where}.{kind}")
            case "file":
                read = _file(object_at(part.get("file"), f"{where}.file"), f"{where}.file")
            case "input_audio":
                read = _audio(object_at(part.get("input_audio"), f"{where}.input_audio"), f"{where}.input_audio")
        if read is None:
            self.untranslatable[kind[:50]] = None
        return read


def leave_out_rest(
    given: Mapping[str, Any], read: Collection[str], untranslated: dict[str, None], prefix: str = ""
) -> None:
    """Name all fields that say something and are not read."""
    for name, value in given.items():
        if name not in read and value not in _NOTHING:
            untranslated[f"{prefix}{name}"[:64]] = None


def _said(role: ChatRole, parts: list[Part]) -> ChatMessage:
    text = text_of(parts)
    is_plain = all(isinstance(part, Text) for part in parts)
    return ChatMessage(role=role, text=text, parts=() if is_plain else tuple(parts))


def _arguments(value: Any, where: str) -> str:
    """JSON as the model wrote it. Some clients send it read already, or nothing where there are none."""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text_at("" if value is None else value, where) or "{}"


def _googles_signature(call: Mapping[str, Any]) -> str | None:
    """Where Google's own dialect of this format has it."""
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else None


def _thoughts(message: Mapping[str, Any], where: str) -> Iterator[Thinking]:
    """As routers write them with their signatures, else as most servers do."""
    details = message.get("reasoning_details")
    if isinstance(details, list) and details:
        places = [f"{where}.reasoning_details[{number}]" for number in range(len(details))]
        told = [(object_at(detail, place), place) for detail, place in zip(details, places, strict=True)]
        for _, pieces in groupby(told, key=lambda each: each[0].get("index")):
            yield from _joined(thought for detail, place in pieces for thought in _thought(detail, place))
        return
    for name in ("reasoning_content", "reasoning"):
        text = message.get(name)
        if isinstance(text, str) and text:
            yield Thinking(text=text, origin=OWN)
            return


def _joined(pieces: Iterable[Thinking]) -> Iterator[Thinking]:
    """Clients put the pieces of a stream back as they came: those without a seal belong to the next one with one."""
    text = ""
    for piece in pieces:
        if piece.redacted:
            yield piece
        elif piece.signature is None and piece.origin is OWN:
            text += piece.text
        else:
            yield replace(piece, text=text + piece.text)
            text = ""
    if text:
        yield Thinking(text=text, origin=OWN)


def _thought(detail: Mapping[str, Any], where: str) -> Iterator[Thinking]:
    kind = detail.get("type")
    if kind == "reasoning.encrypted":
        signature, origin = opened(text_at(detail.get("data"), f"{where}.data"), OWN)
        yield Thinking(signature=signature, redacted=True, origin=origin)
    elif kind in ("reasoning.text", "reasoning.summary"):
        name = "text" if kind == "reasoning.text" else "summary"
        text, seal = detail.get(name), detail.get("signature")
        signature, origin = opened(text_at(seal or "", f"{where}.signature"), OWN)
        yield Thinking(text=text_at(text or "", f"{where}.{name}"), signature=signature, origin=origin)


def _link(value: Any, kind: MediaKind, where: str) -> Media | None:
    """A file by its address; None for a data URL that holds nothing. Older clients wrote the address alone."""
    link = {"url": value} if isinstance(value, str) else object_at(value, where)
    url, detail = text_at(link.get("url"), f"{where}.url"), link.get("detail")
    return _media(kind, url, detail=detail if isinstance(detail, str) else None)


def _media(kind: MediaKind, url: str, *, name: str | None = None, detail: str | None = None) -> Media | None:
    if not url.lower().startswith("data:"):
        return Media(kind=kind, url=url, name=name, detail=detail) if url else None
    if (found := opened_data_url(url)) is None or not found[1]:
        return None
    media_type, data = found
    if kind is MediaKind.DOCUMENT:
        kind = kind_of(media_type)
    return Media(kind=kind, media_type=media_type, data=data, name=name, detail=detail)


def _file(body: Mapping[str, Any], where: str) -> Media | None:
    """A file that came along, as a data URL, an address or bare base64; None for one that was uploaded before."""
    if body.get("file_data") is None:
        return None
    data = text_at(body["file_data"], f"{where}.file_data")
    name = body.get("filename")
    name = name if isinstance(name, str) and name else None
    if data.partition(":")[0].lower() in ("data", "http", "https"):
        return _media(MediaKind.DOCUMENT, data, name=name)
    media_type = (mimetypes.guess_type(name)[0] if name else None) or "application/pdf"
    return Media(kind=kind_of(media_type), media_type=media_type, data=data, name=name) if data else None


def _audio(body: Mapping[str, Any], where: str) -> Media:
    data, form = text_at(body.get("data"), f"{where}.data"), text_at(body.get("format"), f"{where}.format")
    return Media(kind=MediaKind.AUDIO, media_type=_AUDIO_TYPES.get(form, f"audio/{form}"), data=data)
