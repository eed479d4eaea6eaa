"""The few questions that come before a tenant is known."""

from typing import Any

from sqlalchemy import Row, func, insert, select, update

from src.data.ledger_tables import quotas
from src.data.repositories.base import Repository, row_of
from src.data.repositories.identity import key_from, tenant_from, user_from
from src.data.tables import api_keys, tenants, users
from src.domain.identity.model import ApiKey, ApiKeyId, Tenant, TenantId, User, UserId
from src.domain.ledger.model import QuotaId
from src.shared.errors import NotFound
from src.shared.pages import Page, PageRequest

MAX_NAMESAKES = 20


class SqlDirectory(Repository):
    """Tenants, and whoever can be found without naming one."""

    async def add_tenant(self, tenant: Tenant) -> None:
        await self._write(insert(tenants).values(**row_of(tenant)))

    async def update_tenant(self, tenant: Tenant) -> None:
        """Raises NotFound for an unknown tenant, Conflict when the slug is taken."""
        values = {name: value for name, value in row_of(tenant).items() if name not in ("id", "created_at")}
        if not (await self._write(update(tenants).where(tenants.c.id == tenant.id).values(**values))).rowcount:
            raise NotFound("No such tenant.")

    async def tenant(self, tenant_id: TenantId) -> Tenant | None:
        return await self._first(select(tenants).where(tenants.c.id == tenant_id), tenant_from)

    async def tenant_by_slug(self, slug: str) -> Tenant | None:
        return await self._first(select(tenants).where(tenants.c.slug == slug), tenant_from)

    async def tenants(self, page: PageRequest) -> Page[Tenant]:
        return await self._page(select(tenants), tenants.c.id, page, tenant_from)

    async def key_by_hmac(self, secret_hmac: bytes) -> tuple[Tenant, User, ApiKey] | None:
        key = await self._first(select(api_keys).where(api_keys.c.secret_hmac == secret_hmac), key_from)
        if key is None:
            return None
        pair = await self._first(_people().where(users.c.id == key.user_id), _tenant_and_user)
        return None if pair is None else (*pair, key)

    async def key_anywhere(self, key_id: ApiKeyId) -> ApiKey | None:
        return await self._first(select(api_keys).where(api_keys.c.id == key_id), key_from)

    async def users_by_email(self, email: str) -> list[tuple[Tenant, User]]:
        statement = _people().where(func.lower(users.c.email) == email.lower()).order_by(users.c.id)
        rows = await self._connection.execute(statement.limit(MAX_NAMESAKES))
        return [_tenant_and_user(row) for row in rows]

    async def user_anywhere(self, user_id: UserId) -> User | None:
        return await self._first(select(users).where(users.c.id == user_id), user_from)

    async def tenant_of_quota(self, quota_id: QuotaId) -> TenantId | None:
        return await self._first(
            select(quotas.c.tenant_id).where(quotas.c.id == quota_id), lambda row: TenantId(row[0])
        )


def _people() -> Any:
    labelled = [column.label(f"tenant__{column.name}") for column in tenants.c]
    return select(users, *labelled).join(tenants, tenants.c.id == users.c.tenant_id)


def _tenant_and_user(row: Row[Any]) -> tuple[Tenant, User]:
    values = row._mapping
    tenant = Tenant(**{column.name: values[f"tenant__{column.name}"] for column in tenants.c})
    return tenant, User(**{column.name: values[column.name] for column in users.c})
