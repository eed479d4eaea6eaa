"""The data room three times: in memory, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from src.data.auditor import SqlAuditor
from src.data.engine import make_engine
from src.data.group_commit import GroupCommitLedger
from src.data.schema import migrate
from src.data.unit_of_work import unit_of_work_opener
from src.data.writer_connection import WriterConnection
from src.domain.catalog.model import Usage
from src.domain.identity.model import Tenant, User
from src.domain.ledger.model import Account, Closed, Closing, HoldState, Record, Scope, UsageRecord
from src.domain.ledger.ports import Auditor, Ledger
from src.domain.ledger.standing import standings_of
from src.domain.unit_of_work import OpenUnitOfWork
from src.shared.clock import Clock, utc_now
from tests.fake_store import Store
from tests.fakes import FakeAuditor, FakeLedger, fake_unit_of_work_opener
from tests.makers import NOW, make_tenant, make_top_up, make_usage_record, make_user


class WholeLedger(GroupCommitLedger):
    """Every settled call has a record of its usage. Tests of something else need not say so: it is made here."""

    async def close(self, closing: Closing, records: Sequence[Record] = ()) -> Closed:
        if closing.state is HoldState.SETTLED and not any(isinstance(each, UsageRecord) for each in records):
            told = {"cost_micro_usd": closing.micro_usd, "model": closing.model, "created_at": closing.at}
            usage = Usage(input_tokens=closing.tokens)
            records = (*records, make_usage_record(closing.hold, usage=usage, **told))
        return await super().close(closing, records)


@dataclass(slots=True, kw_only=True)
class Backend:
    """One implementation of the data room. `replica` gives another process's view of the same database."""

    name: str
    open_uow: OpenUnitOfWork
    make_ledger: Callable[[], Any]
    make_auditor: Callable[[Ledger, Clock], Auditor]
    replica: Callable[[], Backend]
    engine: AsyncEngine | None = None

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[Any]:
        """A ledger that serves as long as the block."""
        ledger = self.make_ledger()
        await ledger.start()
        try:
            yield ledger
        finally:
            await ledger.stop()

    def auditor(self, ledger: Ledger, clock: Clock = utc_now) -> Auditor:
        return self.make_auditor(ledger, clock)

    async def with_user(self, **given: Any) -> tuple[Tenant, User]:
        """A tenant and its user, stored."""
        tenant = make_tenant()
        user = make_user(tenant, **given)
        async with self.open_uow(tenant.id) as uow:
            await uow.directory.add_tenant(tenant)
            await uow.identity.add_user(user)
            await uow.commit()
        return tenant, user

    async def rich_user(self, amount: int, **given: Any) -> User:
        """A user with that many prepaid tokens."""
        _, user = await self.with_user()
        await self.adjust(make_top_up(user, amount, **given))
        return user

    async def adjust(self, adjustment: Any) -> Account:
        async with self.open_uow(adjustment.key.tenant_id) as uow:
            account = await uow.accounts.adjust(adjustment)
            await uow.commit()
            return account

    async def account(self, user: User) -> Account:
        """The user's one account."""
        async with self.open_uow(user.tenant_id) as uow:
            (standing,) = await standings_of(uow, [(Scope.USER, user.id)], NOW, "UTC")
            return standing.account

    async def set_limit(self, change: Any) -> Account:
        async with self.open_uow(change.key.tenant_id) as uow:
            account = await uow.accounts.set_limit(change)
            await uow.commit()
            return account


def memory_backend(store: Store) -> Backend:
    ledger = FakeLedger(store)
    return Backend(
        name="memory",
        open_uow=fake_unit_of_work_opener(store),
        make_ledger=lambda: ledger,
        make_auditor=lambda _, clock: FakeAuditor(store, ledger, clock=clock),
        replica=lambda: memory_backend(store),
    )


def sql_backend(url: str, stack: AsyncExitStack, engines: list[AsyncEngine]) -> Backend:
    engine = make_engine(url)
    engines.append(engine)
    stack.push_async_callback(engine.dispose)
    return Backend(
        name=engine.dialect.name,
        open_uow=unit_of_work_opener(engine),
        make_ledger=lambda: WholeLedger(engine),
        make_auditor=lambda ledger, clock: SqlAuditor(engine, ledger, clock=clock),
        replica=lambda: sql_backend(url, stack, engines),
        engine=engine,
    )


@asynccontextmanager
async def opened_sql(url: str) -> AsyncIterator[Backend]:
    """A backend over a migrated database; at the end the books are right and no connection is checked out."""
    async with opened_unproven(url) as backend:
        yield backend
        assert await backend.auditor(backend.make_ledger()).discrepancies() == []


@asynccontextmanager
async def opened_unproven(url: str) -> AsyncIterator[Backend]:
    """A backend whose books may be wrong at the end."""
    engines: list[AsyncEngine] = []
    async with AsyncExitStack() as stack:
        yield sql_backend(url, stack, engines)
        assert [engine.pool.checkedout() for engine in engines] == [0] * len(engines)  # type: ignore[attr-defined]


class Lost(OperationalError):
    """A commit, or the news of it, lost on the way."""

    def __init__(self) -> None:
        super().__init__("COMMIT", {}, Exception("database is locked"))


class LossyNetwork:
    """Loses the next commits: before they happen, or only their acknowledgement."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, losses: int = 0, after_commit: bool = False) -> None:
        self.losses = losses
        self.after_commit = after_commit
        whole = WriterConnection.commit

        async def commit(writer: WriterConnection, connection: AsyncConnection) -> None:
            lost = self.losses > 0
            if self.after_commit or not lost:
                await whole(writer, connection)
            if lost:
                self.losses -= 1
                raise Lost

        monkeypatch.setattr(WriterConnection, "commit", commit)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file to copy."""
    path = tmp_path_factory.mktemp("template") / "gateway.db"
    asyncio.run(migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: Any) -> str:
    """A migrated database to copy."""
    name: str = asyncio.run(postgres_server.create_database())
    asyncio.run(migrate(postgres_server.url(name)))
    return name


Opener = Callable[[], AbstractAsyncContextManager[Backend]]
OfUrl = Callable[[str], AbstractAsyncContextManager[Backend]]


def opener(kind: str, request: pytest.FixtureRequest, opened: OfUrl = opened_sql) -> Opener:
    """How a fresh backend of the kind is opened; templates are made here, outside any event loop."""
    if kind == "memory":
        return opened_memory
    if kind == "sqlite":
        copy = request.getfixturevalue("tmp_path") / "gateway.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), copy)
        return lambda: opened(f"sqlite:///{copy}")
    server, template = request.getfixturevalue("postgres_server"), request.getfixturevalue("postgres_template")
    return lambda: opened_postgres(server, template, opened)


@asynccontextmanager
async def opened_memory() -> AsyncIterator[Backend]:
    store = Store()
    yield memory_backend(store)
    assert await FakeAuditor(store, FakeLedger(store)).discrepancies() == []


@asynccontextmanager
async def opened_postgres(server: Any, template: str, opened: OfUrl) -> AsyncIterator[Backend]:
    async with server.database(template) as url, opened(url) as backend:
        yield backend


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def every_opener(request: pytest.FixtureRequest) -> Opener:
    return opener(request.param, request)


@pytest.fixture(params=["sqlite", "postgresql"])
def sql_opener(request: pytest.FixtureRequest) -> Opener:
    return opener(request.param, request)


@pytest.fixture(params=["sqlite", "postgresql"])
def unproven_opener(request: pytest.FixtureRequest) -> Opener:
    """Of the two databases, for tests that spoil the books."""
    return opener(request.param, request, opened_unproven)


@pytest_asyncio.fixture
async def backend(every_opener: Opener) -> AsyncIterator[Backend]:
    """Every implementation in turn."""
    async with every_opener() as opened:
        yield opened


@pytest_asyncio.fixture
async def sql(sql_opener: Opener) -> AsyncIterator[Backend]:
    """The two databases."""
    async with sql_opener() as opened:
        yield opened
