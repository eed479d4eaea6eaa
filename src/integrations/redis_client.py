"""Redis as an accelerator: a client that fails at once, so that nobody waits for what is not needed."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

TIMEOUT_S = 0.2
MAX_CONNECTIONS = 32

REDIS_ERRORS = (RedisError, OSError, TimeoutError)
"""Everything a call to a Redis that is away, hung or broken may raise."""


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
