"""The calendar periods of quotas, in the time zone of the tenant."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from src.domain.ledger.model import Window
from src.shared.time_zones import zone_of


@dataclass(frozen=True, slots=True)
class _Period:
    """A local day or month, from one UTC instant to the next."""

    name: str
    starts_at: datetime
    ends_at: datetime


_last: dict[tuple[str, Window], _Period] = {}
"""The period each zone was last asked for, which is nearly always the present one. No longer than the list of zones."""


def period_of(window: Window, at: datetime, time_zone: str) -> str:
    """The name of the local period that the moment is in: `2026-11-21`, `2026-11`, or "" without a window.

    Raises InvalidRequest for an unknown zone.
    """
    return "" if window is Window.NONE else _period(window, at, time_zone).name


def resets_at(window: Window, at: datetime, time_zone: str) -> datetime | None:
    """The first instant (UTC) of the next local period; None without a window. Raises InvalidRequest (zone)."""
    return None if window is Window.NONE else _period(window, at, time_zone).ends_at


def _period(window: Window, at: datetime, time_zone: str) -> _Period:
    last = _last.get((time_zone, window))
    if last is None or not last.starts_at <= at < last.ends_at:
        last = _last[time_zone, window] = _computed(window, at, zone_of(time_zone))
    return last


def _computed(window: Window, at: datetime, zone: ZoneInfo) -> _Period:
    today = at.astimezone(zone).date()
    if window is Window.DAY:
        return _Period(today.isoformat(), _begin_of(today, zone), _begin_of(today + timedelta(days=1), zone))
    first = today.replace(day=1)
    next_first = (first + timedelta(days=31)).replace(day=1)
    return _Period(first.isoformat()[:7], _begin_of(first, zone), _begin_of(next_first, zone))


def _begin_of(day: date, zone: ZoneInfo) -> datetime:
    """The instant (UTC) at which `day` begins there: its first midnight, if it has two.

    Where clocks jump at midnight, or over the whole day, the missing midnight is read by the clock that was in force
    before: that is the instant of the jump.
    """
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
