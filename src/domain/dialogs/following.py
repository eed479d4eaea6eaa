"""Listening to an answer: from any position, on any replica, while it is generated and afterwards; and stopping it.

A position is a number of characters of the answer: it means the same wherever the answer is read from.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from src.domain.completion.answering import Answering
from src.domain.completion.deltas import RefusalDelta, TextDelta
from src.domain.completion.use_cases import CompletionPorts
from src.domain.dialogs.model import DROPPED, DialogId, Message, MessageId, MessageRole, MessageStatus
from src.domain.dialogs.use_cases import DialogPorts, get_message, own_dialog
from src.domain.identity.model import Principal
from src.shared.errors import NotFound, Unavailable

POLL_S = 0.5
"""How often an answer that another replica generates is read; that replica notes it every few seconds."""

CANCEL_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Some more of an answer, and the position after it."""

    text: str
    position: int


async def find_answer(
    principal: Principal, dialog_id: DialogId, message_id: MessageId, dialogs: DialogPorts
) -> Message:
    """An answer of the user's own dialog. Raises NotFound, for questions too."""
    message = await get_message(principal, dialog_id, message_id, dialogs)
    if message.role is not MessageRole.ASSISTANT:
        raise NotFound("No such answer: this message is a question.")
    return message


def before_its_first_word(answer: Message) -> Message:
    """The answer as it was when it began."""
    return replace(
        answer,
        content="",
        parts=(),
        status=MessageStatus.IN_PROGRESS,
        finish_reason=None,
        model=None,
        usage=None,
        cost_micro_usd=type(answer.cost_micro_usd)(0),
        cached=False,
        error=None,
        completed_at=None,
        settings={name: value for name, value in (answer.settings or {}).items() if name != DROPPED} or None,
    )


async def follow(
    principal: Principal, answer: Message, position: int, dialogs: DialogPorts, completions: CompletionPorts
) -> AsyncGenerator[Piece | Message]:
    """The answer's text from a position on, as it comes, and last the answer as it was stored.

    Raises NotFound when its dialog is deleted meanwhile, Unavailable when it does not end.
    """
    answering = completions.running.find(answer.id)
    if answering is not None:
        async with aclosing(_live(answering, position)) as pieces:
            async for piece in pieces:
                position = piece.position
                yield piece
    async with aclosing(growing(principal, answer, dialogs, completions)) as found:
        async for message in found:
            if len(message.content) > position:
                yield Piece(message.content[position:], len(message.content))
                position = len(message.content)
            if message.status is not MessageStatus.IN_PROGRESS:
                yield message


async def growing(
    principal: Principal, answer: Message, dialogs: DialogPorts, completions: CompletionPorts
) -> AsyncGenerator[Message]:
    """The answer as it is stored, again and again while another replica gives it, and last as it ended.

    Raises what `follow` does.
    """
    answering = completions.running.find(answer.id)
    if answering is not None:
        await answering.outcome()
    deadline_s = asyncio.get_running_loop().time() + _patience_s(completions)
    while True:
        found = await get_message(principal, answer.dialog_id, answer.id, dialogs)
        yield found
        if found.status is not MessageStatus.IN_PROGRESS:
            return
        if asyncio.get_running_loop().time() > deadline_s:
            raise Unavailable("The answer did not end in time; ask for it again later.")
        await asyncio.sleep(POLL_S)


async def _live(answering: Answering, position: int) -> AsyncGenerator[Piece]:
    reached = 0
    async with aclosing(answering.deltas()) as deltas:
        async for delta in deltas:
            if isinstance(delta, TextDelta | RefusalDelta):
                start, reached = reached, reached + len(delta.text)
                if reached > position:
                    yield Piece(delta.text[max(0, position - start) :], reached)


async def cancel_answer(
    principal: Principal,
    dialog_id: DialogId,
    message_id: MessageId,
    dialogs: DialogPorts,
    completions: CompletionPorts,
) -> Message:
    """Stop an answer; what was generated is kept and charged. One that has ended stays as it is.

    Returns it as it is stored then: still in progress only where the replica that generates it did not hear of it
    within some seconds. Raises NotFound.
    """
    answer = await find_answer(principal, dialog_id, message_id, dialogs)
    if answer.status is not MessageStatus.IN_PROGRESS:
        return answer
    answering = completions.running.find(answer.id)
    if answering is not None:
        answering.cancel()
        await answering.outcome()
        return await get_message(principal, dialog_id, message_id, dialogs)
    async with dialogs.open_uow(principal.tenant_id) as uow:
        await own_dialog(uow, principal, dialog_id)
        await uow.dialogs.request_cancel(dialog_id, message_id)
        await uow.commit()
    deadline_s = asyncio.get_running_loop().time() + CANCEL_PATIENCE_S
    while asyncio.get_running_loop().time() < deadline_s:
        answer = await get_message(principal, dialog_id, message_id, dialogs)
        if answer.status is not MessageStatus.IN_PROGRESS:
            break
        await asyncio.sleep(POLL_S)
    return answer


def _patience_s(completions: CompletionPorts) -> float:
    """Longer than any call can go on, and than a crashed one is waited for."""
    answers = completions.answers
    return answers.total_timeout_s + 2 * answers.holding.lease_s
