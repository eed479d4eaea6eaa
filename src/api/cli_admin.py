"""Commands that look after a gateway: tenants, users, keys, models."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, TypeVar

import typer

from src.api import bootstrap
from src.api.operator import Operator, open_operator
from src.domain.identity import administration, api_keys, tenants
from src.domain.identity.model import Role, Tenant, User
from src.domain.identity.ports import Claims
from src.domain.ledger.use_cases import adjust_account
from src.shared.errors import GatewayError, NotFound
from src.shared.money import PER_MILLION
from src.shared.pages import MAX_PAGE, PageRequest
from src.shared.settings import load_settings

T = TypeVar("T")

tenants_cli = typer.Typer(no_args_is_help=True, help="Tenants.")
users_cli = typer.Typer(no_args_is_help=True, help="Users and their credit.")
keys_cli = typer.Typer(no_args_is_help=True, help="API keys.")
models_cli = typer.Typer(no_args_is_help=True, help="Models and prices.")

TenantSlug = Annotated[str, typer.Option("--tenant", help="The tenant's slug.")]


def add_commands(cli: typer.Typer) -> None:
    """Hang the groups below the main command."""
    cli.add_typer(tenants_cli, name="tenants")
    cli.add_typer(users_cli, name="users")
    cli.add_typer(keys_cli, name="keys")
    cli.add_typer(models_cli, name="models")
    cli.command()(token)
    cli.command()(doctor)


def work_with(work: Callable[[Operator], Awaitable[T]]) -> T:
    """Run a command's work against the configured database."""

    async def run() -> T:
        async with open_operator(load_settings()) as operator:
            return await work(operator)

    return asyncio.run(run())


async def tenant_of_slug(operator: Operator, slug: str) -> Tenant:
    """Raises NotFound."""
    async with operator.open_uow(None) as uow:
        found = await uow.directory.tenant_by_slug(slug)
    if found is None:
        raise NotFound(f"There is no tenant {slug!r}.")
    return found


async def user_of_tenant(operator: Operator, tenant: Tenant, external_id: str) -> User:
    """Raises NotFound."""
    async with operator.open_uow(tenant.id) as uow:
        found = await uow.identity.user_by_external_id(external_id)
    if found is None:
        raise NotFound(f"There is no user {external_id!r} in {tenant.slug}.")
    return found


@tenants_cli.command("create")
def create_tenant(
    slug: str,
    name: str,
    time_zone: Annotated[str, typer.Option(help="IANA name of the zone in which the days of quotas begin.")] = "UTC",
) -> None:
    """Make a tenant and print its id."""
    made = work_with(
        lambda operator: tenants.create_tenant(
            operator.principal, slug, name, time_zone, open_uow=operator.open_uow, clock=operator.clock
        )
    )
    typer.echo(made.id)


@tenants_cli.command("list")
def list_tenants() -> None:
    """Print id, slug and name of every tenant."""

    async def work(operator: Operator) -> None:
        page = PageRequest(limit=MAX_PAGE)
        while True:
            found = await tenants.list_tenants(operator.principal, page, open_uow=operator.open_uow)
            for tenant in found.rows:
                typer.echo(f"{tenant.id}\t{tenant.slug}\t{tenant.name}")
            if not found.has_more:
                return
            page = PageRequest(limit=MAX_PAGE, after=found.rows[-1].id)

    work_with(work)


@users_cli.command("create")
def create_user(external_id: str, tenant: TenantSlug = "default", role: Role = Role.USER) -> None:
    """Make a user and print its id."""

    async def work(operator: Operator) -> User:
        found = await tenant_of_slug(operator, tenant)
        return await administration.create_user(
            operator.principal,
            found.id,
            external_id,
            role,
            open_uow=operator.open_uow,
            clock=operator.clock,
            passwords=operator.passwords,
        )

    typer.echo(work_with(work).id)


@users_cli.command("top-up", context_settings={"ignore_unknown_options": True})
def top_up(external_id: str, amount: int, tenant: TenantSlug = "default", reason: str = "command line") -> None:
    """Add tokens to (or, with a negative amount, take from) a user's prepaid account."""

    async def work(operator: Operator) -> int:
        user = await user_of_tenant(operator, await tenant_of_slug(operator, tenant), external_id)
        account = await adjust_account(
            operator.principal, user.id, amount, reason=reason, open_uow=operator.open_uow, clock=operator.clock
        )
        return account.balance

    typer.echo(work_with(work))


@keys_cli.command("create")
def create_key(external_id: str, name: str = "command line", tenant: TenantSlug = "default") -> None:
    """Make an API key for a user and print its secret, once."""

    async def work(operator: Operator) -> str:
        user = await user_of_tenant(operator, await tenant_of_slug(operator, tenant), external_id)
        _, secret = await api_keys.create_api_key(
            operator.principal,
            name,
            open_uow=operator.open_uow,
            clock=operator.clock,
            hasher=operator.hasher,
            user_id=user.id,
        )
        return secret

    typer.echo(work_with(work))


@models_cli.command("sync")
def sync_models() -> None:
    """Load the shipped models and GATEWAY_CONFIG; what an administrator changed stays."""

    async def work(operator: Operator) -> int:
        return await bootstrap.load_catalog(load_settings(), operator.open_uow)

    typer.echo(f"{work_with(work)} rows changed.")


@models_cli.command("list")
def list_models() -> None:
    """Print every model with its price in USD per million tokens."""

    async def work(operator: Operator) -> None:
        async with operator.open_uow(None) as uow:
            catalog = await uow.catalog.load()
        for name, model in sorted(catalog.models.items()):
            price = model.price_at(operator.clock())
            usd = f"{price.input / PER_MILLION:g}/{price.output / PER_MILLION:g}"
            typer.echo(f"{name}\t{model.provider}\t{model.context_window}\t{usd}\t{model.lifecycle.value}")

    work_with(work)


def token(external_id: str, tenant: TenantSlug = "default", minutes: int = 60) -> None:
    """Print a JWT for a user, signed with GATEWAY_JWT_SECRET."""

    async def work(operator: Operator) -> str:
        found = await tenant_of_slug(operator, tenant)
        user = await user_of_tenant(operator, found, external_id)
        expires_at = operator.clock() + timedelta(minutes=minutes)
        claims = Claims(subject=user.external_id, tenant=str(found.id), role=user.role, expires_at=expires_at)
        return operator.tokens.issue(claims)

    typer.echo(work_with(work))


def doctor() -> None:
    """Say what is configured and whether it works."""

    async def work(operator: Operator) -> None:
        typer.echo(f"database: {operator.database}, migrated")
        async with operator.open_uow(None) as uow:
            catalog = await uow.catalog.load()
        for name, provider in sorted(catalog.providers.items()):
            ready = operator.upstreams.is_ready(provider)
            typer.echo(f"provider {name}: {'ready' if ready else f'set {provider.api_key_env}'}")
        typer.echo(f"models: {len(catalog.models)}, chains: {len(catalog.chains)}")

    try:
        work_with(work)
    except GatewayError as error:
        typer.echo(error.message, err=True)
        sys.exit(1)
