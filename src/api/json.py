"""JSON outwards: times are ISO 8601 in UTC, ids are strings."""

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from src.shared.clock import iso


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def dumps(content: Any) -> bytes:
    """The bytes of a JSON value."""
    return orjson.dumps(content, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)
