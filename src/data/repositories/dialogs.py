"""Dialogs and messages of one tenant."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, delete, exists, func, insert, literal, or_, select, update

from src.data.ledger_tables import holds
from src.data.repositories.base import TenantRepository, row_of, values_of
from src.data.tables import dialogs, messages, users
from src.domain.catalog.model import Usage
from src.domain.dialogs.model import Dialog, DialogId, DialogKind, Exchange, Message, MessageId, MessageRole
from src.domain.identity.model import UserId
from src.domain.ledger.model import HoldState
from src.shared.errors import NotFound
from src.shared.pages import Page, PageRequest

_USAGE = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_SETTINGS = ("title", "model", "agent", "system_prompt", "params", "metadata", "updated_at")


def dialog_from(row: Row[Any]) -> Dialog:
    """A row of `dialogs`."""
    return Dialog(**values_of(row))


def message_from(values: dict[str, Any]) -> Message:
    """The columns of a row of `messages`."""
    counts = {name: values.pop(name) for name in _USAGE}
    estimated = values.pop("estimated")
    del values["hold_id"]
    usage = None if counts["input_tokens"] is None else Usage(**counts, estimated=estimated)
    return Message(**{**values, "parts": tuple(values["parts"] or ()), "usage": usage})


class SqlDialogRepository(TenantRepository):
    """Dialogs in SQL."""

    async def add(self, dialog: Dialog) -> None:
        """Raises Conflict for a second dialog of kind `chat`, NotFound for an unknown user."""
        self._require_own(dialog.tenant_id)
        await self._write(insert(dialogs).values(**row_of(dialog)))

    async def dialog(self, dialog_id: DialogId, user_id: UserId, *, still: bool = False) -> Dialog | None:
        statement = self._dialogs(user_id).where(dialogs.c.id == dialog_id)
        return await self._first(statement.with_for_update(key_share=True) if still else statement, dialog_from)

    async def chat_dialog(self, user_id: UserId) -> Dialog | None:
        return await self._first(self._dialogs(user_id).where(dialogs.c.kind == DialogKind.CHAT), dialog_from)

    async def dialogs(self, user_id: UserId, page: PageRequest, *, search: str | None) -> Page[Dialog]:
        statement = self._dialogs(user_id).where(dialogs.c.kind != DialogKind.CHAT)
        if search:
            statement = statement.where(self._matches(search))
        return await self._page(statement, dialogs.c.id, page, dialog_from, newest_first=True)

    async def update(self, dialog: Dialog) -> None:
        """Raises NotFound where the dialog is not (any more)."""
        values = {name: getattr(dialog, name) for name in _SETTINGS}
        statement = update(dialogs).where(*self._mine(dialog.id, dialog.user_id)).values(**values)
        if not (await self._write(statement)).rowcount:
            raise NotFound("No such dialog.")

    async def delete(self, dialog_id: DialogId, user_id: UserId) -> bool:
        done = await self._connection.execute(delete(dialogs).where(*self._mine(dialog_id, user_id)))
        return done.rowcount > 0

    async def message(self, dialog_id: DialogId, message_id: MessageId) -> Message | None:
        statement = self._messages(dialog_id).where(messages.c.id == message_id)
        return await self._first(statement, _message_of_row)

    async def said(self, message_id: MessageId, user_id: UserId) -> Message | None:
        theirs = self._dialogs(user_id).with_only_columns(dialogs.c.id)
        statement = select(messages).where(
            messages.c.tenant_id == self._tenant_id,
            messages.c.id == message_id,
            messages.c.dialog_id.in_(theirs),
        )
        return await self._first(statement, _message_of_row)

    async def append(self, dialog: Dialog, added: Sequence[Message]) -> None:
        """Raises NotFound where the dialog is not (any more)."""
        if not added:
            return
        await self._write(insert(messages).values([_message_row(each) for each in added]))
        moved = update(dialogs).where(*self._mine(dialog.id, dialog.user_id))
        await self._write(moved.values(head_id=added[-1].id, updated_at=added[-1].created_at))

    async def change(self, message: Message) -> None:
        values = {"content": message.content, "parts": list(message.parts) or None, "settings": message.settings}
        await self._write(update(messages).where(*self._this(message)).values(**values))

    async def remove(self, message: Message) -> None:
        here = (messages.c.tenant_id == self._tenant_id, messages.c.dialog_id == message.dialog_id)
        below = update(messages).where(*here, messages.c.parent_id == message.id)
        await self._write(below.values(parent_id=message.parent_id))
        its_head = update(dialogs).where(dialogs.c.tenant_id == self._tenant_id, dialogs.c.head_id == message.id)
        await self._write(its_head.values(head_id=message.parent_id))
        await self._write(delete(messages).where(*self._this(message)))

    async def has_children(self, message: Message) -> bool:
        below = self._messages(message.dialog_id).where(messages.c.parent_id == message.id).limit(1)
        return (await self._connection.execute(below)).first() is not None

    async def request_cancel(self, dialog_id: DialogId, message_id: MessageId) -> None:
        its_hold = self._messages(dialog_id).with_only_columns(messages.c.hold_id).where(messages.c.id == message_id)
        mine = (holds.c.tenant_id == self._tenant_id, holds.c.id.in_(its_hold), holds.c.state == HoldState.OPEN)
        await self._connection.execute(update(holds).where(*mine).values(cancel_requested=True))

    async def messages(self, dialog_id: DialogId, page: PageRequest) -> Page[Message]:
        return await self._page(self._messages(dialog_id), messages.c.id, page, _message_of_row)

    async def path(self, dialog_id: DialogId, leaf_id: MessageId, *, limit: int) -> list[Message]:
        here = and_(messages.c.tenant_id == self._tenant_id, messages.c.dialog_id == dialog_id)
        up = (
            select(messages.c.id, messages.c.parent_id, literal(1).label("height"))
            .where(here, messages.c.id == leaf_id)
            .cte("up", recursive=True)
        )
        above = (
            select(messages.c.id, messages.c.parent_id, (up.c.height + 1).label("height"))
            .join(up, messages.c.id == up.c.parent_id)
            .where(here, up.c.height < limit)
        )
        up = up.union_all(above)
        statement = select(messages).join(up, messages.c.id == up.c.id).order_by(up.c.height.desc())
        return [_message_of_row(row) for row in await self._connection.execute(statement)]

    async def exchanges(self, user_id: UserId, *, limit: int) -> list[Exchange]:
        answer = messages.alias("answer")
        statement: Select[Any] = (
            select(
                *(column.label(f"question__{column.name}") for column in messages.c),
                *(column.label(f"answer__{column.name}") for column in answer.c),
                users.c.external_id,
            )
            .join(dialogs, dialogs.c.id == messages.c.dialog_id)
            .join(users, users.c.id == dialogs.c.user_id)
            .join(answer, answer.c.parent_id == messages.c.id)
            .where(
                dialogs.c.tenant_id == self._tenant_id,
                dialogs.c.user_id == user_id,
                dialogs.c.kind == DialogKind.CHAT,
                messages.c.tenant_id == self._tenant_id,
                messages.c.role == MessageRole.USER,
            )
            .order_by(messages.c.id.desc())
            .limit(limit)
        )
        return [_exchange_from(row) for row in await self._connection.execute(statement)]

    def _mine(self, dialog_id: DialogId, user_id: UserId) -> Sequence[ColumnElement[bool]]:
        return dialogs.c.tenant_id == self._tenant_id, dialogs.c.user_id == user_id, dialogs.c.id == dialog_id

    def _this(self, message: Message) -> Sequence[ColumnElement[bool]]:
        here = (messages.c.tenant_id == self._tenant_id, messages.c.dialog_id == message.dialog_id)
        return (*here, messages.c.id == message.id)

    def _dialogs(self, user_id: UserId) -> Select[Any]:
        return select(dialogs).where(dialogs.c.tenant_id == self._tenant_id, dialogs.c.user_id == user_id)

    def _messages(self, dialog_id: DialogId) -> Select[Any]:
        return select(messages).where(messages.c.tenant_id == self._tenant_id, messages.c.dialog_id == dialog_id)

    def _matches(self, search: str) -> ColumnElement[bool]:
        pattern = "%" + search.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        said = exists().where(
            messages.c.tenant_id == self._tenant_id,
            messages.c.dialog_id == dialogs.c.id,
            func.lower(messages.c.content).like(pattern, escape="\\"),
        )
        return or_(func.lower(dialogs.c.title).like(pattern, escape="\\"), said)


def _message_row(message: Message) -> dict[str, Any]:
    """A message that belongs to no call."""
    counts = dict.fromkeys(_USAGE)
    values = {name: value for name, value in row_of(message).items() if name != "usage"}
    return {**values, **counts, "parts": list(message.parts) or None, "estimated": False}


def _message_of_row(row: Row[Any]) -> Message:
    return message_from(values_of(row))


def _exchange_from(row: Row[Any]) -> Exchange:
    values = row._mapping
    question = {column.name: values[f"question__{column.name}"] for column in messages.c}
    answer = {column.name: values[f"answer__{column.name}"] for column in messages.c}
    return Exchange(
        question=message_from(question), answer=message_from(answer), user_external_id=values["external_id"]
    )
