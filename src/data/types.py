"""Column types that mean the same on SQLite and PostgreSQL, and what text and JSON must look like to be stored."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import JSON, DateTime, Dialect, String, TypeDecorator, Uuid
from sqlalchemy.dialects.postgresql import JSONB

E = TypeVar("E", bound=StrEnum)

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def storable(text: str) -> str:
    """The text without what cannot be kept (NUL, lone surrogates): an odd answer must not lose its settlement."""
    if "\x00" in text:
        text = text.replace("\x00", REPLACEMENT)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def dump_json(value: Any) -> str:
    """JSON text that both databases take."""
    try:
        text = orjson.dumps(value, default=_plain).decode()
    except TypeError:
        text = storable(json.dumps(value, ensure_ascii=False, default=_plain))
    return _ESCAPED_NUL.sub(rf"\1{REPLACEMENT}", text) if "\\u0000" in text else text


def _plain(value: Any) -> Any:
    """Mappings and sequences of whatever kind, as JSON knows them."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


JsonValue = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""JSON, JSONB on PostgreSQL; None is NULL."""


class Id(TypeDecorator[UUID]):
    """A UUID: PostgreSQL's own, text on SQLite; always Python's own class, which JSON encoders and sorting know."""

    impl = Uuid
    cache_ok = True

    def process_result_value(self, value: UUID | None, dialect: Dialect) -> UUID | None:
        return value if value is None or type(value) is UUID else UUID(int=value.int)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with a time zone. SQLite keeps UTC without saying so, with microseconds."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone cannot be stored")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def moment_from(value: datetime | str) -> datetime:
    """A moment as a driver returns it, past SQLAlchemy's types: text on SQLite."""
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


class EnumText(TypeDecorator[E], Generic[E]):
    """A StrEnum kept as its value: a new member needs no migration."""

    impl = String
    cache_ok = True

    def __init__(self, enum: type[E]) -> None:
        super().__init__(length=32)
        self._enum = enum

    def process_bind_param(self, value: E | None, dialect: Dialect) -> str | None:
        return None if value is None else value.value

    def process_result_value(self, value: str | None, dialect: Dialect) -> E | None:
        return None if value is None else self._enum(value)
