"""One engine per URL, and the transactions everything runs in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import orjson
from sqlalchemy import URL, Connection, Engine, event, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from src.data.driver import begin_sqlite
from src.data.types import dump_json
from src.shared.errors import Misconfigured

POOL_SIZE = 10
POOL_TIMEOUT_S = 5
CONNECT_TIMEOUT_S = 5
COMMAND_TIMEOUT_S = 30
BUSY_TIMEOUT_MS = 5_000

POSTGRES_SETTINGS = {
    "application_name": "llm-gateway",
    "statement_timeout": "20000",
    "lock_timeout": "5000",
    "idle_in_transaction_session_timeout": "30000",
    "timezone": "UTC",
    "jit": "off",
}

_DRIVERS = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}

_writers: WeakKeyDictionary[Engine, asyncio.Lock] = WeakKeyDictionary()


def normalised_url(url: str) -> URL:
    """The URL with the driver we use. Raises Misconfigured for databases we do not serve."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise Misconfigured("DATABASE_URL is no URL: write postgresql://user@host/name or sqlite:///file.") from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise Misconfigured(f"DATABASE_URL names {parsed.drivername!r}: use postgresql:// or sqlite:///.")
    if driver.startswith("sqlite") and parsed.database in (None, "", ":memory:"):
        raise Misconfigured("DATABASE_URL names SQLite without a file: a ledger in memory forgets. Use sqlite:///file.")
    return parsed.set(drivername=driver)


def make_engine(
    url: str | URL, *, pool_size: int = POOL_SIZE, patient: bool = False, for_migrations: bool = False
) -> AsyncEngine:
    """An engine for the URL; nothing is connected yet.

    With `patient`, statements take the time they need: no request waits for them. For migrations it has no pool, and
    SQLite's foreign keys are off: rebuilding a table must not cascade.
    """
    parsed = normalised_url(url if isinstance(url, str) else url.render_as_string(hide_password=False))
    pool: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": POOL_TIMEOUT_S}
    if for_migrations:
        pool = {"poolclass": NullPool}
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed, pool, for_migrations)
    return _postgres_engine(parsed, pool, patient, for_migrations)


def _sqlite_engine(url: URL, pool: dict[str, Any], for_migrations: bool) -> AsyncEngine:
    assert url.database is not None  # noqa: S101 - normalised_url saw to it
    Path(url.database).expanduser().absolute().parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url,
        connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_MS / 1000},
        json_serializer=dump_json,
        json_deserializer=orjson.loads,
        **pool,
    )

    def connected(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",  # an acknowledged commit survives the machine, not just the process
            f"foreign_keys = {'OFF' if for_migrations else 'ON'}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def began(connection: Connection) -> None:
        reading = connection.get_execution_options().get("gateway_read_only", False)
        begin_sqlite(connection, "BEGIN" if reading else "BEGIN IMMEDIATE")

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "begin", began)
    return engine


def _postgres_engine(url: URL, pool: dict[str, Any], patient: bool, for_migrations: bool) -> AsyncEngine:
    settings = dict(POSTGRES_SETTINGS)
    if patient:
        settings["statement_timeout"] = "0"
    if for_migrations:  # migrations set their own
        settings = {"application_name": "llm-gateway migrate", "timezone": "UTC"}
    engine = create_async_engine(
        url,
        connect_args={
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": None if patient or for_migrations else COMMAND_TIMEOUT_S,
            "server_settings": settings,
        },
        json_serializer=dump_json,
        json_deserializer=orjson.loads,
        **pool,
    )

    def checked_out(connection: Any, _record: Any, _proxy: Any) -> None:
        # The socket's end was seen already: this costs nothing, where a ping would cost a round trip every time.
        if connection.driver_connection.is_closed():
            raise DisconnectionError("the server closed this connection")

    event.listen(engine.sync_engine, "checkout", checked_out)
    return engine


def is_sqlite(engine: AsyncEngine) -> bool:
    return engine.dialect.name == "sqlite"


@asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection in a transaction that may write; committed by its user or undone.

    SQLite's writers wait in one line: its own busy wait polls, and would starve whoever meets a busy group commit.
    """
    if not is_sqlite(engine):
        async with engine.connect() as connection, _transaction(connection):
            yield connection
        return
    line = _writers.setdefault(engine.sync_engine, asyncio.Lock())
    async with line, engine.connect() as connection, _transaction(connection):
        yield connection


@asynccontextmanager
async def reading(engine: AsyncEngine, *, snapshot: bool = False) -> AsyncIterator[AsyncConnection]:
    """A connection in a transaction that only reads, with `snapshot` all from one moment (SQLite always does)."""
    options: dict[str, Any] = {"gateway_read_only": True}
    if not is_sqlite(engine):
        options["postgresql_readonly"] = True
        if snapshot:
            options["isolation_level"] = "REPEATABLE READ"
    async with engine.connect() as connection:
        await connection.execution_options(**options)
        async with _transaction(connection):
            yield connection


@asynccontextmanager
async def _transaction(connection: AsyncConnection) -> AsyncIterator[None]:
    """Begun now; undone at the end unless it was committed."""
    transaction = await connection.begin()
    try:
        yield
    finally:
        if transaction.is_active:
            await transaction.rollback()
