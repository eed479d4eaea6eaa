"""Many rows in one statement, past the ORM's and the compiler's cost per row.

PostgreSQL gets one array per column (`unnest`), SQLite the driver's `executemany`. Values are converted by the columns'
own types, so a row written here reads the same anywhere.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Column, Dialect, Table
from sqlalchemy.ext.asyncio import AsyncConnection

Row = Sequence[Any]
_Converter = Callable[[Any], Any] | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """A statement and how each of its values is prepared."""

    sql: str
    converters: tuple[_Converter, ...]

    def as_rows(self, rows: Iterable[Row]) -> list[tuple[Any, ...]]:
        """Row by row, for `executemany`."""
        return list(zip(*self.as_columns(rows), strict=True))

    def as_columns(self, rows: Iterable[Row]) -> tuple[list[Any], ...]:
        """Column by column, for `unnest`."""
        columns = zip(*rows, strict=True)
        return tuple(
            list(values) if convert is None else [convert(value) for value in values]
            for values, convert in zip(columns, self.converters, strict=True)
        )


_plans: dict[tuple[Any, ...], _Plan] = {}


def _plan(key: tuple[Any, ...], make: Callable[[], _Plan]) -> _Plan:
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = make()
    return plan


async def insert_rows(
    connection: AsyncConnection, table: Table, names: tuple[str, ...], rows: Sequence[Row], *, on_conflict: str = ""
) -> None:
    """Insert the rows in their order. `on_conflict` is the clause after ON CONFLICT."""
    if not rows:
        return
    dialect = connection.dialect
    plan = _plan(
        (dialect.name, "insert", table, names, on_conflict),
        lambda: _Plan(_insert_sql(dialect, table, names, on_conflict), _converters(dialect, table, names)),
    )
    if dialect.name == "postgresql":
        await connection.exec_driver_sql(plan.sql, plan.as_columns(rows))
    else:
        await connection.exec_driver_sql(plan.sql, plan.as_rows(rows))


async def update_rows(
    connection: AsyncConnection,
    table: Table,
    keys: tuple[str, ...],
    names: tuple[str, ...],
    rows: Sequence[Row],
    *,
    where: str = "true",
) -> None:
    """Set `names` in the rows found by `keys`, one after the other in the order given. A row: keys, then values."""
    if not rows:
        return
    dialect = connection.dialect
    plan = _plan(
        (dialect.name, "update", table, keys, names, where),
        lambda: _Plan(_update_sql(dialect, table, keys, names, where), _converters(dialect, table, (*names, *keys))),
    )
    turned = [(*row[len(keys) :], *row[: len(keys)]) for row in rows]
    await connection.exec_driver_sql(plan.sql, plan.as_rows(turned))


async def update_locked_rows(
    connection: AsyncConnection, table: Table, names: tuple[str, ...], rows: Sequence[Row]
) -> None:
    """Set `names` by `id` in rows this transaction has locked, so that their order is free. A row: id, then values."""
    if connection.dialect.name != "postgresql":
        await update_rows(connection, table, ("id",), names, rows)
        return
    if not rows:
        return
    dialect = connection.dialect
    columns = ("id", *names)
    plan = _plan(
        (dialect.name, "update locked", table, names),
        lambda: _Plan(_update_from_sql(dialect, table, names), _converters(dialect, table, columns)),
    )
    await connection.exec_driver_sql(plan.sql, plan.as_columns(rows))


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
    return UUID(value) if isinstance(value, str) else UUID(int=value.int)


def quoted(dialect: Dialect, names: Iterable[str]) -> list[str]:
    """Column names, quoted where the dialect needs it."""
    return [dialect.identifier_preparer.quote(name) for name in names]


def _converters(dialect: Dialect, table: Table, names: Iterable[str]) -> tuple[_Converter, ...]:
    return tuple(table.c[name].type.dialect_impl(dialect).bind_processor(dialect) for name in names)


def _array(dialect: Dialect, column: Column[Any], place: int) -> str:
    return f"${place}::{column.type.compile(dialect=dialect)}[]"


def _unnested(dialect: Dialect, table: Table, names: Sequence[str]) -> str:
    return f"unnest({', '.join(_array(dialect, table.c[name], place) for place, name in enumerate(names, 1))})"


def _insert_sql(dialect: Dialect, table: Table, names: tuple[str, ...], on_conflict: str) -> str:
    columns = ", ".join(quoted(dialect, names))
    tail = f" ON CONFLICT {on_conflict}" if on_conflict else ""
    if dialect.name == "postgresql":
        return f"INSERT INTO {table.name} ({columns}) SELECT * FROM {_unnested(dialect, table, names)}{tail}"  # noqa: S608
    places = ", ".join("?" for _ in names)
    return f"INSERT INTO {table.name} ({columns}) VALUES ({places}){tail}"  # noqa: S608


def _update_sql(dialect: Dialect, table: Table, keys: tuple[str, ...], names: tuple[str, ...], where: str) -> str:
    is_postgres = dialect.name == "postgresql"
    places = [f"${place}" if is_postgres else "?" for place in range(1, len(names) + len(keys) + 1)]
    settings = ", ".join(f"{name} = {place}" for name, place in zip(quoted(dialect, names), places, strict=False))
    found = [f"{name} = {place}" for name, place in zip(quoted(dialect, keys), places[len(names) :], strict=True)]
    return f"UPDATE {table.name} SET {settings} WHERE {' AND '.join([*found, where])}"  # noqa: S608


def _update_from_sql(dialect: Dialect, table: Table, names: tuple[str, ...]) -> str:
    columns = quoted(dialect, names)
    settings = ", ".join(f"{name} = given.{name}" for name in columns)
    rows = f"{_unnested(dialect, table, ('id', *names))} AS given (id, {', '.join(columns)})"
    return f"UPDATE {table.name} SET {settings} FROM {rows} WHERE {table.name}.id = given.id"  # noqa: S608
