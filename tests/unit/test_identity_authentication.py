"""From a credential to a principal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from src.domain.identity.authentication import Authenticator
from src.domain.identity.model import ApiKey, Role, Tenant, TenantId, User
from src.domain.identity.ports import Claims
from src.domain.unit_of_work import UnitOfWork
from src.integrations.secret_hashing import KeyedHasher
from src.shared.errors import Unauthenticated, Unavailable
from tests.fake_store import Store
from tests.fakes import fake_unit_of_work_opener
from tests.makers import NOW, make_key, make_session, make_tenant, make_user

SECRET = "sk-gw-a-secret-of-a-test"
TOKEN = "a.jwt.token"
HASHER = KeyedHasher("k" * 32)


class Scene:
    """An authenticator over a store, a clock that is told the time, and one token that says what it is told to say."""

    def __init__(self) -> None:
        self.now = NOW
        self.store = Store()
        self.opened = 0
        self.open_fake = fake_unit_of_work_opener(self.store)
        self.failure: Exception | None = None
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.tenant = make_tenant(slug="acme")
        self.user = make_user(self.tenant, external_id="alice")
        self.key = make_key(self.user, secret_hmac=HASHER.hmac(SECRET))
        self.put(self.tenant, self.user, self.key)
        self.claims = Claims(subject="alice", tenant="acme", role=None, expires_at=NOW + timedelta(hours=1))
        self.authenticator = Authenticator(self.open, self, HASHER, self.clock)

    def put(self, *rows: Tenant | User | ApiKey) -> None:
        for row in rows:
            match row:
                case Tenant():
                    self.store.tenants[row.id] = row
                case User():
                    self.store.users[row.id] = row
                case ApiKey():
                    self.store.keys[row.id] = row

    def clock(self) -> datetime:
        return self.now

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def open(self, tenant_id: TenantId | None) -> AbstractAsyncContextManager[UnitOfWork]:
        return self._opened(tenant_id)

    @asynccontextmanager
    async def _opened(self, tenant_id: TenantId | None) -> AsyncIterator[UnitOfWork]:
        self.opened += 1
        await self.may_read.wait()
        if self.failure is not None:
            raise self.failure
        async with self.open_fake(tenant_id) as uow:
            yield uow

    async def verify(self, token: str) -> Claims:
        if token != TOKEN:
            raise Unauthenticated("The token's signature does not match.")
        return self.claims

    async def refusal(self, credential: str = SECRET) -> str:
        with pytest.raises(Unauthenticated) as refused:
            await self.authenticator.authenticate(credential)
        assert credential not in refused.value.message or not credential
        return refused.value.message


@pytest.fixture
async def scene() -> Scene:
    return Scene()


# --- API keys -------------------------------------------------------------------------------------------------------


async def test_a_key_acts_as_its_user(scene: Scene) -> None:
    principal = await scene.authenticator.authenticate(SECRET)
    assert (principal.tenant, principal.user, principal.api_key) == (scene.tenant, scene.user, scene.key)
    assert principal.role is Role.USER
    assert principal.session_id is None


async def test_a_key_without_the_usual_prefix_is_a_key_all_the_same(scene: Scene) -> None:
    scene.put(make_key(scene.user, secret_hmac=HASHER.hmac("operator-chosen-key")))
    assert (await scene.authenticator.authenticate("operator-chosen-key")).user == scene.user


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": {"revoked_at": NOW}}, "revoked"),
        ({"key": {"expires_at": NOW}}, "API key has expired"),
        ({"user": {"disabled": True}}, "user is disabled"),
        ({"tenant": {"disabled": True}}, "tenant is disabled"),
        ({"key": {"secret_hmac": b"another"}}, "Unknown API key"),
    ],
)
async def test_keys_that_do_not_count_are_refused(scene: Scene, changes: dict[str, dict[str, Any]], words: str) -> None:
    for name, change in changes.items():
        scene.put(replace(getattr(scene, name), **change))
    assert words in await scene.refusal()


@pytest.mark.parametrize(("credential", "words"), [("", "Send a credential"), ("x" * 8193, "longer than")])
async def test_what_is_no_credential_asks_nobody(scene: Scene, credential: str, words: str) -> None:
    assert words in await scene.refusal(credential)
    assert scene.opened == 0


async def test_a_key_is_asked_about_once_in_two_seconds(scene: Scene) -> None:
    for _ in range(5):
        await scene.authenticator.authenticate(SECRET)
    assert scene.opened == 1
    scene.later(2)
    await scene.authenticator.authenticate(SECRET)
    assert scene.opened == 2


async def test_a_revoked_key_dies_within_two_seconds(scene: Scene) -> None:
    await scene.authenticator.authenticate(SECRET)
    scene.put(replace(scene.key, revoked_at=NOW))
    scene.later(1.9)
    await scene.authenticator.authenticate(SECRET)
    scene.later(0.1)
    assert "revoked" in await scene.refusal()


async def test_a_clock_set_back_does_not_keep_a_key_alive(scene: Scene) -> None:
    await scene.authenticator.authenticate(SECRET)
    scene.put(replace(scene.key, revoked_at=NOW))
    scene.later(-3600)
    assert "revoked" in await scene.refusal()


@pytest.mark.parametrize("name", ["api_key_id", "user_id", "tenant_id", None])
async def test_a_forgotten_key_dies_at_once(scene: Scene, name: str | None) -> None:
    await scene.authenticator.authenticate(SECRET)
    scene.put(replace(scene.key, revoked_at=NOW))
    named = {"api_key_id": scene.key.id, "user_id": scene.user.id, "tenant_id": scene.tenant.id}
    scene.authenticator.forget(**({} if name is None else {name: named[name]}))
    assert "revoked" in await scene.refusal()


async def test_forgetting_somebody_else_asks_nothing_again(scene: Scene) -> None:
    await scene.authenticator.authenticate(SECRET)
    scene.authenticator.forget(user_id=make_user(scene.tenant).id)
    await scene.authenticator.authenticate(SECRET)
    assert scene.opened == 1


async def test_what_was_asked_before_a_change_is_not_remembered_after_it(scene: Scene) -> None:
    scene.may_read.clear()
    asking = asyncio.create_task(scene.authenticator.authenticate(SECRET))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    scene.authenticator.forget(api_key_id=scene.key.id)
    scene.may_read.set()
    await asking
    scene.put(replace(scene.key, revoked_at=NOW))
    assert "revoked" in await scene.refusal()


async def test_expiry_is_looked_at_every_time(scene: Scene) -> None:
    scene.put(replace(scene.key, expires_at=NOW + timedelta(seconds=1)))
    await scene.authenticator.authenticate(SECRET)
    scene.later(1)
    assert "expired" in await scene.refusal()
    assert scene.opened == 1


async def test_identical_concurrent_questions_are_one(scene: Scene) -> None:
    principals = await asyncio.gather(*(scene.authenticator.authenticate(SECRET) for _ in range(50)))
    assert scene.opened == 1
    assert len({id(principal) for principal in principals}) == 1


async def test_a_caller_that_leaves_does_not_end_the_question_of_the_others(scene: Scene) -> None:
    scene.may_read.clear()
    first, second = (asyncio.create_task(scene.authenticator.authenticate(SECRET)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    scene.may_read.set()
    assert (await second).user == scene.user
    assert scene.opened == 1


async def test_refusals_are_remembered_for_a_second(scene: Scene) -> None:
    for _ in range(5):
        await scene.refusal("sk-gw-wrong")
    assert scene.opened == 1
    scene.put(make_key(scene.user, secret_hmac=HASHER.hmac("sk-gw-wrong")))
    scene.later(1)
    await scene.authenticator.authenticate("sk-gw-wrong")


async def test_a_change_here_lifts_refusals_at_once(scene: Scene) -> None:
    scene.put(replace(scene.user, disabled=True))
    await scene.refusal()
    scene.put(scene.user)
    scene.authenticator.forget(user_id=scene.user.id)
    await scene.authenticator.authenticate(SECRET)


async def test_a_database_that_is_away_is_no_refusal_and_not_remembered(scene: Scene) -> None:
    scene.failure = Unavailable("The database is away.")
    with pytest.raises(Unavailable):
        await scene.authenticator.authenticate(SECRET)
    scene.failure = None
    await scene.authenticator.authenticate(SECRET)


async def test_memory_has_a_limit(scene: Scene) -> None:
    authenticator = Authenticator(scene.open, scene, HASHER, scene.clock, remember_most=3)
    for number in range(10):
        secret = f"sk-gw-{number}"
        scene.put(make_key(scene.user, secret_hmac=HASHER.hmac(secret)))
        await authenticator.authenticate(secret)
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(f"sk-gw-unknown-{number}")
    assert len(authenticator._known) == len(authenticator._refused) == 3
    assert not authenticator._asking


# --- tokens ---------------------------------------------------------------------------------------------------------


async def test_a_token_names_its_tenant_by_slug_or_id(scene: Scene) -> None:
    by_slug = await scene.authenticator.authenticate(TOKEN)
    scene.authenticator.forget()
    scene.claims = replace(scene.claims, tenant=str(scene.tenant.id))
    assert (await scene.authenticator.authenticate(TOKEN)).user == by_slug.user == scene.user


@pytest.mark.parametrize(
    ("claims", "changes", "words"),
    [
        ({"subject": "gateway:admin"}, {}, "reserved"),
        ({"tenant": None}, {}, "names no tenant"),
        ({"tenant": "nowhere"}, {}, "does not know"),
        ({}, {"user": {"disabled": True}}, "user is disabled"),
        ({}, {"tenant": {"disabled": True}}, "tenant is disabled"),
    ],
)
async def test_tokens_that_lead_nowhere_are_refused(
    scene: Scene, claims: dict[str, Any], changes: dict[str, dict[str, Any]], words: str
) -> None:
    scene.claims = replace(scene.claims, **claims)
    for name, change in changes.items():
        scene.put(replace(getattr(scene, name), **change))
    assert words in await scene.refusal(TOKEN)


async def test_a_bad_token_asks_no_database(scene: Scene) -> None:
    assert "signature" in await scene.refusal("not.our.token")
    assert scene.opened == 0


async def test_a_tenant_made_a_moment_ago_is_known(scene: Scene) -> None:
    scene.claims = replace(scene.claims, tenant="new")
    await scene.refusal(TOKEN)
    scene.put(make_tenant(slug="new"))
    assert (await scene.authenticator.authenticate(TOKEN)).tenant.slug == "new"


@pytest.mark.parametrize("role", [None, Role.TENANT_ADMIN, Role.PLATFORM_ADMIN])
async def test_an_unknown_user_of_a_known_tenant_is_made_on_first_sight(scene: Scene, role: Role | None) -> None:
    scene.claims = replace(scene.claims, subject="bob", role=role)
    principals = await asyncio.gather(*(scene.authenticator.authenticate(TOKEN) for _ in range(5)))
    assert {principal.user.external_id for principal in principals} == {"bob"}
    assert principals[0].user.role is principals[0].role is (role or Role.USER)
    assert [user.external_id for user in scene.store.users.values()] == ["alice", "bob"]
    assert [event.action for event in scene.store.events.values()] == ["user.seen_first"]


async def test_another_process_that_was_faster_made_the_same_user(scene: Scene) -> None:
    scene.claims = replace(scene.claims, subject="bob")
    bob = make_user(scene.tenant, external_id="bob")
    plain = scene.open_fake

    def late(tenant_id: TenantId | None) -> AbstractAsyncContextManager[UnitOfWork]:
        if scene.opened == 3:
            # The tenant and the user were read; the user is about to be made.
            scene.put(bob)
        return plain(tenant_id)

    scene.open_fake = late
    assert (await scene.authenticator.authenticate(TOKEN)).user == bob
    assert scene.opened == 4


async def test_a_tokens_role_counts_and_its_silence_means_the_users(scene: Scene) -> None:
    scene.put(replace(scene.user, role=Role.TENANT_ADMIN))
    assert (await scene.authenticator.authenticate(TOKEN)).role is Role.TENANT_ADMIN
    for role in Role:
        scene.authenticator.forget()
        scene.claims = replace(scene.claims, role=role)
        assert (await scene.authenticator.authenticate(TOKEN)).role is role


async def test_an_expired_token_is_refused_while_it_is_remembered(scene: Scene) -> None:
    scene.claims = replace(scene.claims, expires_at=NOW + timedelta(seconds=1))
    await scene.authenticator.authenticate(TOKEN)
    scene.later(1)
    assert "token has expired" in await scene.refusal(TOKEN)


async def test_a_demoted_user_keeps_no_role_from_an_older_login(scene: Scene) -> None:
    session = make_session(scene.user)
    scene.store.sessions[session.id] = session
    scene.claims = replace(scene.claims, role=Role.PLATFORM_ADMIN, session_id=session.id)
    principal = await scene.authenticator.authenticate(TOKEN)
    assert principal.role is Role.USER
    assert principal.session_id == session.id


@pytest.mark.parametrize("change", [{"revoked_at": NOW}, {"expires_at": NOW}, {"user_id": make_tenant().id}, None])
async def test_a_token_ends_with_its_session(scene: Scene, change: dict[str, Any] | None) -> None:
    session = make_session(scene.user, **(change or {}))
    if change is not None:
        scene.store.sessions[session.id] = session
    scene.claims = replace(scene.claims, session_id=session.id)
    assert "session has ended" in await scene.refusal(TOKEN)


async def test_a_login_token_never_makes_a_user(scene: Scene) -> None:
    scene.claims = replace(scene.claims, subject="gone", session_id=make_session(scene.user).id)
    assert "user is gone" in await scene.refusal(TOKEN)


async def test_a_session_is_forgotten_at_once(scene: Scene) -> None:
    session = make_session(scene.user)
    scene.store.sessions[session.id] = session
    scene.claims = replace(scene.claims, session_id=session.id)
    await scene.authenticator.authenticate(TOKEN)
    scene.store.sessions[session.id] = replace(session, revoked_at=NOW)
    scene.authenticator.forget(session_id=session.id)
    assert "session has ended" in await scene.refusal(TOKEN)
