"""The catalog as this process sees it, read again within a second of a change on any replica."""

import asyncio
import contextlib
from dataclasses import replace

import structlog

from src.domain.catalog.model import Catalog
from src.domain.catalog.ports import CatalogView
from src.domain.unit_of_work import OpenUnitOfWork

POLL_S = 1.0

log = structlog.get_logger(__name__)


class CatalogSnapshot(CatalogView):
    """Polls the catalog's version and reloads when it rose. Serves the last good view while the database is away."""

    def __init__(self, open_uow: OpenUnitOfWork, *, default_model: str) -> None:
        self._open_uow = open_uow
        self._default_model = default_model
        self._catalog = Catalog(providers={}, models={}, chains={})
        self._version = -1
        self._poller: asyncio.Task[None] | None = None

    def current(self) -> Catalog:
        """The newest view this process has read."""
        return self._catalog

    async def start(self) -> None:
        """Read it once and go on watching."""
        await self.refresh()
        self._poller = asyncio.create_task(self._poll(), name="catalog snapshot")

    async def close(self) -> None:
        """Stop watching."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller

    async def refresh(self) -> None:
        """Read it again where its version differs from ours."""
        async with self._open_uow(None) as uow:
            version = await uow.catalog.version()
            if version == self._version:
                return
            catalog = await uow.catalog.load()
        self._catalog, self._version = replace(catalog, default_model=self._default_model), version

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh()
            except Exception:
                log.warning("catalog_refresh_failed", exc_info=True)
