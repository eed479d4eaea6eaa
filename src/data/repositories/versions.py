"""Versions that rise with every change, so that replicas need to ask for nothing else."""

from typing import Any

from sqlalchemy import Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from src.data.tables import catalog_version

CATALOG = 1
RATE_LIMITS = 2


async def version_of(connection: AsyncConnection, what: int) -> int:
    """The present version."""
    statement = select(catalog_version.c.version).where(catalog_version.c.id == what)
    return (await connection.execute(statement)).scalar() or 0


async def raise_version(connection: AsyncConnection, what: int) -> None:
    """Raise it; from then on others who change the same wait for this transaction."""
    first = upsert(connection, catalog_version).values(id=what, version=1)
    await connection.execute(
        first.on_conflict_do_update(
            index_elements=[catalog_version.c.id], set_={"version": catalog_version.c.version + 1}
        )
    )


def upsert(connection: AsyncConnection, table: Table) -> Any:
    """An insert that knows ON CONFLICT."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
