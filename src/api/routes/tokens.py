"""What one may still spend, what was spent, and usage by day."""

from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from src.api.deps import GatewayDep, PageDep, PrincipalDep
from src.api.native import NativeRoute, answer, everything, listed
from src.api.routes.identity_schemas import entry_shape
from src.domain.ledger.ports import UsageRow
from src.domain.ledger.standing import QuotaStanding
from src.domain.ledger.use_cases import TokenStanding, account_entries, token_standing, usage_of_user
from src.shared.clock import utc_now

router = APIRouter(tags=["tokens"], route_class=NativeRoute)

DEFAULT_USAGE_DAYS = 30

Day = Annotated[date | None, Query()]


@router.get("/users/me/tokens")
async def my_tokens(principal: PrincipalDep, gateway: GatewayDep) -> Response:
    """Balance and quotas. A null balance means that no prepaid account limits the caller."""
    standing = await token_standing(principal, open_uow=gateway.open_reading, clock=gateway.clock)
    return answer(standing_shape(standing))


@router.get("/users/me/tokens/history")
async def my_history(principal: PrincipalDep, gateway: GatewayDep, page: PageDep) -> Response:
    """The lines of the caller's accounts, newest first."""
    return listed(await account_entries(principal, page, open_uow=gateway.open_reading), entry_shape)


@router.get("/usage")
async def my_usage(principal: PrincipalDep, gateway: GatewayDep, since: Day = None, until: Day = None) -> Response:
    """The caller's usage by day, model and key; the last 30 days unless told otherwise."""
    first, last = days(since, until)
    rows = await usage_of_user(principal, first, last, open_uow=gateway.open_reading)
    return everything([usage_row_shape(row) for row in rows])


def days(since: date | None, until: date | None) -> tuple[date, date]:
    """The days asked about."""
    last = until or utc_now().date()
    return since or date.fromordinal(max(1, last.toordinal() - DEFAULT_USAGE_DAYS + 1)), last


def standing_shape(standing: TokenStanding) -> dict[str, Any]:
    """What a user may still spend."""
    return {
        "balance": standing.balance,
        "total_used": standing.total_used,
        "limit": standing.limit,
        "held": standing.held,
        "quotas": [quota_shape(quota) for quota in standing.quotas],
    }


def quota_shape(standing: QuotaStanding) -> dict[str, Any]:
    """A quota and what is left of it."""
    account = standing.account
    return {
        "scope": account.scope.value,
        "unit": account.unit.value,
        "window": account.window.value,
        "model": account.model,
        "limit": account.limit,
        "used": account.spent,
        "held": account.held,
        "remaining": standing.remaining,
        "resets_at": standing.resets_at,
    }


def usage_row_shape(row: UsageRow) -> dict[str, Any]:
    """Usage of a day, model and key."""
    return {
        "day": row.day.isoformat(),
        "model": row.model,
        "api_key_id": row.api_key_id,
        "calls": row.calls,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "total_tokens": row.input_tokens + row.output_tokens,
        "cost_micro_usd": row.cost_micro_usd,
    }
