"""A request that is repeated under the same key is answered once: one upstream call, one charge."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from src.domain.identity.model import ApiKeyId, Principal, TenantId, UserId
from src.domain.ledger.model import HoldId, Record
from src.shared.errors import Conflict, InvalidRequest

KEPT_HOURS = 24

MAX_KEPT_BYTES = 4 * 1024 * 1024
"""Answers beyond this are not kept: a repetition is refused instead of charged again."""


class KeyTaken(Conflict):
    """Somebody was faster with the same key; look at what came of it."""


class KeyReused(InvalidRequest):
    """The key was used for another request."""

    code = "idempotency_key_reused"


class ClaimState(StrEnum):
    """What became of the first request. `lost`: its gateway died after part of the answer was delivered and charged."""

    RUNNING = "running"
    KEPT = "kept"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Record):
    """A principal's key for one request, taken in the transaction of its hold, or with its rows where none is needed.

    `key_hash` and `body_hash` are hex; the key's covers method and path too: another endpoint's keys are others. A
    `weak` claim is no promise of the client's to come back: when it hangs up the call is stopped, and the key is free.
    """

    id: UUID
    tenant_id: TenantId
    user_id: UserId
    api_key_id: ApiKeyId | None
    key_hash: str
    body_hash: str
    created_at: datetime
    expires_at: datetime
    message_id: UUID | None = None
    weak: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept(Record):
    """The answer to a claim's request as it was sent, for whoever repeats it. Without a body it was too large."""

    claim_id: UUID
    status: int
    media_type: str
    body: bytes | None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimFreed(Record):
    """The key may be used anew."""

    claim_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A claim as it is stored, and what came of it. `hold_id` is None where nothing had to be paid."""

    claim: Claim
    state: ClaimState
    hold_id: HoldId | None = None
    kept: Kept | None = None


class ClaimRepository(Protocol):
    """Claims of one tenant. They are written with ledger operations only."""

    async def find(self, claim: Claim) -> Claimed | None:
        """The claim of the same principal and key that is in force, if there is one."""
        ...


def kept(claim: Claim, status: int, media_type: str, pieces: Iterable[bytes], headers: Mapping[str, str]) -> Kept:
    """An answer, where it is not too large to be kept: then no more of it is written down than tells so."""
    written: list[bytes] = []
    size_bytes = 0
    for piece in pieces:
        written.append(piece)
        size_bytes += len(piece)
        if size_bytes > MAX_KEPT_BYTES:
            return Kept(claim_id=claim.id, status=status, media_type=media_type, body=None, headers=headers)
    return Kept(claim_id=claim.id, status=status, media_type=media_type, body=b"".join(written), headers=headers)


def same_request(found: Claimed, claim: Claim) -> Claimed:
    """Raises KeyReused when the key was used for another request."""
    if found.claim.body_hash != claim.body_hash:
        raise KeyReused(
            "This Idempotency-Key was used for a different request in the last 24 hours; use a new one.",
            param="idempotency-key",
        )
    return found


def answer_of(found: Claimed) -> Kept:
    """The answer that was kept. Raises Conflict when there is none (yet)."""
    match found.state:
        case ClaimState.RUNNING:
            raise Conflict("The first request with this Idempotency-Key is still running; its answer will be kept.")
        case ClaimState.LOST:
            raise Conflict("The first request with this Idempotency-Key was cut off; what it delivered was charged.")
        case ClaimState.KEPT:
            if found.kept is None or found.kept.body is None:
                raise Conflict("The answer to this Idempotency-Key was given, but is too large to be kept.")
            return found.kept


def owner_of(principal: Principal) -> tuple[TenantId, UserId, ApiKeyId | None]:
    """Whose key it is: the same words from another user, or another API key, are another key."""
    return principal.tenant_id, principal.user_id, principal.api_key.id if principal.api_key else None
