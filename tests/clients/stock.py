"""Clients of other languages and libraries do their own tests against a served gateway: `make test-clients`."""

import os
from pathlib import Path

import pytest

from tests.clients.conftest import CLIENTS, HERE, run

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


@pytest.mark.parametrize("file", sorted(path.name for path in HERE.glob("*.test.mjs")))
async def test_javascript_clients_pass(environment: dict[str, str], file: str) -> None:
    ended = await run(CLIENTS / "node", "--test", file, directory=HERE, **environment)
    print(ended.output)
    assert ended.status == 0


async def test_python_clients_of_google_pass(environment: dict[str, str], tmp_path: Path) -> None:
    pytest_alone = ("-m", "pytest", "--noconftest", "-c", os.devnull, "-p", "no:cacheprovider")
    ended = await run(CLIENTS / "python", *pytest_alone, HERE / "google_clients.py", directory=tmp_path, **environment)
    print(ended.output)
    assert ended.status == 0
