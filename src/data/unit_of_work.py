"""A transaction with its repositories."""

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from src.data.claims import SqlClaimRepository
from src.data.engine import reading, writing
from src.data.integrity import domain_error, is_own_fault, is_transient
from src.data.repositories.accounts import SqlAccountRepository
from src.data.repositories.audit import SqlAuditLog
from src.data.repositories.catalog import SqlCatalogRepository
from src.data.repositories.dialogs import SqlDialogRepository
from src.data.repositories.directory import SqlDirectory
from src.data.repositories.identity import SqlIdentityRepository
from src.data.repositories.limits import SqlRateLimitRepository
from src.domain.identity.model import TenantId
from src.domain.unit_of_work import OpenUnitOfWork, UnitOfWork


class SqlUnitOfWork:
    """Opened with `async with`; what is not committed when it is left is undone.

    Read-only ones never wait for SQLite's one writer. Raises Unavailable when the database is away.
    """

    def __init__(self, engine: AsyncEngine, tenant_id: TenantId | None, *, read_only: bool = False) -> None:
        self._engine = engine
        self._tenant = tenant_id
        self._read_only = read_only
        self._transaction: AbstractAsyncContextManager[AsyncConnection] | None = None
        self._open: AsyncConnection | None = None

    async def __aenter__(self) -> Self:
        self._transaction = reading(self._engine) if self._read_only else writing(self._engine)
        try:
            self._open = await self._transaction.__aenter__()
        except Exception as error:
            raise domain_error(error) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._transaction is not None  # noqa: S101 - entered
        self._open = None
        try:
            await self._transaction.__aexit__(kind, error, trace)
        except Exception as failure:
            _tell(failure)
            raise
        if error is not None:  # the transaction was undone without a fault of its own
            _tell(error)

    @property
    def directory(self) -> SqlDirectory:
        return SqlDirectory(self._connection)

    @property
    def identity(self) -> SqlIdentityRepository:
        return SqlIdentityRepository(self._connection, self._tenant_id)

    @property
    def catalog(self) -> SqlCatalogRepository:
        return SqlCatalogRepository(self._connection)

    @property
    def dialogs(self) -> SqlDialogRepository:
        return SqlDialogRepository(self._connection, self._tenant_id)

    @property
    def accounts(self) -> SqlAccountRepository:
        return SqlAccountRepository(self._connection, self._tenant_id)

    @property
    def claims(self) -> SqlClaimRepository:
        return SqlClaimRepository(self._connection, self._tenant_id)

    @property
    def limits(self) -> SqlRateLimitRepository:
        return SqlRateLimitRepository(self._connection)

    @property
    def audit(self) -> SqlAuditLog:
        return SqlAuditLog(self._connection)

    async def commit(self) -> None:
        """Make it durable. Raises Unavailable when that cannot be said."""
        try:
            await self._connection.commit()
        except Exception as error:
            raise domain_error(error) from error

    @property
    def _connection(self) -> AsyncConnection:
        if self._open is None:
            raise RuntimeError("this unit of work is not open")
        return self._open

    @property
    def _tenant_id(self) -> TenantId:
        if self._tenant is None:
            raise RuntimeError("this unit of work was opened before a tenant was known")
        return self._tenant


def _tell(failure: BaseException) -> None:
    """Raise what the domain calls it; what is no matter of the database stays what it is."""
    if is_transient(failure) or (isinstance(failure, DBAPIError) and is_own_fault(failure)):
        raise domain_error(failure) from failure


def unit_of_work_opener(engine: AsyncEngine, *, read_only: bool = False) -> OpenUnitOfWork:
    """What use cases open their transactions with."""

    def opened(tenant_id: TenantId | None) -> AbstractAsyncContextManager[UnitOfWork]:
        return SqlUnitOfWork(engine, tenant_id, read_only=read_only)

    return opened
