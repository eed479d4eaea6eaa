"""Things to test with: whole and plausible, each field overridable."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from src.domain.catalog.model import Usage
from src.domain.completion.idempotency import KEPT_HOURS, Claim, Kept
from src.domain.dialogs.model import Dialog, DialogId, Message, MessageId, MessageRole, MessageStatus
from src.domain.identity.model import ApiKey, ApiKeyId, Role, Session, Tenant, TenantId, User, UserId
from src.domain.ledger.model import (
    Account,
    AccountId,
    Attempt,
    CallStatus,
    Closing,
    Demand,
    Hold,
    HoldId,
    HoldRequest,
    HoldState,
    QuotaId,
    Scope,
    Unit,
    UsageRecord,
    Window,
)
from src.domain.ledger.periods import period_of
from src.domain.ledger.quotas import Adjustment, LimitChange, QuotaKey
from src.domain.limits.model import LimitScope, RateLimit, RateLimitId
from src.shared.ids import new_id
from src.shared.money import MicroDollars

NOW = datetime(2026, 11, 21, 9, 0, 0, 123456, tzinfo=UTC)


def make_tenant(**given: Any) -> Tenant:
    tenant_id = TenantId(new_id())
    return Tenant(
        **{"id": tenant_id, "slug": f"t-{tenant_id.hex[-12:]}", "name": "A tenant", "created_at": NOW, **given}
    )


def make_user(tenant: Tenant, **given: Any) -> User:
    user_id = UserId(new_id())
    base = {"id": user_id, "tenant_id": tenant.id, "external_id": f"u-{user_id.hex}", "role": Role.USER}
    return User(**{**base, "created_at": NOW, **given})


def make_key(user: User, **given: Any) -> ApiKey:
    key_id = ApiKeyId(new_id())
    base = {
        "id": key_id,
        "tenant_id": user.tenant_id,
        "user_id": user.id,
        "name": "a key",
        "prefix": "sk-gw-abc",
        "secret_hmac": hashlib.sha256(key_id.bytes).digest(),
        "created_at": NOW,
    }
    return ApiKey(**{**base, **given})


def make_session(user: User, **given: Any) -> Session:
    session_id = new_id()
    base = {
        "id": session_id,
        "tenant_id": user.tenant_id,
        "user_id": user.id,
        "refresh_hmac": hashlib.sha256(session_id.bytes).digest(),
        "expires_at": NOW + timedelta(days=30),
        "created_at": NOW,
    }
    return Session(**{**base, **given})


def make_dialog(user: User, **given: Any) -> Dialog:
    base = {"id": DialogId(new_id()), "tenant_id": user.tenant_id, "user_id": user.id}
    return Dialog(**{**base, "created_at": NOW, "updated_at": NOW, **given})


def make_message(dialog: Dialog, **given: Any) -> Message:
    base = {
        "id": MessageId(new_id()),
        "tenant_id": dialog.tenant_id,
        "dialog_id": dialog.id,
        "parent_id": None,
        "role": MessageRole.USER,
        "content": "What is a quota?",
        "status": MessageStatus.COMPLETED,
        "created_at": NOW,
        "completed_at": NOW,
    }
    return Message(**{**base, **given})


def make_answer(question: Message, **given: Any) -> Message:
    base = {
        "id": MessageId(new_id()),
        "tenant_id": question.tenant_id,
        "dialog_id": question.dialog_id,
        "parent_id": question.id,
        "role": MessageRole.ASSISTANT,
        "content": "",
        "status": MessageStatus.IN_PROGRESS,
        "created_at": NOW,
    }
    return Message(**{**base, **given})


def make_account(user: User, balance: int = 100, **given: Any) -> Account:
    """A user's prepaid tokens; with a window, those of the period that NOW is in."""
    base = {"id": AccountId(new_id()), "quota_id": QuotaId(new_id()), "tenant_id": user.tenant_id, "scope": Scope.USER}
    period = period_of(given.get("window", Window.NONE), NOW, "UTC")
    whose = {"scope_id": user.id, "unit": Unit.TOKENS, "period": period, "balance": balance}
    return Account(**{**base, **whose, **given})


def make_quota_key(user: User, **given: Any) -> QuotaKey:
    """A user's prepaid tokens."""
    base = {"tenant_id": user.tenant_id, "scope": Scope.USER, "scope_id": user.id, "unit": Unit.TOKENS}
    return QuotaKey(**{**base, **given})


_OF_THE_KEY = ("scope", "scope_id", "unit", "window", "model")


def make_top_up(user: User, amount: int, **given: Any) -> Adjustment:
    named = {name: given.pop(name) for name in _OF_THE_KEY if name in given}
    return Adjustment(**{"key": make_quota_key(user, **named), "amount": amount, "at": NOW, **given})


def make_limit(user: User, limit: int, **given: Any) -> LimitChange:
    """A limit per day, in force on the day of NOW."""
    named = {"window": Window.DAY} | {name: given.pop(name) for name in _OF_THE_KEY if name in given}
    key = make_quota_key(user, **named)
    return LimitChange(**{"key": key, "limit": limit, "at": NOW, "period": period_of(key.window, NOW, "UTC"), **given})


def make_hold_request(user: User, **given: Any) -> HoldRequest:
    """Ten tokens of prompt and ninety of output, all or nothing: a hundred tokens."""
    base = {
        "id": HoldId(new_id()),
        "tenant_id": user.tenant_id,
        "user_id": user.id,
        "api_key_id": None,
        "model": "fast",
        "models": ("fast",),
        "request_id": f"req-{new_id().hex}",
        "demand": Demand(prompt_tokens=10, output_tokens=90, least_output_tokens=90),
        "at": NOW,
        "expires_at": NOW + timedelta(minutes=10),
    }
    return HoldRequest(**{**base, **given})


def make_closing(hold: Hold, **given: Any) -> Closing:
    """Settled with forty tokens."""
    base = {"hold": hold, "state": HoldState.SETTLED, "at": NOW, "tokens": 40, "requests": 1, "model": "fast"}
    return Closing(**{**base, "micro_usd": MicroDollars(7), **given})


def make_claim(user: User, **given: Any) -> Claim:
    """A user's key, good for a day."""
    base = {"id": new_id(), "tenant_id": user.tenant_id, "user_id": user.id, "api_key_id": None}
    hashes = {"key_hash": "a" * 64, "body_hash": "b" * 64}
    return Claim(**{**base, **hashes, "created_at": NOW, "expires_at": NOW + timedelta(hours=KEPT_HOURS), **given})


def make_kept(claim: Claim, **given: Any) -> Kept:
    """A small whole answer."""
    base = {"claim_id": claim.id, "status": 200, "media_type": "application/json", "body": b'{"x":1}\x00\xff'}
    return Kept(**{**base, "headers": {"x-gateway-model": "fast"}, **given})


def make_rate_limit(tenant: Tenant | None = None, **given: Any) -> RateLimit:
    """A tenant's; nothing is limited yet."""
    base = {
        "id": RateLimitId(new_id()),
        "scope": LimitScope.TENANT,
        "scope_id": str(tenant.id if tenant else new_id()),
        "tenant_id": tenant.id if tenant else None,
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "parallel": None,
        "updated_at": NOW,
    }
    return RateLimit(**{**base, **given})


def make_usage_record(hold: Hold, **given: Any) -> UsageRecord:
    base = {
        "id": hold.id,
        "tenant_id": hold.tenant_id,
        "user_id": hold.user_id,
        "api_key_id": hold.api_key_id,
        "hold_id": hold.id,
        "request_id": hold.request_id,
        "endpoint": "messages",
        "requested_model": hold.model,
        "model": hold.model,
        "provider": "openai",
        "status": CallStatus.COMPLETED,
        "usage": Usage(input_tokens=10, output_tokens=30),
        "cost_micro_usd": MicroDollars(7),
        "attempts": (Attempt(model=hold.model, outcome="ok", duration_ms=12),),
        "created_at": NOW,
        "duration_ms": 12,
    }
    return UsageRecord(**{**base, **given})


def nobody() -> UUID:
    """An id that belongs to nothing."""
    return new_id()
