"""Quotas as administrators set, read, adjust and remove them.

Tenant admins look after their users, keys and what new users get; what a tenant may spend is the platform's word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from src.domain.identity.administration import audit_event, tenant_of_user
from src.domain.identity.api_keys import tenant_of_key
from src.domain.identity.model import ApiKeyId, Principal, TenantId, UserId
from src.domain.identity.rules import existing, name_of
from src.domain.ledger.model import MAX_AMOUNT, Account, Entry, QuotaId, Scope, Unit, Window
from src.domain.ledger.periods import period_of, resets_at
from src.domain.ledger.quotas import Adjustment, LimitChange, Quota, QuotaKey
from src.domain.ledger.standing import QuotaStanding, quota_standings, standings_of
from src.domain.ledger.use_cases import check_adjustment
from src.domain.unit_of_work import OpenUnitOfWork, UnitOfWork
from src.shared.clock import Clock
from src.shared.errors import Conflict, InvalidRequest, NotAllowed, NotFound
from src.shared.pages import Page, PageRequest

Limits = Mapping[tuple[Unit, Window], int | None]
"""A user's limits over all models; None where there is none."""

LIMITS = tuple((unit, window) for unit in Unit for window in (Window.DAY, Window.MONTH))
"""The names of a user's limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaOrder:
    """A quota as it should be. `scope_id` of a tenant's quota and of those for new users is the tenant's id."""

    scope: Scope
    scope_id: UUID
    unit: Unit
    window: Window
    limit: int
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """Who changes a tenant's quotas, and when."""

    principal: Principal
    tenant_id: TenantId
    time_zone: str
    at: datetime
    request_id: str | None

    def period(self, window: Window) -> str:
        return period_of(window, self.at, self.time_zone)

    def standing(self, quota: Quota, account: Account) -> QuotaStanding:
        ends = resets_at(quota.key.window, self.at, self.time_zone)
        return QuotaStanding(quota=quota, account=account, resets_at=ends)


async def put_quota(
    principal: Principal,
    order: QuotaOrder,
    *,
    open_uow: OpenUnitOfWork,
    clock: Clock,
    request_id: str | None = None,
) -> QuotaStanding:
    """Make the quota, or change its limit at once: that of the present period and all later ones.

    A prepaid quota is given or taken what makes its balance and what was spent come to the limit. Raises NotAllowed,
    NotFound (tenant, user, key), InvalidRequest (limit, model), Conflict for a key that has ended.
    """
    principal.require_admin()
    _check_limit(order.limit, "limit")
    tenant_id = await _tenant_of_scope(principal, order.scope, order.scope_id, open_uow)
    _require_may_change(principal, order.scope, order.scope_id)
    async with open_uow(tenant_id) as uow:
        change = await _begun(uow, principal, tenant_id, clock(), request_id)
        await _require_scope(uow, order, change.at)
        await _require_model(uow, order.model)
        key = QuotaKey(
            tenant_id=tenant_id,
            scope=order.scope,
            scope_id=order.scope_id,
            unit=order.unit,
            window=order.window,
            model=order.model,
        )
        standing = await _set_limit(uow, key, order.limit, change)
        await uow.commit()
    return standing


async def list_quotas(
    principal: Principal,
    page: PageRequest,
    *,
    open_uow: OpenUnitOfWork,
    clock: Clock,
    tenant_id: TenantId | None = None,
    scope: Scope | None = None,
    scope_id: UUID | None = None,
) -> Page[QuotaStanding]:
    """The quotas of a tenant in the principal's reach, by default their own. Raises NotAllowed, NotFound."""
    reached = principal.reach_of_tenant(tenant_id or principal.tenant_id)
    async with open_uow(reached) as uow:
        zone = await _zone_of(uow, reached)
        found = await uow.accounts.quotas(page, scope=scope, scope_id=scope_id)
        return Page(rows=await quota_standings(uow, found.rows, clock(), zone), has_more=found.has_more)


async def get_quota(
    principal: Principal, quota_id: QuotaId, *, open_uow: OpenUnitOfWork, clock: Clock
) -> QuotaStanding:
    """A quota in the principal's reach as it stands now. Raises NotAllowed, NotFound."""
    tenant_id = await _tenant_of_quota(principal, quota_id, open_uow)
    async with open_uow(tenant_id) as uow:
        quota = existing(await uow.accounts.quota(quota_id), "quota")
        (standing,) = await quota_standings(uow, [quota], clock(), await _zone_of(uow, tenant_id))
    return standing


async def remove_quota(
    principal: Principal,
    quota_id: QuotaId,
    *,
    open_uow: OpenUnitOfWork,
    clock: Clock,
    request_id: str | None = None,
) -> None:
    """From now on it limits nothing; what it holds is settled all the same. Raises NotAllowed, NotFound."""
    tenant_id = await _tenant_of_quota(principal, quota_id, open_uow)
    async with open_uow(tenant_id) as uow:
        quota = existing(await uow.accounts.quota(quota_id), "quota")
        _require_may_change(principal, quota.key.scope, quota.key.scope_id)
        await _remove(uow, quota, await _begun(uow, principal, tenant_id, clock(), request_id))
        await uow.commit()


async def adjust_quota(
    principal: Principal,
    quota_id: QuotaId,
    amount: int,
    reason: str | None = None,
    *,
    open_uow: OpenUnitOfWork,
    clock: Clock,
    request_id: str | None = None,
) -> QuotaStanding:
    """Top up (positive) or deduct (negative): for good where it is prepaid, else in the present period only.

    Raises NotAllowed, NotFound, InvalidRequest, Conflict when more is deducted than is free, or from a template.
    """
    principal.require_admin()
    check_adjustment(amount)
    why = None if reason is None else name_of(reason, "reason")
    tenant_id = await _tenant_of_quota(principal, quota_id, open_uow)
    async with open_uow(tenant_id) as uow:
        quota = existing(await uow.accounts.quota(quota_id), "quota")
        _require_may_change(principal, quota.key.scope, quota.key.scope_id)
        if quota.key.scope is Scope.NEW_USER:
            raise Conflict("A quota for new users has no balance of its own; PUT /admin/quotas changes its limit.")
        change = await _begun(uow, principal, tenant_id, clock(), request_id)
        adjustment = Adjustment(
            key=quota.key,
            at=change.at,
            period=change.period(quota.key.window),
            reason=why,
            actor_id=principal.user_id,
            request_id=request_id,
            amount=amount,
        )
        account = await uow.accounts.adjust(adjustment)
        if account.quota_id != quota_id:
            raise NotFound("No such quota.")  # removed a moment ago: the gift would have made another one
        await _record(uow, "quota.adjusted", quota, change, {"amount": amount, "reason": why})
        await uow.commit()
    return change.standing(quota, account)


async def quota_entries(
    principal: Principal, quota_id: QuotaId, page: PageRequest, *, open_uow: OpenUnitOfWork
) -> Page[Entry]:
    """The lines of a quota, of all its periods, newest first. Raises NotAllowed, NotFound."""
    tenant_id = await _tenant_of_quota(principal, quota_id, open_uow)
    async with open_uow(tenant_id) as uow:
        quota = existing(await uow.accounts.quota(quota_id), "quota")
        return await uow.accounts.entries(page, scope_id=quota.key.scope_id, quota_id=quota_id)


async def set_user_limits(
    principal: Principal,
    user_id: UserId,
    changes: Limits,
    *,
    open_uow: OpenUnitOfWork,
    clock: Clock,
    request_id: str | None = None,
) -> Limits:
    """Set the user's limits per day and month that are named, remove those that are None; all limits as they are then.

    Raises NotAllowed, NotFound, InvalidRequest.
    """
    principal.require_admin()
    for (unit, window), limit in changes.items():
        if limit is not None:
            _check_limit(limit, f"{unit.value}_per_{window.value}")
    tenant_id = await tenant_of_user(principal, user_id, open_uow=open_uow)
    async with open_uow(tenant_id) as uow:
        existing(await uow.identity.user(user_id), "user")
        change = await _begun(uow, principal, tenant_id, clock(), request_id)
        had = await _limits(uow, user_id, change.at, change.time_zone)
        for name in _in_lock_order(changes, had):
            unit, window = name
            limit = changes[name]
            if limit is not None:
                key = QuotaKey(tenant_id=tenant_id, scope=Scope.USER, scope_id=user_id, unit=unit, window=window)
                await _set_limit(uow, key, limit, change)
            elif name in had:
                await _remove(uow, had[name].quota, change)
        found = await _limits(uow, user_id, change.at, change.time_zone)
        await uow.commit()
    return _told(found)


async def user_limits(principal: Principal, user_id: UserId, *, open_uow: OpenUnitOfWork, clock: Clock) -> Limits:
    """The limits per day and month of a user in the principal's reach. Raises NotAllowed, NotFound."""
    principal.require_admin()
    tenant_id = await tenant_of_user(principal, user_id, open_uow=open_uow)
    async with open_uow(tenant_id) as uow:
        existing(await uow.identity.user(user_id), "user")
        return _told(await _limits(uow, user_id, clock(), await _zone_of(uow, tenant_id)))


async def _begun(
    uow: UnitOfWork, principal: Principal, tenant_id: TenantId, at: datetime, request_id: str | None
) -> _Change:
    zone = await _zone_of(uow, tenant_id)
    return _Change(principal=principal, tenant_id=tenant_id, time_zone=zone, at=at, request_id=request_id)


async def _zone_of(uow: UnitOfWork, tenant_id: TenantId) -> str:
    return existing(await uow.directory.tenant(tenant_id), "tenant").time_zone


async def _tenant_of_scope(principal: Principal, scope: Scope, scope_id: UUID, open_uow: OpenUnitOfWork) -> TenantId:
    match scope:
        case Scope.TENANT | Scope.NEW_USER:
            return principal.reach_of_tenant(TenantId(scope_id))
        case Scope.USER:
            return await tenant_of_user(principal, UserId(scope_id), open_uow=open_uow)
        case Scope.API_KEY:
            return await tenant_of_key(principal, ApiKeyId(scope_id), open_uow=open_uow)


async def _tenant_of_quota(principal: Principal, quota_id: QuotaId, open_uow: OpenUnitOfWork) -> TenantId:
    principal.require_admin()
    if not principal.is_platform_admin:
        return principal.tenant_id
    async with open_uow(None) as uow:
        return existing(await uow.directory.tenant_of_quota(quota_id), "quota")


def _require_may_change(principal: Principal, scope: Scope, scope_id: UUID) -> None:
    """Nobody raises the limit that they are themselves under, unless they stand above it."""
    if scope is Scope.TENANT and not principal.is_platform_admin:
        raise NotAllowed("A tenant's own quotas are set by the platform's administrators.")
    if principal.api_key is not None and principal.api_key.id == scope_id:
        raise NotAllowed("An API key cannot change its own quotas; use another credential.")


async def _require_scope(uow: UnitOfWork, order: QuotaOrder, now: datetime) -> None:
    if order.scope is Scope.USER:
        existing(await uow.identity.user(UserId(order.scope_id)), "user")
    elif order.scope is Scope.API_KEY:
        key = existing(await uow.identity.key(ApiKeyId(order.scope_id)), "API key")
        if not key.is_live(now):
            raise Conflict("The key was revoked or has expired; nothing is spent with it any more.")


async def _require_model(uow: UnitOfWork, model: str | None) -> None:
    if model is None:
        return
    catalog = await uow.catalog.load()
    if model not in catalog.models and model not in catalog.chains:
        raise InvalidRequest(f"There is no model or chain {model[:200]!r}.", param="model")


def _check_limit(limit: int, param: str) -> None:
    if not 0 <= limit <= MAX_AMOUNT:
        raise InvalidRequest(f"{param} must lie within 0 and {MAX_AMOUNT}.", param=param)


async def _set_limit(uow: UnitOfWork, key: QuotaKey, limit: int, change: _Change) -> QuotaStanding:
    account = await uow.accounts.set_limit(
        LimitChange(
            key=key,
            at=change.at,
            period=change.period(key.window),
            actor_id=change.principal.user_id,
            request_id=change.request_id,
            limit=limit,
        )
    )
    quota = existing(await uow.accounts.quota(account.quota_id), "quota")
    await _record(uow, "quota.put", quota, change, {"limit": limit})
    return change.standing(quota, account)


async def _remove(uow: UnitOfWork, quota: Quota, change: _Change) -> None:
    if not await uow.accounts.remove_quota(quota.id, change.at):
        raise NotFound("No such quota.")
    await _record(uow, "quota.removed", quota, change, {})


async def _limits(
    uow: UnitOfWork, user_id: UserId, at: datetime, time_zone: str
) -> dict[tuple[Unit, Window], QuotaStanding]:
    standings = await standings_of(uow, [(Scope.USER, user_id)], at, time_zone)
    keys = ((standing.quota.key, standing) for standing in standings)
    return {
        (key.unit, key.window): standing
        for key, standing in keys
        if key.model is None and key.window is not Window.NONE
    }


def _in_lock_order(changes: Limits, had: Mapping[tuple[Unit, Window], QuotaStanding]) -> list[tuple[Unit, Window]]:
    """Accounts that calls pay from first, by their ids, as calls lock them: else we could wait for each other."""

    def order(name: tuple[Unit, Window]) -> tuple[bool, bool, int, tuple[Unit, Window]]:
        standing = had.get(name)
        is_new = standing is None or standing.is_untouched
        return changes[name] is None, is_new, 0 if standing is None else standing.account.id.int, name

    return sorted(changes, key=order)


def _told(limits: Mapping[tuple[Unit, Window], QuotaStanding]) -> Limits:
    return {name: limits[name].quota.limit if name in limits else None for name in LIMITS}


async def _record(uow: UnitOfWork, action: str, quota: Quota, change: _Change, details: Mapping[str, Any]) -> None:
    key = quota.key
    about = {
        "scope": key.scope.value,
        "scope_id": str(key.scope_id),
        "unit": key.unit.value,
        "window": key.window.value,
        "model": key.model,
    }
    event = audit_event(
        change.principal,
        action=action,
        object_kind="quota",
        object_id=str(quota.id),
        now=change.at,
        request_id=change.request_id,
        details={**about, **details},
        tenant_id=change.tenant_id,
    )
    await uow.audit.record(event)
