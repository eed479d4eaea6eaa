"""A gateway of little patience, whose wild models are called through a proxy and whose spares are not."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from tests.faults.scene import LANES, Cell, Report, Scene
from tests.faults.table import PROPER
from tests.http.surface import books_are_right
from tests.support.gateway import gateway_environment, running_gateway, sqlite_url
from tests.support.tcp_proxy import TcpProxy
from tests.support.upstream import Upstream

CONNECT_S, PATIENCE_S = 0.5, 0.7
PRICE = {"input": 1.0, "output": 2.0}


@pytest.fixture(scope="package")
def report() -> Iterator[Report]:
    """Written as Markdown to the path in FAULT_TABLE, where there is one."""
    made = Report()
    yield made
    if path := os.environ.get("FAULT_TABLE"):
        Path(path).write_text(made.markdown())


def _model(name: str, provider: str, context_window: int) -> dict[str, object]:
    """The spare's context is the larger one."""
    fields = {"name": name, "provider": provider, "context_window": context_window}
    return {**fields, "max_output": 1000, "price": PRICE}


def catalog(proxy: TcpProxy) -> str:
    """A wild model for every cell, so that cells can be asked at once; one spare of each provider; their chains."""
    providers: list[dict[str, object]] = [
        {"name": f"wild-{kind}", "kind": kind, "base_url": f"{proxy.url}{path}", "api_key_env": "OPENAI_API_KEY"}
        for kind, path in (("openai", "/v1"), ("anthropic", ""), ("google", ""))
    ]
    providers[0]["responses"] = True
    cells = [Cell(lane, stream, chained) for lane in LANES for stream in (False, True) for chained in (False, True)]
    models = [_model(each.wild, f"wild-{each.lane.kind}", 50_000) for each in cells]
    models += [_model(f"spare-{kind}", kind, 100_000) for kind in ("openai", "anthropic")]
    chains = {each.model: [each.wild, each.lane.spare] for each in cells if each.chained}
    return yaml.safe_dump({"providers": providers, "models": models, "chains": chains})


@pytest_asyncio.fixture(loop_scope="package", scope="package")
async def scene(tmp_path_factory: pytest.TempPathFactory, report: Report) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream())
        proxy = await stack.enter_async_context(TcpProxy(upstream.url))
        directory = tmp_path_factory.mktemp("faults")
        config = directory / "config.yaml"
        config.write_text(catalog(proxy))
        environment = gateway_environment(
            sqlite_url(directory),
            upstream,
            GATEWAY_CONFIG=config,
            GATEWAY_UPSTREAM_CONNECT_TIMEOUT_S=CONNECT_S,
            GATEWAY_UPSTREAM_READ_TIMEOUT_S=PATIENCE_S,
        )
        gateway = await stack.enter_async_context(running_gateway(environment))
        person = await gateway.new_user("somebody")
        await gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": 1_000_000_000})
        upstream.always(PROPER)
        yield Scene(gateway=gateway, person=person, upstream=upstream, proxy=proxy, report=report)
        await books_are_right(gateway)
