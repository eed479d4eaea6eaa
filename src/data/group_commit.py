"""The writer: holds and settlements of all concurrent calls, many in one transaction."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from src.data.integrity import domain_error, is_transient
from src.data.ledger_batch import Close, Open, Operation, Renew, Result, Write, apply_batch
from src.data.writer_connection import WriterConnection
from src.domain.ledger.model import Closed, Closing, Hold, HoldRequest, HoldState, Record, Renewal
from src.shared.clock import Clock, utc_now
from src.shared.errors import GatewayError, Unavailable

MAX_BATCH = 256
MAX_WAITING = 10_000
OPEN_PATIENCE_S = 5.0
CLOSE_PATIENCE_S = 30.0
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0


@dataclass(slots=True, eq=False)
class _Ticket:
    """An operation in the line, whoever waits for it, and until when it is tried (on the monotonic clock)."""

    operation: Operation
    deadline_s: float
    result: "asyncio.Future[Result]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def is_unwanted(self) -> bool:
        """An open whose caller is gone. What was used is booked whether anybody waits or not."""
        return self.result.cancelled() and isinstance(self.operation, Open)

    @property
    def has_answer(self) -> bool:
        return self.result.done() and not self.result.cancelled() and self.result.exception() is None

    def fail(self, error: GatewayError) -> None:
        """Tell whoever still waits."""
        if not self.result.done():
            self.result.set_exception(error)


class GroupCommitLedger:
    """The ledger of one process: one writer task takes all that waits, applies it in one transaction and wakes callers.

    A lone operation is committed at once. A batch that fails is halved until the operation at fault is alone, so its
    neighbours are unharmed. Lost connections, deadlocks and busy files are tried again until the callers' time is up.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        clock: Clock = utc_now,
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
        open_patience_s: float = OPEN_PATIENCE_S,
        close_patience_s: float = CLOSE_PATIENCE_S,
    ) -> None:
        self._connection = WriterConnection(engine)
        self._clock = clock
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._open_patience_s = open_patience_s
        self._close_patience_s = close_patience_s
        self._line: deque[_Ticket] = deque()
        self._taken: list[_Ticket] = []
        self._arrived = asyncio.Event()
        self._is_stopping = False
        self._writer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve."""
        self._is_stopping = False
        self._writer = asyncio.create_task(self._run(), name="ledger writer")

    async def stop(self) -> None:
        """Refuse what comes from now on, finish what waits."""
        self._is_stopping = True
        self._arrived.set()
        if self._writer is not None:
            await self._writer
            self._writer = None

    async def open(self, request: HoldRequest, records: Sequence[Record] = ()) -> Hold:
        ticket = self._admitted(Open(request, records), self._open_patience_s)
        try:
            hold = await ticket.result
        except asyncio.CancelledError:
            if ticket.has_answer:  # it came in the moment of the cancellation
                self._release(ticket.result.result())
            raise
        assert isinstance(hold, Hold)  # noqa: S101 - what an open gives
        return hold

    async def renew(self, renewal: Renewal, records: Sequence[Record] = ()) -> Hold:
        hold = await self._admitted(Renew(renewal, records), self._open_patience_s).result
        assert isinstance(hold, Hold)  # noqa: S101 - what a renewal gives
        return hold

    async def close(self, closing: Closing, records: Sequence[Record] = ()) -> Closed:
        closed = await self._admitted(Close(closing, records), self._close_patience_s).result
        assert isinstance(closed, Closed)  # noqa: S101 - what a close gives
        return closed

    async def record(self, records: Sequence[Record]) -> None:
        await self._admitted(Write(records), self._close_patience_s).result

    def _admitted(self, operation: Operation, patience_s: float) -> _Ticket:
        if self._is_stopping or self._writer is None or self._writer.done():
            raise Unavailable("The gateway is shutting down; try again in a moment.")
        if len(self._line) >= self._max_waiting:
            raise Unavailable("Too many calls wait for the database; try again in a moment.")
        return self._lined_up(operation, patience_s)

    def _lined_up(self, operation: Operation, patience_s: float) -> _Ticket:
        ticket = _Ticket(operation, time.monotonic() + patience_s)
        self._line.append(ticket)
        self._arrived.set()
        return ticket

    def _release(self, hold: Result) -> None:
        """Give back a hold whose caller was cancelled: nobody else will."""
        if isinstance(hold, Hold):
            closing = Closing(hold=hold, state=HoldState.RELEASED, at=self._clock())
            ticket = self._lined_up(Close(closing), self._close_patience_s)
            ticket.result.add_done_callback(_seen)  # where it fails, the sweep will find the hold

    async def _run(self) -> None:
        try:
            while self._line or not self._is_stopping:
                if not self._line:
                    self._arrived.clear()
                    await self._arrived.wait()
                    continue
                self._taken = [self._line.popleft() for _ in range(min(len(self._line), self._max_batch))]
                await self._commit(self._taken)
        finally:
            for ticket in (*self._taken, *self._line):
                ticket.fail(Unavailable("The gateway is shutting down; try again in a moment."))
            await self._connection.close()

    async def _commit(self, tickets: list[_Ticket], *, again: bool = False) -> None:
        """Give every ticket its result. `again`: an earlier try may have been committed without our hearing of it."""
        pause_s = FIRST_PAUSE_S
        while tickets := _worth_trying(tickets, again=again):
            try:
                results = await self._transact(tickets, again=again)
            except Exception as error:  # noqa: BLE001 - whatever it is, callers wait for an answer
                if not is_transient(error):
                    await self._divide(tickets, error, again=again)
                    return
                again = True
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            else:
                self._deliver(tickets, results)
                return

    async def _divide(self, tickets: list[_Ticket], error: Exception, *, again: bool) -> None:
        """Find the operation at fault: its caller is told, its neighbours are committed."""
        if len(tickets) == 1:
            failure = domain_error(error)
            failure.__cause__ = error
            tickets[0].fail(failure)
            return
        middle = len(tickets) // 2
        await self._commit(tickets[:middle], again=again)
        await self._commit(tickets[middle:], again=again)

    async def _transact(self, tickets: Sequence[_Ticket], *, again: bool) -> list[Result]:
        async with self._connection.transaction() as connection:
            return await apply_batch(connection, [ticket.operation for ticket in tickets], again=again)

    def _deliver(self, tickets: Sequence[_Ticket], results: Sequence[Result]) -> None:
        for ticket, result in zip(tickets, results, strict=True):
            if ticket.result.done():
                if isinstance(ticket.operation, Open):
                    self._release(result)
            elif isinstance(result, GatewayError):
                ticket.result.set_exception(result)
            else:
                ticket.result.set_result(result)


def _worth_trying(tickets: Sequence[_Ticket], *, again: bool) -> list[_Ticket]:
    """Without those whose callers are gone (unless they may have been committed) and those whose time is up."""
    now_s = time.monotonic()
    kept = []
    for ticket in tickets:
        if ticket.is_unwanted and not again:
            continue
        if now_s > ticket.deadline_s and (again or isinstance(ticket.operation, Open)):
            ticket.fail(Unavailable("The database is away or busy; try again in a moment."))
        else:
            kept.append(ticket)
    return kept


def _seen(result: "asyncio.Future[Result]") -> None:
    """Look at an error that nobody waits for."""
    if not result.cancelled():
        result.exception()
