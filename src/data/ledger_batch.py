"""Many ledger operations in one transaction: the one mechanism behind the writer and the admin's adjustments."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from src.data.ledger_records import RecordRows
from src.data.ledger_store import load_holds, lock_accounts, lock_holds, make_prepaid, write_back
from src.data.ledger_tables import usage_records
from src.data.tables import messages
from src.domain.dialogs.model import AnswerEnded, MessagesAdded
from src.domain.ledger.book import Book, ScopeKey
from src.domain.ledger.model import (
    MAX_AMOUNT,
    Account,
    AccountId,
    Adjustment,
    Closed,
    Closing,
    Hold,
    HoldId,
    HoldRequest,
    HoldState,
    Record,
    Unit,
    UsageRecord,
)
from src.shared.errors import GatewayError


@dataclass(frozen=True, slots=True)
class Open:
    """Take a hold, with its records."""

    request: HoldRequest
    records: Sequence[Record] = ()


@dataclass(frozen=True, slots=True)
class Close:
    """Close a hold, with its records."""

    closing: Closing
    records: Sequence[Record] = ()


@dataclass(frozen=True, slots=True)
class Adjust:
    """Top up or deduct."""

    adjustment: Adjustment


@dataclass(frozen=True, slots=True)
class Write:
    """Records alone."""

    records: Sequence[Record]


Operation = Open | Close | Adjust | Write
Result = Hold | Closed | Account | GatewayError | None


async def apply_batch(
    connection: AsyncConnection, operations: Sequence[Operation], *, again: bool = False
) -> list[Result]:
    """What each operation gave, in their order; a refused one gives its error and changes nothing.

    The caller commits. With `again`, operations that an earlier transaction of unknown fate did commit are recognised
    and not applied twice.
    """
    done = await _applied_before(connection, operations) if again else {}
    fresh = [operation for index, operation in enumerate(operations) if index not in done]
    given = iter(await _apply(connection, fresh))
    return [done[index] if index in done else next(given) for index in range(len(operations))]


async def _apply(connection: AsyncConnection, operations: Sequence[Operation]) -> list[Result]:
    await make_prepaid(connection, _top_ups(operations))
    accounts = await lock_accounts(connection, _scopes(operations), _line_accounts(operations))
    closings = [operation.closing for operation in operations if isinstance(operation, Close)]
    book = Book(accounts, await lock_holds(connection, {closing.hold.id for closing in closings}))
    rows = RecordRows()
    results = [_applied(operation, book, rows) for operation in operations]
    await write_back(connection, book)
    await rows.write(connection)
    return results


def _applied(operation: Operation, book: Book, rows: RecordRows) -> Result:
    """One operation on the books; its records are written only where it was not refused."""
    try:
        match operation:
            case Open(request, records):
                hold = book.open(request)
                rows.add(records, hold.id)
                return hold
            case Close(closing, records):
                closed = book.close(closing)
                rows.add(records, None)
                if closing.state is not HoldState.SETTLED and not _ends_answer(records):
                    rows.fail_unfinished(closing)
                return closed
            case Adjust(adjustment):
                return book.adjust(adjustment)
            case Write(records):
                rows.add(records, None)
                return None
    except GatewayError as refusal:
        return refusal


def _ends_answer(records: Sequence[Record]) -> bool:
    return any(isinstance(record, AnswerEnded) for record in records)


def _top_ups(operations: Sequence[Operation]) -> list[Adjustment]:
    """Adjustments that need an account and cannot be refused for the lack of one."""
    adjustments = (operation.adjustment for operation in operations if isinstance(operation, Adjust))
    return [adjustment for adjustment in adjustments if 0 <= adjustment.amount <= MAX_AMOUNT]


def _scopes(operations: Sequence[Operation]) -> set[ScopeKey]:
    scopes: set[ScopeKey] = set()
    for operation in operations:
        if isinstance(operation, Open):
            request = operation.request
            scopes.update((request.tenant_id, scope, scope_id) for scope, scope_id in request.scopes)
        elif isinstance(operation, Adjust):
            change = operation.adjustment
            scopes.add((change.tenant_id, change.scope, change.scope_id))
    return scopes


def _line_accounts(operations: Sequence[Operation]) -> set[AccountId]:
    return {
        line.account_id
        for operation in operations
        if isinstance(operation, Close)
        for line in operation.closing.hold.lines
    }


async def _applied_before(connection: AsyncConnection, operations: Sequence[Operation]) -> dict[int, Result]:
    """What operations gave that are in the database already, by their place."""
    opens = {operation.request.id for operation in operations if isinstance(operation, Open)}
    closes = {operation.closing.hold.id for operation in operations if isinstance(operation, Close)}
    holds = {hold.id: hold for hold in await load_holds(connection, opens | closes)}
    written = await _written(connection, [each for each in operations if isinstance(each, Write)])
    done: dict[int, Result] = {}
    for index, operation in enumerate(operations):
        match operation:
            case Open(request, _) if request.id in holds:
                done[index] = holds[request.id]
            case Close(closing, _) if _is_closed_so(closing, holds):
                done[index] = Closed(hold_id=closing.hold.id, lost=_lost(closing))
            case Write() if id(operation) in written:
                done[index] = None
            case _:
                pass
    return done


def _is_closed_so(closing: Closing, holds: dict[HoldId, Hold]) -> bool:
    found = holds.get(closing.hold.id)
    return found is not None and found.state is closing.state


def _lost(closing: Closing) -> dict[Unit, int]:
    """What was owed above the hold. (How little a late charge could collect is not known any more.)"""
    lost: dict[Unit, int] = {}
    for line in closing.hold.lines:
        over = closing.amount(line.unit) - line.amount
        if over > 0:
            lost[line.unit] = max(lost.get(line.unit, 0), over)
    return lost


async def _written(connection: AsyncConnection, writes: Sequence[Write]) -> set[int]:
    """Which of the writes are in the database: they went in whole, so one row of each answers."""
    usage_ids: dict[UUID, int] = {}
    message_ids: dict[UUID, int] = {}
    for write in writes:
        for record in write.records:
            if isinstance(record, UsageRecord):
                usage_ids[record.id] = id(write)
            elif isinstance(record, MessagesAdded):
                message_ids.update((message.id, id(write)) for message in record.messages)
    found: set[int] = set()
    for owners, table in ((usage_ids, usage_records), (message_ids, messages)):
        if owners:
            question = select(table.c.id).where(table.c.id.in_(owners))
            found.update(owners[row[0]] for row in await connection.execute(question))
    return found
