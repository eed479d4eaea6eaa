"""Accounts and holds: locked and read, then written back, with a fixed number of statements."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Dialect, select
from sqlalchemy.ext.asyncio import AsyncConnection

from src.data.bulk import as_uuid, id_list, ids_sql, insert_rows, quoted, update_locked_rows
from src.data.ledger_tables import accounts, entries, hold_lines, holds
from src.domain.identity.model import TenantId
from src.domain.ledger.book import Book, ScopeKey
from src.domain.ledger.model import (
    Account,
    AccountId,
    Adjustment,
    Closing,
    Entry,
    Hold,
    HoldId,
    HoldLine,
    HoldState,
    Scope,
    Unit,
    Window,
)
from src.shared.ids import new_id

_ACCOUNT = (
    "id",
    "tenant_id",
    "scope",
    "scope_id",
    "unit",
    "window",
    "period",
    "model",
    "balance",
    "held",
    "spent",
)
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
)
_LINE = ("hold_id", "account_id", "tenant_id", "unit", "amount")
_ENTRY = (
    "id",
    "tenant_id",
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

_OF_SCOPES_POSTGRESQL = """
    SELECT a.id FROM unnest($2::uuid[], $3::text[], $4::uuid[]) AS wanted (tenant_id, scope, scope_id)
    JOIN accounts a ON a.tenant_id = wanted.tenant_id AND a.scope = wanted.scope AND a.scope_id = wanted.scope_id
"""
_OF_SCOPES_SQLITE = """
    SELECT a.id FROM json_each(?) AS wanted CROSS JOIN accounts a
    ON a.tenant_id = wanted.value ->> 0 AND a.scope = wanted.value ->> 1 AND a.scope_id = wanted.value ->> 2
"""


async def lock_accounts(
    connection: AsyncConnection, scopes: Collection[ScopeKey], ids: Collection[AccountId]
) -> list[Account]:
    """The accounts of those scopes and with those ids, locked in the order of their ids."""
    if not scopes and not ids:
        return []
    dialect = connection.dialect
    columns = ", ".join(f"account.{name}" for name in quoted(dialect, _ACCOUNT))
    is_postgres = dialect.name == "postgresql"
    wanted = f"{ids_sql(dialect.name)} UNION {_OF_SCOPES_POSTGRESQL if is_postgres else _OF_SCOPES_SQLITE}"
    sql = f"SELECT {columns} FROM accounts account WHERE account.id IN ({wanted}) ORDER BY account.id"  # noqa: S608
    if is_postgres:
        sql += " FOR UPDATE OF account"
    parameters = (id_list(dialect, ids), *_scope_parameters(dialect, scopes))
    return [_account_from(row) for row in await connection.exec_driver_sql(sql, parameters)]


async def lock_holds(connection: AsyncConnection, ids: Collection[HoldId]) -> dict[HoldId, HoldState]:
    """The states of those holds that exist, locked in the order of their ids."""
    if not ids:
        return {}
    dialect = connection.dialect
    sql = f"SELECT id, state FROM holds WHERE id IN ({ids_sql(dialect.name)}) ORDER BY id"  # noqa: S608
    if dialect.name == "postgresql":
        sql += " FOR UPDATE"
    rows: Iterable[Any] = await connection.exec_driver_sql(sql, (id_list(dialect, ids),))
    return {HoldId(as_uuid(row[0])): HoldState(row[1]) for row in rows}


async def load_holds(connection: AsyncConnection, ids: Collection[HoldId]) -> list[Hold]:
    """Those holds that exist, with their lines."""
    if not ids:
        return []
    lines: defaultdict[UUID, list[HoldLine]] = defaultdict(list)
    for row in await connection.execute(select(hold_lines).where(hold_lines.c.hold_id.in_(ids))):
        lines[row.hold_id].append(HoldLine(account_id=row.account_id, unit=row.unit, amount=row.amount))
    rows = await connection.execute(select(holds).where(holds.c.id.in_(ids)).order_by(holds.c.id))
    return [_hold_from(row, lines[row.id]) for row in rows]


async def make_prepaid(connection: AsyncConnection, adjustments: Iterable[Adjustment]) -> None:
    """Empty prepaid accounts for top-ups, where there are none. Whoever is first makes them; nobody fails."""
    rows = [
        (new_id(), each.tenant_id, each.scope, each.scope_id, each.unit, Window.NONE, "", "", 0, 0, 0)
        for each in adjustments
    ]
    await insert_rows(connection, accounts, _ACCOUNT, rows, on_conflict="DO NOTHING")


async def write_back(connection: AsyncConnection, book: Book) -> None:
    """Everything the book says has changed, and nothing else."""
    changed = [book.account(account_id) for account_id in book.changed]
    balances = [(account.id, account.balance, account.held, account.spent) for account in changed]
    await update_locked_rows(connection, accounts, ("balance", "held", "spent"), balances)
    await insert_rows(connection, holds, _HOLD, [_hold_row(hold) for hold in book.opened])
    lines = [_line_row(hold, line) for hold in book.opened for line in hold.lines]
    await insert_rows(connection, hold_lines, _LINE, lines)
    await insert_rows(connection, entries, _ENTRY, [_entry_row(entry) for entry in book.entries])
    await update_locked_rows(connection, holds, ("state", "closed_at"), _closed_rows(book.closed))


def _scope_parameters(dialect: Dialect, scopes: Collection[ScopeKey]) -> Sequence[Any]:
    if dialect.name == "postgresql":
        ordered = list(scopes)
        return [[key[place] for key in ordered] for place in range(3)]
    listed = [(tenant_id.hex, scope.value, scope_id.hex) for tenant_id, scope, scope_id in scopes]
    return (orjson.dumps(listed).decode(),)


def _account_from(row: Any) -> Account:
    identity, tenant_id, scope, scope_id, unit, window, period, model, balance, held, spent = row
    return Account(
        id=AccountId(as_uuid(identity)),
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
    )


def _hold_from(row: Any, lines: Iterable[HoldLine]) -> Hold:
    return Hold(
        id=row.id,
        tenant_id=row.tenant_id,
        user_id=row.user_id,
        api_key_id=row.api_key_id,
        model=row.model,
        request_id=row.request_id,
        lines=tuple(lines),
        output_cap=row.output_cap_tokens,
        created_at=row.created_at,
        expires_at=row.expires_at,
        state=row.state,
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
    )


def _line_row(hold: Hold, line: HoldLine) -> tuple[Any, ...]:
    return (hold.id, line.account_id, hold.tenant_id, line.unit, line.amount)


def _entry_row(entry: Entry) -> tuple[Any, ...]:
    return (
        entry.id,
        entry.tenant_id,
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


def _closed_rows(closings: Iterable[Closing]) -> list[tuple[Any, ...]]:
    """One row a hold: the last word counts where it expired and was settled in one batch."""
    return list({closing.hold.id: (closing.hold.id, closing.state, closing.at) for closing in closings}.values())
