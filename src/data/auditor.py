"""Proving the books by SQL, and closing what a crash left open."""

import asyncio
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, select
from sqlalchemy.ext.asyncio import AsyncEngine

from src.data.engine import reading
from src.data.ledger_store import read_holds
from src.data.ledger_tables import accounts, entries, hold_lines, holds
from src.domain.ledger.model import Closing, EntryKind, HoldState
from src.domain.ledger.ports import Discrepancy, Ledger
from src.shared.clock import Clock, utc_now

CHARGES = (EntryKind.CHARGE, EntryKind.LATE_CHARGE)


class SqlAuditor:
    """Reads everything in one snapshot; closes expired holds through the ledger, as any caller would."""

    def __init__(self, engine: AsyncEngine, ledger: Ledger, *, clock: Clock = utc_now) -> None:
        self._engine = engine
        self._ledger = ledger
        self._clock = clock

    async def discrepancies(self, limit: int = 1000) -> list[Discrepancy]:
        found: list[Discrepancy] = []
        async with reading(self._engine, snapshot=True) as connection:
            for law, statement in _laws().items():
                if len(found) < limit:
                    rows = await connection.execute(statement.limit(limit - len(found)))
                    found.extend(_discrepancy(law, row) for row in rows)
        return found

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


def _discrepancy(law: str, row: Any) -> Discrepancy:
    return Discrepancy(law=law, subject=str(row[0]), expected=int(row[1]), found=int(row[2]))


def _laws() -> dict[str, Select[Any]]:
    """Each law as a query for what breaks it: subject, expected, found."""
    booked = _sum_of_entries(entries.c.amount)
    charged = _sum_of_entries(case((entries.c.kind.in_(CHARGES), -entries.c.amount), else_=0))
    held = (
        select(hold_lines.c.account_id, func.sum(hold_lines.c.amount).label("amount"))
        .join(holds, and_(holds.c.id == hold_lines.c.hold_id, holds.c.state == HoldState.OPEN))
        .group_by(hold_lines.c.account_id)
        .subquery()
    )
    return {
        "balance is the sum of entries": _unequal(booked, accounts.c.balance),
        "spent is the sum of charges": _unequal(charged, accounts.c.spent),
        "held is the sum of open holds": _unequal(held, accounts.c.held),
        "nothing is spent or held above the limit": _overspent(),
        "nothing is negative": select(accounts.c.id, literal(0), accounts.c.held).where(
            (accounts.c.held < 0) | (accounts.c.spent < 0)
        ),
        "a hold charges an account once": select(entries.c.hold_id, literal(1), func.count())
        .where(entries.c.kind.in_(CHARGES))
        .group_by(entries.c.hold_id, entries.c.account_id)
        .having(func.count() > 1),
    }


def _overspent() -> Select[Any]:
    """Below zero only by as much as administrators lowered limits."""
    lowered = _sum_of_entries(
        case(((entries.c.kind == EntryKind.LIMIT) & (entries.c.amount < 0), entries.c.amount), else_=0)
    )
    least = func.coalesce(lowered.c.amount, 0)
    free = accounts.c.balance - accounts.c.held
    return (
        select(accounts.c.id, least, free)
        .join_from(accounts, lowered, lowered.c.account_id == accounts.c.id, isouter=True)
        .where(free < least)
    )


def _sum_of_entries(amount: ColumnElement[int]) -> Any:
    summed = select(entries.c.account_id, func.sum(amount).label("amount"))
    return summed.group_by(entries.c.account_id).subquery()


def _unequal(sums: Any, column: ColumnElement[int]) -> Select[Any]:
    expected = func.coalesce(sums.c.amount, 0)
    return (
        select(accounts.c.id, expected, column)
        .join_from(accounts, sums, sums.c.account_id == accounts.c.id, isouter=True)
        .where(column != expected)
    )
