"""Keys: who may make, see, rotate and end them, and that none is broader than what made it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from src.domain.identity import api_keys
from src.domain.identity.model import ApiKeyId, Role
from src.domain.ledger.model import Scope
from src.shared.errors import Conflict, InvalidRequest, NotAllowed, NotFound
from src.shared.ids import new_id
from tests.fakes import FakeLedger
from tests.makers import NOW, make_top_up
from tests.unit.identity_scene import HASHER, PAGE, Scene


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_a_key_is_made_for_oneself_and_its_secret_kept_nowhere(scene: Scene) -> None:
    key, secret = await scene.create_key(scene.principal(scene.alice), models=("fast",))
    assert secret.startswith("sk-gw-")
    assert len(secret) >= 6 + 43
    assert key.prefix == secret[:12]
    assert key.secret_hmac == HASHER.hmac(secret)
    assert scene.store.keys[key.id] == key
    assert secret not in repr(scene.store)
    assert scene.actions == ["api_key.created"]
    assert (await scene.create_key(scene.principal(scene.alice)))[1] != secret


@pytest.mark.parametrize(
    "given",
    [{"expires_at": NOW}, {"models": ()}, {"models": ("",)}, {"name": ""}, {"models": tuple("a" * 201)}],
)
async def test_bad_keys_are_refused(scene: Scene, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await scene.create_key(scene.principal(scene.alice), **given)


async def test_keys_for_others_are_made_by_their_admins(scene: Scene) -> None:
    key, _ = await scene.create_key(scene.principal(scene.admin), user_id=scene.alice.id)
    assert key.user_id == scene.alice.id
    key, _ = await scene.create_key(scene.principal(scene.root), user_id=scene.foreigner.id)
    assert key.tenant_id == scene.other.id
    for who, user in ((scene.alice, scene.admin), (scene.admin, scene.foreigner)):
        with pytest.raises(NotFound):
            await scene.create_key(scene.principal(who), user_id=user.id)


@pytest.mark.parametrize("models", [None, ("fast", "dear"), ("dear",)])
async def test_a_limited_key_makes_no_broader_key(scene: Scene, models: tuple[str, ...] | None) -> None:
    limited = scene.principal(scene.alice, scene.key(scene.alice, models=("fast", "slow")))
    with pytest.raises(NotAllowed, match="fast, slow"):
        await scene.create_key(limited, models=models)
    assert (await scene.create_key(limited, models=("slow",)))[0].models == ("slow",)


async def test_a_key_that_ends_makes_no_key_that_outlives_it(scene: Scene) -> None:
    ending = scene.principal(scene.alice, scene.key(scene.alice, expires_at=NOW + timedelta(days=1)))
    assert (await scene.create_key(ending))[0].expires_at == NOW + timedelta(days=1)
    with pytest.raises(NotAllowed, match="expires"):
        await scene.create_key(ending, expires_at=NOW + timedelta(days=2))


async def test_a_key_with_a_quota_makes_no_key_to_spend_past_it(scene: Scene) -> None:
    key, sibling = scene.key(scene.alice), scene.key(scene.alice)
    FakeLedger(scene.store).change(make_top_up(scene.alice, 5, scope=Scope.API_KEY, scope_id=key.id))
    principal = scene.principal(scene.alice, key)
    with pytest.raises(NotAllowed, match="quota"):
        await scene.create_key(principal)
    with pytest.raises(NotAllowed, match="quota"):
        await scene.rotate(principal, sibling.id)
    assert (await scene.rotate(principal, key.id))[0].id == key.id


async def test_a_token_that_says_less_than_its_user_makes_no_key_that_says_more(scene: Scene) -> None:
    humble = scene.principal(scene.admin, role=Role.USER)
    with pytest.raises(NotAllowed, match="tenant_admin"):
        await scene.create_key(humble)
    with pytest.raises(NotAllowed, match="tenant_admin"):
        await scene.rotate(humble, scene.key(scene.admin).id)


async def test_keys_are_listed_by_owner_and_by_admin(scene: Scene) -> None:
    own, foreign = scene.key(scene.alice), scene.key(scene.foreigner)
    scene.key(scene.admin)
    alice, admin, root = (scene.principal(user) for user in (scene.alice, scene.admin, scene.root))
    assert [key.id for key in (await api_keys.list_own_keys(alice, PAGE, open_uow=scene.open_uow)).rows] == [own.id]
    assert len((await api_keys.list_keys(admin, PAGE, open_uow=scene.open_uow)).rows) == 2
    of_alice = await api_keys.list_keys(admin, PAGE, open_uow=scene.open_uow, user_id=scene.alice.id)
    assert [key.id for key in of_alice.rows] == [own.id]
    elsewhere = await api_keys.list_keys(root, PAGE, open_uow=scene.open_uow, tenant_id=scene.other.id)
    assert [key.id for key in elsewhere.rows] == [foreign.id]
    with pytest.raises(NotAllowed):
        await api_keys.list_keys(alice, PAGE, open_uow=scene.open_uow)
    with pytest.raises(NotFound):
        await api_keys.list_keys(admin, PAGE, open_uow=scene.open_uow, tenant_id=scene.other.id)


async def test_keys_are_revoked_once_by_owner_or_admin(scene: Scene) -> None:
    for who in (scene.alice, scene.admin, scene.root):
        key = scene.key(scene.alice)
        await scene.revoke(who, key.id)
        await scene.revoke(who, key.id)
        assert scene.store.keys[key.id].revoked_at == NOW
    assert scene.actions == ["api_key.revoked"] * 3
    await scene.revoke(scene.root, scene.key(scene.foreigner).id)


async def test_foreign_keys_do_not_exist(scene: Scene) -> None:
    of_admin, foreign = scene.key(scene.admin), scene.key(scene.foreigner)
    for who, key in ((scene.alice, of_admin), (scene.admin, foreign), (scene.alice, foreign)):
        with pytest.raises(NotFound):
            await scene.revoke(who, key.id)
        with pytest.raises(NotFound):
            await scene.rotate(scene.principal(who), key.id)
    for who in (scene.root, scene.alice):
        with pytest.raises(NotFound):
            await scene.revoke(who, ApiKeyId(new_id()))


async def test_a_rotated_key_keeps_everything_but_its_secret(scene: Scene) -> None:
    key = scene.key(scene.alice, models=("fast",))
    rotated, secret = await scene.rotate(scene.principal(scene.alice), key.id)
    assert rotated == replace(key, secret_hmac=HASHER.hmac(secret), prefix=secret[:12])
    assert scene.store.keys[key.id] == rotated
    assert scene.actions == ["api_key.rotated"]


async def test_a_limited_key_rotates_no_broader_one(scene: Scene) -> None:
    limited = scene.key(scene.alice, models=("fast",))
    principal = scene.principal(scene.alice, limited)
    with pytest.raises(NotAllowed):
        await scene.rotate(principal, scene.key(scene.alice).id)
    await scene.rotate(principal, limited.id)
    await scene.rotate(principal, scene.key(scene.alice, models=("fast",)).id)


@pytest.mark.parametrize("ended", [{"revoked_at": NOW}, {"expires_at": NOW}])
async def test_a_key_that_ended_is_not_rotated(scene: Scene, ended: dict[str, Any]) -> None:
    with pytest.raises(Conflict):
        await scene.rotate(scene.principal(scene.alice), scene.key(scene.alice, **ended).id)
