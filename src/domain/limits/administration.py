"""Rate limits as administrators set, read and remove them.

Tenant admins look after their users and keys; the limits of a tenant, and of a model over all its callers, are the
platform's word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from src.domain.identity.administration import audit_event, tenant_of_user
from src.domain.identity.api_keys import tenant_of_key
from src.domain.identity.model import ApiKeyId, Principal, TenantId, UserId
from src.domain.identity.rules import existing
from src.domain.limits.model import MAX_LIMIT, LimitName, LimitScope, RateLimit, RateLimitId
from src.domain.limits.ports import RateLimitsView
from src.domain.unit_of_work import OpenUnitOfWork, UnitOfWork
from src.shared.clock import Clock
from src.shared.errors import Conflict, InvalidRequest, NotAllowed, NotFound
from src.shared.ids import new_id, parse_id
from src.shared.pages import Page, PageRequest

Limits = Mapping[LimitName, int | None]
"""Limits by name; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitAdmin:
    """What changing rate limits needs."""

    open_uow: OpenUnitOfWork
    view: RateLimitsView
    clock: Clock


async def put_rate_limit(
    principal: Principal, scope: LimitScope, scope_id: str, limits: Limits, admin: RateLimitAdmin, request_id: str
) -> RateLimit:
    """Set all limits of a scope: what is not named is None afterwards.

    Raises NotAllowed, NotFound (tenant, user, key, model), InvalidRequest, Conflict for a key that has ended.
    """
    principal.require_admin()
    if not any(limits.values()):
        raise InvalidRequest(f"Name at least one of {', '.join(LimitName)}; DELETE removes limits.")
    named = {name: limits.get(name) for name in LimitName}
    return existing(await _change(principal, scope, scope_id, named, admin, request_id), "rate limit")


async def list_rate_limits(
    principal: Principal,
    page: PageRequest,
    *,
    open_uow: OpenUnitOfWork,
    tenant_id: TenantId | None = None,
    scope: LimitScope | None = None,
) -> Page[RateLimit]:
    """Those of one's own tenant; for platform admins those of any, or with None all, models' too.

    Raises NotAllowed, NotFound.
    """
    principal.require_admin()
    if tenant_id is not None:
        principal.reach_of_tenant(tenant_id)
    elif not principal.is_platform_admin:
        tenant_id = principal.tenant_id
    async with open_uow(principal.tenant_id) as uow:
        return await uow.limits.page(page, tenant_id=tenant_id, scope=scope)


async def remove_rate_limit(
    principal: Principal, limit_id: RateLimitId, admin: RateLimitAdmin, request_id: str
) -> None:
    """From now on the scope is not limited. Raises NotAllowed, NotFound."""
    principal.require_admin()
    async with admin.open_uow(principal.tenant_id) as uow:
        limit = existing(await uow.limits.get(limit_id), "rate limit")
        if limit.tenant_id != principal.tenant_id and not principal.is_platform_admin:
            raise NotFound("No such rate limit.")
        _require_may_change(principal, limit.scope, limit.scope_id)
        await _remove(uow, principal, limit, admin, request_id)
        await uow.commit()
    await admin.view.refresh()


async def set_user_rate_limits(
    principal: Principal, user_id: UserId, changes: Limits, admin: RateLimitAdmin, request_id: str
) -> Limits:
    """Set the limits of a user that are named, remove those that are None; all of them as they are then.

    Raises NotAllowed, NotFound, InvalidRequest.
    """
    principal.require_admin()
    if not changes:
        return await user_rate_limits(principal, user_id, open_uow=admin.open_uow)
    return _told(await _change(principal, LimitScope.USER, str(user_id), changes, admin, request_id))


async def user_rate_limits(principal: Principal, user_id: UserId, *, open_uow: OpenUnitOfWork) -> Limits:
    """The rate limits of a user in the principal's reach. Raises NotAllowed, NotFound."""
    principal.require_admin()
    tenant_id = await tenant_of_user(principal, user_id, open_uow=open_uow)
    async with open_uow(tenant_id) as uow:
        existing(await uow.identity.user(user_id), "user")
        return _told(await uow.limits.find(LimitScope.USER, str(user_id)))


async def _change(
    principal: Principal, scope: LimitScope, scope_id: str, changes: Limits, admin: RateLimitAdmin, request_id: str
) -> RateLimit | None:
    """Change the limits that are named; a row without limits is removed."""
    for name, limit in changes.items():
        if limit is not None and not 1 <= limit <= MAX_LIMIT:
            raise InvalidRequest(f"{name.value} must lie within 1 and {MAX_LIMIT}.", param=name.value)
    owner = _owner(scope, scope_id)
    tenant_id = await _tenant_of(principal, scope, owner, admin.open_uow)
    _require_may_change(principal, scope, scope_id)
    wanted = RateLimit(
        id=RateLimitId(new_id()),
        scope=scope,
        scope_id=scope_id if owner is None else str(owner),
        tenant_id=tenant_id,
        updated_at=admin.clock(),
        **{name.value: changes.get(name) for name in LimitName},
    )
    async with admin.open_uow(tenant_id or principal.tenant_id) as uow:
        await _require_scope(uow, wanted, owner)
        found = await uow.limits.put(wanted, tuple(changes))
        if found.buckets:
            details = {name.value: limit for name, limit in changes.items()}
            await _record(uow, principal, "rate_limit.put", found, admin, request_id, details)
        else:
            await _remove(uow, principal, found, admin, request_id)
        await uow.commit()
    await admin.view.refresh()
    return found if found.buckets else None


def _owner(scope: LimitScope, scope_id: str) -> UUID | None:
    """Whom the scope names; a model has a name only. Raises NotFound for what is no id."""
    if scope is LimitScope.MODEL:
        return None
    return existing(parse_id(scope_id), scope.value.replace("_", " "))


async def _tenant_of(
    principal: Principal, scope: LimitScope, owner: UUID | None, open_uow: OpenUnitOfWork
) -> TenantId | None:
    if owner is None:
        return None
    match scope:
        case LimitScope.USER:
            return await tenant_of_user(principal, UserId(owner), open_uow=open_uow)
        case LimitScope.API_KEY:
            return await tenant_of_key(principal, ApiKeyId(owner), open_uow=open_uow)
        case _:
            return principal.reach_of_tenant(TenantId(owner))


def _require_may_change(principal: Principal, scope: LimitScope, scope_id: str) -> None:
    """Nobody raises the limit that they are themselves under, unless they stand above it."""
    if scope in (LimitScope.TENANT, LimitScope.MODEL) and not principal.is_platform_admin:
        raise NotAllowed("The rate limits of tenants and models are set by the platform's administrators.")
    if principal.api_key is not None and principal.api_key.id == parse_id(scope_id):
        raise NotAllowed("An API key cannot change its own rate limits; use another credential.")


async def _require_scope(uow: UnitOfWork, limit: RateLimit, owner: UUID | None) -> None:
    if owner is None:
        catalog = await uow.catalog.load()
        if limit.scope_id not in catalog.models and limit.scope_id not in catalog.chains:
            raise NotFound(f"There is no model or chain {limit.scope_id[:200]!r}.", param="scope_id")
    elif limit.scope is LimitScope.USER:
        existing(await uow.identity.user(UserId(owner)), "user")
    elif limit.scope is LimitScope.API_KEY:
        key = existing(await uow.identity.key(ApiKeyId(owner)), "API key")
        if not key.is_live(limit.updated_at):
            raise Conflict("The key was revoked or has expired; nothing is called with it any more.")


async def _remove(
    uow: UnitOfWork, principal: Principal, limit: RateLimit, admin: RateLimitAdmin, request_id: str
) -> None:
    if not await uow.limits.remove(limit.id):
        raise NotFound("No such rate limit.")
    await _record(uow, principal, "rate_limit.removed", limit, admin, request_id, {})


async def _record(
    uow: UnitOfWork,
    principal: Principal,
    action: str,
    limit: RateLimit,
    admin: RateLimitAdmin,
    request_id: str,
    details: Mapping[str, Any],
) -> None:
    event = audit_event(
        principal,
        action=action,
        object_kind="rate_limit",
        object_id=str(limit.id),
        now=admin.clock(),
        request_id=request_id,
        details={"scope": limit.scope.value, "scope_id": limit.scope_id, **details},
        tenant_id=limit.tenant_id,
    )
    await uow.audit.record(event)


def _told(limit: RateLimit | None) -> Limits:
    return {name: None if limit is None else getattr(limit, name.value) for name in LimitName}
