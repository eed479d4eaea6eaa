"""Idempotency keys: taken with the operations they belong to, kept with their answers, forgotten after a day."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from src.data.bulk import Part, Update, insert_rows
from src.data.engine import writing
from src.data.ledger_tables import NO_KEY, idempotency_keys
from src.data.repositories.base import TenantRepository
from src.domain.completion.idempotency import Claim, Claimed, ClaimFreed, ClaimState, Kept
from src.domain.ledger.model import HoldId

_NEW = (
    "id",
    "tenant_id",
    "user_id",
    "api_key_id",
    "key_hash",
    "body_hash",
    "state",
    "weak",
    "hold_id",
    "message_id",
    "created_at",
    "expires_at",
)
_ANSWER = ("state", "status", "media_type", "headers", "body")
_OWNER = ("tenant_id", "user_id", "api_key_id", "key_hash")
_KEPT = Update(idempotency_keys, ("id",), _ANSWER)


async def take_claims(connection: AsyncConnection, claims: Sequence[tuple[Claim, HoldId | None]]) -> set[UUID]:
    """The ids of those that are taken now; the others' keys are in somebody else's hands.

    Keys are taken in one order, and those of others are not locked, so that two replicas never wait for each other in
    turn: accounts are locked after this, and a call that ends writes to its key after it has locked them.
    """
    first: dict[tuple[Any, ...], tuple[Claim, HoldId | None]] = {}
    for claim, hold_id in claims:
        first.setdefault(_owner(claim), (claim, hold_id))
    wanted = [first[owner] for owner in sorted(first, key=str)]
    if not wanted:
        return set()
    taken = await _insert_free(connection, wanted)
    if len(taken) < len(wanted) and await _drop_expired(connection, [claim for claim, _ in wanted]):
        taken = await _insert_free(connection, wanted)
    return taken


async def _insert_free(connection: AsyncConnection, claims: Sequence[tuple[Claim, HoldId | None]]) -> set[UUID]:
    rows = [_row(claim, hold_id) for claim, hold_id in claims]
    await insert_rows(connection, idempotency_keys, _NEW, rows, on_conflict="DO NOTHING")
    ours = select(idempotency_keys.c.id).where(idempotency_keys.c.id.in_([row[0] for row in rows]))
    return set((await connection.execute(ours)).scalars())


async def _drop_expired(connection: AsyncConnection, claims: Sequence[Claim]) -> int:
    """Delete the claims in the way whose day is over; returns how many."""
    owners = tuple_(*(idempotency_keys.c[name] for name in _OWNER)).in_([_owner(claim) for claim in claims])
    over = idempotency_keys.c.expires_at <= min(claim.created_at for claim in claims)
    return (await connection.execute(delete(idempotency_keys).where(owners, over))).rowcount


async def drop_claims(connection: AsyncConnection, ids: Iterable[UUID]) -> None:
    """Free keys that were taken for nothing."""
    wanted = list(ids)
    if wanted:
        await connection.execute(delete(idempotency_keys).where(idempotency_keys.c.id.in_(wanted)))


class ClaimRows:
    """What becomes of claims in one batch."""

    def __init__(self) -> None:
        self._kept: dict[UUID, tuple[Any, ...]] = {}
        self._freed: set[UUID] = set()
        self._lost: list[HoldId] = []
        self._unanswered: list[HoldId] = []

    def add(self, record: Kept | ClaimFreed) -> None:
        """The answer to a claim, or that there is none."""
        if isinstance(record, ClaimFreed):
            self._freed.add(record.claim_id)
        else:
            headers = dict(record.headers)
            row = (ClaimState.KEPT, record.status, record.media_type, headers, record.body, record.claim_id)
            self._kept[record.claim_id] = row

    def end(self, hold_id: HoldId, *, charged: bool) -> None:
        """A hold was closed without an answer: its claim is lost where something was charged, else free."""
        (self._lost if charged else self._unanswered).append(hold_id)

    def kept(self) -> Part:
        """The answers, as rows."""
        return (_KEPT, [self._kept[each] for each in sorted(self._kept)])

    async def end_others(self, connection: AsyncConnection) -> None:
        """Free the keys that got no answer, and mark those whose answers are lost."""
        await drop_claims(connection, self._freed)
        if self._lost:
            lost = update(idempotency_keys).where(*_running(self._lost)).values(state=ClaimState.LOST)
            await connection.execute(lost)
        if self._unanswered:
            await connection.execute(delete(idempotency_keys).where(*_running(self._unanswered)))


async def forget_expired_claims(engine: AsyncEngine, now: datetime, limit: int = 1000) -> int:
    """Delete keys whose day is over; returns how many."""
    async with writing(engine) as connection:
        over = select(idempotency_keys.c.id).where(idempotency_keys.c.expires_at <= now).limit(limit)
        ids = (await connection.execute(over)).scalars().all()
        await drop_claims(connection, ids)
        await connection.commit()
    return len(ids)


class SqlClaimRepository(TenantRepository):
    """Reading claims."""

    async def find(self, claim: Claim) -> Claimed | None:
        self._require_own(claim.tenant_id)
        statement = select(idempotency_keys).where(
            *(idempotency_keys.c[name] == value for name, value in zip(_OWNER, _owner(claim), strict=True)),
            idempotency_keys.c.expires_at > claim.created_at,
        )
        return await self._first(statement, _claimed_from)


def _running(hold_ids: Sequence[HoldId]) -> tuple[ColumnElement[bool], ...]:
    return idempotency_keys.c.hold_id.in_(hold_ids), idempotency_keys.c.state == ClaimState.RUNNING


def _owner(claim: Claim) -> tuple[Any, ...]:
    return (claim.tenant_id, claim.user_id, claim.api_key_id or NO_KEY, claim.key_hash)


def _row(claim: Claim, hold_id: HoldId | None) -> tuple[Any, ...]:
    return (
        claim.id,
        *_owner(claim),
        claim.body_hash,
        ClaimState.RUNNING,
        claim.weak,
        hold_id,
        claim.message_id,
        claim.created_at,
        claim.expires_at,
    )


def _claimed_from(row: Row[Any]) -> Claimed:
    claim = Claim(
        id=row.id,
        tenant_id=row.tenant_id,
        user_id=row.user_id,
        api_key_id=None if row.api_key_id == NO_KEY else row.api_key_id,
        key_hash=row.key_hash,
        body_hash=row.body_hash,
        created_at=row.created_at,
        expires_at=row.expires_at,
        message_id=row.message_id,
        weak=row.weak,
    )
    kept = None
    if row.state is ClaimState.KEPT:
        kept = Kept(
            claim_id=row.id, status=row.status, media_type=row.media_type, headers=row.headers or {}, body=row.body
        )
    return Claimed(claim=claim, state=row.state, hold_id=row.hold_id, kept=kept)
