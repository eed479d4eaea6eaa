"""Changing the catalog: from files, and by platform admins, whose word wins over files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from src.domain.catalog.model import MAX_CHAIN, Catalog, Chain, Model, Price, Provider
from src.domain.catalog.ports import CatalogView
from src.domain.identity.administration import audit_event
from src.domain.identity.model import Principal
from src.domain.unit_of_work import OpenUnitOfWork, UnitOfWork
from src.shared.clock import Clock
from src.shared.errors import InvalidRequest, NotFound

FILE = "file"
ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogFile:
    """What a file says: providers first, then their models, then chains of them."""

    providers: Sequence[Provider] = ()
    models: Sequence[Model] = ()
    chains: Sequence[Chain] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogAdmin:
    """What changing the catalog needs."""

    open_uow: OpenUnitOfWork
    view: CatalogView
    clock: Clock


async def sync_files(files: Sequence[CatalogFile], open_uow: OpenUnitOfWork) -> int:
    """Write what the files say wherever no admin said otherwise; later files win. Returns how many rows changed.

    Raises InvalidRequest for models of unknown providers and chains that could not be called.
    """
    wanted = _merged(files)
    async with open_uow(None) as uow:
        catalog = await uow.catalog.load()
        _check(wanted, catalog)
        changed = 0
        for provider in wanted.providers:
            if catalog.providers.get(provider.name) != provider:
                await uow.catalog.put_provider(provider, source=FILE)
                changed += 1
        for model in wanted.models:
            if catalog.models.get(model.name) != model:
                await uow.catalog.put_model(model, source=FILE)
                changed += 1
        for chain in wanted.chains:
            if catalog.chains.get(chain.name) != chain:
                await uow.catalog.put_chain(chain, source=FILE)
                changed += 1
        await uow.commit()
    return changed


def _merged(files: Sequence[CatalogFile]) -> CatalogFile:
    providers = {each.name: each for file in files for each in file.providers}
    models = {each.name: each for file in files for each in file.models}
    chains = {each.name: each for file in files for each in file.chains}
    return CatalogFile(
        providers=tuple(providers.values()), models=tuple(models.values()), chains=tuple(chains.values())
    )


def _check(wanted: CatalogFile, catalog: Catalog) -> None:
    """What the files and the catalog say together must be callable."""
    providers = {*catalog.providers, *(provider.name for provider in wanted.providers)}
    models = {**catalog.models, **{model.name: model for model in wanted.models}}
    for model in wanted.models:
        for place in model.everywhere:
            if place.provider not in providers:
                name = f"The model {model.name!r} names the provider {place.provider!r}"
                raise InvalidRequest(f"{name}, which is unknown.")
    for chain in wanted.chains:
        check_chain(chain, replace(catalog, models=models))


async def put_provider(principal: Principal, provider: Provider, admin: CatalogAdmin, request_id: str) -> Provider:
    """Add or replace a provider. Raises NotAllowed."""
    principal.require_platform_admin()
    async with admin.open_uow(principal.tenant_id) as uow:
        await uow.catalog.put_provider(provider, source=ADMIN)
        await _finish(uow, principal, admin, "provider.put", provider.name, request_id)
    await admin.view.refresh()
    return provider


async def put_model(principal: Principal, model: Model, admin: CatalogAdmin, request_id: str) -> Model:
    """Add or replace a model with its prices. Raises NotAllowed, InvalidRequest for an unknown provider."""
    principal.require_platform_admin()
    async with admin.open_uow(principal.tenant_id) as uow:
        catalog = await uow.catalog.load()
        unknown = [place.provider for place in model.everywhere if place.provider not in catalog.providers]
        if unknown:
            raise InvalidRequest(f"There is no provider {unknown[0]!r}.", param="provider")
        if model.name in catalog.chains:
            raise InvalidRequest(f"{model.name!r} is the name of a chain.", param="name")
        await uow.catalog.put_model(model, source=ADMIN)
        await _finish(uow, principal, admin, "model.put", model.name, request_id)
    await admin.view.refresh()
    return model


async def add_price(principal: Principal, name: str, price: Price, admin: CatalogAdmin, request_id: str) -> Model:
    """Add a dated price to a model; earlier calls keep the price they had. Raises NotAllowed, NotFound."""
    principal.require_platform_admin()
    async with admin.open_uow(principal.tenant_id) as uow:
        if name not in (await uow.catalog.load()).models:
            raise NotFound(f"There is no model {name[:200]!r}.", code="model_not_found")
        await uow.catalog.add_price(name, price)
        await _finish(uow, principal, admin, "price.add", name, request_id)
    await admin.view.refresh()
    return admin.view.current().models[name]


async def put_chain(principal: Principal, chain: Chain, admin: CatalogAdmin, request_id: str) -> Chain:
    """Add or replace a chain. Raises NotAllowed, InvalidRequest for unknown models or a name that is taken."""
    principal.require_platform_admin()
    async with admin.open_uow(principal.tenant_id) as uow:
        check_chain(chain, await uow.catalog.load())
        await uow.catalog.put_chain(chain, source=ADMIN)
        await _finish(uow, principal, admin, "chain.put", chain.name, request_id)
    await admin.view.refresh()
    return chain


async def delete_chain(principal: Principal, name: str, admin: CatalogAdmin, request_id: str) -> None:
    """Remove a chain. Raises NotAllowed, NotFound."""
    principal.require_platform_admin()
    async with admin.open_uow(principal.tenant_id) as uow:
        if not await uow.catalog.delete_chain(name):
            raise NotFound(f"There is no chain {name[:200]!r}.")
        await _finish(uow, principal, admin, "chain.delete", name, request_id)
    await admin.view.refresh()


def check_chain(chain: Chain, catalog: Catalog) -> None:
    """Raises InvalidRequest where the chain could not be called."""
    unknown = [name for name in chain.models if name not in catalog.models]
    if unknown:
        names = ", ".join(unknown)[:200]
        raise InvalidRequest(f"The chain {chain.name!r} names models that do not exist: {names}.", param="models")
    if not 1 <= len(chain.models) <= MAX_CHAIN or len(set(chain.models)) != len(chain.models):
        raise InvalidRequest(f"A chain lists 1 to {MAX_CHAIN} different models.", param="models")
    if chain.name in catalog.models:
        raise InvalidRequest(f"{chain.name!r} is the name of a model.", param="name")


async def _finish(
    uow: UnitOfWork, principal: Principal, admin: CatalogAdmin, action: str, name: str, request_id: str
) -> None:
    event = audit_event(
        principal,
        action=action,
        object_kind=action.split(".")[0],
        object_id=name,
        now=admin.clock(),
        request_id=request_id,
    )
    await uow.audit.record(event)
    await uow.commit()
