"""Changing the catalog: by files, and by platform admins, whose word wins."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from src.domain.catalog import use_cases
from src.domain.catalog.model import MAX_CHAIN, Catalog, Chain, Model, Price, Provider, ProviderKind
from src.domain.catalog.use_cases import ADMIN, FILE, CatalogAdmin, CatalogFile, sync_files
from src.domain.identity.model import Role
from src.domain.identity.ports import AuditEvent
from src.shared.errors import InvalidRequest, NotAllowed, NotFound
from tests.makers import NOW, make_tenant, make_user
from tests.unit.support import FakeView, make_catalog, make_model, make_principal, usd

CLOSED = Provider(name="openai", kind=ProviderKind.OPENAI, enabled=False)
PRICE = Price(input=usd(7), output=usd(8), effective_from=NOW)


class FakeCatalog:
    """One catalog in memory, with a log of what was written and audited. A unit of work of its own."""

    def __init__(self, catalog: Catalog) -> None:
        self.view = FakeView(catalog)
        self.kept = catalog
        self.written: list[tuple[str, str]] = []
        self.events: list[AuditEvent] = []
        self.is_committed = False

    @asynccontextmanager
    async def open_uow(self, _: UUID | None) -> AsyncIterator["FakeCatalog"]:
        yield self

    @property
    def catalog(self) -> "FakeCatalog":
        return self

    @property
    def audit(self) -> "FakeCatalog":
        return self

    async def commit(self) -> None:
        self.is_committed = True
        self.view.catalog = self.kept

    async def record(self, event: AuditEvent) -> None:
        self.events.append(event)

    async def load(self) -> Catalog:
        return self.kept

    def _put(self, kind: str, row: Any, source: str) -> None:
        self.kept = replace(self.kept, **{kind: {**getattr(self.kept, kind), row.name: row}})
        self.written.append((row.name, source))

    async def put_provider(self, provider: Provider, *, source: str) -> None:
        self._put("providers", provider, source)

    async def put_model(self, model: Model, *, source: str) -> None:
        self._put("models", model, source)

    async def put_chain(self, chain: Chain, *, source: str) -> None:
        self._put("chains", chain, source)

    async def add_price(self, model: str, price: Price) -> None:
        found = self.kept.models[model]
        self._put("models", replace(found, prices=(*found.prices, price)), ADMIN)

    async def delete_chain(self, name: str) -> bool:
        chains = dict(self.kept.chains)
        found = chains.pop(name, None)
        self.kept = replace(self.kept, chains=chains)
        return found is not None


@pytest.fixture
def store() -> FakeCatalog:
    chain = Chain(name="smart", models=("fast",))
    return FakeCatalog(make_catalog(make_model(), make_model(name="slow"), chains={"smart": chain}))


@pytest.fixture
def admin(store: FakeCatalog) -> CatalogAdmin:
    return CatalogAdmin(open_uow=store.open_uow, view=store.view, clock=lambda: NOW)


ROOT = make_principal(user=make_user(make_tenant(), role=Role.PLATFORM_ADMIN))


async def test_files_write_what_is_new_or_different(store: FakeCatalog) -> None:
    file = CatalogFile(
        providers=(CLOSED,),
        models=(make_model(), make_model(name="slow", max_output=7), make_model(name="new")),
        chains=(Chain(name="smart", models=("fast",)), Chain(name="both", models=("fast", "new"))),
    )
    assert await sync_files([file], store.open_uow) == 4
    assert store.written == [("openai", FILE), ("slow", FILE), ("new", FILE), ("both", FILE)]
    assert store.is_committed


async def test_files_that_say_nothing_new_change_nothing(store: FakeCatalog) -> None:
    assert await sync_files([CatalogFile(models=(make_model(),)), CatalogFile()], store.open_uow) == 0
    assert store.written == []


async def test_later_files_win(store: FakeCatalog) -> None:
    files = [CatalogFile(models=(make_model(name="new", max_output=most),)) for most in (1, 2)]
    assert await sync_files(files, store.open_uow) == 1
    assert store.kept.models["new"].max_output == 2


@pytest.mark.parametrize(
    "file",
    [
        CatalogFile(models=(make_model(name="new", provider="unknown"),)),
        CatalogFile(chains=(Chain(name="bad", models=("fast", "gone")),)),
        CatalogFile(chains=(Chain(name="fast", models=("slow",)),)),
    ],
)
async def test_files_that_could_not_be_called_are_refused_whole(store: FakeCatalog, file: CatalogFile) -> None:
    with pytest.raises(InvalidRequest):
        await sync_files([file], store.open_uow)
    assert (store.written, store.is_committed) == ([], False)


async def test_a_platform_admins_change_is_kept_audited_and_seen_at_once(
    store: FakeCatalog, admin: CatalogAdmin
) -> None:
    await use_cases.put_provider(ROOT, CLOSED, admin, "req-1")
    await use_cases.put_model(ROOT, make_model(name="new"), admin, "req-2")
    priced = await use_cases.add_price(ROOT, "new", PRICE, admin, "req-3")
    await use_cases.put_chain(ROOT, Chain(name="both", models=("fast", "new")), admin, "req-4")
    await use_cases.delete_chain(ROOT, "smart", admin, "req-5")
    assert priced.prices[-1] == PRICE
    assert {source for _, source in store.written} == {ADMIN}
    assert set(store.view.current().chains) == {"both"}
    assert [(event.action, event.object_id, event.request_id) for event in store.events] == [
        ("provider.put", "openai", "req-1"),
        ("model.put", "new", "req-2"),
        ("price.add", "new", "req-3"),
        ("chain.put", "both", "req-4"),
        ("chain.delete", "smart", "req-5"),
    ]
    assert {event.actor_user_id for event in store.events} == {ROOT.user_id}


@pytest.mark.parametrize("role", [Role.USER, Role.TENANT_ADMIN])
async def test_nobody_else_may_change_the_catalog(store: FakeCatalog, admin: CatalogAdmin, role: Role) -> None:
    somebody = make_principal(user=make_user(make_tenant(), role=role))
    for change in (
        use_cases.put_provider(somebody, CLOSED, admin, "req-1"),
        use_cases.put_model(somebody, make_model(), admin, "req-1"),
        use_cases.add_price(somebody, "fast", PRICE, admin, "req-1"),
        use_cases.put_chain(somebody, Chain(name="both", models=("fast",)), admin, "req-1"),
        use_cases.delete_chain(somebody, "smart", admin, "req-1"),
    ):
        with pytest.raises(NotAllowed):
            await change
    assert (store.written, store.events) == ([], [])


@pytest.mark.parametrize("model", [make_model(name="new", provider="gone"), make_model(name="smart")])
async def test_a_model_needs_a_provider_and_a_name_of_its_own(
    store: FakeCatalog, admin: CatalogAdmin, model: Model
) -> None:
    with pytest.raises(InvalidRequest):
        await use_cases.put_model(ROOT, model, admin, "req-1")
    assert not store.is_committed


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("both", ("fast", "gone")),
        ("both", ()),
        ("both", ("fast", "fast")),
        ("both", ("fast",) * (MAX_CHAIN + 1)),
        ("fast", ("slow",)),
    ],
)
async def test_a_chain_lists_different_models_that_exist(
    store: FakeCatalog, admin: CatalogAdmin, name: str, models: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidRequest):
        await use_cases.put_chain(ROOT, Chain(name=name, models=models), admin, "req-1")
    assert not store.is_committed


async def test_what_does_not_exist_is_neither_priced_nor_deleted(store: FakeCatalog, admin: CatalogAdmin) -> None:
    with pytest.raises(NotFound) as caught:
        await use_cases.add_price(ROOT, "gone", PRICE, admin, "req-1")
    assert caught.value.specific_code == "model_not_found"
    with pytest.raises(NotFound):
        await use_cases.delete_chain(ROOT, "gone", admin, "req-1")
    assert not store.is_committed
