"""Who sets, reads, adjusts and removes which quotas, and what each change does at once."""

from datetime import UTC, datetime, timedelta

import pytest

from src.domain.catalog.model import Chain, Model
from src.domain.ledger import quota_admin
from src.domain.ledger.model import MAX_AMOUNT, EntryKind, QuotaId, Scope, Unit, Window
from src.domain.ledger.quotas import Quota
from src.domain.ledger.use_cases import MAX_ADJUSTMENT
from src.shared.errors import Conflict, GatewayError, InvalidRequest, NotAllowed, NotFound
from src.shared.ids import new_id
from src.shared.pages import PageRequest
from tests.fake_repositories import FakeAccounts
from tests.fakes import FakeLedger
from tests.makers import NOW, make_hold_request
from tests.unit.identity_scene import Scene
from tests.unit.quota_scene import adjust, changing, get, listed, put, remove, set_limits, spend

PER_DAY = (Unit.TOKENS, Window.DAY)
PER_MONTH = (Unit.TOKENS, Window.MONTH)
NO_LIMITS = dict.fromkeys(quota_admin.LIMITS)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def add_model(scene: Scene) -> str:
    model = Model(name="fast", provider="p", upstream="u", context_window=10, max_output=10)
    scene.store.models[model.name] = (model, "file")
    return model.name


async def test_a_quota_is_made_and_put_again_is_the_same(scene: Scene) -> None:
    made = await put(scene)
    again = await put(scene)
    assert again == made
    assert (made.account.limit, made.account.spent, made.remaining) == (1000, 0, 1000)
    assert made.resets_at == datetime(2026, 11, 22, tzinfo=UTC)
    (entry,) = scene.store.entries.values()
    assert (entry.amount, entry.kind, entry.actor_id, entry.request_id) == (
        1000,
        EntryKind.LIMIT,
        scene.admin.id,
        "req-1",
    )
    event = next(iter(scene.store.events.values()))
    assert (event.action, event.object_id, event.tenant_id) == ("quota.put", str(made.quota.id), scene.acme.id)
    assert event.details["limit"] == 1000
    assert event.details["scope_id"] == str(scene.alice.id)


async def test_a_limit_changes_at_once_and_for_later_periods(scene: Scene) -> None:
    made = await put(scene)
    await spend(scene, scene.alice)
    raised = await put(scene, limit=1500)
    assert (raised.account.limit, raised.account.spent, raised.remaining) == (1500, 40, 1460)
    below = await put(scene, limit=10)
    assert (below.account.limit, below.account.balance, below.remaining) == (10, -30, 0)
    scene.clock = lambda: NOW + timedelta(days=1)
    tomorrow = await get(scene, scene.admin, made.quota.id)
    assert (tomorrow.account.limit, tomorrow.account.spent, tomorrow.remaining) == (10, 0, 10)


async def test_a_prepaid_quota_comes_to_what_was_given_in_all(scene: Scene) -> None:
    await put(scene, window=Window.NONE, limit=100)
    await spend(scene, scene.alice)
    standing = await put(scene, window=Window.NONE, limit=300)
    assert (standing.account.limit, standing.account.balance, standing.account.spent) == (300, 260, 40)
    assert standing.resets_at is None


async def test_units_windows_and_models_make_quotas_of_their_own(scene: Scene) -> None:
    add_model(scene)
    scene.store.chains["smart"] = (Chain(name="smart", models=("fast",)), "file")
    made = [
        await put(scene, **given)
        for given in (
            {},
            {"unit": Unit.REQUESTS},
            {"window": Window.MONTH},
            {"window": Window.NONE},
            {"model": "fast"},
            {"model": "smart"},
        )
    ]
    assert len({each.quota.id for each in made}) == 6
    with pytest.raises(InvalidRequest, match="'slow'") as refused:
        await put(scene, model="slow")
    assert refused.value.param == "model"


@pytest.mark.parametrize("limit", [-1, MAX_AMOUNT + 1])
async def test_absurd_limits_are_refused(scene: Scene, limit: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await put(scene, limit=limit)
    assert refused.value.param == "limit"
    with pytest.raises(InvalidRequest) as refused:
        await set_limits(scene, scene.admin, scene.alice, {PER_DAY: 5, PER_MONTH: limit})
    assert refused.value.param == "tokens_per_month"
    assert not scene.store.quotas


async def test_tenants_and_users_and_keys_have_administrators_of_their_own(scene: Scene) -> None:
    key, foreign_key = scene.key(scene.alice), scene.key(scene.foreigner)
    allowed = {
        ("admin", Scope.USER, scene.alice.id),
        ("admin", Scope.API_KEY, key.id),
        ("admin", Scope.NEW_USER, scene.acme.id),
    }
    objects = [
        (Scope.TENANT, scene.acme.id, NotAllowed),
        (Scope.TENANT, scene.other.id, NotFound),
        (Scope.USER, scene.alice.id, None),
        (Scope.USER, scene.foreigner.id, NotFound),
        (Scope.API_KEY, key.id, None),
        (Scope.API_KEY, foreign_key.id, NotFound),
        (Scope.NEW_USER, scene.acme.id, None),
        (Scope.NEW_USER, scene.other.id, NotFound),
    ]
    for scope, scope_id, error in objects:
        with pytest.raises(NotAllowed):
            await put(scene, scene.alice, scope=scope, scope_id=scope_id)
        assert (await put(scene, scene.root, scope=scope, scope_id=scope_id)).quota.key.scope_id == scope_id
        if ("admin", scope, scope_id) in allowed:
            await put(scene, scene.admin, scope=scope, scope_id=scope_id)
        else:
            assert error is not None
            with pytest.raises(error):
                await put(scene, scene.admin, scope=scope, scope_id=scope_id)


@pytest.mark.parametrize("scope", list(Scope))
async def test_what_is_not_there_gets_no_quota(scene: Scene, scope: Scope) -> None:
    for who in (scene.admin, scene.root):
        with pytest.raises(NotFound):
            await put(scene, who, scope=scope, scope_id=new_id())
    assert not scene.store.quotas


async def test_a_key_that_has_ended_gets_no_quota(scene: Scene) -> None:
    for ended in ({"revoked_at": NOW}, {"expires_at": NOW}):
        with pytest.raises(Conflict):
            await put(scene, scope=Scope.API_KEY, scope_id=scene.key(scene.alice, **ended).id)


async def test_a_key_does_not_lift_its_own_quota(scene: Scene) -> None:
    key, other = scene.key(scene.admin), scene.key(scene.admin)
    with_key = scene.principal(scene.admin, key)
    made = await put(scene, scope=Scope.API_KEY, scope_id=key.id)
    for refused in (
        put(scene, with_key, scope=Scope.API_KEY, scope_id=key.id, limit=10**6),
        quota_admin.remove_quota(with_key, made.quota.id, **changing(scene)),
        quota_admin.adjust_quota(with_key, made.quota.id, 5, **changing(scene)),
    ):
        with pytest.raises(NotAllowed, match="its own"):
            await refused
    await put(scene, with_key, scope=Scope.API_KEY, scope_id=other.id)


async def test_a_quota_is_seen_and_changed_by_those_in_reach(scene: Scene) -> None:
    own, foreign = await put(scene), await put(scene, scene.root, scope_id=scene.foreigner.id)
    of_tenant = await put(scene, scene.root, scope=Scope.TENANT, scope_id=scene.acme.id)
    assert await get(scene, scene.admin, own.quota.id) == own
    assert await get(scene, scene.root, foreign.quota.id) == foreign
    assert await get(scene, scene.admin, of_tenant.quota.id) == of_tenant
    page = PageRequest()
    for who, quota_id, error in (
        (scene.alice, own.quota.id, NotAllowed),
        (scene.admin, foreign.quota.id, NotFound),
        (scene.admin, new_id(), NotFound),
        (scene.root, new_id(), NotFound),
    ):
        with pytest.raises(error):
            await get(scene, who, quota_id)
        with pytest.raises(error):
            await remove(scene, who, quota_id)
        with pytest.raises(error):
            await adjust(scene, who, quota_id, 5)
        with pytest.raises(error):
            await quota_admin.quota_entries(scene.principal(who), QuotaId(quota_id), page, open_uow=scene.open_uow)
    for refused in (remove(scene, scene.admin, of_tenant.quota.id), adjust(scene, scene.admin, of_tenant.quota.id, 5)):
        with pytest.raises(NotAllowed):
            await refused


async def test_quotas_are_listed_by_tenant_and_scope(scene: Scene) -> None:
    made = [await put(scene), await put(scene, scope_id=scene.admin.id), await put(scene, window=Window.MONTH)]
    foreign = await put(scene, scene.root, scope_id=scene.foreigner.id)
    first = await listed(scene, scene.admin, page=PageRequest(limit=2))
    assert (list(first.rows), first.has_more) == (made[:2], True)
    rest = await listed(scene, scene.admin, page=PageRequest(limit=2, after=made[1].quota.id))
    assert (list(rest.rows), rest.has_more) == (made[2:], False)
    of_alice = await listed(scene, scene.admin, scope=Scope.USER, scope_id=scene.alice.id)
    assert list(of_alice.rows) == [made[0], made[2]]
    assert list((await listed(scene, scene.admin, scope=Scope.TENANT)).rows) == []
    assert list((await listed(scene, scene.root, tenant_id=scene.other.id)).rows) == [foreign]
    with pytest.raises(NotFound):
        await listed(scene, scene.admin, tenant_id=scene.other.id)
    with pytest.raises(NotAllowed):
        await listed(scene, scene.alice)


async def test_a_removed_quota_limits_nothing_and_put_again_starts_anew(scene: Scene) -> None:
    made = await put(scene, limit=100)
    await spend(scene, scene.alice)
    await remove(scene, scene.admin, made.quota.id)
    with pytest.raises(NotFound):
        await remove(scene, scene.admin, made.quota.id)
    hold = await FakeLedger(scene.store).open(make_hold_request(scene.alice))
    assert hold.lines == ()
    anew = await put(scene, limit=100)
    assert anew.quota.id != made.quota.id
    assert (anew.account.spent, anew.remaining) == (0, 100)
    assert scene.actions == ["quota.put", "quota.removed", "quota.put"]


async def test_an_adjustment_is_for_good_where_prepaid_else_for_the_period(scene: Scene) -> None:
    daily, prepaid = await put(scene), await put(scene, window=Window.NONE)
    for quota_id in (daily.quota.id, prepaid.quota.id):
        await adjust(scene, scene.admin, quota_id, 500, "a busy day")
        assert (await adjust(scene, scene.admin, quota_id, -200)).account.limit == 1300
    scene.clock = lambda: NOW + timedelta(days=1)
    assert (await get(scene, scene.admin, prepaid.quota.id)).account.limit == 1300
    assert (await get(scene, scene.admin, daily.quota.id)).account.limit == 1000
    lines = await quota_admin.quota_entries(
        scene.principal(scene.admin), daily.quota.id, PageRequest(), open_uow=scene.open_uow
    )
    assert [(line.amount, line.kind, line.reason) for line in lines.rows] == [
        (-200, EntryKind.DEDUCTION, None),
        (500, EntryKind.TOP_UP, "a busy day"),
        (1000, EntryKind.LIMIT, None),
    ]
    assert scene.actions == ["quota.put"] * 2 + ["quota.adjusted"] * 4


async def test_the_first_thing_in_a_period_may_be_an_adjustment(scene: Scene) -> None:
    made = await put(scene)
    scene.clock = lambda: NOW + timedelta(days=1)
    assert (await adjust(scene, scene.admin, made.quota.id, 500)).account.limit == 1500
    with pytest.raises(Conflict):
        await adjust(scene, scene.admin, made.quota.id, -1501)


async def test_a_gift_to_a_quota_that_is_just_being_removed_makes_no_other(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await put(scene, window=Window.NONE)
    read = FakeAccounts.quota

    async def last_seen(accounts: FakeAccounts, quota_id: QuotaId) -> Quota | None:
        quota = await read(accounts, quota_id)
        accounts.store.quotas.pop(quota_id, None)
        return quota

    monkeypatch.setattr(FakeAccounts, "quota", last_seen)
    with pytest.raises(NotFound):
        await adjust(scene, scene.admin, made.quota.id, 5)
    assert scene.actions == ["quota.put"]


@pytest.mark.parametrize(
    ("amount", "reason", "error"),
    [
        (0, None, InvalidRequest),
        (MAX_ADJUSTMENT + 1, None, InvalidRequest),
        (5, " ", InvalidRequest),
        (-1001, None, Conflict),
    ],
)
async def test_bad_adjustments_change_nothing(
    scene: Scene, amount: int, reason: str | None, error: type[GatewayError]
) -> None:
    made = await put(scene)
    with pytest.raises(error):
        await adjust(scene, scene.admin, made.quota.id, amount, reason)
    assert await get(scene, scene.admin, made.quota.id) == made
    assert scene.actions == ["quota.put"]


async def test_the_limits_of_a_user_are_set_kept_and_removed(scene: Scene) -> None:
    assert await set_limits(scene, scene.admin, scene.alice, {}) == NO_LIMITS
    expected = {**NO_LIMITS, PER_DAY: 100, (Unit.REQUESTS, Window.MONTH): 7}
    found = await set_limits(scene, scene.admin, scene.alice, {PER_DAY: 100, (Unit.REQUESTS, Window.MONTH): 7})
    assert found == expected
    await put(scene, window=Window.NONE)
    await put(scene, unit=Unit.REQUESTS, model=add_model(scene))
    await spend(scene, scene.alice)
    found = await set_limits(
        scene, scene.admin, scene.alice, {PER_DAY: None, PER_MONTH: 0, (Unit.MICRO_USD, Window.DAY): None}
    )
    assert found == {**expected, PER_DAY: None, PER_MONTH: 0}
    asking = {"open_uow": scene.open_uow, "clock": scene.clock}
    for who in (scene.admin, scene.root):
        assert await quota_admin.user_limits(scene.principal(who), scene.alice.id, **asking) == found
    assert scene.actions == ["quota.put"] * 5 + ["quota.removed"]


async def test_the_limits_of_others_are_not_ones_own_to_set(scene: Scene) -> None:
    asking = {"open_uow": scene.open_uow, "clock": scene.clock}
    for who, whose, error in (
        (scene.alice, scene.alice, NotAllowed),
        (scene.admin, scene.foreigner, NotFound),
    ):
        with pytest.raises(error):
            await set_limits(scene, who, whose, {PER_DAY: 1})
        with pytest.raises(error):
            await quota_admin.user_limits(scene.principal(who), whose.id, **asking)
    assert not scene.store.quotas
