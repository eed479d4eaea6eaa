"""Quotas, accounts, entries and usage of one tenant."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, select, tuple_, update

from src.data.bulk import insert_rows
from src.data.driver import steady_plans
from src.data.ledger_store import lock_accounts, write_back
from src.data.ledger_tables import NO_KEY, accounts, entries, quotas, usage_days
from src.data.repositories.base import TenantRepository, values_of
from src.domain.identity.model import UserId
from src.domain.ledger.book import Book
from src.domain.ledger.model import Account, AccountId, Entry, QuotaId, Scope, Window
from src.domain.ledger.ports import UsageRow
from src.domain.ledger.quotas import Adjustment, LimitChange, Quota, QuotaChange, QuotaKey
from src.shared.errors import NotFound
from src.shared.ids import new_id
from src.shared.pages import Page, PageRequest

MAX_USAGE_ROWS = 10_000

_KEY = ("tenant_id", "scope", "scope_id", "unit", "window", "model")
_QUOTA = ("id", *_KEY, "limit_amount", "created_at", "updated_at")
_IN_FORCE = f"({', '.join(_KEY).replace('window', chr(34) + 'window' + chr(34))}) WHERE removed_at IS NULL"
_ACCOUNT = ("id", "tenant_id", "quota_id", "period", "balance", "held", "spent")


class SqlAccountRepository(TenantRepository):
    """The ledger in SQL, for everything that is not the hot path."""

    async def quotas(
        self, page: PageRequest, *, scope: Scope | None = None, scope_id: UUID | None = None
    ) -> Page[Quota]:
        statement = self._quotas()
        if scope is not None:
            statement = statement.where(quotas.c.scope == scope)
        if scope_id is not None:
            statement = statement.where(quotas.c.scope_id == scope_id)
        return await self._page(statement, quotas.c.id, page, _quota_from)

    async def quota(self, quota_id: QuotaId) -> Quota | None:
        return await self._first(self._quotas().where(quotas.c.id == quota_id), _quota_from)

    async def quotas_of(self, scopes: Sequence[tuple[Scope, UUID]]) -> list[Quota]:
        wanted = tuple_(quotas.c.scope, quotas.c.scope_id).in_(scopes)
        rows = await self._connection.execute(self._quotas().where(wanted).order_by(quotas.c.id))
        return [_quota_from(row) for row in rows]

    async def accounts_of(self, quota_ids: Sequence[QuotaId], periods: Sequence[str]) -> list[Account]:
        statement = (
            select(accounts, *(quotas.c[name] for name in _KEY[1:]), quotas.c.removed_at)
            .join(quotas, quotas.c.id == accounts.c.quota_id)
            .where(
                accounts.c.tenant_id == self._tenant_id,
                accounts.c.quota_id.in_(quota_ids),
                accounts.c.period.in_(periods),
            )
        )
        return [_account_from(row) for row in await self._connection.execute(statement)]

    async def set_limit(self, change: LimitChange) -> Account:
        book = await self._account_for(change, make=True)
        account = book.set_limit(change)
        await write_back(self._connection, book)
        return account

    async def adjust(self, adjustment: Adjustment) -> Account:
        is_gift = adjustment.amount >= 0 and adjustment.key.window is Window.NONE
        book = await self._account_for(adjustment, make=is_gift)
        account = book.adjust(adjustment)
        await write_back(self._connection, book)
        return account

    async def remove_quota(self, quota_id: QuotaId, at: datetime) -> bool:
        mine = (quotas.c.tenant_id == self._tenant_id, quotas.c.id == quota_id, quotas.c.removed_at.is_(None))
        return bool((await self._write(update(quotas).where(*mine).values(removed_at=at))).rowcount)

    async def entries(self, page: PageRequest, *, scope_id: UUID, quota_id: QuotaId | None = None) -> Page[Entry]:
        statement = select(entries).where(entries.c.tenant_id == self._tenant_id, entries.c.scope_id == scope_id)
        if quota_id is not None:
            own = select(accounts.c.id).where(accounts.c.quota_id == quota_id)
            statement = statement.where(entries.c.account_id.in_(own))
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

    def _quotas(self) -> Select[Any]:
        return select(quotas).where(quotas.c.tenant_id == self._tenant_id, quotas.c.removed_at.is_(None))

    async def _account_for(self, change: QuotaChange, *, make: bool) -> Book:
        """The account of the change, locked, with its quota before it: made where there are none.

        A limit is written into the quota first: whoever opens its next period reads it there. A period that begins
        with an adjustment begins with the limit nonetheless.
        """
        key = change.key
        self._require_own(key.tenant_id)
        if make:
            await self._put_quota(change)
        statement = self._quotas().where(*(quotas.c[name] == (getattr(key, name) or "") for name in _KEY))
        quota = await self._first(statement, _quota_from)
        if quota is None:
            if change.key.window is Window.NONE:
                return Book([])
            raise NotFound("There is no such quota.")
        made_id = AccountId(new_id())
        row = (made_id, key.tenant_id, quota.id, change.period, 0, 0, 0)
        await insert_rows(self._connection, accounts, _ACCOUNT, [row], on_conflict="DO NOTHING")
        found = select(accounts.c.id).where(accounts.c.quota_id == quota.id, accounts.c.period == change.period)
        account_id = (await self._connection.execute(found)).scalar_one()
        await steady_plans(self._connection)
        book = Book((await lock_accounts(self._connection, (), [account_id]))[0])
        if account_id == made_id and isinstance(change, Adjustment) and quota.limit is not None:
            book.set_limit(LimitChange(key=key, at=change.at, period=change.period, limit=quota.limit))
        return book

    async def _put_quota(self, change: QuotaChange) -> None:
        key = change.key
        limit = change.limit if isinstance(change, LimitChange) and key.window is not Window.NONE else None
        values = (key.tenant_id, key.scope, key.scope_id, key.unit, key.window, key.model or "")
        row = (new_id(), *values, limit, change.at, change.at)
        renewed = "limit_amount = excluded.limit_amount, updated_at = excluded.updated_at"
        await insert_rows(self._connection, quotas, _QUOTA, [row], on_conflict=f"{_IN_FORCE} DO UPDATE SET {renewed}")


def _quota_from(row: Row[Any]) -> Quota:
    key = QuotaKey(**{name: getattr(row, name) for name in _KEY[:-1]}, model=row.model or None)
    return Quota(id=row.id, key=key, limit=row.limit_amount, created_at=row.created_at, updated_at=row.updated_at)


def _account_from(row: Row[Any]) -> Account:
    values = values_of(row)
    removed = values.pop("removed_at") is not None
    return Account(**{**values, "model": row.model or None, "removed": removed})


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
