"""Tenants, users and keys: who may change what, and that every change is in the log."""

from dataclasses import replace
from typing import Any

import pytest

from src.domain.identity import administration, tenants
from src.domain.identity.model import Role, TenantId, User, UserId
from src.shared.errors import Conflict, GatewayError, InvalidRequest, NotAllowed, NotFound
from src.shared.ids import new_id
from src.shared.pages import PageRequest
from tests.makers import NOW, make_session
from tests.unit.identity_scene import PAGE, Scene


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- tenants --------------------------------------------------------------------------------------------------------


async def test_a_platform_admin_makes_changes_and_lists_tenants(scene: Scene) -> None:
    made = await scene.create_tenant(scene.root)
    changed = await scene.update_tenant(
        scene.root, made.id, {"name": "Newer", "disabled": True, "time_zone": "Asia/Tokyo"}
    )
    assert (changed.name, changed.disabled, changed.time_zone, changed.slug) == ("Newer", True, "Asia/Tokyo", "new")
    assert made.time_zone == "UTC"
    assert scene.store.tenants[made.id] == changed
    assert await tenants.get_tenant(scene.principal(scene.root), made.id, open_uow=scene.open_uow) == changed
    listed = await tenants.list_tenants(scene.principal(scene.root), PAGE, open_uow=scene.open_uow)
    assert len(listed.rows) == 3
    assert scene.actions == ["tenant.created", "tenant.updated"]
    first = next(iter(scene.store.events.values()))
    assert (first.tenant_id, first.actor_user_id, first.request_id) == (made.id, scene.root.id, "req-1")


async def test_a_tenant_admin_sees_their_own_tenant_only(scene: Scene) -> None:
    principal = scene.principal(scene.admin)
    assert await tenants.get_tenant(principal, scene.acme.id, open_uow=scene.open_uow) == scene.acme
    assert (await tenants.list_tenants(principal, PAGE, open_uow=scene.open_uow)).rows == (scene.acme,)
    after = PageRequest(after=scene.acme.id)
    assert (await tenants.list_tenants(principal, after, open_uow=scene.open_uow)).rows == ()
    with pytest.raises(NotFound):
        await tenants.get_tenant(principal, scene.other.id, open_uow=scene.open_uow)


@pytest.mark.parametrize(
    ("slug", "error"),
    [
        ("acme", Conflict),
        ("A b", InvalidRequest),
        ("", InvalidRequest),
        ("-a", InvalidRequest),
        ("é", InvalidRequest),
        ("01234567-89ab-7def-8123-456789abcdef", InvalidRequest),
        ("0123456789ab7def8123456789abcdef", InvalidRequest),
        ("a" * 101, InvalidRequest),
    ],
)
async def test_slugs_are_unique_plain_and_no_ids(scene: Scene, slug: str, error: type[GatewayError]) -> None:
    with pytest.raises(error):
        await scene.create_tenant(scene.root, slug)
    assert scene.actions == []


async def test_only_platform_admins_make_and_change_tenants(scene: Scene) -> None:
    for who in (scene.admin, scene.alice):
        with pytest.raises(NotAllowed):
            await scene.create_tenant(who)
        with pytest.raises(NotAllowed):
            await scene.update_tenant(who, scene.acme.id, {"name": "Mine"})


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"slug": "x"}, InvalidRequest),
        ({"name": ""}, InvalidRequest),
        ({"name": None}, InvalidRequest),
        ({"disabled": None}, InvalidRequest),
        ({"disabled": True}, Conflict),
        ({"time_zone": None}, InvalidRequest),
        ({"time_zone": "Europe/Nowhere"}, InvalidRequest),
    ],
)
async def test_bad_changes_of_a_tenant_are_refused(
    scene: Scene, changes: dict[str, Any], error: type[GatewayError]
) -> None:
    with pytest.raises(error):
        await scene.update_tenant(scene.root, scene.acme.id, changes)


async def test_an_unknown_tenant_cannot_be_changed(scene: Scene) -> None:
    with pytest.raises(NotFound):
        await scene.update_tenant(scene.root, TenantId(new_id()), {"name": "x"})


# --- users ----------------------------------------------------------------------------------------------------------


async def test_an_admin_makes_users_with_a_password_that_no_log_sees(scene: Scene) -> None:
    made = await scene.create_user(
        scene.principal(scene.admin), scene.acme.id, email="Bob@Acme.Test", password="long enough", name="Bob"
    )
    assert (made.email, made.password_hash, made.role) == ("bob@acme.test", "hash of 11", Role.USER)
    assert scene.store.users[made.id] == made
    assert scene.actions == ["user.created"]
    assert "long enough" not in repr(scene.store.events)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"role": Role.PLATFORM_ADMIN}, NotAllowed),
        ({"external_id": "alice"}, Conflict),
        ({"email": "alice@acme.test"}, Conflict),
        ({"external_id": ""}, InvalidRequest),
        ({"external_id": "a\x00"}, InvalidRequest),
        ({"external_id": "x" * 201}, InvalidRequest),
        ({"name": " "}, InvalidRequest),
        ({"email": "bob"}, InvalidRequest),
        ({"email": "b ob@acme.test"}, InvalidRequest),
        ({"password": "too short"}, InvalidRequest),
        ({"password": "x" * 1025}, InvalidRequest),
    ],
)
async def test_bad_users_are_refused(scene: Scene, given: dict[str, Any], error: type[GatewayError]) -> None:
    with pytest.raises(error):
        await scene.create_user(scene.principal(scene.admin), scene.acme.id, **given)
    assert scene.actions == []


async def test_another_tenants_users_do_not_exist(scene: Scene) -> None:
    principal = scene.principal(scene.admin)
    with pytest.raises(NotFound):
        await scene.create_user(principal, scene.other.id)
    with pytest.raises(NotFound):
        await administration.get_user(principal, scene.foreigner.id, open_uow=scene.open_uow)
    with pytest.raises(NotFound):
        await scene.update_user(scene.admin, scene.foreigner.id, {"name": "x"})
    with pytest.raises(NotFound):
        await administration.list_users(principal, PAGE, open_uow=scene.open_uow, tenant_id=scene.other.id)


async def test_plain_users_see_themselves_only(scene: Scene) -> None:
    principal = scene.principal(scene.alice)
    assert await administration.get_user(principal, scene.alice.id, open_uow=scene.open_uow) == scene.alice
    with pytest.raises(NotFound):
        await administration.get_user(principal, scene.admin.id, open_uow=scene.open_uow)
    with pytest.raises(NotAllowed):
        await scene.create_user(principal, scene.acme.id)
    with pytest.raises(NotAllowed):
        await scene.update_user(scene.alice, scene.alice.id, {"role": Role.TENANT_ADMIN})
    with pytest.raises(NotAllowed):
        await administration.list_users(principal, PAGE, open_uow=scene.open_uow)


async def test_a_platform_admin_reaches_every_tenant(scene: Scene) -> None:
    made = await scene.create_user(scene.principal(scene.root), scene.other.id, role=Role.PLATFORM_ADMIN)
    changed = await scene.update_user(scene.root, made.id, {"name": "Bob", "role": Role.USER})
    assert (changed.name, changed.role) == ("Bob", Role.USER)
    listed = await administration.list_users(
        scene.principal(scene.root), PAGE, open_uow=scene.open_uow, tenant_id=scene.other.id
    )
    assert {user.id for user in listed.rows} == {scene.foreigner.id, made.id}
    assert {event.tenant_id for event in scene.store.events.values()} == {scene.other.id}
    with pytest.raises(NotFound):
        await scene.create_user(scene.principal(scene.root), TenantId(new_id()))
    with pytest.raises(NotFound):
        await scene.update_user(scene.root, UserId(new_id()), {"name": "x"})


async def test_a_tenant_admin_cannot_take_over_a_platform_admin(scene: Scene) -> None:
    for changes in ({"password": "long enough"}, {"email": "me@acme.test"}, {"disabled": True}):
        with pytest.raises(NotAllowed, match="platform_admin"):
            await scene.update_user(scene.admin, scene.root.id, changes)
    with pytest.raises(NotAllowed):
        await scene.create_key(scene.principal(scene.admin), user_id=scene.root.id)
    key = scene.key(scene.root)
    for attempt in (scene.rotate(scene.principal(scene.admin), key.id), scene.revoke(scene.admin, key.id)):
        with pytest.raises(NotAllowed):
            await attempt


async def test_a_new_password_and_being_disabled_end_sessions(scene: Scene) -> None:
    for changes in ({"password": "long enough"}, {"disabled": True}):
        session = make_session(scene.alice)
        scene.store.sessions[session.id] = session
        await scene.update_user(scene.admin, scene.alice.id, changes)
        assert scene.store.sessions[session.id].revoked_at == NOW
    told = [event.details for event in scene.store.events.values()]
    assert told == [{"password": "changed"}, {"disabled": True}]


async def test_disabling_keeps_the_user(scene: Scene) -> None:
    disabled = await scene.update_user(scene.admin, scene.alice.id, {"disabled": True})
    assert disabled == replace(scene.alice, disabled=True) == scene.store.users[scene.alice.id]


@pytest.mark.parametrize(
    "changes", [{"disabled": True}, {"role": Role.USER}, {"role": Role.PLATFORM_ADMIN}, {"role": None}]
)
async def test_nobody_locks_themselves_out_or_promotes_themselves(scene: Scene, changes: dict[str, Any]) -> None:
    with pytest.raises((Conflict, InvalidRequest)):
        await scene.update_user(scene.admin, scene.admin.id, changes)


async def test_fields_can_be_emptied_and_others_not_touched(scene: Scene) -> None:
    changed = await scene.update_user(scene.admin, scene.alice.id, {"email": None, "name": None, "password": None})
    assert (changed.email, changed.name, changed.password_hash) == (None, None, None)
    changed = await scene.update_user(
        scene.admin, scene.alice.id, {"email": "A@B.test", "name": "Alice", "role": Role.TENANT_ADMIN}
    )
    assert (changed.email, changed.name, changed.role) == ("a@b.test", "Alice", Role.TENANT_ADMIN)
    with pytest.raises(InvalidRequest):
        await scene.update_user(scene.admin, scene.alice.id, {"tenant_id": scene.other.id})
    with pytest.raises(NotAllowed):
        await scene.update_user(scene.admin, scene.alice.id, {"role": Role.PLATFORM_ADMIN})


async def test_a_key_limited_to_models_makes_no_users(scene: Scene) -> None:
    principal = scene.principal(scene.admin, scene.key(scene.admin, models=("fast",)))
    with pytest.raises(NotAllowed, match="limited"):
        await scene.create_user(principal, scene.acme.id)


# --- asking for others ----------------------------------------------------------------------------------------------


async def test_one_speaks_for_oneself_or_as_admin_for_users_of_the_tenant(scene: Scene) -> None:
    alice, admin = scene.principal(scene.alice), scene.principal(scene.admin)
    for named in (None, "alice", str(scene.alice.id)):
        assert await administration.user_named(alice, named, open_uow=scene.open_uow) == scene.alice
    for named in ("alice", str(scene.alice.id)):
        assert await administration.user_named(admin, named, open_uow=scene.open_uow) == scene.alice
    for principal, named in ((alice, scene.admin.external_id), (admin, scene.foreigner.external_id)):
        with pytest.raises(NotFound):
            await administration.user_named(principal, named, open_uow=scene.open_uow)


async def test_an_admin_makes_whom_they_speak_for(scene: Scene) -> None:
    made = await administration.spoken_for(
        scene.principal(scene.admin), "carol", open_uow=scene.open_uow, clock=scene.clock
    )
    assert (made.external_id, made.role, made.tenant_id) == ("carol", Role.USER, scene.acme.id)
    event = next(iter(scene.store.events.values()))
    assert (event.action, event.actor_user_id) == ("user.seen_first", scene.admin.id)
    with pytest.raises(NotFound):
        await administration.spoken_for(
            scene.principal(scene.alice), "dave", open_uow=scene.open_uow, clock=scene.clock
        )
    scene.store.users[made.id] = replace(made, disabled=True)
    with pytest.raises(NotAllowed):
        await administration.spoken_for(
            scene.principal(scene.admin), "carol", open_uow=scene.open_uow, clock=scene.clock
        )


# --- the log --------------------------------------------------------------------------------------------------------


async def test_the_log_is_read_by_tenant(scene: Scene) -> None:
    await scene.create_user(scene.principal(scene.admin), scene.acme.id)
    await scene.create_user(scene.principal(scene.root), scene.other.id)

    async def seen(who: User, tenant_id: TenantId | None = None) -> int:
        page = await administration.list_audit(scene.principal(who), PAGE, open_uow=scene.open_uow, tenant_id=tenant_id)
        return len(page.rows)

    assert await seen(scene.admin) == await seen(scene.admin, scene.acme.id) == 1
    assert await seen(scene.root) == 2
    assert await seen(scene.root, scene.other.id) == 1
    with pytest.raises(NotFound):
        await seen(scene.admin, scene.other.id)
    with pytest.raises(NotAllowed):
        await seen(scene.alice)
