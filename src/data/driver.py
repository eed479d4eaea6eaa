"""The database drivers themselves, inside SQLAlchemy's transactions: past its cost per statement, which is most of a
short one's.

Errors come as SQLAlchemy's, so that `integrity` reads them as any other.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

# The statements of the ledger find their rows by index, whatever the planner believes: a plan that is kept from the
# day the tables were empty would read them whole ever after, and planning anew each time costs more than running.
_STEADY_PLANS = "SELECT " + ", ".join(
    f"set_config('{name}', '{value}', true)"
    for name, value in (
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("enable_material", "off"),
        ("random_page_cost", "0.1"),
        ("cpu_tuple_cost", "1"),
        ("cpu_index_tuple_cost", "1"),
    )
)


def is_postgres(connection: AsyncConnection) -> bool:
    return connection.dialect.name == "postgresql"


async def steady_plans(connection: AsyncConnection) -> None:
    """Until the transaction ends, PostgreSQL plans each statement once, by its indexes."""
    if is_postgres(connection):
        await connection.exec_driver_sql(_STEADY_PLANS)


async def begin_steadily(connection: AsyncConnection) -> None:
    """Begin a transaction with steady plans, past SQLAlchemy: the connection's isolation level must be AUTOCOMMIT."""
    await execute(connection, f"BEGIN; {_STEADY_PLANS}")


async def is_closed(connection: AsyncConnection) -> bool:
    """Whether the driver has seen the connection's end."""
    return bool((await _raw(connection)).is_closed())


async def execute(connection: AsyncConnection, sql: str) -> None:
    """A PostgreSQL statement without parameters or rows."""
    driver = await _raw(connection)
    with _errors_translated(sql):
        await driver.execute(sql)


async def fetch(connection: AsyncConnection, sql: str, parameters: Sequence[Any]) -> Sequence[Any]:
    """The rows a statement returns."""
    driver = await _driver(connection)
    with _errors_translated(sql):
        if is_postgres(connection):
            return await driver.fetch(sql, *parameters)  # type: ignore[no-any-return]
        return await driver.execute_fetchall(sql, parameters)  # type: ignore[no-any-return]


async def execute_many(connection: AsyncConnection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """The statement once for each row, in their order."""
    driver = await _driver(connection)
    with _errors_translated(sql):
        await driver.executemany(sql, rows)


def begin_sqlite(connection: Connection, statement: str) -> None:
    """Begin a transaction with that statement."""
    with _errors_translated(statement):
        adapted: Any = connection.connection.dbapi_connection
        adapted.run_async(lambda driver: driver.execute(statement))


async def _driver(connection: AsyncConnection) -> Any:
    """The driver's connection, in a transaction: SQLAlchemy begins PostgreSQL's at its own first statement only."""
    driver = await _raw(connection)
    if is_postgres(connection) and not driver.is_in_transaction():
        await steady_plans(connection)
    return driver


async def _raw(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


@contextmanager
def _errors_translated(sql: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DBAPIError.instance(sql, None, error, sqlite3.Error) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise _of_postgres(sql, error) from error


def _of_postgres(sql: str, error: Exception) -> DBAPIError:
    state = getattr(error, "sqlstate", None) or ""
    kind = {"23": IntegrityError, "22": DataError}.get(state[:2], DBAPIError)
    return kind(sql, None, error)
