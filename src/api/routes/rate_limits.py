"""Rate limits, for administrators: how many calls and tokens a minute, and how many calls at the same time."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from src.api.deps import AdminDep, GatewayDep, PageDep, RequestId, path_id
from src.api.native import NativeRoute, answer, listed
from src.api.routes.admin import TenantQuery, tenant_of
from src.api.routes.rate_limit_schemas import RateLimitBody, rate_limit_shape
from src.domain.limits import administration
from src.domain.limits.model import LimitScope, RateLimitId

router = APIRouter(prefix="/admin/rate-limits", tags=["rate limits"], route_class=NativeRoute)


@router.put("")
async def put_rate_limit(
    body: RateLimitBody, principal: AdminDep, gateway: GatewayDep, request_id: RequestId
) -> Response:
    """Set the rate limits of a tenant, user, API key or model; what is not named is not limited."""
    limit = await administration.put_rate_limit(
        principal, body.scope, body.scope_id, body.rate_limits(), gateway.rate_limits, request_id
    )
    return answer(rate_limit_shape(limit))


@router.get("")
async def list_rate_limits(
    principal: AdminDep,
    gateway: GatewayDep,
    page: PageDep,
    tenant_id: TenantQuery = None,
    scope: Annotated[LimitScope | None, Query()] = None,
) -> Response:
    """The rate limits of a tenant; platform administrators who name none get all, those of models too."""
    found = await administration.list_rate_limits(
        principal, page, open_uow=gateway.open_reading, tenant_id=tenant_of(tenant_id), scope=scope
    )
    return listed(found, rate_limit_shape)


@router.delete("/{limit_id}", status_code=204)
async def remove_rate_limit(limit_id: str, principal: AdminDep, gateway: GatewayDep, request_id: RequestId) -> Response:
    """Lift the rate limits of a scope."""
    limit = RateLimitId(path_id(limit_id, "rate limit"))
    await administration.remove_rate_limit(principal, limit, gateway.rate_limits, request_id)
    return Response(status_code=204)
