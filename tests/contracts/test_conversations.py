"""Dialogs that begin with a call, and messages that no call brought: in memory, on SQLite and on PostgreSQL."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from src.domain.dialogs.model import Dialog, DialogAdded, DialogId, Message, MessageRole, MessagesAdded, MessageStatus
from src.domain.identity.model import User, UserId
from src.shared.errors import NotFound
from src.shared.ids import new_id
from tests.contracts.conftest import Backend
from tests.makers import make_answer, make_dialog, make_message

PARTS = ({"type": "tool_call", "id": "c", "name": "look", "arguments": '{"q":1}'}, {"type": "text", "text": "é"})


async def append(backend: Backend, user: User, dialog: Dialog, messages: Sequence[Message]) -> None:
    async with backend.open_uow(user.tenant_id) as uow:
        if await uow.dialogs.dialog(dialog.id, user.id) is None:
            await uow.dialogs.add(dialog)
        await uow.dialogs.append(dialog, messages)
        await uow.commit()


def chain_of(dialog: Dialog, length: int) -> list[Message]:
    """Messages one below the other: questions and answers in turn."""
    chain = [make_message(dialog)]
    while len(chain) < length:
        below = make_answer(chain[-1]) if len(chain) % 2 else make_message(dialog, parent_id=chain[-1].id)
        chain.append(replace(below, status=MessageStatus.COMPLETED, content=f"no. {len(chain)}"))
    return chain


async def test_a_dialog_begins_with_its_first_messages(backend: Backend) -> None:
    _, user = await backend.with_user()
    dialog = make_dialog(user, model="fast", metadata={"a": "b"})
    question = replace(make_message(dialog), role=MessageRole.SYSTEM, parts=PARTS, settings={"inputs": 1, "deep": [{}]})
    async with backend.ledger() as ledger:
        await ledger.record((DialogAdded(dialog=dialog), MessagesAdded(messages=(question,))))
    async with backend.open_uow(user.tenant_id) as uow:
        assert await uow.dialogs.dialog(dialog.id, user.id) == dialog
        assert await uow.dialogs.message(dialog.id, question.id) == question


async def test_a_dialog_of_nobody_is_refused_with_its_messages(backend: Backend) -> None:
    _, user = await backend.with_user()
    stranger = replace(user, id=UserId(new_id()))
    dialog = make_dialog(stranger)
    question = make_message(dialog)
    async with backend.ledger() as ledger:
        with pytest.raises(NotFound):
            await ledger.record((DialogAdded(dialog=dialog), MessagesAdded(messages=(question,))))
    async with backend.open_uow(user.tenant_id) as uow:
        assert await uow.dialogs.message(dialog.id, question.id) is None


async def test_what_is_appended_is_the_new_end(backend: Backend) -> None:
    _, user = await backend.with_user()
    dialog = make_dialog(user)
    chain = chain_of(dialog, 3)
    chain[1] = replace(chain[1], parts=PARTS)
    await append(backend, user, dialog, chain)
    await append(backend, user, dialog, [])
    async with backend.open_uow(user.tenant_id) as uow:
        found = await uow.dialogs.dialog(dialog.id, user.id)
        assert found is not None
        assert found.head_id == chain[-1].id
        assert await uow.dialogs.path(dialog.id, chain[-1].id, limit=10) == chain


async def test_a_message_is_found_by_its_id_in_any_dialog_of_its_user_only(backend: Backend) -> None:
    _, user = await backend.with_user()
    _, other = await backend.with_user()
    dialog = make_dialog(user)
    question, answer = chain_of(dialog, 2)
    await append(backend, user, dialog, [question, answer])
    async with backend.open_uow(user.tenant_id) as uow:
        assert await uow.dialogs.said(answer.id, user.id) == answer
        assert await uow.dialogs.said(question.id, user.id) == question
        assert await uow.dialogs.said(answer.id, other.id) is None
    async with backend.open_uow(other.tenant_id) as uow:
        assert await uow.dialogs.said(answer.id, user.id) is None
        assert await uow.dialogs.said(answer.id, other.id) is None


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_what_is_removed_leaves_the_rest_joined(backend: Backend, place: int) -> None:
    _, user = await backend.with_user()
    dialog = make_dialog(user)
    chain = chain_of(dialog, 3)
    await append(backend, user, dialog, chain)
    async with backend.open_uow(user.tenant_id) as uow:
        assert await uow.dialogs.has_children(chain[place]) is (place < 2)
        await uow.dialogs.remove(chain[place])
        await uow.commit()
    left = [each for each in chain if each is not chain[place]]
    async with backend.open_uow(user.tenant_id) as uow:
        found = await uow.dialogs.dialog(dialog.id, user.id)
        assert found is not None
        assert found.head_id == left[-1].id
        path = await uow.dialogs.path(dialog.id, left[-1].id, limit=10)
        assert [each.id for each in path] == [each.id for each in left]


async def test_a_message_is_changed_in_its_words_only(backend: Backend) -> None:
    _, user = await backend.with_user()
    dialog = make_dialog(user)
    chain = chain_of(dialog, 2)
    await append(backend, user, dialog, chain)
    changed = replace(chain[1], content="other", parts=PARTS, settings={"forgotten": True})
    async with backend.open_uow(user.tenant_id) as uow:
        await uow.dialogs.change(replace(changed, request_id="ignored"))
        await uow.commit()
    async with backend.open_uow(user.tenant_id) as uow:
        assert await uow.dialogs.path(dialog.id, chain[1].id, limit=10) == [chain[0], changed]


async def test_nothing_is_appended_to_a_dialog_that_is_not_there(backend: Backend) -> None:
    _, user = await backend.with_user()
    dialog = replace(make_dialog(user), id=DialogId(new_id()))
    async with backend.open_uow(user.tenant_id) as uow:
        with pytest.raises(NotFound):
            await uow.dialogs.append(dialog, [make_message(dialog)])
