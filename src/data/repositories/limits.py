"""Rate limits of all scopes."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, delete, select

from src.data.repositories.base import Repository, row_of, values_of
from src.data.repositories.versions import RATE_LIMITS, raise_version, upsert, version_of
from src.data.tables import rate_limits
from src.domain.identity.model import TenantId
from src.domain.limits.model import LimitName, LimitScope, RateLimit, RateLimitId, RateLimits
from src.domain.limits.ports import RateLimitRepository
from src.shared.errors import NotFound
from src.shared.pages import Page, PageRequest


class SqlRateLimitRepository(Repository, RateLimitRepository):
    """Rate limits in SQL."""

    async def load(self) -> RateLimits:
        return RateLimits([_limit_from(row) for row in await self._connection.execute(select(rate_limits))])

    async def version(self) -> int:
        return await version_of(self._connection, RATE_LIMITS)

    async def put(self, limit: RateLimit, changed: Collection[LimitName] = tuple(LimitName)) -> RateLimit:
        statement = upsert(self._connection, rate_limits).values(**row_of(limit))
        names = (*(name.value for name in changed), "updated_at")
        await raise_version(self._connection, RATE_LIMITS)
        await self._write(
            statement.on_conflict_do_update(
                index_elements=[rate_limits.c.scope, rate_limits.c.scope_id],
                set_={name: statement.excluded[name] for name in names},
            )
        )
        found = await self.find(limit.scope, limit.scope_id)
        if found is None:
            raise NotFound("No such rate limit.")
        return found

    async def get(self, limit_id: RateLimitId) -> RateLimit | None:
        return await self._first(select(rate_limits).where(rate_limits.c.id == limit_id), _limit_from)

    async def find(self, scope: LimitScope, scope_id: str) -> RateLimit | None:
        statement = select(rate_limits).where(rate_limits.c.scope == scope, rate_limits.c.scope_id == scope_id)
        return await self._first(statement, _limit_from)

    async def page(
        self, page: PageRequest, *, tenant_id: TenantId | None, scope: LimitScope | None = None
    ) -> Page[RateLimit]:
        statement = select(rate_limits)
        if tenant_id is not None:
            statement = statement.where(rate_limits.c.tenant_id == tenant_id)
        if scope is not None:
            statement = statement.where(rate_limits.c.scope == scope)
        return await self._page(statement, rate_limits.c.id, page, _limit_from)

    async def remove(self, limit_id: RateLimitId) -> bool:
        await raise_version(self._connection, RATE_LIMITS)
        return (await self._write(delete(rate_limits).where(rate_limits.c.id == limit_id))).rowcount > 0


def _limit_from(row: Row[Any]) -> RateLimit:
    return RateLimit(**values_of(row))
