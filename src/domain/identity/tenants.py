"""Tenants: made and changed by platform admins."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from src.domain.identity.administration import audit_event
from src.domain.identity.model import Principal, Tenant, TenantId
from src.domain.identity.rules import check_fields, existing, name_of, require_unscoped, slug_of
from src.domain.unit_of_work import OpenUnitOfWork
from src.shared.clock import Clock
from src.shared.errors import Conflict
from src.shared.ids import new_id
from src.shared.pages import Page, PageRequest
from src.shared.time_zones import zone_of

_TENANT_FIELDS = frozenset({"name", "disabled", "time_zone"})


async def create_tenant(
    principal: Principal,
    slug: str,
    name: str,
    time_zone: str = "UTC",
    *,
    open_uow: OpenUnitOfWork,
    clock: Clock,
    request_id: str | None = None,
) -> Tenant:
    """A new, empty tenant. Raises NotAllowed, InvalidRequest, Conflict when the slug is taken."""
    principal.require_platform_admin()
    require_unscoped(principal)
    now = clock()
    tenant = Tenant(
        id=TenantId(new_id()),
        slug=slug_of(slug),
        name=name_of(name, "name"),
        created_at=now,
        time_zone=zone_of(time_zone).key,
    )
    async with open_uow(tenant.id) as uow:
        await uow.directory.add_tenant(tenant)
        event = audit_event(
            principal,
            action="tenant.created",
            object_kind="tenant",
            object_id=str(tenant.id),
            now=now,
            request_id=request_id,
            details={"slug": slug, "name": name, "time_zone": time_zone},
            tenant_id=tenant.id,
        )
        await uow.audit.record(event)
        await uow.commit()
    return tenant


async def get_tenant(principal: Principal, tenant_id: TenantId, *, open_uow: OpenUnitOfWork) -> Tenant:
    """A tenant in the principal's reach. Raises NotAllowed, NotFound."""
    principal.reach_of_tenant(tenant_id)
    async with open_uow(None) as uow:
        return existing(await uow.directory.tenant(tenant_id), "tenant")


async def list_tenants(principal: Principal, page: PageRequest, *, open_uow: OpenUnitOfWork) -> Page[Tenant]:
    """All tenants for platform admins; tenant admins see the one they run. Raises NotAllowed."""
    principal.require_admin()
    if not principal.is_platform_admin:
        return Page(rows=() if page.after or page.before else (principal.tenant,), has_more=False)
    async with open_uow(None) as uow:
        return await uow.directory.tenants(page)


async def update_tenant(
    principal: Principal,
    tenant_id: TenantId,
    changes: Mapping[str, Any],
    *,
    open_uow: OpenUnitOfWork,
    clock: Clock,
    request_id: str | None = None,
) -> Tenant:
    """Change `name`, `disabled` or `time_zone`, leave the rest.

    Raises NotAllowed, NotFound, InvalidRequest, Conflict.
    """
    principal.require_platform_admin()
    require_unscoped(principal)
    check_fields(changes, _TENANT_FIELDS)
    if changes.get("disabled") and tenant_id == principal.tenant_id:
        raise Conflict("You cannot disable your own tenant.")
    if "name" in changes:
        name_of(changes["name"] or "", "name")
    if "time_zone" in changes:
        zone_of(changes["time_zone"])
    async with open_uow(tenant_id) as uow:
        tenant = replace(existing(await uow.directory.tenant(tenant_id), "tenant"), **changes)
        await uow.directory.update_tenant(tenant)
        event = audit_event(
            principal,
            action="tenant.updated",
            object_kind="tenant",
            object_id=str(tenant_id),
            now=clock(),
            request_id=request_id,
            details=changes,
            tenant_id=tenant_id,
        )
        await uow.audit.record(event)
        await uow.commit()
    return tenant
