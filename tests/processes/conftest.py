"""Gateways in processes of their own; every one is ended by its finalizer."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from src.api.operator import open_operator
from src.shared.settings import Settings
from tests.support.gateway import ADMIN_KEY, GatewayProcess, gateway_environment, sqlite_url
from tests.support.upstream import Upstream

# Commands are the interpreter's, so that nothing has to be on the path.
PYTHON_BIN = str(Path(sys.executable).parent)


async def eventually(holds: Callable[[], Awaitable[bool]], timeout_s: float = 10.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database to copy: migrating takes a second each time."""
    directory = tmp_path_factory.mktemp("migrated")
    GatewayProcess(gateway_environment(sqlite_url(directory)), directory).command("migrate")
    return directory / "gateway.db"


class Operator:
    """Makes gateway processes in a directory and ends them."""

    def __init__(self, directory: Path, upstream: Upstream, migrated_file: Path) -> None:
        self.directory = directory
        self.upstream = upstream
        self._migrated_file = migrated_file
        self._made: list[GatewayProcess] = []

    def bare(self, **environment: Any) -> GatewayProcess:
        """With nothing set but what is given."""
        made = GatewayProcess(environment, self.directory)
        self._made.append(made)
        return made

    def configured(self, database_url: str | None = None, **more: Any) -> GatewayProcess:
        """With secrets, all providers at the scripted upstream, and a database (SQLite unless given)."""
        url = database_url or sqlite_url(self.directory)
        return self.bare(**gateway_environment(url, self.upstream, **more))

    def migrated(self) -> None:
        """Put a migrated SQLite database into the directory, as `llm-gateway migrate` would."""
        shutil.copy(self._migrated_file, self.directory / "gateway.db")

    async def started(self, gateway: GatewayProcess) -> GatewayProcess:
        """With a migrated SQLite database."""
        self.migrated()
        await gateway.start()
        return gateway

    async def end_all(self) -> None:
        for made in self._made:
            await made.stop()


@pytest.fixture
async def operator(tmp_path: Path, upstream: Upstream, migrated_file: Path) -> AsyncIterator[Operator]:
    made = Operator(tmp_path, upstream, migrated_file)
    yield made
    await made.end_all()


async def verified(database_url: str) -> bool:
    """Whether the books are right, as `ledger verify` would say."""
    settings = Settings(_env_file=None, **gateway_environment(database_url))
    async with open_operator(settings) as found:
        return not await found.auditor.discrepancies()


def client_of(gateway: GatewayProcess, key: str = ADMIN_KEY) -> httpx2.AsyncClient:
    """A client with a key, the administrator's by default."""
    headers = {"authorization": f"Bearer {key}"}
    return httpx2.AsyncClient(base_url=gateway.url, headers=headers, timeout=30, verify=False)


async def new_user(admin: httpx2.AsyncClient, name: str, credit: int) -> str:
    """The API key of a new user with credit."""
    tenant = (await admin.get("/api/v1/me")).json()["tenant"]["id"]
    body = {"tenant_id": tenant, "external_id": name, "role": "user"}
    user = (await admin.post("/api/v1/admin/users", json=body)).json()["id"]
    await admin.post(f"/api/v1/admin/users/{user}/tokens", json={"amount": credit})
    key = await admin.post("/api/v1/api-keys", json={"name": "test", "user_id": user})
    secret: str = key.json()["secret"]
    return secret


def shell_environment(**more: str) -> dict[str, str]:
    """What a person's shell has, with our interpreter first on the path."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PATH": f"{PYTHON_BIN}:{os.environ['PATH']}", **more}
