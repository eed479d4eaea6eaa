"""Every revision goes up, down and up again, and says what the tables say."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from src.data import ledger_tables
from src.data.engine import make_engine, normalised_url, reading, writing
from src.data.schema import alembic_config, head_revision, is_migrated, migrate
from src.shared.errors import Misconfigured
from src.shared.ids import new_id


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'deep' / 'down' / 'gateway.db'}"
        return
    server: Any = request.getfixturevalue("postgres_server")
    name = asyncio.run(server.create_database())
    yield server.url(name)
    asyncio.run(server.drop_database(name))


async def tables_of(url: str) -> set[str]:
    engine = make_engine(url)
    async with reading(engine) as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await engine.dispose()
    return set(names)


async def execute(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """The rows of the last statement, if it has any."""
    engine = make_engine(url)
    async with writing(engine) as connection:
        for statement in statements:
            done = await connection.exec_driver_sql(statement)
        rows = [tuple(row) for row in done] if done.returns_rows else []
        await connection.commit()
    await engine.dispose()
    return rows


async def migrated(url: str) -> bool:
    engine = make_engine(url)
    answer = await is_migrated(engine)
    await engine.dispose()
    return answer


def test_every_revision_goes_up_down_and_up(url: str) -> None:
    config = alembic_config(url)
    for revision in reversed(list(ScriptDirectory.from_config(config).walk_revisions())):
        command.upgrade(config, revision.revision)
        command.downgrade(config, str(revision.down_revision or "base"))
        command.upgrade(config, revision.revision)
    assert asyncio.run(migrated(url))
    command.downgrade(config, "base")
    assert not asyncio.run(migrated(url))
    assert asyncio.run(tables_of(url)) == {"alembic_version"}


def test_the_migrations_say_what_the_tables_say(url: str) -> None:
    asyncio.run(migrate(url))
    command.check(alembic_config(url))
    names = set(ledger_tables.metadata.tables)
    assert asyncio.run(tables_of(url)) == {"alembic_version", *names}


def test_tenants_of_before_live_in_utc_and_models_of_before_reserve_their_maximum(url: str) -> None:
    config = alembic_config(url)
    command.upgrade(config, "0001")
    tenant = "INSERT INTO tenants (id, slug, name, created_at, disabled) VALUES ('{}', 'a', 'A', '2026-01-01', false)"
    model = (
        "INSERT INTO models (name, provider, upstream, context_window, max_output, capabilities, lifecycle, enabled, "
        "source) VALUES ('m', 'p', 'u', 10, 5, '{}', 'active', true, 'admin')"
    )
    asyncio.run(execute(url, tenant.format(new_id() if "postgresql" in url else new_id().hex), model))
    command.upgrade(config, "0002")
    assert asyncio.run(execute(url, "SELECT time_zone FROM tenants")) == [("UTC",)]
    assert asyncio.run(execute(url, "SELECT max_output, output_reserve FROM models")) == [(5, None)]
    command.downgrade(config, "0001")
    assert asyncio.run(execute(url, "SELECT tenants.slug, models.name FROM tenants, models")) == [("a", "m")]


def test_an_empty_database_is_not_migrated_until_it_is(url: str) -> None:
    assert not asyncio.run(migrated(url))
    asyncio.run(migrate(url))
    assert asyncio.run(migrated(url))
    asyncio.run(migrate(url))


def test_migrators_take_turns(url: str) -> None:
    root = Path(ledger_tables.__file__).parents[2]
    environment = {**os.environ, "DATABASE_URL": url}
    command_line = [sys.executable, "-m", "alembic", "upgrade", "head"]
    migrators = [subprocess.Popen(command_line, cwd=root, env=environment) for _ in range(3)]
    assert [migrator.wait(timeout=60) for migrator in migrators] == [0, 0, 0]
    assert asyncio.run(migrated(url))


def test_one_process_may_be_asked_twice_at_once(url: str) -> None:
    async def together() -> None:
        await asyncio.gather(migrate(url), migrate(url))

    asyncio.run(together())
    assert asyncio.run(migrated(url))


def test_there_is_one_newest_revision() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [head_revision()]


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg"),
        ("postgresql://u:p@h/d", "postgresql+asyncpg"),
        ("postgresql+asyncpg://u:p@h/d", "postgresql+asyncpg"),
        ("sqlite:///./data/gateway.db", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:////abs/gateway.db", "sqlite+aiosqlite"),
    ],
)
def test_urls_get_the_driver_we_use(given: str, driver: str) -> None:
    assert normalised_url(given).drivername == driver


@pytest.mark.parametrize("given", ["mysql://h/d", "sqlite://", "sqlite:///:memory:", "nonsense", ""])
def test_other_databases_are_refused_in_plain_words(given: str) -> None:
    with pytest.raises(Misconfigured, match="DATABASE_URL"):
        normalised_url(given)
