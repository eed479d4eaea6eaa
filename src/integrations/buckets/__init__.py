"""Where rate buckets are counted: in this process, or for all of them in Redis."""

from src.domain.limits.ports import Buckets
from src.integrations.buckets.memory import MemoryBuckets
from src.integrations.buckets.redis import RedisBuckets
from src.integrations.redis_client import GuardedRedis


def open_buckets(redis: GuardedRedis | None) -> Buckets:
    """Shared by all processes where there is a Redis."""
    return MemoryBuckets() if redis is None else RedisBuckets(redis)
