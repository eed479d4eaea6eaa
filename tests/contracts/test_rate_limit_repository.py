"""Rate limits as they are kept, and as replicas see them."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from src.data.snapshots import rate_limits_snapshot
from src.domain.identity.model import Tenant
from src.domain.limits.model import Bucket, LimitName, LimitScope, RateLimit
from src.shared.errors import NotFound
from src.shared.pages import PageRequest
from tests.contracts.conftest import Backend
from tests.makers import NOW, make_key, make_rate_limit, make_tenant
from tests.unit.support import make_principal

LATER = NOW + timedelta(minutes=1)


async def put(backend: Backend, *limits: RateLimit) -> list[RateLimit]:
    async with backend.open_uow(None) as uow:
        found = [await uow.limits.put(limit) for limit in limits]
        await uow.commit()
    return found


async def remove(backend: Backend, limit: RateLimit) -> bool:
    async with backend.open_uow(None) as uow:
        gone = await uow.limits.remove(limit.id)
        await uow.commit()
    return gone


async def a_tenant(backend: Backend) -> Tenant:
    tenant, _ = await backend.with_user()
    return tenant


async def test_a_limit_comes_back_as_it_was_put(backend: Backend) -> None:
    tenant = await a_tenant(backend)
    of_model = make_rate_limit(scope=LimitScope.MODEL, scope_id="a/b: ü", parallel=10**12)
    of_tenant = make_rate_limit(tenant, requests_per_minute=None, tokens_per_minute=1)
    assert await put(backend, of_model, of_tenant) == [of_model, of_tenant]
    async with backend.open_uow(None) as uow:
        assert await uow.limits.get(of_tenant.id) == of_tenant
        assert await uow.limits.find(LimitScope.MODEL, "a/b: ü") == of_model
        assert await uow.limits.find(LimitScope.TENANT, "a/b: ü") is None
        assert await uow.limits.get(make_rate_limit().id) is None


async def test_a_scope_has_one_row_that_keeps_its_id(backend: Backend) -> None:
    tenant = await a_tenant(backend)
    (first,) = await put(backend, make_rate_limit(tenant, parallel=4))
    changed = make_rate_limit(tenant, requests_per_minute=7, parallel=None, updated_at=LATER)
    assert await put(backend, changed) == [replace(changed, id=first.id)]
    async with backend.open_uow(None) as uow:
        rows = (await uow.limits.page(PageRequest(), tenant_id=None)).rows
    assert rows == [replace(changed, id=first.id)]


async def test_only_what_is_named_is_changed(backend: Backend) -> None:
    tenant = await a_tenant(backend)
    (first,) = await put(backend, make_rate_limit(tenant, parallel=4, tokens_per_minute=100))
    named = make_rate_limit(tenant, requests_per_minute=7, parallel=None, updated_at=LATER)
    async with backend.open_uow(None) as uow:
        found = await uow.limits.put(named, (LimitName.REQUESTS, LimitName.PARALLEL))
    assert found == replace(first, requests_per_minute=7, parallel=None, updated_at=LATER)


async def test_every_change_raises_the_version(backend: Backend) -> None:
    tenant = await a_tenant(backend)
    versions = [await version(backend)]
    (limit,) = await put(backend, make_rate_limit(tenant))
    versions.append(await version(backend))
    await put(backend, limit)
    versions.append(await version(backend))
    assert await remove(backend, limit)
    versions.append(await version(backend))
    assert versions == sorted(set(versions))
    assert not await remove(backend, limit)
    async with backend.open_uow(None) as uow:
        assert await uow.catalog.version() == 0, "the catalog has one of its own"


async def version(backend: Backend) -> int:
    async with backend.open_uow(None) as uow:
        return await uow.limits.version()


async def test_what_is_not_committed_is_not_put(backend: Backend) -> None:
    tenant = await a_tenant(backend)
    before = await version(backend)
    async with backend.open_uow(None) as uow:
        await uow.limits.put(make_rate_limit(tenant))
    assert await version(backend) == before
    async with backend.open_uow(None) as uow:
        assert (await uow.limits.page(PageRequest(), tenant_id=None)).rows == []


async def test_a_tenant_that_is_not_there_has_no_limits(backend: Backend) -> None:
    with pytest.raises(NotFound):
        await put(backend, make_rate_limit(make_tenant()))


async def test_lists_are_pages_of_a_tenant_or_of_all(backend: Backend) -> None:
    tenants = [await a_tenant(backend) for _ in range(2)]
    mine = [
        make_rate_limit(tenants[0]),
        *(make_rate_limit(tenants[0], scope=LimitScope.USER, scope_id=str(make_tenant().id)) for _ in range(3)),
    ]
    others = [make_rate_limit(tenants[1]), make_rate_limit(scope=LimitScope.MODEL, scope_id="fast")]
    await put(backend, *mine, *others)

    async def listed(**given: Any) -> list[RateLimit]:
        page = PageRequest(**{name: given.pop(name) for name in ("limit", "after", "before") if name in given})
        async with backend.open_uow(None) as uow:
            return list((await uow.limits.page(page, **{"tenant_id": None, **given})).rows)

    assert await listed() == [*mine, *others]
    assert await listed(tenant_id=tenants[0].id) == mine
    assert await listed(tenant_id=tenants[0].id, scope=LimitScope.USER, limit=2) == mine[1:3]
    assert await listed(tenant_id=tenants[0].id, after=mine[1].id) == mine[2:]
    assert await listed(tenant_id=tenants[0].id, before=mine[2].id) == mine[:2]
    assert await listed(scope=LimitScope.MODEL) == others[1:]


async def test_a_snapshot_knows_what_every_call_falls_under(backend: Backend) -> None:
    tenant, user = await backend.with_user()
    key = make_key(user)
    principal = make_principal(tenant=tenant, user=user, api_key=key)
    theirs = [
        make_rate_limit(tenant, requests_per_minute=1000, tokens_per_minute=5000),
        make_rate_limit(tenant, scope=LimitScope.USER, scope_id=str(user.id), parallel=3),
        make_rate_limit(tenant, scope=LimitScope.API_KEY, scope_id=str(key.id), requests_per_minute=9),
        make_rate_limit(scope=LimitScope.MODEL, scope_id="fast", tokens_per_minute=77),
    ]
    others = make_rate_limit(tenant, scope=LimitScope.USER, scope_id=str(key.id), parallel=1)
    snapshot = rate_limits_snapshot(backend.replica().open_uow)
    await snapshot.refresh()
    assert snapshot.current().of_call(principal, "fast") == ()
    await put(backend, *theirs)
    await snapshot.refresh()
    found = snapshot.current().of_call(principal, "fast")
    assert set(found) == {bucket for limit in theirs for bucket in limit.buckets}
    assert Bucket(LimitName.PARALLEL, LimitScope.USER, str(user.id), 3) in found
    assert not [bucket for bucket in snapshot.current().of_call(principal, "slow") if bucket.limit == 77]
    await remove(backend, theirs[0])
    await put(backend, replace(theirs[1], parallel=5), others)
    await snapshot.refresh()
    without_key = snapshot.current().of_call(make_principal(tenant=tenant, user=user), "slow")
    assert [(bucket.name, bucket.limit) for bucket in without_key] == [(LimitName.PARALLEL, 5)]


async def test_a_snapshot_sees_changes_of_other_replicas_by_itself(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.data.snapshots.POLL_S", 0.01)
    tenant, user = await backend.with_user()
    snapshot = rate_limits_snapshot(backend.replica().open_uow)
    await snapshot.start()
    await put(backend, make_rate_limit(tenant, parallel=1))
    while not snapshot.current().of_call(make_principal(tenant=tenant, user=user), "fast"):
        await asyncio.sleep(0.005)
    await snapshot.close()
