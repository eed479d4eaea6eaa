"""Bodies about tenants, users, keys and sessions, and the shapes of what is answered."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StrictBool

from src.api.body import Body
from src.api.moments import Moment
from src.domain.identity.model import ApiKey, Principal, Role, Tenant, User
from src.domain.identity.ports import AuditEvent
from src.domain.identity.sessions import Tokens
from src.domain.ledger.model import Account, Entry, Unit
from src.domain.ledger.use_cases import MAX_ADJUSTMENT

Text = Annotated[str, Field(min_length=1, max_length=200)]
Password = Annotated[str, Field(max_length=2000)]
Amount = Annotated[int, Field(strict=True, ge=-MAX_ADJUSTMENT, le=MAX_ADJUSTMENT)]
Reason = Annotated[str, Field(max_length=500)]


class LoginBody(Body):
    """A password login; `tenant` (slug) where the address is known to several."""

    email: Text
    password: Password
    tenant: Text | None = None


class RefreshBody(Body):
    """A refresh token."""

    refresh_token: Annotated[str, Field(min_length=1, max_length=2000)]


class LogoutBody(Body):
    """A refresh token, where the access token has expired already."""

    refresh_token: Annotated[str, Field(min_length=1, max_length=2000)] | None = None


class ApiKeyBody(Body):
    """A new key."""

    name: Text
    models: list[Text] | None = None
    expires_at: Moment | None = None
    user_id: UUID | None = None


class TenantBody(Body):
    """A new tenant."""

    slug: Text
    name: Text
    time_zone: Text = "UTC"


class TenantChanges(Body):
    """What may change about a tenant."""

    name: Text | None = None
    disabled: StrictBool | None = None
    time_zone: Text | None = None


class UserBody(Body):
    """A new user; `external_id` is the subject of its JWTs."""

    tenant_id: UUID | None = None
    external_id: Text
    role: Role = Role.USER
    name: Text | None = None
    email: Text | None = None
    password: Password | None = None


class UserChanges(Body):
    """What may change about a user."""

    role: Role | None = None
    name: Text | None = None
    email: Text | None = None
    password: Password | None = None
    disabled: StrictBool | None = None


class TokensBody(Body):
    """A top-up (positive) or deduction (negative)."""

    amount: Amount
    unit: Unit = Unit.TOKENS
    reason: Reason | None = None


def tenant_shape(tenant: Tenant) -> dict[str, Any]:
    """A tenant as it is answered."""
    return {
        "id": tenant.id,
        "slug": tenant.slug,
        "name": tenant.name,
        "time_zone": tenant.time_zone,
        "disabled": tenant.disabled,
        "created_at": tenant.created_at,
    }


def user_shape(user: User) -> dict[str, Any]:
    """A user as it is answered: never the password's hash."""
    return {
        "id": user.id,
        "tenant_id": user.tenant_id,
        "external_id": user.external_id,
        "role": user.role.value,
        "name": user.name,
        "email": user.email,
        "disabled": user.disabled,
        "created_at": user.created_at,
    }


def key_shape(key: ApiKey, secret: str | None = None) -> dict[str, Any]:
    """A key as it is answered; the secret only where it was just made."""
    return {
        "id": key.id,
        "user_id": key.user_id,
        "name": key.name,
        "prefix": key.prefix,
        "models": None if key.models is None else list(key.models),
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "created_at": key.created_at,
        **({"secret": secret} if secret else {}),
    }


def principal_shape(principal: Principal) -> dict[str, Any]:
    """Who is calling."""
    key = {"api_key": key_shape(principal.api_key)} if principal.api_key else {}
    return {
        "user": user_shape(principal.user),
        "tenant": tenant_shape(principal.tenant),
        "role": principal.role.value,
        **key,
    }


def tokens_shape(tokens: Tokens, now: datetime) -> dict[str, Any]:
    """A login as OAuth clients expect it."""
    return {
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": max(0, int((tokens.access_expires_at - now).total_seconds())),
        "refresh_token": tokens.refresh_token,
        "refresh_expires_at": tokens.refresh_expires_at,
        "user": user_shape(tokens.user),
        "tenant": tenant_shape(tokens.tenant),
    }


def account_shape(account: Account) -> dict[str, Any]:
    """An account as it is answered."""
    return {
        "unit": account.unit.value,
        "balance": account.balance,
        "held": account.held,
        "available": account.available,
        "used": account.spent,
        "limit": account.limit,
    }


def entry_shape(entry: Entry) -> dict[str, Any]:
    """A line of the ledger as it is answered."""
    return {
        "id": entry.id,
        "unit": entry.unit.value,
        "amount": entry.amount,
        "kind": entry.kind.value,
        "hold_id": entry.hold_id,
        "message_id": entry.message_id,
        "request_id": entry.request_id,
        "model": entry.model,
        "reason": entry.reason,
        "created_at": entry.created_at,
    }


def audit_shape(event: AuditEvent) -> dict[str, Any]:
    """An administrative change as it is answered."""
    return {
        "id": event.id,
        "tenant_id": event.tenant_id,
        "actor_user_id": event.actor_user_id,
        "actor_key_id": event.actor_key_id,
        "action": event.action,
        "object_kind": event.object_kind,
        "object_id": event.object_id,
        "details": event.details,
        "request_id": event.request_id,
        "created_at": event.created_at,
    }
