"""Gateways in processes of their own; every one is ended by its finalizer."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.gateway import ADMIN_KEY, GatewayProcess, gateway_environment, sqlite_url
from tests.support.upstream import Upstream

# Commands are the interpreter's, so that nothing has to be on the path.
PYTHON_BIN = str(Path(sys.executable).parent)


async def eventually(holds: Callable[[], Awaitable[bool]], timeout_s: float = 10.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.02)


class Operator:
    """Makes gateway processes in a directory and ends them."""

    def __init__(self, directory: Path, upstream: Upstream) -> None:
        self.directory = directory
        self.upstream = upstream
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

    async def started(self, gateway: GatewayProcess) -> GatewayProcess:
        """Migrate and start."""
        await asyncio.to_thread(gateway.command, "migrate")
        await gateway.start()
        return gateway

    async def end_all(self) -> None:
        for made in self._made:
            await made.stop()


@pytest.fixture
async def operator(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Operator]:
    made = Operator(tmp_path, upstream)
    yield made
    await made.end_all()


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
