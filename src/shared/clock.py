"""Time as a thing that is handed in, so that tests own it."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The present, with a time zone."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with microseconds and a Z, the one form the API answers with."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
