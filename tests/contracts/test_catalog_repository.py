"""The catalog as it is kept: whole, and with an admin's word above a file's."""

from datetime import timedelta
from typing import Any

import pytest

from src.domain.catalog.model import Capabilities, Chain, Lifecycle, Model, Price, Provider, ProviderKind, Tier
from src.shared.errors import NotFound
from src.shared.money import Rate
from tests.contracts.conftest import Backend
from tests.makers import NOW

LATER = NOW + timedelta(hours=1)


def a_model(**given: Any) -> Model:
    tier = Tier(above_input_tokens=200_000, input=Rate(2), output=Rate(4), cache_read=Rate(1))
    dated = Price(input=Rate(3), output=Rate(6), effective_from=LATER)
    base = {
        "name": "fast",
        "provider": "openai",
        "upstream": "gpt-4o-mini",
        "context_window": 128_000,
        "max_output": 16_384,
        "output_reserve": 1024,
        "prices": (Price(input=Rate(1), output=Rate(2), cache_write=Rate(3), tiers=(tier,)), dated),
        "capabilities": Capabilities(images=False),
        "lifecycle": Lifecycle.DEPRECATED,
        "replacement": "faster",
    }
    return Model(**{**base, **given})


async def test_the_catalog_comes_back_as_it_was_written(backend: Backend) -> None:
    provider = Provider(name="openai", kind=ProviderKind.OPENAI, base_url="http://x/v1", api_key_env="KEY")
    async with backend.open_uow(None) as uow:
        assert await uow.catalog.version() == 0
        await uow.catalog.put_provider(provider, source="file")
        await uow.catalog.put_model(a_model(), source="file")
        await uow.catalog.put_chain(Chain(name="smart", models=("fast",)), source="file")
        await uow.commit()
    async with backend.open_uow(None) as uow:
        catalog = await uow.catalog.load()
        assert await uow.catalog.version() == 3
        assert await uow.catalog.delete_chain("smart")
        assert not await uow.catalog.delete_chain("smart")
        assert await uow.catalog.version() == 4
    assert (catalog.providers, catalog.models) == ({"openai": provider}, {"fast": a_model()})
    assert catalog.chains == {"smart": Chain(name="smart", models=("fast",))}


async def test_an_admin_wins_over_files(backend: Backend) -> None:
    async with backend.open_uow(None) as uow:
        await uow.catalog.put_model(a_model(), source="file")
        await uow.catalog.put_model(a_model(enabled=False, prices=(), output_reserve=None), source="admin")
        await uow.catalog.put_model(a_model(), source="file")
        await uow.catalog.put_chain(Chain(name="smart", models=("fast",)), source="admin")
        await uow.catalog.put_chain(Chain(name="smart", models=("slow",)), source="file")
        catalog = await uow.catalog.load()
        assert catalog.models["fast"] == a_model(enabled=False, prices=(), output_reserve=None)
        assert catalog.chains["smart"].models == ("fast",)
        await uow.catalog.put_model(a_model(), source="admin")
        assert (await uow.catalog.load()).models["fast"] == a_model()


async def test_an_admins_price_is_in_force_before_a_files(backend: Backend) -> None:
    own = Price(input=Rate(9), output=Rate(9))
    async with backend.open_uow(None) as uow:
        await uow.catalog.put_model(a_model(), source="file")
        await uow.catalog.add_price("fast", own)
        model = (await uow.catalog.load()).models["fast"]
        assert model.price_at(NOW) == own
        with pytest.raises(NotFound):
            await uow.catalog.add_price("unknown", own)
