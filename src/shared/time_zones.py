"""Time zones by the names IANA gives them."""

from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from src.shared.errors import InvalidRequest


@cache
def zone_of(name: str) -> ZoneInfo:
    """The zone of that name, as in `Europe/Berlin`. Raises InvalidRequest for anything else, paths included."""
    if name not in _names():
        raise InvalidRequest("time_zone must be the name of an IANA time zone, like Europe/Berlin.", param="time_zone")
    return ZoneInfo(name)


@cache
def _names() -> frozenset[str]:
    """The names of the packaged zones: the same on every machine, whatever its system has in its directories."""
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="ascii").split())
