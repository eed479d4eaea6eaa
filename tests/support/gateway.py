"""A whole gateway served by a real uvicorn on loopback, in this event loop or in a process of its own."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from src.api import bootstrap
from src.api.main import OpenGateway, create_app
from src.shared.settings import Settings
from tests.support.upstream import Upstream

ADMIN_KEY = "sk-gw-test-administrator-0123456789abcdefghij"
ENCRYPTION_KEY = "e" * 64
JWT_SECRET = "j" * 64
PROVIDER_KEY = "sk-provider-secret-0123456789"


FORGETFUL = {"GATEWAY_RETRIES": 0, "GATEWAY_RETRY_SHARE": 1, "GATEWAY_BREAKER_FAILURES": 0}
"""One test's failures are not held against the next one's provider."""


def gateway_environment(database_url: str, upstream: Upstream | None = None, **more: Any) -> dict[str, Any]:
    """Settings as an operator would write them, with every provider at the scripted upstream."""
    providers: dict[str, Any] = {}
    if upstream is not None:
        providers = {
            "OPENAI_API_KEY": PROVIDER_KEY,
            "OPENAI_BASE_URL": upstream.openai_base_url,
            "ANTHROPIC_API_KEY": PROVIDER_KEY,
            "ANTHROPIC_BASE_URL": upstream.anthropic_base_url,
            "GOOGLE_API_KEY": PROVIDER_KEY,
            "GOOGLE_GEMINI_BASE_URL": upstream.google_base_url,
            "OPENROUTER_API_KEY": PROVIDER_KEY,
            "OPENROUTER_BASE_URL": upstream.openai_base_url,
        }
    return {
        "DATABASE_URL": database_url,
        "GATEWAY_BOOTSTRAP_KEY": ADMIN_KEY,
        "GATEWAY_ENCRYPTION_KEY": ENCRYPTION_KEY,
        "GATEWAY_JWT_SECRET": JWT_SECRET,
        "GATEWAY_LOG_LEVEL": "WARNING",
        **FORGETFUL,
        **providers,
        **more,
    }


def sqlite_url(directory: Path) -> str:
    """A database file of the test's own."""
    return f"sqlite+aiosqlite:///{directory}/gateway.db"


@dataclass(frozen=True, kw_only=True)
class RunningGateway:
    """A served gateway and a client with the administrator's key."""

    url: str
    http: httpx2.AsyncClient
    settings: Settings
    app: Any
    clients: list[httpx2.AsyncClient]

    def client(self, credential: str | None) -> httpx2.AsyncClient:
        """A client with another credential (or none), closed with the gateway."""
        headers = {"authorization": f"Bearer {credential}"} if credential else {}
        client = httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=30, verify=False)
        self.clients.append(client)
        return client

    async def new_user(self, external_id: str, **fields: Any) -> "Person":
        """A user of a tenant (by default the administrator's own) with an API key."""
        me = (await self.http.get("/api/v1/me")).json()
        body = {"tenant_id": me["tenant"]["id"], "external_id": external_id, "role": "user", **fields}
        user = await self.http.post("/api/v1/admin/users", json=body)
        assert user.status_code == 201, user.text
        key = await self.http.post("/api/v1/api-keys", json={"name": "test", "user_id": user.json()["id"]})
        assert key.status_code == 201, key.text
        return Person(id=user.json()["id"], secret=key.json()["secret"], http=self.client(key.json()["secret"]))


@dataclass(frozen=True, kw_only=True)
class Person:
    """A user with an API key and a client that uses it."""

    id: str
    secret: str
    http: httpx2.AsyncClient


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the test runner."""
        yield


@asynccontextmanager
async def running_gateway(
    environment: dict[str, Any], open_gateway: OpenGateway = bootstrap.open_gateway
) -> AsyncIterator[RunningGateway]:
    """Migrate, serve in this event loop, drain at the end."""
    settings = Settings(_env_file=None, **environment)
    await bootstrap.migrate(settings)
    app = create_app(settings, open_gateway)
    server = _Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="on"))
    # asyncio switches Nagle's algorithm off only where the socket names its protocol; with it, an answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            assert not serving.done(), "the gateway did not start"
            await asyncio.sleep(0.005)
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=30, verify=False) as http:
            clients = [http]
            yield RunningGateway(url=url, http=http, settings=settings, app=app, clients=clients)
            for client in clients:
                await client.aclose()
    finally:
        server.should_exit = True
        await serving


class GatewayProcess:
    """`llm-gateway serve` as its users run it."""

    def __init__(self, environment: dict[str, Any], directory: Path) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")},
            "PYTHONPATH": str(Path(__file__).parent.parent.parent),
            "GATEWAY_PORT": str(self.port),
            **{name: str(value) for name, value in environment.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run another command of the CLI with the same settings."""
        return subprocess.run(
            [sys.executable, "-m", "src.api", *arguments],
            env=self._environment,
            cwd=self._directory,
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
        )

    async def start(self, *module: str) -> None:
        """Start (`llm-gateway serve`, unless another module is named) and wait until it is ready."""
        output = (self._directory / "gateway.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", *(module or ("src.api", "serve"))],
            env=self._environment,
            cwd=self._directory,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        output.close()
        async with httpx2.AsyncClient(base_url=self.url, timeout=2, verify=False) as http:
            for _ in range(600):
                assert self._process.poll() is None, self.output()
                with contextlib.suppress(httpx2.TransportError):
                    if (await http.get("/health/ready")).status_code == 200:
                        return
                await asyncio.sleep(0.05)
        raise AssertionError(f"not ready: {self.output()}")

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def output(self) -> str:
        """What it printed and logged so far."""
        return (self._directory / "gateway.log").read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def wait(self, timeout_s: float = 30) -> int:
        """Its exit status."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, timeout_s)

    async def stop(self) -> None:
        """End it if it still runs."""
        if self.is_running:
            self.signal(signal.SIGTERM)
            try:
                await self.wait(20)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
                await self.wait(5)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
