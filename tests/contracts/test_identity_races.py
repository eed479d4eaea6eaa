"""Several processes at once: one administrator, one user of a subject, one exchange of a refresh token."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from src.domain.identity import sessions
from src.domain.identity.authentication import Authenticator
from src.domain.identity.model import Role
from src.domain.identity.ports import Claims
from src.domain.identity.sessions import SessionPorts, Tokens, bootstrap_admin
from src.integrations.jwt_tokens import JwtSettings, JwtTokens
from src.integrations.secret_hashing import KeyedHasher
from src.shared.clock import utc_now
from src.shared.errors import Unauthenticated
from src.shared.pages import PageRequest

if TYPE_CHECKING:
    from tests.contracts.conftest import Backend

HASHER = KeyedHasher("k" * 32)
TOKENS = JwtTokens(JwtSettings(secret="s" * 32))
SECRET = "sk-gw-chosen-by-the-operator"


class PlainPasswords:
    """A password is its own hash."""

    async def hash(self, password: str) -> str:
        return password

    async def verify(self, password_hash: str | None, password: str) -> bool:
        return password_hash == password


async def test_one_administrator_is_made_whoever_begins(backend: Backend) -> None:
    openers = [backend.open_uow, *(backend.replica().open_uow for _ in range(3))]
    made = await asyncio.gather(*(bootstrap_admin(opener, utc_now, HASHER, SECRET) for opener in openers))
    assert sorted(made, key=str) == [None, None, None, SECRET]
    principal = await Authenticator(backend.open_uow, TOKENS, HASHER, utc_now).authenticate(SECRET)
    assert principal.role is Role.PLATFORM_ADMIN
    async with backend.open_uow(principal.tenant_id) as uow:
        assert len((await uow.identity.users(PageRequest())).rows) == 1
        assert len((await uow.identity.keys(PageRequest(), user_id=None)).rows) == 1


async def test_a_subject_seen_first_by_many_is_one_user(backend: Backend) -> None:
    tenant, _ = await backend.with_user()
    expires_at = utc_now() + timedelta(hours=1)
    openers = [backend.open_uow, *(backend.replica().open_uow for _ in range(3))]
    doors = [Authenticator(opener, TOKENS, HASHER, utc_now) for opener in openers]

    async def enter(door: Authenticator) -> object:
        claims = Claims(subject="bob", tenant=tenant.slug, role=None, expires_at=expires_at)
        return (await door.authenticate(TOKENS.issue(claims))).user.id

    assert len(set(await asyncio.gather(*(enter(door) for door in doors * 5)))) == 1
    async with backend.open_uow(tenant.id) as uow:
        assert len((await uow.identity.users(PageRequest())).rows) == 2


async def test_a_refresh_token_used_twice_at_once_is_exchanged_once(backend: Backend) -> None:
    await backend.with_user(email="alice@acme.test", password_hash="correct horse")
    ports = SessionPorts(
        open_uow=backend.open_uow, clock=utc_now, passwords=PlainPasswords(), hasher=HASHER, tokens=TOKENS
    )
    given = await sessions.login("alice@acme.test", "correct horse", None, ports)
    results = await asyncio.gather(
        *(sessions.refresh(given.refresh_token, ports) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, Tokens) for result in results) == 1
    assert sum(isinstance(result, Unauthenticated) for result in results) == 4
    async with backend.open_uow(given.tenant.id) as uow:
        session = await uow.identity.session(given.session_id)
    assert session is not None
    assert session.revoked_at is not None
