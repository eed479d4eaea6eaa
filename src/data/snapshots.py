"""What this process keeps of the database in memory, read again within a second of a change on any replica."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Generic, TypeVar

import structlog

from src.domain.catalog.model import Catalog
from src.domain.limits.model import RateLimits
from src.domain.unit_of_work import OpenUnitOfWork, UnitOfWork
from src.shared.tasks import end_task

POLL_S = 1.0

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Snapshot(Generic[T]):
    """Polls a version and reloads when it changed. Serves the last good view while the database is away."""

    def __init__(
        self,
        open_uow: OpenUnitOfWork,
        *,
        name: str,
        empty: T,
        version: Callable[[UnitOfWork], Awaitable[int]],
        load: Callable[[UnitOfWork], Awaitable[T]],
    ) -> None:
        self._open_uow = open_uow
        self._name = name
        self._view = empty
        self._read_version = version
        self._load = load
        self._version = -1
        self._poller: asyncio.Task[None] | None = None

    def current(self) -> T:
        """The newest view this process has read."""
        return self._view

    async def start(self) -> None:
        """Read it once and go on watching."""
        await self.refresh()
        self._poller = asyncio.create_task(self._poll(), name=f"snapshot of {self._name}")

    async def close(self) -> None:
        """Stop watching."""
        await end_task(self._poller)

    async def refresh(self) -> None:
        """Read it again where its version differs from ours."""
        async with self._open_uow(None) as uow:
            version = await self._read_version(uow)
            if version == self._version:
                return
            view = await self._load(uow)
        self._view, self._version = view, version

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh()
            except Exception:
                log.warning("snapshot_refresh_failed", snapshot=self._name, exc_info=True)


def catalog_snapshot(open_uow: OpenUnitOfWork, *, default_model: str) -> Snapshot[Catalog]:
    """The catalog."""

    async def load(uow: UnitOfWork) -> Catalog:
        return replace(await uow.catalog.load(), default_model=default_model)

    empty = Catalog(providers={}, models={}, chains={})
    return Snapshot(open_uow, name="catalog", empty=empty, version=lambda uow: uow.catalog.version(), load=load)


def rate_limits_snapshot(open_uow: OpenUnitOfWork) -> Snapshot[RateLimits]:
    """The rate limits."""
    return Snapshot(
        open_uow,
        name="rate limits",
        empty=RateLimits(),
        version=lambda uow: uow.limits.version(),
        load=lambda uow: uow.limits.load(),
    )
