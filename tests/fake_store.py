"""Everything a database would keep, in memory, and keyset pages of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar
from uuid import UUID

from src.domain.catalog.model import Chain, Model, Provider
from src.domain.completion.idempotency import Claimed
from src.domain.dialogs.model import Dialog, DialogId, Message, MessageId
from src.domain.identity.model import ApiKey, ApiKeyId, Session, Tenant, TenantId, User, UserId
from src.domain.identity.ports import AuditEvent
from src.domain.ledger.model import Account, AccountId, Entry, Hold, HoldId, QuotaId, UsageRecord
from src.domain.ledger.quotas import Quota
from src.domain.limits.model import RateLimit, RateLimitId
from src.shared.pages import Page, PageRequest

T = TypeVar("T")


@dataclass(slots=True)
class Store:
    """Everything that a database would keep."""

    tenants: dict[TenantId, Tenant] = field(default_factory=dict)
    users: dict[UserId, User] = field(default_factory=dict)
    keys: dict[ApiKeyId, ApiKey] = field(default_factory=dict)
    sessions: dict[UUID, Session] = field(default_factory=dict)
    events: dict[UUID, AuditEvent] = field(default_factory=dict)
    providers: dict[str, tuple[Provider, str]] = field(default_factory=dict)
    models: dict[str, tuple[Model, str]] = field(default_factory=dict)
    chains: dict[str, tuple[Chain, str]] = field(default_factory=dict)
    version: dict[str, int] = field(default_factory=lambda: {"version": 0})
    dialogs: dict[DialogId, Dialog] = field(default_factory=dict)
    messages: dict[MessageId, Message] = field(default_factory=dict)
    message_holds: dict[MessageId, HoldId] = field(default_factory=dict)
    quotas: dict[QuotaId, Quota] = field(default_factory=dict)
    accounts: dict[AccountId, Account] = field(default_factory=dict)
    holds: dict[HoldId, Hold] = field(default_factory=dict)
    entries: dict[UUID, Entry] = field(default_factory=dict)
    usage: dict[UUID, UsageRecord] = field(default_factory=dict)
    limits: dict[RateLimitId, RateLimit] = field(default_factory=dict)
    limits_version: dict[str, int] = field(default_factory=lambda: {"version": 0})
    claims: dict[UUID, Claimed] = field(default_factory=dict)

    def copy(self) -> "Store":
        return Store(**{each.name: dict(getattr(self, each.name)) for each in fields(self)})

    def become(self, other: "Store") -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))


def page_of(rows: Iterable[T], page: PageRequest, *, newest_first: bool = False) -> Page[T]:
    """Like a database's pages: by id, in the list's own order."""
    ordered: list[Any] = sorted(rows, key=lambda row: row.id, reverse=newest_first)  # type: ignore[attr-defined]
    if page.before is not None:
        earlier = [row for row in ordered if (row.id > page.before) is newest_first and row.id != page.before]
        return Page(rows=earlier[-page.limit :], has_more=len(earlier) > page.limit)
    if page.after is not None:
        ordered = [row for row in ordered if (row.id < page.after) is newest_first and row.id != page.after]
    return Page(rows=ordered[: page.limit], has_more=len(ordered) > page.limit)
