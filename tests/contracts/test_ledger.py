"""What every ledger keeps, whatever happens around it."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from src.domain.catalog.model import Usage
from src.domain.dialogs.model import AnswerEnded, MessagesAdded, MessageStatus
from src.domain.ledger.model import MAX_AMOUNT, CallStatus, Closing, Demand, EntryKind, HoldState, Renewal, Scope, Unit
from src.domain.ledger.standing import standings_of
from src.shared.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded
from src.shared.pages import PageRequest
from tests.contracts.conftest import Backend
from tests.makers import (
    NOW,
    make_answer,
    make_closing,
    make_dialog,
    make_hold_request,
    make_key,
    make_message,
    make_top_up,
    make_usage_record,
)


async def entries_of(backend: Backend, user: Any) -> list[Any]:
    async with backend.open_uow(user.tenant_id) as uow:
        return list((await uow.accounts.entries(PageRequest(limit=100), scope_id=user.id)).rows)


async def test_parallel_opens_admit_exactly_what_the_credit_pays_for(backend: Backend) -> None:
    user = await backend.rich_user(700)
    async with backend.ledger() as ledger:
        opens = (ledger.open(make_hold_request(user)) for _ in range(64))
        results = await asyncio.gather(*opens, return_exceptions=True)
    kinds = Counter(type(result).__name__ for result in results)
    assert kinds == {"Hold": 7, "QuotaExceeded": 57}
    account = await backend.account(user)
    assert (account.balance, account.held, account.available) == (700, 700, 0)


async def test_a_refusal_says_who_refused_and_how_much_is_missing(backend: Backend) -> None:
    user = await backend.rich_user(30)
    async with backend.ledger() as ledger:
        with pytest.raises(QuotaExceeded) as refused:
            await ledger.open(make_hold_request(user))
    details = refused.value.details
    assert (details["scope"], details["unit"], details["limit"], details["needed"]) == ("user", "tokens", 30, 100)


async def test_the_output_cap_shrinks_to_what_can_be_paid(backend: Backend) -> None:
    user = await backend.rich_user(60)
    async with backend.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user, demand=Demand(prompt_tokens=10, output_tokens=90)))
    assert hold.output_cap == 50
    assert [line.amount for line in hold.lines] == [60]


async def test_an_unlimited_principal_gets_a_hold_that_caps_nothing(backend: Backend) -> None:
    _, user = await backend.with_user()
    async with backend.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user))
        assert (hold.lines, hold.output_cap) == ((), None)
        await ledger.close(make_closing(hold), (make_usage_record(hold),))
    async with backend.open_uow(user.tenant_id) as uow:
        assert await uow.accounts.tokens_used(user.id) == 40


async def test_every_scope_and_unit_pays_its_part(backend: Backend) -> None:
    _, user = await backend.with_user()
    key = make_key(user)
    for scope, scope_id, unit, amount in (
        (Scope.TENANT, user.tenant_id, Unit.TOKENS, 1000),
        (Scope.USER, user.id, Unit.MICRO_USD, 500),
        (Scope.API_KEY, key.id, Unit.REQUESTS, 3),
    ):
        await backend.adjust(make_top_up(user, amount, scope=scope, scope_id=scope_id, unit=unit))
    demand = Demand(prompt_tokens=10, output_tokens=90, rates=(1_000_000, 2_000_000))
    async with backend.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user, api_key_id=key.id, demand=demand))
        assert {line.unit: line.amount for line in hold.lines} == {
            Unit.TOKENS: 100,
            Unit.MICRO_USD: 190,
            Unit.REQUESTS: 1,
        }
        closed = await ledger.close(make_closing(hold))
    assert closed.lost == {}
    async with backend.open_uow(user.tenant_id) as uow:
        left = [
            (standing.account.balance, standing.account.held, standing.account.spent)
            for scope in ((Scope.TENANT, user.tenant_id), (Scope.USER, user.id), (Scope.API_KEY, key.id))
            for standing in await standings_of(uow, [scope], NOW, "UTC")
        ]
    assert left == [(960, 0, 40), (493, 0, 7), (2, 0, 1)]


async def test_a_hold_is_settled_once(backend: Backend) -> None:
    user = await backend.rich_user(100)
    async with backend.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user))
        closings = (ledger.close(make_closing(hold)) for _ in range(8))
        results = await asyncio.gather(*closings, return_exceptions=True)
    assert Counter(type(result).__name__ for result in results) == {"Closed": 1, "Conflict": 7}
    account = await backend.account(user)
    assert (account.balance, account.held, account.spent, account.limit) == (60, 0, 40, 100)
    newest = (await entries_of(backend, user))[0]
    assert (newest.amount, newest.kind, newest.hold_id, newest.model) == (-40, EntryKind.CHARGE, hold.id, "fast")


async def test_a_released_hold_costs_nothing_and_stays_released(backend: Backend) -> None:
    user = await backend.rich_user(100)
    async with backend.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user))
        released = make_closing(hold, state=HoldState.RELEASED, tokens=0, micro_usd=0, requests=0)
        await ledger.close(released)
        with pytest.raises(Conflict):
            await ledger.close(make_closing(hold))
    account = await backend.account(user)
    assert (account.balance, account.held, account.spent) == (100, 0, 0)


async def test_an_unknown_hold_cannot_be_closed(backend: Backend) -> None:
    user = await backend.rich_user(100)
    async with backend.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user))
        unknown = replace(hold, id=make_hold_request(user).id)
        with pytest.raises(Conflict):
            await ledger.close(make_closing(unknown))
        await ledger.close(make_closing(hold))


async def test_an_expired_hold_gives_back_and_ends_its_answer(backend: Backend) -> None:
    user = await backend.rich_user(100)
    dialog = make_dialog(user)
    question = make_message(dialog)
    answer = make_answer(question)
    async with backend.open_uow(user.tenant_id) as uow:
        await uow.dialogs.add(dialog)
        await uow.commit()
    async with backend.ledger() as ledger:
        await ledger.open(make_hold_request(user), (MessagesAdded(messages=(question, answer)),))
        assert await backend.auditor(ledger, lambda: NOW).close_expired() == 0
        later = backend.auditor(ledger, lambda: NOW + timedelta(minutes=11))
        assert await later.close_expired() == 1
        assert await later.close_expired() == 0
    assert (await backend.account(user)).held == 0
    async with backend.open_uow(user.tenant_id) as uow:
        ended = await uow.dialogs.message(dialog.id, answer.id)
    assert ended is not None
    assert (ended.status, ended.error and ended.error["code"]) == (MessageStatus.FAILED, "interrupted")


async def test_a_late_settlement_is_charged_up_to_what_is_left(backend: Backend) -> None:
    user = await backend.rich_user(100)
    async with backend.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user))
        await ledger.close(make_closing(hold, state=HoldState.EXPIRED, at=hold.expires_at))
        await backend.adjust(make_top_up(user, -75))
        closed = await ledger.close(make_closing(hold))
        assert closed.lost == {Unit.TOKENS: 15}
        with pytest.raises(Conflict):
            await ledger.close(make_closing(hold))
    assert (await entries_of(backend, user))[0].kind is EntryKind.LATE_CHARGE
    account = await backend.account(user)
    assert (account.balance, account.held, account.spent) == (0, 0, 25)


async def test_an_expired_call_that_failed_after_all_stays_as_it_was_charged_and_counted(backend: Backend) -> None:
    user = await backend.rich_user(100)
    async with backend.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user))
        noted = make_usage_record(hold)
        await ledger.renew(Renewal(hold=hold, at=NOW, expires_at=hold.expires_at, noted=noted))
        await ledger.close(Closing(hold=hold, state=HoldState.EXPIRED, at=hold.expires_at))
        failed = make_usage_record(hold, status=CallStatus.FAILED, usage=Usage(), cost_micro_usd=0)
        for _ in range(2):
            await ledger.close(Closing(hold=hold, state=HoldState.RELEASED, at=NOW), (failed,))
    assert (await backend.account(user)).spent == 40
    async with backend.open_uow(user.tenant_id) as uow:
        (row,) = await uow.accounts.usage(user_id=user.id, since=NOW.date(), until=NOW.date())
    assert (row.calls, row.input_tokens, row.output_tokens, row.cost_micro_usd) == (1, 10, 30, 7)


async def test_a_claim_above_the_hold_is_the_operators_loss(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    async with backend.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user))
        closed = await ledger.close(make_closing(hold, tokens=170))
    assert closed.lost == {Unit.TOKENS: 70}
    assert (await backend.account(user)).balance == 900


async def test_top_ups_and_deductions_are_entries(backend: Backend) -> None:
    user = await backend.rich_user(100)
    account = await backend.adjust(make_top_up(user, -40, reason="a mistake"))
    assert account.balance == 60
    with pytest.raises(Conflict):
        await backend.adjust(make_top_up(user, -61))
    with pytest.raises(InvalidRequest):
        await backend.adjust(make_top_up(user, MAX_AMOUNT))
    kinds = [(entry.amount, entry.kind, entry.reason) for entry in await entries_of(backend, user)]
    assert kinds == [(-40, EntryKind.DEDUCTION, "a mistake"), (100, EntryKind.TOP_UP, None)]


async def test_a_refused_deduction_makes_no_account(backend: Backend) -> None:
    _, user = await backend.with_user()
    async with backend.open_uow(user.tenant_id) as uow:
        with pytest.raises(Conflict):
            await uow.accounts.adjust(make_top_up(user, -1))
        await uow.commit()
    async with backend.open_uow(user.tenant_id) as uow:
        assert await uow.accounts.quotas_of([(Scope.USER, user.id)]) == []


async def test_held_tokens_cannot_be_deducted(backend: Backend) -> None:
    user = await backend.rich_user(150)
    async with backend.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user))
        with pytest.raises(Conflict):
            await backend.adjust(make_top_up(user, -51))
        await ledger.close(make_closing(hold, tokens=100))
    assert (await backend.account(user)).balance == 50


async def test_first_top_ups_at_the_same_time_make_one_account(backend: Backend) -> None:
    _, user = await backend.with_user()
    replicas = [backend.replica() for _ in range(3)] if backend.engine is not None else [backend]
    await asyncio.gather(*(replica.adjust(make_top_up(user, 10)) for replica in replicas for _ in range(4)))
    assert (await backend.account(user)).balance == 10 * 4 * len(replicas)


async def test_writers_of_two_replicas_never_spend_the_same_token(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    other = backend.replica()

    async def spend(ledger: Any) -> bool:
        try:
            hold = await ledger.open(make_hold_request(user))
        except QuotaExceeded:
            return False
        usage = Usage(input_tokens=10, output_tokens=90)
        await ledger.close(make_closing(hold, tokens=100), (make_usage_record(hold, usage=usage),))
        return True

    async with backend.ledger() as one, other.ledger() as two:
        calls = (spend(ledger) for _ in range(30) for ledger in (one, two))
        done = await asyncio.gather(*calls)
    assert sum(done) == 10
    account = await backend.account(user)
    assert (account.balance, account.held, account.spent) == (0, 0, 1000)
    async with backend.open_uow(user.tenant_id) as uow:
        (row,) = await uow.accounts.usage(user_id=user.id, since=NOW.date(), until=NOW.date())
    assert (row.calls, row.input_tokens, row.output_tokens, row.cost_micro_usd) == (10, 100, 900, 70)


async def test_a_replica_racing_to_close_the_same_hold_loses(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    other = backend.replica()
    async with backend.ledger() as one, other.ledger() as two:
        holds = await asyncio.gather(*(one.open(make_hold_request(user)) for _ in range(10)))
        closings = (ledger.close(make_closing(hold)) for hold in holds for ledger in (one, two))
        results = await asyncio.gather(*closings, return_exceptions=True)
    assert Counter(type(result).__name__ for result in results) == {"Closed": 10, "Conflict": 10}
    assert (await backend.account(user)).spent == 400


async def test_a_record_that_cannot_be_kept_harms_no_neighbour(backend: Backend) -> None:
    user = await backend.rich_user(100_000)
    orphan = MessagesAdded(messages=(make_message(make_dialog(user)),))
    async with backend.ledger() as ledger:
        opens = (ledger.open(make_hold_request(user), (orphan,) if each % 7 == 3 else ()) for each in range(40))
        results = await asyncio.gather(*opens, return_exceptions=True)
    assert [isinstance(result, NotFound) for result in results] == [each % 7 == 3 for each in range(40)]
    assert (await backend.account(user)).held == 100 * sum(each % 7 != 3 for each in range(40))


async def test_messages_commit_with_their_hold_and_end_with_its_settlement(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    dialog = make_dialog(user)
    question = make_message(dialog)
    answer = make_answer(question)
    async with backend.open_uow(user.tenant_id) as uow:
        await uow.dialogs.add(dialog)
        await uow.commit()
    async with backend.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user), (MessagesAdded(messages=(question, answer)),))
        row = make_usage_record(hold)
        told = {"usage": row.usage, "cost_micro_usd": row.cost_micro_usd, "model": "fast"}
        ended = replace(answer, content="A promise.", status=MessageStatus.COMPLETED, completed_at=NOW, **told)
        await ledger.close(make_closing(hold), (row, AnswerEnded(answer=ended)))
    async with backend.open_uow(user.tenant_id) as uow:
        assert await uow.dialogs.message(dialog.id, question.id) == question
        assert await uow.dialogs.message(dialog.id, answer.id) == ended
        kept = await uow.dialogs.dialog(dialog.id, user.id)
    assert kept is not None
    assert kept.head_id == answer.id


async def test_a_deleted_dialog_leaves_the_books(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    dialog = make_dialog(user)
    question = make_message(dialog)
    answer = make_answer(question)
    async with backend.open_uow(user.tenant_id) as uow:
        await uow.dialogs.add(dialog)
        await uow.commit()
    async with backend.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user), (MessagesAdded(messages=(question, answer)),))
        async with backend.open_uow(user.tenant_id) as uow:
            assert await uow.dialogs.delete(dialog.id, user.id)
            await uow.commit()
        ended = replace(answer, status=MessageStatus.COMPLETED, completed_at=NOW)
        await ledger.close(make_closing(hold), (make_usage_record(hold), AnswerEnded(answer=ended)))
    assert (await backend.account(user)).spent == 40


async def test_records_alone_are_kept_too(backend: Backend) -> None:
    user = await backend.rich_user(100)
    async with backend.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user))
        await ledger.record((make_usage_record(hold),))
    async with backend.open_uow(user.tenant_id) as uow:
        assert await uow.accounts.tokens_used(user.id) == 40
