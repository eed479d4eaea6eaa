"""A served gateway on each database."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.gateway import RunningGateway, gateway_environment, running_gateway, sqlite_url
from tests.support.upstream import Upstream


@pytest.fixture
async def gateway(tmp_path: Path, upstream: Upstream) -> AsyncIterator[RunningGateway]:
    """On SQLite, with all providers at the scripted upstream."""
    async with running_gateway(gateway_environment(sqlite_url(tmp_path), upstream)) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
async def any_gateway(
    request: pytest.FixtureRequest, tmp_path: Path, upstream: Upstream
) -> AsyncIterator[RunningGateway]:
    """On SQLite and on PostgreSQL."""
    async with AsyncExitStack() as stack:
        url = sqlite_url(tmp_path)
        if request.param == "postgres":
            url = await stack.enter_async_context(request.getfixturevalue("postgres_server").database())
        yield await stack.enter_async_context(running_gateway(gateway_environment(url, upstream)))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_upstream() -> AsyncIterator[Upstream]:
    """One scripted upstream for a module whose tests run in the module's event loop."""
    async with Upstream() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_gateway(
    tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream
) -> AsyncIterator[RunningGateway]:
    """One gateway on SQLite for a module whose tests do not disturb each other."""
    url = sqlite_url(tmp_path_factory.mktemp("gateway"))
    async with running_gateway(gateway_environment(url, shared_upstream)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["sqlite", "postgres"])
async def any_shared_gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream
) -> AsyncIterator[RunningGateway]:
    """One gateway for a module on SQLite, then one on PostgreSQL."""
    async with AsyncExitStack() as stack:
        url = sqlite_url(tmp_path_factory.mktemp("gateway"))
        if request.param == "postgres":
            url = await stack.enter_async_context(request.getfixturevalue("postgres_server").database())
        yield await stack.enter_async_context(running_gateway(gateway_environment(url, shared_upstream)))
