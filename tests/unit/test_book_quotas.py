"""Which quotas pay for a call, and what happens when an administrator changes them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.domain.ledger.book import Book
from src.domain.ledger.model import MAX_AMOUNT, Account, Demand, EntryKind, Hold, Unit, Window
from src.shared.errors import Conflict, InvalidRequest, QuotaExceeded
from tests.makers import (
    NOW,
    make_account,
    make_closing,
    make_hold_request,
    make_limit,
    make_tenant,
    make_top_up,
    make_user,
)

USER = make_user(make_tenant())
CHAIN = {"model": "smart", "models": ("dear", "cheap")}
REQUEST = make_hold_request(USER)


def standing(book: Book, account: Account) -> tuple[int, int, int]:
    found = book.account(account.id)
    return found.balance, found.held, found.spent


def payers(hold: Hold) -> set[object]:
    return {line.account_id for line in hold.lines}


@pytest.mark.parametrize(
    "given",
    [
        {"window": Window.DAY, "period": "2026-11-20"},
        {"window": Window.DAY, "period": "2026-11-22"},
        {"window": Window.MONTH, "period": "2026-12"},
        {"window": Window.DAY, "removed": True},
        {"removed": True},
        {"model": "another"},
    ],
    ids=["yesterday's", "tomorrow's", "next month's", "removed", "removed prepaid", "another model's"],
)
def test_what_is_not_in_force_neither_pays_nor_refuses(given: dict[str, object]) -> None:
    account = make_account(USER, 0, **given)
    hold = Book([account]).open(make_hold_request(USER))
    assert (hold.lines, hold.output_cap) == ((), None)


def test_day_month_and_credit_all_pay() -> None:
    accounts = [make_account(USER, 500, window=window) for window in Window]
    assert payers(Book(accounts).open(make_hold_request(USER))) == {account.id for account in accounts}


@pytest.mark.parametrize(
    ("zone", "at", "period"),
    [
        ("UTC", NOW.replace(hour=23), "2026-11-21"),
        ("Asia/Tokyo", NOW.replace(hour=15), "2026-11-22"),
        ("America/New_York", NOW.replace(hour=4), "2026-11-20"),
    ],
)
def test_the_day_is_the_tenants(zone: str, at: object, period: str) -> None:
    days = [make_account(USER, 500, window=Window.DAY, period=f"2026-11-{day}") for day in (20, 21, 22)]
    hold = Book(days).open(make_hold_request(USER, at=at, time_zone=zone))
    assert payers(hold) == {day.id for day in days if day.period == period}


def test_a_refusal_says_when_a_day_begins_anew_in_the_tenants_zone() -> None:
    day = make_account(USER, 10, window=Window.DAY)
    with pytest.raises(QuotaExceeded, match="starts anew at 2026-11-22T05:00:00Z") as refused:
        Book([day]).open(make_hold_request(USER, time_zone="America/New_York", at=NOW.replace(hour=12)))
    told = {
        "window": "day",
        "limit": 10,
        "used": 0,
        "needed": 100,
        "resets_at": NOW.replace(day=22, hour=5, minute=0, second=0, microsecond=0),
    }
    assert told.items() <= refused.value.details.items()


def test_a_refusal_for_one_model_names_it() -> None:
    with pytest.raises(QuotaExceeded, match="user's quota of tokens for fast cannot") as refused:
        Book([make_account(USER, 10, model="fast")]).open(make_hold_request(USER))
    assert refused.value.details["model"] == "fast"


def test_a_member_that_cannot_pay_is_left_out_and_the_chain_goes_on() -> None:
    shared = make_account(USER, 500)
    dear, cheap = make_account(USER, 99, model="dear"), make_account(USER, 100, model="cheap")
    book = Book([shared, dear, cheap])
    hold = book.open(make_hold_request(USER, **CHAIN))
    assert hold.excluded_models == ("dear",)
    assert payers(hold) == {shared.id, cheap.id}
    assert standing(book, dear) == (99, 0, 0)


def test_a_member_left_out_by_one_quota_holds_none_of_its_others() -> None:
    tokens, calls = make_account(USER, 500, model="dear"), make_account(USER, 0, model="dear", unit=Unit.REQUESTS)
    for accounts in ([tokens, calls], [calls, tokens]):
        book = Book(accounts)
        assert book.open(make_hold_request(USER, **CHAIN)).excluded_models == ("dear",)
        assert standing(book, tokens) == (500, 0, 0)


def test_a_member_that_is_left_out_does_not_shrink_the_answer() -> None:
    dear, calls = make_account(USER, 50, model="dear"), make_account(USER, 0, model="dear", unit=Unit.REQUESTS)
    book = Book([dear, calls, make_account(USER, 500)])
    hold = book.open(make_hold_request(USER, demand=Demand(prompt_tokens=10, output_tokens=90), **CHAIN))
    assert (hold.output_cap, [line.amount for line in hold.lines]) == (90, [100])


def test_a_chain_of_which_no_member_can_pay_is_refused_and_holds_nothing() -> None:
    shared = make_account(USER, 500)
    dear, cheap = make_account(USER, 99, model="dear"), make_account(USER, 1, model="cheap")
    book = Book([shared, dear, cheap])
    with pytest.raises(QuotaExceeded, match="for cheap"):
        book.open(make_hold_request(USER, **CHAIN))
    assert (book.opened, standing(book, shared)) == ([], (500, 0, 0))


def test_the_quota_of_the_chain_itself_refuses_it() -> None:
    with pytest.raises(QuotaExceeded, match="for smart"):
        Book([make_account(USER, 99, model="smart")]).open(make_hold_request(USER, **CHAIN))


def test_every_account_that_cannot_pay_refuses_and_the_book_stays_as_it_was() -> None:
    short = [make_account(USER, 99), make_account(USER, 0, unit=Unit.REQUESTS, window=Window.DAY)]
    book = Book([*short, make_account(USER, 100, window=Window.MONTH)])
    told = [(each.details["unit"], each.details["window"], each.details["needed"]) for each in book.refusals(REQUEST)]
    assert told == [("tokens", "none", 100), ("requests", "day", 1)]
    assert (book.opened, book.changed) == ([], set())
    with pytest.raises(QuotaExceeded) as refused:
        book.open(REQUEST)
    assert refused.value.details == book.refusals(REQUEST)[0].details


def test_members_of_a_chain_refuse_only_together() -> None:
    dear, cheap = make_account(USER, 99, model="dear"), make_account(USER, 99, model="cheap")
    request = make_hold_request(USER, **CHAIN)
    assert Book([dear]).refusals(request) == []
    assert [each.details["model"] for each in Book([dear, cheap]).refusals(request)] == ["dear", "cheap"]
    shared = make_account(USER, 99)
    assert [each.details["model"] for each in Book([dear, shared]).refusals(request)] == [None]


@given(
    accounts=st.lists(
        st.builds(
            make_account,
            st.just(USER),
            st.integers(0, 250),
            unit=st.sampled_from(Unit),
            window=st.sampled_from(Window),
            model=st.sampled_from([None, "smart", "dear", "cheap", "another"]),
            held=st.integers(0, 60),
        ),
        max_size=6,
    ),
    least=st.integers(1, 90),
)
def test_a_call_is_refused_with_one_of_the_refusals_and_taken_where_there_is_none(
    accounts: list[Account], least: int
) -> None:
    demand = Demand(prompt_tokens=10, output_tokens=90, least_output_tokens=least, rates=(1_000_000, 2_000_000))
    request = make_hold_request(USER, demand=demand, **CHAIN)
    book = Book(accounts)
    refusals = [(each.message, each.details) for each in book.refusals(request)]
    if not refusals:
        book.open(request)
        return
    with pytest.raises(QuotaExceeded) as refused:
        book.open(request)
    assert (refused.value.message, refused.value.details) in refusals


def test_a_member_is_charged_only_if_it_answered() -> None:
    shared, chain = make_account(USER, 500), make_account(USER, 500, model="smart")
    dear, cheap = make_account(USER, 500, model="dear"), make_account(USER, 500, model="cheap")
    book = Book([shared, chain, dear, cheap])
    hold = book.open(make_hold_request(USER, **CHAIN))
    assert all(standing(book, account) == (500, 100, 0) for account in (shared, chain, dear, cheap))
    closed = book.close(make_closing(hold, model="cheap"))
    assert closed.lost == {}
    assert all(standing(book, account) == (460, 0, 40) for account in (shared, chain, cheap))
    assert standing(book, dear) == (500, 0, 0)
    assert {entry.account_id for entry in book.entries} == {shared.id, chain.id, cheap.id}


def test_the_first_limit_makes_the_account() -> None:
    book = Book([])
    account = book.set_limit(make_limit(USER, 300, reason="the plan"))
    assert (account.window, account.period, account.balance, account.limit) == (Window.DAY, "2026-11-21", 300, 300)
    assert book.created == {account.id}
    (entry,) = book.entries
    assert (entry.kind, entry.amount, entry.reason) == (EntryKind.LIMIT, 300, "the plan")


def test_a_limit_of_nothing_makes_an_account_without_a_line() -> None:
    book = Book([])
    account = book.set_limit(make_limit(USER, 0))
    assert (book.created, book.entries) == ({account.id}, [])
    with pytest.raises(QuotaExceeded):
        book.open(make_hold_request(USER))


@pytest.mark.parametrize(("limit", "booked", "free"), [(500, 200, 360), (300, 0, 160), (200, -100, 60)])
def test_a_new_limit_counts_what_was_spent(limit: int, booked: int, free: int) -> None:
    day = make_account(USER, 260, window=Window.DAY, spent=40)
    book = Book([day])
    book.open(make_hold_request(USER))
    account = book.set_limit(make_limit(USER, limit))
    assert (account.limit, account.available, account.spent) == (limit, free, 40)
    assert [entry.amount for entry in book.entries] == ([booked] if booked else [])


def test_a_limit_below_what_was_spent_admits_nothing_until_it_is_raised() -> None:
    day = make_account(USER, 160, window=Window.DAY, spent=240)
    book = Book([day])
    account = book.set_limit(make_limit(USER, 100))
    assert (account.limit, account.balance) == (100, -140)
    with pytest.raises(QuotaExceeded, match="0 left of 100") as refused:
        book.open(make_hold_request(USER, demand=Demand(prompt_tokens=0, output_tokens=0)))
    assert refused.value.details["used"] == 240
    with pytest.raises(Conflict):
        book.adjust(make_top_up(USER, -1, window=Window.DAY, period=day.period))
    assert book.adjust(make_top_up(USER, 150, window=Window.DAY, period=day.period)).balance == 10
    assert book.open(make_hold_request(USER, demand=Demand(prompt_tokens=5, output_tokens=90))).output_cap == 5


def test_a_limit_below_what_is_held_lets_open_calls_end() -> None:
    day = make_account(USER, 150, window=Window.DAY)
    book = Book([day])
    hold = book.open(make_hold_request(USER))
    assert book.set_limit(make_limit(USER, 60)).available == -40
    assert book.close(make_closing(hold, tokens=100)).lost == {}
    assert standing(book, day) == (-40, 0, 100)


def test_a_change_finds_the_one_account_it_is_for() -> None:
    day = make_account(USER, 100, window=Window.DAY)
    others = [
        make_account(USER, 100, window=Window.DAY, period="2026-11-20"),
        make_account(USER, 100, window=Window.DAY, removed=True),
        make_account(USER, 100, window=Window.DAY, model="fast"),
        make_account(USER, 100, window=Window.DAY, unit=Unit.REQUESTS),
        make_account(USER, 100, window=Window.MONTH),
    ]
    book = Book([*others, day])
    assert book.set_limit(make_limit(USER, 70)).id == day.id
    assert book.changed == {day.id}


def test_a_limit_has_a_limit() -> None:
    book = Book([])
    with pytest.raises(InvalidRequest):
        book.set_limit(make_limit(USER, MAX_AMOUNT + 1))
    assert (book.created, book.entries) == (set(), [])


def test_a_call_is_charged_in_the_period_it_began() -> None:
    today = make_account(USER, 500, window=Window.DAY)
    tomorrow = make_account(USER, 500, window=Window.DAY, period="2026-11-22")
    book = Book([today, tomorrow])
    hold = book.open(make_hold_request(USER))
    book.close(make_closing(hold, at=NOW + timedelta(days=1)))
    assert (standing(book, today), standing(book, tomorrow)) == ((460, 0, 40), (500, 0, 0))
