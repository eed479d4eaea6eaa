"""Bodies about rate limits, and the shapes of what is answered."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from src.api.body import Body
from src.api.routes.identity_schemas import Text
from src.domain.limits.model import MAX_LIMIT, LimitName, LimitScope, RateLimit

RateLimitAmount = Annotated[int, Field(strict=True, ge=1, le=MAX_LIMIT)]


class RateLimitsBody(Body):
    """Limits by name; null is none."""

    requests_per_minute: RateLimitAmount | None = None
    tokens_per_minute: RateLimitAmount | None = None
    parallel: RateLimitAmount | None = None

    def rate_limits(self) -> dict[LimitName, int | None]:
        """Those that were named."""
        named = self.changes()
        return {name: named[name.value] for name in LimitName if name.value in named}


class RateLimitBody(RateLimitsBody):
    """All rate limits of a scope; `scope_id` is an id, of a model its name."""

    scope: LimitScope
    scope_id: Text


def rate_limit_shape(limit: RateLimit) -> dict[str, Any]:
    """The limits of a scope as administrators see them."""
    return {
        "id": limit.id,
        "tenant_id": limit.tenant_id,
        "scope": limit.scope,
        "scope_id": limit.scope_id,
        **rate_limits_shape({name: getattr(limit, name.value) for name in LimitName}),
        "updated_at": limit.updated_at,
    }


def rate_limits_shape(limits: Mapping[LimitName, int | None]) -> dict[str, int | None]:
    """Limits by their names."""
    return {name.value: limit for name, limit in limits.items()}
