"""The hold of a call that goes on: renewed, noted, grown in steps, and left alone when the call is over."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from src.domain.completion.holding import HoldingPolicy, plan_hold
from src.domain.completion.lease import Lease, Noted
from src.domain.completion.model import Parameters
from src.domain.ledger.model import Demand, Hold, Record, Renewal
from src.shared.errors import Conflict, QuotaExceeded, Unavailable
from tests.makers import NOW, make_closing, make_usage_record
from tests.unit.support import PROMPT_OVERHEAD, FakeLedger, Gate, WordMeter, make_call, make_model, user_says

STEP = 32
MOST = 128
PROMPT = 3 + PROMPT_OVERHEAD
LEASE_S = 60.0
SOON_S = 0.001
NEVER_S = 3600.0


class OddLedger(FakeLedger):
    """Renewals meet these errors first, and wait at the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: deque[Exception] = deque()
        self.asked = 0
        self.renewal_gate: Gate | None = None
        self.cancel_requested = False

    async def renew(self, renewal: Renewal, records: Sequence[Record] = ()) -> Hold:
        self.asked += 1
        if self.renewal_gate is not None:
            await self.renewal_gate.wait()
        if self.errors:
            raise self.errors.popleft()
        return replace(await super().renew(renewal, records), cancel_requested=self.cancel_requested)


class Scene:
    """A lease on a stream of a model that holds its output in steps, and what was heard of it."""

    def __init__(self, *, credit: int | None = 1000, every_s: float = NEVER_S, wish: int | None = None) -> None:
        self.ledger = OddLedger()
        self.call = make_call(
            make_model(max_output=MOST, output_reserve=STEP),
            chat=user_says("how are you", stream=True, parameters=Parameters(max_output_tokens=wish)),
        )
        if credit is not None:
            self.account = self.ledger.top_up(self.call.principal, credit)
        self.every_s = every_s
        self.notes = 0
        self.note_gate: Gate | None = None
        self.noted: Noted | None = None
        self.cancelled = 0
        self.exhausted = 0

    async def lease(self, *, started: bool = True) -> Lease:
        plan = await plan_hold(self.call, WordMeter(), lambda: NOW, HoldingPolicy(lease_s=5.0))
        self.made = Lease(
            await self.ledger.open(plan.request),
            plan,
            ledger=self.ledger,
            clock=lambda: NOW,
            lease_s=LEASE_S,
            every_s=self.every_s,
            note=self._note,
            cancelled=self._heard("cancelled"),
            exhausted=self._heard("exhausted"),
        )
        if started:
            self.made.start()
        return self.made

    async def _note(self) -> Noted | None:
        self.notes += 1
        if self.note_gate is not None:
            await self.note_gate.wait()
        return self.noted

    def _heard(self, name: str) -> Callable[[], None]:
        return lambda: setattr(self, name, getattr(self, name) + 1)

    @property
    def held(self) -> int:
        return self.ledger.book.account(self.account.id).held

    @property
    def demands(self) -> list[int | None]:
        """The output that renewals asked for."""
        return [each.demand.output_tokens if each.demand else None for each in self.ledger.renewals]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(SOON_S)


async def turns(count: int = 20) -> None:
    """Let everything that is ready go on."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def no_task_is_left() -> AsyncIterator[None]:
    yield
    await turns()
    assert [each.get_name() for each in asyncio.all_tasks() if each.get_name().startswith("lease")] == []


pytestmark = pytest.mark.usefixtures("no_task_is_left")


async def test_a_hold_is_renewed_again_and_again_until_its_call_ends() -> None:
    scene = Scene(every_s=SOON_S)
    lease = await scene.lease()
    await until(lambda: len(scene.ledger.renewals) >= 3)
    lease.stop()
    await lease.cover(0)
    renewed = len(scene.ledger.renewals)
    await asyncio.sleep(10 * SOON_S)
    assert len(scene.ledger.renewals) == renewed
    assert {each.expires_at for each in scene.ledger.renewals} == {NOW + timedelta(seconds=LEASE_S)}
    assert lease.hold.expires_at == NOW + timedelta(seconds=LEASE_S)
    assert set(scene.demands) == {None}


async def test_a_short_call_is_never_renewed_and_needs_no_task() -> None:
    scene = Scene()
    lease = await scene.lease()
    assert not [each for each in asyncio.all_tasks() if each.get_name().startswith("lease")]
    lease.stop()
    await lease.cover(0)
    assert scene.ledger.renewals == []


async def test_renewals_come_at_least_four_to_a_lease() -> None:
    scene = Scene(every_s=NEVER_S)
    lease = await scene.lease()
    assert lease._every_s == LEASE_S / 4
    lease.stop()


async def test_what_was_delivered_is_noted_with_its_rows() -> None:
    scene = Scene(every_s=SOON_S)
    lease = await scene.lease()
    await until(lambda: scene.notes > 0)
    row = Record()
    scene.noted = Noted(make_usage_record(lease.hold), (row,))
    await until(lambda: lease.hold.noted is not None)
    lease.stop()
    await lease.cover(0)
    assert lease.hold.noted == scene.noted.usage
    assert row in scene.ledger.records


async def test_more_is_asked_for_before_all_that_is_held_is_used() -> None:
    scene = Scene()
    lease = await scene.lease()
    await lease.wrote(STEP - STEP // 4 - 1)
    await turns()
    assert scene.demands == []
    written = STEP - STEP // 4
    await lease.wrote(written)
    await until(lambda: scene.demands != [])
    assert scene.demands == [STEP + STEP]
    assert scene.held == PROMPT + 2 * STEP
    lease.stop()


async def test_a_hold_grows_by_steps_up_to_the_whole_and_no_further() -> None:
    scene = Scene()
    lease = await scene.lease()
    for written in range(1, 2 * MOST):
        await lease.wrote(written)
        assert written <= scene.held - PROMPT or scene.held == PROMPT + MOST
        await turns(3)
    assert scene.demands == [2 * STEP, 3 * STEP, MOST]
    assert (lease.hold.output_cap, scene.exhausted) == (MOST, 0)
    lease.stop()


async def test_a_piece_of_many_steps_grows_the_hold_at_once() -> None:
    scene = Scene()
    lease = await scene.lease()
    await lease.wrote(2 * STEP)
    assert scene.demands == [3 * STEP]
    lease.stop()


async def test_nothing_is_read_on_while_all_that_is_held_is_used() -> None:
    scene = Scene()
    scene.ledger.renewal_gate = Gate()
    lease = await scene.lease()
    await lease.wrote(STEP - 1)
    waiting = asyncio.create_task(lease.wrote(STEP))
    await scene.ledger.renewal_gate.reached.wait()
    await turns()
    assert not waiting.done()
    scene.ledger.renewal_gate.opened.set()
    await asyncio.wait_for(waiting, 5)
    assert scene.held == PROMPT + 2 * STEP
    lease.stop()


async def test_a_quota_that_can_pay_for_a_part_grows_the_hold_by_that_part() -> None:
    scene = Scene(credit=PROMPT + STEP + 10)
    lease = await scene.lease()
    await lease.wrote(STEP)
    assert (lease.hold.output_cap, scene.held, scene.exhausted) == (STEP + 10, PROMPT + STEP + 10, 0)
    await lease.wrote(STEP + 10 - STEP // 16)
    await until(lambda: scene.exhausted > 0)
    assert scene.held == PROMPT + STEP + 10
    lease.stop()


async def test_a_hold_that_cannot_grow_ends_the_answer_a_little_before_it_is_used_up() -> None:
    scene = Scene(credit=PROMPT + STEP)
    lease = await scene.lease()
    await lease.wrote(STEP - STEP // 4)
    await turns()
    assert (scene.ledger.asked, scene.exhausted) == (1, 0)
    await lease.wrote(STEP - STEP // 16 - 1)
    assert scene.exhausted == 0
    await lease.wrote(STEP - STEP // 16)
    assert (scene.ledger.asked, scene.exhausted) == (1, 1)
    lease.stop()


async def test_a_hold_that_cannot_grow_is_kept_alive_all_the_same() -> None:
    scene = Scene(credit=PROMPT + STEP, every_s=SOON_S)
    lease = await scene.lease()
    await lease.wrote(STEP - STEP // 4)
    await until(lambda: len(scene.ledger.renewals) >= 2)
    lease.stop()
    await lease.cover(0)


async def test_a_call_that_no_quota_limits_is_renewed_and_not_counted() -> None:
    scene = Scene(credit=None, every_s=SOON_S)
    lease = await scene.lease()
    assert not lease.counts_output
    await until(lambda: len(scene.ledger.renewals) >= 2)
    lease.stop()
    await lease.cover(10**6)
    assert set(scene.demands) == {None}


async def test_a_quota_short_of_the_first_step_is_a_cap_and_nothing_grows() -> None:
    scene = Scene(credit=PROMPT + STEP - 1)
    lease = await scene.lease()
    assert not lease.counts_output
    lease.stop()
    await lease.cover(MOST)
    assert scene.ledger.asked == 0


async def test_a_ledger_that_is_away_is_asked_again() -> None:
    scene = Scene(every_s=SOON_S)
    scene.ledger.errors.extend([Unavailable("The database is away.")] * 3)
    lease = await scene.lease()
    await until(lambda: len(scene.ledger.renewals) >= 1)
    assert scene.ledger.asked >= 4
    lease.stop()
    await lease.cover(0)


async def test_growth_that_got_no_answer_is_asked_for_again_and_not_in_a_hurry() -> None:
    scene = Scene(every_s=20 * SOON_S)
    scene.ledger.errors.extend([Unavailable("The database is away.")] * 2)
    lease = await scene.lease()
    waiting = asyncio.create_task(lease.wrote(STEP))
    await until(lambda: scene.ledger.asked == 1)
    await turns(100)
    assert scene.ledger.asked == 1
    await asyncio.wait_for(waiting, 5)
    assert scene.demands == [2 * STEP]
    assert scene.ledger.asked == 3
    lease.stop()


@pytest.mark.parametrize("written", [0, STEP])
async def test_a_hold_that_expired_is_renewed_no_more_and_keeps_nobody_waiting(written: int) -> None:
    scene = Scene(every_s=SOON_S)
    lease = await scene.lease()
    await scene.ledger.close(make_closing(lease.hold))
    await asyncio.wait_for(lease.wrote(written), 5)
    await until(lambda: scene.ledger.asked >= 1)
    await asyncio.sleep(10 * SOON_S)
    assert (scene.ledger.asked, scene.ledger.renewals) == (1, [])
    await lease.wrote(MOST)
    assert (scene.exhausted, scene.cancelled) == (0, 0)
    lease.stop()


async def test_a_call_that_somebody_wants_to_stop_is_stopped_once() -> None:
    scene = Scene(every_s=SOON_S)
    lease = await scene.lease()
    scene.ledger.cancel_requested = True
    await until(lambda: scene.cancelled > 0)
    await asyncio.sleep(10 * SOON_S)
    assert (scene.cancelled, len(scene.ledger.renewals)) == (1, 1)
    lease.stop()
    await lease.cover(0)


@pytest.mark.parametrize(
    ("used", "credit", "held"),
    [
        (STEP - 5, 1000, STEP),
        (STEP, 1000, STEP),
        (STEP + 5, 1000, STEP + 5),
        (10 * MOST, 1000, MOST),
        (STEP + 5, PROMPT + STEP + 2, STEP + 2),
        (STEP + 5, PROMPT + STEP, STEP),
    ],
)
async def test_at_the_end_the_hold_covers_what_was_used_as_far_as_it_can_be_paid(
    used: int, credit: int, held: int
) -> None:
    scene = Scene(credit=credit)
    lease = await scene.lease()
    lease.stop()
    await lease.cover(used)
    assert (lease.hold.output_cap, scene.held) == (held, PROMPT + held)


@pytest.mark.parametrize("error", [Unavailable("Away."), Conflict("Expired."), QuotaExceeded("No.")])
async def test_a_hold_that_cannot_cover_what_was_used_is_settled_as_it_is(error: Exception) -> None:
    scene = Scene()
    scene.ledger.errors.append(error)
    lease = await scene.lease()
    lease.stop()
    await lease.cover(STEP + 1)
    assert lease.hold.output_cap == STEP


async def test_a_renewal_under_way_at_the_end_is_waited_for() -> None:
    scene = Scene()
    scene.ledger.renewal_gate = Gate()
    lease = await scene.lease()
    await lease.wrote(STEP - 1)
    await scene.ledger.renewal_gate.reached.wait()
    lease.stop()
    covering = asyncio.create_task(lease.cover(STEP + 1))
    await turns()
    assert not covering.done()
    scene.ledger.renewal_gate.opened.set()
    await covering
    assert (lease.hold.output_cap, scene.demands) == (STEP - 1 + STEP + 1, [2 * STEP])


@pytest.mark.parametrize("ending", ["refused", "cancelled"])
async def test_nothing_is_heard_of_a_renewal_after_the_end(ending: str) -> None:
    scene = Scene(credit=PROMPT + STEP if ending == "refused" else 1000)
    scene.ledger.renewal_gate = Gate()
    lease = await scene.lease()
    await lease.wrote(STEP - 1)
    await scene.ledger.renewal_gate.reached.wait()
    if ending == "cancelled":
        scene.ledger.cancel_requested = True
    lease.stop()
    scene.ledger.renewal_gate.opened.set()
    await lease.cover(STEP)
    assert (scene.exhausted, scene.cancelled) == (0, 0)


async def test_a_note_under_way_at_the_end_is_given_up() -> None:
    scene = Scene(every_s=SOON_S)
    scene.note_gate = Gate()
    lease = await scene.lease()
    await scene.note_gate.reached.wait()
    lease.stop()
    await lease.cover(0)
    assert scene.ledger.asked == 0


async def test_nothing_begins_after_the_end() -> None:
    scene = Scene()
    lease = await scene.lease()
    lease.stop()
    await lease.wrote(STEP)
    await turns()
    assert scene.ledger.asked == 0


async def test_one_that_never_started_is_stopped_quietly() -> None:
    scene = Scene()
    lease = await scene.lease(started=False)
    lease.stop()
    await lease.cover(0)
    assert scene.ledger.asked == 0


async def test_growth_whose_answer_was_lost_is_not_refused() -> None:
    """The ledger asks the database again where it does not know what became of a transaction."""
    scene = Scene(credit=PROMPT + 2 * STEP)
    lease = await scene.lease()
    grown = Demand(prompt_tokens=PROMPT, output_tokens=2 * STEP)
    await scene.ledger.renew(Renewal(hold=lease.hold, at=NOW, expires_at=NOW, demand=grown))
    await lease.wrote(STEP)
    assert (lease.hold.output_cap, scene.exhausted) == (2 * STEP, 0)
    lease.stop()
