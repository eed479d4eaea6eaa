"""What a store of quotas keeps: set, lowered, adjusted, removed, put again, and raced for by calls of two replicas."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from src.domain.identity.model import Principal, Role, Tenant, User
from src.domain.ledger import quota_admin
from src.domain.ledger.model import Account, EntryKind, Hold, Scope, Unit, Window
from src.domain.ledger.periods import period_of
from src.domain.ledger.quotas import Quota
from src.domain.ledger.standing import QuotaStanding, standings_of
from src.shared.errors import Conflict, NotFound, QuotaExceeded
from src.shared.pages import PageRequest
from tests.contracts.conftest import Backend
from tests.makers import NOW, make_closing, make_hold_request, make_limit, make_top_up, make_user

TOMORROW = NOW + timedelta(days=1)


async def standing(backend: Backend, user: User, at: datetime = NOW) -> QuotaStanding:
    """The user's one quota."""
    async with backend.open_uow(user.tenant_id) as uow:
        (found,) = await standings_of(uow, [(Scope.USER, user.id)], at, "UTC")
    return found


async def remove(backend: Backend, quota: Quota) -> bool:
    async with backend.open_uow(quota.key.tenant_id) as uow:
        removed = await uow.accounts.remove_quota(quota.id, NOW)
        await uow.commit()
    return removed


async def entries_of(backend: Backend, quota: Quota) -> list[tuple[int, EntryKind]]:
    async with backend.open_uow(quota.key.tenant_id) as uow:
        page = await uow.accounts.entries(PageRequest(), scope_id=quota.key.scope_id, quota_id=quota.id)
    return [(entry.amount, entry.kind) for entry in page.rows]


def amounts(account: Account) -> tuple[int, int, int]:
    return account.limit, account.spent, account.held


async def tried(ledger: Any, user: User, at: datetime = NOW) -> Hold | None:
    """A hold of a hundred tokens, or None where it was refused."""
    try:
        hold: Hold = await ledger.open(make_hold_request(user, at=at, expires_at=at + timedelta(minutes=10)))
    except QuotaExceeded:
        return None
    return hold


async def test_a_limit_is_that_of_every_period(backend: Backend) -> None:
    _, user = await backend.with_user()
    account = await backend.set_limit(make_limit(user, 1000))
    assert amounts(account) == (1000, 0, 0)
    async with backend.ledger() as ledger:
        hold = await tried(ledger, user)
        assert hold is not None
        await ledger.close(make_closing(hold))
        assert await tried(ledger, user, TOMORROW) is not None
    today, tomorrow = await standing(backend, user), await standing(backend, user, TOMORROW)
    assert today.quota == tomorrow.quota
    assert today.quota.limit == 1000
    assert (amounts(today.account), amounts(tomorrow.account)) == ((1000, 40, 0), (1000, 0, 100))
    later = await standing(backend, user, TOMORROW + timedelta(days=1))
    assert (later.is_untouched, amounts(later.account)) == (True, (1000, 0, 0))


async def test_a_limit_put_again_is_booked_once(backend: Backend) -> None:
    _, user = await backend.with_user()
    for limit in (1000, 1000, 1200):
        await backend.set_limit(make_limit(user, limit))
    found = await standing(backend, user)
    assert found.quota.limit == 1200
    assert await entries_of(backend, found.quota) == [(200, EntryKind.LIMIT), (1000, EntryKind.LIMIT)]


async def test_a_limit_below_what_was_spent_refuses_until_it_is_raised(backend: Backend) -> None:
    _, user = await backend.with_user()
    await backend.set_limit(make_limit(user, 100))
    async with backend.ledger() as ledger:
        hold = await tried(ledger, user)
        assert hold is not None
        await ledger.close(make_closing(hold))
        lowered = await backend.set_limit(make_limit(user, 10))
        assert (lowered.balance, lowered.limit, lowered.spent) == (-30, 10, 40)
        assert await tried(ledger, user) is None
        assert amounts(await backend.set_limit(make_limit(user, 140))) == (140, 40, 0)
        assert await tried(ledger, user) is not None


async def test_what_is_held_when_the_limit_falls_is_settled_all_the_same(backend: Backend) -> None:
    _, user = await backend.with_user()
    await backend.set_limit(make_limit(user, 100))
    async with backend.ledger() as ledger:
        hold = await tried(ledger, user)
        assert hold is not None
        await backend.set_limit(make_limit(user, 0))
        closed = await ledger.close(make_closing(hold))
        assert closed.lost == {}
    assert amounts((await standing(backend, user)).account) == (0, 40, 0)


async def test_a_removed_quota_limits_nothing_and_put_again_starts_anew(backend: Backend) -> None:
    _, user = await backend.with_user()
    await backend.set_limit(make_limit(user, 100))
    before = await standing(backend, user)
    async with backend.ledger() as ledger:
        held = await tried(ledger, user)
        assert held is not None
        assert await remove(backend, before.quota)
        assert not await remove(backend, before.quota)
        unlimited = await tried(ledger, user)
        assert unlimited is not None
        assert unlimited.lines == ()
        await ledger.close(make_closing(held))
        await backend.set_limit(make_limit(user, 100))
        assert await tried(ledger, user) is not None
    after = await standing(backend, user)
    assert after.quota.id != before.quota.id
    assert amounts(after.account) == (100, 0, 100)
    async with backend.open_uow(user.tenant_id) as uow:
        assert await uow.accounts.quota(before.quota.id) is None
        assert await uow.accounts.quota(after.quota.id) == after.quota
    async with backend.open_uow(None) as uow:
        assert await uow.directory.tenant_of_quota(after.quota.id) == user.tenant_id


async def test_a_period_may_begin_with_an_adjustment(backend: Backend) -> None:
    _, user = await backend.with_user()
    await backend.set_limit(make_limit(user, 1000))
    period = period_of(Window.DAY, TOMORROW, "UTC")
    gift = make_top_up(user, 500, window=Window.DAY, period=period, at=TOMORROW)
    assert amounts(await backend.adjust(gift)) == (1500, 0, 0)
    with pytest.raises(Conflict):
        await backend.adjust(replace(gift, amount=-1501))
    found = await standing(backend, user, TOMORROW)
    assert await entries_of(backend, found.quota) == [
        (500, EntryKind.TOP_UP),
        (1000, EntryKind.LIMIT),
        (1000, EntryKind.LIMIT),
    ]
    assert amounts((await standing(backend, user)).account) == (1000, 0, 0)


async def test_a_day_without_a_quota_cannot_be_adjusted(backend: Backend) -> None:
    _, user = await backend.with_user()
    with pytest.raises(NotFound):
        await backend.adjust(make_top_up(user, 5, window=Window.DAY, period="2026-11-21"))


async def test_a_refused_beginning_leaves_nothing(backend: Backend) -> None:
    _, user = await backend.with_user()
    await backend.set_limit(make_limit(user, 1000))
    period = period_of(Window.DAY, TOMORROW, "UTC")
    with pytest.raises(Conflict):
        await backend.adjust(make_top_up(user, -1001, window=Window.DAY, period=period, at=TOMORROW))
    found = await standing(backend, user, TOMORROW)
    assert (found.is_untouched, amounts(found.account)) == (True, (1000, 0, 0))


async def test_quotas_are_listed_in_pages_and_by_scope(backend: Backend) -> None:
    tenant, user = await backend.with_user()
    other = make_user(tenant)
    for whose in (user, other):
        for unit in Unit:
            await backend.set_limit(make_limit(whose, 5, unit=unit))
    await backend.set_limit(make_limit(user, 5, model="fast"))
    async with backend.open_uow(tenant.id) as uow:
        everything = (await uow.accounts.quotas(PageRequest())).rows
        assert [(quota.key.scope_id, quota.key.unit, quota.key.model) for quota in everything] == [
            *((whose.id, unit, None) for whose in (user, other) for unit in Unit),
            (user.id, Unit.TOKENS, "fast"),
        ]
        ids = [quota.id for quota in everything]
        page = await uow.accounts.quotas(PageRequest(limit=3, after=ids[1]))
        assert (list(page.rows), page.has_more) == (everything[2:5], True)
        page = await uow.accounts.quotas(PageRequest(limit=3, before=ids[2]), scope=Scope.USER)
        assert (list(page.rows), page.has_more) == (everything[:2], False)
        page = await uow.accounts.quotas(PageRequest(), scope_id=other.id)
        assert list(page.rows) == everything[3:6]
        assert (await uow.accounts.quotas(PageRequest(), scope=Scope.TENANT)).rows == []


async def test_a_limit_that_changes_while_two_replicas_open_holds_counts_at_once(backend: Backend) -> None:
    _, user = await backend.with_user()
    other = backend.replica()
    await backend.set_limit(make_limit(user, 500))
    async with backend.ledger() as one, other.ledger() as two:
        opens = (tried(ledger, user) for _ in range(20) for ledger in (one, two))
        *holds, raised = await asyncio.gather(*opens, other.set_limit(make_limit(user, 1000)))
        admitted = [hold for hold in holds if isinstance(hold, Hold)]
        assert 5 <= len(admitted) <= 10
        assert raised.limit == 1000
        assert amounts((await standing(backend, user)).account) == (1000, 0, 100 * len(admitted))
        more = await asyncio.gather(*(tried(ledger, user) for _ in range(10) for ledger in (one, two)))
    assert len(admitted) + sum(hold is not None for hold in more) == 10


async def test_a_limit_that_changes_while_a_period_begins_is_the_limit_of_that_period(backend: Backend) -> None:
    """Calls make the account with the limit they read: never with one that an administrator has just replaced."""
    _, user = await backend.with_user()
    other = backend.replica()
    await backend.set_limit(make_limit(user, 1000))
    async with backend.ledger() as one, other.ledger() as two:
        for day in range(1, 9):
            at, limit = NOW + timedelta(days=day), 1000 + day
            change = make_limit(user, limit, at=at, period=period_of(Window.DAY, at, "UTC"))
            *holds, changed, _ = await asyncio.gather(
                *(tried(ledger, user, at) for ledger in (one, two, one)),
                other.set_limit(change),
                backend.set_limit(change),
            )
            assert all(holds)
            assert changed.limit == limit
            found = await standing(backend, user, at)
            assert amounts(found.account) == (limit, 0, 300)
            assert found.quota.limit == limit


async def test_a_quota_that_is_removed_and_put_again_under_calls_keeps_its_books(backend: Backend) -> None:
    _, user = await backend.with_user()
    other = backend.replica()
    await backend.set_limit(make_limit(user, 300))

    async def call(ledger: Any) -> None:
        hold = await tried(ledger, user)
        if hold is not None:
            await ledger.close(make_closing(hold))

    async def renewed() -> None:
        for _ in range(5):
            await remove(other, (await standing(other, user)).quota)
            await other.set_limit(make_limit(user, 300))

    async with backend.ledger() as one, other.ledger() as two:
        await asyncio.gather(*(call(ledger) for _ in range(20) for ledger in (one, two)), renewed())
        assert await backend.auditor(one).discrepancies() == []
    found = await standing(backend, user)
    assert found.account.limit == 300
    assert found.account.held == 0


async def test_many_limits_of_a_busy_user_change_without_waiting_for_each_other(backend: Backend) -> None:
    """An administrator and the calls lock the same accounts in the same order: a deadlock would fail either."""
    tenant, user = await backend.with_user()
    admin = _admin_of(tenant)
    other = backend.replica()
    for window in (Window.MONTH, Window.DAY):
        for unit in (Unit.REQUESTS, Unit.TOKENS):
            period = period_of(window, NOW, "UTC")
            await backend.set_limit(make_limit(user, 10**6, unit=unit, window=window, period=period))
    changes = dict.fromkeys(quota_admin.LIMITS, 2 * 10**6)

    async def changed(round_: int) -> None:
        ordered = list(changes.items())
        turned = dict(ordered[round_ % 6 :] + ordered[: round_ % 6])
        asking = {"open_uow": other.open_uow, "clock": lambda: NOW}
        await quota_admin.set_user_limits(admin, user.id, turned, **asking)

    async def calls(ledger: Any) -> None:
        for _ in range(10):
            hold = await tried(ledger, user)
            assert hold is not None
            await ledger.close(make_closing(hold))

    async with backend.ledger() as one, other.ledger() as two:
        busy = (calls(ledger) for _ in range(4) for ledger in (one, two))
        await asyncio.gather(*busy, *(changed(round_) for round_ in range(6)))
        assert await backend.auditor(one).discrepancies() == []
    async with backend.open_uow(tenant.id) as uow:
        found = await standings_of(uow, [(Scope.USER, user.id)], NOW, "UTC")
    assert {each.account.limit for each in found} == {2 * 10**6}
    assert len(found) == len(quota_admin.LIMITS)


def _admin_of(tenant: Tenant) -> Principal:
    admin = make_user(tenant, role=Role.TENANT_ADMIN)
    return Principal(tenant=tenant, user=admin, role=admin.role)
