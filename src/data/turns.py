"""The ends of dialogs: they move to answers as these end, and turns of conversations are put there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from src.data.tables import dialogs, messages
from src.domain.dialogs.model import ASIDE, AnswerEnded, DialogId, MessageId, MessageStatus, turn_in
from src.domain.identity.model import TenantId
from src.domain.ledger.model import Hold, HoldId

_Place = tuple[TenantId, DialogId]


@dataclass(frozen=True, slots=True)
class _Ended:
    """An answer that has ended. `turn`: the first message of its turn, where that goes to the end of the dialog.

    `given_up`: so was its call, and others may have gone on.
    """

    place: _Place
    answer_id: MessageId
    at: datetime
    turn: MessageId | None
    given_up: bool


class Turns:
    """The answers that end in one batch, in their order."""

    def __init__(self) -> None:
        self._ended: list[_Ended] = []
        self._given_up: dict[tuple[TenantId, HoldId], datetime] = {}
        self._heads: dict[_Place, tuple[Any, ...]] = {}

    def end(self, record: AnswerEnded, *, given_up: bool) -> None:
        """One that has ended; `given_up`: it comes back after all."""
        answer = record.answer
        if record.becomes_head:
            at = answer.completed_at or answer.created_at
            place = (answer.tenant_id, answer.dialog_id)
            self._ended.append(_Ended(place, answer.id, at, turn_in(answer.settings), given_up))

    def give_up(self, hold: Hold, at: datetime) -> None:
        """There will be no more of a call's answer than was noted."""
        self._given_up.setdefault((hold.tenant_id, hold.id), at)

    def heads(self) -> Iterable[tuple[Any, ...]]:
        """The new ends of dialogs, as rows."""
        return self._heads.values()

    async def hang(self, connection: AsyncConnection) -> None:
        """Hang each turn below what is the end of its dialog by now, where that is not what it was begun below.

        To be called before anything else is written. All dialogs of the batch are locked, in the order of its rows,
        where their ends must be known.
        """
        ended = [*self._ended, *await self._left(connection)]
        heads: dict[_Place, MessageId | None] = {}
        if any(each.turn is not None or each.given_up for each in ended):
            heads = await _locked(connection, {each.place for each in ended})
        parents = await _parents(connection, {(each.place[0], each.turn) for each in ended if each.turn is not None})
        for each in ended:
            head = heads.get(each.place)
            if each.given_up and await _is_passed_over(connection, each, head):
                continue
            if each.turn in parents and each.place in heads and parents[each.turn] != head:
                mine = (messages.c.tenant_id == each.place[0], messages.c.id == each.turn)
                await connection.execute(update(messages).where(*mine).values(parent_id=head))
            heads[each.place] = each.answer_id
            self._heads[each.place] = (each.answer_id, each.at, *each.place)

    async def _left(self, connection: AsyncConnection) -> Sequence[_Ended]:
        """The answers of the calls that were given up."""
        if not self._given_up:
            return ()
        columns = (messages.c.tenant_id, messages.c.dialog_id, messages.c.id, messages.c.hold_id, messages.c.settings)
        holds = tuple_(messages.c.tenant_id, messages.c.hold_id)
        theirs = holds.in_(list(self._given_up)), messages.c.status == MessageStatus.IN_PROGRESS
        rows = await connection.execute(select(*columns).where(*theirs).order_by(messages.c.id))
        return [
            _Ended(
                place=(row.tenant_id, row.dialog_id),
                answer_id=row.id,
                at=self._given_up[row.tenant_id, row.hold_id],
                turn=turn_in(row.settings),
                given_up=True,
            )
            for row in rows
            if not (row.settings or {}).get(ASIDE)
        ]


async def _locked(connection: AsyncConnection, places: set[_Place]) -> dict[_Place, MessageId | None]:
    columns = (dialogs.c.tenant_id, dialogs.c.id)
    statement = select(*columns, dialogs.c.head_id).where(tuple_(*columns).in_(places)).order_by(*columns)
    found = await connection.execute(statement.with_for_update(key_share=True))
    return {(row.tenant_id, row.id): row.head_id for row in found}


async def _is_passed_over(connection: AsyncConnection, ended: _Ended, head: MessageId | None) -> bool:
    """Whether others went on without it: a turn can still be put after them, unless they build upon it."""
    if ended.turn is None:
        return head is not None and head >= ended.answer_id
    below = messages.c.tenant_id == ended.place[0], messages.c.parent_id == ended.answer_id
    return (await connection.execute(select(messages.c.id).where(*below).limit(1))).first() is not None


async def _parents(
    connection: AsyncConnection, turns: set[tuple[TenantId, MessageId]]
) -> dict[MessageId | None, MessageId | None]:
    """What the first messages of turns hang below as yet."""
    if not turns:
        return {}
    theirs = tuple_(messages.c.tenant_id, messages.c.id).in_(turns)
    found = await connection.execute(select(messages.c.id, messages.c.parent_id).where(theirs))
    return {row.id: row.parent_id for row in found}
