"""What a tenant gives to each of its new users."""

from src.domain.identity.model import User
from src.domain.identity.rules import existing
from src.domain.ledger.model import Scope, Window
from src.domain.ledger.periods import period_of
from src.domain.ledger.quotas import Adjustment, LimitChange, QuotaKey
from src.domain.ledger.standing import standings_of
from src.domain.unit_of_work import UnitOfWork

REASON = "default of new users"


async def add_user(uow: UnitOfWork, user: User, request_id: str | None = None) -> None:
    """Add the user with a copy of each of the tenant's quotas for new users; prepaid ones are topped up.

    Raises NotFound (tenant), Conflict when the external id or the e-mail address is taken.
    """
    tenant = existing(await uow.directory.tenant(user.tenant_id), "tenant")
    await uow.identity.add_user(user)
    at = user.created_at
    for template in await standings_of(uow, [(Scope.NEW_USER, tenant.id)], at, tenant.time_zone):
        model, unit, window = template.quota.key.model, template.quota.key.unit, template.quota.key.window
        key = QuotaKey(tenant_id=tenant.id, scope=Scope.USER, scope_id=user.id, unit=unit, window=window, model=model)
        limit = template.account.limit
        if window is Window.NONE:
            top_up = Adjustment(key=key, at=at, reason=REASON, request_id=request_id, amount=limit)
            await uow.accounts.adjust(top_up)
        else:
            period = period_of(window, at, tenant.time_zone)
            change = LimitChange(key=key, at=at, period=period, reason=REASON, request_id=request_id, limit=limit)
            await uow.accounts.set_limit(change)
