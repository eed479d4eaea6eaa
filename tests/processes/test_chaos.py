"""Gateways killed under load, a little of `make chaos`: nothing acknowledged is lost, nothing is paid twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chaos import Report, replicas_of, run_chaos
from tests.support.gateway import sqlite_url
from tests.support.upstream import Upstream
from tests.support.upstream_process import provider_process


@pytest.fixture
def provider() -> Iterator[Upstream]:
    with provider_process(chunk_delay_s=0.03) as made:
        yield made


def check(report: Report, kills: int) -> None:
    assert not report.breaches, str(report)
    assert report.kills == kills
    assert report.findings.acknowledged > kills
    assert report.findings.stored
    assert report.findings.charged == report.findings.acknowledged + report.findings.unacknowledged


async def test_two_gateways_on_postgres_lose_nothing_when_killed(
    postgres_url: str, provider: Upstream, tmp_path: Path
) -> None:
    async with replicas_of(2, postgres_url, provider, tmp_path) as replicas:
        check(await run_chaos(replicas, 3, title="PostgreSQL, 2 gateways"), 3)


async def test_a_gateway_on_sqlite_loses_nothing_when_killed(provider: Upstream, tmp_path: Path) -> None:
    async with replicas_of(1, sqlite_url(tmp_path), provider, tmp_path) as replicas:
        check(await run_chaos(replicas, 2, title="SQLite, 1 gateway"), 2)
