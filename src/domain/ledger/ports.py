"""What holds the books."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol
from uuid import UUID

from src.domain.identity.model import UserId
from src.domain.ledger.model import (
    Account,
    Adjustment,
    Closed,
    Closing,
    Entry,
    Hold,
    HoldRequest,
    Record,
    Scope,
)
from src.shared.pages import Page, PageRequest


class Ledger(Protocol):
    """The hot path: holds and their closing, each with the rows that must commit with it.

    Fails closed: when the store is away, nothing is held and nothing is called. One operation's refusal or failure
    never touches another's.
    """

    async def open(self, request: HoldRequest, records: Sequence[Record] = ()) -> Hold:
        """Durable when it returns. Raises QuotaExceeded, NotFound (a record's parent is gone), Unavailable."""
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
    """Accounts, entries and usage of one tenant, for everything that is not the hot path."""

    async def of_scope(self, scope: Scope, scope_id: UUID) -> list[Account]: ...

    async def adjust(self, adjustment: Adjustment) -> Account:
        """Raises Conflict, InvalidRequest (see Book.adjust)."""
        ...

    async def entries(self, scope: Scope, scope_id: UUID, page: PageRequest) -> Page[Entry]:
        """Newest first."""
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


class Auditor(Protocol):
    """Proves the books, and closes what a crash left open."""

    async def discrepancies(self, limit: int = 1000) -> list[Discrepancy]:
        """Every account and hold that breaks a law; empty when the books are right."""
        ...

    async def close_expired(self, limit: int = 500) -> int:
        """Expire open holds past their time; returns how many were closed."""
        ...
