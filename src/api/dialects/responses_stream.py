"""OpenAI responses, outwards: for answers that were translated (relayed ones go out nearly as they came)."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from src.api.dialects.request import ParsedRequest
from src.domain.completion.deltas import PartDelta
from src.domain.completion.model import Outcome


class ResponsesWriter:
    """Writes one answer, whole or as a stream of events.

    Events are numbered by a counter that grows by 1 for an event of structure and by the characters of a delta: the
    same answer, however it is cut into pieces, has the same numbers at the same characters.
    """

    tells_prompt: ClassVar[bool] = False

    def __init__(
        self,
        parsed: ParsedRequest,
        answer_id: UUID,
        *,
        echo: Mapping[str, Any],
        response_id: str,
        created_at: datetime,
    ) -> None:
        raise NotImplementedError

    def whole(self, outcome: Outcome, model: str) -> dict[str, Any]:
        """A response."""
        raise NotImplementedError

    def first(self, model: str, prompt_tokens: int) -> bytes:
        """The start of a stream: it was created (queued, in the background) and is in progress."""
        raise NotImplementedError

    def delta(self, delta: PartDelta) -> bytes:
        """Some more of the answer."""
        raise NotImplementedError

    def last(self, outcome: Outcome) -> bytes:
        """The end of the open item, and of the response."""
        raise NotImplementedError

    def cut(self, outcome: Outcome, relayed: bytes) -> bytes:
        """The same for a relayed stream that was stopped: what is open ends, then the response."""
        raise NotImplementedError

    def error(self, body: dict[str, Any]) -> bytes:
        """A failure in the middle of a stream."""
        raise NotImplementedError


def after(events: Iterable[bytes], starting_after: int) -> Iterator[bytes]:
    """What comes after a sequence number, of a stream from its beginning; a delta is cut in its middle where needed."""
    raise NotImplementedError
