"""One short transaction: opened, used, committed or undone."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from src.domain.catalog.ports import CatalogRepository
from src.domain.completion.idempotency import ClaimRepository
from src.domain.dialogs.ports import DialogRepository
from src.domain.identity.model import TenantId
from src.domain.identity.ports import AuditLog, Directory, IdentityRepository
from src.domain.ledger.ports import AccountRepository
from src.domain.limits.ports import RateLimitRepository


class UnitOfWork(Protocol):
    """Repositories that share a transaction. Leaving it without `commit()` undoes what was done.

    Never hold one open while a provider, a password hash or a client is waited for.
    """

    @property
    def directory(self) -> Directory: ...

    @property
    def identity(self) -> IdentityRepository: ...

    @property
    def catalog(self) -> CatalogRepository: ...

    @property
    def dialogs(self) -> DialogRepository: ...

    @property
    def accounts(self) -> AccountRepository: ...

    @property
    def claims(self) -> ClaimRepository: ...

    @property
    def limits(self) -> RateLimitRepository: ...

    @property
    def audit(self) -> AuditLog: ...

    async def commit(self) -> None: ...


OpenUnitOfWork = Callable[[TenantId | None], AbstractAsyncContextManager[UnitOfWork]]
"""Opens a unit of work of one tenant.

With None (before a tenant is known): `directory`, `catalog`, `limits`, `audit` only.
"""
