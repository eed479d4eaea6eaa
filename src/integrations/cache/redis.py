"""Whole answers shared by all replicas, in Redis. Without Redis each replica remembers by itself."""

from redis.asyncio import Redis

from src.domain.completion.ports import ResponseCache
from src.integrations.cache.memory import MemoryCache
from src.integrations.redis_client import GuardedRedis, RedisAway

KEY_PREFIX = "llm-gateway:answer:"
TURN_PREFIX = "llm-gateway:answer-turn:"
MAX_TTL_S = 30 * 86_400.0

_SEEK = """
local value = redis.call('GET', KEYS[1])
if value then return value end
local whose = redis.call('GET', KEYS[2])
if whose and whose ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
"""
"""One step, so that nobody takes the turn of somebody who has just put the value."""

_LEAVE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class RedisCache(ResponseCache):
    """Fails open: while Redis is away, this process's own memory answers, and it is always its turn."""

    def __init__(self, redis: GuardedRedis, *, local: MemoryCache | None = None) -> None:
        self._redis = redis
        self._local = local or MemoryCache()

    async def seek(self, key: str, seeker: str, lease_s: float) -> bytes | bool:
        async def ask(client: Redis) -> bytes | int:
            keys = (KEY_PREFIX + key, TURN_PREFIX + key)
            found: bytes | int = await client.eval(_SEEK, len(keys), *keys, seeker, _milliseconds(lease_s))
            return found

        try:
            found = await self._redis.ask(ask)
        except RedisAway:
            return await self._local.seek(key, seeker, lease_s)
        return found if isinstance(found, bytes) else bool(found)

    async def get(self, key: str) -> bytes | None:
        async def ask(client: Redis) -> bytes | None:
            found = await client.get(KEY_PREFIX + key)
            return found if isinstance(found, bytes) else None

        try:
            return await self._redis.ask(ask)
        except RedisAway:
            return await self._local.get(key)

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        if ttl_s <= 0:
            return
        try:
            await self._redis.ask(lambda client: client.set(KEY_PREFIX + key, value, px=_milliseconds(ttl_s)))
        except RedisAway:
            await self._local.put(key, value, ttl_s)

    async def leave(self, key: str, seeker: str) -> None:
        try:
            await self._redis.ask(lambda client: client.eval(_LEAVE, 1, TURN_PREFIX + key, seeker))
        except RedisAway:
            return

    async def close(self) -> None:
        """Forget what this process remembers; the Redis is others' too."""
        await self._local.close()


def _milliseconds(seconds: float) -> int:
    return max(1, int(min(seconds, MAX_TTL_S) * 1000))
