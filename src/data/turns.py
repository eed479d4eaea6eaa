"""Turns that are put at the end of their dialogs, wherever that is when they have ended."""

from sqlalchemy import select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from src.data.tables import dialogs, messages
from src.domain.dialogs.model import AnswerEnded, DialogId, MessageId
from src.domain.identity.model import TenantId

_Place = tuple[TenantId, DialogId]


class Turns:
    """The answers that end in one batch, in their order."""

    def __init__(self) -> None:
        self._ended: list[AnswerEnded] = []
        self._has_turns = False

    def add(self, record: AnswerEnded) -> None:
        """One more."""
        self._ended.append(record)
        self._has_turns = self._has_turns or record.first is not None

    async def hang(self, connection: AsyncConnection) -> None:
        """Hang each turn below what is the end of its dialog by now, where that is not what it was begun below.

        To be called before the heads of dialogs move. All dialogs of the batch are locked, in the order of its rows.
        """
        if not self._has_turns:
            return
        heads = await self._heads(connection)
        for record in self._ended:
            answer, first = record.answer, record.first
            place = (answer.tenant_id, answer.dialog_id)
            if place not in heads or not record.becomes_head:
                continue
            if first is not None and heads[place] != first.parent_id:
                mine = (messages.c.tenant_id == answer.tenant_id, messages.c.id == first.id)
                await connection.execute(update(messages).where(*mine).values(parent_id=heads[place]))
            heads[place] = answer.id

    async def _heads(self, connection: AsyncConnection) -> dict[_Place, MessageId | None]:
        places = {(record.answer.tenant_id, record.answer.dialog_id) for record in self._ended}
        columns = (dialogs.c.tenant_id, dialogs.c.id)
        statement = select(*columns, dialogs.c.head_id).where(tuple_(*columns).in_(places)).order_by(*columns)
        found = await connection.execute(statement.with_for_update(key_share=True))
        return {(row.tenant_id, row.id): row.head_id for row in found}
