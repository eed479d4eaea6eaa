"""Quotas, for administrators: what a tenant, a user, a key or each new user may spend."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.responses import Response

from src.api.deps import AdminDep, GatewayDep, PageDep, RequestId, path_id
from src.api.native import NativeRoute, answer, listed
from src.api.routes.admin import TenantQuery, changing, tenant_of, user_of
from src.api.routes.identity_schemas import entry_shape
from src.api.routes.quota_schemas import AdjustmentBody, LimitsBody, QuotaBody, limits_shape, owned_quota_shape
from src.domain.ledger import quota_admin
from src.domain.ledger.model import QuotaId, Scope
from src.domain.limits.administration import set_user_rate_limits, user_rate_limits

router = APIRouter(prefix="/admin", tags=["quotas"], route_class=NativeRoute)


def _quota(text: str) -> QuotaId:
    return QuotaId(path_id(text, "quota"))


@router.put("/quotas")
async def put_quota(body: QuotaBody, principal: AdminDep, gateway: GatewayDep, request_id: RequestId) -> Response:
    """Make a quota or change its limit, at once. With window `none`, the limit is all that was ever given."""
    standing = await quota_admin.put_quota(principal, body.to_domain(), **changing(gateway, request_id))
    return answer(owned_quota_shape(standing))


@router.get("/quotas")
async def list_quotas(
    principal: AdminDep,
    gateway: GatewayDep,
    page: PageDep,
    tenant_id: TenantQuery = None,
    scope: Annotated[Scope | None, Query()] = None,
    scope_id: Annotated[UUID | None, Query()] = None,
) -> Response:
    """The quotas of a tenant, all or those of one scope."""
    found = await quota_admin.list_quotas(
        principal,
        page,
        open_uow=gateway.open_reading,
        clock=gateway.clock,
        tenant_id=tenant_of(tenant_id),
        scope=scope,
        scope_id=scope_id,
    )
    return listed(found, owned_quota_shape)


@router.get("/quotas/{quota_id}")
async def get_quota(quota_id: str, principal: AdminDep, gateway: GatewayDep) -> Response:
    """One quota and what is left of it."""
    found = await quota_admin.get_quota(principal, _quota(quota_id), open_uow=gateway.open_reading, clock=gateway.clock)
    return answer(owned_quota_shape(found))


@router.delete("/quotas/{quota_id}", status_code=204)
async def remove_quota(quota_id: str, principal: AdminDep, gateway: GatewayDep, request_id: RequestId) -> Response:
    """Lift a quota. Put again it starts anew."""
    await quota_admin.remove_quota(principal, _quota(quota_id), **changing(gateway, request_id))
    return Response(status_code=204)


@router.post("/quotas/{quota_id}/adjustments")
async def adjust_quota(
    quota_id: str, body: AdjustmentBody, principal: AdminDep, gateway: GatewayDep, request_id: RequestId
) -> Response:
    """Top up or deduct: a prepaid quota for good, others in the present day or month only."""
    standing = await quota_admin.adjust_quota(
        principal, _quota(quota_id), body.amount, body.reason, **changing(gateway, request_id)
    )
    return answer(owned_quota_shape(standing))


@router.get("/quotas/{quota_id}/entries")
async def quota_entries(quota_id: str, principal: AdminDep, gateway: GatewayDep, page: PageDep) -> Response:
    """The lines of a quota, newest first."""
    found = await quota_admin.quota_entries(principal, _quota(quota_id), page, open_uow=gateway.open_reading)
    return listed(found, entry_shape)


@router.get("/users/{user_id}/limits")
async def user_limits(user_id: str, principal: AdminDep, gateway: GatewayDep) -> Response:
    """A user's quotas per day and month, over all models, and rate limits."""
    user, reading = user_of(user_id), gateway.open_reading
    quotas = await quota_admin.user_limits(principal, user, open_uow=reading, clock=gateway.clock)
    return answer(limits_shape(quotas, await user_rate_limits(principal, user, open_uow=reading)))


@router.patch("/users/{user_id}/limits")
async def set_user_limits(
    user_id: str, body: LimitsBody, principal: AdminDep, gateway: GatewayDep, request_id: RequestId
) -> Response:
    """Set the limits that are named, remove those that are null; all limits as they are then."""
    user = user_of(user_id)
    rates = await set_user_rate_limits(principal, user, body.rate_limits(), gateway.rate_limits, request_id)
    quotas = await quota_admin.set_user_limits(principal, user, body.quotas(), **changing(gateway, request_id))
    return answer(limits_shape(quotas, rates))
