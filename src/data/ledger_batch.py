"""Many ledger operations in one transaction: the one mechanism behind the writer and the admin's adjustments."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from src.data import bulk
from src.data.claims import drop_claims, take_claims
from src.data.ledger_records import RecordRows
from src.data.ledger_store import Payer, changes_of, lock_accounts, read_holds
from src.data.ledger_tables import quotas, usage_records
from src.data.tables import messages
from src.domain.completion.idempotency import Claim, KeyTaken
from src.domain.dialogs.model import AnswerEnded, MessagesAdded
from src.domain.ledger.book import Book
from src.domain.ledger.model import (
    AccountId,
    Closed,
    Closing,
    Hold,
    HoldId,
    HoldRequest,
    HoldState,
    Record,
    Renewal,
    Unit,
    UsageRecord,
    Window,
)
from src.domain.ledger.periods import period_of
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
class Renew:
    """Keep a hold alive, with its records."""

    renewal: Renewal
    records: Sequence[Record] = ()


@dataclass(frozen=True, slots=True)
class Write:
    """Records alone."""

    records: Sequence[Record]


Operation = Open | Renew | Close | Write
Result = Hold | Closed | GatewayError | None


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
    """Accounts are locked before holds, everywhere."""
    claims = _claims(operations)
    taken = await take_claims(connection, claims)
    accounts, limits = await lock_accounts(connection, _payers(operations), _line_accounts(operations))
    book = Book(accounts, await read_holds(connection, _hold_ids(operations), lock=True))
    book.entries.extend(limits)
    rows = RecordRows()
    results = [_applied(operation, book, rows, taken) for operation in operations]
    await rows.turns.hang(connection)
    await bulk.write(connection, [*changes_of(book), *rows.parts()])
    await rows.claims.end_others(connection)
    if claims:
        await drop_claims(connection, _in_vain(operations, results))
    return results


def _claims(operations: Sequence[Operation]) -> list[tuple[Claim, HoldId | None]]:
    """The keys under which operations were asked for, with the holds they are for."""
    return [
        (record, operation.request.id if isinstance(operation, Open) else None)
        for operation in operations
        if isinstance(operation, Open | Write)
        for record in operation.records
        if isinstance(record, Claim)
    ]


def _in_vain(operations: Sequence[Operation], results: Sequence[Result]) -> set[UUID]:
    """Claims of operations that were refused after all."""
    refused = [each for each, result in zip(operations, results, strict=True) if isinstance(result, GatewayError)]
    return {claim.id for claim, _ in _claims(refused)}


def _applied(operation: Operation, book: Book, rows: RecordRows, taken: set[UUID]) -> Result:
    """One operation on the books; its records are written only where it was not refused."""
    if any(claim.id not in taken for claim, _ in _claims((operation,))):
        return KeyTaken("A request with this Idempotency-Key is there already.")
    try:
        match operation:
            case Open(request, records):
                hold = book.open(request)
                rows.add(records, hold.id)
                return hold
            case Renew(renewal, records):
                renewed = book.renew(renewal)
                rows.add(records)
                return replace(renewed, excluded_models=renewal.hold.excluded_models)
            case Close(closing, records):
                return _closed(closing, records, book, rows)
            case Write(records):
                rows.add(records)
                return None
    except GatewayError as refusal:
        return refusal


def _closed(closing: Closing, records: Sequence[Record], book: Book, rows: RecordRows) -> Closed:
    before = book.hold(closing.hold.id)
    closed = book.close(closing)
    noted = before.noted if before is not None else None
    if closing.state is HoldState.EXPIRED:
        rows.end_noted(closing, noted)
        rows.claims.end(closing.hold.id, charged=noted is not None)
        return closed
    is_late = before is not None and before.state is HoldState.EXPIRED
    if is_late and closing.state is HoldState.RELEASED:  # what was noted of it stays charged, counted and told
        return closed
    rows.add(records, is_late=is_late, counted=noted if is_late else None)
    if closing.state is HoldState.RELEASED and not _ends_answer(records):
        rows.end_noted(closing, None)
    if not records:
        rows.claims.end(closing.hold.id, charged=closing.state is HoldState.SETTLED)
    return closed


def _ends_answer(records: Sequence[Record]) -> bool:
    return any(isinstance(record, AnswerEnded) for record in records)


def _payers(operations: Sequence[Operation]) -> set[Payer]:
    """The scopes that new holds are asked of, each with the day and month of the call."""
    requests = [operation.request for operation in operations if isinstance(operation, Open)]
    return {
        Payer(request.tenant_id, scope, scope_id, *(_period(request, window) for window in (Window.DAY, Window.MONTH)))
        for request in requests
        for scope, scope_id in request.scopes
    }


def _period(request: HoldRequest, window: Window) -> str:
    return period_of(window, request.at, request.time_zone)


def _hold_ids(operations: Sequence[Operation]) -> set[HoldId]:
    closed = {operation.closing.hold.id for operation in operations if isinstance(operation, Close)}
    return closed | {operation.renewal.hold.id for operation in operations if isinstance(operation, Renew)}


def _line_accounts(operations: Sequence[Operation]) -> set[AccountId]:
    """The accounts of holds that are closed or grow."""
    holds = [operation.closing.hold for operation in operations if isinstance(operation, Close)]
    growing = [each.renewal for each in operations if isinstance(each, Renew)]
    holds += [renewal.hold for renewal in growing if renewal.demand is not None]
    return {line.account_id for hold in holds for line in hold.lines}


async def _applied_before(connection: AsyncConnection, operations: Sequence[Operation]) -> dict[int, Result]:
    """What operations gave that are in the database already, by their place."""
    opens = {operation.request.id for operation in operations if isinstance(operation, Open)}
    holds = {hold.id: hold for hold in await read_holds(connection, opens | _hold_ids(operations), lock=True)}
    written = await _written(connection, [each for each in operations if isinstance(each, Write)])
    done: dict[int, Result] = {}
    for index, operation in enumerate(operations):
        match operation:
            case Open(request, _) if request.id in holds:
                hold = holds[request.id]
                done[index] = replace(hold, excluded_models=await _excluded(connection, request, hold))
            case Renew(renewal, _) if _has_grown(renewal, holds):
                done[index] = replace(holds[renewal.hold.id], excluded_models=renewal.hold.excluded_models)
            case Close(closing, _) if _is_closed_so(closing, holds):
                done[index] = Closed(hold_id=closing.hold.id, lost=_lost(closing))
            case Write() if id(operation) in written:
                done[index] = None
            case _:
                pass
    return done


async def _excluded(connection: AsyncConnection, request: HoldRequest, hold: Hold) -> tuple[str, ...]:
    """The members of the chain that were left out: they have quotas of their own, and none of these gave anything."""
    members = {*request.models} - {request.model} - {line.model for line in hold.lines}
    if not members:
        return ()
    statement = select(quotas.c.model).where(
        quotas.c.tenant_id == request.tenant_id,
        tuple_(quotas.c.scope, quotas.c.scope_id).in_(request.scopes),
        quotas.c.model.in_(members),
        quotas.c.removed_at.is_(None),
    )
    return tuple(sorted((await connection.execute(statement.distinct())).scalars()))


def _has_grown(renewal: Renewal, holds: dict[HoldId, Hold]) -> bool:
    """Growing is all that a renewal may not do twice."""
    found = holds.get(renewal.hold.id)
    if renewal.demand is None or found is None or found.state is not HoldState.OPEN:
        return False
    return found.output_cap != renewal.hold.output_cap


def _is_closed_so(closing: Closing, holds: dict[HoldId, Hold]) -> bool:
    found = holds.get(closing.hold.id)
    return found is not None and found.state is closing.state


def _lost(closing: Closing) -> dict[Unit, int]:
    """What was owed above the hold. (How little a late charge could collect is not known any more.)"""
    lost: dict[Unit, int] = {}
    for line in closing.hold.lines:
        over = closing.amount(line) - line.amount
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
