"""Redis as an accelerator: a client that fails at once, and a guard that lets nobody wait for a Redis that is away."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from src.shared.tasks import end_task

TIMEOUT_S = 0.2
PROBE_EVERY_S = 1.0
MAX_CONNECTIONS = 32

REDIS_ERRORS = (RedisError, OSError, TimeoutError)
"""Everything a call to a Redis that is away, hung or broken may raise."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


class RedisAway(Exception):
    """Redis did not serve this operation, and may or may not have done it: go on without."""


class GuardedRedis:
    """One Redis for the whole process: the first failure makes it away, until a probe in the background finds it back.

    While it is away nobody waits for it. Closing it closes the client.
    """

    def __init__(
        self,
        client: Redis,
        *,
        timeout_s: float = TIMEOUT_S,
        probe_every_s: float = PROBE_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._probe_every_s = probe_every_s
        self._clock = clock
        self._away_since_s: float | None = None
        self._probe: asyncio.Task[None] | None = None
        self._refusal = ""

    @property
    def is_away(self) -> bool:
        """Whether it failed, and no probe has reached it since."""
        return self._away_since_s is not None

    async def ask(self, operation: Callable[[Redis], Awaitable[T]]) -> T:
        """What the operation returns, within `timeout_s`.

        Raises RedisAway: at once while Redis is away, and where it fails now. An operation that Redis answers with an
        error (out of memory, a key of another type) is refused in the same way, but the others go on.
        """
        if self._away_since_s is not None:
            raise RedisAway
        try:
            return await self._limited(operation)
        except ResponseError as error:
            self._refused(str(error).partition(" ")[0])
            raise RedisAway from error
        except REDIS_ERRORS as error:
            self._went_away(error)
            raise RedisAway from error

    async def close(self) -> None:
        """End the probe and the client."""
        await end_task(self._probe)
        with contextlib.suppress(*REDIS_ERRORS):
            await self._client.aclose()

    async def _limited(self, operation: Callable[[Redis], Awaitable[T]]) -> T:
        # The client's own limits are for each step; an operation is several.
        async with asyncio.timeout(self._timeout_s):
            return await operation(self._client)

    def _refused(self, kind: str) -> None:
        if kind != self._refusal:
            self._refusal = kind
            log.warning("redis_refused", error=kind)

    def _went_away(self, error: Exception) -> None:
        if self._away_since_s is None:
            self._away_since_s = self._clock()
            self._probe = asyncio.create_task(self._wait_for_it(), name="redis probe")
            log.warning("redis_away", error=type(error).__name__, probe_every_s=self._probe_every_s)

    async def _wait_for_it(self) -> None:
        while not await self._answers():
            pass
        away_s = self._clock() - (self._away_since_s or 0.0)
        self._away_since_s = None
        log.info("redis_back", away_s=round(away_s, 3))

    async def _answers(self) -> bool:
        """Whether it is there, asked after a pause."""
        await asyncio.sleep(self._probe_every_s)
        try:
            await self._limited(lambda client: client.ping())
        except REDIS_ERRORS:
            return False
        return True


def make_redis(url: str, *, max_connections: int = MAX_CONNECTIONS, timeout_s: float = TIMEOUT_S) -> Redis:
    """A client that speaks bytes. It does not connect before its first command; closing it closes its pool.

    Each step of a command (waiting for a connection, connecting, each read) takes at most `timeout_s` seconds, and
    nothing is tried twice: the library's defaults wait for seconds on a dead port and a minute on a silent server.
    Not for pub/sub, where silence is normal. Raises ValueError for a URL that is none.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)
