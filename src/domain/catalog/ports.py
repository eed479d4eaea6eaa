"""Where the catalog is kept."""

from typing import Protocol

from src.domain.catalog.model import Catalog, Chain, Model, Price, Provider


class CatalogRepository(Protocol):
    """The catalog belongs to the platform, not to a tenant; writes raise the version that replicas watch.

    `source` is "file" or "admin": what an admin wrote wins over files loaded later.
    """

    async def load(self) -> Catalog: ...

    async def version(self) -> int: ...

    async def put_provider(self, provider: Provider, *, source: str) -> None: ...

    async def put_model(self, model: Model, *, source: str) -> None:
        """Insert or replace a model with its price list."""
        ...

    async def add_price(self, model: str, price: Price) -> None: ...

    async def put_chain(self, chain: Chain, *, source: str) -> None: ...

    async def delete_chain(self, name: str) -> bool: ...


class CatalogView(Protocol):
    """The snapshot in this process."""

    def current(self) -> Catalog: ...

    async def refresh(self) -> None:
        """Read it again now (after a change made here)."""
        ...
