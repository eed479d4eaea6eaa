"""PostgreSQL crashes under load and comes back: calls wait or are told so, the books are right, no gateway restarts."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.processes.conftest import eventually
from tests.support.chaos import PLENTY, Replicas, admit, loaded, proof, replicas_of
from tests.support.load import DOORS, Load, Outcome, Sent
from tests.support.postgres import PostgresServer
from tests.support.upstream import Answer, Upstream
from tests.support.upstream_process import provider_process

OUTAGES_S = (0.0, 1.0, 6.5)
"""None, one that a call may sit out, and one longer than a call waits for its hold."""
AWAY = {"dialog": 503, "openai": 503, "anthropic": 529}
UNAVAILABLE = "unavailable"
LEASE = {"GATEWAY_HOLD_GRACE_S": 15}
"""Longer than any outage here: no hold of a call that goes on expires."""


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server of this test alone, with fsync."""
    server = PostgresServer.start_own()
    yield server
    server.stop()


@pytest.fixture
def provider() -> Iterator[Upstream]:
    with provider_process(chunk_delay_s=0.03) as made:
        yield made


async def health(replicas: Replicas, probe: str) -> set[int]:
    """What every gateway says of itself."""
    async with httpx2.AsyncClient(timeout=30, verify=False) as http:
        return {(await http.get(f"{address}/health/{probe}")).status_code for address in replicas.addresses}


def check_told_to_come_back(call: Sent) -> None:
    """The status and the body of the dialect, and nothing of the gateway's inside."""
    assert call.status == AWAY[call.door.partition(",")[0]], call
    error = json.loads(call.words)["error"]
    assert UNAVAILABLE in (error.get("code"), error.get("details", {}).get("error_code")), call


async def is_serving(load: Load) -> None:
    """Until more calls are answered than before, and refused ones do not count."""
    before = len(load.ended(Outcome.ANSWERED))

    async def is_answering() -> bool:
        return len(load.ended(Outcome.ANSWERED)) >= before + 20

    await eventually(is_answering, timeout_s=40)


async def test_postgres_may_crash_under_load(own_postgres: PostgresServer, provider: Upstream, tmp_path: Path) -> None:
    url = own_postgres.url(await own_postgres.create_database())
    async with replicas_of(2, url, provider, tmp_path, **LEASE) as replicas:
        began_s = time.monotonic()
        load = await loaded(replicas)
        for outage_s in OUTAGES_S:
            await is_serving(load)
            await asyncio.to_thread(own_postgres.crash)
            assert await health(replicas, "live") == {200}
            assert await health(replicas, "ready") == {503}
            await asyncio.sleep(outage_s)
            await asyncio.to_thread(own_postgres.restart)
        await is_serving(load)
        assert await health(replicas, "ready") == {200}
        await load.stop()
        report = await proof(replicas, load, title="PostgreSQL restarted", began_s=began_s)
        assert not report.breaches, str(report)
        failed = load.ended(Outcome.FAILED)
        assert failed
        for call in failed:
            check_told_to_come_back(call)
        assert all(UNAVAILABLE in call.words for call in load.ended(Outcome.BROKEN))
        assert not load.ended(Outcome.CUT)


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
