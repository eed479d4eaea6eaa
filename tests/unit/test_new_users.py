"""Every new user gets a copy of the tenant's quotas for new users, however they come."""

from dataclasses import replace
from datetime import timedelta

import pytest

from src.domain.identity.administration import spoken_for, user_on_first_sight
from src.domain.identity.model import Role, User
from src.domain.ledger.model import EntryKind, Scope, Unit, Window
from src.shared.errors import Conflict
from tests.makers import NOW
from tests.unit.identity_scene import Scene
from tests.unit.quota_scene import adjust, listed, put, remove


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def made_in_three_ways(scene: Scene) -> list[User]:
    admin = scene.principal(scene.admin)
    asking = {"open_uow": scene.open_uow, "clock": scene.clock}
    return [
        await scene.create_user(admin, scene.acme.id, external_id="one"),
        await user_on_first_sight(scene.acme.id, "two", Role.USER, **asking),
        await spoken_for(admin, "three", **asking),
    ]


async def test_every_new_user_gets_what_the_tenant_gives_to_new_users(scene: Scene) -> None:
    scene.store.tenants[scene.acme.id] = replace(scene.acme, time_zone="Asia/Tokyo")
    new_users = {"scope": Scope.NEW_USER, "scope_id": scene.acme.id}
    await put(scene, **new_users, limit=700)
    await put(scene, **new_users, unit=Unit.MICRO_USD, window=Window.NONE, limit=50)
    await put(scene, **new_users, unit=Unit.REQUESTS, window=Window.NONE, limit=0)
    yesterday, scene.clock = scene.clock, lambda: NOW + timedelta(hours=8)
    users = await made_in_three_ways(scene)
    for user in users:
        found = (await listed(scene, scene.admin, scope=Scope.USER, scope_id=user.id)).rows
        told = [(each.quota.key.unit, each.quota.key.window, each.account.limit, each.account.period) for each in found]
        assert told == [
            (Unit.TOKENS, Window.DAY, 700, "2026-11-22"),
            (Unit.MICRO_USD, Window.NONE, 50, ""),
            (Unit.REQUESTS, Window.NONE, 0, ""),
        ]
    top_ups = [entry for entry in scene.store.entries.values() if entry.kind is EntryKind.TOP_UP]
    assert [(entry.scope_id, entry.amount) for entry in top_ups] == [(user.id, 50) for user in users]
    scene.clock = yesterday
    assert not (await listed(scene, scene.admin, scope=Scope.USER, scope_id=scene.alice.id)).rows


async def test_what_new_users_get_may_change_and_end(scene: Scene) -> None:
    template = await put(scene, scope=Scope.NEW_USER, scope_id=scene.acme.id)
    with pytest.raises(Conflict, match="PUT"):
        await adjust(scene, scene.admin, template.quota.id, 5)
    first = await scene.create_user(scene.principal(scene.admin), scene.acme.id, external_id="first")
    await put(scene, scope=Scope.NEW_USER, scope_id=scene.acme.id, limit=5)
    second = await scene.create_user(scene.principal(scene.admin), scene.acme.id, external_id="second")
    await remove(scene, scene.admin, template.quota.id)
    third = await scene.create_user(scene.principal(scene.admin), scene.acme.id, external_id="third")
    elsewhere = await scene.create_user(scene.principal(scene.root), scene.other.id)
    limits = [
        [
            each.account.limit
            for each in (await listed(scene, scene.root, tenant_id=user.tenant_id, scope_id=user.id)).rows
        ]
        for user in (first, second, third, elsewhere)
    ]
    assert limits == [[1000], [5], [], []]


async def test_a_user_who_cannot_be_made_leaves_no_quota(scene: Scene) -> None:
    await put(scene, scope=Scope.NEW_USER, scope_id=scene.acme.id)
    with pytest.raises(Conflict):
        await scene.create_user(scene.principal(scene.admin), scene.acme.id, external_id="alice")
    assert len(scene.store.quotas) == 1
