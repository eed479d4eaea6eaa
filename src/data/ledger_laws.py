"""The laws of the books, each as a query for what breaks it: a subject, what was expected, what was found.

They hold in every committed state of the database, with any number of replicas at work and whatever has crashed. All
are aggregates and joins that the database works out by itself; nothing but a few breaches ever leaves it.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, Subquery, and_, case, func, literal, or_, select, union_all

from src.data.ledger_tables import NO_KEY, accounts, entries, hold_lines, holds, quotas, usage_days, usage_records
from src.data.tables import messages
from src.domain.dialogs.model import MessageStatus
from src.domain.ledger.model import CallStatus, EntryKind, HoldState, Unit, Window

Law = Select[Any]

CHARGES = (EntryKind.CHARGE, EntryKind.LATE_CHARGE)
CHARGED_STATES = (HoldState.SETTLED, HoldState.EXPIRED)
USED = usage_records.c.input_tokens + usage_records.c.output_tokens


@cache
def laws() -> Mapping[str, Law]:
    """Every law, by its sentence."""
    return {
        **_laws_of_accounts(),
        **_laws_of_entries(),
        **_laws_of_holds(),
        **_laws_of_usage(),
        **_laws_of_answers(),
    }


def _laws_of_accounts() -> dict[str, Law]:
    held = (
        select(hold_lines.c.account_id, func.sum(hold_lines.c.amount).label("amount"))
        .join(holds, and_(holds.c.id == hold_lines.c.hold_id, holds.c.state == HoldState.OPEN))
        .group_by(hold_lines.c.account_id)
        .subquery()
    )
    charged = case((entries.c.kind.in_(CHARGES), -entries.c.amount), else_=0)
    long = {Window.NONE: 0, Window.DAY: len("2026-11-21"), Window.MONTH: len("2026-11")}
    letters = case(long, value=quotas.c.window)
    return {
        "An account's balance is the sum of its entries.": _unequal(_sums(entries.c.amount), accounts.c.balance),
        "What an account has spent is the sum of its charges.": _unequal(_sums(charged), accounts.c.spent),
        "What an account has held is the sum of its open holds.": _unequal(held, accounts.c.held),
        "No more is spent and held than the limit allows.": _overspent(),
        "Nothing that is held, spent or allowed is negative.": _breaches(
            accounts,
            accounts.c.id,
            or_(accounts.c.held < 0, accounts.c.spent < 0, accounts.c.balance + accounts.c.spent < 0),
            found=_least(accounts.c.held, accounts.c.spent, accounts.c.balance + accounts.c.spent),
        ),
        "An account belongs to a quota of its tenant.": _missing(
            accounts, quotas, (quotas.c.id == accounts.c.quota_id) & (quotas.c.tenant_id == accounts.c.tenant_id)
        ),
        "An account is for a period of its quota's kind.": _breaches(
            accounts.join(quotas, quotas.c.id == accounts.c.quota_id),
            accounts.c.id,
            func.length(accounts.c.period) != letters,
            expected=letters,
            found=func.length(accounts.c.period),
        ),
        "A quota has a limit if it has a window, and else none.": _breaches(
            quotas, quotas.c.id, (quotas.c.window == Window.NONE) != quotas.c.limit_amount.is_(None)
        ),
    }


def _laws_of_entries() -> dict[str, Law]:
    is_negative = case((entries.c.amount < 0, 1), else_=0)
    must_be = case((entries.c.kind.in_((EntryKind.CHARGE, EntryKind.DEDUCTION)), 1), else_=0)
    either = entries.c.kind.in_((EntryKind.LIMIT, EntryKind.LATE_CHARGE))
    its_account = accounts.join(quotas, quotas.c.id == accounts.c.quota_id)
    same = (entries.c.tenant_id == accounts.c.tenant_id, entries.c.unit == quotas.c.unit)
    calls = func.count(entries.c.hold_id.distinct())
    return {
        "An entry belongs to an account of its tenant and unit.": _missing(
            entries, its_account, and_(accounts.c.id == entries.c.account_id, *same), key=accounts.c.id
        ),
        "Charges and deductions take, top-ups give, and no entry is of nothing.": _breaches(
            entries,
            entries.c.id,
            (entries.c.amount == 0) | (~either & (is_negative != must_be)),
            found=entries.c.amount,
        ),
        "A charge is of something that a call held.": _missing(
            entries,
            hold_lines,
            and_(hold_lines.c.hold_id == entries.c.hold_id, hold_lines.c.account_id == entries.c.account_id),
            entries.c.kind.in_(CHARGES),
            key=hold_lines.c.hold_id,
        ),
        "A call is charged to an account once.": select(entries.c.hold_id, literal(1), func.count())
        .where(entries.c.kind.in_(CHARGES))
        .group_by(entries.c.hold_id, entries.c.account_id, entries.c.kind)
        .having(func.count() > 1),
        "A message is charged for one call.": select(entries.c.message_id, literal(1), calls)
        .where(entries.c.message_id.is_not(None))
        .group_by(entries.c.message_id)
        .having(calls > 1),
    }


def _laws_of_holds() -> dict[str, Law]:
    charges = entries.join(holds, holds.c.id == entries.c.hold_id)
    is_open = holds.c.state == HoldState.OPEN
    its_account = accounts.join(quotas, quotas.c.id == accounts.c.quota_id)
    same = (hold_lines.c.tenant_id == accounts.c.tenant_id, hold_lines.c.unit == quotas.c.unit)
    return {
        "What is held belongs to a hold.": _missing(
            hold_lines, holds, holds.c.id == hold_lines.c.hold_id, subject=hold_lines.c.hold_id
        ),
        "What is held is taken from an account of its tenant and unit.": _missing(
            hold_lines,
            its_account,
            and_(accounts.c.id == hold_lines.c.account_id, *same),
            key=accounts.c.id,
            subject=hold_lines.c.hold_id,
        ),
        "Nobody holds less than nothing.": _breaches(
            hold_lines, hold_lines.c.hold_id, hold_lines.c.amount < 0, found=hold_lines.c.amount
        ),
        "A hold is closed, with the time of it, or open.": _breaches(
            holds, holds.c.id, is_open != holds.c.closed_at.is_(None)
        ),
        "Only calls that were settled or expired are charged.": _breaches(
            charges,
            holds.c.id,
            entries.c.kind.in_(CHARGES) & holds.c.state.not_in(CHARGED_STATES),
            found=-entries.c.amount,
        ),
        "Only calls that came back are charged late.": _breaches(
            charges,
            holds.c.id,
            (entries.c.kind == EntryKind.LATE_CHARGE) & (holds.c.state != HoldState.SETTLED),
            found=-entries.c.amount,
        ),
        "A charge is what the call used, up to what it held.": _mischarged(),
        "What is charged late adds up to what the call used, as far as it can be paid.": _mischarged_late(),
    }


def _laws_of_usage() -> dict[str, Law]:
    rows = func.count(usage_records.c.id)
    failed = (holds.c.state == HoldState.RELEASED) | (usage_records.c.status == CallStatus.FAILED)
    columns = [usage_records.c[name] for name in ("input_tokens", "output_tokens", "cost_micro_usd")]
    return {
        "A settled call has one usage record.": select(holds.c.id, literal(1), rows)
        .join_from(holds, usage_records, usage_records.c.hold_id == holds.c.id, isouter=True)
        .where(holds.c.state == HoldState.SETTLED)
        .group_by(holds.c.id)
        .having(rows != 1),
        "A usage record belongs to a call.": _missing(usage_records, holds, holds.c.id == usage_records.c.hold_id),
        "A failed call costs nothing.": _breaches(
            usage_records.join(holds, holds.c.id == usage_records.c.hold_id),
            holds.c.id,
            failed & ((USED != 0) | (usage_records.c.cost_micro_usd != 0)),
            found=usage_records.c.cost_micro_usd,
        ),
        "No usage is negative.": _breaches(
            usage_records, usage_records.c.id, or_(*(column < 0 for column in columns)), found=_least(*columns)
        ),
        "The calls of a day are those recorded.": _miscounted("calls"),
        "The input of a day is that of its calls.": _miscounted("input_tokens"),
        "The output of a day is that of its calls.": _miscounted("output_tokens"),
        "The cost of a day is that of its calls.": _miscounted("cost_micro_usd"),
    }


def _laws_of_answers() -> dict[str, Law]:
    called = messages.join(holds, holds.c.id == messages.c.hold_id)
    counted = messages.join(usage_records, usage_records.c.hold_id == messages.c.hold_id)
    has_ended = messages.c.status != MessageStatus.IN_PROGRESS
    tokens = func.coalesce(messages.c.input_tokens, 0) + func.coalesce(messages.c.output_tokens, 0)
    return {
        "A completed answer is of a settled call.": _missing(
            messages,
            holds,
            and_(holds.c.id == messages.c.hold_id, holds.c.state == HoldState.SETTLED),
            and_(messages.c.status == MessageStatus.COMPLETED, messages.c.hold_id.is_not(None)),
        ),
        "An answer is in progress only while its call is.": _breaches(
            called, messages.c.id, ~has_ended & (holds.c.state != HoldState.OPEN)
        ),
        "An answer tells the tokens that were recorded of its call.": _breaches(
            counted, messages.c.id, has_ended & (tokens != USED), expected=USED, found=tokens
        ),
        "An answer tells the cost that was recorded of its call.": _breaches(
            counted,
            messages.c.id,
            has_ended & (messages.c.cost_micro_usd != usage_records.c.cost_micro_usd),
            expected=usage_records.c.cost_micro_usd,
            found=messages.c.cost_micro_usd,
        ),
    }


def _breaches(
    rows: FromClause,
    subject: ColumnElement[Any],
    is_broken: ColumnElement[bool],
    *,
    expected: ColumnElement[Any] | None = None,
    found: ColumnElement[Any] | None = None,
) -> Law:
    """Rows that are not as they should be. Where there is nothing to count: expected none, found one."""
    wanted = literal(0) if expected is None else expected
    return select(subject, wanted, literal(1) if found is None else found).select_from(rows).where(is_broken)


def _missing(
    rows: Any,
    others: FromClause,
    related: ColumnElement[bool],
    *where: ColumnElement[bool],
    key: ColumnElement[Any] | None = None,
    subject: ColumnElement[Any] | None = None,
) -> Law:
    """Rows without what they belong to."""
    belongs = others.c.id if key is None else key
    whose = rows.c.id if subject is None else subject
    joined = select(whose, literal(1), literal(0)).join_from(rows, others, related, isouter=True)
    return joined.where(belongs.is_(None), *where)


def _sums(amount: ColumnElement[int]) -> Subquery:
    summed = select(entries.c.account_id, func.sum(amount).label("amount"))
    return summed.group_by(entries.c.account_id).subquery()


def _unequal(sums: Subquery, column: ColumnElement[int]) -> Law:
    expected = func.coalesce(sums.c.amount, 0)
    return (
        select(accounts.c.id, expected, column)
        .join_from(accounts, sums, sums.c.account_id == accounts.c.id, isouter=True)
        .where(column != expected)
    )


def _overspent() -> Law:
    """Below zero only by as much as administrators lowered limits."""
    is_lowering = (entries.c.kind == EntryKind.LIMIT) & (entries.c.amount < 0)
    lowered = _sums(case((is_lowering, entries.c.amount), else_=0))
    least = func.coalesce(lowered.c.amount, 0)
    free = accounts.c.balance - accounts.c.held
    return (
        select(accounts.c.id, least, free)
        .join_from(accounts, lowered, lowered.c.account_id == accounts.c.id, isouter=True)
        .where(free < least)
    )


def _owed() -> ColumnElement[int]:
    """What a call owes to an account: nothing to that of a model that was neither asked for nor answered."""
    concerns = hold_lines.c.model.in_(("", holds.c.model, usage_records.c.model))
    amount = case(
        {Unit.TOKENS: USED, Unit.MICRO_USD: usage_records.c.cost_micro_usd}, value=hold_lines.c.unit, else_=literal(1)
    )
    return case((concerns, amount), else_=0)


def _charged_lines() -> FromClause:
    """Charges with what was held for them, their call and what it used."""
    line = and_(hold_lines.c.hold_id == entries.c.hold_id, hold_lines.c.account_id == entries.c.account_id)
    return (
        entries.join(hold_lines, line)
        .join(holds, holds.c.id == entries.c.hold_id)
        .join(usage_records, usage_records.c.hold_id == holds.c.id)
    )


def _mischarged() -> Law:
    """Where the hold was closed with the charge. A call that expired and came back later is another law's matter."""
    due = _least(_owed(), hold_lines.c.amount)
    at_once = (entries.c.kind == EntryKind.CHARGE) & (entries.c.created_at == holds.c.closed_at)
    return _breaches(
        _charged_lines(), holds.c.id, at_once & (-entries.c.amount != due), expected=due, found=-entries.c.amount
    )


def _mischarged_late() -> Law:
    """A late charge asks for no more than is missing, and gives back all that the call was charged too much."""
    first = entries.alias()
    same_call = and_(first.c.hold_id == entries.c.hold_id, first.c.account_id == entries.c.account_id)
    rows = _charged_lines().join(first, same_call & (first.c.kind == EntryKind.CHARGE), isouter=True)
    noted = -func.coalesce(first.c.amount, 0)
    charged = noted - entries.c.amount
    is_wrong = (charged > _owed()) | (charged < _least(_owed(), noted))
    is_late = entries.c.kind == EntryKind.LATE_CHARGE
    return _breaches(rows, holds.c.id, is_late & is_wrong, expected=_owed(), found=charged)


def _miscounted(name: str) -> Law:
    """Days whose sum is not that of their calls, and calls that are in no day."""
    day = func.date(usage_records.c.created_at)
    model = func.coalesce(usage_records.c.model, usage_records.c.requested_model)
    owner = (usage_records.c.tenant_id, usage_records.c.user_id)
    amount = literal(1) if name == "calls" else usage_records.c[name]
    key_id = usage_records.c.api_key_id
    calls = select(*owner, day.label("day"), model.label("model"), key_id.label("key"), amount.label("called"))
    days = select(
        usage_days.c.tenant_id,
        usage_days.c.user_id,
        func.date(usage_days.c.day),
        usage_days.c.model,
        func.nullif(usage_days.c.api_key_id, NO_KEY),
        literal(0),
    )
    calls, days = calls.add_columns(literal(0).label("counted")), days.add_columns(usage_days.c[name])
    both = union_all(calls, days).subquery()
    called, counted = func.sum(both.c.called), func.sum(both.c.counted)
    return (
        select(both.c.user_id, called, counted)
        .group_by(both.c.tenant_id, both.c.user_id, both.c.day, both.c.model, both.c.key)
        .having(called != counted)
    )


def _least(first: ColumnElement[Any], *others: ColumnElement[Any]) -> ColumnElement[Any]:
    """The smallest of some numbers; the databases have different names for it."""
    for other in others:
        first = case((other < first, other), else_=first)
    return first
