"""The table of docs/compatibility.md is true."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.compat.measuring import FEATURES, KINDS, SPEAKERS, Kind, Meter, prepare, verdict
from tests.compat.seen import Speaker
from tests.compat.table import PATH, documented, rendered
from tests.support.gateway import RunningGateway, gateway_environment, running_gateway, sqlite_url
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[RunningGateway, Upstream]]:
    """A gateway with a model of every kind of provider."""
    url = sqlite_url(tmp_path_factory.mktemp("gateway"))
    async with Upstream() as upstream, running_gateway(gateway_environment(url, upstream)) as gateway:
        await prepare(gateway, upstream)
        yield gateway, upstream


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda speaker: speaker.name)
async def test_what_is_documented_is_so(
    served: tuple[RunningGateway, Upstream], speaker: Speaker, kind: Kind, feature: str
) -> None:
    gateway, upstream = served
    meter = Meter(speaker=speaker, kind=kind, gateway=gateway, upstream=upstream)
    assert await verdict(meter, FEATURES[feature]) == documented()[speaker.name, kind.name, feature]


async def test_the_page_is_as_it_would_be_written() -> None:
    assert PATH.read_text(encoding="utf-8") == rendered(documented())
