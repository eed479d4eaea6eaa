"""Quotas: what administrators allow a scope to spend, and how they change it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from src.domain.identity.model import TenantId
from src.domain.ledger.model import Account, AccountId, QuotaId, Scope, Unit, Window
from src.domain.ledger.periods import resets_at


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaKey:
    """What tells one quota of a tenant from another: of a key there is one at a time."""

    tenant_id: TenantId
    scope: Scope
    scope_id: UUID
    unit: Unit
    window: Window = Window.NONE
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A limit per day or month, or a prepaid balance (`limit` is None: what its account was given says it).

    Each period of it is an account of its own. A removed quota limits nothing any more; its accounts stay in the books.
    """

    id: QuotaId
    key: QuotaKey
    limit: int | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaChange:
    """A change of what may be spent in the current period, which is `period` of the quota."""

    key: QuotaKey
    at: datetime
    period: str = ""
    reason: str | None = None
    actor_id: UUID | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment(QuotaChange):
    """Give (positive) or take (negative) an amount. The first gift to a scope makes its prepaid quota."""

    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChange(QuotaChange):
    """From now on the quota's limit is this, in the current period too; a limit below what was spent refuses all."""

    limit: int


def untouched(quota: Quota, period: str) -> Account:
    """The account of a period in which nothing was done yet."""
    key = quota.key
    return Account(
        id=AccountId(quota.id),
        quota_id=quota.id,
        tenant_id=key.tenant_id,
        scope=key.scope,
        scope_id=key.scope_id,
        unit=key.unit,
        window=key.window,
        period=period,
        model=key.model,
        balance=quota.limit or 0,
    )


def quota_details(account: Account, needed: int, at: datetime, time_zone: str) -> dict[str, Any]:
    """What a refusal says about the account that refused."""
    return {
        "scope": account.scope.value,
        "unit": account.unit.value,
        "window": account.window.value,
        "model": account.model,
        "limit": account.limit,
        "used": account.spent,
        "held": account.held,
        "needed": needed,
        "resets_at": resets_at(account.window, at, time_zone),
    }
