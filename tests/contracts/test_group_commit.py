"""The writer when callers leave, commits go unacknowledged and databases go away."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

import src.data.group_commit as group_commit
from src.data.engine import is_sqlite, reading
from src.data.group_commit import GroupCommitLedger
from src.domain.catalog.model import Usage
from src.domain.dialogs.model import AnswerEnded, MessagesAdded, MessageStatus
from src.domain.ledger.model import Demand, HoldState, Renewal, Unit
from src.shared.errors import QuotaExceeded, Unavailable
from tests.contracts.conftest import Backend, LossyNetwork
from tests.makers import (
    NOW,
    make_answer,
    make_closing,
    make_dialog,
    make_hold_request,
    make_message,
    make_top_up,
    make_usage_record,
)


async def spend(ledger: GroupCommitLedger, user: Any) -> int:
    hold = await ledger.open(make_hold_request(user))
    await ledger.close(make_closing(hold), (make_usage_record(hold),))
    return sum(line.amount for line in hold.lines)


@pytest.mark.parametrize("after_commit", [False, True], ids=["commit lost", "acknowledgement lost"])
async def test_a_lost_commit_is_made_once(sql: Backend, monkeypatch: pytest.MonkeyPatch, after_commit: bool) -> None:
    user = await sql.rich_user(1000)
    usage = Usage(input_tokens=40, output_tokens=90)
    async with sql.ledger() as ledger:
        network = LossyNetwork(monkeypatch, losses=1, after_commit=after_commit)
        held = await asyncio.gather(*(ledger.open(make_hold_request(user)) for _ in range(5)))
        network.losses = 1
        closed = await asyncio.gather(
            *(ledger.close(make_closing(hold, tokens=130), (make_usage_record(hold, usage=usage),)) for hold in held)
        )
        network.losses = 1
        network.losses = 0
        other = await ledger.open(make_hold_request(user))
        network.losses = 1
        await ledger.record((make_usage_record(other),))
    assert [hold.output_cap for hold in held] == [90] * 5
    assert [each.lost for each in closed] == [{Unit.TOKENS: 30}] * 5
    account = await sql.account(user)
    assert (account.balance, account.held, account.spent) == (500, 100, 500)
    async with sql.open_uow(user.tenant_id) as uow:
        assert await uow.accounts.tokens_used(user.id) == 130 * 5 + 40


async def test_a_growth_whose_acknowledgement_was_lost_is_no_refusal(
    sql: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await sql.rich_user(150)
    async with sql.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user))
        LossyNetwork(monkeypatch, losses=1, after_commit=True)
        demand = Demand(prompt_tokens=10, output_tokens=500)
        grown = await ledger.renew(Renewal(hold=hold, at=NOW, expires_at=hold.expires_at, demand=demand))
    assert (grown.output_cap, [line.amount for line in grown.lines]) == (140, [150])
    assert (await sql.account(user)).held == 150


@pytest.mark.parametrize("after_commit", [False, True], ids=["commit lost", "acknowledgement lost"])
async def test_a_chain_is_not_tried_further_than_its_hold_goes_whatever_was_lost(
    sql: Backend, monkeypatch: pytest.MonkeyPatch, after_commit: bool
) -> None:
    user = await sql.rich_user(1000)
    await sql.adjust(make_top_up(user, 5, model="dear"))
    await sql.adjust(make_top_up(user, 500, model="cheap"))
    async with sql.ledger() as ledger:
        LossyNetwork(monkeypatch, losses=1, after_commit=after_commit)
        hold = await ledger.open(make_hold_request(user, model="smart", models=("dear", "cheap", "fast")))
        renewed = await ledger.renew(Renewal(hold=hold, at=NOW, expires_at=hold.expires_at))
    assert hold.excluded_models == renewed.excluded_models == ("dear",)


async def test_a_database_that_stays_away_is_unavailable(sql: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    user = await sql.rich_user(1000)
    assert sql.engine is not None
    ledger = GroupCommitLedger(sql.engine, open_patience_s=0.2, close_patience_s=0.3)
    await ledger.start()
    hold = await ledger.open(make_hold_request(user))
    network = LossyNetwork(monkeypatch, losses=1000, after_commit=False)
    with pytest.raises(Unavailable):
        await ledger.open(make_hold_request(user))
    with pytest.raises(Unavailable):
        await ledger.close(make_closing(hold))
    network.losses = 0
    await ledger.close(make_closing(hold), (make_usage_record(hold),))
    await ledger.stop()
    assert (await sql.account(user)).spent == 40


async def test_a_caller_that_left_before_its_turn_holds_nothing(sql: Backend) -> None:
    user = await sql.rich_user(1000)
    async with sql.ledger() as ledger:
        calls = [asyncio.create_task(ledger.open(make_hold_request(user))) for _ in range(5)]
        await asyncio.sleep(0)
        for call in calls[1:]:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [False, True, True, True, True]
    assert (await sql.account(user)).held == 100


async def test_a_hold_whose_caller_left_during_the_commit_is_released(
    sql: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await sql.rich_user(1000)
    dialog = make_dialog(user)
    async with sql.open_uow(user.tenant_id) as uow:
        await uow.dialogs.add(dialog)
        await uow.commit()
    question = make_message(dialog)
    answer = make_answer(question)
    applied = group_commit.apply_batch
    calls: list[asyncio.Task[Any]] = []

    async def applied_while_leaving(connection: Any, operations: Sequence[Any], *, again: bool = False) -> Any:
        results = await applied(connection, operations, again=again)
        calls[0].cancel()
        return results

    async with sql.ledger() as ledger:
        monkeypatch.setattr(group_commit, "apply_batch", applied_while_leaving)
        records = (MessagesAdded(messages=(question, answer)),)
        calls.append(asyncio.create_task(ledger.open(make_hold_request(user), records)))
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
    assert (await sql.account(user)).held == 0
    async with sql.open_uow(user.tenant_id) as uow:
        left = await uow.dialogs.message(dialog.id, answer.id)
    assert left is not None
    assert left.status is MessageStatus.FAILED


async def test_what_was_used_is_booked_though_its_caller_left(sql: Backend) -> None:
    user = await sql.rich_user(1000)
    async with sql.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user))
        call = asyncio.create_task(ledger.close(make_closing(hold), (make_usage_record(hold),)))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    assert (await sql.account(user)).spent == 40


async def test_stopping_finishes_what_waits_and_refuses_what_comes(sql: Backend) -> None:
    user = await sql.rich_user(100_000)
    async with sql.ledger() as ledger:
        calls = [asyncio.create_task(ledger.open(make_hold_request(user))) for _ in range(300)]
        await asyncio.sleep(0)
    assert len(await asyncio.gather(*calls)) == 300
    with pytest.raises(Unavailable):
        await ledger.open(make_hold_request(user))


async def test_a_full_line_refuses(sql: Backend) -> None:
    user = await sql.rich_user(100_000)
    assert sql.engine is not None
    ledger = GroupCommitLedger(sql.engine, max_waiting=3)
    await ledger.start()
    opens = (ledger.open(make_hold_request(user)) for _ in range(10))
    results = await asyncio.gather(*opens, return_exceptions=True)
    await ledger.stop()
    assert sum(isinstance(result, Unavailable) for result in results) == 7


async def test_a_lone_operation_waits_for_no_company(sql: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    user = await sql.rich_user(1000)
    loop = asyncio.get_running_loop()
    delays_s: list[float] = []
    call_at = loop.call_at

    def noted_call_at(when: float, *given: Any, **named: Any) -> asyncio.TimerHandle:
        delays_s.append(when - loop.time())
        return call_at(when, *given, **named)

    async with sql.ledger() as ledger:
        await spend(ledger, user)
        monkeypatch.setattr(loop, "call_at", noted_call_at)
        await spend(ledger, user)
        await ledger.record((make_usage_record(await ledger.open(make_hold_request(user))),))
        monkeypatch.undo()
    shortest_patience_s = 1.0  # drivers set timers against a database that does not answer
    assert [delay_s for delay_s in delays_s if delay_s < shortest_patience_s] == []


async def test_an_idle_writer_has_no_transaction_open(sql: Backend) -> None:
    user = await sql.rich_user(1000)
    assert sql.engine is not None
    async with sql.ledger() as ledger:
        await spend(ledger, user)
        await asyncio.sleep(0.01)
        if is_sqlite(sql.engine):
            assert sql.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        else:
            assert await asked(sql.engine, "SELECT count(*)", "state <> 'idle'") == 0


@pytest.mark.parametrize("sql_opener", ["postgresql"], indirect=True)
async def test_a_session_that_the_server_ends_is_not_missed(sql: Backend) -> None:
    user = await sql.rich_user(1000)
    assert sql.engine is not None
    async with sql.ledger() as ledger:
        for is_known_at_once in (False, True):
            await spend(ledger, user)
            assert await asked(sql.engine, "SELECT count(pg_terminate_backend(pid))", "true") > 0
            await asyncio.sleep(0.05 * is_known_at_once)
            await spend(ledger, user)


async def asked(engine: AsyncEngine, what: str, where: str) -> int:
    """Of the database's other sessions."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    async with reading(engine) as connection:
        found: int = (await connection.execute(text(f"{what} {others} AND {where}"))).scalar_one()
        return found


async def test_a_new_process_goes_on_with_the_books(sql: Backend) -> None:
    user = await sql.rich_user(250)
    async with sql.ledger() as ledger:
        first = await ledger.open(make_hold_request(user))
        second = await ledger.open(make_hold_request(user))
    after = sql.replica()
    async with after.ledger() as ledger:
        with pytest.raises(QuotaExceeded):
            await ledger.open(make_hold_request(user))
        await ledger.close(make_closing(first))
        await ledger.close(make_closing(second, state=HoldState.RELEASED, tokens=0))
        await ledger.open(make_hold_request(user))
    account = await after.account(user)
    assert (account.balance, account.held, account.spent) == (210, 100, 40)


async def test_text_that_no_database_keeps_does_not_lose_the_settlement(sql: Backend) -> None:
    user = await sql.rich_user(1000)
    dialog = make_dialog(user)
    async with sql.open_uow(user.tenant_id) as uow:
        await uow.dialogs.add(dialog)
        await uow.commit()
    question = make_message(dialog)
    answer = make_answer(question)
    async with sql.ledger() as ledger:
        hold = await ledger.open(make_hold_request(user), (MessagesAdded(messages=(question, answer)),))
        odd = make_answer(
            question,
            id=answer.id,
            content="a\x00b\ud800c",
            parts=({"type": "text", "text": "a\x00b\ud800c \\u0000"},),
            error={"message": "\x00"},
            usage=Usage(input_tokens=40),
            cost_micro_usd=7,
            status=MessageStatus.INTERRUPTED,
            completed_at=NOW,
        )
        await ledger.close(make_closing(hold), (AnswerEnded(answer=odd),))
    async with sql.open_uow(user.tenant_id) as uow:
        kept = await uow.dialogs.message(dialog.id, answer.id)
    assert kept is not None
    assert kept.content == "a\ufffdb\ufffdc"
    assert kept.parts[0]["text"] == "a\ufffdb\ufffdc \\u0000"


async def test_a_request_that_cannot_be_stored_is_refused_alone(sql: Backend) -> None:
    user = await sql.rich_user(1000)
    async with sql.ledger() as ledger:
        opens = (ledger.open(make_hold_request(user, request_id="\x00" if each == 2 else "r")) for each in range(5))
        results = await asyncio.gather(*opens, return_exceptions=True)
    middle = "Hold" if sql.name == "sqlite" else "InvalidRequest"  # SQLite keeps a NUL
    assert [type(result).__name__ for result in results] == ["Hold", "Hold", middle, "Hold", "Hold"]
