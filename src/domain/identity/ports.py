"""What identity needs from outside."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from src.domain.identity.model import ApiKey, ApiKeyId, Role, Session, Tenant, TenantId, User, UserId
from src.domain.ledger.model import QuotaId
from src.shared.pages import Page, PageRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a verified token says. `tenant` is an id or a slug; `role` is None where the token is silent about it."""

    subject: str
    tenant: str | None
    role: Role | None
    expires_at: datetime
    session_id: UUID | None = None


class TokenVerifier(Protocol):
    """Checks a JWT's signature, issuer, audience and times."""

    async def verify(self, token: str) -> Claims:
        """Raises Unauthenticated for anything that is not a good token now; Unavailable when the keys cannot be had."""
        ...


class TokenIssuer(Protocol):
    """Makes access tokens for password logins."""

    @property
    def access_ttl_s(self) -> float:
        """How long an access token should live."""
        ...

    def issue(self, claims: Claims) -> str:
        """Raises NotAllowed when this gateway has no key to sign with."""
        ...


class PasswordHasher(Protocol):
    """A slow hash, computed away from the event loop."""

    async def hash(self, password: str) -> str: ...

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """False for a wrong password; takes as long for a missing hash, so that timing names no user."""
        ...


class SecretHasher(Protocol):
    """A keyed hash for secrets with enough entropy of their own (API keys, refresh tokens)."""

    def hmac(self, secret: str) -> bytes: ...


class IdentityRepository(Protocol):
    """Tenants, users, keys and sessions of one tenant. Built with a TenantId: another tenant's rows are not there."""

    async def add_user(self, user: User) -> None:
        """Raises Conflict when the external id or the e-mail address is taken."""
        ...

    async def user(self, user_id: UserId) -> User | None: ...

    async def user_by_external_id(self, external_id: str) -> User | None: ...

    async def update_user(self, user: User) -> None: ...

    async def users(self, page: PageRequest) -> Page[User]: ...

    async def add_key(self, key: ApiKey) -> None:
        """Raises Conflict when there is a key with the same secret."""
        ...

    async def key(self, key_id: ApiKeyId) -> ApiKey | None: ...

    async def keys(self, page: PageRequest, *, user_id: UserId | None) -> Page[ApiKey]: ...

    async def replace_secret(self, key_id: ApiKeyId, *, old: bytes, new: bytes, prefix: str) -> bool:
        """Swap the secret of a key that is not revoked where it still is `old`; False where it is not.

        The key keeps its id, and with it its quotas and its usage.
        """
        ...

    async def revoke_key(self, key_id: ApiKeyId, at: datetime) -> None: ...

    async def add_session(self, session: Session) -> None: ...

    async def session(self, session_id: UUID) -> Session | None: ...

    async def replace_refresh(self, session_id: UUID, *, old: bytes, new: bytes, expires_at: datetime) -> bool:
        """Swap the refresh hash where it still is `old`; False where it is not (or the session ended)."""
        ...

    async def revoke_session(self, session_id: UUID, at: datetime) -> None: ...

    async def revoke_sessions(self, user_id: UserId, at: datetime) -> None:
        """End every session of the user that has not ended yet."""
        ...


class Directory(Protocol):
    """The few questions that come before a tenant is known: they are what authentication is made of."""

    async def add_tenant(self, tenant: Tenant) -> None:
        """Raises Conflict when the slug is taken."""
        ...

    async def update_tenant(self, tenant: Tenant) -> None: ...

    async def tenant(self, tenant_id: TenantId) -> Tenant | None: ...

    async def tenant_by_slug(self, slug: str) -> Tenant | None: ...

    async def tenants(self, page: PageRequest) -> Page[Tenant]: ...

    async def key_by_hmac(self, secret_hmac: bytes) -> tuple[Tenant, User, ApiKey] | None:
        """Revoked and expired keys, disabled users and tenants included: the caller judges them."""
        ...

    async def key_anywhere(self, key_id: ApiKeyId) -> ApiKey | None:
        """For platform admins only: a key of whichever tenant."""
        ...

    async def users_by_email(self, email: str) -> list[tuple[Tenant, User]]: ...

    async def user_anywhere(self, user_id: UserId) -> User | None:
        """For platform admins only: a user of whichever tenant."""
        ...

    async def tenant_of_quota(self, quota_id: QuotaId) -> TenantId | None:
        """For platform admins only: whose the quota is."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One administrative change: who did what to which object. Written in the transaction that makes the change."""

    id: UUID
    tenant_id: TenantId
    actor_user_id: UserId | None
    actor_key_id: ApiKeyId | None
    action: str
    object_kind: str
    object_id: str
    details: Mapping[str, Any]
    request_id: str | None
    created_at: datetime


class AuditLog(Protocol):
    """Append-only."""

    async def record(self, event: AuditEvent) -> None: ...

    async def events(self, page: PageRequest, *, tenant_id: TenantId | None) -> Page[AuditEvent]: ...
