"""Server-sent events as bytes: cut into whole events, and read only where something must be known.

Lines may end in LF or CRLF. Bare CR, which the standard also allows and no provider sends, ends no line here.
"""

import re
from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

import orjson

from src.domain.completion.model import Failure, Finished, UpstreamFailed

MAX_EVENT_BYTES = 8 * 1024 * 1024
DONE = b"[DONE]"

_EVENT_END = re.compile(rb"\n\r?\n")
_FIELDS = (b"data:", b"event:")
_STRAY = re.compile(rb"\n\r?\n(?!data:|event:|id:|retry:|:|\Z)")
"""An event that begins with none of the fields there are."""
_LINE = re.compile(rb"(?:(?:data|event|id|retry)?(?::|\Z)|[\s{}\[\]\"])")
"""What a line may begin with. JSON outside of events is left to its reader: Google's errors come so."""
_PING = b'"ping"'
_BOM = b"\xef\xbb\xbf"
_JSON_ENDS = (b"}\n\n", b"}\r\n\r\n")


class EventSplitter:
    """Bytes in as they arrive, whole events out, as many at once as are complete."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._pending = bytearray()
        self._max_event_bytes = max_event_bytes

    def feed(self, chunk: bytes) -> bytes:
        """Everything up to the last complete event; empty when none is.

        Raises UpstreamFailed (malformed) when an event grows past the limit.
        """
        if not self._pending and chunk.endswith(b"\n\n"):
            return chunk
        # An end may straddle two chunks; what was searched before is not searched again.
        start = max(0, len(self._pending) - 2)
        self._pending += chunk
        end = max(_after(self._pending, b"\n\n", start), _after(self._pending, b"\n\r\n", start))
        events = bytes(self._pending[:end])
        del self._pending[:end]
        if len(self._pending) > self._max_event_bytes:
            raise UpstreamFailed(Failure.MALFORMED, "The provider sent an event that is too large.")
        return events

    def rest(self) -> bytes:
        """What came after the last complete event."""
        return bytes(self._pending)


def _after(data: bytearray, mark: bytes, start: int) -> int:
    at = data.rfind(mark, start)
    return 0 if at < 0 else at + len(mark)


def split_events(data: bytes) -> Iterator[bytes]:
    """Each event with its blank line; an unfinished one last. Joined they are `data` again."""
    start = 0
    for match in _EVENT_END.finditer(data):
        yield data[start : match.end()]
        start = match.end()
    if start < len(data):
        yield data[start:]


def payload_of(event: bytes) -> bytes:
    """The event's data, its lines joined; empty for comments and for events without data."""
    lines = (line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:"))
    return b"\n".join(lines)


def payloads_of(data: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects in some events; whatever else is there is passed over."""
    for event in split_events(data):
        value = parsed(payload_of(event))
        if isinstance(value, dict):
            yield value


def parsed(payload: bytes) -> Any:
    """The JSON value, or None where it is none."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None


def json_text(value: Any) -> str:
    """What was read as JSON, as text to count; nothing where it nests deeper than can be written again."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return ""


def is_whole(event: bytes) -> bool:
    """Whether an event without its blank line can still be used: its data is complete."""
    payload = payload_of(event)
    return payload == DONE or parsed(payload) is not None


def is_garbage(event: bytes) -> bool:
    """Whether an event holds lines that belong to no event. Clients pass over them, and over the text lost in them."""
    return any(_LINE.match(line) is None for line in event.removeprefix(_BOM).splitlines())


def says_something(events: bytes) -> bool:
    """Whether any of these whole events is more than a comment or a ping.

    Raises UpstreamFailed (malformed) for what is no event.
    """
    return any([_says_something(event) for event in split_events(events)])  # noqa: C419 - all must be looked at


def _says_something(event: bytes) -> bool:
    if is_garbage(event):
        raise _no_event()
    payload = payload_of(event)
    return bool(payload) and not (_PING in payload and is_ping(parsed(payload)))


def is_ping(value: Any) -> bool:
    """Whether the data of an event says that there is nothing to say."""
    return isinstance(value, dict) and value.get("type") == "ping"


def _no_event() -> UpstreamFailed:
    return UpstreamFailed(Failure.MALFORMED, "The provider sent what is no event.")


class StreamReader(Protocol):
    """Looks at a stream's events as they pass. One for each stream."""

    failure: UpstreamFailed | None
    """The provider's own error, met in the stream; what was read before it still flows."""
    progressed: bool
    """Whether the events read last held more than comments and pings."""

    def read(self, events: bytes) -> bytes:
        """Whole events in; out, untouched, those that may flow on now."""
        ...

    @property
    def is_over(self) -> bool:
        """The terminal event has come: nothing follows."""
        ...

    @property
    def is_settled(self) -> bool:
        """Everything there is to know is known, though the terminal event may still come."""
        ...

    @property
    def is_complete(self) -> bool:
        """The answer is whole, though usage or the terminal event may be missing."""
        ...

    def finished(self) -> Finished: ...


class TailReader:
    """The part of a StreamReader that dialects share: most bytes pass after a few searches, unparsed.

    A subclass names in `marks` what the bytes of every event that matters contain, and looks at those events.
    """

    marks: ClassVar[tuple[bytes, ...]]

    def __init__(self) -> None:
        self.failure: UpstreamFailed | None = None
        self.progressed = False
        self.is_over = False
        self._holding = False
        self._is_anew = False
        self._has_begun = False
        self._held: list[bytes] = []

    def read(self, events: bytes) -> bytes:
        if self._is_plain(events):
            self.progressed = True
            return events
        self.progressed = False
        flowing: list[bytes] = []
        for event in split_events(events):
            if self.failure is not None or self.is_over:
                break
            self._place(event, flowing)
        return b"".join(flowing)

    def look(self, payload: dict[str, Any]) -> bool:
        """Learn from an event; whether the client gets it. Sets `failure`, `is_over` or holds back by itself."""
        raise NotImplementedError

    def outgoing(self, event: bytes) -> bytes:
        """An event that was looked at, as the client gets it."""
        return event

    def hold(self, *, anew: bool = False) -> None:
        """Keep everything from this event on for the end; `anew`: what was kept before flows on."""
        self._holding, self._is_anew = True, anew

    @property
    def held(self) -> bytes:
        """The stream's last bytes, kept back until the call is settled."""
        return b"".join(self._held)

    def _is_plain(self, events: bytes) -> bool:
        if self._holding or not self._has_begun or not (events.startswith(_FIELDS) and events.endswith(_JSON_ENDS)):
            return False
        return not self._is_marked(events) and _STRAY.search(events) is None

    def _is_marked(self, events: bytes) -> bool:
        find = events.find  # measured at two thirds of what `in` takes
        for mark in self.marks:  # noqa: SIM110 - a generator costs more than the searches
            if find(mark) >= 0:
                return True
        return False

    def _place(self, event: bytes, flowing: list[bytes]) -> None:
        """Put one event where it belongs: among what flows now, among what is held, or nowhere."""
        kept = self._look_closely(event)
        if self.failure is not None:
            return
        if self._held and (self._is_anew or not self._holding):
            # What seemed to be the end was not: the answer goes on.
            flowing.extend(self._held)
            self._held.clear()
        self._is_anew = False
        if kept:
            (self._held if self._holding else flowing).append(self.outgoing(event))

    def _look_closely(self, event: bytes) -> bool:
        if self._is_plain(event):
            self.progressed = True
            return True
        payload = payload_of(event)
        if not payload:
            if is_garbage(event):
                self.failure = _no_event()
            return True
        if payload == DONE:
            self.progressed = self.is_over = True
            self.hold()
            return True
        value = parsed(payload)
        if not isinstance(value, dict):
            self.failure = UpstreamFailed(Failure.MALFORMED, "The provider sent an event that is not JSON.")
            return False
        self.progressed = not is_ping(value) or self.progressed
        self._has_begun = True
        return self.look(value)
