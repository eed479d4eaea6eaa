"""What keeps rate limits, and what counts against them."""

from collections.abc import Collection, Sequence
from typing import Protocol
from uuid import UUID

from src.domain.identity.model import TenantId
from src.domain.limits.model import Bucket, LimitName, LimitScope, RateLimit, RateLimitId, RateLimits, Taking
from src.shared.pages import Page, PageRequest


class RateLimitRepository(Protocol):
    """Limits of all tenants and models; every change raises the version that replicas watch."""

    async def load(self) -> RateLimits: ...

    async def version(self) -> int: ...

    async def put(self, limit: RateLimit, changed: Collection[LimitName] = tuple(LimitName)) -> RateLimit:
        """Make it, or change these limits of what the same scope has, which keeps its id. Returns what there is then.

        Raises NotFound for a tenant that is not there.
        """
        ...

    async def get(self, limit_id: RateLimitId) -> RateLimit | None: ...

    async def find(self, scope: LimitScope, scope_id: str) -> RateLimit | None: ...

    async def page(
        self, page: PageRequest, *, tenant_id: TenantId | None, scope: LimitScope | None = None
    ) -> Page[RateLimit]:
        """Of a tenant, or with None of all tenants and models; in the order they were made."""
        ...

    async def remove(self, limit_id: RateLimitId) -> bool: ...


class RateLimitsView(Protocol):
    """The snapshot in this process."""

    def current(self) -> RateLimits: ...

    async def refresh(self) -> None:
        """Read it again now (after a change made here)."""
        ...


class Buckets(Protocol):
    """Counts what calls take. Never fails and never makes anybody wait: where its store is away, it counts less."""

    async def take(self, call_id: UUID, buckets: Sequence[Bucket], tokens: int) -> Taking:
        """From all of the buckets at once, or from none.

        Requests and tokens count for a minute; a call under way until it is settled, or its process is gone.
        """
        ...

    async def settle(self, taking: Taking, *, requests: int, tokens: int) -> None:
        """What the call really was; it is no longer under way. Once for each taking that was not refused."""
        ...

    async def close(self) -> None: ...
