"""The data room in memory, over the same arithmetic. It is trusted because it passes the same contracts."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self
from uuid import UUID

from src.domain.dialogs.model import (
    ASIDE,
    AnswerEnded,
    AnswerNoted,
    Dialog,
    DialogAdded,
    DialogId,
    Message,
    MessagesAdded,
    MessageStatus,
    turn_in,
)
from src.domain.identity.model import TenantId
from src.domain.ledger.book import Book
from src.domain.ledger.model import (
    Account,
    AccountId,
    Closed,
    Closing,
    Entry,
    EntryKind,
    Hold,
    HoldId,
    HoldRequest,
    HoldState,
    QuotaId,
    Record,
    Renewal,
    UsageRecord,
    Window,
)
from src.domain.ledger.periods import period_of
from src.domain.ledger.ports import Audit, Breach, Discrepancy
from src.domain.ledger.quotas import LimitChange, Quota, QuotaChange, untouched
from src.domain.unit_of_work import UnitOfWork
from src.shared.clock import Clock, utc_now
from src.shared.errors import NotFound
from src.shared.ids import new_id
from tests.fake_claims import FakeClaims, end_claims, require_free, write_claim
from tests.fake_limits import FakeRateLimits
from tests.fake_repositories import FakeAccounts, FakeAuditLog, FakeCatalog, FakeDialogs, FakeDirectory, FakeIdentity
from tests.fake_store import Store

CHARGES = (EntryKind.CHARGE, EntryKind.LATE_CHARGE)


class FakeLedger:
    """The ledger in memory. An operation is atomic because nothing in it awaits."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def open(self, request: HoldRequest, records: Sequence[Record] = ()) -> Hold:
        await asyncio.sleep(0)
        require_free(self._store, records)
        self._check(records)
        self._begin_periods(request)
        book = self._book()
        hold = book.open(request)
        self._write(book, records, hold.id)
        return hold

    async def renew(self, renewal: Renewal, records: Sequence[Record] = ()) -> Hold:
        await asyncio.sleep(0)
        book = self._book()
        renewed = book.renew(renewal)
        self._write(book, records, None)
        return renewed

    async def close(self, closing: Closing, records: Sequence[Record] = ()) -> Closed:
        await asyncio.sleep(0)
        book = self._book()
        before = self._store.holds.get(closing.hold.id)
        closed = book.close(closing)
        if not book.closed:
            return closed
        is_late = before is not None and before.state is HoldState.EXPIRED
        is_placed = before is not None and before.noted is not None
        self._write(book, [_late(each, is_placed) for each in records] if is_late else records, None)
        if closing.state is HoldState.EXPIRED or not records:
            charged = closing.state is HoldState.SETTLED or (before is not None and before.noted is not None)
            end_claims(self._store, closing.hold.id, charged=charged)
        noted = before.noted if before is not None and closing.state is HoldState.EXPIRED else None
        if noted is not None:
            self._store.usage[noted.id] = noted
        if closing.state is not HoldState.SETTLED:
            self._end_unfinished(closing, noted)
        return closed

    async def record(self, records: Sequence[Record]) -> None:
        await asyncio.sleep(0)
        require_free(self._store, records)
        self._check(records)
        self._write(self._book(), records, None)

    def change(self, change: QuotaChange) -> Account:
        """A top-up, a deduction or a new limit."""
        book = self._book()
        is_limit = isinstance(change, LimitChange)
        quota = self.put_quota(change, make=is_limit or (change.key.window is Window.NONE and change.amount >= 0))
        if quota is not None and not any(
            (row.quota_id, row.period) == (quota.id, change.period) for row in self._rows()
        ):
            book = Book([*self._rows(), self._new_account(quota, change.period, 0)], self._store.holds.values())
            if not is_limit and quota.limit is not None:
                book.set_limit(LimitChange(key=quota.key, at=change.at, period=change.period, limit=quota.limit))
        account = book.set_limit(change) if is_limit else book.adjust(change)
        self._write(book, (), None)
        return account

    def put_quota(self, change: QuotaChange, *, make: bool) -> Quota | None:
        """The quota of the change, with its new limit."""
        quotas = self._store.quotas
        quota = next((quota for quota in quotas.values() if quota.key == change.key), None)
        if quota is None and not make:
            if change.key.window is Window.NONE:
                return None
            raise NotFound("There is no such quota.")
        if quota is None:
            quota = Quota(id=QuotaId(new_id()), key=change.key, limit=None, created_at=change.at, updated_at=change.at)
        if isinstance(change, LimitChange) and change.key.window is not Window.NONE:
            quota = replace(quota, limit=change.limit, updated_at=change.at)
        quotas[quota.id] = quota
        return quota

    def _begin_periods(self, request: HoldRequest) -> None:
        """Make the accounts that a call is the first to need."""
        had = {(account.quota_id, account.period) for account in self._rows()}
        for quota in self._store.quotas.values():
            key = quota.key
            period = period_of(key.window, request.at, request.time_zone)
            if (key.scope, key.scope_id) in request.scopes and (quota.id, period) not in had:
                account = self._new_account(quota, period, quota.limit or 0)
                self._store.accounts[account.id] = account
                if account.balance:
                    entry = _limit_entry(account, request)
                    self._store.entries[entry.id] = entry

    def _new_account(self, quota: Quota, period: str, balance: int) -> Account:
        return replace(untouched(quota, period), id=AccountId(new_id()), balance=balance)

    def _rows(self) -> list[Account]:
        """The accounts, those of removed quotas marked."""
        return [
            replace(account, removed=account.quota_id not in self._store.quotas)
            for account in self._store.accounts.values()
        ]

    def _book(self) -> Book:
        return Book(self._rows(), self._store.holds.values())

    def _check(self, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record, DialogAdded) and record.dialog.user_id not in self._store.users:
                raise NotFound("What this belongs to does not exist (any more).")
            if isinstance(record, MessagesAdded):
                for message in record.messages:
                    dialog = {**self._store.dialogs, **_new_dialogs(records)}.get(message.dialog_id)
                    if dialog is None or dialog.tenant_id != message.tenant_id:
                        raise NotFound("What this belongs to does not exist (any more).")

    def _write(self, book: Book, records: Sequence[Record], hold_id: HoldId | None) -> None:
        store = self._store
        store.accounts.update((account_id, book.account(account_id)) for account_id in book.created | book.changed)
        store.holds.update((hold.id, hold) for hold in book.opened)
        store.holds.update(book.renewed)
        store.entries.update((entry.id, entry) for entry in book.entries)
        for closing in book.closed:
            store.holds[closing.hold.id] = replace(store.holds[closing.hold.id], state=closing.state)
        store.dialogs.update(_new_dialogs(records))
        for record in records:
            if not isinstance(record, DialogAdded):
                self._write_record(record, hold_id)

    def _write_record(self, record: Record, hold_id: HoldId | None) -> None:
        store = self._store
        match record:
            case UsageRecord():
                store.usage[record.id] = record
            case MessagesAdded():
                for message in record.messages:
                    store.messages[message.id] = message
                    if hold_id is not None and message.status is MessageStatus.IN_PROGRESS:
                        store.message_holds[message.id] = hold_id
            case AnswerNoted():
                message = store.messages.get(record.message_id)
                if message is not None and message.status is MessageStatus.IN_PROGRESS:
                    store.messages[record.message_id] = replace(message, content=record.content, parts=record.parts)
            case _Late():
                self._end_late(record)
            case AnswerEnded():
                self._end_answer(record)
            case _:
                write_claim(store, record, hold_id)

    def _end_answer(self, record: AnswerEnded) -> None:
        if record.answer.id in self._store.messages:
            self._store.messages[record.answer.id] = record.answer
        if record.becomes_head:
            self._place(record.answer)

    def _end_late(self, record: "_Late") -> None:
        self._store.messages[record.answer.id] = record.answer
        if not record.is_placed and not self._is_passed_over(record.answer):
            self._place(record.answer)

    def _is_passed_over(self, answer: Message) -> bool:
        if (answer.settings or {}).get(ASIDE):
            return True
        if turn_in(answer.settings) is None:
            head = self._store.dialogs[answer.dialog_id].head_id
            return head is not None and head >= answer.id
        return any(each.parent_id == answer.id for each in self._store.messages.values())

    def _place(self, answer: Message) -> None:
        """At the end of its dialog."""
        store, turn = self._store, turn_in(answer.settings)
        if answer.dialog_id in store.dialogs:
            dialog = store.dialogs[answer.dialog_id]
            if turn is not None and turn in store.messages:
                store.messages[turn] = replace(store.messages[turn], parent_id=dialog.head_id)
            at = answer.completed_at or answer.created_at
            store.dialogs[answer.dialog_id] = replace(dialog, head_id=answer.id, updated_at=at)

    def _end_unfinished(self, closing: Closing, noted: UsageRecord | None) -> None:
        for message_id, hold_id in self._store.message_holds.items():
            message = self._store.messages.get(message_id)
            if hold_id == closing.hold.id and message is not None and message.status is MessageStatus.IN_PROGRESS:
                lost = {"code": "interrupted", "message": "The gateway stopped before this answer was finished."}
                ended = replace(message, status=MessageStatus.FAILED, error=lost, completed_at=closing.at)
                if noted is not None:
                    ended = replace(
                        ended,
                        status=MessageStatus.INTERRUPTED,
                        model=noted.model,
                        usage=noted.usage,
                        cost_micro_usd=noted.cost_micro_usd,
                    )
                self._store.messages[message_id] = ended
                if noted is not None and not self._is_passed_over(ended):
                    self._place(ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Late(Record):
    """An answer that ends after its call was given up; `is_placed`: what was noted of it is in its dialog."""

    answer: Message
    is_placed: bool


def _late(record: Record, is_placed: bool) -> Record:
    ends = isinstance(record, AnswerEnded) and record.becomes_head
    return _Late(answer=record.answer, is_placed=is_placed) if ends else record


def _new_dialogs(records: Sequence[Record]) -> dict[DialogId, Dialog]:
    return {record.dialog.id: record.dialog for record in records if isinstance(record, DialogAdded)}


def _limit_entry(account: Account, request: HoldRequest) -> Entry:
    return Entry(
        id=new_id(),
        tenant_id=account.tenant_id,
        scope_id=account.scope_id,
        account_id=account.id,
        unit=account.unit,
        amount=account.balance,
        kind=EntryKind.LIMIT,
        created_at=request.at,
    )


class FakeAuditor:
    """The laws, counted by hand."""

    def __init__(self, store: Store, ledger: FakeLedger, *, clock: Clock = utc_now) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock

    async def audit(self, examples: int = 10) -> Audit:
        found: defaultdict[str, list[Discrepancy]] = defaultdict(list)
        for each in await self.discrepancies():
            found[each.law].append(each)
        late = self._clock() - timedelta(minutes=1)
        store = self._store
        return Audit(
            accounts=len(store.accounts),
            holds=len(store.holds),
            entries=len(store.entries),
            overdue=sum(hold.state is HoldState.OPEN and hold.expires_at < late for hold in store.holds.values()),
            breaches=[Breach(law=law, count=len(all_), examples=all_[:examples]) for law, all_ in found.items()],
        )

    async def discrepancies(self, limit: int = 1000) -> list[Discrepancy]:
        held: defaultdict[UUID, int] = defaultdict(int)
        for hold in self._store.holds.values():
            for line in hold.lines:
                held[line.account_id] += line.amount if hold.state is HoldState.OPEN else 0
        entries: defaultdict[UUID, list[Entry]] = defaultdict(list)
        for entry in self._store.entries.values():
            entries[entry.account_id].append(entry)
        found = []
        for account in self._store.accounts.values():
            own = entries[account.id]
            lowered = sum(entry.amount for entry in own if entry.kind is EntryKind.LIMIT and entry.amount < 0)
            spent = -sum(entry.amount for entry in own if entry.kind in CHARGES)
            for law, expected, actual in (
                ("balance", sum(entry.amount for entry in own), account.balance),
                ("spent", spent, account.spent),
                ("held", held[account.id], account.held),
                ("overspent", min(0, account.available - lowered), 0),
            ):
                if expected != actual:
                    found.append(Discrepancy(law=law, subject=str(account.id), expected=expected, found=actual))
        return found[:limit]

    async def close_expired(self, limit: int = 500) -> int:
        now = self._clock()
        holds = [h for h in self._store.holds.values() if h.state is HoldState.OPEN and h.expires_at <= now][:limit]
        for hold in holds:
            await self._ledger.close(Closing(hold=hold, state=HoldState.EXPIRED, at=now))
        return len(holds)


class FakeUnitOfWork:
    """All repositories over one store; leaving it without commit puts everything back."""

    def __init__(self, store: Store, tenant_id: TenantId | None) -> None:
        self._store = store
        self._kept = store.copy()
        self.directory = FakeDirectory(store)
        self.audit = FakeAuditLog(store)
        self.catalog = FakeCatalog(store)
        self.limits = FakeRateLimits(store)
        self._tenant_id = tenant_id

    @property
    def identity(self) -> FakeIdentity:
        return FakeIdentity(self._store, self._tenant)

    @property
    def dialogs(self) -> FakeDialogs:
        return FakeDialogs(self._store, self._tenant)

    @property
    def accounts(self) -> FakeAccounts:
        return FakeAccounts(self._store, self._tenant, FakeLedger(self._store).change)

    @property
    def claims(self) -> FakeClaims:
        return FakeClaims(self._store, self._tenant)

    @property
    def _tenant(self) -> TenantId:
        if self._tenant_id is None:
            raise RuntimeError("this unit of work was opened before a tenant was known")
        return self._tenant_id

    async def __aenter__(self) -> Self:
        self._kept = self._store.copy()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._store.become(self._kept)

    async def commit(self) -> None:
        self._kept = self._store.copy()


def fake_unit_of_work_opener(store: Store) -> Callable[[TenantId | None], AbstractAsyncContextManager[UnitOfWork]]:
    return lambda tenant_id: FakeUnitOfWork(store, tenant_id)
