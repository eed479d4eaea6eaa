"""What administrators and users ask of the books: top up, deduct, read. The hot path is elsewhere (`Ledger`)."""

from dataclasses import dataclass
from datetime import date

from src.domain.identity.administration import audit_event, tenant_of_user
from src.domain.identity.model import Principal, TenantId, UserId
from src.domain.identity.rules import existing, name_of
from src.domain.ledger.model import Account, Entry, Scope, Unit, Window
from src.domain.ledger.ports import UsageRow
from src.domain.ledger.quotas import Adjustment, QuotaKey
from src.domain.ledger.standing import QuotaStanding, standings_of
from src.domain.unit_of_work import OpenUnitOfWork
from src.shared.clock import Clock
from src.shared.errors import InvalidRequest
from src.shared.pages import Page, PageRequest

MAX_ADJUSTMENT = 10**12
MAX_USAGE_DAYS = 366


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStanding:
    """What a user may still spend. `balance` and `limit` are None where no prepaid token account limits the user."""

    balance: int | None
    total_used: int
    limit: int | None
    held: int
    quotas: tuple[QuotaStanding, ...]


async def adjust_account(
    principal: Principal,
    user_id: UserId,
    amount: int,
    unit: Unit = Unit.TOKENS,
    reason: str | None = None,
    *,
    open_uow: OpenUnitOfWork,
    clock: Clock,
    request_id: str | None = None,
) -> Account:
    """Top up (positive) or deduct from (negative) a user's prepaid account, made at its first top-up.

    Raises NotAllowed, NotFound (user), InvalidRequest, Conflict when more is deducted than is free.
    """
    principal.require_admin()
    check_adjustment(amount)
    tenant_id = await tenant_of_user(principal, user_id, open_uow=open_uow)
    adjustment = Adjustment(
        key=QuotaKey(tenant_id=tenant_id, scope=Scope.USER, scope_id=user_id, unit=unit),
        amount=amount,
        at=clock(),
        reason=None if reason is None else name_of(reason, "reason"),
        actor_id=principal.user_id,
        request_id=request_id,
    )
    async with open_uow(tenant_id) as uow:
        existing(await uow.identity.user(user_id), "user")
        account = await uow.accounts.adjust(adjustment)
        event = audit_event(
            principal,
            action="account.adjusted",
            object_kind="user",
            object_id=str(user_id),
            now=adjustment.at,
            request_id=request_id,
            details={"unit": unit.value, "amount": amount, "reason": reason},
            tenant_id=tenant_id,
        )
        await uow.audit.record(event)
        await uow.commit()
    return account


def check_adjustment(amount: int) -> None:
    """Raises InvalidRequest for what is nothing or absurd."""
    if amount == 0 or abs(amount) > MAX_ADJUSTMENT:
        raise InvalidRequest(
            f"amount must not be 0, and lie within -{MAX_ADJUSTMENT} and {MAX_ADJUSTMENT}.", param="amount"
        )


async def token_standing(
    principal: Principal, user_id: UserId | None = None, *, open_uow: OpenUnitOfWork, clock: Clock
) -> TokenStanding:
    """Balance and quotas of oneself (with those of the API key that asks), or of a user in reach. Raises NotFound."""
    asked_id = user_id or principal.user_id
    tenant_id = await tenant_of_user(principal, asked_id, open_uow=open_uow)
    now = clock()
    scopes = [(Scope.TENANT, tenant_id), (Scope.USER, asked_id)]
    if principal.api_key is not None and asked_id == principal.user_id:
        scopes.append((Scope.API_KEY, principal.api_key.id))
    async with open_uow(tenant_id) as uow:
        existing(await uow.identity.user(asked_id), "user")
        zone = existing(await uow.directory.tenant(tenant_id), "tenant").time_zone
        quotas = await standings_of(uow, scopes, now, zone)
        total_used = await uow.accounts.tokens_used(asked_id)
    prepaid = next((each.account for each in quotas if _is_prepaid_tokens(each.account)), None)
    return TokenStanding(
        balance=None if prepaid is None else max(0, prepaid.balance),
        total_used=total_used,
        limit=None if prepaid is None else prepaid.limit,
        held=0 if prepaid is None else prepaid.held,
        quotas=tuple(quotas),
    )


async def account_entries(
    principal: Principal, page: PageRequest, user_id: UserId | None = None, *, open_uow: OpenUnitOfWork
) -> Page[Entry]:
    """The lines of one's own accounts, or of those of a user in reach, newest first. Raises NotFound."""
    asked_id = user_id or principal.user_id
    tenant_id = await tenant_of_user(principal, asked_id, open_uow=open_uow)
    async with open_uow(tenant_id) as uow:
        existing(await uow.identity.user(asked_id), "user")
        return await uow.accounts.entries(page, scope_id=asked_id)


async def usage_of_user(
    principal: Principal, since: date, until: date, user_id: UserId | None = None, *, open_uow: OpenUnitOfWork
) -> list[UsageRow]:
    """Usage by day, model and key, `until` included: one's own, or that of a user in reach.

    Raises NotFound, InvalidRequest for more than 366 days.
    """
    _check_days(since, until)
    asked_id = user_id or principal.user_id
    tenant_id = await tenant_of_user(principal, asked_id, open_uow=open_uow)
    async with open_uow(tenant_id) as uow:
        existing(await uow.identity.user(asked_id), "user")
        return await uow.accounts.usage(user_id=asked_id, since=since, until=until)


async def usage_of_tenant(
    principal: Principal, since: date, until: date, tenant_id: TenantId | None = None, *, open_uow: OpenUnitOfWork
) -> list[UsageRow]:
    """Usage of a whole tenant in the principal's reach, by default their own.

    Raises NotAllowed, NotFound, InvalidRequest for more than 366 days.
    """
    _check_days(since, until)
    reached = principal.reach_of_tenant(tenant_id or principal.tenant_id)
    async with open_uow(reached) as uow:
        return await uow.accounts.usage(user_id=None, since=since, until=until)


def _is_prepaid_tokens(account: Account) -> bool:
    return (
        account.scope is Scope.USER
        and account.unit is Unit.TOKENS
        and account.window is Window.NONE
        and account.model is None
    )


def _check_days(since: date, until: date) -> None:
    if not 0 <= (until - since).days < MAX_USAGE_DAYS:
        raise InvalidRequest(f"since must not be after until, and at most {MAX_USAGE_DAYS} days apart.", param="since")
