"""Breakers that open on one replica are heard of on the others, through Redis.

No call waits for it: a task writes what has opened here and reads what has opened elsewhere. Without Redis, each
replica finds out for itself.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import structlog
from redis.asyncio import Redis

from src.domain.completion.model import Failure
from src.domain.routing.board import Board
from src.integrations.redis_client import GuardedRedis, RedisAway
from src.shared.ids import new_id
from src.shared.tasks import end_task

KEY = "llm-gateway:breakers"
"""A hash: what is failing, until when (in milliseconds of the common clock), why, and who says so."""
EVERY_S = 0.5
FORGET_AFTER_S = 3600
LONGEST_S = 3600.0
MOST_HEARD = 10_000

log = structlog.get_logger(__name__)


class SharedBreakers:
    """One replica's part in the exchange. `clock` is the time of day in seconds, the same on all replicas."""

    def __init__(
        self,
        board: Board,
        redis: GuardedRedis,
        *,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._board = board
        self._redis = redis
        self._every_s = every_s
        self._clock = clock
        self._name = new_id().hex
        self._news: dict[str, bytes | None] = {}
        self._heard: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to exchange."""
        self._board.tell(self._changed)
        self._task = asyncio.create_task(self._exchange_for_ever(), name="shared breakers")

    async def close(self) -> None:
        """End it."""
        await end_task(self._task)

    def _changed(self, deployment: str, for_s: float, reason: Failure) -> None:
        """Only the newest news of a deployment is worth telling."""
        until_ms = int((self._clock() + for_s) * 1000)
        word = {"until_ms": until_ms, "reason": reason.value, "by": self._name}
        self._news[deployment] = orjson.dumps(word) if for_s else None

    async def _exchange_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._exchange()
            except RedisAway:
                continue
            except Exception:
                log.warning("shared_breakers_failed", exc_info=True)

    async def _exchange(self) -> None:
        news, self._news = self._news, {}
        try:
            found = await self._redis.ask(lambda client: _told_and_heard(client, news))
        except RedisAway:
            self._news = news | self._news
            raise
        for deployment, word in found.items():
            self._learn(deployment.decode("utf-8", "replace"), word)

    def _learn(self, deployment: str, word: bytes) -> None:
        """What another replica says, once; what makes no sense is no news."""
        with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            said = orjson.loads(word)
            until_s, reason = float(said["until_ms"]) / 1000, Failure(said["reason"])
            for_s = min(until_s - self._clock(), LONGEST_S)
            if said["by"] != self._name and for_s > 0 and self._heard.get(deployment) != until_s:
                if len(self._heard) >= MOST_HEARD:
                    self._heard.clear()
                self._heard[deployment] = until_s
                self._board.learn(deployment, for_s, reason)


async def _told_and_heard(client: Redis, news: Mapping[str, bytes | None]) -> dict[bytes, bytes]:
    closed = [deployment for deployment, word in news.items() if word is None]
    opened: dict[Any, Any] = {deployment: word for deployment, word in news.items() if word is not None}
    async with client.pipeline(transaction=False) as pipeline:
        if opened:
            pipeline.hset(KEY, mapping=opened)
            pipeline.expire(KEY, FORGET_AFTER_S)
        if closed:
            pipeline.hdel(KEY, *closed)
        pipeline.hgetall(KEY)
        found: dict[bytes, bytes] = (await pipeline.execute())[-1]
    return found
