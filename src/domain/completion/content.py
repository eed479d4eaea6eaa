"""What a message is made of besides plain text, whoever's wire format it came in or goes out by."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, replace
from dataclasses import fields as fields_of
from enum import StrEnum
from typing import Any, TypeVar

from src.domain.catalog.model import WireFormat


class MediaKind(StrEnum):
    """What a file is to a model."""

    IMAGE = "image"
    DOCUMENT = "document"
    AUDIO = "audio"
    VIDEO = "video"


@dataclass(frozen=True, slots=True, kw_only=True)
class Particulars:
    """What only one wire format can say of a part: its own fields, as they came.

    `place`: the part stands in an item of the format with others, in this place; a text that says none begins an item.
    `item`: fields of that item, told with one of its parts.
    """

    format: WireFormat
    fields: Mapping[str, Any] = field(default_factory=dict)
    place: int | None = None
    item: Mapping[str, Any] = field(default_factory=dict)

    def and_then(self, more: "Particulars | None") -> "Particulars":
        """The same with what was told later."""
        if more is None:
            return self
        fields, item = {**self.fields, **more.fields}, {**self.item, **more.item}
        return Particulars(
            format=more.format, fields=fields, place=self.place if more.place is None else more.place, item=item
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Some words."""

    text: str
    particulars: Particulars | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A model's words for why it does not answer."""

    text: str
    particulars: Particulars | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A file: its base64 `data`, or the `url` it can be had from; one of both. `detail`: how closely to look at it."""

    kind: MediaKind
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    name: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinking:
    """What a model thought before it answered. `text` may be a summary, or nothing.

    `signature` proves to the model of the `origin` format that the thought is its own; `redacted`: it is the thought
    itself, which only that model can read. `id`: its provider's name for it.
    """

    text: str = ""
    signature: str | None = None
    redacted: bool = False
    origin: WireFormat | None = None
    id: str | None = None
    particulars: Particulars | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool that the model wants called. `arguments` is JSON as the model wrote it; free text where `is_custom`.

    `signature`: of the thought behind it, where Google's models demand it back.
    """

    id: str
    name: str
    arguments: str
    is_custom: bool = False
    signature: str | None = None
    particulars: Particulars | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a tool gave back. It stands in a user's message, however the client's format calls it.

    `is_custom`: the tool was called with free text.
    """

    call_id: str
    content: "tuple[Text | Media, ...]"
    name: str | None = None
    is_error: bool = False
    is_custom: bool = False

    @property
    def text(self) -> str:
        """Its words alone."""
        return "\n".join(part.text for part in self.content if isinstance(part, Text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque:
    """Something that only one wire format knows, as it came; other formats cannot say it."""

    format: WireFormat
    body: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """What its format calls it: its type, or the name of its first field where the format has no types."""
        return str(self.body.get("type") or next(iter(self.body), "nothing"))[:50]


Part = Text | Refusal | Media | Thinking | ToolCall | ToolResult | Opaque
"""A typed part of a message."""

P = TypeVar("P", bound=Part)

_KINDS: dict[str, type[Part]] = {
    "text": Text,
    "refusal": Refusal,
    "thinking": Thinking,
    "tool_call": ToolCall,
    "tool_result": ToolResult,
    "opaque": Opaque,
}
_FILES = frozenset(kind.value for kind in MediaKind)
_NAMES: dict[type[Part], str] = {kind: name for name, kind in _KINDS.items()}
_OPTIONAL = {
    kind: {field.name for field in fields_of(kind) if field.default is not MISSING and field.name != "text"}
    for kind in (*_NAMES, Media)
}


def particulars_of(body: Mapping[str, Any], known: Collection[str], wire_format: WireFormat) -> Particulars | None:
    """What a body says beyond the fields that there are words for; None where that is nothing."""
    left = {name: value for name, value in body.items() if name not in known and value not in (None, [])}
    return Particulars(format=wire_format, fields=left) if left else None


def in_one_item(
    parts: Sequence[P], wire_format: WireFormat, item: Particulars | None = None, *, first: int = 0
) -> tuple[P, ...]:
    """The same parts, the first one at the place `first`, as they stand in one item that has particulars itself."""
    return tuple(
        _placed(part, place, wire_format, item if place == first else None)
        for place, part in enumerate(parts, start=first)
    )


def _placed(part: P, place: int, wire_format: WireFormat, item: Particulars | None) -> P:
    if not isinstance(part, Text | Refusal):
        return part
    begins = place == 0 and isinstance(part, Text)
    if begins and item is None:
        return part
    told = part.particulars or Particulars(format=wire_format)
    fields = {} if item is None else item.fields
    return replace(part, particulars=replace(told, place=None if begins else place, item=fields))


def text_of(parts: Iterable[Part]) -> str:
    """The words that a reader sees: those of several parts stand on lines of their own."""
    return "\n".join([part.text for part in parts if isinstance(part, (Text, Refusal))])


def answer_text(parts: Iterable[Part]) -> str:
    """The words of an answer: what a model wrote in several parts it wrote in one go."""
    return "".join([part.text for part in parts if isinstance(part, (Text, Refusal))])


def part_body(part: Part) -> dict[str, Any]:
    """A part as it is stored and shown natively; a file's type is its kind. What is not set is left out."""
    if isinstance(part, ToolResult):
        fields: dict[str, Any] = {**_fields(part), "content": [part_body(each) for each in part.content]}
    else:
        fields = _fields(part)
    if isinstance(part, Media):
        return {"type": part.kind.value} | {name: value for name, value in fields.items() if name != "kind"}
    return {"type": _NAMES[type(part)], **fields}


def _fields(part: Part) -> dict[str, Any]:
    fields = asdict(part, dict_factory=_plain)
    if particulars := fields.get("particulars"):
        fields["particulars"] = {name: value for name, value in particulars.items() if value not in (None, {})}
    return {name: value for name, value in fields.items() if value or name not in _OPTIONAL[type(part)]}


def _plain(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value.value if isinstance(value, StrEnum) else value for name, value in fields}


def part_from(body: Mapping[str, Any]) -> Part:
    """The part that was stored. Raises KeyError and TypeError for what never was."""
    kind, fields = body["type"], {name: value for name, value in body.items() if name != "type"}
    if kind in _FILES:
        return Media(kind=MediaKind(kind), **fields)
    if kind == "tool_result":
        inner = [part_from(each) for each in fields.pop("content")]
        return ToolResult(content=tuple(each for each in inner if isinstance(each, Text | Media)), **fields)
    for name in ("origin", "format"):
        if fields.get(name) is not None:
            fields[name] = WireFormat(fields[name])
    if told := fields.get("particulars"):
        fields["particulars"] = Particulars(**{**told, "format": WireFormat(told["format"])})
    return _KINDS[kind](**fields)
