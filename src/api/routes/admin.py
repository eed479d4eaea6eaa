"""Tenants, users, their credit, keys and the audit log, for administrators."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.responses import Response

from src.api.container import Gateway
from src.api.deps import AdminDep, GatewayDep, PageDep, PlatformAdminDep, RequestId, path_id
from src.api.native import NativeRoute, answer, everything, listed
from src.api.routes.identity_schemas import (
    TenantBody,
    TenantChanges,
    TokensBody,
    UserBody,
    UserChanges,
    account_shape,
    audit_shape,
    entry_shape,
    key_shape,
    tenant_shape,
    user_shape,
)
from src.api.routes.tokens import Day, days, standing_shape, usage_row_shape
from src.domain.identity import administration, api_keys, tenants
from src.domain.identity.model import TenantId, UserId
from src.domain.ledger.use_cases import account_entries, adjust_account, token_standing, usage_of_tenant

router = APIRouter(prefix="/admin", tags=["administration"], route_class=NativeRoute)

TenantQuery = Annotated[UUID | None, Query(alias="tenant_id")]


def tenant_of(tenant_id: UUID | None) -> TenantId | None:
    """The tenant that a query names."""
    return None if tenant_id is None else TenantId(tenant_id)


def user_of(text: str) -> UserId:
    """The user that a path names. Raises NotFound."""
    return UserId(path_id(text, "user"))


def changing(gateway: Gateway, request_id: str) -> dict[str, Any]:
    """What every use case that changes something needs."""
    return {"open_uow": gateway.open_uow, "clock": gateway.clock, "request_id": request_id}


@router.post("/tenants", status_code=201)
async def create_tenant(
    body: TenantBody, principal: PlatformAdminDep, gateway: GatewayDep, request_id: RequestId
) -> Response:
    """A new tenant."""
    tenant = await tenants.create_tenant(
        principal, body.slug, body.name, body.time_zone, **changing(gateway, request_id)
    )
    gateway.authenticator.forget(tenant_id=tenant.id)
    return answer(tenant_shape(tenant), 201)


@router.get("/tenants")
async def list_tenants(principal: AdminDep, gateway: GatewayDep, page: PageDep) -> Response:
    """All tenants for platform admins, one's own for tenant admins."""
    return listed(await tenants.list_tenants(principal, page, open_uow=gateway.open_reading), tenant_shape)


@router.get("/tenants/{tenant_id}")
async def get_tenant(tenant_id: str, principal: AdminDep, gateway: GatewayDep) -> Response:
    """One tenant."""
    found = TenantId(path_id(tenant_id, "tenant"))
    return answer(tenant_shape(await tenants.get_tenant(principal, found, open_uow=gateway.open_reading)))


@router.patch("/tenants/{tenant_id}")
async def update_tenant(
    tenant_id: str, body: TenantChanges, principal: PlatformAdminDep, gateway: GatewayDep, request_id: RequestId
) -> Response:
    """Rename or disable a tenant, or move it to another time zone."""
    found = TenantId(path_id(tenant_id, "tenant"))
    tenant = await tenants.update_tenant(principal, found, body.changes(), **changing(gateway, request_id))
    gateway.authenticator.forget(tenant_id=tenant.id)
    return answer(tenant_shape(tenant))


@router.post("/users", status_code=201)
async def create_user(body: UserBody, principal: AdminDep, gateway: GatewayDep, request_id: RequestId) -> Response:
    """A new user, by default of one's own tenant."""
    user = await administration.create_user(
        principal,
        tenant_of(body.tenant_id) or principal.tenant_id,
        body.external_id,
        body.role,
        passwords=gateway.passwords,
        name=body.name,
        email=body.email,
        password=body.password,
        **changing(gateway, request_id),
    )
    return answer(user_shape(user), 201)


@router.get("/users")
async def list_users(
    principal: AdminDep, gateway: GatewayDep, page: PageDep, tenant_id: TenantQuery = None
) -> Response:
    """The users of a tenant."""
    found = await administration.list_users(
        principal, page, open_uow=gateway.open_reading, tenant_id=tenant_of(tenant_id)
    )
    return listed(found, user_shape)


@router.get("/users/{user_id}")
async def get_user(user_id: str, principal: AdminDep, gateway: GatewayDep) -> Response:
    """One user."""
    return answer(user_shape(await administration.get_user(principal, user_of(user_id), open_uow=gateway.open_reading)))


@router.patch("/users/{user_id}")
async def update_user(
    user_id: str, body: UserChanges, principal: AdminDep, gateway: GatewayDep, request_id: RequestId
) -> Response:
    """Change a user's role, name, address or password, or disable them."""
    user = await administration.update_user(
        principal, user_of(user_id), body.changes(), passwords=gateway.passwords, **changing(gateway, request_id)
    )
    gateway.authenticator.forget(user_id=user.id)
    return answer(user_shape(user))


@router.post("/users/{user_id}/tokens")
async def adjust_tokens(
    user_id: str, body: TokensBody, principal: AdminDep, gateway: GatewayDep, request_id: RequestId
) -> Response:
    """Top up or deduct; the account as it is then."""
    account = await adjust_account(
        principal, user_of(user_id), body.amount, body.unit, body.reason, **changing(gateway, request_id)
    )
    return answer(account_shape(account))


@router.get("/users/{user_id}/tokens")
async def user_tokens(user_id: str, principal: AdminDep, gateway: GatewayDep) -> Response:
    """A user's balance and quotas."""
    standing = await token_standing(principal, user_of(user_id), open_uow=gateway.open_reading, clock=gateway.clock)
    return answer(standing_shape(standing))


@router.get("/users/{user_id}/tokens/history")
async def user_history(user_id: str, principal: AdminDep, gateway: GatewayDep, page: PageDep) -> Response:
    """The lines of a user's accounts, newest first."""
    return listed(await account_entries(principal, page, user_of(user_id), open_uow=gateway.open_reading), entry_shape)


@router.get("/api-keys")
async def list_keys(
    principal: AdminDep,
    gateway: GatewayDep,
    page: PageDep,
    tenant_id: TenantQuery = None,
    user_id: Annotated[UUID | None, Query()] = None,
) -> Response:
    """The keys of a tenant or of one of its users."""
    owner = None if user_id is None else UserId(user_id)
    found = await api_keys.list_keys(
        principal, page, open_uow=gateway.open_reading, tenant_id=tenant_of(tenant_id), user_id=owner
    )
    return listed(found, key_shape)


@router.get("/stats")
async def stats(
    principal: AdminDep, gateway: GatewayDep, tenant_id: TenantQuery = None, since: Day = None, until: Day = None
) -> Response:
    """A tenant's usage by day, model and key."""
    first, last = days(since, until)
    rows = await usage_of_tenant(principal, first, last, tenant_of(tenant_id), open_uow=gateway.open_reading)
    return everything([usage_row_shape(row) for row in rows])


@router.get("/audit")
async def audit(principal: AdminDep, gateway: GatewayDep, page: PageDep, tenant_id: TenantQuery = None) -> Response:
    """What administrators changed, newest first."""
    found = await administration.list_audit(
        principal, page, open_uow=gateway.open_reading, tenant_id=tenant_of(tenant_id)
    )
    return listed(found, audit_shape)
