"""What an answer may cost us at most: bytes, whatever they are compressed to, and time in which nothing is said."""

from typing import Protocol

from src.domain.completion.model import Failure, UpstreamFailed
from src.integrations.llm.sse_bytes import EventSplitter, says_something

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_STREAM_BYTES = 256 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
ERROR_TIMEOUT_S = 5.0
"""How long the body of an error may take: its status says enough."""
LAST_BYTES = 16

_JSON_ENDS = (b"}", b"]")


class Watch(Protocol):
    """Sees the decompressed bytes of one answer as they come."""

    deadline_s: float
    """By the clock of the event loop."""
    is_calm: bool
    """What came last was progress: the transport's own timer, which any byte resets, is enough for the next wait."""

    def see(self, piece: bytes, now_s: float) -> None:
        """Raises UpstreamFailed (malformed) where it is too much."""
        ...

    @property
    def ends_well(self) -> bool:
        """Whether what was seen may be all: an answer that was cut by a wrong length leaves its rest to the next."""
        ...


class BodyWatch:
    """A whole body: so many bytes, in the time that a provider may be silent."""

    def __init__(self, now_s: float, *, patience_s: float, most_bytes: int = MAX_BODY_BYTES) -> None:
        self.deadline_s = now_s + patience_s
        self.is_calm = False
        self._left_bytes = most_bytes
        self._last = b""

    def see(self, piece: bytes, now_s: float) -> None:
        self._left_bytes -= len(piece)
        if self._left_bytes < 0:
            raise UpstreamFailed(Failure.MALFORMED, "The provider's answer is too large.")
        self._last = piece[-LAST_BYTES:].rstrip() or self._last

    @property
    def ends_well(self) -> bool:
        return self._last.endswith(_JSON_ENDS)


class EventWatch:
    """A stream of events: keep-alives and the crumbs of an event that never ends are silence."""

    def __init__(self, now_s: float, *, patience_s: float) -> None:
        self.deadline_s = now_s + patience_s
        self.is_calm = True
        self._patience_s = patience_s
        self._left_bytes = MAX_STREAM_BYTES
        self._splitter = EventSplitter()

    def see(self, piece: bytes, now_s: float) -> None:
        self._left_bytes -= len(piece)
        if self._left_bytes < 0:
            raise UpstreamFailed(Failure.MALFORMED, "The provider's stream is too large.")
        events = self._splitter.feed(piece)
        self.is_calm = bool(events) and says_something(events)
        if self.is_calm:
            self.deadline_s = now_s + self._patience_s

    @property
    def ends_well(self) -> bool:
        return not self._splitter.rest()
