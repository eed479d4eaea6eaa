"""Accounts and holds: locked and read, then written back, with a fixed number of statements."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from src.data.bulk import Insert, Part, Update, as_uuid, id_list, ids_sql, insert_rows, quoted, write
from src.data.driver import fetch
from src.data.ledger_noted import noted_from, noted_json
from src.data.ledger_tables import accounts, entries, hold_lines, holds
from src.data.types import moment_from
from src.domain.identity.model import ApiKeyId, TenantId, UserId
from src.domain.ledger.book import Book
from src.domain.ledger.model import (
    Account,
    AccountId,
    Closing,
    Entry,
    EntryKind,
    Hold,
    HoldId,
    HoldLine,
    HoldState,
    QuotaId,
    Scope,
    Unit,
    Window,
)
from src.shared.clock import utc_now
from src.shared.ids import new_id

_ACCOUNT = ("id", "tenant_id", "quota_id", "period", "balance", "held", "spent")
_QUOTA = ("scope", "scope_id", "unit", "window", "model")
_HOLD = (
    "id",
    "tenant_id",
    "user_id",
    "api_key_id",
    "model",
    "request_id",
    "output_cap_tokens",
    "state",
    "created_at",
    "expires_at",
    "noted",
    "cancel_requested",
)
_LINE = ("hold_id", "account_id", "tenant_id", "unit", "amount", "model")
_ENTRY = (
    "id",
    "tenant_id",
    "scope_id",
    "account_id",
    "unit",
    "amount",
    "kind",
    "created_at",
    "hold_id",
    "message_id",
    "request_id",
    "model",
    "reason",
    "actor_id",
)

_BALANCES = Update(accounts, ("id",), ("balance", "held", "spent"))
_NEW_HOLDS = Insert(holds, _HOLD)
_NEW_LINES = Insert(hold_lines, _LINE)
_NEW_ENTRIES = Insert(entries, _ENTRY)
_CLOSED = Update(holds, ("id",), ("state", "closed_at"))
_RENEWED = Update(holds, ("id",), ("expires_at", "output_cap_tokens", "noted"))
_GROWN = Update(hold_lines, ("hold_id", "account_id"), ("amount",))


@dataclass(frozen=True, slots=True)
class Payer:
    """A scope that pays for calls of a certain day and month (in its tenant's time zone)."""

    tenant_id: TenantId
    scope: Scope
    scope_id: UUID
    day: str
    month: str


_PAYER_POSTGRESQL = """
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[])
    AS given (tenant_id, scope, scope_id, day, month)
"""
_PAYER_SQLITE = """
    SELECT value ->> 0 AS tenant_id, value ->> 1 AS scope, value ->> 2 AS scope_id, value ->> 3 AS day,
    value ->> 4 AS month FROM json_each(?)
"""
_ITS_QUOTAS = """
    quota.tenant_id = payer.tenant_id AND quota.scope = payer.scope AND quota.scope_id = payer.scope_id
    AND quota.removed_at IS NULL
"""
# OFFSET keeps PostgreSQL from turning the join round: it looks up the quotas of each payer, however few it thinks there
# are in all.
_QUOTAS_POSTGRESQL = f"LATERAL (SELECT * FROM quotas quota WHERE {_ITS_QUOTAS} OFFSET 0) quota"  # noqa: S608
_QUOTAS_SQLITE = f"quotas quota ON {_ITS_QUOTAS}"
_PERIOD = """CASE quota."window" WHEN 'day' THEN payer.day WHEN 'month' THEN payer.month ELSE '' END"""
_ITS_ACCOUNT = "account.quota_id = wanted.quota_id AND account.period = wanted.period"


async def lock_accounts(
    connection: AsyncConnection, payers: Collection[Payer], ids: Collection[AccountId]
) -> tuple[list[Account], list[Entry]]:
    """The accounts of those payers and with those ids, locked in the order of their ids.

    Where a period of a quota is seen for the first time, its account is made; the entries of their limits come with
    them, to be written with everything else.
    """
    if not payers and not ids:
        return [], []
    missing, found = await _locked(connection, payers, ids)
    if not missing:
        return found, []
    made = await _made(connection, payers)
    _, found = await _locked(connection, payers, ids)
    now = utc_now()
    limits = [_limit_entry(account, now) for account in found if account.id in made and account.balance]
    return found, limits


async def _locked(
    connection: AsyncConnection, payers: Collection[Payer], ids: Collection[AccountId]
) -> tuple[int, list[Account]]:
    """How many periods have no account yet, and the accounts that are there."""
    dialect = connection.dialect
    parameters = (*_payers(dialect, payers), id_list(dialect, ids))
    rows = await fetch(connection, _lock_sql(dialect), parameters)
    return rows[0][0], [_account_from(row[1:]) for row in rows if row[1] is not None]


def _wanted_sql(dialect_name: str) -> str:
    """The quotas of the payers, with the present periods and their accounts."""
    is_postgres = dialect_name == "postgresql"
    return f"""
        WITH payer AS ({_PAYER_POSTGRESQL if is_postgres else _PAYER_SQLITE}),
        present AS (
            SELECT quota.id AS quota_id, {_PERIOD} AS period
            FROM payer CROSS JOIN {_QUOTAS_POSTGRESQL if is_postgres else _QUOTAS_SQLITE}
        ),
        wanted AS (
            SELECT wanted.*, (SELECT account.id FROM accounts account WHERE {_ITS_ACCOUNT}) AS account_id
            FROM present wanted
        )
    """  # noqa: S608


@lru_cache
def _lock_sql(dialect: Dialect) -> str:
    """One statement; the count of missing accounts comes with every row, and alone where there is none."""
    own = ", ".join(f"account.{name}" for name in quoted(dialect, _ACCOUNT))
    inherited = ", ".join(f"quota.{name}" for name in quoted(dialect, _QUOTA))
    ids = f"SELECT account_id FROM wanted UNION {ids_sql(dialect.name, 6)}"  # noqa: S608
    return f"""
        {_wanted_sql(dialect.name)},
        locked AS (
            SELECT {own}, {inherited}, quota.removed_at IS NOT NULL AS removed
            FROM accounts account JOIN quotas quota ON quota.id = account.quota_id
            WHERE account.id {f"= ANY(ARRAY({ids}))" if dialect.name == "postgresql" else f"IN ({ids})"}
            ORDER BY account.id {"FOR UPDATE OF account" if dialect.name == "postgresql" else ""}
        )
        SELECT missing.accounts, locked.* FROM (
            SELECT count(*) AS accounts FROM wanted WHERE account_id IS NULL
        ) missing LEFT JOIN locked ON true
    """  # noqa: S608


async def _made(connection: AsyncConnection, payers: Collection[Payer]) -> set[UUID]:
    """Make the accounts that are missing, with their quotas' limits; whoever is first makes them, nobody fails.

    The quotas are locked against a change of their limit until the accounts are there for that change to find.
    """
    dialect = connection.dialect
    sql = f"""
        {_wanted_sql(dialect.name)}
        SELECT quota.tenant_id, quota.id, wanted.period, quota.limit_amount
        FROM wanted JOIN quotas quota ON quota.id = wanted.quota_id
        WHERE wanted.account_id IS NULL ORDER BY quota.id {"FOR SHARE OF quota" if dialect.name == "postgresql" else ""}
    """  # noqa: S608
    found = await fetch(connection, sql, _payers(dialect, payers))
    rows = [(new_id(), as_uuid(row[0]), as_uuid(row[1]), row[2], row[3] or 0, 0, 0) for row in found]
    await insert_rows(connection, accounts, _ACCOUNT, rows, on_conflict="DO NOTHING")
    return {row[0] for row in rows}


async def read_holds(connection: AsyncConnection, ids: Collection[HoldId], *, lock: bool) -> list[Hold]:
    """Those holds that exist, with their lines, in the order of their ids (and so locked)."""
    if not ids:
        return []
    sql = _holds_sql(connection.dialect, lock=lock)
    return _holds_from(await fetch(connection, sql, (id_list(connection.dialect, ids),)))


@lru_cache
def _holds_sql(dialect: Dialect, *, lock: bool) -> str:
    columns = ", ".join(f"hold.{name}" for name in quoted(dialect, _HOLD))
    among = "= ANY($1::uuid[])" if dialect.name == "postgresql" else f"IN ({ids_sql(dialect.name)})"
    return f"""
        SELECT {columns}, line.account_id, line.unit, line.amount, line.model
        FROM holds hold LEFT JOIN hold_lines line ON line.hold_id = hold.id
        WHERE hold.id {among} ORDER BY hold.id
        {"FOR UPDATE OF hold" if lock and dialect.name == "postgresql" else ""}
    """  # noqa: S608


async def write_back(connection: AsyncConnection, book: Book) -> None:
    """Everything the book says has changed, and nothing else."""
    await write(connection, changes_of(book))


def changes_of(book: Book) -> list[Part]:
    """What the book says has changed, as rows."""
    return [
        (_BALANCES, [(each.balance, each.held, each.spent, each.account.id) for each in book.changes()]),
        (_NEW_HOLDS, [_hold_row(hold) for hold in book.opened]),
        (_NEW_LINES, [_line_row(hold, line) for hold in book.opened for line in hold.lines]),
        (_NEW_ENTRIES, [_entry_row(entry) for entry in book.entries]),
        (_CLOSED, _closed_rows(book.closed)),
        (_RENEWED, [_renewed_row(hold) for hold in book.renewed.values()]),
        (_GROWN, [(line.amount, hold, line.account_id) for hold in book.grown for line in book.renewed[hold].lines]),
    ]


def _payers(dialect: Dialect, payers: Collection[Payer]) -> Sequence[Any]:
    if dialect.name == "postgresql":
        rows = [(each.tenant_id, each.scope.value, each.scope_id, each.day, each.month) for each in payers]
        return [list(column) for column in zip(*rows, strict=True)] if rows else [[], [], [], [], []]
    listed = [(each.tenant_id.hex, each.scope.value, each.scope_id.hex, each.day, each.month) for each in payers]
    return (orjson.dumps(listed).decode(),)


def _account_from(row: Any) -> Account:
    identity, tenant_id, quota_id, period, balance, held, spent, scope, scope_id, unit, window, model, removed = row
    return Account(
        id=AccountId(as_uuid(identity)),
        quota_id=QuotaId(as_uuid(quota_id)),
        tenant_id=TenantId(as_uuid(tenant_id)),
        scope=Scope(scope),
        scope_id=as_uuid(scope_id),
        unit=Unit(unit),
        window=Window(window),
        period=period,
        model=model or None,
        balance=balance,
        held=held,
        spent=spent,
        removed=bool(removed),
    )


def _holds_from(rows: Iterable[Any]) -> list[Hold]:
    """Holds from rows of holds joined with their lines."""
    lines: defaultdict[UUID, list[HoldLine]] = defaultdict(list)
    heads: dict[UUID, Any] = {}
    for row in rows:
        hold_id = as_uuid(row[0])
        heads[hold_id] = row
        account_id, unit, amount, model = row[len(_HOLD) :]
        if account_id is not None:
            line = HoldLine(
                account_id=AccountId(as_uuid(account_id)), unit=Unit(unit), amount=amount, model=model or None
            )
            lines[hold_id].append(line)
    return [_hold_from(row, lines[hold_id]) for hold_id, row in heads.items()]


def _hold_from(row: Any, lines: Iterable[HoldLine]) -> Hold:
    identity, tenant_id, user_id, key_id, model, request_id, cap, state, created_at, expires_at, noted, cancel = row[
        : len(_HOLD)
    ]
    return Hold(
        id=HoldId(as_uuid(identity)),
        tenant_id=TenantId(as_uuid(tenant_id)),
        user_id=UserId(as_uuid(user_id)),
        api_key_id=None if key_id is None else ApiKeyId(as_uuid(key_id)),
        model=model,
        request_id=request_id,
        lines=tuple(lines),
        output_cap=cap,
        created_at=moment_from(created_at),
        expires_at=moment_from(expires_at),
        state=HoldState(state),
        noted=noted_from(noted),
        cancel_requested=bool(cancel),
    )


def _hold_row(hold: Hold) -> tuple[Any, ...]:
    return (
        hold.id,
        hold.tenant_id,
        hold.user_id,
        hold.api_key_id,
        hold.model,
        hold.request_id,
        hold.output_cap,
        hold.state,
        hold.created_at,
        hold.expires_at,
        noted_json(hold.noted),
        hold.cancel_requested,
    )


def _line_row(hold: Hold, line: HoldLine) -> tuple[Any, ...]:
    return (hold.id, line.account_id, hold.tenant_id, line.unit, line.amount, line.model or "")


def _entry_row(entry: Entry) -> tuple[Any, ...]:
    return (
        entry.id,
        entry.tenant_id,
        entry.scope_id,
        entry.account_id,
        entry.unit,
        entry.amount,
        entry.kind,
        entry.created_at,
        entry.hold_id,
        entry.message_id,
        entry.request_id,
        entry.model,
        entry.reason,
        entry.actor_id,
    )


def _limit_entry(account: Account, at: datetime) -> Entry:
    """The first line of a new period: its limit."""
    return Entry(
        id=new_id(),
        tenant_id=account.tenant_id,
        scope_id=account.scope_id,
        account_id=account.id,
        unit=account.unit,
        amount=account.balance,
        kind=EntryKind.LIMIT,
        created_at=at,
    )


def _renewed_row(hold: Hold) -> tuple[Any, ...]:
    return (hold.expires_at, hold.output_cap, noted_json(hold.noted), hold.id)


def _closed_rows(closings: Iterable[Closing]) -> list[tuple[Any, ...]]:
    """One row a hold: the last word counts where it expired and was settled in one batch."""
    return list({closing.hold.id: (closing.state, closing.at, closing.hold.id) for closing in closings}.values())
