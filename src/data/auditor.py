"""Proving the books by SQL, and closing what a crash left open."""

import asyncio
from datetime import timedelta

from sqlalchemy import Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from src.data.engine import reading
from src.data.ledger_laws import Law, laws
from src.data.ledger_store import read_holds
from src.data.ledger_tables import accounts, entries, holds
from src.domain.ledger.model import Closing, HoldState
from src.domain.ledger.ports import Audit, Breach, Discrepancy, Ledger
from src.shared.clock import Clock, utc_now

SWEPT_WITHIN = timedelta(minutes=1)
"""A gateway that runs closes expired holds sooner than this."""


class SqlAuditor:
    """Reads everything in one snapshot; closes expired holds through the ledger, as any caller would."""

    def __init__(self, engine: AsyncEngine, ledger: Ledger, *, clock: Clock = utc_now) -> None:
        self._engine = engine
        self._ledger = ledger
        self._clock = clock

    async def audit(self, examples: int = 10) -> Audit:
        overdue = select(func.count()).where(
            holds.c.state == HoldState.OPEN, holds.c.expires_at < self._clock() - SWEPT_WITHIN
        )
        async with reading(self._engine, snapshot=True) as connection:
            found = [await _breach(connection, law, statement, examples) for law, statement in laws().items()]
            return Audit(
                accounts=await _count(connection, accounts),
                holds=await _count(connection, holds),
                entries=await _count(connection, entries),
                overdue=(await connection.execute(overdue)).scalar_one(),
                breaches=[breach for breach in found if breach is not None],
            )

    async def discrepancies(self, limit: int = 1000) -> list[Discrepancy]:
        breaches = (await self.audit(limit)).breaches
        return [each for breach in breaches for each in breach.examples][:limit]

    async def close_expired(self, limit: int = 500) -> int:
        now = self._clock()
        async with reading(self._engine) as connection:
            overdue = (
                select(holds.c.id)
                .where(holds.c.state == HoldState.OPEN, holds.c.expires_at <= now)
                .order_by(holds.c.expires_at)
                .limit(limit)
            )
            ids = (await connection.execute(overdue)).scalars().all()
            expired = await read_holds(connection, ids, lock=False)
        closings = [Closing(hold=hold, state=HoldState.EXPIRED, at=now) for hold in expired]
        results = await asyncio.gather(*map(self._ledger.close, closings), return_exceptions=True)
        return sum(not isinstance(result, BaseException) for result in results)


async def _breach(connection: AsyncConnection, law: str, statement: Law, examples: int) -> Breach | None:
    """Some of what breaks a law, and how much there is of it; None where it holds."""
    broken = statement.cte()
    rows = (await connection.execute(select(broken, func.count().over()).limit(examples))).all()
    if not rows:
        return None
    found = [Discrepancy(law=law, subject=str(row[0]), expected=int(row[1]), found=int(row[2])) for row in rows]
    return Breach(law=law, count=rows[0][3], examples=found)


async def _count(connection: AsyncConnection, table: Table) -> int:
    counted: int = (await connection.execute(select(func.count()).select_from(table))).scalar_one()
    return counted
