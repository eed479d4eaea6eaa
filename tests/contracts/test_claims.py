"""Idempotency keys: whoever takes one first has it, with the hold it was taken for, and what came of that."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from src.data.claims import forget_expired_claims
from src.domain.catalog.model import Usage
from src.domain.completion.idempotency import KEPT_HOURS, Claim, Claimed, ClaimFreed, ClaimState, KeyTaken
from src.domain.dialogs.model import MessagesAdded
from src.domain.identity.model import ApiKeyId, TenantId, User, UserId
from src.domain.ledger.model import CallStatus, Demand, Hold, HoldState, Renewal
from src.shared.errors import NotFound, QuotaExceeded
from src.shared.ids import new_id
from src.shared.money import MicroDollars
from src.shared.pages import PageRequest
from tests.contracts.conftest import Backend, LossyNetwork, Opener, opener
from tests.makers import (
    NOW,
    make_answer,
    make_claim,
    make_closing,
    make_dialog,
    make_hold_request,
    make_kept,
    make_message,
    make_usage_record,
)

CALLERS = 32
DAY = timedelta(hours=KEPT_HOURS)


async def found(backend: Backend, claim: Claim, **changed: Any) -> Claimed | None:
    """What is stored under the claim's key."""
    async with backend.open_uow(claim.tenant_id) as uow:
        return await uow.claims.find(replace(claim, **changed))


async def state_of(backend: Backend, claim: Claim) -> ClaimState | None:
    claimed = await found(backend, claim)
    return None if claimed is None else claimed.state


async def opened(ledger: Any, user: User, claim: Claim) -> Hold:
    """A hold with a claim."""
    hold: Hold = await ledger.open(make_hold_request(user), (claim,))
    return hold


def released(hold: Hold) -> Any:
    return make_closing(hold, state=HoldState.RELEASED, tokens=0, micro_usd=0, requests=0, model=None)


async def test_a_key_is_taken_with_its_hold_and_found_by_its_owner(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    claim = make_claim(user, message_id=new_id(), weak=True)
    async with backend.ledger() as ledger:
        assert await found(backend, claim) is None
        hold = await opened(ledger, user, claim)
        claimed = await found(backend, claim)
    assert claimed == Claimed(claim=claim, state=ClaimState.RUNNING, hold_id=hold.id)


async def test_of_many_at_once_one_takes_the_key_and_holds(backend: Backend) -> None:
    user = await backend.rich_user(100 * CALLERS)
    async with backend.ledger() as ledger, backend.replica().ledger() as elsewhere:
        opens = [
            opened(each, user, make_claim(user, created_at=NOW))
            for _ in range(CALLERS // 2)
            for each in (ledger, elsewhere)
        ]
        results = await asyncio.gather(*opens, return_exceptions=True)
    assert Counter(type(result).__name__ for result in results) == {"Hold": 1, "KeyTaken": CALLERS - 1}
    assert (await backend.account(user)).held == 100


async def test_a_key_stays_taken_in_later_batches_and_on_other_replicas(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    replica = backend.replica()
    async with backend.ledger() as ledger, replica.ledger() as elsewhere:
        await opened(ledger, user, make_claim(user))
        for each in (ledger, elsewhere):
            with pytest.raises(KeyTaken):
                await opened(each, user, make_claim(user))
            with pytest.raises(KeyTaken):
                await each.record((make_claim(user),))
    assert await state_of(replica, make_claim(user)) is ClaimState.RUNNING
    assert (await backend.account(user)).held == 100


@pytest.mark.parametrize(
    "other",
    [
        {"tenant_id": TenantId(new_id())},
        {"user_id": UserId(new_id())},
        {"api_key_id": ApiKeyId(new_id())},
        {"key_hash": "c" * 64},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_the_same_words_of_somebody_else_are_another_key(other: dict[str, Any], backend: Backend) -> None:
    user = await backend.rich_user(1000)
    mine, theirs = make_claim(user), make_claim(user, **other)
    async with backend.ledger() as ledger:
        await opened(ledger, user, mine)
        await opened(ledger, user, theirs)
        assert await state_of(backend, mine) is ClaimState.RUNNING
        assert (claimed := await found(backend, theirs)) is not None
    assert claimed.claim == theirs


async def test_a_refused_hold_frees_its_key(backend: Backend) -> None:
    user = await backend.rich_user(100)
    async with backend.ledger() as ledger:
        with pytest.raises(QuotaExceeded):
            await ledger.open(
                make_hold_request(user, demand=Demand(prompt_tokens=1000, output_tokens=1)), (make_claim(user),)
            )
        assert await found(backend, make_claim(user)) is None
        await opened(ledger, user, make_claim(user))


async def test_a_refused_hold_among_others_frees_its_own_key_only(backend: Backend) -> None:
    user = await backend.rich_user(300)
    claims = [make_claim(user, key_hash=f"{number:064}") for number in range(8)]
    async with backend.ledger() as ledger:
        results = await asyncio.gather(*(opened(ledger, user, claim) for claim in claims), return_exceptions=True)
        states = [await state_of(backend, claim) for claim in claims]
    assert Counter(type(result).__name__ for result in results) == {"Hold": 3, "QuotaExceeded": 5}
    assert [state is ClaimState.RUNNING for state in states] == [isinstance(result, Hold) for result in results]


async def test_a_key_is_free_when_the_rows_of_its_hold_cannot_be_written(backend: Backend) -> None:
    user = await backend.rich_user(100)
    orphan = make_message(make_dialog(user))
    async with backend.ledger() as ledger:
        with pytest.raises(NotFound):
            await ledger.open(make_hold_request(user), (MessagesAdded(messages=(orphan,)), make_claim(user)))
        assert await found(backend, make_claim(user)) is None
        await opened(ledger, user, make_claim(user))


async def test_an_answer_is_kept_with_the_settlement_byte_for_byte(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    claim = make_claim(user)
    async with backend.ledger() as ledger:
        hold = await opened(ledger, user, claim)
        await ledger.close(make_closing(hold), (make_usage_record(hold), make_kept(claim)))
        claimed = await found(backend.replica(), claim)
        with pytest.raises(KeyTaken):
            await opened(ledger, user, make_claim(user))
    assert claimed == Claimed(claim=claim, state=ClaimState.KEPT, hold_id=hold.id, kept=make_kept(claim))


async def test_an_answer_that_is_too_large_keeps_its_key(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    claim = make_claim(user)
    async with backend.ledger() as ledger:
        hold = await opened(ledger, user, claim)
        await ledger.close(make_closing(hold), (make_usage_record(hold), make_kept(claim, body=None)))
        claimed = await found(backend, claim)
    assert claimed is not None
    assert claimed.kept is not None
    assert (claimed.state, claimed.kept.body) == (ClaimState.KEPT, None)


async def test_a_failed_call_frees_its_key(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    claim = make_claim(user)
    async with backend.ledger() as ledger:
        hold = await opened(ledger, user, claim)
        row = make_usage_record(hold, status=CallStatus.FAILED, usage=Usage(), cost_micro_usd=MicroDollars(0))
        await ledger.close(released(hold), (row, ClaimFreed(claim_id=claim.id)))
        assert await found(backend, claim) is None
        again = await opened(ledger, user, make_claim(user))
    assert again.id != hold.id


async def test_a_hold_that_is_given_back_unused_frees_its_key(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    async with backend.ledger() as ledger:
        hold = await opened(ledger, user, make_claim(user))
        await ledger.close(released(hold))
        assert await found(backend, make_claim(user)) is None


async def test_a_hold_that_expires_with_nothing_delivered_frees_its_key(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    async with backend.ledger() as ledger:
        hold = await opened(ledger, user, make_claim(user))
        assert await backend.auditor(ledger, lambda: hold.expires_at).close_expired() == 1
        assert await found(backend, make_claim(user)) is None
    assert (await backend.account(user)).spent == 0


async def test_a_hold_that_expires_after_something_was_delivered_keeps_its_key_without_an_answer(
    backend: Backend,
) -> None:
    user = await backend.rich_user(1000)
    claim = make_claim(user)
    async with backend.ledger() as ledger:
        hold = await opened(ledger, user, claim)
        renewal = Renewal(hold=hold, at=NOW, expires_at=hold.expires_at, noted=make_usage_record(hold))
        await ledger.renew(renewal)
        assert await backend.auditor(ledger, lambda: hold.expires_at).close_expired() == 1
        claimed = await found(backend, claim)
        with pytest.raises(KeyTaken):
            await opened(ledger, user, make_claim(user))
    assert claimed == Claimed(claim=claim, state=ClaimState.LOST, hold_id=hold.id)
    assert (await backend.account(user)).spent == 40


async def test_an_answer_that_comes_after_its_hold_expired_is_kept_all_the_same(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    claim = make_claim(user)
    async with backend.ledger() as ledger:
        hold = await opened(ledger, user, claim)
        renewal = Renewal(hold=hold, at=NOW, expires_at=hold.expires_at, noted=make_usage_record(hold))
        await ledger.renew(renewal)
        await backend.auditor(ledger, lambda: hold.expires_at).close_expired()
        await ledger.close(make_closing(hold, at=hold.expires_at), (make_usage_record(hold), make_kept(claim)))
        assert await state_of(backend, claim) is ClaimState.KEPT
    assert (await backend.account(user)).spent == 40


async def test_expiry_leaves_the_keys_of_other_holds_alone(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    short, long, done = (make_claim(user, key_hash=letter * 64) for letter in "xyz")
    async with backend.ledger() as ledger:
        await ledger.open(make_hold_request(user, expires_at=NOW), (short,))
        await opened(ledger, user, long)
        hold = await opened(ledger, user, done)
        await ledger.close(make_closing(hold), (make_usage_record(hold), make_kept(done)))
        assert await backend.auditor(ledger, lambda: NOW).close_expired() == 1
        states = [await state_of(backend, claim) for claim in (short, long, done)]
    assert states == [None, ClaimState.RUNNING, ClaimState.KEPT]


async def test_after_a_day_a_key_can_be_taken_anew(backend: Backend) -> None:
    user = await backend.rich_user(1000)
    old = make_claim(user)
    just_before = make_claim(user, created_at=NOW + DAY - timedelta(microseconds=1))
    new = make_claim(user, created_at=NOW + DAY, expires_at=NOW + 2 * DAY, body_hash="d" * 64, message_id=new_id())
    async with backend.ledger() as ledger:
        hold = await opened(ledger, user, old)
        await ledger.close(make_closing(hold), (make_usage_record(hold), make_kept(old)))
        with pytest.raises(KeyTaken):
            await opened(ledger, user, just_before)
        assert await found(backend, new) is None
        again = await opened(ledger, user, new)
        assert await found(backend, new) == Claimed(claim=new, state=ClaimState.RUNNING, hold_id=again.id)


async def test_of_many_who_want_an_expired_key_at_once_one_takes_it(backend: Backend) -> None:
    user = await backend.rich_user(100 * CALLERS)
    later = {"created_at": NOW + DAY, "expires_at": NOW + 2 * DAY}
    async with backend.ledger() as ledger, backend.replica().ledger() as elsewhere:
        hold = await opened(ledger, user, make_claim(user))
        await ledger.close(make_closing(hold), (make_usage_record(hold), make_kept(make_claim(user))))
        opens = [
            opened(each, user, make_claim(user, **later)) for _ in range(CALLERS // 2) for each in (ledger, elsewhere)
        ]
        results = await asyncio.gather(*opens, return_exceptions=True)
    assert Counter(type(result).__name__ for result in results) == {"Hold": 1, "KeyTaken": CALLERS - 1}


async def test_an_answer_that_cost_nothing_is_kept_with_its_rows_once(backend: Backend) -> None:
    _, user = await backend.with_user()
    dialog = make_dialog(user)
    async with backend.open_uow(user.tenant_id) as uow:
        await uow.dialogs.add(dialog)
        await uow.commit()

    def records() -> tuple[Any, ...]:
        question, claim = make_message(dialog), make_claim(user)
        answer = make_answer(question, status=question.status, content="Fine.")
        return MessagesAdded(messages=(question, answer)), claim, make_kept(claim)

    async with backend.ledger() as ledger, backend.replica().ledger() as elsewhere:
        writes = [each.record(records()) for _ in range(CALLERS // 2) for each in (ledger, elsewhere)]
        results = await asyncio.gather(*writes, return_exceptions=True)
        claimed = await found(backend, make_claim(user))
    assert Counter(type(result).__name__ for result in results) == {"NoneType": 1, "KeyTaken": CALLERS - 1}
    assert claimed is not None
    assert (claimed.state, claimed.hold_id) == (ClaimState.KEPT, None)
    async with backend.open_uow(user.tenant_id) as uow:
        assert len(await uow.dialogs.path(dialog.id, _answer_id(await _messages(uow, dialog)), limit=100)) == 2


async def _messages(uow: Any, dialog: Any) -> list[Any]:
    return list((await uow.dialogs.messages(dialog.id, PageRequest(limit=100))).rows)


def _answer_id(messages: list[Any]) -> Any:
    assert len(messages) == 2
    return messages[-1].id


@pytest.mark.parametrize("after_commit", [True, False], ids=["news of it lost", "commit lost"])
async def test_a_lost_commit_takes_a_key_once_and_gives_its_hold(
    after_commit: bool, sql: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await sql.rich_user(1000)
    claim = make_claim(user)
    async with sql.ledger() as ledger:
        network = LossyNetwork(monkeypatch, losses=1, after_commit=after_commit)
        results = await asyncio.gather(
            opened(ledger, user, claim), opened(ledger, user, make_claim(user)), return_exceptions=True
        )
        assert network.losses == 0
        hold, taken = results
        assert isinstance(hold, Hold)
        assert isinstance(taken, KeyTaken)
        network.losses = 1
        await ledger.close(make_closing(hold), (make_usage_record(hold), make_kept(claim)))
        assert await state_of(sql, claim) is ClaimState.KEPT
    assert (await sql.account(user)).spent == 40


async def test_keys_are_forgotten_after_their_day(sql: Backend) -> None:
    user = await sql.rich_user(1000)
    old, new = make_claim(user), make_claim(user, key_hash="n" * 64, expires_at=NOW + 2 * DAY)
    assert sql.engine is not None
    async with sql.ledger() as ledger:
        for claim in (old, new):
            await opened(ledger, user, claim)
        assert await forget_expired_claims(sql.engine, NOW + DAY - timedelta(microseconds=1)) == 0
        assert await forget_expired_claims(sql.engine, NOW + DAY) == 1
        assert [await state_of(sql, claim) for claim in (old, new)] == [None, ClaimState.RUNNING]
        await opened(ledger, user, make_claim(user))


@pytest_asyncio.fixture
async def postgres(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    open_it: Opener = opener("postgresql", request)
    async with open_it() as backend:
        yield backend


async def test_who_finds_a_key_taken_does_not_keep_its_call_from_being_settled(postgres: Backend) -> None:
    """Settling writes to the key after it locked the accounts; a repetition waits for the accounts."""
    user = await postgres.rich_user(1000)
    assert postgres.engine is not None
    async with postgres.ledger() as ledger, postgres.replica().ledger() as elsewhere:
        await opened(ledger, user, make_claim(user))
        async with postgres.engine.connect() as settling:
            await settling.execute(text("SELECT 1 FROM accounts FOR UPDATE"))
            repeating = asyncio.create_task(opened(elsewhere, user, make_claim(user)))
            await _until_somebody_waits(postgres)
            await settling.execute(text("SELECT 1 FROM idempotency_keys FOR UPDATE NOWAIT"))
        with pytest.raises(KeyTaken):
            await repeating


async def _until_somebody_waits(backend: Backend) -> None:
    assert backend.engine is not None
    async with backend.engine.connect() as connection, asyncio.timeout(10):
        while not (await connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))).scalar():
            await asyncio.sleep(0.02)
