"""Answers asked for at doors that bring whole turns along: where they hang, how they are kept, found and deleted.

A response is an answer of a dialog with everything that was asked with it; a conversation is a dialog.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from src.domain.catalog.model import Model
from src.domain.completion.model import ChatMessage, Parameters
from src.domain.completion.ports import TokenMeter
from src.domain.dialogs.context import as_told, fitting
from src.domain.dialogs.model import (
    ASIDE,
    DEVELOPERS,
    TURN,
    Dialog,
    DialogId,
    Message,
    MessageId,
    MessageRole,
    MessageStatus,
    turn_in,
)
from src.domain.dialogs.storing import Storing, stored_parts
from src.domain.dialogs.use_cases import DialogPorts, own_dialog
from src.domain.identity.model import Principal
from src.domain.unit_of_work import UnitOfWork
from src.shared.errors import InvalidRequest, NotFound
from src.shared.ids import new_id
from src.shared.pages import PageRequest

MAX_HISTORY = 5000
"""The most messages read for one context."""

FORGOTTEN = "forgotten"
"""The setting of a response that was deleted while others build upon it."""

INPUTS = "inputs"
"""The setting that tells how many of the messages above an answer were asked with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an answer is to hang: in a dialog (None: a new one), below what has been said so far, root first.

    The first `omitted` messages of it are not told to the model. With `at_end` the answer is put at the end of the
    dialog, wherever that is when the answer has ended: others may have said something meanwhile. `aside`: it is no part
    of the conversation whose answer it follows.
    """

    dialog: Dialog | None = None
    path: Sequence[Message] = ()
    omitted: int = 0
    at_end: bool = False
    aside: bool = False

    def history(self, asked: Sequence[ChatMessage]) -> list[ChatMessage]:
        """What has been said so far, as a model is told it before what is asked now."""
        return as_told(self.path[self.omitted :], asked)

    def fitted(self, model: Model, parameters: Parameters, spent_tokens: int, meter: TokenMeter) -> "Place":
        """The same place with as much of its history as fits the model's window beside the rest."""
        kept = fitting(self.path, model, parameters, spent_tokens, meter).messages
        return replace(self, omitted=len(self.path) - len(kept))

    def storing(self, principal: Principal, asked: Sequence[ChatMessage], how: "Asked") -> Storing:
        """The messages to be kept: what is asked now, and the answer."""
        dialog = self.dialog or _new_dialog(principal, how)
        parent = self.path[-1].id if self.path else None
        messages = as_messages(dialog, parent, asked, how)
        answer_id = MessageId(new_id())
        turn = {TURN: str(messages[0].id if messages else answer_id)} if self.at_end else {}
        aside = {ASIDE: True} if self.aside else {}
        answer = Message(
            id=answer_id,
            tenant_id=dialog.tenant_id,
            dialog_id=dialog.id,
            parent_id=messages[-1].id if messages else parent,
            role=MessageRole.ASSISTANT,
            content="",
            status=MessageStatus.IN_PROGRESS,
            created_at=how.at,
            request_id=how.request_id,
            settings={**how.settings, INPUTS: len(messages), **turn, **aside},
        )
        new = dialog if self.dialog is None else None
        return Storing(asked=messages, answer=answer, dialog=new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The circumstances of a request: when, by which name of a model, and what is to be told of it again."""

    at: datetime
    request_id: str
    model: str | None
    settings: Mapping[str, Any]


async def place_of(
    principal: Principal, answer_id: MessageId | None, dialog_id: DialogId | None, ports: DialogPorts
) -> Place:
    """Below an answer, at the end of a dialog, or at the start of a new one.

    Raises NotFound for what is unknown or another user's, InvalidRequest for an answer that is still being given.
    """
    if answer_id is None and dialog_id is None:
        return Place()
    async with ports.open_reading(principal.tenant_id) as uow:
        if answer_id is None:
            assert dialog_id is not None  # noqa: S101
            dialog = await own_dialog(uow, principal, dialog_id)
            leaf = dialog.head_id
        else:
            answer = await own_answer(uow, principal, answer_id)
            dialog, leaf = await own_dialog(uow, principal, answer.dialog_id), answer.id
        path = [] if leaf is None else await uow.dialogs.path(dialog.id, leaf, limit=MAX_HISTORY)
    if path and path[-1].status is MessageStatus.IN_PROGRESS:
        raise InvalidRequest("The answer that this one is to follow is still being given.")
    aside = answer_id is not None and _is_of_conversation(path[-1])
    return Place(dialog=dialog, path=path, at_end=answer_id is None, aside=aside)


def _is_of_conversation(answer: Message) -> bool:
    """Whether it was asked for in a conversation, or beside one."""
    return turn_in(answer.settings) is not None or bool((answer.settings or {}).get(ASIDE))


async def own_answer(uow: UnitOfWork, principal: Principal, answer_id: MessageId) -> Message:
    """Raises NotFound for what is unknown, another user's, or was deleted."""
    answer = await uow.dialogs.said(answer_id, principal.user_id)
    if answer is None or answer.role is not MessageRole.ASSISTANT or _is_forgotten(answer):
        raise NotFound("No such response.")
    return answer


def _is_forgotten(message: Message) -> bool:
    return bool((message.settings or {}).get(FORGOTTEN))


async def said_before(principal: Principal, ids: Iterable[MessageId], ports: DialogPorts) -> list[Message]:
    """Messages of the user's own dialogs; those that are unknown, another's or deleted are left out."""
    async with ports.open_reading(principal.tenant_id) as uow:
        found = [await uow.dialogs.said(each, principal.user_id) for each in ids]
    return [each for each in found if each is not None and not _is_forgotten(each)]


async def get_answer(principal: Principal, answer_id: MessageId, ports: DialogPorts) -> Message:
    """An answer of one of the user's own dialogs. Raises NotFound."""
    async with ports.open_reading(principal.tenant_id) as uow:
        return await own_answer(uow, principal, answer_id)


async def inputs_of(principal: Principal, answer_id: MessageId, ports: DialogPorts) -> list[Message]:
    """The messages that were asked with an answer, oldest first. Raises NotFound."""
    async with ports.open_reading(principal.tenant_id) as uow:
        return (await _with_inputs(uow, await own_answer(uow, principal, answer_id)))[:-1]


async def forget_answer(principal: Principal, answer_id: MessageId, ports: DialogPorts) -> None:
    """Delete an answer with what was asked for it, and its dialog where nothing else is in it.

    Where later answers build upon it, it is context of theirs and stays, but cannot be asked for any more. Raises
    NotFound, and InvalidRequest while it is still being given.
    """
    async with ports.open_uow(principal.tenant_id) as uow:
        await _kept_still(uow, principal, (await own_answer(uow, principal, answer_id)).dialog_id)
        answer = await own_answer(uow, principal, answer_id)
        if answer.status is MessageStatus.IN_PROGRESS:
            raise InvalidRequest("The response is still being given: cancel it first.")
        if await uow.dialogs.has_children(answer):
            await uow.dialogs.change(replace(answer, settings={**(answer.settings or {}), FORGOTTEN: True}))
        else:
            await _remove(uow, answer)
            await _delete_if_empty(uow, principal, answer)
        await uow.commit()


async def conversation(principal: Principal, dialog_id: DialogId, ports: DialogPorts) -> tuple[Dialog, list[Message]]:
    """A dialog and what was said on its current branch, oldest first. Raises NotFound."""
    async with ports.open_reading(principal.tenant_id) as uow:
        dialog = await own_dialog(uow, principal, dialog_id)
        if dialog.head_id is None:
            return dialog, []
        return dialog, await uow.dialogs.path(dialog.id, dialog.head_id, limit=MAX_HISTORY)


async def add_to_conversation(
    principal: Principal, dialog_id: DialogId, said: Sequence[ChatMessage], how: Asked, ports: DialogPorts
) -> list[Message]:
    """Put messages at the end of a dialog; nothing is answered. Raises NotFound."""
    async with ports.open_uow(principal.tenant_id) as uow:
        dialog = await _kept_still(uow, principal, dialog_id)
        messages = as_messages(dialog, dialog.head_id, said, how)
        await uow.dialogs.append(dialog, messages)
        await uow.commit()
    return messages


async def change_conversation(
    principal: Principal,
    dialog_id: DialogId,
    message_id: MessageId,
    change: Callable[[Message], Message],
    ports: DialogPorts,
) -> Dialog:
    """Make something else of a message of the current branch, as it stands when nobody else can change it.

    Raises NotFound, and whatever the change raises.
    """
    async with ports.open_uow(principal.tenant_id) as uow:
        dialog = await _kept_still(uow, principal, dialog_id)
        path = [] if dialog.head_id is None else await uow.dialogs.path(dialog.id, dialog.head_id, limit=MAX_HISTORY)
        message = next((each for each in path if each.id == message_id), None)
        if message is None or message.status is MessageStatus.IN_PROGRESS:
            raise NotFound("No such item.")
        await uow.dialogs.change(change(message))
        await uow.commit()
    return dialog


def as_messages(dialog: Dialog, parent_id: MessageId | None, said: Sequence[ChatMessage], how: Asked) -> list[Message]:
    """What somebody said, as messages one below the other."""
    messages: list[Message] = []
    for each in said:
        message = Message(
            id=MessageId(new_id()),
            tenant_id=dialog.tenant_id,
            dialog_id=dialog.id,
            parent_id=messages[-1].id if messages else parent_id,
            role=MessageRole(each.role.value),
            content=each.text,
            parts=stored_parts(each.all_parts),
            status=MessageStatus.COMPLETED,
            created_at=how.at,
            completed_at=how.at,
            request_id=how.request_id,
            settings={DEVELOPERS: True} if each.by_developer else None,
        )
        messages.append(message)
    return messages


def _new_dialog(principal: Principal, how: Asked) -> Dialog:
    return Dialog(
        id=DialogId(new_id()),
        tenant_id=principal.tenant_id,
        user_id=principal.user_id,
        created_at=how.at,
        updated_at=how.at,
        model=how.model,
    )


async def _kept_still(uow: UnitOfWork, principal: Principal, dialog_id: DialogId) -> Dialog:
    """The user's own dialog, whose end stays where it is until the unit of work is over. Raises NotFound."""
    dialog = await uow.dialogs.dialog(dialog_id, principal.user_id, still=True)
    if dialog is None:
        raise NotFound("No such dialog.")
    return dialog


async def _remove(uow: UnitOfWork, answer: Message) -> None:
    """Take an answer that nothing builds upon out of its dialog, with what was asked for it.

    With it go the answers above that were forgotten before, and stayed for its sake.
    """
    while True:
        messages = await _with_inputs(uow, answer)
        for message in reversed(messages):
            if message is messages[-1] or not await uow.dialogs.has_children(message):
                await uow.dialogs.remove(message)
        above = messages[0].parent_id
        found = None if above is None else await uow.dialogs.message(answer.dialog_id, above)
        if found is None or not (found.settings or {}).get(FORGOTTEN) or await uow.dialogs.has_children(found):
            return
        answer = found


async def _with_inputs(uow: UnitOfWork, answer: Message) -> list[Message]:
    """The answer and what was asked with it, oldest first; of an answer of another door, its question."""
    count = (answer.settings or {}).get(INPUTS, 1)
    return await uow.dialogs.path(answer.dialog_id, answer.id, limit=count + 1)


async def _delete_if_empty(uow: UnitOfWork, principal: Principal, answer: Message) -> None:
    """The dialog goes too, where the answer was the only reason for it."""
    if (answer.settings or {}).get("response", {}).get("conversation"):
        return
    dialog = await own_dialog(uow, principal, answer.dialog_id)
    left = await uow.dialogs.messages(dialog.id, PageRequest(limit=1))
    if not left.rows and not dialog.metadata and dialog.title is None:
        await uow.dialogs.delete(dialog.id, principal.user_id)
