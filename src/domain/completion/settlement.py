"""What a call owes: provider reports checked, missing ones replaced by our own count."""

from dataclasses import replace
from datetime import datetime

from src.domain.catalog.model import Model, Usage
from src.domain.completion.model import Call, Outcome
from src.domain.ledger.model import Attempt, CallStatus, Closing, Hold, HoldState, UsageRecord

USAGE_MISSING = "usage_missing"
USAGE_ABSURD = "usage_absurd"
OVER_HOLD = "over_hold"


def is_plausible(usage: Usage, model: Model, prompts: int = 1) -> bool:
    """Not negative, caches within the input, and no more than the model could ever take or give for as many prompts."""
    parts = (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens)
    most = model.context_window * prompts + model.max_output
    return (
        min(parts) >= 0
        and usage.cache_read_tokens + usage.cache_write_tokens <= usage.input_tokens
        and usage.input_tokens <= most
        and usage.output_tokens <= most
    )


def fault_of(reported: Usage | None, model: Model, prompts: int = 1) -> str | None:
    """Why a report cannot be charged by: it is missing (a prompt of no tokens is no report) or cannot be true."""
    if reported is None or reported.total_tokens == 0:
        return USAGE_MISSING
    return None if is_plausible(reported, model, prompts) else USAGE_ABSURD


def closing_of(call: Call, hold: Hold, outcome: Outcome) -> Closing:
    """Settle what was used; a call that used nothing releases its hold."""
    used = outcome.status is not CallStatus.FAILED
    return Closing(
        hold=hold,
        state=HoldState.SETTLED if used else HoldState.RELEASED,
        at=outcome.ended_at,
        tokens=outcome.usage.total_tokens,
        micro_usd=outcome.cost_micro_usd,
        requests=1 if used else 0,
        model=outcome.model.name if outcome.model else None,
        message_id=call.message_id,
    )


def usage_record(call: Call, hold: Hold, outcome: Outcome, closing: Closing, started_at: datetime) -> UsageRecord:
    """The usage row of the call."""
    over = any(closing.amount(line) > line.amount for line in hold.lines)
    return UsageRecord(
        id=hold.id,
        tenant_id=hold.tenant_id,
        user_id=hold.user_id,
        api_key_id=hold.api_key_id,
        hold_id=hold.id,
        request_id=call.request_id,
        endpoint=call.endpoint,
        requested_model=call.route.name,
        model=outcome.model.name if outcome.model else None,
        provider=outcome.model.provider if outcome.model else None,
        status=outcome.status,
        usage=outcome.usage,
        cost_micro_usd=outcome.cost_micro_usd,
        attempts=_paid(outcome),
        created_at=outcome.ended_at,
        duration_ms=int((outcome.ended_at - started_at).total_seconds() * 1000),
        dialog_id=call.dialog_id,
        message_id=call.message_id,
        flags=(*outcome.flags, OVER_HOLD) if over else outcome.flags,
    )


def _paid(outcome: Outcome) -> tuple[Attempt, ...]:
    """The attempts, of which the one that answered cost what the call costs."""
    if outcome.model is None or not outcome.attempts:
        return tuple(outcome.attempts)
    *before, last = outcome.attempts
    return (*before, replace(last, cost_micro_usd=outcome.cost_micro_usd))
