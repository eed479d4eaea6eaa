"""Every ledger against a model in plain integers, through any sequence of what callers, administrators and time do."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    invariant,
    rule,
    run_state_machine_as_test,
)

from src.domain.catalog.model import Usage
from src.domain.ledger.model import (
    CallStatus,
    Closing,
    Demand,
    Hold,
    HoldRequest,
    HoldState,
    Renewal,
    UsageRecord,
)
from src.shared.errors import Conflict, QuotaExceeded
from src.shared.money import MicroDollars
from tests.contracts.conftest import LossyNetwork, Opener
from tests.contracts.ledger_machine import AdministeredLedger, Scene, places
from tests.contracts.ledger_model import RATE, Lent, Rule, Used, Wish
from tests.makers import make_hold_request, make_usage_record

CHAINS = {"fast": ("fast",), "dear": ("dear",), "smart": ("dear", "fast")}
LEASE = timedelta(minutes=5)
PHASES = (Phase.reuse, Phase.generate, Phase.shrink)
EXAMPLES = {"memory": 40, "sqlite": 14, "postgresql": 12}

amounts = st.integers(0, 400)
losses = st.sampled_from([None, None, None, "commit", "acknowledgement"])


class LedgerMachine(AdministeredLedger):
    """Calls of its users that overlap, grow, fail, expire and come back late, through two replicas."""

    def wish(self, who: int, name: str, demand: Demand, with_key: bool) -> tuple[HoldRequest, Wish]:
        user = self.users[who % 2]
        request = make_hold_request(
            user,
            api_key_id=self.keys[who % 2].id if with_key else None,
            model=name,
            models=CHAINS[name],
            demand=demand,
            at=self.now,
            expires_at=self.now + LEASE,
            time_zone=self.zone,
        )
        rates = (demand.rates[0] // RATE, demand.rates[1] // RATE)
        size = (demand.prompt_tokens, demand.output_tokens, demand.least_output_tokens)
        return request, Wish(request.scopes, name, CHAINS[name], *size, *rates)

    demands = st.builds(
        Demand,
        prompt_tokens=st.integers(0, 60),
        output_tokens=st.integers(0, 120),
        least_output_tokens=st.sampled_from([1, 16, 1000]),
        rates=st.tuples(st.sampled_from([0, RATE, 2 * RATE]), st.sampled_from([0, RATE, 2 * RATE])),
    )

    @rule(who=places, name=st.sampled_from(sorted(CHAINS)), demand=demands, with_key=st.booleans(), loss=losses)
    def open(self, who: int, name: str, demand: Demand, with_key: bool, loss: str | None) -> None:
        request, wish = self.wish(who, name, demand, with_key)
        expected = self.model.admits(wish, self.now)
        hold = self.told(lambda ledger: ledger.open(request), loss, who)
        if expected is None:
            assert isinstance(hold, QuotaExceeded)
        else:
            assert seen(hold) == (expected.cap, expected.amounts, expected.excluded)
            self._took(expected, hold)

    @rule(who=places, name=st.sampled_from(sorted(CHAINS)), demand=demands, count=st.integers(2, 9))
    def open_many_at_once(self, who: int, name: str, demand: Demand, count: int) -> None:
        """Equal calls to two replicas: whatever order they are taken in, the same ones are admitted."""
        asked = [self.wish(who, name, demand, True) for _ in range(count)]
        ledgers = self.scene.ledgers

        async def opened() -> list[Any]:
            opens = (ledgers[index % 2].open(request) for index, (request, _) in enumerate(asked))
            return await asyncio.gather(*opens, return_exceptions=True)

        found = self.run(opened())
        holds = sorted((hold for hold in found if isinstance(hold, Hold)), key=lambda hold: -(hold.output_cap or 0))
        assert all(isinstance(each, Hold | QuotaExceeded) for each in found)
        for _, wish in asked:
            expected = self.model.admits(wish, self.now)
            if expected is None:
                break
            hold = next(each for each in holds if seen(each) == (expected.cap, expected.amounts, expected.excluded))
            holds.remove(hold)
            self._took(expected, hold)
        assert holds == []

    def _took(self, expected: Lent, hold: Hold) -> None:
        self.model.take(expected)
        expected.hold, expected.expires_at = hold, hold.expires_at
        self.lent.append(expected)

    def pick(self, which: int, *states: str) -> Lent | None:
        found = [lent for lent in self.lent if lent.state in states]
        return found[which % len(found)] if found else None

    @rule(which=places, used=st.tuples(amounts, amounts), more=st.integers(0, 200), what=places, loss=losses)
    def renew(self, which: int, used: tuple[int, int], more: int, what: int, loss: str | None) -> None:
        """Note, grow, or both; a quarter of the time it is only a sign of life."""
        lent = self.pick(which, "open")
        if lent is None:
            return
        note = Used(*used, self._answering(lent, what)) if what % 2 else None
        demand = self._demand(lent.wish, (lent.cap or 0) + more) if what % 4 > 1 else None
        record = None if note is None else self._record(lent, note)
        renewal = Renewal(hold=lent.hold, at=self.now, expires_at=self.now + LEASE, noted=record, demand=demand)
        renewed = self.told(lambda ledger: ledger.renew(renewal), loss, which)
        if demand is not None and lent.cap is not None and not self.model.grow(lent, demand.output_tokens):
            assert isinstance(renewed, QuotaExceeded)
            return
        assert (renewed.output_cap, seen(renewed)[1]) == (lent.cap, lent.amounts)
        lent.hold, lent.expires_at, lent.noted = renewed, self.now + LEASE, note or lent.noted

    def _demand(self, wish: Wish, output: int) -> Demand:
        rates = (wish.price_in * RATE, wish.price_out * RATE)
        return Demand(prompt_tokens=wish.prompt, output_tokens=output, rates=rates)

    @rule(which=places, used=st.tuples(amounts, amounts), what=places, loss=losses)
    def settle(self, which: int, used: tuple[int, int], what: int, loss: str | None) -> None:
        lent = self.pick(which, "open", "expired")
        if lent is None:
            return
        was_late = lent.state == "expired"
        note = Used(*used, self._answering(lent, what))
        closed = self.told(self._closing(lent, note), loss, which)
        lost = self.model.settle(lent, note)
        assert closed.hold_id == lent.hold.id
        if not (was_late and loss):  # how much a late charge could collect is not kept for a second asking
            assert closed.lost == lost

    @rule(which=places, used=st.tuples(amounts, amounts), what=places)
    def settle_all_at_once_and_twice(self, which: int, used: tuple[int, int], what: int) -> None:
        open_ones = [lent for lent in self.lent if lent.state == "open"][: which % 6]
        ledgers = self.scene.ledgers

        async def settled() -> list[Any]:
            notes = [Used(*used, self._answering(lent, what)) for lent in open_ones]
            closings = [self._closing(lent, note) for lent, note in zip(open_ones, notes, strict=True)]
            twice = (closing(ledger) for closing in closings for ledger in ledgers)
            return await asyncio.gather(*twice, return_exceptions=True)

        found = Counter(type(each).__name__ for each in self.run(settled()))
        assert found == Counter({"Closed": len(open_ones), "Conflict": len(open_ones)})
        for lent in open_ones:
            self.model.settle(lent, Used(*used, self._answering(lent, what)))

    @rule(which=places, loss=losses)
    def release(self, which: int, loss: str | None) -> None:
        lent = self.pick(which, "open", "expired")
        if lent is None:
            return
        row = replace(self._record(lent, Used(0, 0, "fast")), status=CallStatus.FAILED)
        closing = Closing(hold=lent.hold, state=HoldState.RELEASED, at=self.now)
        closed = self.told(lambda ledger: ledger.close(closing, (row,)), loss, which)
        assert closed.lost == {}
        if lent.state == "open":
            self.model.usage[lent.hold.id] = Used(0, 0, "fast")
        self.model.release(lent)

    @rule(which=places, state=st.sampled_from(HoldState))
    def close_again(self, which: int, state: HoldState) -> None:
        lent = self.pick(which, "settled", "released")
        if lent is not None and state is not HoldState.OPEN:
            closing = Closing(hold=lent.hold, state=state, at=self.now + LEASE, tokens=5, requests=1, model="fast")
            assert isinstance(self.told(lambda ledger: ledger.close(closing)), Conflict)
            renewal = Renewal(hold=lent.hold, at=self.now, expires_at=self.now + LEASE)
            assert isinstance(self.told(lambda ledger: ledger.renew(renewal)), Conflict)

    def _answering(self, lent: Lent, what: int) -> str:
        """One of the models that the call may reach."""
        reached = [name for name in lent.wish.members if name not in lent.excluded]
        return reached[what % len(reached)]

    def _closing(self, lent: Lent, used: Used) -> Callable[[Any], Awaitable[Any]]:
        closing = Closing(
            hold=lent.hold,
            state=HoldState.SETTLED,
            at=self.now,
            tokens=used.tokens,
            micro_usd=MicroDollars(used.cost),
            requests=1,
            model=used.model,
        )
        row = self._record(lent, used)
        return lambda ledger: ledger.close(closing, (row,))

    def _record(self, lent: Lent, used: Used) -> UsageRecord:
        cost = MicroDollars(used.cost)
        usage = Usage(input_tokens=used.tokens // 3, output_tokens=used.tokens - used.tokens // 3)
        return make_usage_record(lent.hold, usage=usage, cost_micro_usd=cost, model=used.model, created_at=self.now)

    @rule()
    def sweep(self) -> None:
        due = [lent for lent in self.lent if lent.state == "open" and lent.expires_at <= self.now]
        auditor = self.scene.backend.auditor(self.scene.ledgers[0], lambda: self.now)
        assert self.run(auditor.close_expired()) == len(due)
        for lent in due:
            self.model.expire(lent)

    # What must be true at any time.

    @rule()
    def the_auditor_finds_nothing(self) -> None:
        """Not after every step: it looks at all that the runs before this one have left, too."""
        auditor = self.scene.backend.auditor(self.scene.ledgers[0], lambda: self.now)
        assert self.run(auditor.discrepancies()) == []

    @invariant()
    def every_number_is_the_models(self) -> None:
        rules = [*self.model.rules.values(), *self.model.removed]
        found = {(account.quota_id, account.period): account for account in self.run(self._accounts(rules))}
        for each in rules:
            for period, purse in each.purses.items():
                account = found[(each.id, period)]  # type: ignore[index]
                assert (account.limit, account.spent, account.held) == (purse.given, purse.spent, purse.held)
        for account in found.values():
            assert account.available >= 0 or account.limit < account.spent + account.held

    async def _accounts(self, rules: list[Rule]) -> list[Any]:
        """Of every quota there ever was; those that the ledger says are in force are those of the model."""
        scopes = sorted({(each.key.scope, each.key.scope_id) for each in rules})
        periods = sorted({period for each in rules for period in each.purses})
        async with self.scene.backend.open_uow(self.tenant.id) as uow:
            in_force = {quota.id: quota.limit for quota in await uow.accounts.quotas_of(scopes)}
            assert in_force == {each.id: each.limit for each in self.model.rules.values()}
            return await uow.accounts.accounts_of([each.id for each in rules], periods)  # type: ignore[misc]

    @invariant()
    def every_call_is_counted_once(self) -> None:
        async def counted() -> tuple[int, int, int]:
            async with self.scene.backend.open_uow(self.tenant.id) as uow:
                since, until = datetime(2026, 11, 1, tzinfo=UTC).date(), self.now.date()
                rows = await uow.accounts.usage(user_id=None, since=since, until=until)
            tokens = sum(row.input_tokens + row.output_tokens for row in rows)
            return sum(row.calls for row in rows), tokens, sum(row.cost_micro_usd for row in rows)

        used = self.model.usage.values()
        expected = (len(used), sum(each.tokens for each in used), sum(each.cost for each in used))
        assert self.run(counted()) == expected

    def teardown(self) -> None:
        """The next run shares the database: its sweep must not find our holds."""
        for lent in self.lent:
            if lent.state == "open":
                closing = Closing(hold=lent.hold, state=HoldState.RELEASED, at=self.now)
                self.told(lambda ledger, closing=closing: ledger.close(closing))
        self.the_auditor_finds_nothing()


def seen(hold: Hold) -> tuple[Any, ...]:
    return hold.output_cap, sorted((line.unit.value, line.amount) for line in hold.lines), hold.excluded_models


def test_the_ledger_does_what_the_model_says(every_opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    with asyncio.Runner() as runner:
        opened = every_opener()
        backend = runner.run(opened.__aenter__())
        serving = [each.ledger() for each in (backend, backend.replica())]
        ledgers = [runner.run(each.__aenter__()) for each in serving]

        class Machine(LedgerMachine):
            scene = Scene(runner=runner, backend=backend, ledgers=ledgers, network=LossyNetwork(monkeypatch))

        try:
            bounds = settings(
                max_examples=EXAMPLES[backend.name],
                stateful_step_count=25,
                deadline=None,
                phases=PHASES,
                suppress_health_check=list(HealthCheck),
            )
            run_state_machine_as_test(Machine, settings=bounds)
        finally:
            for each in serving:
                runner.run(each.__aexit__(None, None, None))
            runner.run(opened.__aexit__(None, None, None))
