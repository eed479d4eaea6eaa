"""Prove the ledger under kill -9: two gateways on PostgreSQL with fsync, killed in turn under load.

    python -m scripts.chaos --kills 100     # about 5 s a kill
    python -m scripts.chaos --sqlite        # one gateway on SQLite

It prints what happened and exits with 1 when anything acknowledged was lost, charged twice, overspent or left held.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.chaos import Report, replicas_of, run_chaos
from tests.support.gateway import sqlite_url
from tests.support.postgres import PostgresServer
from tests.support.upstream_process import provider_process

REPLICAS = 2
MOST_S_A_KILL = 20
MOST_S_AROUND = 180


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A server of our own, synced."""
    server = PostgresServer.start_own()
    try:
        yield server
    finally:
        server.stop()


async def run(kills: int, seed: int, *, on_sqlite: bool) -> Report:
    """One run on a fresh database. Raises TimeoutError when it takes far too long."""
    async with asyncio.timeout(kills * MOST_S_A_KILL + MOST_S_AROUND):
        with tempfile.TemporaryDirectory(prefix="chaos-") as name, provider_process(chunk_delay_s=0.03) as provider:
            directory = Path(name)
            if on_sqlite:
                async with replicas_of(1, sqlite_url(directory), provider, directory) as replicas:
                    return await run_chaos(replicas, kills, title="SQLite, 1 gateway", seed=seed)
            with postgres() as server:
                url = server.url(await server.create_database())
                async with replicas_of(REPLICAS, url, provider, directory) as replicas:
                    title = f"PostgreSQL with fsync, {REPLICAS} gateways"
                    return await run_chaos(replicas, kills, title=title, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7, help="another seed kills at other moments")
    parser.add_argument("--sqlite", action="store_true")
    options = parser.parse_args()
    report = asyncio.run(run(options.kills, options.seed, on_sqlite=options.sqlite))
    print(report)
    sys.exit(1 if report.breaches else 0)


if __name__ == "__main__":
    main()
