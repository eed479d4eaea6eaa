"""Keyset pages: never an offset, so the thousandth page costs what the first does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

T = TypeVar("T")

MAX_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which part of a list: up to `limit` rows after (or before) the row with that id, in the list's own order."""

    limit: int = 20
    after: UUID | None = None
    before: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Some rows of a list and whether there are more in the direction asked for."""

    rows: Sequence[T]
    has_more: bool
