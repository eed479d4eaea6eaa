"""API keys: made for oneself, or by administrators for the users they run, and never broader than what made them."""

import secrets
from dataclasses import replace
from datetime import datetime

from src.domain.identity.administration import audit_event, tenant_of_user
from src.domain.identity.model import KEY_PREFIX, ApiKey, ApiKeyId, Principal, TenantId, UserId
from src.domain.identity.ports import SecretHasher
from src.domain.identity.rules import existing, name_of, require_rank_of
from src.domain.ledger.model import Scope
from src.domain.limits.model import LimitScope
from src.domain.unit_of_work import OpenUnitOfWork, UnitOfWork
from src.shared.clock import Clock
from src.shared.errors import Conflict, InvalidRequest, NotAllowed, NotFound
from src.shared.ids import new_id
from src.shared.pages import Page, PageRequest

MAX_MODELS = 200

_SECRET_BYTES = 32
_SHOWN_PREFIX = 12


def new_api_key_secret() -> str:
    """A secret that nobody guesses, recognisable by its prefix."""
    return KEY_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def shown_prefix(secret: str) -> str:
    """What may be shown of a secret: 12 characters, and never more than a third."""
    return secret[: min(_SHOWN_PREFIX, len(secret) // 3)]


async def create_api_key(
    principal: Principal,
    name: str,
    *,
    open_uow: OpenUnitOfWork,
    clock: Clock,
    hasher: SecretHasher,
    user_id: UserId | None = None,
    models: tuple[str, ...] | None = None,
    expires_at: datetime | None = None,
    request_id: str | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret, which is never to be had again. For oneself, or (administrators) for `user_id`.

    Made with a key that expires, it expires no later. Raises NotAllowed, NotFound (user), InvalidRequest.
    """
    now = clock()
    _check_models(models)
    if expires_at is not None and expires_at <= now:
        raise InvalidRequest("expires_at must lie in the future.", param="expires_at")
    if expires_at is None and principal.api_key is not None:
        expires_at = principal.api_key.expires_at
    await _require_no_broader(principal, models, expires_at, open_uow)
    owner_id = user_id or principal.user_id
    tenant_id = await tenant_of_user(principal, owner_id, open_uow=open_uow)
    secret = new_api_key_secret()
    key = ApiKey(
        id=ApiKeyId(new_id()),
        tenant_id=tenant_id,
        user_id=owner_id,
        name=name_of(name, "name"),
        prefix=shown_prefix(secret),
        secret_hmac=hasher.hmac(secret),
        created_at=now,
        models=models,
        expires_at=expires_at,
    )
    async with open_uow(tenant_id) as uow:
        await _require_may_act_as(uow, principal, owner_id)
        await uow.identity.add_key(key)
        await _record(uow, principal, key, "api_key.created", now, request_id)
        await uow.commit()
    return key, secret


async def list_own_keys(principal: Principal, page: PageRequest, *, open_uow: OpenUnitOfWork) -> Page[ApiKey]:
    """One's own keys, newest first, revoked ones included."""
    async with open_uow(principal.tenant_id) as uow:
        return await uow.identity.keys(page, user_id=principal.user_id)


async def list_keys(
    principal: Principal,
    page: PageRequest,
    *,
    open_uow: OpenUnitOfWork,
    tenant_id: TenantId | None = None,
    user_id: UserId | None = None,
) -> Page[ApiKey]:
    """All keys of a tenant in the principal's reach (by default their own), or of one of its users.

    Raises NotAllowed, NotFound.
    """
    reached = principal.reach_of_tenant(tenant_id or principal.tenant_id)
    async with open_uow(reached) as uow:
        return await uow.identity.keys(page, user_id=user_id)


async def revoke_api_key(
    principal: Principal,
    key_id: ApiKeyId,
    *,
    open_uow: OpenUnitOfWork,
    clock: Clock,
    request_id: str | None = None,
) -> ApiKey:
    """End a key of one's own, or of a user in one's reach; again is no error. Raises NotFound, NotAllowed."""
    tenant_id = await tenant_of_key(principal, key_id, open_uow=open_uow)
    now = clock()
    async with open_uow(tenant_id) as uow:
        key = await _key_in_reach(uow, principal, key_id)
        if key.revoked_at is None:
            await uow.identity.revoke_key(key_id, now)
            await _record(uow, principal, key, "api_key.revoked", now, request_id)
            await uow.commit()
    return key


async def rotate_api_key(
    principal: Principal,
    key_id: ApiKeyId,
    *,
    open_uow: OpenUnitOfWork,
    clock: Clock,
    hasher: SecretHasher,
    request_id: str | None = None,
) -> tuple[ApiKey, str]:
    """Give a key a new secret; the old one ends. Its id, limits and usage stay.

    Raises NotFound, NotAllowed for keys broader than the one that asks, Conflict for a key that has ended.
    """
    tenant_id = await tenant_of_key(principal, key_id, open_uow=open_uow)
    async with open_uow(tenant_id) as uow:
        wanted = await _key_in_reach(uow, principal, key_id)
    if principal.api_key is None or principal.api_key.id != key_id:
        await _require_no_broader(principal, wanted.models, wanted.expires_at, open_uow)
    now = clock()
    secret = new_api_key_secret()
    async with open_uow(tenant_id) as uow:
        key = await _key_in_reach(uow, principal, key_id)
        if not key.is_live(now):
            raise Conflict("The key was revoked or has expired; make a new one.")
        new, prefix = hasher.hmac(secret), shown_prefix(secret)
        if not await uow.identity.replace_secret(key_id, old=key.secret_hmac, new=new, prefix=prefix):
            raise Conflict("The key was changed by somebody else at the same time; look at it again.")
        await _record(uow, principal, key, "api_key.rotated", now, request_id)
        await uow.commit()
    return replace(key, prefix=prefix, secret_hmac=new), secret


async def tenant_of_key(principal: Principal, key_id: ApiKeyId, *, open_uow: OpenUnitOfWork) -> TenantId:
    """Where to look for the key: platform admins reach every tenant. Raises NotFound."""
    if not principal.is_platform_admin:
        return principal.tenant_id
    async with open_uow(None) as uow:
        return existing(await uow.directory.key_anywhere(key_id), "API key").tenant_id


async def _key_in_reach(uow: UnitOfWork, principal: Principal, key_id: ApiKeyId) -> ApiKey:
    """Raises NotFound for keys of others, NotAllowed for those of users who outrank the principal."""
    key = existing(await uow.identity.key(key_id), "API key")
    if key.user_id != principal.user_id and not principal.is_admin:
        raise NotFound("No such API key.")
    await _require_may_act_as(uow, principal, key.user_id)
    return key


async def _require_may_act_as(uow: UnitOfWork, principal: Principal, user_id: UserId) -> None:
    """A key acts with its user's own role, which the principal may have left at home (a token can say less)."""
    require_rank_of(principal, existing(await uow.identity.user(user_id), "user"))


async def _require_no_broader(
    principal: Principal, models: tuple[str, ...] | None, expires_at: datetime | None, open_uow: OpenUnitOfWork
) -> None:
    """Raises NotAllowed for what goes beyond the key that asks for it."""
    own = principal.api_key
    if own is None:
        return
    if own.models is not None and (models is None or not set(models) <= set(own.models)):
        raise NotAllowed(
            f"This API key is limited to {', '.join(own.models)}; it reaches only keys limited to some of these."
        )
    if own.expires_at is not None and (expires_at is None or expires_at > own.expires_at):
        raise NotAllowed("This API key expires; it reaches only keys that expire no later.")
    async with open_uow(principal.tenant_id) as uow:
        quotas = await uow.accounts.quotas_of([(Scope.API_KEY, own.id)])
        rate_limit = await uow.limits.find(LimitScope.API_KEY, str(own.id))
    if quotas or rate_limit:
        # With another key it could do more than its own allows.
        raise NotAllowed("This API key has a quota or rate limit of its own; use another credential for other keys.")


def _check_models(models: tuple[str, ...] | None) -> None:
    if models is None:
        return
    if not models or len(models) > MAX_MODELS:
        raise InvalidRequest(f"models must name 1 to {MAX_MODELS} models, or be left out for all.", param="models")
    for model in models:
        name_of(model, "models")


async def _record(
    uow: UnitOfWork, principal: Principal, key: ApiKey, action: str, now: datetime, request_id: str | None
) -> None:
    details = {"name": key.name, "prefix": key.prefix, "user_id": str(key.user_id)}
    event = audit_event(
        principal,
        action=action,
        object_kind="api_key",
        object_id=str(key.id),
        now=now,
        request_id=request_id,
        details=details,
        tenant_id=key.tenant_id,
    )
    await uow.audit.record(event)
