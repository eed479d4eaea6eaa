"""Commands about quotas."""

from typing import Annotated
from uuid import UUID

import typer

from src.api.cli_admin import TenantSlug, tenant_of_slug, user_of_tenant, work_with
from src.api.operator import Operator
from src.domain.ledger import quota_admin
from src.domain.ledger.model import QuotaId, Scope, Unit, Window
from src.domain.ledger.quota_admin import QuotaOrder
from src.domain.ledger.standing import QuotaStanding
from src.shared.errors import InvalidRequest
from src.shared.pages import MAX_PAGE, PageRequest

quota_cli = typer.Typer(no_args_is_help=True, help="What tenants, users and keys may spend.")

UserOption = Annotated[str | None, typer.Option("--user", help="The external id of a user of the tenant.")]
KeyOption = Annotated[UUID | None, typer.Option("--key", help="The id of an API key.")]
NewUsersOption = Annotated[bool, typer.Option("--new-users", help="What every new user of the tenant gets.")]


@quota_cli.command("set")
def set_quota(
    limit: int,
    tenant: TenantSlug = "default",
    user: UserOption = None,
    key: KeyOption = None,
    new_users: NewUsersOption = False,
    unit: Unit = Unit.TOKENS,
    window: Annotated[Window, typer.Option(help="none: all that is ever given, a prepaid balance.")] = Window.NONE,
    model: Annotated[str | None, typer.Option(help="Only for this model or chain.")] = None,
) -> None:
    """Limit a tenant, or its user, key or new users; printed as `list` does."""

    async def work(operator: Operator) -> QuotaStanding:
        scope, scope_id = await _scope(operator, tenant, user, key, new_users=new_users)
        order = QuotaOrder(scope=scope, scope_id=scope_id, unit=unit, window=window, limit=limit, model=model)
        return await quota_admin.put_quota(operator.principal, order, open_uow=operator.open_uow, clock=operator.clock)

    _print(work_with(work))


@quota_cli.command("list")
def list_quotas(
    tenant: TenantSlug = "default", user: UserOption = None, key: KeyOption = None, new_users: NewUsersOption = False
) -> None:
    """Print a tenant's quotas, or those of its user, key or new users.

    One a line: id, scope, the scope's id, unit, window, model, limit, used, held, what is left.
    """

    async def work(operator: Operator) -> None:
        found = await tenant_of_slug(operator, tenant)
        scope: Scope | None = None
        scope_id: UUID | None = None
        if user or key or new_users:
            scope, scope_id = await _scope(operator, tenant, user, key, new_users=new_users)
        page = PageRequest(limit=MAX_PAGE)
        while True:
            quotas = await quota_admin.list_quotas(
                operator.principal,
                page,
                open_uow=operator.open_uow,
                clock=operator.clock,
                tenant_id=found.id,
                scope=scope,
                scope_id=scope_id,
            )
            for standing in quotas.rows:
                _print(standing)
            if not quotas.has_more:
                return
            page = PageRequest(limit=MAX_PAGE, after=quotas.rows[-1].quota.id)

    work_with(work)


@quota_cli.command("remove")
def remove_quota(quota_id: UUID) -> None:
    """Lift a quota."""
    work_with(
        lambda operator: quota_admin.remove_quota(
            operator.principal, QuotaId(quota_id), open_uow=operator.open_uow, clock=operator.clock
        )
    )


@quota_cli.command("adjust", context_settings={"ignore_unknown_options": True})
def adjust_quota(quota_id: UUID, amount: int, reason: str = "command line") -> None:
    """Add to a quota (or, with a negative amount, take from it): a prepaid one for good, else until its period ends."""
    adjusted = work_with(
        lambda operator: quota_admin.adjust_quota(
            operator.principal, QuotaId(quota_id), amount, reason, open_uow=operator.open_uow, clock=operator.clock
        )
    )
    _print(adjusted)


async def _scope(
    operator: Operator, slug: str, user: str | None, key: UUID | None, *, new_users: bool
) -> tuple[Scope, UUID]:
    """Whose quota is meant: the tenant's own where nothing else is named."""
    if (user is not None) + (key is not None) + new_users > 1:
        raise InvalidRequest("Name one of --user, --key and --new-users.")
    if key is not None:
        return Scope.API_KEY, key
    tenant = await tenant_of_slug(operator, slug)
    if user is not None:
        return Scope.USER, (await user_of_tenant(operator, tenant, user)).id
    return Scope.NEW_USER if new_users else Scope.TENANT, tenant.id


def _print(standing: QuotaStanding) -> None:
    key, account = standing.quota.key, standing.account
    what = (key.scope.value, key.scope_id, key.unit.value, key.window.value, key.model or "-")
    amounts = (account.limit, account.spent, account.held, standing.remaining)
    typer.echo("\t".join(str(each) for each in (standing.quota.id, *what, *amounts)))
