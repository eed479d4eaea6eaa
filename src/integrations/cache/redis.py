"""Whole answers shared by all replicas, in Redis. Without Redis each replica remembers by itself."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import orjson
import structlog
from redis.asyncio import Redis

from src.domain.completion.ports import ResponseCache
from src.integrations.cache.memory import MemoryCache, dumped
from src.integrations.redis_client import REDIS_ERRORS

KEY_PREFIX = "llm-gateway:answer:"
OPERATION_TIMEOUT_S = 0.2
PAUSE_S = 5.0
"""How long Redis is left alone after it failed."""
MAX_VALUE_BYTES = 8 * 1024 * 1024
MAX_TTL_S = 30 * 86_400.0

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class RedisCache(ResponseCache):
    """Fails open: when Redis fails, this process's own memory answers for `pause_s` seconds, then one call tries again.

    `put` raises TypeError for a value that is not JSON. `close` closes the client too.
    """

    def __init__(
        self,
        client: Redis,
        *,
        local: MemoryCache | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause_s: float = PAUSE_S,
        timeout_s: float = OPERATION_TIMEOUT_S,
    ) -> None:
        self._client = client
        self._local = local or MemoryCache()
        self._clock = clock
        self._pause_s = pause_s
        self._timeout_s = timeout_s
        self._is_away = False
        self._next_try_s = 0.0

    @property
    def is_away(self) -> bool:
        """Whether Redis failed when it was asked last."""
        return self._is_away

    async def get(self, key: str) -> Mapping[str, Any] | None:
        if not self._may_try():
            return await self._local.get(key)
        reached, data = await self._tried(lambda: self._client.get(KEY_PREFIX + key))
        return _value(data) if reached else await self._local.get(key)

    async def put(self, key: str, value: Mapping[str, Any], ttl_s: float) -> None:
        data = dumped(value)
        if ttl_s <= 0 or len(data) > MAX_VALUE_BYTES:
            return
        ttl_ms = max(1, int(min(ttl_s, MAX_TTL_S) * 1000))
        reached = False
        if self._may_try():
            reached, _ = await self._tried(lambda: self._client.set(KEY_PREFIX + key, data, px=ttl_ms))
        if not reached:
            await self._local.put(key, value, ttl_s)

    async def close(self) -> None:
        await self._local.close()
        with contextlib.suppress(*REDIS_ERRORS):
            await self._client.aclose()

    def _may_try(self) -> bool:
        """Whether to ask Redis. During an outage one call at a time finds out whether it is back."""
        if not self._is_away:
            return True
        now_s = self._clock()
        if now_s < self._next_try_s:
            return False
        self._next_try_s = now_s + self._pause_s
        return True

    async def _tried(self, operation: Callable[[], Awaitable[T]]) -> tuple[bool, T | None]:
        """(whether Redis answered, its answer)."""
        try:
            # The client's own limits are for each step; a call is several.
            async with asyncio.timeout(self._timeout_s):
                answer = await operation()
        except REDIS_ERRORS as error:
            self._failed(error)
            return False, None
        self._answered()
        return True, answer

    def _failed(self, error: Exception) -> None:
        self._next_try_s = self._clock() + self._pause_s
        if not self._is_away:
            self._is_away = True
            _log.warning("cache.redis_away", error=type(error).__name__, retry_in_s=self._pause_s)

    def _answered(self) -> None:
        if self._is_away:
            self._is_away = False
            _log.info("cache.redis_back")


def _value(data: Any) -> Mapping[str, Any] | None:
    """What was stored; anything else under our key is a miss."""
    if not isinstance(data, bytes):
        return None
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
