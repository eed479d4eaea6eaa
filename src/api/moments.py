"""Moments as clients and operators write them: ISO 8601 text (in YAML also times of its own), never numbers."""

from datetime import UTC, date, datetime, time
from typing import Annotated, Any

from pydantic import BeforeValidator


def _parsed(value: Any) -> Any:
    """A datetime, naive where the text names no zone. Raises ValueError."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    raise ValueError("must be a time in ISO 8601, as 2030-01-31T00:00:00Z")


def _in_utc(moment: datetime) -> datetime:
    """Raises ValueError at the ends of the calendar, where the same moment in UTC does not exist."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside of the years 1 to 9999") from None


def _aware(value: Any) -> Any:
    if value is None:
        return None
    moment = _parsed(value)
    if moment.tzinfo is None:
        raise ValueError("needs a time zone, as 2030-01-31T00:00:00Z")
    return _in_utc(moment)


def _day_or_moment(value: Any) -> Any:
    if value is None:
        return None
    moment = _parsed(value)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else _in_utc(moment)


Moment = Annotated[datetime, BeforeValidator(_aware)]
"""A moment that says its time zone; kept in UTC."""

DayOrMoment = Annotated[datetime, BeforeValidator(_day_or_moment)]
"""A moment, or a day, which begins at midnight UTC."""
