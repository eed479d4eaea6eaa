"""What a call owes, and whether a provider's report can be believed."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from src.domain.catalog.model import Usage
from src.domain.completion.model import FinishReason, Outcome
from src.domain.completion.settlement import (
    OVER_HOLD,
    USAGE_ABSURD,
    USAGE_MISSING,
    closing_of,
    fault_of,
    is_plausible,
    usage_record,
)
from src.domain.ledger.model import AccountId, Attempt, CallStatus, HoldLine, HoldState, Unit
from src.shared.money import MicroDollars
from tests.makers import NOW, nobody
from tests.unit.support import hold_for, make_call, make_model

MODEL = make_model()


def line_of(unit: Unit) -> HoldLine:
    return HoldLine(account_id=AccountId(nobody()), unit=unit, amount=100)


def make_outcome(**given: Any) -> Outcome:
    base = {"status": CallStatus.COMPLETED, "text": "fine", "finish_reason": FinishReason.STOP, "model": MODEL}
    base |= {"usage": Usage(input_tokens=30, output_tokens=10), "cost_micro_usd": MicroDollars(50)}
    return Outcome(**{"id": nobody(), **base, "upstream_model": None, "attempts": (), "ended_at": NOW, **given})


@pytest.mark.parametrize(
    ("usage", "believed"),
    [
        (Usage(input_tokens=1), True),
        (Usage(input_tokens=10, cache_read_tokens=4, cache_write_tokens=6), True),
        (Usage(input_tokens=1100, output_tokens=1100), True),
        (Usage(input_tokens=-1, output_tokens=5), False),
        (Usage(input_tokens=1, output_tokens=-5), False),
        (Usage(input_tokens=10, cache_read_tokens=-1), False),
        (Usage(input_tokens=10, cache_write_tokens=-1), False),
        (Usage(input_tokens=10, cache_read_tokens=5, cache_write_tokens=6), False),
        (Usage(input_tokens=1101), False),
        (Usage(input_tokens=1, output_tokens=1101), False),
        (Usage(input_tokens=10**18, output_tokens=10**18), False),
    ],
)
def test_a_report_is_believed_where_it_can_be_true(usage: Usage, believed: bool) -> None:
    assert is_plausible(usage, MODEL) is believed
    assert fault_of(usage, MODEL) == (None if believed else USAGE_ABSURD)


@pytest.mark.parametrize("usage", [None, Usage()])
def test_a_report_of_nothing_is_missing(usage: Usage | None) -> None:
    assert fault_of(usage, MODEL) == USAGE_MISSING


@pytest.mark.parametrize("status", [CallStatus.COMPLETED, CallStatus.CANCELLED, CallStatus.INTERRUPTED])
def test_whatever_was_delivered_is_settled(status: CallStatus) -> None:
    call = make_call(message_id=nobody())
    closing = closing_of(call, hold_for(call), make_outcome(status=status))
    assert (closing.state, closing.model, closing.message_id) == (HoldState.SETTLED, "fast", call.message_id)
    assert [closing.amount(line_of(unit)) for unit in Unit] == [40, 50, 1]


def test_a_failed_call_owes_nothing() -> None:
    call = make_call()
    outcome = make_outcome(status=CallStatus.FAILED, usage=Usage(), cost_micro_usd=MicroDollars(0), model=None)
    closing = closing_of(call, hold_for(call), outcome)
    assert (closing.state, closing.model) == (HoldState.RELEASED, None)
    assert [closing.amount(line_of(unit)) for unit in Unit] == [0, 0, 0]


def test_the_usage_row_says_who_asked_what_and_how_it_ended() -> None:
    call = make_call(dialog_id=nobody(), message_id=nobody(), name="smart")
    hold = hold_for(call)
    slow = Attempt(model="slow", outcome="timeout", duration_ms=900)
    tried = (slow, Attempt(model="fast", outcome="ok", duration_ms=5))
    outcome = make_outcome(attempts=tried, ended_at=NOW + timedelta(seconds=1.5), flags=(USAGE_MISSING,))
    row = usage_record(call, hold, outcome, closing_of(call, hold, outcome), NOW)
    assert (row.tenant_id, row.user_id, row.hold_id) == (hold.tenant_id, hold.user_id, hold.id)
    assert (row.requested_model, row.model, row.provider) == ("smart", "fast", "openai")
    assert (row.dialog_id, row.message_id, row.endpoint) == (call.dialog_id, call.message_id, "messages")
    assert (row.duration_ms, row.flags) == (1500, (USAGE_MISSING,))
    assert row.attempts == (slow, replace(tried[1], cost_micro_usd=50))


def test_the_row_of_a_call_that_no_model_answered_names_none() -> None:
    call = make_call()
    outcome = make_outcome(status=CallStatus.FAILED, model=None)
    row = usage_record(call, hold_for(call), outcome, closing_of(call, hold_for(call), outcome), NOW)
    assert (row.model, row.provider, row.status) == (None, None, CallStatus.FAILED)


@pytest.mark.parametrize(("held", "flags"), [(40, ()), (39, (OVER_HOLD,))])
def test_a_claim_above_the_hold_is_flagged(held: int, flags: tuple[str, ...]) -> None:
    call = make_call()
    hold = hold_for(call, lines=(HoldLine(account_id=AccountId(nobody()), unit=Unit.TOKENS, amount=held),))
    outcome = make_outcome()
    assert usage_record(call, hold, outcome, closing_of(call, hold, outcome), NOW).flags == flags
