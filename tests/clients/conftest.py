"""What clients that are programs of their own need: a served gateway, an upstream with a mind, and a place to run."""

import asyncio
import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio

from tests.sdk.conftest import Scene, scene, served
from tests.support.upstream import Mind

__all__ = ["Scene", "scene", "served"]

HERE = Path(__file__).parent
CLIENTS = HERE.parent.parent / ".venv" / "clients" / "bin"
"""Node.js, npm and the Python clients that want other libraries than the gateway: `make test-clients` installs it."""

RICH = 100_000_000
POOR = 1


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a program ended and all it printed."""

    status: int
    output: str


async def run(*command: str | Path, directory: Path, timeout_s: float = 240, **environment: str) -> Ended:
    """Run a program in an environment of nothing but a PATH and what is named; it is killed when its time is up."""
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            cwd=directory,
            env={"PATH": f"{CLIENTS}:{os.environ['PATH']}", "LANG": "C.UTF-8", "HOME": str(directory), **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), timeout_s)
        finally:
            if process.returncode is None:
                process.kill()
        status = await process.wait()
        output.seek(0)
        return Ended(status=status, output=output.read().decode(errors="replace"))


@pytest_asyncio.fixture(loop_scope="module")
async def environment(scene: Scene) -> dict[str, str]:
    """Where the gateway is, a key with credit and one without; the upstream answers by its mind."""
    scene.upstream.always(Mind())
    rich, poor = await scene.person(credit=RICH), await scene.person(credit=POOR)
    return {
        "GATEWAY_URL": scene.gateway.url,
        "GATEWAY_KEY": rich.secret,
        "GATEWAY_KEY_WITHOUT_CREDIT": poor.secret,
    }
