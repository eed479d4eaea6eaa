"""Fixtures over the real servers. A server starts when the first test asks for it, once per pytest process.

What a fixture needs is imported when it is used: tests of pure rules start without any of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from tests.support.jwks import JwksServer
    from tests.support.postgres import PostgresServer
    from tests.support.redis_server import RedisServer
    from tests.support.upstream import Upstream


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    from tests.support.postgres import PostgresServer

    server = PostgresServer.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    from tests.support.redis_server import RedisServer

    server = RedisServer.start()
    yield server
    server.stop()


@pytest.fixture
def disposable_redis() -> Iterator[RedisServer]:
    """A Valkey of this test alone, to kill, freeze and restart."""
    from tests.support.redis_server import RedisServer

    server = RedisServer.start_own()
    yield server
    server.stop()


@pytest_asyncio.fixture
async def postgres_url(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """An empty database of this test alone."""
    async with postgres_server.database() as url:
        yield url


@pytest_asyncio.fixture
async def redis_url(redis_server: RedisServer) -> str:
    """The shared Valkey, emptied."""
    import redis.asyncio

    async with redis.asyncio.from_url(redis_server.url) as client:
        await client.flushdb()
    return redis_server.url


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Upstream]:
    from tests.support.upstream import Upstream

    async with Upstream() as server:
        yield server


@pytest_asyncio.fixture
async def jwks() -> AsyncIterator[JwksServer]:
    from tests.support.jwks import JwksServer

    async with JwksServer() as server:
        yield server
