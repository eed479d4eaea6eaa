"""Holds that live on: their lease, what is noted of their call, how they grow, and how they end without their call."""

from datetime import datetime, timedelta

import pytest

from src.domain.catalog.model import Usage
from src.domain.ledger.book import Book
from src.domain.ledger.model import (
    Account,
    Closed,
    Closing,
    Demand,
    EntryKind,
    Hold,
    HoldState,
    Renewal,
    Unit,
    UsageRecord,
)
from src.shared.errors import Conflict, QuotaExceeded
from src.shared.money import MicroDollars
from tests.makers import (
    NOW,
    make_account,
    make_closing,
    make_hold_request,
    make_tenant,
    make_top_up,
    make_usage_record,
    make_user,
    nobody,
)

USER = make_user(make_tenant())
LATER = NOW + timedelta(minutes=20)


def standing(book: Book, account: Account) -> tuple[int, int, int]:
    found = book.account(account.id)
    return found.balance, found.held, found.spent


def renew(book: Book, hold: Hold, **given: object) -> Hold:
    return book.renew(Renewal(**{"hold": hold, "at": NOW, "expires_at": LATER, **given}))  # type: ignore[arg-type]


def expire(book: Book, hold: Hold, at: datetime = LATER) -> Closed:
    return book.close(Closing(hold=hold, state=HoldState.EXPIRED, at=at))


def noted(hold: Hold, tokens: int, **given: object) -> UsageRecord:
    cost = MicroDollars(tokens // 10)
    return make_usage_record(
        hold, usage=Usage(input_tokens=10, output_tokens=tokens - 10), cost_micro_usd=cost, **given
    )


def demand(output: int) -> Demand:
    return Demand(prompt_tokens=10, output_tokens=output)


def test_renewing_moves_the_lease_and_takes_nothing() -> None:
    account = make_account(USER, 150)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    renewed = renew(book, hold)
    assert (renewed.expires_at, renewed.noted, renewed.lines) == (LATER, None, hold.lines)
    assert book.hold(hold.id) == book.renewed[hold.id] == renewed
    assert (standing(book, account), book.grown, book.entries) == ((150, 100, 0), set(), [])


def test_a_note_stays_until_the_next_one() -> None:
    book = Book([])
    hold = book.open(make_hold_request(USER))
    first, second = noted(hold, 20), noted(hold, 30)
    assert renew(book, hold, noted=first).noted == first
    assert renew(book, hold).noted == first
    assert renew(book, hold, noted=second).noted == second


@pytest.mark.parametrize(("balance", "cap"), [(1000, 190), (210, 190), (209, 189), (111, 91)])
def test_a_hold_grows_as_far_as_the_accounts_can_pay(balance: int, cap: int) -> None:
    account = make_account(USER, balance)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    other = book.open(make_hold_request(USER, demand=Demand(prompt_tokens=10, output_tokens=0)))
    grown = renew(book, hold, demand=demand(190))
    assert (grown.output_cap, [line.amount for line in grown.lines]) == (cap, [cap + 10])
    assert standing(book, account) == (balance, cap + 10 + 10, 0)
    assert book.grown == {hold.id}
    book.close(Closing(hold=other, state=HoldState.RELEASED, at=NOW))
    book.close(make_closing(hold, tokens=cap + 10))
    assert standing(book, account) == (balance - cap - 10, 0, cap + 10)


def test_the_scarcest_account_bounds_the_growth_of_all() -> None:
    tokens, micro_usd = make_account(USER, 1000), make_account(USER, 250, unit=Unit.MICRO_USD)
    calls = make_account(USER, 1, unit=Unit.REQUESTS)
    book = Book([tokens, micro_usd, calls])
    rates = (1_000_000, 2_000_000)
    hold = book.open(make_hold_request(USER, demand=Demand(prompt_tokens=10, output_tokens=90, rates=rates)))
    grown = renew(book, hold, demand=Demand(prompt_tokens=10, output_tokens=500, rates=rates))
    assert grown.output_cap == 120
    assert {line.unit: line.amount for line in grown.lines} == {
        Unit.TOKENS: 130,
        Unit.MICRO_USD: 250,
        Unit.REQUESTS: 1,
    }
    assert standing(book, calls) == (1, 1, 0)


@pytest.mark.parametrize("wish", [90, 20])
def test_growth_that_is_there_already_is_not_refused(wish: int) -> None:
    account = make_account(USER, 100)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    renewed = renew(book, hold, demand=demand(wish))
    assert (renewed.output_cap, renewed.lines, renewed.expires_at) == (90, hold.lines, LATER)
    assert (standing(book, account), book.grown) == ((100, 100, 0), set())


def test_a_hold_that_cannot_grow_stays_as_it_was() -> None:
    account = make_account(USER, 100)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    with pytest.raises(QuotaExceeded):
        renew(book, hold, demand=demand(190), noted=noted(hold, 20))
    assert (book.hold(hold.id), book.renewed, book.grown) == (hold, {}, set())
    assert standing(book, account) == (100, 100, 0)


def test_a_call_that_no_account_limits_needs_no_growth() -> None:
    book = Book([])
    hold = book.open(make_hold_request(USER))
    assert renew(book, hold, demand=demand(10**9)).output_cap is None
    assert book.grown == set()


@pytest.mark.parametrize("state", [HoldState.SETTLED, HoldState.RELEASED, HoldState.EXPIRED])
def test_a_closed_hold_is_not_renewed(state: HoldState) -> None:
    account = make_account(USER, 150)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    book.close(make_closing(hold, state=state, at=LATER))
    with pytest.raises(Conflict, match=state.value):
        renew(book, hold, demand=demand(95))
    assert book.renewed == {}
    assert book.account(account.id).held == 0


def test_a_hold_nobody_knows_is_not_renewed() -> None:
    with pytest.raises(Conflict, match="unknown"):
        renew(Book([]), Book([]).open(make_hold_request(USER)))


def test_a_renewed_hold_does_not_expire_before_its_new_time() -> None:
    account = make_account(USER, 150)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    renew(book, hold)
    with pytest.raises(Conflict, match="renewed"):
        expire(book, hold, at=hold.expires_at)
    assert standing(book, account) == (150, 100, 0)
    expire(book, hold)
    assert standing(book, account) == (150, 0, 0)


def test_an_expired_call_is_charged_what_was_noted_of_it() -> None:
    tokens, calls = make_account(USER, 500), make_account(USER, 5, unit=Unit.REQUESTS)
    micro_usd, member = make_account(USER, 500, unit=Unit.MICRO_USD), make_account(USER, 500, model="dear")
    book = Book([tokens, calls, micro_usd, member])
    rates = (1_000_000, 1_000_000)
    wish = Demand(prompt_tokens=10, output_tokens=90, rates=rates)
    hold = book.open(make_hold_request(USER, model="smart", models=("dear", "cheap"), demand=wish))
    message_id = nobody()
    renew(book, hold, noted=noted(hold, 60, model="cheap", message_id=message_id))
    assert expire(book, hold).lost == {}
    assert [standing(book, each) for each in (tokens, calls, micro_usd)] == [(440, 0, 60), (4, 0, 1), (494, 0, 6)]
    assert standing(book, member) == (500, 0, 0)
    assert {(entry.kind, entry.model, entry.message_id) for entry in book.entries} == {
        (EntryKind.CHARGE, "cheap", message_id)
    }


def test_an_expired_call_is_never_charged_above_its_hold() -> None:
    account = make_account(USER, 500)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    renew(book, hold, noted=noted(hold, 130))
    assert expire(book, hold).lost == {Unit.TOKENS: 30}
    assert standing(book, account) == (400, 0, 100)


@pytest.mark.parametrize(
    ("noted_tokens", "used", "late", "lost"),
    [
        (60, 80, 20, {}),
        (60, 60, 0, {}),
        (60, 30, -30, {}),
        (130, 130, 30, {}),
        (60, 1000, 440, {Unit.TOKENS: 500}),
    ],
    ids=["more", "the same", "less", "above the hold", "more than there is"],
)
def test_a_late_settlement_charges_the_rest_or_gives_it_back(
    noted_tokens: int, used: int, late: int, lost: dict[Unit, int]
) -> None:
    account = make_account(USER, 500)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    renew(book, hold, noted=noted(hold, noted_tokens))
    expire(book, hold)
    paid = min(noted_tokens, 100)
    assert book.close(make_closing(hold, tokens=used)).lost == lost
    assert standing(book, account) == (500 - paid - late, 0, paid + late)
    assert [(entry.kind, entry.amount) for entry in book.entries] == [
        (EntryKind.CHARGE, -paid),
        *([(EntryKind.LATE_CHARGE, -late)] if late else []),
    ]
    with pytest.raises(Conflict):
        book.close(make_closing(hold, tokens=used))


def test_a_late_settlement_takes_nothing_from_an_account_below_zero() -> None:
    account = make_account(USER, 150)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    expire(book, hold)
    book.adjust(make_top_up(USER, -150))
    assert book.close(make_closing(hold)).lost == {Unit.TOKENS: 40}
    assert standing(book, account) == (0, 0, 0)
