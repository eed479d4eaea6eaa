"""The pieces in which an answer comes, and the parts that they add up to."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby

from src.domain.catalog.model import WireFormat
from src.domain.completion.content import (
    Media,
    Opaque,
    Part,
    Particulars,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Some more of the answer. `begins`: of a part of its own. `particulars` that come later join those before."""

    text: str
    particulars: Particulars | None = None
    begins: bool = False

    @property
    def generated(self) -> str:
        """What the model wrote, for counting it."""
        return self.text


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """Some more of a refusal. `begins` and `particulars`: see TextDelta."""

    text: str
    particulars: Particulars | None = None
    begins: bool = False

    @property
    def generated(self) -> str:
        """What the model wrote, for counting it."""
        return self.text


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """Some more of a thought. A `signature` ends the thought; a `redacted` one comes whole, as its signature."""

    text: str = ""
    signature: str | None = None
    redacted: bool = False
    origin: WireFormat | None = None
    particulars: Particulars | None = None

    @property
    def generated(self) -> str:
        """What the model wrote, for counting it."""
        return self.text


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """Some more of the answer's tool call number `index`, from 0. Its first piece says `id` and `name`."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    is_custom: bool = False
    signature: str | None = None
    particulars: Particulars | None = None

    @property
    def generated(self) -> str:
        """What the model wrote, for counting it."""
        return (self.name or "") + self.arguments


@dataclass(frozen=True, slots=True)
class OpaqueDelta:
    """A whole part that only one wire format knows."""

    part: Opaque

    @property
    def generated(self) -> str:
        """Nothing that could be counted."""
        return ""


PartDelta = TextDelta | RefusalDelta | ThinkingDelta | ToolCallDelta | OpaqueDelta
"""A piece of an answer in our own words."""


def words_in(deltas: Iterable[object]) -> str:
    """The words of an answer, of the pieces that are in our own words."""
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta | RefusalDelta))


def parts_of(deltas: Iterable[PartDelta]) -> tuple[Part, ...]:
    """The parts that deltas add up to: neighbours of one kind are one part, pieces of a tool call are one call."""
    parts: list[Part] = []
    calls: dict[int, int] = {}
    words = _Words()
    for delta in _in_runs(deltas):
        if isinstance(delta, TextDelta | RefusalDelta):
            parts.extend(words.hear(delta))
            continue
        parts.extend(words.end())
        _add(delta, parts, calls)
    parts.extend(words.end())
    return tuple(parts)


def _in_runs(deltas: Iterable[PartDelta]) -> Iterator[PartDelta]:
    """The same with pieces joined that follow each other and say no more than their text."""
    for _, pieces in groupby(deltas, _run_of):
        run = list(pieces)
        match run[0]:
            case TextDelta() | ThinkingDelta() as first if len(run) > 1:
                yield replace(first, text="".join(each.text for each in run if isinstance(each, type(first))))
            case ToolCallDelta() as first if len(run) > 1:
                arguments = "".join(each.arguments for each in run if isinstance(each, ToolCallDelta))
                yield replace(first, arguments=arguments)
            case first:
                yield first


def _run_of(delta: PartDelta) -> object:
    """What neighbours share that can be joined; nobody shares a new object."""
    if isinstance(delta, OpaqueDelta) or delta.particulars is not None:
        return object()
    if isinstance(delta, TextDelta):
        return object() if delta.begins else TextDelta
    if isinstance(delta, ThinkingDelta):
        return object() if delta.signature is not None or delta.redacted else (ThinkingDelta, delta.origin)
    if isinstance(delta, ToolCallDelta):
        says_more = delta.id is not None or delta.name is not None or delta.signature is not None
        return object() if says_more else (ToolCallDelta, delta.index, delta.is_custom)
    return object()


class _Words:
    """The text or the refusal that is being said. Which of them it is, its first words tell."""

    def __init__(self) -> None:
        self._kind: type[Text] | type[Refusal] | None = None
        self._pieces: list[str] = []
        self._particulars: Particulars | None = None

    def hear(self, delta: TextDelta | RefusalDelta) -> Iterator[Part]:
        """Some more; what it was before, where that has ended with it."""
        kind = Text if isinstance(delta, TextDelta) else Refusal
        if delta.begins or (delta.text and self._kind not in (None, kind)):
            yield from self.end()
        if delta.text:
            self._kind = kind
            self._pieces.append(delta.text)
        if delta.particulars is not None:
            before = self._particulars
            self._particulars = delta.particulars if before is None else before.and_then(delta.particulars)

    def end(self) -> Iterator[Part]:
        """What was said, if anything."""
        if self._kind is not None:
            yield self._kind(text="".join(self._pieces), particulars=self._particulars)
        self._kind, self._particulars = None, None
        self._pieces = []


def _add(delta: PartDelta, parts: list[Part], calls: dict[int, int]) -> None:
    match delta:
        case ToolCallDelta():
            _add_to_call(delta, parts, calls)
        case ThinkingDelta():
            last = parts[-1] if parts else None
            goes_on = isinstance(last, Thinking) and last.signature is None and not (last.redacted or delta.redacted)
            before = last if isinstance(last, Thinking) and goes_on else Thinking()
            thought = Thinking(
                text=before.text + delta.text,
                signature=delta.signature,
                redacted=delta.redacted,
                origin=delta.origin or before.origin,
                particulars=delta.particulars or before.particulars,
            )
            parts[len(parts) - 1 if goes_on else len(parts) :] = [thought]
        case OpaqueDelta():
            parts.append(delta.part)


def _add_to_call(delta: ToolCallDelta, parts: list[Part], calls: dict[int, int]) -> None:
    place = calls.get(delta.index)
    found = None if place is None else parts[place]
    before = found if isinstance(found, ToolCall) else ToolCall(id="", name="", arguments="")
    call = ToolCall(
        id=before.id or delta.id or "",
        name=before.name or delta.name or "",
        arguments=before.arguments + delta.arguments,
        is_custom=before.is_custom or delta.is_custom,
        signature=before.signature or delta.signature,
        particulars=delta.particulars or before.particulars,
    )
    if place is None:
        calls[delta.index] = len(parts)
        parts.append(call)
    else:
        parts[place] = call


def grown(before: Sequence[Part], now: Sequence[Part]) -> Iterator[PartDelta]:
    """The pieces by which an answer has grown: new parts, and more of those that were there."""
    calls = count()
    for place, part in enumerate(now):
        number = next(calls) if isinstance(part, ToolCall) else 0
        match part, before[place] if place < len(before) else None:
            case _, None:
                yield _delta_of(part, iter((number,)))
            case Text(text=text), Text(text=had) if text != had:
                yield TextDelta(text[len(had) :])
            case Refusal(text=text), Refusal(text=had) if text != had:
                yield RefusalDelta(text[len(had) :])
            case Thinking(), Thinking(text=had) as thought if part != thought:
                yield replace(_thinking(part), text=part.text[len(had) :])
            case ToolCall(), ToolCall(arguments=had) if part.arguments != had:
                yield ToolCallDelta(number, arguments=part.arguments[len(had) :])


def deltas_of(parts: Sequence[Part]) -> tuple[PartDelta, ...]:
    """Each part in one piece. Raises TypeError for what no model answers with."""
    calls = count()
    return tuple(_delta_of(part, calls) for part in parts)


def _delta_of(part: Part, calls: Iterator[int]) -> PartDelta:
    match part:
        case Text():
            return TextDelta(part.text, part.particulars)
        case Refusal():
            return RefusalDelta(part.text, part.particulars)
        case Thinking():
            return _thinking(part)
        case ToolCall():
            return ToolCallDelta(
                next(calls), part.id, part.name, part.arguments, part.is_custom, part.signature, part.particulars
            )
        case Opaque():
            return OpaqueDelta(part)
        case Media() | ToolResult():
            raise TypeError(f"{type(part).__name__} is no part of an answer")


def _thinking(part: Thinking) -> ThinkingDelta:
    return ThinkingDelta(part.text, part.signature, part.redacted, part.origin, part.particulars)
