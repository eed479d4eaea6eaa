"""Rate limits in memory."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from src.domain.identity.model import TenantId
from src.domain.limits.model import LimitName, LimitScope, RateLimit, RateLimitId, RateLimits
from src.shared.errors import NotFound
from src.shared.pages import Page, PageRequest
from tests.fake_store import Store, page_of


@dataclass(slots=True)
class FakeRateLimits:
    store: Store

    async def load(self) -> RateLimits:
        return RateLimits(self.store.limits.values())

    async def version(self) -> int:
        return self.store.limits_version["version"]

    async def put(self, limit: RateLimit, changed: Collection[LimitName] = tuple(LimitName)) -> RateLimit:
        if limit.tenant_id is not None and limit.tenant_id not in self.store.tenants:
            raise NotFound("No such tenant.")
        had = await self.find(limit.scope, limit.scope_id)
        changes = {name.value: getattr(limit, name.value) for name in changed}
        put = limit if had is None else replace(had, updated_at=limit.updated_at, **changes)
        self.store.limits[put.id] = put
        self.store.limits_version["version"] += 1
        return put

    async def get(self, limit_id: RateLimitId) -> RateLimit | None:
        return self.store.limits.get(limit_id)

    async def find(self, scope: LimitScope, scope_id: str) -> RateLimit | None:
        rows = self.store.limits.values()
        return next((row for row in rows if (row.scope, row.scope_id) == (scope, scope_id)), None)

    async def page(
        self, page: PageRequest, *, tenant_id: TenantId | None, scope: LimitScope | None = None
    ) -> Page[RateLimit]:
        rows = self.store.limits.values()
        return page_of((row for row in rows if tenant_id in (None, row.tenant_id) and scope in (None, row.scope)), page)

    async def remove(self, limit_id: RateLimitId) -> bool:
        if self.store.limits.pop(limit_id, None) is None:
            return False
        self.store.limits_version["version"] += 1
        return True
