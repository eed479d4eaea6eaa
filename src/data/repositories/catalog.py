"""Providers, models, prices and chains."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, Table, delete, insert, select

from src.data.repositories.base import Repository, row_of, values_of
from src.data.repositories.versions import CATALOG, raise_version, upsert, version_of
from src.data.tables import chains, models, prices, providers
from src.domain.catalog.model import (
    CachePolicy,
    Capabilities,
    Catalog,
    Chain,
    Deadlines,
    Deployment,
    Model,
    Price,
    Provider,
    ReasoningStyle,
    Tier,
)
from src.shared.ids import new_id
from src.shared.money import Rate

ADMIN = "admin"


class SqlCatalogRepository(Repository):
    """The catalog in SQL."""

    async def load(self) -> Catalog:
        """Four queries, however large the catalog is."""
        provider_rows = await self._connection.execute(select(providers))
        chain_rows = await self._connection.execute(select(chains))
        # An admin's price stands before a file's of the same moment: the first of equals is in force.
        price_rows = await self._connection.execute(select(prices).order_by(prices.c.source, prices.c.id))
        priced: defaultdict[str, list[Price]] = defaultdict(list)
        for row in price_rows:
            priced[row.model].append(_price_from(row))
        model_rows = await self._connection.execute(select(models))
        return Catalog(
            providers={row.name: _provider_from(row) for row in provider_rows},
            models={row.name: _model_from(row, priced) for row in model_rows},
            chains={row.name: _chain_from(row) for row in chain_rows},
        )

    async def version(self) -> int:
        return await version_of(self._connection, CATALOG)

    async def put_provider(self, provider: Provider, *, source: str) -> None:
        await self._put(providers, row_of(provider), source)

    async def put_model(self, model: Model, *, source: str) -> None:
        values = {name: value for name, value in row_of(model).items() if name != "prices"}
        nested = {
            "capabilities": asdict(model.capabilities),
            "deployments": [asdict(each) for each in model.deployments],
            "deadlines": asdict(model.deadlines),
            "cache": model.cache and asdict(model.cache),
        }
        if not await self._put(models, values | nested, source):
            return
        replaced = delete(prices).where(prices.c.model == model.name)
        if source != ADMIN:
            replaced = replaced.where(prices.c.source != ADMIN)
        await self._connection.execute(replaced)
        if model.prices:
            rows = [_price_row(model.name, price, source) for price in model.prices]
            await self._connection.execute(insert(prices), rows)

    async def add_price(self, model: str, price: Price) -> None:
        """Raises NotFound for an unknown model. A price at the moment of an admin's earlier one replaces it."""
        same = (
            prices.c.effective_from.is_(None)
            if price.effective_from is None
            else prices.c.effective_from == price.effective_from
        )
        await raise_version(
            self._connection, CATALOG
        )  # first: it makes whoever else changes the catalog wait, so that one price is left
        await self._connection.execute(delete(prices).where(prices.c.model == model, prices.c.source == ADMIN, same))
        await self._write(insert(prices).values(**_price_row(model, price, ADMIN)))

    async def put_chain(self, chain: Chain, *, source: str) -> None:
        values = row_of(chain) | {"models": list(chain.models), "weights": list(chain.weights)}
        await self._put(chains, values, source)

    async def delete_chain(self, name: str) -> bool:
        gone = (await self._connection.execute(delete(chains).where(chains.c.name == name))).rowcount > 0
        if gone:
            await raise_version(self._connection, CATALOG)
        return gone

    async def _put(self, table: Table, values: Mapping[str, Any], source: str) -> bool:
        """Insert or replace; False where an admin's row stands in the way of a file's."""
        statement = upsert(self._connection, table).values(**values, source=source)
        replacing = {name: statement.excluded[name] for name in (*values, "source") if name != "name"}
        guard = None if source == ADMIN else table.c.source != ADMIN
        done = await self._write(
            statement.on_conflict_do_update(index_elements=[table.c.name], set_=replacing, where=guard)
        )
        if not done.rowcount:
            return False
        await raise_version(self._connection, CATALOG)
        return True


def _provider_from(row: Row[Any]) -> Provider:
    values = values_of(row)
    del values["source"]
    return Provider(**values)


def _model_from(row: Row[Any], priced: Mapping[str, list[Price]]) -> Model:
    values = values_of(row)
    del values["source"]
    values["capabilities"] = _capabilities_from(values["capabilities"])
    values["deployments"] = tuple(Deployment(**each) for each in values["deployments"])
    values["deadlines"] = Deadlines(**values["deadlines"])
    values["cache"] = values["cache"] and CachePolicy(**values["cache"])
    return Model(**values, prices=tuple(priced.get(row.name, ())))


def _capabilities_from(values: Mapping[str, Any]) -> Capabilities:
    style = values.get("reasoning")
    return Capabilities(**{**values, "reasoning": style and ReasoningStyle(style)})


def _chain_from(row: Row[Any]) -> Chain:
    values = values_of(row)
    del values["source"]
    return Chain(**values | {"models": tuple(row.models), "weights": tuple(row.weights)})


def _price_from(row: Row[Any]) -> Price:
    return Price(
        input=Rate(row.input_rate),
        output=Rate(row.output_rate),
        cache_read=row.cache_read_rate,
        cache_write=row.cache_write_rate,
        tiers=tuple(Tier(**tier) for tier in row.tiers),
        effective_from=row.effective_from,
    )


def _price_row(model: str, price: Price, source: str) -> dict[str, Any]:
    return {
        "id": new_id(),
        "model": model,
        "effective_from": price.effective_from,
        "input_rate": price.input,
        "output_rate": price.output,
        "cache_read_rate": price.cache_read,
        "cache_write_rate": price.cache_write,
        "tiers": [asdict(tier) for tier in price.tiers],
        "source": source,
    }
