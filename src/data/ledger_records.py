"""The records that commit with ledger operations, as rows: messages, ended answers, usage."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import date
from typing import Any
from uuid import UUID

from src.data.bulk import Insert, Part, Update
from src.data.claims import ClaimRows
from src.data.ledger_tables import NO_KEY, usage_days, usage_records
from src.data.repositories.base import row_of
from src.data.tables import dialogs, messages
from src.data.turns import Turns
from src.data.types import storable
from src.domain.completion.idempotency import Claim, ClaimFreed, Kept
from src.domain.dialogs.model import (
    AnswerEnded,
    AnswerNoted,
    Dialog,
    DialogAdded,
    Message,
    MessagesAdded,
    MessageStatus,
)
from src.domain.ledger.model import Closing, HoldId, Record, UsageRecord

IN_PROGRESS = "messages.status = 'in_progress'"
LOST = "The gateway stopped before this answer was finished. Nothing was charged."
CHARGED = "The gateway stopped before this answer was finished. What was delivered was charged."

_NEW_MESSAGE = ("id", "tenant_id", "dialog_id", "parent_id", "role", "request_id", "created_at", "hold_id", "settings")
_OUTCOME = (
    "content",
    "parts",
    "status",
    "finish_reason",
    "model",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "estimated",
    "cost_micro_usd",
    "cached",
    "error",
    "completed_at",
)
_CUT_OFF = (
    "status",
    "error",
    "model",
    "input_tokens",
    "output_tokens",
    "estimated",
    "cost_micro_usd",
    "completed_at",
)
_USAGE = (
    "id",
    "tenant_id",
    "user_id",
    "api_key_id",
    "hold_id",
    "request_id",
    "endpoint",
    "requested_model",
    "model",
    "provider",
    "status",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "estimated",
    "cost_micro_usd",
    "attempts",
    "created_at",
    "duration_ms",
    "dialog_id",
    "message_id",
    "flags",
)
_REPLACE_USAGE = "(id) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in _USAGE[1:])
_DAY_KEY = ("tenant_id", "user_id", "day", "model", "api_key_id")
_DAY_SUMS = ("calls", "input_tokens", "output_tokens", "cost_micro_usd")
_ADD_UP = f"({', '.join(_DAY_KEY)}) DO UPDATE SET " + ", ".join(
    f"{name} = usage_days.{name} + excluded.{name}" for name in _DAY_SUMS
)

_DIALOGS = Insert(dialogs, tuple(field.name for field in fields(Dialog)))
_MESSAGES = Insert(messages, _NEW_MESSAGE + _OUTCOME)
_USAGE_RECORDS = Insert(usage_records, _USAGE, _REPLACE_USAGE)
_USAGE_DAYS = Insert(usage_days, _DAY_KEY + _DAY_SUMS, _ADD_UP)
_HEADS = Update(dialogs, ("tenant_id", "id"), ("head_id", "updated_at"))
_ANSWERS = Update(messages, ("tenant_id", "id"), _OUTCOME)
_TOLD = Update(messages, ("tenant_id", "id"), ("settings",))
_NOTED = Update(messages, ("tenant_id", "id"), ("content", "parts"), IN_PROGRESS)
_UNFINISHED = Update(messages, ("tenant_id", "hold_id"), _CUT_OFF, IN_PROGRESS)

DayKey = tuple[UUID, UUID, date, str, UUID]


class RecordRows:
    """Rows gathered from the records of a batch, to be written all together."""

    def __init__(self) -> None:
        self.claims = ClaimRows()
        self._dialogs: list[tuple[Any, ...]] = []
        self._messages: list[tuple[Any, ...]] = []
        self._answers: dict[UUID, tuple[Any, ...]] = {}
        self._told: dict[UUID, tuple[Any, ...]] = {}
        self._usage: dict[UUID, tuple[Any, ...]] = {}
        self._days: dict[DayKey, list[int]] = {}
        self._noted: dict[UUID, tuple[Any, ...]] = {}
        self._unfinished: dict[UUID, tuple[Any, ...]] = {}
        self.turns = Turns()

    def add(
        self,
        records: Sequence[Record],
        hold_id: HoldId | None = None,
        *,
        is_late: bool = False,
        counted: UsageRecord | None = None,
    ) -> None:
        """Records of one operation; an answer in progress remembers its hold.

        `is_late`: the call came back after its hold had expired; `counted` is what was counted as its usage then.
        """
        for record in records:
            match record:
                case UsageRecord():
                    self._add_usage(record, counted)
                case DialogAdded(dialog=dialog):
                    self._dialogs.append(tuple(row_of(dialog).values()))
                case MessagesAdded():
                    self._messages.extend(_message_row(message, hold_id) for message in record.messages)
                case AnswerEnded():
                    self._end_answer(record, is_late=is_late, is_placed=counted is not None)
                case AnswerNoted():
                    said = (storable(record.content), list(record.parts) or None)
                    self._noted[record.message_id] = (*said, record.tenant_id, record.message_id)
                case Kept() | ClaimFreed():
                    self.claims.add(record)
                case Claim():
                    pass  # taken before anything else was done
                case _:
                    raise TypeError(f"no table for {type(record).__name__}")

    def end_noted(self, closing: Closing, noted: UsageRecord | None) -> None:
        """End whatever the closed hold's call left in progress: interrupted where something was noted, else failed."""
        if noted is None:
            outcome: tuple[Any, ...] = (MessageStatus.FAILED, _lost(LOST), None, None, None, False, 0)
        else:
            self._add_usage(noted, None)
            self.turns.give_up(closing.hold, closing.at)
            usage = noted.usage
            told = _lost(CHARGED)
            counts = (usage.input_tokens, usage.output_tokens, usage.estimated, noted.cost_micro_usd)
            outcome = (MessageStatus.INTERRUPTED, told, noted.model, *counts)
        row = (*outcome, closing.at, closing.hold.tenant_id, closing.hold.id)
        self._unfinished.setdefault(closing.hold.id, row)

    def parts(self) -> list[Part]:
        """Everything, in one order of tables and keys, so that two replicas never wait for each other in turn."""
        return [
            (_DIALOGS, self._dialogs),
            (_MESSAGES, self._messages),
            (_USAGE_RECORDS, list(self._usage.values())),
            (_USAGE_DAYS, [(*key, *sums) for key, sums in sorted(self._days.items())]),
            (_HEADS, sorted(self.turns.heads(), key=_by_key)),
            (_ANSWERS, sorted(self._answers.values(), key=_by_key)),
            (_TOLD, sorted(self._told.values(), key=_by_key)),
            (_NOTED, sorted(self._noted.values(), key=_by_key)),
            (_UNFINISHED, sorted(self._unfinished.values(), key=_by_key)),
            self.claims.kept(),
        ]

    def _end_answer(self, record: AnswerEnded, *, is_late: bool, is_placed: bool) -> None:
        answer = record.answer
        if not is_placed:
            self.turns.end(record, given_up=is_late)
        self._answers[answer.id] = (*_outcome_of(answer), answer.tenant_id, answer.id)
        if answer.dropped:  # the settings are written as it begins, and change for nothing else
            self._told[answer.id] = (dict(answer.settings or {}), answer.tenant_id, answer.id)

    def _add_usage(self, record: UsageRecord, counted: UsageRecord | None) -> None:
        """A row, and its part of the day. What was counted already is taken back: a call has one row."""
        self._usage[record.id] = _usage_row(record)
        self._add_to_day(record, 1)
        if counted is not None:
            self._add_to_day(counted, -1)

    def _add_to_day(self, record: UsageRecord, sign: int) -> None:
        key = (
            record.tenant_id,
            record.user_id,
            record.created_at.date(),
            record.model or record.requested_model,
            record.api_key_id or NO_KEY,
        )
        sums = self._days.setdefault(key, [0, 0, 0, 0])
        usage = record.usage
        for index, amount in enumerate((1, usage.input_tokens, usage.output_tokens, record.cost_micro_usd)):
            sums[index] += sign * amount


def _lost(message: str) -> dict[str, str]:
    return {"code": "interrupted", "message": message}


def _by_key(row: Sequence[Any]) -> tuple[UUID, UUID]:
    """The two keys, which an update's rows end with."""
    return row[-2], row[-1]


def _message_row(message: Message, hold_id: HoldId | None) -> tuple[Any, ...]:
    return (
        message.id,
        message.tenant_id,
        message.dialog_id,
        message.parent_id,
        message.role,
        message.request_id,
        message.created_at,
        hold_id if message.status is MessageStatus.IN_PROGRESS else None,
        None if message.settings is None else dict(message.settings),
        *_outcome_of(message),
    )


def _outcome_of(message: Message) -> tuple[Any, ...]:
    usage = message.usage
    return (
        storable(message.content),
        list(message.parts) or None,
        message.status,
        message.finish_reason,
        message.model,
        usage.input_tokens if usage else None,
        usage.output_tokens if usage else None,
        usage.cache_read_tokens if usage else None,
        usage.cache_write_tokens if usage else None,
        usage.estimated if usage else False,
        message.cost_micro_usd,
        message.cached,
        None if message.error is None else dict(message.error),
        message.completed_at,
    )


def _usage_row(record: UsageRecord) -> tuple[Any, ...]:
    usage = record.usage
    return (
        record.id,
        record.tenant_id,
        record.user_id,
        record.api_key_id,
        record.hold_id,
        record.request_id,
        record.endpoint,
        record.requested_model,
        record.model,
        record.provider,
        record.status,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.estimated,
        record.cost_micro_usd,
        list(record.attempts),
        record.created_at,
        record.duration_ms,
        record.dialog_id,
        record.message_id,
        list(record.flags),
    )
