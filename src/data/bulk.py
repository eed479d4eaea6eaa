"""Many rows in one statement, past the ORM's and the compiler's cost per row.

PostgreSQL gets one array per column (`unnest`), and the rows of several tables in one statement: one round trip for
all. SQLite gets the driver's `executemany`. Values are converted by the columns' own types, so a row written here reads
the same anywhere.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import count
from typing import Any
from uuid import UUID, SafeUUID

import orjson
from sqlalchemy import Dialect, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from src.data.driver import execute_many, fetch, is_postgres

Row = Sequence[Any]
_Converter = Callable[[Any], Any] | None

_new, _set = UUID.__new__, object.__setattr__


@dataclass(frozen=True, slots=True)
class Insert:
    """New rows of a table, in the order given. `on_conflict` is the clause after ON CONFLICT."""

    table: Table
    names: tuple[str, ...]
    on_conflict: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """What a row holds."""
        return self.names


@dataclass(frozen=True, slots=True)
class Update:
    """Set `names` in the rows found by `keys`, each once, where `where` holds. A row: the values, then the keys."""

    table: Table
    keys: tuple[str, ...]
    names: tuple[str, ...]
    where: str = "true"

    @property
    def columns(self) -> tuple[str, ...]:
        """What a row holds."""
        return (*self.names, *self.keys)


Kind = Insert | Update
Part = tuple[Kind, Sequence[Row]]


@dataclass(frozen=True, slots=True)
class _Plan:
    """A statement, and how the values of each of its parts are prepared, column by column."""

    sql: str
    converters: tuple[tuple[_Converter, ...], ...]

    def arrays(self, parts: Iterable[Sequence[Row]]) -> list[Sequence[Any]]:
        """The columns of all parts."""
        return [
            values if convert is None else [convert(value) for value in values]
            for rows, converters in zip(parts, self.converters, strict=True)
            for values, convert in zip(zip(*rows, strict=True), converters, strict=True)
        ]


async def write(connection: AsyncConnection, parts: Iterable[Part]) -> None:
    """Write the parts in their order; one without rows is nothing.

    Parts of one statement do not see each other's rows: a table's second part begins a new statement.
    """
    if is_postgres(connection):
        for together in _in_statements(parts):
            plan = _plan_together(connection.dialect, tuple(kind for kind, _ in together))
            await fetch(connection, plan.sql, plan.arrays(rows for _, rows in together))
        return
    for kind, rows in parts:
        if rows:
            plan = _plan_one_by_one(connection.dialect, kind)
            await execute_many(connection, plan.sql, list(zip(*plan.arrays([rows]), strict=True)))


async def insert_rows(
    connection: AsyncConnection, table: Table, names: tuple[str, ...], rows: Sequence[Row], *, on_conflict: str = ""
) -> None:
    """Insert the rows in their order. `on_conflict` is the clause after ON CONFLICT."""
    await write(connection, [(Insert(table, names, on_conflict), rows)])


def id_list(dialect: Dialect, ids: Iterable[UUID]) -> Any:
    """Ids as the one parameter that `ids_sql` unpacks."""
    if dialect.name == "postgresql":
        return list(ids)
    return orjson.dumps([each.hex for each in ids]).decode()


@cache
def ids_sql(dialect_name: str, place: int = 1) -> str:
    """A subquery of the ids in a parameter."""
    return f"SELECT unnest(${place}::uuid[])" if dialect_name == "postgresql" else "SELECT value FROM json_each(?)"


def as_uuid(value: Any) -> UUID:
    """An id as a driver returns it."""
    if isinstance(value, str):
        return UUID(value)
    made = _new(UUID)  # past its constructor's checks, which are slow: it comes from a UUID
    _set(made, "int", value.int)
    _set(made, "is_safe", SafeUUID.unknown)
    return made


def quoted(dialect: Dialect, names: Iterable[str]) -> list[str]:
    """Column names, quoted where the dialect needs it."""
    return [dialect.identifier_preparer.quote(name) for name in names]


def _in_statements(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """The parts that have rows, in runs in which no table comes twice."""
    together: list[Part] = []
    for kind, rows in parts:
        if not rows:
            continue
        if any(kind.table is earlier.table for earlier, _ in together):
            yield together
            together = []
        together.append((kind, rows))
    if together:
        yield together


@lru_cache
def _plan_together(dialect: Dialect, kinds: tuple[Kind, ...]) -> _Plan:
    """PostgreSQL: all but the last are common table expressions, which run whether anything reads them or not."""
    places = count(1)
    texts = [_array_sql(dialect, kind, places) for kind in kinds]
    first = ", ".join(f"part_{number} AS ({text})" for number, text in enumerate(texts[:-1]))
    sql = f"WITH {first} {texts[-1]}" if first else texts[-1]
    return _Plan(sql, tuple(_converters(dialect, kind) for kind in kinds))


@lru_cache
def _plan_one_by_one(dialect: Dialect, kind: Kind) -> _Plan:
    return _Plan(_row_sql(dialect, kind), (_converters(dialect, kind),))


def _converters(dialect: Dialect, kind: Kind) -> tuple[_Converter, ...]:
    return tuple(kind.table.c[name].type.dialect_impl(dialect).bind_processor(dialect) for name in kind.columns)


def _array_sql(dialect: Dialect, kind: Kind, places: Iterator[int]) -> str:
    """The statement that takes an array for each column."""
    table = kind.table.name
    types = [kind.table.c[name].type.compile(dialect=dialect) for name in kind.columns]
    given = f"unnest({', '.join(f'${next(places)}::{each}[]' for each in types)})"
    columns = ", ".join(quoted(dialect, kind.columns))
    if isinstance(kind, Insert):
        return f"INSERT INTO {table} ({columns}) SELECT * FROM {given}{_tail(kind)}"  # noqa: S608
    settings = ", ".join(f"{name} = given.{name}" for name in quoted(dialect, kind.names))
    found = " AND ".join(f"{table}.{name} = given.{name}" for name in quoted(dialect, kind.keys))
    where = f"{found} AND {kind.where}"
    return f"UPDATE {table} SET {settings} FROM {given} AS given ({columns}) WHERE {where}"  # noqa: S608


def _row_sql(dialect: Dialect, kind: Kind) -> str:
    """The statement that takes one row."""
    table = kind.table.name
    if isinstance(kind, Insert):
        columns = ", ".join(quoted(dialect, kind.columns))
        places = ", ".join("?" for _ in kind.columns)
        return f"INSERT INTO {table} ({columns}) VALUES ({places}){_tail(kind)}"  # noqa: S608
    settings = ", ".join(f"{name} = ?" for name in quoted(dialect, kind.names))
    found = " AND ".join(f"{name} = ?" for name in quoted(dialect, kind.keys))
    return f"UPDATE {table} SET {settings} WHERE {found} AND {kind.where}"  # noqa: S608


def _tail(kind: Insert) -> str:
    return f" ON CONFLICT {kind.on_conflict}" if kind.on_conflict else ""
