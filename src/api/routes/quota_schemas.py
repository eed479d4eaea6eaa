"""Bodies about quotas, and the shapes of what is answered."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from src.api.body import Body
from src.api.routes.identity_schemas import Amount, Reason, Text
from src.api.routes.rate_limit_schemas import RateLimitsBody, rate_limits_shape
from src.api.routes.tokens import quota_shape
from src.domain.ledger.model import MAX_AMOUNT, Scope, Unit, Window
from src.domain.ledger.quota_admin import LIMITS, Limits, QuotaOrder
from src.domain.ledger.standing import QuotaStanding
from src.domain.limits.administration import Limits as RateLimits

Limit = Annotated[int, Field(strict=True, ge=0, le=MAX_AMOUNT)]


class QuotaBody(Body):
    """A quota as it should be; `scope_id` of the scopes `tenant` and `new_user` is the tenant's id."""

    scope: Scope
    scope_id: UUID
    unit: Unit
    window: Window
    limit: Limit
    model: Text | None = None

    def to_domain(self) -> QuotaOrder:
        """The order of the domain."""
        return QuotaOrder(
            scope=self.scope,
            scope_id=self.scope_id,
            unit=self.unit,
            window=self.window,
            limit=self.limit,
            model=self.model,
        )


class AdjustmentBody(Body):
    """A top-up (positive) or deduction (negative)."""

    amount: Amount
    reason: Reason | None = None


class LimitsBody(RateLimitsBody):
    """A user's quotas and rate limits; null removes one, what is not named stays."""

    tokens_per_day: Limit | None = None
    tokens_per_month: Limit | None = None
    micro_usd_per_day: Limit | None = None
    micro_usd_per_month: Limit | None = None
    requests_per_day: Limit | None = None
    requests_per_month: Limit | None = None

    def quotas(self) -> Limits:
        """The quotas that were named."""
        named = self.changes()
        return {limit: named[_name(*limit)] for limit in LIMITS if _name(*limit) in named}


def limits_shape(quotas: Limits, rate_limits: RateLimits) -> dict[str, int | None]:
    """All limits of a user as they are answered."""
    return {**rate_limits_shape(rate_limits), **{_name(*limit): amount for limit, amount in quotas.items()}}


def _name(unit: Unit, window: Window) -> str:
    return f"{unit.value}_per_{window.value}"


def owned_quota_shape(standing: QuotaStanding) -> dict[str, Any]:
    """A quota as administrators see it."""
    quota = standing.quota
    return {
        "id": quota.id,
        "tenant_id": quota.key.tenant_id,
        "scope_id": quota.key.scope_id,
        **quota_shape(standing),
        "created_at": quota.created_at,
        "updated_at": quota.updated_at,
    }
