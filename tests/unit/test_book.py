"""The ledger's arithmetic, case by case. test_book_laws.py holds its laws under any sequence of operations."""

from datetime import timedelta

import pytest

from src.domain.identity.model import TenantId
from src.domain.ledger.book import Book
from src.domain.ledger.model import (
    MAX_AMOUNT,
    Account,
    Closed,
    Closing,
    Demand,
    EntryKind,
    Hold,
    HoldState,
    Scope,
    Unit,
    Window,
)
from src.shared.errors import Conflict, InvalidRequest, QuotaExceeded
from tests.makers import (
    NOW,
    make_account,
    make_closing,
    make_hold_request,
    make_tenant,
    make_top_up,
    make_user,
    nobody,
)

USER = make_user(make_tenant())


def account_of(balance: int = 100, **given: object) -> Account:
    return make_account(USER, balance, **given)


def snapshot(book: Book, *accounts: Account) -> list[tuple[int, int, int]]:
    found = (book.account(account.id) for account in accounts)
    return [(each.balance, each.held, each.spent) for each in found]


def expire(book: Book, hold: Hold) -> Closed:
    return book.close(Closing(hold=hold, state=HoldState.EXPIRED, at=hold.expires_at))


def test_a_hold_takes_prompt_and_output() -> None:
    account = account_of(balance=150)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    assert (hold.output_cap, [line.amount for line in hold.lines]) == (90, [100])
    assert snapshot(book, account) == [(150, 100, 0)]
    assert (book.opened, book.changed) == ([hold], {account.id})


def test_without_an_account_nothing_is_capped() -> None:
    book = Book([])
    hold = book.open(make_hold_request(USER))
    assert (hold.lines, hold.output_cap) == ((), None)
    assert book.close(make_closing(hold)).lost == {}
    assert book.entries == []


def test_a_refused_hold_takes_nothing() -> None:
    rich, poor = account_of(balance=10**6, unit=Unit.MICRO_USD), account_of(balance=99, spent=7)
    book = Book([rich, poor])
    with pytest.raises(QuotaExceeded) as caught:
        book.open(make_hold_request(USER))
    assert snapshot(book, rich, poor) == [(10**6, 0, 0), (99, 0, 7)]
    assert (book.opened, book.changed) == ([], set())
    told = {"scope": "user", "unit": "tokens", "limit": 106, "used": 7, "held": 0, "needed": 100}
    assert told.items() <= caught.value.details.items()


@pytest.mark.parametrize(("balance", "admitted"), [(99, 0), (100, 1), (1099, 10), (1100, 11)])
def test_of_many_holds_as_many_are_admitted_as_are_paid_for(balance: int, admitted: int) -> None:
    book = Book([account_of(balance=balance)])
    refused = 0
    for _ in range(40):
        try:
            book.open(make_hold_request(USER))
        except QuotaExceeded:
            refused += 1
    assert len(book.opened) == admitted == 40 - refused


@pytest.mark.parametrize(("balance", "cap"), [(11, 1), (50, 40), (100, 90), (1000, 90)])
def test_the_output_cap_shrinks_to_what_can_be_paid(balance: int, cap: int) -> None:
    book = Book([account_of(balance=balance)])
    hold = book.open(make_hold_request(USER, demand=Demand(prompt_tokens=10, output_tokens=90)))
    assert hold.output_cap == cap


def test_a_call_whose_output_would_be_nothing_is_refused() -> None:
    book = Book([account_of(balance=10)])
    with pytest.raises(QuotaExceeded):
        book.open(make_hold_request(USER, demand=Demand(prompt_tokens=10, output_tokens=90)))


def test_a_call_that_wishes_for_no_output_needs_its_prompt_only() -> None:
    book = Book([account_of(balance=10)])
    hold = book.open(make_hold_request(USER, demand=Demand(prompt_tokens=10, output_tokens=0)))
    assert (hold.output_cap, hold.lines[0].amount) == (0, 10)


def test_the_scarcest_of_several_accounts_sets_the_cap() -> None:
    tokens = account_of(balance=60)
    dollars = account_of(balance=70, unit=Unit.MICRO_USD)
    calls = account_of(balance=3, unit=Unit.REQUESTS)
    book = Book([tokens, dollars, calls])
    demand = Demand(prompt_tokens=10, output_tokens=90, rates=(1_000_000, 2_000_000))
    hold = book.open(make_hold_request(USER, demand=demand))
    assert hold.output_cap == 30
    assert {line.unit: line.amount for line in hold.lines} == {
        Unit.TOKENS: 40,
        Unit.MICRO_USD: 70,
        Unit.REQUESTS: 1,
    }


def test_no_request_left_refuses_whatever_else_is_there() -> None:
    book = Book([account_of(balance=10**6), account_of(balance=0, unit=Unit.REQUESTS)])
    with pytest.raises(QuotaExceeded) as caught:
        book.open(make_hold_request(USER))
    assert (caught.value.details["unit"], caught.value.details["needed"]) == ("requests", 1)


def test_free_output_is_not_capped_by_money() -> None:
    book = Book([account_of(balance=10, unit=Unit.MICRO_USD)])
    demand = Demand(prompt_tokens=10, output_tokens=90, rates=(1_000_000, 0))
    hold = book.open(make_hold_request(USER, demand=demand))
    assert (hold.output_cap, hold.lines[0].amount) == (90, 10)


def test_a_prompt_that_money_cannot_pay_is_refused() -> None:
    book = Book([account_of(balance=9, unit=Unit.MICRO_USD)])
    demand = Demand(prompt_tokens=10, output_tokens=90, rates=(1_000_000, 0))
    with pytest.raises(QuotaExceeded):
        book.open(make_hold_request(USER, demand=demand))


def test_tenant_user_and_key_all_pay_and_nobody_else() -> None:
    key_id = nobody()
    tenant = account_of(balance=500, scope=Scope.TENANT, scope_id=USER.tenant_id)
    user, key = account_of(balance=500), account_of(balance=500, scope=Scope.API_KEY, scope_id=key_id)
    foreign = [
        account_of(balance=1, scope_id=nobody()),
        account_of(balance=1, tenant_id=TenantId(nobody())),
        account_of(balance=1, scope=Scope.API_KEY, scope_id=nobody()),
        account_of(balance=1, model="another-model"),
    ]
    book = Book([tenant, user, key, *foreign])
    hold = book.open(make_hold_request(USER, api_key_id=key_id))
    assert [line.account_id for line in hold.lines] == [tenant.id, user.id, key.id]
    assert book.changed == {tenant.id, user.id, key.id}


def test_a_key_that_was_not_used_does_not_pay() -> None:
    key = account_of(balance=0, scope=Scope.API_KEY, scope_id=nobody())
    assert Book([key]).open(make_hold_request(USER)).lines == ()


def test_an_account_of_one_model_pays_for_that_model() -> None:
    book = Book([account_of(balance=500, model="fast")])
    assert len(book.open(make_hold_request(USER, model="fast")).lines) == 1
    assert book.open(make_hold_request(USER, model="slow", models=("slow",))).lines == ()


def test_settling_books_what_was_used_and_gives_back_the_rest() -> None:
    account = account_of(balance=150)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    message_id = nobody()
    closed = book.close(make_closing(hold, message_id=message_id))
    assert closed.lost == {}
    assert snapshot(book, account) == [(110, 0, 40)]
    (entry,) = book.entries
    assert (entry.amount, entry.kind, entry.hold_id, entry.message_id) == (-40, EntryKind.CHARGE, hold.id, message_id)
    assert (entry.model, entry.request_id, entry.account_id) == ("fast", hold.request_id, account.id)


@pytest.mark.parametrize("state", [HoldState.RELEASED, HoldState.EXPIRED])
def test_closing_with_nothing_gives_everything_back(state: HoldState) -> None:
    account = account_of(balance=150)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    book.close(Closing(hold=hold, state=state, at=hold.expires_at))
    assert snapshot(book, account) == [(150, 0, 0)]
    assert book.entries == []


def test_each_account_is_charged_in_its_own_unit() -> None:
    accounts = [account_of(balance=1000, unit=unit) for unit in Unit]
    book = Book(accounts)
    demand = Demand(prompt_tokens=10, output_tokens=90, rates=(1_000_000, 1_000_000))
    book.close(make_closing(book.open(make_hold_request(USER, demand=demand))))
    assert {entry.unit: entry.amount for entry in book.entries} == {
        Unit.TOKENS: -40,
        Unit.MICRO_USD: -7,
        Unit.REQUESTS: -1,
    }


def test_what_is_claimed_above_the_hold_is_the_operators_loss() -> None:
    account = account_of(balance=1000)
    book = Book([account])
    closed = book.close(make_closing(book.open(make_hold_request(USER)), tokens=130))
    assert closed.lost == {Unit.TOKENS: 30}
    assert snapshot(book, account) == [(900, 0, 100)]


def test_a_loss_is_counted_once_for_all_accounts_of_a_unit() -> None:
    tenant = account_of(balance=1000, scope=Scope.TENANT, scope_id=USER.tenant_id)
    book = Book([tenant, account_of(balance=1000)])
    assert book.close(make_closing(book.open(make_hold_request(USER)), tokens=130)).lost == {Unit.TOKENS: 30}


@pytest.mark.parametrize("first", [HoldState.SETTLED, HoldState.RELEASED])
@pytest.mark.parametrize("second", [HoldState.SETTLED, HoldState.RELEASED, HoldState.EXPIRED])
def test_a_hold_is_closed_once(first: HoldState, second: HoldState) -> None:
    account = account_of(balance=150)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    book.close(make_closing(hold, state=first))
    before = (snapshot(book, account), len(book.entries), len(book.closed))
    with pytest.raises(Conflict):
        book.close(make_closing(hold, state=second))
    assert (snapshot(book, account), len(book.entries), len(book.closed)) == before


def test_a_hold_nobody_knows_is_not_closed() -> None:
    hold = Book([]).open(make_hold_request(USER))
    with pytest.raises(Conflict, match="unknown"):
        Book([]).close(make_closing(hold))


@pytest.mark.parametrize(
    ("others_hold", "paid", "lost"), [(0, 40, {}), (120, 30, {Unit.TOKENS: 10}), (150, 0, {Unit.TOKENS: 40})]
)
def test_a_late_answer_is_charged_up_to_what_is_left(others_hold: int, paid: int, lost: dict[Unit, int]) -> None:
    account = account_of(balance=150)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    expire(book, hold)
    if others_hold:
        book.open(make_hold_request(USER, demand=Demand(prompt_tokens=others_hold, output_tokens=0)))
    assert book.close(make_closing(hold)).lost == lost
    assert snapshot(book, account) == [(150 - paid, others_hold, paid)]
    assert [(entry.kind, entry.amount) for entry in book.entries] == [(EntryKind.LATE_CHARGE, -paid)] * bool(paid)


def test_releasing_an_expired_hold_has_nothing_left_to_do() -> None:
    account = account_of(balance=150)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    expire(book, hold)
    book.close(make_closing(hold, state=HoldState.RELEASED, tokens=0))
    assert snapshot(book, account) == [(150, 0, 0)]
    assert [closing.state for closing in book.closed] == [HoldState.EXPIRED]
    with pytest.raises(Conflict):
        expire(book, hold)


def test_holds_of_earlier_batches_are_closed_as_they_were_kept() -> None:
    account = account_of(balance=150)
    book = Book([account])
    hold = book.open(make_hold_request(USER))
    later = Book([book.account(account.id)], [hold])
    later.close(make_closing(hold))
    assert snapshot(later, account) == [(110, 0, 40)]


def test_the_first_top_up_makes_the_account() -> None:
    book = Book([])
    actor = nobody()
    account = book.adjust(make_top_up(USER, 500, reason="welcome", actor_id=actor, request_id="req-1"))
    assert (account.balance, account.limit, account.available) == (500, 500, 500)
    assert (account.scope_id, account.unit, account.window) == (USER.id, Unit.TOKENS, Window.NONE)
    assert (book.created, book.changed) == ({account.id}, {account.id})
    (entry,) = book.entries
    assert (entry.kind, entry.amount, entry.reason) == (EntryKind.TOP_UP, 500, "welcome")
    assert (entry.actor_id, entry.request_id) == (actor, "req-1")


def test_later_top_ups_add_to_the_same_account() -> None:
    quota = account_of(balance=50, window=Window.DAY, period="2026-11-21")
    narrow, dollars = account_of(model="fast"), account_of(unit=Unit.MICRO_USD)
    book = Book([quota, narrow, dollars])
    first = book.adjust(make_top_up(USER, 500))
    second = book.adjust(make_top_up(USER, 70))
    assert (first.id, second.balance) == (second.id, 570)
    assert snapshot(book, quota, narrow, dollars) == [(50, 0, 0), (100, 0, 0), (100, 0, 0)]


def test_a_deduction_takes_what_is_neither_spent_nor_held() -> None:
    book = Book([])
    account = book.adjust(make_top_up(USER, 150))
    book.open(make_hold_request(USER))
    assert book.adjust(make_top_up(USER, -50)).available == 0
    assert book.entries[-1].kind is EntryKind.DEDUCTION
    with pytest.raises(Conflict) as caught:
        book.adjust(make_top_up(USER, -1))
    assert (caught.value.details["held"], caught.value.details["available"]) == (100, 0)
    assert snapshot(book, account) == [(100, 100, 0)]


def test_a_deduction_makes_no_account() -> None:
    book = Book([])
    with pytest.raises(Conflict):
        book.adjust(make_top_up(USER, -1))
    assert (book.created, book.entries) == (set(), [])


def test_a_balance_has_a_limit() -> None:
    book = Book([])
    book.adjust(make_top_up(USER, MAX_AMOUNT))
    with pytest.raises(InvalidRequest):
        book.adjust(make_top_up(USER, 1))


def test_the_operations_of_one_batch_see_each_other() -> None:
    book = Book([])
    with pytest.raises(Conflict):
        book.adjust(make_top_up(USER, -5))
    book.adjust(make_top_up(USER, 100))
    hold = book.open(make_hold_request(USER))
    with pytest.raises(QuotaExceeded):
        book.open(make_hold_request(USER))
    book.close(make_closing(hold))
    assert book.open(make_hold_request(USER, demand=Demand(prompt_tokens=10, output_tokens=50))).output_cap == 50


def test_a_hold_keeps_what_it_was_asked_with() -> None:
    request = make_hold_request(USER, at=NOW, expires_at=NOW + timedelta(minutes=1))
    hold = Book([]).open(request)
    assert (hold.id, hold.created_at, hold.expires_at) == (request.id, NOW, NOW + timedelta(minutes=1))
    assert (hold.state, hold.request_id) == (HoldState.OPEN, request.request_id)
