"""A served gateway with all providers at one scripted upstream, and stock clients of it."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from google.genai import Client as GoogleClient
from google.genai.client import AsyncClient as AsyncGoogleClient
from google.genai.types import HttpOptions
from openai import AsyncOpenAI

from tests.support.gateway import ADMIN_KEY, Person, RunningGateway, gateway_environment, running_gateway, sqlite_url
from tests.support.upstream import Upstream

OPENROUTER_MODEL = "meta-llama/llama-4"

_numbers = itertools.count(1)


async def eventually(holds: Callable[[], Awaitable[bool]], timeout_s: float = 5.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.01)


@dataclass(kw_only=True)
class Scene:
    """What one test has to do with: a gateway, its upstream, people, and their stock clients.

    `sent` holds every request that the clients made, retries included.
    """

    gateway: RunningGateway
    upstream: Upstream
    sent: list[httpx2.Request] = field(default_factory=list)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def person(self, credit: int | None = None, **key_fields: Any) -> Person:
        """A new user, with credit where the test is about spending, and a key of its own kind."""
        made = await self.gateway.new_user(f"person-{next(_numbers)}")
        if credit is not None:
            topped_up = await self.gateway.http.post(f"/api/v1/admin/users/{made.id}/tokens", json={"amount": credit})
            assert topped_up.status_code == 200, topped_up.text
        if not key_fields:
            return made
        key = await self.gateway.http.post(
            "/api/v1/api-keys", json={"name": "special", "user_id": made.id, **key_fields}
        )
        assert key.status_code == 201, key.text
        secret = key.json()["secret"]
        return Person(id=made.id, secret=secret, http=self.gateway.client(secret))

    async def openai(self, person: Person | None = None, **options: Any) -> AsyncOpenAI:
        """The stock OpenAI client of a person (by default of the administrator, whom no quota limits)."""
        given = {"base_url": f"{self.gateway.url}/v1", "http_client": self._http(), **options}
        given.setdefault("api_key", person.secret if person else ADMIN_KEY)
        return await self.stack.enter_async_context(AsyncOpenAI(**given))

    async def anthropic(self, person: Person | None = None, **options: Any) -> AsyncAnthropic:
        """The stock Anthropic client of a person (by default of the administrator, whom no quota limits)."""
        given = {"base_url": self.gateway.url, "http_client": self._http(), **options}
        given.setdefault("api_key", person.secret if person else ADMIN_KEY)
        return await self.stack.enter_async_context(AsyncAnthropic(**given))

    async def google(self, person: Person | None = None, headers: dict[str, str] | None = None) -> AsyncGoogleClient:
        """The stock Google client of a person (by default of the administrator, whom no quota limits)."""
        http = await self.stack.enter_async_context(self._http())  # which the SDK leaves open
        options = HttpOptions(base_url=self.gateway.url, httpx_async_client=http, headers=headers)
        return GoogleClient(api_key=person.secret if person else ADMIN_KEY, http_options=options).aio

    def google_sync(self, person: Person | None = None) -> GoogleClient:
        """The same client without asyncio."""
        made = GoogleClient(
            api_key=person.secret if person else ADMIN_KEY, http_options=HttpOptions(base_url=self.gateway.url)
        )
        self.stack.callback(made.close)
        return made

    async def standing(self, person: Person) -> tuple[int, int]:
        """Balance and held tokens."""
        found = (await person.http.get("/api/v1/users/me/tokens")).json()
        return found["balance"], found["held"]

    async def settled(self, person: Person, credit: int) -> int:
        """What was spent of the credit, once nothing is held and something is charged."""
        found = (credit, 0)

        async def is_charged() -> bool:
            nonlocal found
            found = await self.standing(person)
            return found[0] < credit and found[1] == 0

        await eventually(is_charged)
        return credit - found[0]

    async def refusals(self) -> int:
        """How many calls the gateway has refused so far because a quota could not pay, retries of clients included."""
        metrics = (await self.gateway.http.get("/metrics")).text
        found = re.search(r'^gateway_holds_total\{result="refused"\} (\S+)$', metrics, re.MULTILINE)
        return int(float(found[1])) if found else 0

    def _http(self) -> httpx2.AsyncClient:
        async def note(request: httpx2.Request) -> None:
            self.sent.append(request)

        return httpx2.AsyncClient(event_hooks={"request": [note]}, timeout=30, verify=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[RunningGateway, Upstream]]:
    """One gateway for the tests of a module: each test brings its own people and scripts."""
    directory: Path = tmp_path_factory.mktemp("gateway")
    async with Upstream() as upstream, running_gateway(gateway_environment(sqlite_url(directory), upstream)) as gateway:
        made = await gateway.http.post(
            "/api/v1/admin/models",
            json={
                "name": OPENROUTER_MODEL,
                "provider": "openrouter",
                "context_window": 100_000,
                "max_output": 4_000,
                "price": {"input": 1, "output": 2},
            },
        )
        assert made.status_code in (200, 201), made.text
        yield gateway, upstream


@pytest_asyncio.fixture(loop_scope="module")
async def scene(served: tuple[RunningGateway, Upstream]) -> AsyncIterator[Scene]:
    """The module's gateway, with nothing scripted."""
    gateway, upstream = served
    upstream.reset()
    made = Scene(gateway=gateway, upstream=upstream)
    async with made.stack:
        yield made
