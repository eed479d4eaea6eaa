"""Days and months of quotas over HTTP, at the instants at which they begin where the tenant is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from src.api import bootstrap
from src.api.container import Gateway
from src.shared.settings import Settings
from tests.http.surface import CHAT, books_are_right, check_error
from tests.support.behaviours import Answer, Usage
from tests.support.gateway import Person, RunningGateway, gateway_environment, running_gateway, sqlite_url
from tests.support.upstream import Upstream

MIDNIGHT = datetime(2031, 5, 31, 15, tzinfo=UTC)
"""The first instant of June in Tokyo. It lies ahead: nothing that is held then has expired by the real clock."""
JUST_BEFORE = MIDNIGHT - timedelta(milliseconds=100)
CALL = {**CHAT, "max_tokens": 20}


@dataclass
class ScriptedClock:
    """Shows what it is set to."""

    now: datetime = JUST_BEFORE

    def __call__(self) -> datetime:
        return self.now

    @asynccontextmanager
    async def opened(self, settings: Settings) -> AsyncIterator[Gateway]:
        """A gateway whose calls and questions go by this clock."""
        async with bootstrap.open_gateway(settings) as gateway:
            completions = replace(gateway.completions, answers=replace(gateway.completions.answers, clock=self))
            yield replace(gateway, clock=self, completions=completions)


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture(params=["sqlite", "postgres"])
async def gateway(
    request: pytest.FixtureRequest, tmp_path: Path, upstream: Upstream, clock: ScriptedClock
) -> AsyncIterator[RunningGateway]:
    @asynccontextmanager
    async def database() -> AsyncIterator[str]:
        yield sqlite_url(tmp_path)

    opened: AbstractAsyncContextManager[str] = database()
    if request.param == "postgres":
        opened = request.getfixturevalue("postgres_server").database()
    async with opened as url, running_gateway(gateway_environment(url, upstream), clock.opened) as running:
        yield running


async def user_in_tokyo(gateway: RunningGateway) -> Person:
    body = {"slug": "tokyo", "name": "Tokyo", "time_zone": "Asia/Tokyo"}
    tenant = (await gateway.http.post("/api/v1/admin/tenants", json=body)).json()
    return await gateway.new_user("alice", tenant_id=tenant["id"])


async def quotas_of(person: Person) -> dict[tuple[str, str], dict[str, Any]]:
    found = (await person.http.get("/api/v1/users/me/tokens")).json()["quotas"]
    return {(row["unit"], row["window"]): row for row in found}


async def seen(person: Person, clock: ScriptedClock, at: datetime) -> tuple[int, int, int, str]:
    """used, held, remaining and resets_at of the user's tokens a day, at that time."""
    clock.now = at
    row = (await quotas_of(person))["tokens", "day"]
    return row["used"], row["held"], row["remaining"], row["resets_at"]


async def test_a_call_belongs_to_the_day_in_which_it_began(
    gateway: RunningGateway, upstream: Upstream, clock: ScriptedClock
) -> None:
    alice = await user_in_tokyo(gateway)
    await gateway.http.patch(f"/api/v1/admin/users/{alice.id}/limits", json={"tokens_per_day": 1000})
    gate = asyncio.Event()
    upstream.always(Answer(text="ok", usage=Usage(input=5, output=4), gate=gate))
    before = asyncio.create_task(alice.http.post("/v1/chat/completions", json=CALL))
    await upstream.wait_in_flight(1)
    clock.now = MIDNIGHT
    at_midnight = asyncio.create_task(alice.http.post("/v1/chat/completions", json=CALL))
    await upstream.wait_in_flight(2)
    ends, next_ends = "2031-05-31T15:00:00.000000Z", "2031-06-01T15:00:00.000000Z"
    _, held, remaining, resets_at = await seen(alice, clock, JUST_BEFORE)
    assert (held + remaining, held > 0, resets_at) == (1000, True, ends)
    assert await seen(alice, clock, MIDNIGHT) == (0, held, remaining, next_ends)
    gate.set()
    for call in (before, at_midnight):
        assert (await call).status_code == 200
    assert await seen(alice, clock, JUST_BEFORE) == (9, 0, 991, ends)
    assert await seen(alice, clock, MIDNIGHT) == (9, 0, 991, next_ends)
    await books_are_right(gateway)


async def test_a_spent_day_and_month_begin_anew_without_anybodys_doing(
    gateway: RunningGateway, upstream: Upstream, clock: ScriptedClock
) -> None:
    alice = await user_in_tokyo(gateway)
    limits = f"/api/v1/admin/users/{alice.id}/limits"
    await gateway.http.patch(limits, json={"requests_per_day": 1, "requests_per_month": 2})
    chat = {"content": "hello", "model": "gpt-4o"}
    clock.now = MIDNIGHT - timedelta(days=1, milliseconds=100)
    assert (await alice.http.post("/v1/chat/completions", json=CALL)).status_code == 200
    details = check_error(await alice.http.post("/chat", json=chat), 402)["details"]
    assert (details["window"], details["resets_at"]) == ("day", "2031-05-30T15:00:00.000000Z")
    clock.now = JUST_BEFORE
    assert (await alice.http.post("/v1/chat/completions", json=CALL)).status_code == 200
    await gateway.http.patch(limits, json={"requests_per_day": None})
    details = check_error(await alice.http.post("/chat", json=chat), 402)["details"]
    assert (details["window"], details["used"], details["resets_at"]) == ("month", 2, "2031-05-31T15:00:00.000000Z")
    clock.now = MIDNIGHT
    assert (await alice.http.post("/v1/chat/completions", json=CALL)).status_code == 200
    june = (await quotas_of(alice))["requests", "month"]
    assert (june["limit"], june["used"], june["resets_at"]) == (2, 1, "2031-06-30T15:00:00.000000Z")
    await books_are_right(gateway)


async def test_an_adjusted_day_is_followed_by_an_ordinary_one(gateway: RunningGateway, clock: ScriptedClock) -> None:
    alice = await user_in_tokyo(gateway)
    body = {"scope": "user", "scope_id": alice.id, "unit": "tokens", "window": "day", "limit": 1000}
    quota = (await gateway.http.put("/api/v1/admin/quotas", json=body)).json()
    path = f"/api/v1/admin/quotas/{quota['id']}/adjustments"
    assert (await gateway.http.post(path, json={"amount": 500})).json()["limit"] == 1500
    assert (await seen(alice, clock, MIDNIGHT))[2] == 1000
    assert (await gateway.http.post(path, json={"amount": -100})).json()["limit"] == 900
    assert (await seen(alice, clock, JUST_BEFORE))[2] == 1500
    assert (await seen(alice, clock, MIDNIGHT + timedelta(days=1)))[2] == 1000
