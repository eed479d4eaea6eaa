"""Quotas set, read and changed by the people of the identity scene."""

from typing import Any
from uuid import UUID

from src.domain.identity.model import Principal, User
from src.domain.ledger import quota_admin
from src.domain.ledger.model import QuotaId, Scope, Unit, Window
from src.domain.ledger.quota_admin import QuotaOrder
from src.domain.ledger.standing import QuotaStanding
from src.shared.pages import Page, PageRequest
from tests.fakes import FakeLedger
from tests.makers import make_closing, make_hold_request
from tests.unit.identity_scene import Scene


def changing(scene: Scene) -> dict[str, Any]:
    return {"open_uow": scene.open_uow, "clock": scene.clock, "request_id": "req-1"}


def order(scene: Scene, **given: Any) -> QuotaOrder:
    """A thousand tokens a day for Alice."""
    base = {"scope": Scope.USER, "scope_id": scene.alice.id, "unit": Unit.TOKENS, "window": Window.DAY, "limit": 1000}
    return QuotaOrder(**{**base, **given})


async def put(scene: Scene, who: User | Principal | None = None, **given: Any) -> QuotaStanding:
    principal = who if isinstance(who, Principal) else scene.principal(who or scene.admin)
    return await quota_admin.put_quota(principal, order(scene, **given), **changing(scene))


async def get(scene: Scene, who: User, quota_id: UUID) -> QuotaStanding:
    asking = {"open_uow": scene.open_uow, "clock": scene.clock}
    return await quota_admin.get_quota(scene.principal(who), QuotaId(quota_id), **asking)


async def remove(scene: Scene, who: User, quota_id: UUID) -> None:
    await quota_admin.remove_quota(scene.principal(who), QuotaId(quota_id), **changing(scene))


async def adjust(scene: Scene, who: User, quota_id: UUID, amount: int, reason: str | None = None) -> QuotaStanding:
    principal = scene.principal(who)
    return await quota_admin.adjust_quota(principal, QuotaId(quota_id), amount, reason, **changing(scene))


async def listed(scene: Scene, who: User, **given: Any) -> Page[QuotaStanding]:
    page = given.pop("page", PageRequest())
    asking = {"open_uow": scene.open_uow, "clock": scene.clock}
    return await quota_admin.list_quotas(scene.principal(who), page, **asking, **given)


async def set_limits(scene: Scene, who: User, whose: User, changes: dict[Any, int | None]) -> quota_admin.Limits:
    return await quota_admin.set_user_limits(scene.principal(who), whose.id, changes, **changing(scene))


async def spend(scene: Scene, user: User, **given: Any) -> None:
    """Forty tokens."""
    ledger = FakeLedger(scene.store)
    await ledger.close(make_closing(await ledger.open(make_hold_request(user, **given))))
