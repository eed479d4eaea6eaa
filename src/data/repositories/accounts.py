"""Accounts, entries and usage of one tenant."""

from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select

from src.data.ledger_batch import Adjust, apply_batch
from src.data.ledger_records import NO_KEY
from src.data.ledger_tables import accounts, entries, usage_days
from src.data.repositories.base import TenantRepository, values_of
from src.domain.identity.model import UserId
from src.domain.ledger.model import Account, Adjustment, Entry, Scope
from src.domain.ledger.ports import UsageRow
from src.shared.errors import GatewayError
from src.shared.pages import Page, PageRequest

MAX_USAGE_ROWS = 10_000


class SqlAccountRepository(TenantRepository):
    """The ledger in SQL, for everything that is not the hot path."""

    async def of_scope(self, scope: Scope, scope_id: UUID) -> list[Account]:
        mine = (
            accounts.c.tenant_id == self._tenant_id,
            accounts.c.scope == scope,
            accounts.c.scope_id == scope_id,
        )
        rows = await self._connection.execute(select(accounts).where(*mine).order_by(accounts.c.id))
        return [_account_from(row) for row in rows]

    async def adjust(self, adjustment: Adjustment) -> Account:
        self._require_own(adjustment.tenant_id)
        (result,) = await apply_batch(self._connection, [Adjust(adjustment)])
        if isinstance(result, GatewayError):
            raise result
        assert isinstance(result, Account)  # noqa: S101 - what an adjustment gives
        return result

    async def entries(self, scope: Scope, scope_id: UUID, page: PageRequest) -> Page[Entry]:
        statement = (
            select(entries)
            .join(accounts, accounts.c.id == entries.c.account_id)
            .where(
                entries.c.tenant_id == self._tenant_id,
                accounts.c.tenant_id == self._tenant_id,
                accounts.c.scope == scope,
                accounts.c.scope_id == scope_id,
            )
        )
        return await self._page(statement, entries.c.id, page, _entry_from, newest_first=True)

    async def tokens_used(self, user_id: UserId) -> int:
        statement = select(func.sum(usage_days.c.input_tokens + usage_days.c.output_tokens)).where(
            usage_days.c.tenant_id == self._tenant_id, usage_days.c.user_id == user_id
        )
        return int((await self._connection.execute(statement)).scalar() or 0)

    async def usage(self, *, user_id: UserId | None, since: date, until: date) -> list[UsageRow]:
        key = (usage_days.c.day, usage_days.c.model, usage_days.c.api_key_id)
        summed = (
            usage_days.c.calls,
            usage_days.c.input_tokens,
            usage_days.c.output_tokens,
            usage_days.c.cost_micro_usd,
        )
        statement = (
            select(*key, *(func.sum(column).label(column.name) for column in summed))
            .where(usage_days.c.tenant_id == self._tenant_id, usage_days.c.day.between(since, until))
            .group_by(*key)
            .order_by(*key)
            .limit(MAX_USAGE_ROWS)
        )
        if user_id is not None:
            statement = statement.where(usage_days.c.user_id == user_id)
        return [_usage_from(row) for row in await self._connection.execute(statement)]


def _account_from(row: Row[Any]) -> Account:
    return Account(**{**values_of(row), "model": row.model or None})


def _entry_from(row: Row[Any]) -> Entry:
    return Entry(**values_of(row))


def _usage_from(row: Row[Any]) -> UsageRow:
    return UsageRow(
        day=row.day,
        model=row.model,
        api_key_id=None if row.api_key_id == NO_KEY else row.api_key_id,
        calls=int(row.calls),
        input_tokens=int(row.input_tokens),
        output_tokens=int(row.output_tokens),
        cost_micro_usd=int(row.cost_micro_usd),
    )
