"""Logging in with a password, staying logged in, logging out; and the first administrator of an empty database."""

import base64
import binascii
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from src.domain.identity.api_keys import new_api_key_secret, shown_prefix
from src.domain.identity.model import (
    RESERVED_SUBJECTS,
    ApiKey,
    ApiKeyId,
    Principal,
    Role,
    Session,
    Tenant,
    TenantId,
    User,
    UserId,
)
from src.domain.identity.ports import AuditEvent, Claims, PasswordHasher, SecretHasher, TokenIssuer
from src.domain.identity.rules import existing
from src.domain.unit_of_work import OpenUnitOfWork, UnitOfWork
from src.shared.clock import Clock
from src.shared.errors import Conflict, InvalidRequest, Misconfigured, Unauthenticated
from src.shared.ids import new_id

REFRESH_TTL = timedelta(days=30)
REFRESH_PREFIX = "rt-gw-"
BOOTSTRAP_TENANT = "default"
BOOTSTRAP_USER = f"{RESERVED_SUBJECTS}admin"
MIN_BOOTSTRAP_KEY = 16

_SECRET_BYTES = 32
_MAC_BYTES = 16
_BODY_BYTES = 16 + 16 + _SECRET_BYTES
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a login is answered with. The refresh token can be used once."""

    access_token: str
    access_expires_at: datetime
    refresh_token: str
    refresh_expires_at: datetime
    session_id: UUID
    tenant: Tenant
    user: User


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPorts:
    """What sessions are made with. `hasher` is the one of refresh tokens."""

    open_uow: OpenUnitOfWork
    clock: Clock
    passwords: PasswordHasher
    hasher: SecretHasher
    tokens: TokenIssuer


async def login(
    email: str, password: str, tenant_slug: str | None, ports: SessionPorts, request_id: str | None = None
) -> Tokens:
    """Begin a session. A refusal has one message and takes one time, whatever was wrong.

    Raises Unauthenticated, Unavailable (too many logins at once), NotAllowed where this gateway issues no tokens.
    """
    async with ports.open_uow(None) as uow:
        people = await uow.directory.users_by_email(email.casefold())
    able = [
        (tenant, user)
        for tenant, user in people
        if tenant_slug in (None, tenant.slug) and not tenant.disabled and not user.disabled and user.password_hash
    ]
    # With several there is no telling whom it means, and trying each would tell by its time how many there are.
    one = able[0] if len(able) == 1 else None
    is_right = await ports.passwords.verify(None if one is None else one[1].password_hash, password)
    if one is None or not is_right:
        raise _wrong()
    return await _begun(one[0], one[1], ports, request_id)


async def refresh(refresh_token: str, ports: SessionPorts) -> Tokens:
    """Exchange a refresh token for new tokens. One that was used before ends its session: somebody copied it.

    Raises Unauthenticated.
    """
    tenant_id, session_id = _opened(refresh_token, ports.hasher)
    now = ports.clock()
    fresh, expires_at = _new_refresh_token(tenant_id, session_id, ports.hasher), now + REFRESH_TTL
    async with ports.open_uow(tenant_id) as uow:
        tenant, user = await _live(uow, tenant_id, session_id, now)
        is_current = await uow.identity.replace_refresh(
            session_id, old=ports.hasher.hmac(refresh_token), new=ports.hasher.hmac(fresh), expires_at=expires_at
        )
        if not is_current:
            await uow.identity.revoke_session(session_id, now)
            await uow.audit.record(_session_event(tenant, user, session_id, "session.refresh_reused", now, None))
        await uow.commit()
    if not is_current:
        raise Unauthenticated("The refresh token was used before, so the session was ended; log in again.")
    return _tokens(tenant, user, session_id, fresh, expires_at, ports)


async def logout(
    principal: Principal, *, open_uow: OpenUnitOfWork, clock: Clock, request_id: str | None = None
) -> None:
    """End the principal's session. Raises InvalidRequest for credentials that belong to none."""
    if principal.session_id is None:
        raise InvalidRequest("Only a password login can be logged out; revoke API keys under /api/v1/api-keys.")
    now = clock()
    async with open_uow(principal.tenant_id) as uow:
        await uow.identity.revoke_session(principal.session_id, now)
        event = _session_event(principal.tenant, principal.user, principal.session_id, "session.ended", now, request_id)
        await uow.audit.record(event)
        await uow.commit()


async def end_session(refresh_token: str, ports: SessionPorts, request_id: str | None = None) -> UUID:
    """Log out with the refresh token alone; the id of the session. Raises Unauthenticated for what is no such token."""
    tenant_id, session_id = _opened(refresh_token, ports.hasher)
    now = ports.clock()
    async with ports.open_uow(tenant_id) as uow:
        tenant, user = await _live(uow, tenant_id, session_id, now)
        await uow.identity.revoke_session(session_id, now)
        await uow.audit.record(_session_event(tenant, user, session_id, "session.ended", now, request_id))
        await uow.commit()
    return session_id


async def bootstrap_admin(
    open_uow: OpenUnitOfWork, clock: Clock, hasher: SecretHasher, secret: str | None
) -> str | None:
    """Make sure that somebody can administer the gateway; the secret of the API key, where one was made.

    On an empty database: the tenant `default`, its platform admin `admin` and a key (`secret`, or a new one). Later, a
    `secret` that is not known yet becomes one more key of that admin. Several processes may do this at once. Raises
    Misconfigured for a secret that can be guessed.
    """
    check_bootstrap_key(secret)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return await _bootstrapped(open_uow, clock(), hasher, secret)
        except Conflict:
            # Another process was faster; what it made is found by looking again.
            if attempt == _ATTEMPTS:
                raise
    return None


def check_bootstrap_key(secret: str | None) -> None:
    """Raises Misconfigured for a secret that can be guessed."""
    if secret is not None and len(secret) < MIN_BOOTSTRAP_KEY:
        raise Misconfigured(f"GATEWAY_BOOTSTRAP_KEY needs at least {MIN_BOOTSTRAP_KEY} characters.")


async def acting_admin(open_uow: OpenUnitOfWork) -> Principal:
    """The administrator of an empty database, as whom the command line acts. Raises NotFound before there is one."""
    async with open_uow(None) as uow:
        tenant = existing(await uow.directory.tenant_by_slug(BOOTSTRAP_TENANT), "tenant")
    async with open_uow(tenant.id) as uow:
        user = existing(await uow.identity.user_by_external_id(BOOTSTRAP_USER), "user")
    return Principal(tenant=tenant, user=user, role=Role.PLATFORM_ADMIN)


async def _bootstrapped(
    open_uow: OpenUnitOfWork, now: datetime, hasher: SecretHasher, secret: str | None
) -> str | None:
    async with open_uow(None) as uow:
        known = await uow.directory.tenant_by_slug(BOOTSTRAP_TENANT)
        if secret is not None and await uow.directory.key_by_hmac(hasher.hmac(secret)) is not None:
            return None
    tenant = known or Tenant(id=TenantId(new_id()), slug=BOOTSTRAP_TENANT, name="Default", created_at=now)
    async with open_uow(tenant.id) as uow:
        if known is None:
            await uow.directory.add_tenant(tenant)
        admin = await uow.identity.user_by_external_id(BOOTSTRAP_USER)
        if admin is not None and secret is None:
            return None
        admin = admin or await _first_admin(uow, tenant.id, now)
        minted = secret or new_api_key_secret()
        key = _bootstrap_key(admin, minted, hasher, now)
        await uow.identity.add_key(key)
        await uow.audit.record(_bootstrap_event(admin, key, now))
        await uow.commit()
    return minted


async def _first_admin(uow: UnitOfWork, tenant_id: TenantId, now: datetime) -> User:
    admin = User(
        id=UserId(new_id()),
        tenant_id=tenant_id,
        external_id=BOOTSTRAP_USER,
        role=Role.PLATFORM_ADMIN,
        created_at=now,
        name="Administrator",
    )
    await uow.identity.add_user(admin)
    return admin


def _bootstrap_key(admin: User, secret: str, hasher: SecretHasher, now: datetime) -> ApiKey:
    return ApiKey(
        id=ApiKeyId(new_id()),
        tenant_id=admin.tenant_id,
        user_id=admin.id,
        name="bootstrap",
        prefix=shown_prefix(secret),
        secret_hmac=hasher.hmac(secret),
        created_at=now,
    )


def _bootstrap_event(admin: User, key: ApiKey, now: datetime) -> AuditEvent:
    return AuditEvent(
        id=new_id(),
        tenant_id=admin.tenant_id,
        actor_user_id=None,
        actor_key_id=None,
        action="api_key.bootstrapped",
        object_kind="api_key",
        object_id=str(key.id),
        details={"prefix": key.prefix, "user_id": str(admin.id)},
        request_id=None,
        created_at=now,
    )


def _wrong() -> Unauthenticated:
    return Unauthenticated(
        "The e-mail address or the password is wrong. If you are a user of several tenants, name yours in tenant.",
        code="invalid_credentials",
    )


async def _begun(tenant: Tenant, user: User, ports: SessionPorts, request_id: str | None) -> Tokens:
    now = ports.clock()
    session_id = new_id()
    token, expires_at = _new_refresh_token(tenant.id, session_id, ports.hasher), now + REFRESH_TTL
    session = Session(
        id=session_id,
        tenant_id=tenant.id,
        user_id=user.id,
        refresh_hmac=ports.hasher.hmac(token),
        expires_at=expires_at,
        created_at=now,
    )
    tokens = _tokens(tenant, user, session_id, token, expires_at, ports)
    async with ports.open_uow(tenant.id) as uow:
        current = await uow.identity.user(user.id)
        if current is None or current.disabled or current.password_hash != user.password_hash:
            # Changed while the password was checked.
            raise _wrong()
        await uow.identity.add_session(session)
        await uow.audit.record(_session_event(tenant, user, session_id, "session.began", now, request_id))
        await uow.commit()
    return tokens


def _tokens(
    tenant: Tenant, user: User, session_id: UUID, refresh_token: str, refresh_expires_at: datetime, ports: SessionPorts
) -> Tokens:
    expires_at = ports.clock() + timedelta(seconds=ports.tokens.access_ttl_s)
    claims = Claims(
        subject=user.external_id,
        tenant=str(tenant.id),
        role=user.role,
        expires_at=expires_at,
        session_id=session_id,
    )
    return Tokens(
        access_token=ports.tokens.issue(claims),
        access_expires_at=expires_at,
        refresh_token=refresh_token,
        refresh_expires_at=refresh_expires_at,
        session_id=session_id,
        tenant=tenant,
        user=user,
    )


async def _live(uow: UnitOfWork, tenant_id: TenantId, session_id: UUID, now: datetime) -> tuple[Tenant, User]:
    """Whose session it is, while it lasts. Raises Unauthenticated."""
    session = await uow.identity.session(session_id)
    tenant = await uow.directory.tenant(tenant_id)
    if session is None or tenant is None or session.revoked_at is not None or now >= session.expires_at:
        raise Unauthenticated("The session has ended; log in again.")
    user = await uow.identity.user(session.user_id)
    if user is None or user.disabled or tenant.disabled:
        raise Unauthenticated("The user or the tenant is disabled; ask an administrator.")
    return tenant, user


def _session_event(
    tenant: Tenant, user: User, session_id: UUID, action: str, now: datetime, request_id: str | None
) -> AuditEvent:
    return AuditEvent(
        id=new_id(),
        tenant_id=tenant.id,
        actor_user_id=user.id,
        actor_key_id=None,
        action=action,
        object_kind="session",
        object_id=str(session_id),
        details={},
        request_id=request_id,
        created_at=now,
    )


def _new_refresh_token(tenant_id: TenantId, session_id: UUID, hasher: SecretHasher) -> str:
    """It names its session, so that a used one that returns is known; it is signed, so that none is made up."""
    body = tenant_id.bytes + session_id.bytes + secrets.token_bytes(_SECRET_BYTES)
    return REFRESH_PREFIX + base64.urlsafe_b64encode(body + _mac(body, hasher)).decode()


def _opened(refresh_token: str, hasher: SecretHasher) -> tuple[TenantId, UUID]:
    """The tenant and the session that a refresh token names. Raises Unauthenticated for tokens not made here."""
    try:
        raw = base64.b64decode(refresh_token.removeprefix(REFRESH_PREFIX), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    body, mac = raw[:_BODY_BYTES], raw[_BODY_BYTES:]
    if not refresh_token.startswith(REFRESH_PREFIX) or not hmac.compare_digest(mac, _mac(body, hasher)):
        raise Unauthenticated("That is no refresh token of this gateway; log in again.")
    return TenantId(UUID(bytes=body[:16])), UUID(bytes=body[16:32])


def _mac(body: bytes, hasher: SecretHasher) -> bytes:
    return hasher.hmac(f"refresh-token:{body.hex()}")[:_MAC_BYTES]
