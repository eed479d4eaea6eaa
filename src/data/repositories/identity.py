"""Users, keys and sessions of one tenant."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, insert, select, update

from src.data.repositories.base import TenantRepository, row_of, values_of
from src.data.tables import api_keys, sessions, users
from src.domain.identity.model import ApiKey, ApiKeyId, Session, Tenant, User, UserId
from src.shared.errors import NotFound
from src.shared.pages import Page, PageRequest


def tenant_from(row: Row[Any]) -> Tenant:
    """A row of `tenants`."""
    return Tenant(**values_of(row))


def user_from(row: Row[Any]) -> User:
    """A row of `users`."""
    return User(**values_of(row))


def session_from(row: Row[Any]) -> Session:
    """A row of `sessions`."""
    return Session(**values_of(row))


def key_from(row: Row[Any]) -> ApiKey:
    """A row of `api_keys`."""
    values = values_of(row)
    values["models"] = None if values["models"] is None else tuple(values["models"])
    return ApiKey(**values)


class SqlIdentityRepository(TenantRepository):
    """Users, keys and sessions in SQL."""

    async def add_user(self, user: User) -> None:
        self._require_own(user.tenant_id)
        await self._write(insert(users).values(**row_of(user)))

    async def user(self, user_id: UserId) -> User | None:
        return await self._first(self._users().where(users.c.id == user_id), user_from)

    async def user_by_external_id(self, external_id: str) -> User | None:
        return await self._first(self._users().where(users.c.external_id == external_id), user_from)

    async def update_user(self, user: User) -> None:
        """Raises NotFound for a user of another tenant, Conflict when the external id or e-mail address is taken."""
        mine = (users.c.tenant_id == self._tenant_id, users.c.id == user.id)
        values = {name: value for name, value in row_of(user).items() if name not in ("id", "tenant_id", "created_at")}
        if not (await self._write(update(users).where(*mine).values(**values))).rowcount:
            raise NotFound("No such user.")

    async def users(self, page: PageRequest) -> Page[User]:
        return await self._page(self._users(), users.c.id, page, user_from)

    async def add_key(self, key: ApiKey) -> None:
        self._require_own(key.tenant_id)
        await self._write(insert(api_keys).values(**row_of(key)))

    async def key(self, key_id: ApiKeyId) -> ApiKey | None:
        return await self._first(self._keys().where(api_keys.c.id == key_id), key_from)

    async def keys(self, page: PageRequest, *, user_id: UserId | None) -> Page[ApiKey]:
        statement = self._keys()
        if user_id is not None:
            statement = statement.where(api_keys.c.user_id == user_id)
        return await self._page(statement, api_keys.c.id, page, key_from)

    async def replace_secret(self, key_id: ApiKeyId, *, old: bytes, new: bytes, prefix: str) -> bool:
        mine = (
            api_keys.c.tenant_id == self._tenant_id,
            api_keys.c.id == key_id,
            api_keys.c.secret_hmac == old,
            api_keys.c.revoked_at.is_(None),
        )
        statement = update(api_keys).where(*mine).values(secret_hmac=new, prefix=prefix)
        return bool((await self._write(statement)).rowcount)

    async def revoke_key(self, key_id: ApiKeyId, at: datetime) -> None:
        mine = (api_keys.c.tenant_id == self._tenant_id, api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        await self._connection.execute(update(api_keys).where(*mine).values(revoked_at=at))

    async def add_session(self, session: Session) -> None:
        self._require_own(session.tenant_id)
        await self._write(insert(sessions).values(**row_of(session)))

    async def session(self, session_id: UUID) -> Session | None:
        mine = (sessions.c.tenant_id == self._tenant_id, sessions.c.id == session_id)
        return await self._first(select(sessions).where(*mine), session_from)

    async def replace_refresh(self, session_id: UUID, *, old: bytes, new: bytes, expires_at: datetime) -> bool:
        mine = (
            sessions.c.tenant_id == self._tenant_id,
            sessions.c.id == session_id,
            sessions.c.refresh_hmac == old,
            sessions.c.revoked_at.is_(None),
        )
        statement = update(sessions).where(*mine).values(refresh_hmac=new, expires_at=expires_at)
        return bool((await self._write(statement)).rowcount)

    async def revoke_session(self, session_id: UUID, at: datetime) -> None:
        mine = (
            sessions.c.tenant_id == self._tenant_id,
            sessions.c.id == session_id,
            sessions.c.revoked_at.is_(None),
        )
        await self._connection.execute(update(sessions).where(*mine).values(revoked_at=at))

    async def revoke_sessions(self, user_id: UserId, at: datetime) -> None:
        mine = (
            sessions.c.tenant_id == self._tenant_id,
            sessions.c.user_id == user_id,
            sessions.c.revoked_at.is_(None),
        )
        await self._connection.execute(update(sessions).where(*mine).values(revoked_at=at))

    def _users(self) -> Select[Any]:
        return select(users).where(users.c.tenant_id == self._tenant_id)

    def _keys(self) -> Select[Any]:
        return select(api_keys).where(api_keys.c.tenant_id == self._tenant_id)
