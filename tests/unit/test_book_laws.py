"""The laws of the ledger, whatever is done in whatever order."""

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from src.domain.identity.model import User
from src.domain.ledger.book import Book
from src.domain.ledger.model import AccountId, Closing, Demand, EntryKind, Hold, HoldState, Scope, Unit
from src.shared.errors import Conflict, QuotaExceeded
from src.shared.money import MicroDollars
from tests.makers import make_closing, make_hold_request, make_tenant, make_top_up, make_user

TENANT = make_tenant()
USERS = [make_user(TENANT), make_user(TENANT)]
users = st.sampled_from(USERS)
units = st.sampled_from(Unit)
amounts = st.integers(1, 300)
used = st.integers(0, 400)


class LedgerMachine(RuleBasedStateMachine):
    """Users of one tenant who share the tenant's accounts, with calls that overlap, fail, expire and come back late."""

    holds = Bundle("holds")
    expired = Bundle("expired")

    def __init__(self) -> None:
        super().__init__()
        self.book = Book([])
        self.open: dict[object, Hold] = {}
        self.entries_of: defaultdict[AccountId, int] = defaultdict(int)

    @rule(user=users, unit=units, amount=amounts, shared=st.booleans())
    def top_up(self, user: User, unit: Unit, amount: int, shared: bool) -> None:
        scope = {"scope": Scope.TENANT, "scope_id": user.tenant_id} if shared else {}
        self.book.adjust(make_top_up(user, amount, unit=unit, **scope))

    @rule(user=users, unit=units, amount=amounts)
    def deduct(self, user: User, unit: Unit, amount: int) -> None:
        try:
            self.book.adjust(make_top_up(user, -amount, unit=unit))
        except Conflict as conflict:
            assert conflict.details["limit"] - conflict.details["used"] - conflict.details["held"] < amount  # noqa: PT017

    @rule(
        target=holds, user=users, prompt=st.integers(0, 100), output=st.integers(0, 100), rate=st.integers(0, 2_000_000)
    )
    def hold(self, user: User, prompt: int, output: int, rate: int) -> object:
        demand = Demand(prompt_tokens=prompt, output_tokens=output, rates=(rate, rate))
        try:
            hold = self.book.open(make_hold_request(user, demand=demand))
        except QuotaExceeded:
            return None
        assert hold.output_cap is None or 0 <= hold.output_cap <= output
        self.open[hold.id] = hold
        return hold

    @rule(hold=consumes(holds), tokens=used, cost=used)
    def settle(self, hold: Hold | None, tokens: int, cost: int) -> None:
        if hold is None:
            return
        closed = self.book.close(make_closing(hold, tokens=tokens, micro_usd=MicroDollars(cost)))
        owed = {Unit.TOKENS: tokens, Unit.MICRO_USD: cost, Unit.REQUESTS: 1}
        for line in hold.lines:
            assert closed.lost.get(line.unit, 0) == max(0, owed[line.unit] - line.amount)
        self._closed(hold)

    @rule(hold=consumes(holds))
    def release(self, hold: Hold | None) -> None:
        if hold is not None:
            self.book.close(Closing(hold=hold, state=HoldState.RELEASED, at=hold.created_at))
            self._closed(hold)

    @rule(target=expired, hold=consumes(holds))
    def expire(self, hold: Hold | None) -> Hold | None:
        if hold is not None:
            self.book.close(Closing(hold=hold, state=HoldState.EXPIRED, at=hold.expires_at))
            del self.open[hold.id]
        return hold

    @rule(hold=consumes(expired), tokens=used)
    def settle_late(self, hold: Hold | None, tokens: int) -> None:
        if hold is not None:
            self.book.close(make_closing(hold, tokens=tokens))
            self._refuses_to_close(hold)

    def _closed(self, hold: Hold) -> None:
        del self.open[hold.id]
        self._refuses_to_close(hold)

    def _refuses_to_close(self, hold: Hold) -> None:
        try:
            self.book.close(make_closing(hold))
        except Conflict:
            return
        raise AssertionError("a hold was closed twice")

    @invariant()
    def the_books_are_right(self) -> None:
        balance, spent, held = (defaultdict(int) for _ in range(3))
        for entry in self.book.entries:
            balance[entry.account_id] += entry.amount
            if entry.kind in (EntryKind.CHARGE, EntryKind.LATE_CHARGE):
                spent[entry.account_id] -= entry.amount
        for hold in self.open.values():
            for line in hold.lines:
                held[line.account_id] += line.amount
        for account_id in self.book.created:
            account = self.book.account(account_id)
            assert account.balance == balance[account_id]
            assert account.held == held[account_id]
            assert account.spent == spent[account_id]
            assert account.balance >= account.held >= 0
            assert account.limit >= account.spent + account.held


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestTheLawsOfTheLedger = LedgerMachine.TestCase
