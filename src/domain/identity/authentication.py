"""From a credential to a principal: the first thing every request does."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from src.domain.identity.administration import user_on_first_sight
from src.domain.identity.model import (
    KEY_PREFIX,
    RESERVED_SUBJECTS,
    ApiKeyId,
    Principal,
    Role,
    Tenant,
    TenantId,
    User,
    UserId,
)
from src.domain.identity.ports import Claims, SecretHasher, TokenVerifier
from src.domain.unit_of_work import OpenUnitOfWork
from src.shared.clock import Clock
from src.shared.errors import Unauthenticated
from src.shared.ids import parse_id

T = TypeVar("T")

MAX_CREDENTIAL = 8192
REMEMBER_REFUSED_S = 1.0


class _NotYet(Unauthenticated):
    """A refusal that an administrator is about to lift (the tenant is being made): it is not remembered."""


@dataclass(frozen=True, slots=True)
class _Known:
    """An answer of the database and how long it may be given again."""

    principal: Principal
    since: datetime
    until: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Refused:
    message: str
    since: datetime
    until: datetime


class Authenticator:
    """Makes principals of API keys and JWTs, asking the database about a credential at most once in `remember_s`.

    So a change made elsewhere counts `remember_s` later at the latest; after a change made in this process, call
    `forget`. `open_reading` opens units of work for the questions, where that is cheaper than `open_uow`.
    """

    def __init__(
        self,
        open_uow: OpenUnitOfWork,
        verifier: TokenVerifier,
        hasher: SecretHasher,
        clock: Clock,
        remember_s: float = 2.0,
        remember_most: int = 10_000,
        *,
        open_reading: OpenUnitOfWork | None = None,
    ) -> None:
        self._open_uow = open_uow
        self._open_reading = open_reading or open_uow
        self._verifier = verifier
        self._hasher = hasher
        self._clock = clock
        self._remember_for = timedelta(seconds=remember_s)
        self._refuse_for = timedelta(seconds=min(REMEMBER_REFUSED_S, remember_s))
        self._most = remember_most
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._refused: OrderedDict[bytes, _Refused] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[_Known]] = {}

    async def authenticate(self, credential: str) -> Principal:
        """Who calls. Raises Unauthenticated, or Unavailable when that cannot be found out."""
        if not credential:
            raise Unauthenticated("Send a credential: a JWT or an API key.")
        if len(credential) > MAX_CREDENTIAL:
            raise Unauthenticated(f"The credential is longer than {MAX_CREDENTIAL} characters.")
        fingerprint = self._hasher.hmac(credential)
        now = self._clock()
        known = self._known.get(fingerprint)
        if known is None or not known.since <= now < known.until:
            self._raise_if_refused(fingerprint, now)
            known = await self._asked_once(fingerprint, credential)
        if known.expires_at is not None and self._clock() >= known.expires_at:
            raise _expired(known.principal)
        return known.principal

    def forget(
        self,
        *,
        api_key_id: ApiKeyId | None = None,
        user_id: UserId | None = None,
        tenant_id: TenantId | None = None,
        session_id: UUID | None = None,
    ) -> None:
        """Ask again about the credentials of what is named, or about all when nothing is; refusals go in any case."""
        named = {each for each in (api_key_id, user_id, tenant_id, session_id) if each is not None}
        for fingerprint, known in list(self._known.items()):
            if not named or not named.isdisjoint(_ids_of(known.principal)):
                del self._known[fingerprint]
        self._refused.clear()
        # What is being asked now may have been read before the change: it is answered, but not remembered.
        self._asking.clear()

    def _raise_if_refused(self, fingerprint: bytes, now: datetime) -> None:
        refused = self._refused.get(fingerprint)
        if refused is not None and refused.since <= now < refused.until:
            raise Unauthenticated(refused.message)

    async def _asked_once(self, fingerprint: bytes, credential: str) -> _Known:
        """Identical concurrent questions are one; a caller that goes away does not end it for the others."""
        task = self._asking.get(fingerprint)
        if task is None:
            task = asyncio.create_task(self._ask(credential))
            self._asking[fingerprint] = task
            task.add_done_callback(lambda done: self._remember(fingerprint, done))
        return await asyncio.shield(task)

    def _remember(self, fingerprint: bytes, done: "asyncio.Task[_Known]") -> None:
        failure = None if done.cancelled() else done.exception()
        if self._asking.get(fingerprint) is not done:
            return
        del self._asking[fingerprint]
        if done.cancelled():
            return
        if failure is None:
            _put(self._known, fingerprint, done.result(), self._most)
        elif isinstance(failure, Unauthenticated) and not isinstance(failure, _NotYet):
            now = self._clock()
            _put(self._refused, fingerprint, _Refused(failure.message, now, now + self._refuse_for), self._most)

    async def _ask(self, credential: str) -> _Known:
        since = self._clock()
        is_token = not credential.startswith(KEY_PREFIX) and credential.count(".") == 2
        principal, expires_at = await (self._of_token(credential) if is_token else self._of_key(credential))
        return _Known(principal, since, since + self._remember_for, expires_at)

    async def _of_key(self, secret: str) -> tuple[Principal, datetime | None]:
        async with self._open_reading(None) as uow:
            found = await uow.directory.key_by_hmac(self._hasher.hmac(secret))
        if found is None:
            raise Unauthenticated("Unknown API key. Check it for typing errors, or make a new one.")
        tenant, user, key = found
        principal = Principal(tenant=tenant, user=user, role=user.role, api_key=key)
        if key.revoked_at is not None:
            raise Unauthenticated("The API key was revoked; use another one.")
        if not key.is_live(self._clock()):
            raise _expired(principal)
        if tenant.disabled or user.disabled:
            raise _disabled("tenant" if tenant.disabled else "user")
        return principal, key.expires_at

    async def _of_token(self, token: str) -> tuple[Principal, datetime]:
        claims = await self._verifier.verify(token)
        if claims.subject.startswith(RESERVED_SUBJECTS) and claims.session_id is None:
            raise Unauthenticated(f"Subjects that begin with {RESERVED_SUBJECTS!r} are reserved.")
        tenant = await self._tenant(claims.tenant)
        if tenant.disabled:
            raise _disabled("tenant")
        user = await self._user(tenant, claims)
        if user.disabled:
            raise _disabled("user")
        role = claims.role or user.role
        if claims.session_id is not None:
            await self._require_session(tenant, user, claims.session_id)
            # The token was made by a password login here: it says no more than what the user is now.
            role = user.role
        return Principal(tenant=tenant, user=user, role=role, session_id=claims.session_id), claims.expires_at

    async def _tenant(self, name: str | None) -> Tenant:
        if name is None:
            raise Unauthenticated("The token names no tenant; add a claim with the tenant's id or slug.")
        tenant_id = parse_id(name)
        async with self._open_reading(None) as uow:
            found = None if tenant_id is None else await uow.directory.tenant(TenantId(tenant_id))
            found = found or await uow.directory.tenant_by_slug(name)
        if found is None:
            raise _NotYet("The token names a tenant that this gateway does not know.")
        return found

    async def _user(self, tenant: Tenant, claims: Claims) -> User:
        async with self._open_reading(tenant.id) as uow:
            found = await uow.identity.user_by_external_id(claims.subject)
        if found is not None:
            return found
        if claims.session_id is not None:
            raise Unauthenticated("The token's user is gone.")
        role = claims.role or Role.USER
        return await user_on_first_sight(tenant.id, claims.subject, role, open_uow=self._open_uow, clock=self._clock)

    async def _require_session(self, tenant: Tenant, user: User, session_id: UUID) -> None:
        async with self._open_reading(tenant.id) as uow:
            session = await uow.identity.session(session_id)
        is_live = (
            session is not None
            and session.user_id == user.id
            and session.revoked_at is None
            and self._clock() < session.expires_at
        )
        if not is_live:
            raise Unauthenticated("The session has ended; log in again.")


def _ids_of(principal: Principal) -> set[UUID]:
    key_id = None if principal.api_key is None else principal.api_key.id
    named = (principal.tenant_id, principal.user_id, key_id, principal.session_id)
    return {each for each in named if each is not None}


def _put(memory: OrderedDict[bytes, T], fingerprint: bytes, value: T, most: int) -> None:
    memory[fingerprint] = value
    memory.move_to_end(fingerprint)
    while len(memory) > most:
        memory.popitem(last=False)


def _expired(principal: Principal) -> Unauthenticated:
    what = "token" if principal.api_key is None else "API key"
    return Unauthenticated(f"The {what} has expired; get a new one.")


def _disabled(what: str) -> Unauthenticated:
    return Unauthenticated(f"The {what} is disabled; ask an administrator.")
