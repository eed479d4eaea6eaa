"""Dialogs, messages and the context that a model is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType
from uuid import UUID

from src.domain.catalog.model import Usage
from src.domain.identity.model import TenantId, UserId
from src.domain.ledger.model import Record
from src.shared.ids import new_id
from src.shared.money import MicroDollars

DialogId = NewType("DialogId", UUID)
MessageId = NewType("MessageId", UUID)


DROPPED = "dropped"
"""The setting of an answer that names what its model was not told."""
REMOVED = "removed"
"""The type of what stands among a message's parts where something was taken out: others keep their places."""
TURN = "turn"
"""The setting of an answer that names the first message of its turn, where the whole turn is to follow whatever is the
end of its dialog when the answer has ended."""
ASIDE = "aside"
"""The setting of an answer that is no part of the conversation whose answer it follows, and never the dialog's head."""
DEVELOPERS = "developers"
"""The setting of a system message that its client calls a developer's."""


class DialogKind(StrEnum):
    """`chat` gathers a user's one-shot questions (POST /chat); they are roots without history."""

    DIALOG = "dialog"
    CHAT = "chat"


class MessageRole(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class MessageStatus(StrEnum):
    """How far a message is. Questions are born completed."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialog:
    """A conversation. `head_id` is the newest answer: the next question hangs below it unless it says otherwise."""

    id: DialogId
    tenant_id: TenantId
    user_id: UserId
    created_at: datetime
    updated_at: datetime
    kind: DialogKind = DialogKind.DIALOG
    title: str | None = None
    model: str | None = None
    agent: str | None = None
    system_prompt: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    head_id: MessageId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A question or an answer. An answer knows the model that really gave it, what it used and what that cost.

    `settings` is what doors tell again with it: how an answer was asked for, what its model was not told of that, and
    other things that change nothing of what is said.
    """

    id: MessageId
    tenant_id: TenantId
    dialog_id: DialogId
    parent_id: MessageId | None
    role: MessageRole
    content: str
    status: MessageStatus
    created_at: datetime
    parts: Sequence[Mapping[str, Any]] = ()
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage | None = None
    cost_micro_usd: MicroDollars = MicroDollars(0)
    cached: bool = False
    error: Mapping[str, Any] | None = None
    request_id: str | None = None
    completed_at: datetime | None = None
    settings: Mapping[str, Any] | None = None

    @property
    def has_results(self) -> bool:
        """Whether it holds what tools gave back."""
        return any(part["type"] == "tool_result" for part in self.parts)

    @property
    def all_parts(self) -> Sequence[Mapping[str, Any]]:
        """The typed parts; plain text is one text part."""
        if not self.parts:
            return ({"type": "text", "text": self.content},)
        return tuple(part for part in self.parts if part["type"] != REMOVED)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Names of what its model was not told."""
        return tuple((self.settings or {}).get(DROPPED, ()))


def turn_in(settings: Mapping[str, Any] | None) -> MessageId | None:
    """The first message of an answer's turn, where that is to follow the end of its dialog."""
    named = (settings or {}).get(TURN)
    return None if named is None else MessageId(UUID(named))


def new_question(dialog: Dialog, parent_id: MessageId | None, content: str, request_id: str, now: datetime) -> Message:
    """A question below a parent (None: at the root)."""
    return Message(
        id=MessageId(new_id()),
        tenant_id=dialog.tenant_id,
        dialog_id=dialog.id,
        parent_id=parent_id,
        role=MessageRole.USER,
        content=content,
        status=MessageStatus.COMPLETED,
        created_at=now,
        completed_at=now,
        request_id=request_id,
    )


def unanswered(question: Message) -> Message:
    """The answer to a question, before its first word."""
    return Message(
        id=MessageId(new_id()),
        tenant_id=question.tenant_id,
        dialog_id=question.dialog_id,
        parent_id=question.id,
        role=MessageRole.ASSISTANT,
        content="",
        status=MessageStatus.IN_PROGRESS,
        created_at=question.created_at,
        request_id=question.request_id,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogAdded(Record):
    """A dialog that begins with the call it is recorded with."""

    dialog: Dialog


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesAdded(Record):
    """New messages of a dialog, parents first."""

    messages: Sequence[Message]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerNoted(Record):
    """As much of an answer in progress as there is. `parts`: see Message."""

    tenant_id: TenantId
    message_id: MessageId
    content: str
    parts: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerEnded(Record):
    """An answer that was in progress has ended; where it can be built upon it becomes the dialog's head.

    Where its whole turn is to follow what is the dialog's end by now (TURN), it does.
    """

    answer: Message

    @property
    def becomes_head(self) -> bool:
        return self.answer.status is not MessageStatus.FAILED and not (self.answer.settings or {}).get(ASIDE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A question of a user with its answer."""

    question: Message
    answer: Message
    user_external_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is sent to the model: the history that fits, oldest first, and how many whole turns were left out."""

    messages: tuple[Message, ...]
    omitted_turns: int


def turns_of(path: Sequence[Message]) -> list[list[Message]]:
    """The path cut before each question: a turn is a question with everything that follows until the next one.

    Results of tools are no questions: they stay with their calls.
    """
    turns: list[list[Message]] = []
    for message in path:
        if (message.role is MessageRole.USER and not message.has_results) or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def fitted(path: Sequence[Message], tokens_of: Mapping[MessageId, int], budget_tokens: int) -> Context:
    """The newest turns whose tokens fit the budget. Turns are kept or dropped whole; the gap is always at the start."""
    kept: list[list[Message]] = []
    turns = turns_of(path)
    for turn in reversed(turns):
        budget_tokens -= sum(tokens_of[message.id] for message in turn)
        if budget_tokens < 0:
            break
        kept.append(turn)
    return Context(
        messages=tuple(message for turn in reversed(kept) for message in turn),
        omitted_turns=len(turns) - len(kept),
    )
