"""Tenants, users, API keys and the principal."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

from src.shared.errors import NotAllowed, NotFound

TenantId = NewType("TenantId", UUID)
UserId = NewType("UserId", UUID)
ApiKeyId = NewType("ApiKeyId", UUID)

KEY_PREFIX = "sk-gw-"

RESERVED_SUBJECTS = "gateway:"
"""External ids that begin so are the gateway's own: no identity provider can make somebody of that name."""


class Role(StrEnum):
    """What a user may do: use the gateway, run their tenant, or run the platform."""

    USER = "user"
    TENANT_ADMIN = "tenant_admin"
    PLATFORM_ADMIN = "platform_admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """An isolated customer. In `time_zone` (an IANA name) the days and months of its quotas begin."""

    id: TenantId
    slug: str
    name: str
    created_at: datetime
    disabled: bool = False
    time_zone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person or service of one tenant. `external_id` is the subject of its JWTs, unique within the tenant."""

    id: UserId
    tenant_id: TenantId
    external_id: str
    role: Role
    created_at: datetime
    name: str | None = None
    email: str | None = None
    password_hash: str | None = None
    disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key that acts as its user. Only the HMAC of the secret is kept; `prefix` is what a person recognises it by."""

    id: ApiKeyId
    tenant_id: TenantId
    user_id: UserId
    name: str
    prefix: str
    secret_hmac: bytes
    created_at: datetime
    models: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_live(self, now: datetime) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A password login. Its refresh token is exchanged for a new one at every use; a used one that returns ends it."""

    id: UUID
    tenant_id: TenantId
    user_id: UserId
    refresh_hmac: bytes
    expires_at: datetime
    created_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is calling, made once per request from a JWT or an API key."""

    tenant: Tenant
    user: User
    role: Role
    api_key: ApiKey | None = None
    session_id: UUID | None = None

    @property
    def tenant_id(self) -> TenantId:
        return self.tenant.id

    @property
    def user_id(self) -> UserId:
        return self.user.id

    @property
    def is_admin(self) -> bool:
        return self.role is not Role.USER

    @property
    def is_platform_admin(self) -> bool:
        return self.role is Role.PLATFORM_ADMIN

    def may_use_model(self, name: str) -> bool:
        """Whether the key (if it is scoped) lists the public model name."""
        return self.api_key is None or self.api_key.models is None or name in self.api_key.models

    def require_admin(self) -> None:
        """Raises NotAllowed for plain users."""
        if not self.is_admin:
            raise NotAllowed("This needs an administrator: ask for the role tenant_admin or platform_admin.")

    def require_platform_admin(self) -> None:
        """Raises NotAllowed for everybody but platform admins."""
        if not self.is_platform_admin:
            raise NotAllowed("This needs the role platform_admin.")

    def reach_of_tenant(self, tenant_id: TenantId) -> TenantId:
        """`tenant_id` where the principal may administer it; NotFound otherwise: foreign objects do not exist."""
        self.require_admin()
        if tenant_id != self.tenant_id and not self.is_platform_admin:
            raise NotFound("No such tenant.")
        return tenant_id

    def may_grant(self, role: Role) -> bool:
        """Nobody hands out more than they have."""
        return self.is_platform_admin or role is not Role.PLATFORM_ADMIN
