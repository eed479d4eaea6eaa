"""Accounts, holds, entries and the demands of a call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

from src.domain.catalog.model import Usage, output_affordable
from src.domain.identity.model import ApiKeyId, TenantId, UserId
from src.shared.money import MicroDollars, rounded_up

QuotaId = NewType("QuotaId", UUID)
AccountId = NewType("AccountId", UUID)
HoldId = NewType("HoldId", UUID)

MAX_AMOUNT = 10**15
"""The largest balance or amount: far above any use, far below what 64 bits hold when summed."""


class Unit(StrEnum):
    """What an account is counted in."""

    TOKENS = "tokens"
    MICRO_USD = "micro_usd"
    REQUESTS = "requests"


class Scope(StrEnum):
    """Whose account it is. Quotas of `new_user` are no one's: each new user of the tenant gets a copy of them."""

    TENANT = "tenant"
    USER = "user"
    API_KEY = "api_key"
    NEW_USER = "new_user"


class Window(StrEnum):
    """Over what time a quota counts; `none` is a prepaid balance."""

    NONE = "none"
    DAY = "day"
    MONTH = "month"


class HoldState(StrEnum):
    """A hold leaves `open` exactly once."""

    OPEN = "open"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


class EntryKind(StrEnum):
    """Why a balance changed. `limit`: a quota's limit, when its period began or the limit was changed."""

    LIMIT = "limit"
    TOP_UP = "top_up"
    DEDUCTION = "deduction"
    CHARGE = "charge"
    LATE_CHARGE = "late_charge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a quota lets its scope spend in one period. `balance` is the sum of entries, `held` of open holds' lines.

    `period` names the day or month the account is for ("" for a prepaid balance): each period of a quota is an account
    of its own, so nothing needs to be reset. `model` narrows it to one public model name. `spent` counts charges.
    The balance is negative only where an administrator set the limit below what was spent.
    """

    id: AccountId
    quota_id: QuotaId
    tenant_id: TenantId
    scope: Scope
    scope_id: UUID
    unit: Unit
    window: Window = Window.NONE
    period: str = ""
    model: str | None = None
    balance: int = 0
    held: int = 0
    spent: int = 0
    removed: bool = False

    @property
    def available(self) -> int:
        return self.balance - self.held

    @property
    def limit(self) -> int:
        return self.balance + self.spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a call may cost at the most: a bound of its prompt and the output it would like.

    `rates` are the dearest (input, output) rates of the models it may reach, in micro-USD per million tokens.
    Less output than `least_output_tokens` is of no use to the caller.
    """

    prompt_tokens: int
    output_tokens: int
    least_output_tokens: int = 1
    rates: tuple[int, int] = (0, 0)

    @property
    def least_output(self) -> int:
        """The least output that serves the caller, who may wish for less than is commonly useful."""
        return min(self.least_output_tokens, self.output_tokens)

    def needed(self, unit: Unit, output_tokens: int) -> int:
        """What that much output costs in the unit, prompt included."""
        match unit:
            case Unit.TOKENS:
                return self.prompt_tokens + output_tokens
            case Unit.MICRO_USD:
                return rounded_up(self.prompt_tokens * self.rates[0] + output_tokens * self.rates[1])
            case Unit.REQUESTS:
                return 1

    def affordable_output(self, unit: Unit, available: int) -> int:
        """The most output (up to the wish) that `available` pays for; below zero when not even the prompt is paid."""
        match unit:
            case Unit.TOKENS:
                most: int | None = available - self.prompt_tokens
            case Unit.MICRO_USD:
                most = output_affordable(available, self.prompt_tokens, self.rates)
            case Unit.REQUESTS:
                most = None if available >= 1 else -1
        return self.output_tokens if most is None else min(most, self.output_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRequest:
    """Ask every account of a principal for the worst case of one call.

    `model` is the public name that was asked for, `models` those it may reach (a chain's, or itself). `time_zone` is
    the tenant's: it decides which day and month the call belongs to.
    """

    id: HoldId
    tenant_id: TenantId
    user_id: UserId
    api_key_id: ApiKeyId | None
    model: str
    request_id: str
    demand: Demand
    at: datetime
    expires_at: datetime
    models: tuple[str, ...] = ()
    time_zone: str = "UTC"

    @property
    def scopes(self) -> tuple[tuple[Scope, UUID], ...]:
        """The scopes whose accounts pay for the call."""
        own: tuple[tuple[Scope, UUID], ...] = ((Scope.TENANT, self.tenant_id), (Scope.USER, self.user_id))
        return own if self.api_key_id is None else (*own, (Scope.API_KEY, self.api_key_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldLine:
    """What one account gave to a hold. With `model`, it is charged only if that model was asked for or answered."""

    account_id: AccountId
    unit: Unit
    amount: int
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What a call may cost, taken from every account at once. `output_cap` is None where no account limits the call.

    It lives until `expires_at`, which whoever makes the call moves on while it goes on. `noted` is what had been
    delivered when it last did so. `excluded_models` are members of the chain whose own quota cannot pay for the call.
    """

    id: HoldId
    tenant_id: TenantId
    user_id: UserId
    api_key_id: ApiKeyId | None
    model: str
    request_id: str
    lines: tuple[HoldLine, ...]
    output_cap: int | None
    created_at: datetime
    expires_at: datetime
    state: HoldState = HoldState.OPEN
    noted: "UsageRecord | None" = None
    cancel_requested: bool = False
    excluded_models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A call goes on: keep its hold until `expires_at`, and note what has been delivered.

    With a `demand`, the hold grows to what that costs, or to as much of its output as can be paid for.
    """

    hold: Hold
    at: datetime
    expires_at: datetime
    noted: "UsageRecord | None" = None
    demand: Demand | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """Close a hold: settled with what was used, released with nothing, or expired with what was last noted."""

    hold: Hold
    state: HoldState
    at: datetime
    tokens: int = 0
    micro_usd: MicroDollars = MicroDollars(0)
    requests: int = 0
    model: str | None = None
    message_id: UUID | None = None

    def amount(self, line: HoldLine) -> int:
        """What is owed to the account of a line."""
        if line.model not in (None, self.hold.model, self.model):
            return 0
        match line.unit:
            case Unit.TOKENS:
                return self.tokens
            case Unit.MICRO_USD:
                return self.micro_usd
            case Unit.REQUESTS:
                return self.requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """How a hold was closed. `lost` is what the provider claimed above the hold, per unit: the operator bears it."""

    hold_id: HoldId
    lost: Mapping[Unit, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One immutable line of the ledger. Negative amounts were spent. `scope_id` is the account's."""

    id: UUID
    tenant_id: TenantId
    scope_id: UUID
    account_id: AccountId
    unit: Unit
    amount: int
    kind: EntryKind
    created_at: datetime
    hold_id: HoldId | None = None
    message_id: UUID | None = None
    request_id: str | None = None
    model: str | None = None
    reason: str | None = None
    actor_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A row that commits with a ledger operation or not at all. Other subjects derive theirs from it."""


class CallStatus(StrEnum):
    """How a call ended."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """The upstream broke off after part of the answer was delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One upstream call of a chain. Those that failed cost nothing."""

    model: str
    outcome: str
    duration_ms: int
    status: int | None = None
    cost_micro_usd: int = 0
    provider: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord(Record):
    """What one call used and cost, whoever paid for it."""

    id: UUID
    tenant_id: TenantId
    user_id: UserId
    api_key_id: ApiKeyId | None
    hold_id: HoldId
    request_id: str
    endpoint: str
    requested_model: str
    model: str | None
    provider: str | None
    status: CallStatus
    usage: Usage
    cost_micro_usd: MicroDollars
    attempts: Sequence[Attempt]
    created_at: datetime
    duration_ms: int
    dialog_id: UUID | None = None
    message_id: UUID | None = None
    flags: tuple[str, ...] = ()
