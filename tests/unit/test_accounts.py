"""Topping up, deducting, and reading what may still be spent."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from src.domain.identity.model import Principal, Role, User, UserId
from src.domain.ledger import use_cases
from src.domain.ledger.model import Account, EntryKind, Scope, Unit, Window
from src.domain.ledger.use_cases import MAX_ADJUSTMENT, TokenStanding
from src.shared.errors import Conflict, GatewayError, InvalidRequest, NotAllowed, NotFound
from src.shared.ids import new_id
from src.shared.pages import PageRequest
from tests.fakes import FakeLedger
from tests.makers import (
    NOW,
    make_closing,
    make_hold_request,
    make_key,
    make_limit,
    make_top_up,
    make_usage_record,
)
from tests.unit.identity_scene import Scene

TODAY = NOW.date()


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def adjusted(scene: Scene, who: User, user_id: UserId, amount: int, **given: Any) -> Account:
    return await use_cases.adjust_account(
        scene.principal(who), user_id, amount, **given, open_uow=scene.open_uow, clock=scene.clock, request_id="req-1"
    )


async def standing(scene: Scene, who: Principal, user_id: UserId | None = None) -> TokenStanding:
    return await use_cases.token_standing(who, user_id, open_uow=scene.open_uow, clock=scene.clock)


def put_quota(scene: Scene, scope: Scope, scope_id: UUID, amount: int, **given: Any) -> None:
    """A limit per day or month where a window is given, else prepaid."""
    change = (make_limit if "window" in given else make_top_up)(
        scene.alice, amount, scope=scope, scope_id=scope_id, **given
    )
    FakeLedger(scene.store).change(change)


async def test_a_top_up_makes_the_account_and_is_in_the_log(scene: Scene) -> None:
    account = await adjusted(scene, scene.admin, scene.alice.id, 500, reason="welcome")
    assert (account.balance, account.scope, account.scope_id) == (500, Scope.USER, scene.alice.id)
    account = await adjusted(scene, scene.root, scene.alice.id, -200)
    assert account.balance == 300
    kinds = [(entry.amount, entry.kind, entry.actor_id) for entry in scene.store.entries.values()]
    assert kinds == [(500, EntryKind.TOP_UP, scene.admin.id), (-200, EntryKind.DEDUCTION, scene.root.id)]
    events = list(scene.store.events.values())
    assert [event.action for event in events] == ["account.adjusted"] * 2
    assert events[0].details == {"unit": "tokens", "amount": 500, "reason": "welcome"}


async def test_units_have_accounts_of_their_own(scene: Scene) -> None:
    await adjusted(scene, scene.admin, scene.alice.id, 500)
    assert (await adjusted(scene, scene.admin, scene.alice.id, 7, unit=Unit.MICRO_USD)).balance == 7


@pytest.mark.parametrize(
    ("who", "whose", "amount", "error"),
    [
        ("admin", "alice", 0, InvalidRequest),
        ("admin", "alice", MAX_ADJUSTMENT + 1, InvalidRequest),
        ("admin", "alice", -MAX_ADJUSTMENT - 1, InvalidRequest),
        ("admin", "alice", -1, Conflict),
        ("alice", "alice", 5, NotAllowed),
        ("admin", "foreigner", 5, NotFound),
    ],
)
async def test_bad_adjustments_change_nothing(
    scene: Scene, who: str, whose: str, amount: int, error: type[GatewayError]
) -> None:
    with pytest.raises(error):
        await adjusted(scene, getattr(scene, who), getattr(scene, whose).id, amount)
    assert not scene.store.entries
    assert not scene.store.events


async def test_a_platform_admin_reaches_other_tenants(scene: Scene) -> None:
    assert (await adjusted(scene, scene.root, scene.foreigner.id, MAX_ADJUSTMENT)).tenant_id == scene.other.id
    with pytest.raises(NotFound):
        await adjusted(scene, scene.root, UserId(new_id()), 5)


async def test_without_an_account_nothing_limits(scene: Scene) -> None:
    found = await standing(scene, scene.principal(scene.alice))
    assert found == TokenStanding(balance=None, total_used=0, limit=None, held=0, quotas=())


async def test_a_standing_counts_what_is_spent_and_held(scene: Scene) -> None:
    await adjusted(scene, scene.admin, scene.alice.id, 1000)
    ledger = FakeLedger(scene.store)
    hold = await ledger.open(make_hold_request(scene.alice))
    await ledger.close(make_closing(hold), [make_usage_record(hold)])
    await ledger.open(make_hold_request(scene.alice))
    found = await standing(scene, scene.principal(scene.alice))
    assert (found.balance, found.limit, found.held, found.total_used) == (960, 1000, 100, 40)
    (row,) = found.quotas
    account = row.account
    assert (account.scope, account.unit, account.window) == (Scope.USER, Unit.TOKENS, Window.NONE)
    assert (account.limit, account.spent, account.held, row.remaining) == (1000, 40, 100, 860)
    assert row.resets_at is None
    assert await standing(scene, scene.principal(scene.admin), scene.alice.id) == found


async def test_quotas_of_every_scope_are_told_for_the_present_period(scene: Scene) -> None:
    key = make_key(scene.alice)
    put_quota(scene, Scope.TENANT, scene.acme.id, 9, window=Window.MONTH)
    put_quota(scene, Scope.USER, scene.alice.id, 7, window=Window.DAY, model="fast")
    put_quota(scene, Scope.USER, scene.alice.id, 6, window=Window.DAY)
    put_quota(scene, Scope.API_KEY, key.id, 5)
    put_quota(scene, Scope.NEW_USER, scene.acme.id, 4)
    with_key = await standing(scene, scene.principal(scene.alice, key))
    assert [(row.account.scope, row.account.limit, row.account.model) for row in with_key.quotas] == [
        (Scope.TENANT, 9, None),
        (Scope.USER, 7, "fast"),
        (Scope.USER, 6, None),
        (Scope.API_KEY, 5, None),
    ]
    assert with_key.quotas[0].resets_at == datetime(2026, 12, 1, tzinfo=UTC)
    assert with_key.quotas[1].resets_at == datetime(2026, 11, 22, tzinfo=UTC)
    assert with_key.balance is None, "neither a windowed quota nor a key's is the prepaid balance"
    of_alice = await standing(scene, scene.principal(scene.admin, make_key(scene.admin)), scene.alice.id)
    assert len(of_alice.quotas) == 3


async def test_a_new_day_begins_at_midnight_of_the_tenant(scene: Scene) -> None:
    midnight = datetime(2026, 11, 21, 15, tzinfo=UTC)
    scene.store.tenants[scene.acme.id] = replace(scene.acme, time_zone="Asia/Tokyo")
    put_quota(scene, Scope.USER, scene.alice.id, 1000, window=Window.DAY)
    ledger = FakeLedger(scene.store)
    moment = midnight - timedelta(microseconds=1)
    hold = await ledger.open(make_hold_request(scene.alice, at=moment, time_zone="Asia/Tokyo"))

    async def seen(now: datetime) -> tuple[int, int, int, datetime | None]:
        scene.clock = lambda: now
        (row,) = (await standing(scene, scene.principal(scene.alice))).quotas
        return row.account.spent, row.account.held, row.remaining, row.resets_at

    assert await seen(moment) == (0, 100, 900, midnight)
    assert await seen(midnight) == (0, 0, 1000, midnight + timedelta(days=1))
    await ledger.close(make_closing(hold, at=midnight))
    assert await seen(moment) == (40, 0, 960, midnight)
    assert await seen(midnight) == (0, 0, 1000, midnight + timedelta(days=1))


async def test_entries_and_usage_are_read_by_those_in_reach(scene: Scene) -> None:
    await adjusted(scene, scene.admin, scene.alice.id, 1000)
    page = PageRequest()
    for who, whose in ((scene.alice, None), (scene.admin, scene.alice.id), (scene.root, scene.alice.id)):
        principal = scene.principal(who)
        entries = await use_cases.account_entries(principal, page, whose, open_uow=scene.open_uow)
        assert [entry.amount for entry in entries.rows] == [1000]
        assert await use_cases.usage_of_user(principal, TODAY, TODAY, whose, open_uow=scene.open_uow) == []
    for who, whose in ((scene.alice, scene.admin), (scene.admin, scene.foreigner)):
        principal = scene.principal(who)
        with pytest.raises(NotFound):
            await use_cases.account_entries(principal, page, whose.id, open_uow=scene.open_uow)
        with pytest.raises(NotFound):
            await use_cases.usage_of_user(principal, TODAY, TODAY, whose.id, open_uow=scene.open_uow)
        with pytest.raises(NotFound):
            await standing(scene, principal, whose.id)


async def test_a_tenants_usage_is_for_its_admins(scene: Scene) -> None:
    ledger = FakeLedger(scene.store)
    for user in (scene.alice, scene.admin):
        hold = await ledger.open(make_hold_request(user))
        await ledger.close(make_closing(hold), [make_usage_record(hold)])

    async def calls(who: User, **given: Any) -> int:
        rows = await use_cases.usage_of_tenant(scene.principal(who), TODAY, TODAY, **given, open_uow=scene.open_uow)
        return sum(row.calls for row in rows)

    assert await calls(scene.admin) == await calls(scene.root, tenant_id=scene.acme.id) == 2
    assert await calls(scene.root, tenant_id=scene.other.id) == 0
    with pytest.raises(NotAllowed):
        await calls(scene.alice)
    with pytest.raises(NotFound):
        await calls(scene.admin, tenant_id=scene.other.id)


@pytest.mark.parametrize("since", [TODAY + timedelta(days=1), TODAY - timedelta(days=366), date.min])
async def test_usage_is_for_a_year_at_most(scene: Scene, since: date) -> None:
    principal = replace(scene.principal(scene.admin), role=Role.TENANT_ADMIN)
    with pytest.raises(InvalidRequest):
        await use_cases.usage_of_user(principal, since, TODAY, open_uow=scene.open_uow)
    with pytest.raises(InvalidRequest):
        await use_cases.usage_of_tenant(principal, since, TODAY, open_uow=scene.open_uow)
