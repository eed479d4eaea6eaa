"""What every repository keeps and gives back, in memory, on SQLite and on PostgreSQL."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from src.domain.dialogs.model import Dialog, DialogKind, Message, MessageId, MessagesAdded
from src.domain.identity.model import Role, Tenant, User
from src.domain.identity.ports import AuditEvent
from src.domain.ledger.model import Scope
from src.shared.errors import Conflict, NotFound
from src.shared.ids import new_id
from src.shared.pages import PageRequest
from tests.contracts.conftest import Backend
from tests.makers import (
    NOW,
    make_answer,
    make_closing,
    make_dialog,
    make_hold_request,
    make_key,
    make_limit,
    make_message,
    make_session,
    make_tenant,
    make_top_up,
    make_usage_record,
    make_user,
)

LATER = NOW + timedelta(hours=1)


async def keep(backend: Backend, *messages: Message) -> None:
    async with backend.ledger() as ledger:
        await ledger.record((MessagesAdded(messages=messages),))


async def add_dialogs(backend: Backend, user: User, *dialogs: Dialog) -> None:
    async with backend.open_uow(user.tenant_id) as uow:
        for dialog in dialogs:
            await uow.dialogs.add(dialog)
        await uow.commit()


async def walk(ask: Callable[[PageRequest], Any], *, limit: int) -> list[UUID]:
    """Every id of a list, page by page forward."""
    seen: list[UUID] = []
    page = await ask(PageRequest(limit=limit))
    while True:
        seen.extend(row.id for row in page.rows)
        if not page.has_more:
            return seen
        page = await ask(PageRequest(limit=limit, after=seen[-1]))


async def test_what_is_not_committed_is_undone(backend: Backend) -> None:
    tenant = make_tenant()
    async with backend.open_uow(None) as uow:
        await uow.directory.add_tenant(tenant)
        assert await uow.directory.tenant(tenant.id) == tenant
    async with backend.open_uow(None) as uow:
        assert await uow.directory.tenant(tenant.id) is None


async def test_leaving_by_an_error_undoes(backend: Backend) -> None:
    tenant = make_tenant()

    async def fail() -> None:
        async with backend.open_uow(None) as uow:
            await uow.directory.add_tenant(tenant)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with backend.open_uow(None) as uow:
        assert await uow.directory.tenant(tenant.id) is None


async def test_before_a_tenant_is_known_nothing_of_a_tenant_is_there(backend: Backend) -> None:
    async with backend.open_uow(None) as uow:
        for name in ("identity", "dialogs", "accounts"):
            with pytest.raises(RuntimeError):
                getattr(uow, name)


async def test_tenants_are_found_by_id_and_slug(backend: Backend) -> None:
    tenant = make_tenant(slug="acme", time_zone="Asia/Tokyo")
    async with backend.open_uow(None) as uow:
        await uow.directory.add_tenant(tenant)
        await uow.commit()
    async with backend.open_uow(None) as uow:
        assert await uow.directory.tenant_by_slug("acme") == tenant
        with pytest.raises(Conflict) as taken:
            await uow.directory.add_tenant(make_tenant(slug="acme"))
        renamed = replace(tenant, name="Acme Ltd", disabled=True, time_zone="America/New_York")
        await uow.directory.update_tenant(renamed)  # a refusal leaves the unit of work usable
        await uow.commit()
    assert taken.value.param == "slug"
    async with backend.open_uow(None) as uow:
        assert await uow.directory.tenant(tenant.id) == renamed
        with pytest.raises(NotFound):
            await uow.directory.update_tenant(make_tenant())


async def test_users_keep_every_field(backend: Backend) -> None:
    _, user = await backend.with_user(name="Ann", email="ann@example.com", password_hash="x", role=Role.TENANT_ADMIN)
    async with backend.open_uow(user.tenant_id) as uow:
        assert await uow.identity.user(user.id) == user
        assert await uow.identity.user_by_external_id(user.external_id) == user
        changed = replace(user, name=None, disabled=True, role=Role.USER)
        await uow.identity.update_user(changed)
        await uow.commit()
    async with backend.open_uow(None) as uow:
        assert await uow.directory.user_anywhere(user.id) == changed
        ((_, found),) = await uow.directory.users_by_email("Ann@Example.com")
    assert found == changed


async def test_external_ids_and_addresses_are_unique_within_a_tenant(backend: Backend) -> None:
    tenant, user = await backend.with_user(email="ann@example.com")
    other, _ = await backend.with_user(email="ann@example.com", external_id=user.external_id)
    assert other != tenant
    async with backend.open_uow(tenant.id) as uow:
        for same in ({"external_id": user.external_id}, {"email": "ann@example.com"}):
            with pytest.raises(Conflict) as taken:
                await uow.identity.add_user(make_user(tenant, **same))
            assert taken.value.param == next(iter(same))
    async with backend.open_uow(None) as uow:
        assert len(await uow.directory.users_by_email("ann@example.com")) == 2


async def test_another_tenants_rows_are_not_there(backend: Backend) -> None:
    _, user = await backend.with_user()
    other, stranger = await backend.with_user()
    key, session, dialog = make_key(user), make_session(user), make_dialog(user)
    async with backend.open_uow(user.tenant_id) as uow:
        await uow.identity.add_key(key)
        await uow.identity.add_session(session)
        await uow.dialogs.add(dialog)
        await uow.accounts.adjust(make_top_up(user, 5))
        (quota,) = await uow.accounts.quotas_of([(Scope.USER, user.id)])
        await uow.commit()
    message = make_message(dialog)
    await keep(backend, message)
    async with backend.open_uow(other.id) as uow:
        assert await uow.identity.user(user.id) is None
        assert await uow.identity.user_by_external_id(user.external_id) is None
        assert await uow.identity.key(key.id) is None
        assert await uow.identity.session(session.id) is None
        assert [row.id for row in (await uow.identity.users(PageRequest())).rows] == [stranger.id]
        assert (await uow.identity.keys(PageRequest(), user_id=None)).rows == []
        assert await uow.dialogs.dialog(dialog.id, user.id) is None
        assert await uow.dialogs.message(dialog.id, message.id) is None
        assert (await uow.dialogs.messages(dialog.id, PageRequest())).rows == []
        assert await uow.dialogs.path(dialog.id, message.id, limit=10) == []
        assert not await uow.dialogs.delete(dialog.id, user.id)
        assert await uow.accounts.quotas_of([(Scope.USER, user.id)]) == []
        assert await uow.accounts.quota(quota.id) is None
        assert (await uow.accounts.quotas(PageRequest())).rows == []
        assert await uow.accounts.accounts_of([quota.id], [""]) == []
        assert (await uow.accounts.entries(PageRequest(), scope_id=user.id)).rows == []
        assert not await uow.accounts.remove_quota(quota.id, NOW)
        for refused in (
            uow.identity.update_user(user),
            uow.identity.add_key(make_key(user)),
            uow.dialogs.add(make_dialog(user)),
            uow.dialogs.update(dialog),
            uow.accounts.adjust(make_top_up(user, 1)),
            uow.accounts.set_limit(make_limit(user, 1)),
        ):
            with pytest.raises(NotFound):
                await refused


async def test_a_message_cannot_hang_in_another_tenants_dialog(backend: Backend) -> None:
    _, user = await backend.with_user()
    other, _ = await backend.with_user()
    dialog = make_dialog(user)
    await add_dialogs(backend, user, dialog)
    with pytest.raises(NotFound):
        await keep(backend, make_message(dialog, tenant_id=other.id))


async def test_keys_are_found_by_their_hash_and_die_once(backend: Backend) -> None:
    tenant, user = await backend.with_user()
    key = make_key(user, models=("fast", "smart"), expires_at=LATER)
    async with backend.open_uow(tenant.id) as uow:
        await uow.identity.add_key(key)
        await uow.commit()
    async with backend.open_uow(None) as uow:
        assert await uow.directory.key_by_hmac(key.secret_hmac) == (tenant, user, key)
        assert await uow.directory.key_by_hmac(b"nothing") is None
        assert await uow.directory.key_anywhere(key.id) == key
    async with backend.open_uow(tenant.id) as uow:
        assert not await uow.identity.replace_secret(key.id, old=b"wrong", new=b"new", prefix="p")
        assert await uow.identity.replace_secret(key.id, old=key.secret_hmac, new=b"new", prefix="p")
        await uow.identity.revoke_key(key.id, NOW)
        await uow.identity.revoke_key(key.id, LATER)
        assert not await uow.identity.replace_secret(key.id, old=b"new", new=b"newer", prefix="p")
        await uow.commit()
    async with backend.open_uow(tenant.id) as uow:
        assert await uow.identity.key(key.id) == replace(key, secret_hmac=b"new", prefix="p", revoked_at=NOW)
        assert len((await uow.identity.keys(PageRequest(), user_id=user.id)).rows) == 1


async def test_a_refresh_token_is_swapped_once(backend: Backend) -> None:
    _, user = await backend.with_user()
    session = make_session(user)
    async with backend.open_uow(user.tenant_id) as uow:
        await uow.identity.add_session(session)
        old = session.refresh_hmac
        assert await uow.identity.replace_refresh(session.id, old=old, new=b"2", expires_at=LATER)
        assert not await uow.identity.replace_refresh(session.id, old=old, new=b"3", expires_at=LATER)
        await uow.identity.revoke_sessions(user.id, NOW)
        assert not await uow.identity.replace_refresh(session.id, old=b"2", new=b"3", expires_at=LATER)
        await uow.identity.revoke_session(session.id, LATER)
        await uow.commit()
    async with backend.open_uow(user.tenant_id) as uow:
        kept = await uow.identity.session(session.id)
    assert kept == replace(session, refresh_hmac=b"2", expires_at=LATER, revoked_at=NOW)


async def test_pages_walk_a_list_both_ways(backend: Backend) -> None:
    tenant, first = await backend.with_user()
    users = [first, *(make_user(tenant) for _ in range(6))]
    async with backend.open_uow(tenant.id) as uow:
        for user in users[1:]:
            await uow.identity.add_user(user)
        await uow.commit()
    ids = [user.id for user in users]
    async with backend.open_uow(tenant.id) as uow:
        for limit in (1, 2, 3, 7, 20):
            assert await walk(uow.identity.users, limit=limit) == ids
        back = await uow.identity.users(PageRequest(limit=2, before=ids[4]))
        assert ([row.id for row in back.rows], back.has_more) == (ids[2:4], True)
        start = await uow.identity.users(PageRequest(limit=5, before=ids[2]))
        assert ([row.id for row in start.rows], start.has_more) == (ids[:2], False)


async def test_dialogs_come_newest_first_without_the_chat(backend: Backend) -> None:
    _, user = await backend.with_user()
    dialogs = [make_dialog(user, title=f"No. {number}", params={"a": [1]}, metadata={"b": None}) for number in range(5)]
    chat = make_dialog(user, kind=DialogKind.CHAT)
    await add_dialogs(backend, user, *dialogs, chat)
    newest_first = [dialog.id for dialog in reversed(dialogs)]
    async with backend.open_uow(user.tenant_id) as uow:

        async def ask(page: PageRequest) -> Any:
            return await uow.dialogs.dialogs(user.id, page, search=None)

        assert await walk(ask, limit=2) == newest_first
        back = await ask(PageRequest(limit=2, before=newest_first[4]))
        assert ([row.id for row in back.rows], back.has_more) == (newest_first[2:4], True)
        assert await uow.dialogs.dialog(dialogs[0].id, user.id) == dialogs[0]
        assert await uow.dialogs.chat_dialog(user.id) == chat
        with pytest.raises(Conflict):
            await uow.dialogs.add(make_dialog(user, kind=DialogKind.CHAT))


async def test_search_takes_its_words_literally(backend: Backend) -> None:
    _, user = await backend.with_user()
    titled, said, other = make_dialog(user, title="100% SURE_thing"), make_dialog(user), make_dialog(user, title="x")
    await add_dialogs(backend, user, titled, said, other)
    await keep(backend, make_message(said, content="It is Raining\\snowing"))
    async with backend.open_uow(user.tenant_id) as uow:
        for search, found in (
            ("100%", [titled.id]),
            ("sure_", [titled.id]),
            ("RAINING\\", [said.id]),
            ("0_s", []),
            ("%", [titled.id]),
        ):
            page = await uow.dialogs.dialogs(user.id, PageRequest(), search=search)
            assert [row.id for row in page.rows] == found, search


async def test_updating_a_dialog_leaves_its_head_alone(backend: Backend) -> None:
    _, user = await backend.with_user()
    dialog = make_dialog(user)
    await add_dialogs(backend, user, dialog)
    changed = replace(
        dialog, title="New", model="fast", system_prompt="Be brief.", params={"top_p": 1}, updated_at=LATER
    )
    async with backend.open_uow(user.tenant_id) as uow:
        await uow.dialogs.update(replace(changed, head_id=MessageId(new_id())))
        await uow.commit()
    async with backend.open_uow(user.tenant_id) as uow:
        assert await uow.dialogs.dialog(dialog.id, user.id) == changed
        assert await uow.dialogs.delete(dialog.id, user.id)
        assert not await uow.dialogs.delete(dialog.id, user.id)
        with pytest.raises(NotFound):
            await uow.dialogs.update(changed)


async def test_a_path_goes_from_the_root_to_the_leaf(backend: Backend) -> None:
    _, user = await backend.with_user()
    dialog, other = make_dialog(user), make_dialog(user)
    await add_dialogs(backend, user, dialog, other)
    path = [make_message(dialog)]
    for _ in range(5):
        path.append(make_answer(path[-1], content="so", parts=({"type": "text", "text": "so"},)))
    sibling = make_answer(path[2])
    await keep(backend, *path, sibling)
    async with backend.open_uow(user.tenant_id) as uow:
        assert await uow.dialogs.path(dialog.id, path[-1].id, limit=100) == path
        assert await uow.dialogs.path(dialog.id, path[-1].id, limit=3) == path[-3:]
        assert await uow.dialogs.path(dialog.id, sibling.id, limit=100) == [*path[:3], sibling]
        assert await uow.dialogs.path(other.id, path[-1].id, limit=100) == []
        page = await uow.dialogs.messages(dialog.id, PageRequest(limit=4))
        assert (list(page.rows), page.has_more) == (path[:4], True)


async def test_exchanges_pair_questions_with_answers(backend: Backend) -> None:
    _, user = await backend.with_user()
    chat, dialog = make_dialog(user, kind=DialogKind.CHAT), make_dialog(user)
    await add_dialogs(backend, user, chat, dialog)
    pairs = [(question, make_answer(question)) for question in (make_message(chat) for _ in range(3))]
    for pair in pairs:
        await keep(backend, *pair)
    elsewhere = make_message(dialog)
    await keep(backend, elsewhere, make_answer(elsewhere))
    async with backend.open_uow(user.tenant_id) as uow:
        exchanges = await uow.dialogs.exchanges(user.id, limit=2)
    assert [(each.question, each.answer) for each in exchanges] == pairs[:0:-1]
    assert {each.user_external_id for each in exchanges} == {user.external_id}


async def test_the_audit_log_reads_newest_first(backend: Backend) -> None:
    tenant, user = await backend.with_user()
    other, _ = await backend.with_user()
    events = [_event(each, user) for each in (tenant, other, tenant)]
    async with backend.open_uow(tenant.id) as uow:
        for event in events:
            await uow.audit.record(event)
        await uow.commit()
    async with backend.open_uow(tenant.id) as uow:
        own = await uow.audit.events(PageRequest(), tenant_id=tenant.id)
        everything = await uow.audit.events(PageRequest(limit=2), tenant_id=None)
    assert list(own.rows) == [events[2], events[0]]
    assert (list(everything.rows), everything.has_more) == ([events[2], events[1]], True)


def _event(tenant: Tenant, user: User) -> AuditEvent:
    return AuditEvent(
        id=new_id(),
        tenant_id=tenant.id,
        actor_user_id=user.id,
        actor_key_id=None,
        action="user.create",
        object_kind="user",
        object_id=str(user.id),
        details={"role": "user", "list": [1, None]},
        request_id="req-1",
        created_at=NOW,
    )


async def test_usage_is_summed_by_day_model_and_key(backend: Backend) -> None:
    user = await backend.rich_user(10_000)
    key = make_key(user)
    async with backend.ledger() as ledger:
        for day, key_id, model in ((0, None, "fast"), (0, None, "fast"), (1, key.id, "fast"), (1, key.id, "slow")):
            hold = await ledger.open(make_hold_request(user, model=model, api_key_id=key_id))
            record = make_usage_record(hold, created_at=NOW + timedelta(days=day))
            await ledger.close(make_closing(hold), (record,))
    today, tomorrow = NOW.date(), NOW.date() + timedelta(days=1)
    async with backend.open_uow(user.tenant_id) as uow:
        rows = await uow.accounts.usage(user_id=user.id, since=today, until=tomorrow)
        everybody = await uow.accounts.usage(user_id=None, since=today, until=today)
        assert await uow.accounts.tokens_used(user.id) == 160
    counted = {(row.day, row.model, row.api_key_id): (row.calls, row.input_tokens, row.cost_micro_usd) for row in rows}
    assert counted == {
        (today, "fast", None): (2, 20, 14),
        (tomorrow, "fast", key.id): (1, 10, 7),
        (tomorrow, "slow", key.id): (1, 10, 7),
    }
    assert [row.calls for row in everybody] == [2]


async def test_ids_and_times_come_back_as_plain_ones(sql: Backend) -> None:
    _, user = await sql.with_user()
    async with sql.open_uow(user.tenant_id) as uow:
        kept = await uow.identity.user(user.id)
    assert kept is not None
    assert type(kept.id) is UUID
    assert kept.created_at.utcoffset() == timedelta(0)
    assert kept.created_at.microsecond == 123456
