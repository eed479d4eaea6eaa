"""What limits the rate of calls, and what a call takes from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

from src.domain.identity.model import Principal, TenantId
from src.shared.errors import RateLimited
from src.shared.ids import parse_id

RateLimitId = NewType("RateLimitId", UUID)

MAX_LIMIT = 10**12

PARALLEL_WAIT_MS = 1_000
"""When to ask again where too many calls are under way: nobody knows when one of them will end."""


class LimitScope(StrEnum):
    """Whom a limit is for. A model's is the platform's own: over all its callers, under the name that they called."""

    TENANT = "tenant"
    USER = "user"
    API_KEY = "api_key"
    MODEL = "model"


class LimitName(StrEnum):
    """What is limited. `parallel` counts the calls that are under way."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    PARALLEL = "parallel"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """The limits of one scope, None where there is none. `scope_id` is an id, of a model its name."""

    id: RateLimitId
    scope: LimitScope
    scope_id: str
    tenant_id: TenantId | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    parallel: int | None
    updated_at: datetime

    @property
    def buckets(self) -> tuple["Bucket", ...]:
        """What its calls take from."""
        limits = ((name, getattr(self, name)) for name in LimitName)
        return tuple(Bucket(name, self.scope, self.scope_id, limit) for name, limit in limits if limit is not None)


@dataclass(frozen=True, slots=True)
class Bucket:
    """One limit of one scope. Its key stays the same when the limit changes."""

    name: LimitName
    scope: LimitScope
    scope_id: str
    limit: int
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.scope.value}:{self.scope_id}:{self.name.value}")

    def amount(self, tokens: int) -> int:
        """What a call of that many tokens takes. One that is larger than the limit takes all of it, alone."""
        return min(tokens, self.limit) if self.name is LimitName.TOKENS else 1


class RateLimits:
    """All limits there are, by whom they are for."""

    def __init__(self, limits: Iterable[RateLimit] = ()) -> None:
        self._buckets: dict[UUID | str, tuple[Bucket, ...]] = {}
        for each in limits:
            owner = each.scope_id if each.scope is LimitScope.MODEL else parse_id(each.scope_id)
            if owner is not None:
                self._buckets[owner] = each.buckets

    def of_call(self, principal: Principal, model: str) -> Sequence[Bucket]:
        """What a call of the principal takes from; nothing, for most."""
        every = self._buckets
        if not every:
            return ()
        owners: list[UUID | str] = [principal.tenant_id, principal.user_id, model]
        if principal.api_key is not None:
            owners.append(principal.api_key.id)
        return [bucket for owner in owners if owner in every for bucket in every[owner]]


@dataclass(frozen=True, slots=True)
class Level:
    """A bucket as a call found it, what that call took included. `wait_s`: it was refused here for so long."""

    bucket: Bucket
    used: int
    reset_s: float
    wait_s: float = 0.0

    @property
    def remaining(self) -> int:
        """What is left of the limit."""
        return max(0, self.bucket.limit - self.used)


@dataclass(frozen=True, slots=True)
class Taking:
    """What came of asking the buckets of a call: all of them gave, or none did. `tokens` is what was asked for.

    `slot` is when, in the time of the store that counted; `is_local` where that was this process's memory.
    """

    call_id: UUID
    levels: Sequence[Level]
    tokens: int
    slot: int
    is_local: bool = True

    @property
    def is_refused(self) -> bool:
        """Whether any bucket had too little."""
        return any(level.wait_s for level in self.levels)


class LimitReached(RateLimited):
    """A bucket of the call has too little left. `levels` are those of all its buckets."""

    def __init__(self, levels: Sequence[Level]) -> None:
        self.levels = levels
        worst = max(levels, key=lambda level: level.wait_s)
        self.bucket = bucket = worst.bucket
        super().__init__(
            f"The limit of this {bucket.scope.value.replace('_', ' ')}, {bucket.limit} {_WORDS[bucket.name]}, "
            f"is reached; try again in {worst.wait_s:g} s.",
            retry_after_s=worst.wait_s,
            details={
                "scope": bucket.scope.value,
                "limit_name": bucket.name.value,
                "limit": bucket.limit,
                "used": worst.used,
                "retry_after_s": worst.wait_s,
            },
        )


_WORDS = {
    LimitName.REQUESTS: "requests a minute",
    LimitName.TOKENS: "tokens a minute",
    LimitName.PARALLEL: "calls at the same time",
}
