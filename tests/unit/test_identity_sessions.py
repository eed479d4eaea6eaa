"""Logging in, staying logged in, logging out; and the first administrator."""

import base64
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from src.domain.identity import sessions
from src.domain.identity.model import Principal, Role, TenantId
from src.domain.identity.sessions import SessionPorts, Tokens, acting_admin, bootstrap_admin
from src.domain.unit_of_work import UnitOfWork
from src.integrations.jwt_tokens import JwtSettings, JwtTokens
from src.integrations.secret_hashing import KeyedHasher
from src.shared.errors import Conflict, InvalidRequest, Misconfigured, NotFound, Unauthenticated
from tests.fake_store import Store
from tests.fakes import fake_unit_of_work_opener
from tests.makers import NOW, make_key, make_tenant, make_user

HASHER = KeyedHasher("k" * 32)
SECRET = "sk-gw-chosen-by-the-operator"
PASSWORD = "correct horse"


class Passwords:
    """Counts what it is asked; a password is its own hash."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    async def hash(self, password: str) -> str:
        return password

    async def verify(self, password_hash: str | None, password: str) -> bool:
        self.asked.append(password_hash)
        return password_hash == password


class Scene:
    def __init__(self) -> None:
        self.now = NOW
        self.store = Store()
        self.open_uow = fake_unit_of_work_opener(self.store)
        self.passwords = Passwords()
        self.tokens = JwtTokens(JwtSettings(secret="s" * 32), clock=self.clock)
        self.tenant = make_tenant(slug="acme")
        self.user = make_user(self.tenant, email="alice@acme.test", password_hash=PASSWORD, role=Role.TENANT_ADMIN)
        self.store.tenants[self.tenant.id] = self.tenant
        self.store.users[self.user.id] = self.user
        self.ports = SessionPorts(
            open_uow=self.open_uow, clock=self.clock, passwords=self.passwords, hasher=HASHER, tokens=self.tokens
        )

    def clock(self) -> datetime:
        return self.now

    @property
    def actions(self) -> list[str]:
        return [event.action for event in self.store.events.values()]

    async def login(
        self, email: str = "alice@acme.test", password: str = PASSWORD, tenant: str | None = None
    ) -> Tokens:
        return await sessions.login(email, password, tenant, self.ports)


@pytest.fixture
async def scene() -> Scene:
    return Scene()


# --- login ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tenant", [None, "acme"])
async def test_the_right_password_begins_a_session(scene: Scene, tenant: str | None) -> None:
    given = await scene.login("Alice@ACME.test", tenant=tenant)
    claims = await scene.tokens.verify(given.access_token)
    assert (claims.subject, claims.tenant) == (scene.user.external_id, str(scene.tenant.id))
    assert (claims.role, claims.session_id) == (Role.TENANT_ADMIN, given.session_id)
    assert given.access_expires_at == NOW + timedelta(seconds=900)
    assert given.refresh_expires_at == NOW + timedelta(days=30)
    kept = scene.store.sessions[given.session_id]
    assert kept.refresh_hmac == HASHER.hmac(given.refresh_token)
    assert scene.actions == ["session.began"]
    assert given.refresh_token not in repr(scene.store)


@pytest.mark.parametrize(
    ("said", "user", "tenant"),
    [
        ({"password": "wrong"}, {}, {}),
        ({"email": "nobody@acme.test"}, {}, {}),
        ({"tenant": "other"}, {}, {}),
        ({}, {"disabled": True}, {}),
        ({}, {"password_hash": None}, {}),
        ({}, {}, {"disabled": True}),
    ],
)
async def test_whatever_is_wrong_the_answer_and_the_work_are_the_same(
    scene: Scene, said: dict[str, Any], user: dict[str, Any], tenant: dict[str, Any]
) -> None:
    scene.store.users[scene.user.id] = replace(scene.user, **user)
    scene.store.tenants[scene.tenant.id] = replace(scene.tenant, **tenant)
    with pytest.raises(Unauthenticated) as refused:
        await scene.login(**said)
    assert refused.value.specific_code == "invalid_credentials"
    assert refused.value.message.startswith("The e-mail address or the password is wrong.")
    assert len(scene.passwords.asked) == 1
    assert not scene.store.sessions


async def test_a_user_of_two_tenants_names_one(scene: Scene) -> None:
    other = make_tenant(slug="other")
    scene.store.tenants[other.id] = other
    twin = make_user(other, email="alice@acme.test", password_hash=PASSWORD)
    scene.store.users[twin.id] = twin
    with pytest.raises(Unauthenticated, match="several tenants"):
        await scene.login()
    assert scene.passwords.asked == [None]
    assert (await scene.login(tenant="other")).user == twin


async def test_a_password_changed_meanwhile_begins_nothing(scene: Scene) -> None:
    class Slow(Passwords):
        async def verify(self, password_hash: str | None, password: str) -> bool:
            scene.store.users[scene.user.id] = replace(scene.user, password_hash="another")
            return True

    with pytest.raises(Unauthenticated):
        await sessions.login("alice@acme.test", PASSWORD, None, replace(scene.ports, passwords=Slow()))
    assert not scene.store.sessions


# --- refresh --------------------------------------------------------------------------------------------------------


async def test_a_refresh_token_is_exchanged_once(scene: Scene) -> None:
    first = await scene.login()
    scene.now += timedelta(days=1)
    scene.store.users[scene.user.id] = replace(scene.user, role=Role.USER)
    second = await sessions.refresh(first.refresh_token, scene.ports)
    assert second.session_id == first.session_id
    assert second.refresh_token != first.refresh_token
    assert second.refresh_expires_at == NOW + timedelta(days=31)
    assert (await scene.tokens.verify(second.access_token)).role is Role.USER
    await sessions.refresh(second.refresh_token, scene.ports)


async def test_a_used_refresh_token_that_returns_ends_the_session(scene: Scene) -> None:
    first = await scene.login()
    second = await sessions.refresh(first.refresh_token, scene.ports)
    with pytest.raises(Unauthenticated, match="used before"):
        await sessions.refresh(first.refresh_token, scene.ports)
    assert scene.store.sessions[first.session_id].revoked_at == NOW
    assert scene.actions == ["session.began", "session.refresh_reused"]
    with pytest.raises(Unauthenticated, match="session has ended"):
        await sessions.refresh(second.refresh_token, scene.ports)


def _tampered(token: str) -> str:
    raw = bytearray(base64.urlsafe_b64decode(token.removeprefix("rt-gw-")))
    raw[40] ^= 1
    return "rt-gw-" + base64.urlsafe_b64encode(raw).decode()


async def test_a_made_up_refresh_token_ends_nothing(scene: Scene) -> None:
    given = await scene.login()
    bare = given.refresh_token.removeprefix("rt-gw-")
    for made_up in ("", "rt-gw-", "rt-gw-é", "rt-gw-AAAA", bare, _tampered(given.refresh_token), bare[:40]):
        with pytest.raises(Unauthenticated, match="no refresh token"):
            await sessions.refresh(made_up, scene.ports)
    assert scene.store.sessions[given.session_id].revoked_at is None


@pytest.mark.parametrize("gone", ["session", "expired", "user", "tenant"])
async def test_a_refresh_token_ends_with_what_it_stands_on(scene: Scene, gone: str) -> None:
    given = await scene.login()
    match gone:
        case "session":
            scene.store.sessions.clear()
        case "expired":
            scene.now += timedelta(days=30)
        case "user":
            scene.store.users[scene.user.id] = replace(scene.user, disabled=True)
        case "tenant":
            scene.store.tenants[scene.tenant.id] = replace(scene.tenant, disabled=True)
    with pytest.raises(Unauthenticated):
        await sessions.refresh(given.refresh_token, scene.ports)


# --- logout ---------------------------------------------------------------------------------------------------------


async def test_logging_out_ends_the_session(scene: Scene) -> None:
    given = await scene.login()
    principal = Principal(tenant=scene.tenant, user=scene.user, role=scene.user.role, session_id=given.session_id)
    await sessions.logout(principal, open_uow=scene.open_uow, clock=scene.clock)
    assert scene.store.sessions[given.session_id].revoked_at == NOW
    assert scene.actions == ["session.began", "session.ended"]
    with pytest.raises(InvalidRequest):
        await sessions.logout(replace(principal, session_id=None), open_uow=scene.open_uow, clock=scene.clock)


async def test_a_refresh_token_alone_logs_out(scene: Scene) -> None:
    given = await scene.login()
    assert await sessions.end_session(given.refresh_token, scene.ports) == given.session_id
    assert scene.store.sessions[given.session_id].revoked_at == NOW
    with pytest.raises(Unauthenticated):
        await sessions.end_session(given.refresh_token, scene.ports)


# --- the first administrator ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [None, SECRET])
async def test_an_empty_database_gets_an_administrator_with_a_key(secret: str | None) -> None:
    store = Store()
    made = await bootstrap_admin(fake_unit_of_work_opener(store), lambda: NOW, HASHER, secret)
    assert made is not None
    assert made == (secret or made)
    assert made.startswith("sk-gw-")
    (tenant,), (user,), (key,) = store.tenants.values(), store.users.values(), store.keys.values()
    assert (tenant.slug, user.external_id, user.role) == ("default", "gateway:admin", Role.PLATFORM_ADMIN)
    assert (key.user_id, key.secret_hmac) == (user.id, HASHER.hmac(made))
    assert len(key.prefix) <= len(made) / 3
    assert [event.action for event in store.events.values()] == ["api_key.bootstrapped"]


async def test_beginning_again_changes_nothing_and_a_new_secret_is_one_more_key() -> None:
    store = Store()
    open_uow = fake_unit_of_work_opener(store)
    assert await bootstrap_admin(open_uow, lambda: NOW, HASHER, SECRET) == SECRET
    for again in (SECRET, None, SECRET):
        assert await bootstrap_admin(open_uow, lambda: NOW, HASHER, again) is None
    assert len(store.keys) == 1
    assert await bootstrap_admin(open_uow, lambda: NOW, HASHER, SECRET + "-2") == SECRET + "-2"
    assert len(store.keys) == 2
    assert len(store.users) == len(store.tenants) == 1


async def test_a_revoked_bootstrap_key_stays_revoked() -> None:
    store = Store()
    open_uow = fake_unit_of_work_opener(store)
    await bootstrap_admin(open_uow, lambda: NOW, HASHER, SECRET)
    (key,) = store.keys.values()
    store.keys[key.id] = replace(key, revoked_at=NOW)
    assert await bootstrap_admin(open_uow, lambda: NOW, HASHER, SECRET) is None
    assert store.keys[key.id].revoked_at == NOW


async def test_a_key_that_can_be_guessed_stops_the_start() -> None:
    with pytest.raises(Misconfigured, match="GATEWAY_BOOTSTRAP_KEY") as refused:
        await bootstrap_admin(fake_unit_of_work_opener(Store()), lambda: NOW, HASHER, "sk-gw-short")
    assert "sk-gw-short" not in str(refused.value)


class Beaten:
    """Units of work of a process that another one beats: what it read is out of date when it writes."""

    def __init__(self, store: Store, secret: str | None) -> None:
        self.store = store
        self.secret = secret
        self.opened = 0
        self.won: str | None = None

    def __call__(self, tenant_id: TenantId | None) -> AbstractAsyncContextManager[UnitOfWork]:
        return self._opened(tenant_id)

    @asynccontextmanager
    async def _opened(self, tenant_id: TenantId | None) -> AsyncIterator[UnitOfWork]:
        self.opened += 1
        if self.opened == 2:
            self.won = await bootstrap_admin(fake_unit_of_work_opener(self.store), lambda: NOW, HASHER, self.secret)
        async with fake_unit_of_work_opener(self.store)(tenant_id) as uow:
            yield uow


@pytest.mark.parametrize("secret", [None, SECRET])
async def test_of_several_processes_one_makes_the_administrator(secret: str | None) -> None:
    store = Store()
    beaten = Beaten(store, secret)
    assert await bootstrap_admin(beaten, lambda: NOW, HASHER, secret) is None
    assert beaten.won is not None
    assert len(store.tenants) == len(store.users) == len(store.keys) == 1


async def test_a_conflict_that_does_not_pass_is_told() -> None:
    @asynccontextmanager
    async def conflicting(tenant_id: TenantId | None) -> AsyncIterator[UnitOfWork]:
        raise Conflict("Always.")
        yield

    with pytest.raises(Conflict):
        await bootstrap_admin(conflicting, lambda: NOW, HASHER, None)


async def test_the_command_line_acts_as_the_first_administrator() -> None:
    store = Store()
    open_uow = fake_unit_of_work_opener(store)
    with pytest.raises(NotFound):
        await acting_admin(open_uow)
    await bootstrap_admin(open_uow, lambda: NOW, HASHER, SECRET)
    assert (await acting_admin(open_uow)).is_platform_admin


async def test_other_keys_stay_when_the_bootstrap_key_is_rotated(scene: Scene) -> None:
    key = make_key(scene.user)
    scene.store.keys[key.id] = key
    await bootstrap_admin(scene.open_uow, scene.clock, HASHER, SECRET)
    assert scene.store.keys[key.id] == key
