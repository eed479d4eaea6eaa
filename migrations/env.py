"""How Alembic reaches the database: one transaction, one migrator at a time, and never a long wait for a lock."""

import asyncio
import os
from typing import Any

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.types import TypeEngine

from src.data.engine import make_engine
from src.data.ledger_tables import accounts

DEFAULT_URL = "sqlite:///data/gateway.db"
ADVISORY_LOCK = 0x6C6C6D6777  # "llmgw"


def database_url() -> str:
    """What the program that runs us says, else DATABASE_URL, else the database of a run without settings."""
    given = context.config.attributes.get("url")
    return str(given or os.environ.get("DATABASE_URL") or DEFAULT_URL)


def differs(
    _context: Any, _inspected_column: Any, _column: Any, inspected: TypeEngine[Any], meant: TypeEngine[Any]
) -> bool | None:
    """SQLite keeps JSON and UUIDs under names of its own; elsewhere Alembic decides."""
    if context.get_context().dialect.name != "sqlite":
        return None
    dialect = context.get_context().dialect
    return inspected.compile(dialect) != meant.compile(dialect)


def configure(connection: Connection | None, **options: Any) -> None:
    context.configure(
        connection=connection,
        target_metadata=accounts.metadata,
        render_as_batch=True,
        compare_type=differs,
        transactional_ddl=True,
        **options,
    )


def take_turns(connection: Connection) -> None:
    """Wait for another migrator, then never long for anything: a queue behind a waiting ALTER stops the service."""
    if connection.dialect.name != "postgresql":
        return
    connection.execute(text("SET LOCAL lock_timeout = '60s'"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": ADVISORY_LOCK})
    connection.execute(text("SET LOCAL lock_timeout = '4s'"))
    connection.execute(text("SET LOCAL statement_timeout = '60s'"))


def migrate(connection: Connection) -> None:
    with connection.begin():
        take_turns(connection)
        configure(connection)
        with context.begin_transaction():
            context.run_migrations()
        if connection.dialect.name == "sqlite" and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise RuntimeError("the migration would break foreign keys; nothing was changed")


async def migrate_online() -> None:
    engine = make_engine(database_url(), for_migrations=True)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    configure(None, url=database_url().replace("+asyncpg", "").replace("+aiosqlite", ""), literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(migrate_online())
