"""Bringing a database to the newest revision, and asking whether it is there."""

import asyncio
import threading
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

import src
from src.data.engine import reading

_SCRIPTS = Path(str(src.__file__)).parent.parent / "migrations"
_one_at_a_time = threading.Lock()  # Alembic keeps its context in module globals


def alembic_config(url: str | None = None) -> Config:
    """Alembic's configuration for the database of that URL (else of DATABASE_URL)."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["url"] = url
    return config


@cache
def head_revision() -> str:
    """The newest revision this program knows."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None  # noqa: S101 - there is a first revision
    return head


async def migrate(engine_or_url: AsyncEngine | str) -> None:
    """Upgrade to the newest revision. It connects on its own: migrations need other settings than the service."""
    if isinstance(engine_or_url, AsyncEngine):
        url = engine_or_url.url.render_as_string(hide_password=False)
    else:
        url = engine_or_url
    await asyncio.to_thread(_upgrade, url)


async def is_migrated(engine: AsyncEngine) -> bool:
    """Whether the database is at the newest revision."""
    async with reading(engine) as connection:
        return await connection.run_sync(_revision) == head_revision()


def _upgrade(url: str) -> None:
    with _one_at_a_time:
        command.upgrade(alembic_config(url), "head")


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
