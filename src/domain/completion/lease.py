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
        self._timer: asyncio.TimerHandle | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._is_stopped = False

    @property
    def counts_output(self) -> bool:
        """Whether it wants to hear of what is written."""
        return self._plan.grows(self.hold)

    def wrote(self, tokens: int) -> None:
        """So much more output was delivered."""
        self._written_tokens += tokens
        if self._stop_at_tokens is not None:
            if self._written_tokens >= self._stop_at_tokens:
                self._exhausted()
        elif self._held < self._plan.output_tokens and self._written_tokens >= self._held - self._step // GROW_SHARE:
            self._must_grow.set()
            self._begin()

    def start(self) -> None:
        """Renew from time to time, from now on."""
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._begin)

    def stop(self) -> None:
        """Renew no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._keeper is not None:
            self._keeper.cancel()
        self._is_stopped = True

    def _begin(self) -> None:
        """Most answers are short and never come here: a task for each of them would be waste."""
        if self._keeper is None and not self._is_stopped:
            self._keeper = asyncio.create_task(self._keep(), name=f"lease {self.hold.id}")

    async def _keep(self) -> None:
        """Renew the hold until stopped, or until it is not there to be renewed."""
        while True:
            growing = self._must_grow.is_set()
            self._must_grow.clear()
            try:
                await self._renew(self._held + self._step if growing else None, await self._note())
            except Unavailable:  # the lease is longer than most databases are away
                pass
            except QuotaExceeded:
                self._stop_at_tokens = self._held - self._step // STOP_SHARE
            except Conflict:  # it expired; what is used will be charged late
                return
            if self.hold.cancel_requested:
                self._cancelled()
                return
            self.wrote(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._must_grow.wait()

    async def cover(self, output_tokens: int) -> None:
        """At the end: grow to what was really used, if that is more than is held and can be paid."""
        if self._plan.grows(self.hold) and output_tokens > self._held:
            with contextlib.suppress(QuotaExceeded, Conflict, Unavailable):
                await self._renew(output_tokens, None)

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
        self.hold = await self._ledger.renew(renewal, () if noted is None else noted.records)
