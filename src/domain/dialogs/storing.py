"""Where an answer is kept while it is given and afterwards, whichever door it was asked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from src.domain.completion.content import Part, Text, part_body, part_from
from src.domain.completion.model import CacheUse, ChatMessage, ChatRole, Outcome
from src.domain.dialogs.model import (
    DEVELOPERS,
    DROPPED,
    AnswerEnded,
    AnswerNoted,
    Dialog,
    DialogAdded,
    Message,
    MessagesAdded,
    MessageStatus,
)
from src.domain.ledger.model import CallStatus, Record

_ENDED_AS = {
    CallStatus.COMPLETED: MessageStatus.COMPLETED,
    CallStatus.CANCELLED: MessageStatus.CANCELLED,
    CallStatus.INTERRUPTED: MessageStatus.INTERRUPTED,
    CallStatus.FAILED: MessageStatus.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Storing:
    """The messages of one call: what was asked, parents first, and the answer to come. `dialog`: where it is new."""

    asked: Sequence[Message]
    answer: Message
    dialog: Dialog | None = None

    def opening(self) -> tuple[Record, ...]:
        """What commits with the hold."""
        added = MessagesAdded(messages=(*self.asked, self.answer))
        return (added,) if self.dialog is None else (DialogAdded(dialog=self.dialog), added)

    def noting(self, outcome: Outcome) -> tuple[Record, ...]:
        """What commits with each note of progress."""
        answer = self.answer
        parts = stored_parts(outcome.parts)
        return (AnswerNoted(tenant_id=answer.tenant_id, message_id=answer.id, content=outcome.text, parts=parts),)

    def closing(self, outcome: Outcome) -> tuple[Record, ...]:
        """What commits with the settlement."""
        return (AnswerEnded(answer=self.ended(outcome)),)

    def ended(self, outcome: Outcome) -> Message:
        """The answer with everything its call brought."""
        error = outcome.error
        return replace(
            self.answer,
            content=outcome.text,
            parts=stored_parts(outcome.parts),
            status=_ENDED_AS[outcome.status],
            finish_reason=outcome.finish_reason.value,
            model=outcome.model.name if outcome.model else None,
            usage=outcome.usage,
            cost_micro_usd=outcome.cost_micro_usd,
            cached=outcome.cache not in (None, CacheUse.MISS),
            error={"code": error.specific_code, "message": error.message} if error else None,
            completed_at=outcome.ended_at,
            settings=self._settings(outcome),
        )

    def _settings(self, outcome: Outcome) -> Mapping[str, Any] | None:
        asked = self.answer.settings
        return asked if not outcome.dropped else {**(asked or {}), DROPPED: list(outcome.dropped)}


def stored_parts(parts: Sequence[Part]) -> tuple[Mapping[str, Any], ...]:
    """The parts of a message as they are stored: none where it is one plain text."""
    if len(parts) < 2 and all(isinstance(part, Text) and part.particulars is None for part in parts):
        return ()
    return tuple(map(part_body, parts))


def chat_message(message: Message) -> ChatMessage:
    """A stored message as a model is told it."""
    parts = tuple(map(part_from, message.all_parts)) if message.parts else ()
    by_developer = bool((message.settings or {}).get(DEVELOPERS))
    return ChatMessage(role=ChatRole(message.role.value), text=message.content, parts=parts, by_developer=by_developer)


def call_status(status: MessageStatus) -> CallStatus:
    """How the call of an answer ended."""
    return next(call for call, message in _ENDED_AS.items() if message is status)


def instructions_of(answer: Message) -> str | None:
    """The instructions that an answer was asked for with, at a door that keeps them with it."""
    found = (answer.settings or {}).get("response", {}).get("instructions")
    return found if isinstance(found, str) else None
