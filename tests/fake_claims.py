"""Idempotency keys in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from src.domain.completion.idempotency import Claim, Claimed, ClaimFreed, ClaimState, Kept, KeyTaken
from src.domain.identity.model import TenantId
from src.domain.ledger.model import HoldId, Record
from tests.fake_store import Store


def require_free(store: Store, records: Sequence[Record]) -> None:
    """Raises KeyTaken where a key is in somebody else's hands."""
    if any(_in_force(store, record) for record in records if isinstance(record, Claim)):
        raise KeyTaken("A request with this Idempotency-Key is there already.")


def write_claim(store: Store, record: Record, hold_id: HoldId | None) -> None:
    """Take a key, in place of one whose day is over, keep its answer, or free it."""
    match record:
        case Claim():
            for each in [each for each in store.claims.values() if _owner(each.claim) == _owner(record)]:
                del store.claims[each.claim.id]
            store.claims[record.id] = Claimed(claim=record, state=ClaimState.RUNNING, hold_id=hold_id)
        case Kept() if record.claim_id in store.claims:
            claimed = store.claims[record.claim_id]
            store.claims[record.claim_id] = replace(claimed, state=ClaimState.KEPT, kept=record)
        case ClaimFreed():
            store.claims.pop(record.claim_id, None)


def end_claims(store: Store, hold_id: HoldId, *, charged: bool) -> None:
    """The hold was closed without an answer."""
    for claimed in [each for each in store.claims.values() if each.hold_id == hold_id]:
        if claimed.state is ClaimState.RUNNING:
            del store.claims[claimed.claim.id]
            if charged:
                store.claims[claimed.claim.id] = replace(claimed, state=ClaimState.LOST)


@dataclass(slots=True)
class FakeClaims:
    """Reading claims."""

    store: Store
    tenant_id: TenantId

    async def find(self, claim: Claim) -> Claimed | None:
        assert claim.tenant_id == self.tenant_id
        return _in_force(self.store, claim)


def _in_force(store: Store, claim: Claim) -> Claimed | None:
    same = (each for each in store.claims.values() if _owner(each.claim) == _owner(claim))
    return next((each for each in same if each.claim.expires_at > claim.created_at), None)


def _owner(claim: Claim) -> tuple[object, ...]:
    return claim.tenant_id, claim.user_id, claim.api_key_id, claim.key_hash
