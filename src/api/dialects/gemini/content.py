"""Google's contents, inwards: turns and their parts in our words."""

import mimetypes
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, groupby
from typing import Any, Final

from src.api.dialects.fields import MAX_MESSAGES
from src.api.dialects.gemini.fields import Notes, camel_fields, listed, text_in
from src.api.dialects.gemini.signatures import call_signature, thought_from
from src.api.json import dumps
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import (
    Media,
    MediaKind,
    Opaque,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    answer_text,
)
from src.domain.completion.model import ChatMessage, ChatRole
from src.shared.errors import InvalidRequest

_ROLES = {
    "user": ChatRole.USER,
    "model": ChatRole.ASSISTANT,
    "function": ChatRole.USER,
    "tool": ChatRole.USER,
    "system": ChatRole.SYSTEM,
}
_KINDS = {"image": MediaKind.IMAGE, "audio": MediaKind.AUDIO, "video": MediaKind.VIDEO}
_GOOGLES_OWN = ("gs://", "https://generativelanguage.googleapis.com/", "https://www.youtube.com/", "https://youtu.be/")
"""Where only Google's models look for files."""
_DATA = ("text", "inlineData", "fileData", "functionCall", "functionResponse")
_HOSTED = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
"""What Google's own tools did for an answer: other models are told the answer without it."""
_HINTS = frozenset({"mediaResolution", "partMetadata"})
_MARKS = frozenset({"thought", "thoughtSignature"})


def read_contents(body: Mapping[str, Any], notes: Notes) -> tuple[ChatMessage, ...]:
    """The turns of `contents`; neighbours of the model's are one, as streams come back from clients in pieces."""
    if body.get("contents") is None:
        raise InvalidRequest("contents is required.", param="contents")
    contents = listed(body["contents"], "contents", MAX_MESSAGES)
    if not contents:
        raise InvalidRequest("contents must have at least one content.", param="contents")
    reader = _Reader(notes)
    turns: list[tuple[ChatRole, list[Part]]] = []
    for index, content in enumerate(contents):
        role, parts = reader.turn(content, f"contents[{index}]")
        if turns and turns[-1][0] is role is ChatRole.ASSISTANT:
            turns[-1][1].extend(parts)
        else:
            turns.append((role, parts))
    return tuple(_message(role, parts) for role, parts in turns)


def read_system(value: Any, notes: Notes) -> tuple[ChatMessage, ...]:
    """The system instruction: a text, parts, or a content. Only its texts can be told to others."""
    if value is None:
        return ()
    if isinstance(value, str):
        parts: list[Part] = [Text(text=value)]
    else:
        content = value if isinstance(value, Mapping) and "parts" in value else {"parts": value}
        parts = _Reader(notes).parts(content, "systemInstruction")
    if not all(isinstance(part, Text) for part in parts):
        notes.refuse("systemInstruction")
    text = "\n".join(part.text for part in parts if isinstance(part, Text))
    return (ChatMessage(role=ChatRole.SYSTEM, text=text),) if text else ()


def read_parts(content: Any, where: str, notes: Notes) -> list[Part]:
    """The parts of one content, whoever's turn it is."""
    return _Reader(notes).turn(content, where)[1]


class _Reader:
    """Reads one body's parts. Calls and results without ids are given some, so that they find each other."""

    def __init__(self, notes: Notes) -> None:
        self._notes: Final = notes
        self._numbers = count()
        self._open: defaultdict[str, set[int]] = defaultdict(set)
        """The numbers of the calls that have no result, by their ids."""
        self._called: defaultdict[str, deque[tuple[int, str]]] = defaultdict(deque)
        """The numbers and ids of a tool's calls, the oldest first; those that have a result go as they are met."""
        self._made = 0

    def turn(self, content: Any, where: str) -> tuple[ChatRole, list[Part]]:
        fields = camel_fields(content, where)
        name = fields.get("role", "user")
        role = _ROLES.get(name or "user") if isinstance(name, str) else None
        if role is None:
            raise InvalidRequest(f"{where}.role must be user or model.", param=f"{where}.role")
        return role, self.parts(fields, where, by_model=role is ChatRole.ASSISTANT)

    def parts(self, content: Mapping[str, Any], where: str, *, by_model: bool = False) -> list[Part]:
        parts = content.get("parts")
        given = listed([] if parts is None else parts, f"{where}.parts")
        found = (self._part(part, f"{where}.parts[{index}]", by_model) for index, part in enumerate(given))
        return [part for part in found if part is not None]

    def _part(self, given: Any, where: str, by_model: bool) -> Part | None:
        fields = camel_fields({"text": given} if isinstance(given, str) else given, where)
        if by_model and (hosted := next((name for name in _HOSTED if name in fields), None)):
            return Opaque(format=WireFormat.GENERATE_CONTENT, body={hosted: fields.pop(hosted), **fields})
        self._note_the_rest(fields)
        signature = text_in(fields, "thoughtSignature", where)
        name = next((name for name in _DATA if name in fields), None)
        if fields.get("thought") is True and name in (None, "text"):
            return thought_from(text_in(fields, "text", where) or "", signature)
        match name:
            case "text":
                if signature:
                    self._notes.leave_out("thoughtSignature")
                return Text(text=text_in(fields, "text", where) or "")
            case "inlineData" | "fileData":
                return self._media(fields, name, where)
            case "functionCall":
                return self._call(camel_fields(fields[name], f"{where}.{name}"), signature, f"{where}.{name}")
            case "functionResponse":
                return self._result(camel_fields(fields[name], f"{where}.{name}"), f"{where}.{name}")
            case _:
                return None

    def _note_the_rest(self, fields: Mapping[str, Any]) -> None:
        for name in fields:
            if name in _HINTS:
                self._notes.leave_out(name)
            elif name not in _DATA and name not in _MARKS:
                self._notes.refuse(name)

    def _media(self, part: Mapping[str, Any], name: str, where: str) -> Media:
        where = f"{where}.{name}"
        fields = camel_fields(part[name], where)
        media_type, shown = text_in(fields, "mimeType", where), text_in(fields, "displayName", where)
        if name == "inlineData":
            data = text_in(fields, "data", where)
            if data is None or media_type is None:
                raise InvalidRequest(f"{where} needs mimeType and data.", param=where)
            standard = data.replace("-", "+").replace("_", "/")
            return Media(kind=kind_of(media_type), media_type=media_type, data=standard, name=shown)
        uri = text_in(fields, "fileUri", where)
        if not uri:
            raise InvalidRequest(f"{where}.fileUri is required.", param=f"{where}.fileUri")
        if uri.startswith(_GOOGLES_OWN):
            self._notes.refuse("fileData")
        media_type = media_type or mimetypes.guess_type(uri.partition("?")[0])[0]
        return Media(kind=kind_of(media_type or ""), media_type=media_type, url=uri, name=shown)

    def _call(self, fields: Mapping[str, Any], signature: str | None, where: str) -> ToolCall:
        name = self._named(fields, where)
        arguments = own_object(fields.get("args"), f"{where}.args")
        call_id = text_in(fields, "id", where) or self._new_id()
        number = next(self._numbers)
        self._open[call_id].add(number)
        self._called[name].append((number, call_id))
        return ToolCall(id=call_id, name=name, arguments=dumps(arguments).decode(), signature=call_signature(signature))

    def _result(self, fields: Mapping[str, Any], where: str) -> ToolResult:
        name = self._named(fields, where)
        response = own_object(fields.get("response"), f"{where}.response")
        call_id = text_in(fields, "id", where) or self._answered_id(name)
        self._open.pop(call_id, None)
        for unsaid in ("willContinue", "scheduling"):
            if unsaid in fields:
                self._notes.leave_out(unsaid)
        return ToolResult(
            call_id=call_id,
            name=name,
            content=(Text(text=dumps(response).decode()), *self._files(fields, where)),
            is_error=set(response) == {"error"},
        )

    def _files(self, fields: Mapping[str, Any], where: str) -> Iterator[Media]:
        """What a result shows besides its words."""
        for index, given in enumerate(listed(fields.get("parts") or [], f"{where}.parts")):
            part = camel_fields(given, f"{where}.parts[{index}]")
            name = next((name for name in ("inlineData", "fileData") if name in part), None)
            if name is None:
                self._notes.refuse("functionResponse.parts")
            else:
                yield self._media(part, name, f"{where}.parts[{index}]")

    def _named(self, fields: Mapping[str, Any], where: str) -> str:
        name = text_in(fields, "name", where)
        if not name:
            raise InvalidRequest(f"{where}.name is required.", param=f"{where}.name")
        return name

    def _new_id(self) -> str:
        self._made += 1
        return f"gemini_call_{self._made}"

    def _answered_id(self, name: str) -> str:
        """The oldest call of that tool that has no result."""
        called = self._called[name]
        while called:
            number, call_id = called.popleft()
            if number in self._open.get(call_id, ()):
                return call_id
        return self._new_id()


def own_object(value: Any, where: str) -> Mapping[str, Any]:
    """An object of the caller's own, whose names are left alone; absent is empty."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{where} must be an object.", param=where)
    return value


def kind_of(media_type: str) -> MediaKind:
    """What a file of that type is to a model."""
    return _KINDS.get(media_type.partition("/")[0], MediaKind.DOCUMENT)


def _message(role: ChatRole, parts: Sequence[Part]) -> ChatMessage:
    parts = _joined(parts) if role is ChatRole.ASSISTANT else parts
    if all(isinstance(part, Text) for part in parts) and len(parts) < 2:
        return ChatMessage(role=role, text="".join(part.text for part in parts if isinstance(part, Text)))
    text = "\n".join(part.text for part in parts if isinstance(part, Text))
    return ChatMessage(role=role, text=text, parts=tuple(parts))


def _joined(parts: Sequence[Part]) -> list[Part]:
    """A model's neighbouring texts are one, and so are the pieces of a thought up to its signature."""
    joined: list[Part] = []
    for kind, run in groupby(parts, key=type):
        if kind is Text:
            text = answer_text(run)
            joined += [Text(text=text)] if text else []
        elif kind is Thinking:
            joined += _whole(part for part in run if isinstance(part, Thinking))
        else:
            joined += run
    return joined


def _whole(pieces: Iterable[Thinking]) -> Iterator[Thinking]:
    """Thoughts of which each piece but the last has no signature."""
    texts: list[str] = []
    origin: WireFormat | None = None
    for piece in pieces:
        if not piece.redacted:
            texts.append(piece.text)
            origin = piece.origin or origin
        if texts and (piece.redacted or piece.signature is not None):
            yield Thinking(text="".join(texts), signature=None if piece.redacted else piece.signature, origin=origin)
            texts, origin = [], None
        if piece.redacted:
            yield piece
    if texts:
        yield Thinking(text="".join(texts), origin=origin)
