"""Who sets, reads and removes which rate limits, and what is written of it."""

from typing import Any
from uuid import uuid4

import pytest

from src.domain.catalog.model import Chain, Model
from src.domain.identity.model import Principal, User
from src.domain.limits import administration
from src.domain.limits.administration import Limits, RateLimitAdmin
from src.domain.limits.model import MAX_LIMIT, LimitName, LimitScope, RateLimit, RateLimitId, RateLimits
from src.shared.errors import Conflict, GatewayError, InvalidRequest, NotAllowed, NotFound
from src.shared.pages import PageRequest
from tests.makers import NOW
from tests.unit.identity_scene import Scene

REQUESTS, TOKENS, PARALLEL = LimitName
TENANT, USER, API_KEY, MODEL = LimitScope
NOTHING: Limits = dict.fromkeys(LimitName)


class View:
    """Counts how often it is read again."""

    def __init__(self) -> None:
        self.refreshed = 0

    def current(self) -> RateLimits:
        return RateLimits()

    async def refresh(self) -> None:
        self.refreshed += 1


class Town(Scene):
    """The scene with an office for rate limits, and a model and a chain."""

    def __init__(self) -> None:
        super().__init__()
        self.view = View()
        self.office = RateLimitAdmin(open_uow=self.open_uow, view=self.view, clock=self.clock)
        model = Model(name="fast", provider="p", upstream="u", context_window=10, max_output=10)
        self.store.models["fast"] = (model, "file")
        self.store.chains["smart"] = (Chain(name="smart", models=("fast",)), "file")

    async def put(self, who: User | Principal, scope: LimitScope, scope_id: Any, **limits: int | None) -> RateLimit:
        principal = who if isinstance(who, Principal) else self.principal(who)
        named = {LimitName(name): limit for name, limit in limits.items()}
        return await administration.put_rate_limit(principal, scope, str(scope_id), named, self.office, "req-1")

    async def set(self, who: User, whose: User, changes: Limits) -> Limits:
        return await administration.set_user_rate_limits(self.principal(who), whose.id, changes, self.office, "req-1")

    async def remove(self, who: User | Principal, limit: RateLimit) -> None:
        principal = who if isinstance(who, Principal) else self.principal(who)
        await administration.remove_rate_limit(principal, limit.id, self.office, "req-1")

    async def listed(self, who: User, **given: Any) -> list[RateLimit]:
        page = await administration.list_rate_limits(
            self.principal(who), PageRequest(), open_uow=self.open_uow, **given
        )
        return list(page.rows)


@pytest.fixture
def town() -> Town:
    return Town()


async def test_a_limit_is_put_and_counts_at_once_here(town: Town) -> None:
    made = await town.put(town.admin, USER, town.alice.id, requests_per_minute=5, parallel=2)
    assert (made.requests_per_minute, made.tokens_per_minute, made.parallel) == (5, None, 2)
    assert (made.tenant_id, made.scope_id, made.updated_at) == (town.acme.id, str(town.alice.id), NOW)
    assert town.view.refreshed == 1
    (event,) = town.store.events.values()
    assert (event.action, event.object_kind, event.object_id) == ("rate_limit.put", "rate_limit", str(made.id))
    assert (event.tenant_id, event.actor_user_id, event.request_id) == (town.acme.id, town.admin.id, "req-1")
    assert event.details == {
        "scope": "user",
        "scope_id": str(town.alice.id),
        "requests_per_minute": 5,
        "tokens_per_minute": None,
        "parallel": 2,
    }


async def test_put_again_it_is_the_same_with_what_is_named_and_nothing_else(town: Town) -> None:
    made = await town.put(town.root, TENANT, town.acme.id, requests_per_minute=5)
    again = await town.put(town.root, TENANT, town.acme.id.hex.upper(), tokens_per_minute=9)
    assert (again.id, again.requests_per_minute, again.tokens_per_minute) == (made.id, None, 9)


@pytest.mark.parametrize("name", ["fast", "smart"])
async def test_a_models_limit_belongs_to_the_platform(town: Town, name: str) -> None:
    made = await town.put(town.root, MODEL, name, parallel=3)
    assert (made.tenant_id, made.scope_id) == (None, name)
    assert [event.tenant_id for event in town.store.events.values()] == [town.root.tenant_id]
    for who in (town.admin, town.alice):
        with pytest.raises(NotAllowed):
            await town.put(who, MODEL, name, parallel=100)


async def test_who_may_put_what(town: Town) -> None:
    key, foreign_key = town.key(town.alice), town.key(town.foreigner)
    cases: list[tuple[User, LimitScope, Any, type[GatewayError] | None]] = [
        (town.alice, USER, town.alice.id, NotAllowed),
        (town.alice, API_KEY, key.id, NotAllowed),
        (town.admin, USER, town.alice.id, None),
        (town.admin, API_KEY, key.id, None),
        (town.admin, TENANT, town.acme.id, NotAllowed),
        (town.admin, TENANT, town.other.id, NotFound),
        (town.admin, USER, town.foreigner.id, NotFound),
        (town.admin, API_KEY, foreign_key.id, NotFound),
        (town.root, TENANT, town.other.id, None),
        (town.root, USER, town.foreigner.id, None),
        (town.root, API_KEY, foreign_key.id, None),
    ]
    for who, scope, scope_id, refusal in cases:
        before = dict(town.store.limits)
        if refusal is None:
            limit = await town.put(who, scope, scope_id, parallel=7)
            assert town.store.limits[limit.id] == limit
        else:
            with pytest.raises(refusal):
                await town.put(who, scope, scope_id, parallel=7)
            assert town.store.limits == before


async def test_what_is_not_there_or_has_ended_gets_no_limit(town: Town) -> None:
    ended = town.key(town.alice, revoked_at=NOW)
    for scope, scope_id, refusal in (
        (TENANT, uuid4(), NotFound),
        (USER, uuid4(), NotFound),
        (API_KEY, uuid4(), NotFound),
        (USER, "alice", NotFound),
        (MODEL, "nobody", NotFound),
        (API_KEY, ended.id, Conflict),
    ):
        with pytest.raises(refusal):
            await town.put(town.root, scope, scope_id, parallel=7)
    assert town.store.limits == {}
    assert town.actions == []


@pytest.mark.parametrize("limits", [{}, {"parallel": None}, {"parallel": 0}, {"tokens_per_minute": MAX_LIMIT + 1}])
async def test_what_is_no_limit_is_refused(town: Town, limits: dict[str, int | None]) -> None:
    with pytest.raises(InvalidRequest):
        await town.put(town.admin, USER, town.alice.id, **limits)


async def test_a_key_neither_changes_nor_lifts_its_own_limit(town: Town) -> None:
    key = town.key(town.admin)
    limit = await town.put(town.root, API_KEY, key.id, parallel=1)
    with_key = town.principal(town.admin, key)
    with pytest.raises(NotAllowed):
        await town.put(with_key, API_KEY, key.id.hex, parallel=100)
    with pytest.raises(NotAllowed):
        await town.remove(with_key, limit)
    with pytest.raises(NotAllowed):
        await town.create_key(with_key)
    await town.remove(town.admin, limit)
    await town.create_key(with_key)


async def test_a_users_limits_are_changed_by_name_and_go_with_the_last(town: Town) -> None:
    changed = await town.set(town.admin, town.alice, {REQUESTS: 60, PARALLEL: 4})
    assert changed == {**NOTHING, REQUESTS: 60, PARALLEL: 4}
    changed = await town.set(town.admin, town.alice, {REQUESTS: None, TOKENS: 1000})
    assert changed == {**NOTHING, TOKENS: 1000, PARALLEL: 4}
    assert await town.set(town.admin, town.alice, {}) == changed
    assert await town.set(town.admin, town.alice, {TOKENS: None, PARALLEL: None}) == NOTHING
    assert town.store.limits == {}
    assert town.actions == ["rate_limit.put", "rate_limit.put", "rate_limit.removed"]
    for who, whose, refusal in ((town.alice, town.alice, NotAllowed), (town.admin, town.foreigner, NotFound)):
        for changes in ({}, {REQUESTS: 1}):
            with pytest.raises(refusal):
                await town.set(who, whose, changes)


async def test_who_sees_and_removes_what(town: Town) -> None:
    of_acme = await town.put(town.root, TENANT, town.acme.id, parallel=7)
    of_alice = await town.put(town.root, USER, town.alice.id, parallel=7)
    of_other = await town.put(town.root, USER, town.foreigner.id, parallel=7)
    of_model = await town.put(town.root, MODEL, "fast", parallel=7)
    assert await town.listed(town.admin) == [of_acme, of_alice]
    assert await town.listed(town.admin, scope=USER) == [of_alice]
    assert await town.listed(town.root) == [of_acme, of_alice, of_other, of_model]
    assert await town.listed(town.root, tenant_id=town.other.id) == [of_other]
    with pytest.raises(NotAllowed):
        await town.listed(town.alice)
    with pytest.raises(NotFound):
        await town.listed(town.admin, tenant_id=town.other.id)
    for limit, refusal in ((of_acme, NotAllowed), (of_other, NotFound), (of_model, NotFound)):
        with pytest.raises(refusal):
            await town.remove(town.admin, limit)
    with pytest.raises(NotAllowed):
        await town.remove(town.alice, of_alice)
    refreshed = town.view.refreshed
    for limit in (of_acme, of_other, of_model):
        await town.remove(town.root, limit)
    await town.remove(town.admin, of_alice)
    assert town.view.refreshed == refreshed + 4
    assert town.store.limits == {}
    assert town.actions[4:] == ["rate_limit.removed"] * 4
    with pytest.raises(NotFound):
        await administration.remove_rate_limit(
            town.principal(town.root), RateLimitId(of_alice.id), town.office, "req-1"
        )
