"""PostgreSQL crashes and comes back: what was under way is settled, the books are right, no gateway restarts."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chaos import PLENTY, admit, proof, replicas_of
from tests.support.load import DOORS, Load, Outcome
from tests.support.postgres import PostgresServer
from tests.support.upstream import Answer, Upstream

LEASE = {"GATEWAY_HOLD_GRACE_S": 15}
"""Longer than any outage here: no hold of a call that goes on expires."""


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server of this test alone, with fsync."""
    server = PostgresServer.start_own()
    yield server
    server.stop()


async def test_answers_under_way_are_settled_when_the_database_is_back(
    own_postgres: PostgresServer, upstream: Upstream, tmp_path: Path
) -> None:
    gate = asyncio.Event()
    upstream.always(Answer(gate=gate, gate_after=1))
    url = own_postgres.url(await own_postgres.create_database())
    async with replicas_of(2, url, upstream, tmp_path, **LEASE) as replicas:
        began_s = time.monotonic()
        customer = await admit(replicas.addresses[0], "alice", {"tokens": PLENTY})
        load = Load(addresses=replicas.addresses, customers=[customer], callers=24)
        load.start()
        await upstream.wait_in_flight(load.callers, timeout_s=60)
        stopped = asyncio.create_task(load.stop())
        await asyncio.to_thread(own_postgres.crash)
        gate.set()
        await upstream.wait_until(lambda up: up.in_flight == 0, timeout_s=60)
        assert not load.ended(Outcome.ANSWERED)
        await asyncio.to_thread(own_postgres.restart)
        await stopped
        assert {call.outcome for call in load.sent} == {Outcome.ANSWERED}
        assert {call.door for call in load.sent} == {door.name for door in DOORS}
        report = await proof(replicas, load, title="PostgreSQL restarted", began_s=began_s)
        assert not report.breaches, str(report)
