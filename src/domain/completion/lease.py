"""Keeping the hold of a call that goes on: alive, growing where it must, with what was delivered noted in it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from src.domain.completion.holding import Plan
from src.domain.ledger.model import Hold, Record, Renewal, UsageRecord
from src.domain.ledger.ports import Ledger
from src.shared.clock import Clock
from src.shared.errors import Conflict, QuotaExceeded, Unavailable

GROW_SHARE = 4
"""A hold grows when all but a quarter of a step of it is used: the model writes on while the ledger is asked."""

STOP_SHARE = 16
"""A hold that cannot grow ends the answer when all but this part of a step is used: an upstream stops a little late."""


@dataclass(frozen=True, slots=True)
class Noted:
    """What a call would be charged if it ended now, and the rows that say so elsewhere."""

    usage: UsageRecord
    records: Sequence[Record] = ()


class Lease:
    """The hold of one call while its answer is generated.

    `note` tells what has been delivered, None as long as that is nothing. `cancelled` is called when somebody asked
    (on whatever replica) that the call be stopped, `exhausted` when the quota cannot pay for a longer answer.
    """

    def __init__(
        self,
        hold: Hold,
        plan: Plan,
        *,
        ledger: Ledger,
        clock: Clock,
        lease_s: float,
        every_s: float,
        note: Callable[[], Awaitable[Noted | None]],
        cancelled: Callable[[], None],
        exhausted: Callable[[], None],
    ) -> None:
        self.hold = hold
        self._plan = plan
        self._ledger = ledger
        self._clock = clock
        self._lease_s = lease_s
        self._every_s = min(every_s, lease_s / 4)
        self._note = note
        self._cancelled = cancelled
        self._exhausted = exhausted
        self._written_tokens = 0
        self._stop_at_tokens: int | None = None
        self._must_grow = asyncio.Event()
        self._asked = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._is_renewing = False
        self._is_over = False

    @property
    def counts_output(self) -> bool:
        """Whether it wants to hear of what is written."""
        return self._plan.grows(self.hold)

    async def wrote(self, tokens: int) -> None:
        """So much output was delivered so far. Waits for the ledger where all that is held is used."""
        self._written_tokens = tokens
        self._look()
        while self._is_used_up:
            self._asked.clear()
            await self._asked.wait()

    def start(self) -> None:
        """Renew from time to time, from now on."""
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._begin)

    def stop(self) -> None:
        """Renew no more. What the ledger is being asked at the moment is left to end: its answer says what is held."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._keeper is not None and not self._is_renewing:
            self._keeper.cancel()

    async def cover(self, output_tokens: int) -> None:
        """At the end: grow to what was really used, if that is more than is held and can be paid."""
        if self._keeper is not None:
            await asyncio.wait({self._keeper})
        if self._plan.grows(self.hold) and output_tokens > self._held:
            with contextlib.suppress(QuotaExceeded, Conflict, Unavailable):
                await self._renew(output_tokens, None)

    def _look(self) -> None:
        """Whether it is time to end the answer, or to ask for more."""
        if self._is_over or not self.counts_output:
            return
        if self._stop_at_tokens is not None:
            if self._written_tokens >= self._stop_at_tokens:
                self._exhausted()
        elif self._held < self._plan.output_tokens and self._written_tokens >= self._held - self._step // GROW_SHARE:
            self._must_grow.set()
            self._begin()

    @property
    def _is_used_up(self) -> bool:
        may_grow = not self._is_over and self._stop_at_tokens is None and self._held < self._plan.output_tokens
        return may_grow and self._written_tokens >= self._held

    def _begin(self) -> None:
        """Most answers are short and never come here: a task for each of them would be waste."""
        if self._keeper is None and not self._is_over:
            self._keeper = asyncio.create_task(self._keep(), name=f"lease {self.hold.id}")

    async def _keep(self) -> None:
        """Renew the hold until stopped, or until it is not there to be renewed."""
        try:
            while not self._is_over:
                patient = not await self._went_on()
                self._look()
                self._asked.set()
                await self._pause(patient)
        finally:
            self._is_over = True
            self._asked.set()

    async def _went_on(self) -> bool:
        """Note, renew, and grow where it must. False where the ledger could not be asked."""
        noted = await self._note()
        wish = max(self._held, self._written_tokens) + self._step if self._must_grow.is_set() else None
        try:
            await self._renew(wish, noted)
            self._must_grow.clear()
        except Unavailable:  # the lease is longer than most databases are away
            return False
        except QuotaExceeded:
            self._must_grow.clear()
            self._stop_at_tokens = self._held - self._step // STOP_SHARE
        except Conflict:  # it expired; what is used will be charged late
            self._is_over = True
        if self.hold.cancel_requested and not self._is_over:
            self._is_over = True
            self._cancelled()
        return True

    async def _pause(self, patient: bool) -> None:
        """Until the next renewal is due, or more must be held."""
        if self._is_over:
            return
        if patient:
            await asyncio.sleep(self._every_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._every_s):
                await self._must_grow.wait()

    @property
    def _held(self) -> int:
        return self.hold.output_cap or 0

    @property
    def _step(self) -> int:
        return self._plan.step or 0

    async def _renew(self, output_tokens: int | None, noted: Noted | None) -> None:
        now = self._clock()
        renewal = Renewal(
            hold=self.hold,
            at=now,
            expires_at=now + timedelta(seconds=self._lease_s),
            noted=None if noted is None else noted.usage,
            demand=None if output_tokens is None else self._plan.grown(output_tokens),
        )
        self._is_renewing = True
        try:
            self.hold = await self._ledger.renew(renewal, () if noted is None else noted.records)
        finally:
            self._is_renewing = False
