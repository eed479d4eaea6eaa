"""What holds the books."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol
from uuid import UUID

from src.domain.identity.model import UserId
from src.domain.ledger.model import (
    Account,
    Closed,
    Closing,
    Entry,
    Hold,
    HoldRequest,
    QuotaId,
    Record,
    Renewal,
    Scope,
)
from src.domain.ledger.quotas import Adjustment, LimitChange, Quota
from src.shared.pages import Page, PageRequest


class Ledger(Protocol):
    """The hot path: holds and their closing, each with the rows that must commit with it.

    Fails closed: when the store is away, nothing is held and nothing is called. One operation's refusal or failure
    never touches another's.
    """

    async def open(self, request: HoldRequest, records: Sequence[Record] = ()) -> Hold:
        """Durable when it returns. Raises QuotaExceeded, NotFound (a record's parent is gone), Unavailable."""
        ...

    async def renew(self, renewal: Renewal, records: Sequence[Record] = ()) -> Hold:
        """Durable when it returns. Raises Conflict (closed already), QuotaExceeded (it cannot grow), Unavailable."""
        ...

    async def close(self, closing: Closing, records: Sequence[Record] = ()) -> Closed:
        """Durable when it returns. Raises Conflict (closed already) or Unavailable."""
        ...

    async def record(self, records: Sequence[Record]) -> None:
        """Rows with nothing to pay (an answer from the cache). Durable when it returns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Usage summed over a day, model and key."""

    day: date
    model: str
    api_key_id: UUID | None
    calls: int
    input_tokens: int
    output_tokens: int
    cost_micro_usd: int


class AccountRepository(Protocol):
    """Quotas, accounts, entries and usage of one tenant, for everything that is not the hot path."""

    async def quotas(
        self, page: PageRequest, *, scope: Scope | None = None, scope_id: UUID | None = None
    ) -> Page[Quota]:
        """Those that are in force, in the order they were made."""
        ...

    async def quota(self, quota_id: QuotaId) -> Quota | None: ...

    async def quotas_of(self, scopes: Sequence[tuple[Scope, UUID]]) -> list[Quota]:
        """Those in force for these scopes."""
        ...

    async def accounts_of(self, quota_ids: Sequence[QuotaId], periods: Sequence[str]) -> list[Account]:
        """The accounts of these quotas in any of the periods; one that was not used yet in a period has none."""
        ...

    async def set_limit(self, change: LimitChange) -> Account:
        """Make the quota, or change its limit, at once. Raises InvalidRequest (see Book.set_limit)."""
        ...

    async def adjust(self, adjustment: Adjustment) -> Account:
        """Raises NotFound where a day or month has no quota, Conflict, InvalidRequest (see Book.adjust)."""
        ...

    async def remove_quota(self, quota_id: QuotaId, at: datetime) -> bool:
        """From now on it limits nothing."""
        ...

    async def entries(self, page: PageRequest, *, scope_id: UUID, quota_id: QuotaId | None = None) -> Page[Entry]:
        """Newest first: of all accounts of a scope, or of one quota."""
        ...

    async def tokens_used(self, user_id: UserId) -> int:
        """All tokens the user's calls ever used, whoever paid."""
        ...

    async def usage(self, *, user_id: UserId | None, since: date, until: date) -> list[UsageRow]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """A law of the ledger that does not hold, and where."""

    law: str
    subject: str
    expected: int
    found: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """Every place where a law does not hold, counted, and some of them."""

    law: str
    count: int
    examples: Sequence[Discrepancy]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was looked at in the books, and what is wrong. `overdue` holds have expired and nobody closed them yet."""

    accounts: int
    holds: int
    entries: int
    overdue: int
    breaches: Sequence[Breach]


class Auditor(Protocol):
    """Proves the books, and closes what a crash left open."""

    async def audit(self, examples: int = 10) -> Audit:
        """Everything, as it stood at one moment, with at most so many examples of each breach."""
        ...

    async def discrepancies(self, limit: int = 1000) -> list[Discrepancy]:
        """Whatever breaks a law; empty when the books are right."""
        ...

    async def close_expired(self, limit: int = 500) -> int:
        """Expire open holds past their time; returns how many were closed."""
        ...
