"""The auditor sees whatever is wrong with the books, says where, and mends nothing but what has expired."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, insert, text, update

from src.data.auditor import SqlAuditor
from src.data.engine import make_engine, writing
from src.data.ledger_laws import laws
from src.data.ledger_tables import accounts, entries, hold_lines, holds, quotas, usage_days, usage_records
from src.data.tables import messages
from src.domain.catalog.model import Usage
from src.domain.dialogs.model import AnswerEnded, Message, MessagesAdded, MessageStatus
from src.domain.identity.model import User
from src.domain.ledger.model import (
    CallStatus,
    Closing,
    Demand,
    EntryKind,
    Hold,
    HoldState,
    Renewal,
    Unit,
    Window,
)
from src.domain.ledger.ports import Audit, Auditor
from src.shared.ids import new_id
from src.shared.money import MicroDollars
from tests.contracts.conftest import Backend, Opener
from tests.makers import (
    NOW,
    make_answer,
    make_closing,
    make_dialog,
    make_hold_request,
    make_limit,
    make_message,
    make_top_up,
    make_usage_record,
    make_user,
    nobody,
)

DEMAND = Demand(prompt_tokens=10, output_tokens=90, least_output_tokens=90, rates=(50_000, 50_000))
LATER = NOW + timedelta(minutes=30)


class Scene:
    """A day's work: calls that were settled, failed, expired, came back late or go on, and an answer kept."""

    def __init__(self, backend: Backend, ledger: Any, user: User) -> None:
        self.backend = backend
        self.ledger = ledger
        self.user = user
        self.holds: dict[str, Hold] = {}
        self.answer_id: UUID = nobody()
        self.other_tenant_id: UUID = nobody()

    async def work(self) -> None:
        await self.backend.adjust(make_top_up(self.user, 5000))
        await self.backend.set_limit(make_limit(self.user, 9000, unit=Unit.MICRO_USD))
        for name in ("settled", "released", "expired", "late", "open"):
            request = make_hold_request(self.user, demand=DEMAND)
            self.holds[name] = await self.ledger.open(request, await self._records(name))
        await self.ledger.renew(self._noting("expired"))
        await self.ledger.renew(self._noting("late"))
        failed = make_usage_record(
            self.holds["released"], status=CallStatus.FAILED, usage=Usage(), cost_micro_usd=MicroDollars(0)
        )
        await self.ledger.close(Closing(hold=self.holds["released"], state=HoldState.RELEASED, at=NOW), (failed,))
        for name in ("expired", "late"):
            await self.ledger.close(Closing(hold=self.holds[name], state=HoldState.EXPIRED, at=LATER))
        await self._settle_late()
        await self._settle()

    async def _records(self, name: str) -> tuple[MessagesAdded, ...]:
        if name != "settled":
            return ()
        dialog = make_dialog(self.user)
        async with self.backend.open_uow(self.user.tenant_id) as uow:
            await uow.dialogs.add(dialog)
            await uow.commit()
        question = make_message(dialog)
        self.answer: Message = make_answer(question)
        self.answer_id = self.answer.id
        return (MessagesAdded(messages=(question, self.answer)),)

    def _noting(self, name: str) -> Renewal:
        hold = self.holds[name]
        noted = make_usage_record(hold, usage=Usage(input_tokens=10, output_tokens=5), cost_micro_usd=MicroDollars(2))
        return Renewal(hold=hold, at=NOW, expires_at=NOW + timedelta(minutes=20), noted=noted)

    async def _settle(self) -> None:
        hold = self.holds["settled"]
        row = make_usage_record(hold)
        told = {"usage": row.usage, "cost_micro_usd": row.cost_micro_usd, "model": row.model}
        ended = replace(self.answer, status=MessageStatus.COMPLETED, completed_at=NOW, **told)
        await self.ledger.close(make_closing(hold, message_id=self.answer_id), (row, AnswerEnded(answer=ended)))

    async def _settle_late(self) -> None:
        hold = self.holds["late"]
        at = LATER + timedelta(seconds=1)
        await self.ledger.close(make_closing(hold, at=at), (make_usage_record(hold, created_at=at),))

    async def change(self, *statements: Any) -> None:
        """By hand, past everything that keeps the books right."""
        assert self.backend.engine is not None
        async with writing(self.backend.engine) as connection:
            for statement in statements:
                await connection.execute(statement)
            await connection.commit()

    def auditor(self, minutes: int = 0) -> Auditor:
        assert self.backend.engine is not None
        return SqlAuditor(self.backend.engine, self.ledger, clock=lambda: NOW + timedelta(minutes=minutes))

    async def audit(self) -> Audit:
        return await self.auditor().audit()

    def entry(self, name: str, kind: EntryKind = EntryKind.CHARGE) -> Any:
        return (entries.c.hold_id == self.holds[name].id, entries.c.kind == kind, entries.c.unit == Unit.TOKENS)

    def line(self, name: str) -> Any:
        return (hold_lines.c.hold_id == self.holds[name].id, hold_lines.c.unit == Unit.TOKENS)

    def a_hold(self, name: str) -> Any:
        return holds.c.id == self.holds[name].id

    def usage(self, name: str) -> Any:
        return usage_records.c.hold_id == self.holds[name].id

    @property
    def account_id(self) -> UUID:
        return next(line.account_id for line in self.holds["open"].lines if line.unit is Unit.TOKENS)

    def a_line_of_nobody(self, **given: Any) -> Any:
        base = {"hold_id": nobody(), "account_id": self.account_id, "tenant_id": self.user.tenant_id}
        return insert(hold_lines).values(**{**base, "unit": Unit.TOKENS, "amount": 0, "model": "", **given})

    def an_entry(self, **given: Any) -> Any:
        base = {"id": new_id(), "tenant_id": self.user.tenant_id, "scope_id": self.user.id, "created_at": NOW}
        told = {"account_id": self.account_id, "unit": Unit.TOKENS, "amount": 5, "kind": EntryKind.TOP_UP}
        return insert(entries).values(**{**base, **told, **given})


@asynccontextmanager
async def a_scene(opener: Opener) -> AsyncIterator[Scene]:
    async with opener() as backend:
        _, user = await backend.with_user()
        async with backend.ledger() as ledger:
            scene = Scene(backend, ledger, user)
            await scene.work()
            yield scene


@pytest.fixture
async def scene(unproven_opener: Opener) -> AsyncIterator[Scene]:
    async with a_scene(unproven_opener) as opened:
        yield opened


def _account(scene: Scene, **values: Any) -> Any:
    return update(accounts).where(accounts.c.id == scene.account_id).values(**values)


def _set(table: Any, *where: Any, **values: Any) -> Any:
    return update(table).where(*where).values(**values)


BREAKS: dict[str, Any] = {
    "An account's balance is the sum of its entries.": lambda s: [_account(s, balance=accounts.c.balance + 1)],
    "What an account has spent is the sum of its charges.": lambda s: [_account(s, spent=accounts.c.spent + 1)],
    "What an account has held is the sum of its open holds.": lambda s: [_account(s, held=accounts.c.held - 1)],
    "No more is spent and held than the limit allows.": lambda s: [_account(s, balance=accounts.c.held - 1)],
    "Nothing that is held, spent or allowed is negative.": lambda s: [_account(s, balance=-accounts.c.spent - 1)],
    "An account belongs to a quota of its tenant.": lambda s: [_account(s, tenant_id=s.other_tenant_id)],
    "An account is for a period of its quota's kind.": lambda s: [_account(s, period="2026-11")],
    "A quota has a limit if it has a window, and else none.": lambda s: [
        _set(quotas, quotas.c.window == Window.DAY, limit_amount=None)
    ],
    "An entry belongs to an account of its tenant and unit.": lambda s: [s.an_entry(account_id=nobody())],
    "Charges and deductions take, top-ups give, and no entry is of nothing.": lambda s: [s.an_entry(amount=-5)],
    "A charge is of something that a call held.": lambda s: [
        s.an_entry(kind=EntryKind.CHARGE, amount=-5, hold_id=nobody())
    ],
    "A call is charged to an account once.": lambda s: [
        s.an_entry(kind=EntryKind.CHARGE, amount=-40, hold_id=s.holds["settled"].id)
    ],
    "A message is charged for one call.": lambda s: [_set(entries, *s.entry("late"), message_id=s.answer_id)],
    "What is held belongs to a hold.": lambda s: [s.a_line_of_nobody()],
    "What is held is taken from an account of its tenant and unit.": lambda s: [
        s.a_line_of_nobody(hold_id=s.holds["open"].id, account_id=nobody())
    ],
    "Nobody holds less than nothing.": lambda s: [_set(hold_lines, *s.line("open"), amount=-1)],
    "A hold is closed, with the time of it, or open.": lambda s: [_set(holds, s.a_hold("settled"), closed_at=None)],
    "Only calls that were settled or expired are charged.": lambda s: [
        s.an_entry(kind=EntryKind.CHARGE, amount=-5, hold_id=s.holds["released"].id)
    ],
    "Only calls that came back are charged late.": lambda s: [
        _set(entries, *s.entry("expired"), kind=EntryKind.LATE_CHARGE)
    ],
    "A charge is what the call used, up to what it held.": lambda s: [_set(entries, *s.entry("settled"), amount=-39)],
    "What is charged late adds up to what the call used, as far as it can be paid.": lambda s: [
        _set(entries, *s.entry("late", EntryKind.LATE_CHARGE), amount=-26)
    ],
    "A settled call has one usage record.": lambda s: [delete(usage_records).where(s.usage("settled"))],
    "A usage record belongs to a call.": lambda s: [_set(usage_records, s.usage("expired"), hold_id=nobody())],
    "A failed call costs nothing.": lambda s: [_set(usage_records, s.usage("released"), cost_micro_usd=1)],
    "No usage is negative.": lambda s: [_set(usage_records, s.usage("expired"), output_tokens=-1)],
    "The calls of a day are those recorded.": lambda s: [update(usage_days).values(calls=usage_days.c.calls + 1)],
    "The input of a day is that of its calls.": lambda s: [update(usage_days).values(input_tokens=0)],
    "The output of a day is that of its calls.": lambda s: [delete(usage_days)],
    "The cost of a day is that of its calls.": lambda s: [update(usage_days).values(cost_micro_usd=0)],
    "A completed answer is of a settled call.": lambda s: [_set(holds, s.a_hold("settled"), state=HoldState.RELEASED)],
    "An answer is in progress only while its call is.": lambda s: [
        _set(messages, messages.c.id == s.answer_id, status=MessageStatus.IN_PROGRESS)
    ],
    "An answer tells the tokens that were recorded of its call.": lambda s: [
        _set(messages, messages.c.id == s.answer_id, input_tokens=11)
    ],
    "An answer tells the cost that was recorded of its call.": lambda s: [
        _set(messages, messages.c.id == s.answer_id, cost_micro_usd=8)
    ],
}


def test_every_law_is_broken_once() -> None:
    assert set(BREAKS) == set(laws())


async def test_a_days_work_leaves_the_books_right(scene: Scene) -> None:
    audit = await scene.audit()
    assert (audit.breaches, audit.accounts, audit.holds, audit.overdue) == ([], 2, 5, 0)
    assert audit.entries == 2 + 2 * 4


@pytest.mark.parametrize("law", BREAKS)
async def test_a_broken_law_is_seen(scene: Scene, law: str) -> None:
    tenant, _ = await scene.backend.with_user()
    scene.other_tenant_id = tenant.id
    await scene.change(*BREAKS[law](scene))
    found = {breach.law: breach for breach in (await scene.audit()).breaches}
    assert law in found
    assert found[law].count >= 1
    for each in found[law].examples:
        assert (each.law, each.expected != each.found) == (law, True)
        assert UUID(each.subject)


async def test_of_many_breaches_all_are_counted_and_some_are_shown(scene: Scene) -> None:
    await scene.change(*(scene.an_entry(account_id=nobody()) for _ in range(7)))
    (breach,) = (await scene.auditor().audit(examples=3)).breaches
    assert (breach.count, len(breach.examples)) == (7, 3)
    assert len(await scene.auditor().discrepancies(limit=2)) == 2


async def test_holds_that_nobody_closed_in_time_are_told_and_closed_but_break_no_law(scene: Scene) -> None:
    assert [(await scene.auditor(minutes).audit()).overdue for minutes in (10, 11, 12)] == [0, 0, 1]
    assert (await scene.auditor(12).audit()).breaches == []
    assert await scene.auditor(12).close_expired() == 1
    assert (await scene.auditor(12).audit()).overdue == 0


async def test_the_operators_look_at_big_books_has_all_the_time_it_needs(postgres_server: Any) -> None:
    async with postgres_server.database() as url:
        engine = make_engine(url, patient=True)
        async with engine.connect() as connection:
            assert (await connection.execute(text("SHOW statement_timeout"))).scalar_one() == "0"
        await engine.dispose()


async def test_closing_what_expired_mends_nothing_else(scene: Scene) -> None:
    await scene.change(_account(scene, balance=accounts.c.balance + 1))
    before = (await scene.audit()).breaches
    await scene.auditor(12).close_expired()
    assert (await scene.audit()).breaches == before
    assert [(each.expected, each.found) for each in before[0].examples] == [(4905, 4906)]


async def test_a_limit_below_what_was_spent_breaks_no_law(scene: Scene) -> None:
    await scene.backend.set_limit(make_limit(scene.user, 1, unit=Unit.MICRO_USD))
    assert (await scene.audit()).breaches == []


async def test_another_tenants_books_are_looked_at_too(scene: Scene) -> None:
    other = make_user((await scene.backend.with_user())[0])
    account = await scene.backend.adjust(make_top_up(other, 70))
    await scene.change(_set(accounts, accounts.c.id == account.id, balance=71))
    (breach,) = (await scene.audit()).breaches
    assert [each.subject for each in breach.examples] == [str(account.id)]
