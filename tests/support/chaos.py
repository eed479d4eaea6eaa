"""A gateway of several processes under load while they are killed one after the other, and the proof afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.audit import Findings, asking, audit, wait_for_the_sweep
from tests.support.gateway import ADMIN_KEY, GatewayProcess, gateway_environment
from tests.support.load import Customer, Load, Outcome
from tests.support.upstream import Upstream

SHORT_HOLDS = {"GATEWAY_UPSTREAM_TOTAL_TIMEOUT_S": 60, "GATEWAY_HOLD_GRACE_S": 3}
"""Holds of a killed gateway are soon swept; a live one renews them in time even where it must wait for a processor."""
SWEPT_WITHIN_S = 45.0
"""A hold's life, the sweeper's rounds, and a slow machine."""
PLENTY = 10**9
ALLOWANCE = 2_000
"""What the poor get to begin with, and again at each kill, in tokens; it lasts for a handful of calls."""
MOST_SHOWN = 10
LONGEST_PAUSE_S = 1.2
CUSTOMERS: dict[str, dict[str, int]] = {
    "rich": {"tokens": PLENTY},
    "rich in three units": {"tokens": PLENTY, "micro_usd": PLENTY, "requests": PLENTY},
    "poor in tokens": {"tokens": ALLOWANCE},
    "poor in money": {"micro_usd": ALLOWANCE, "tokens": PLENTY},
    "poor in requests": {"requests": 5},
    "poor in everything": {"tokens": ALLOWANCE, "micro_usd": ALLOWANCE, "requests": 8},
}


@dataclass(slots=True, kw_only=True)
class Replicas:
    """Gateway processes on one database, each on a port of its own."""

    database_url: str
    gateways: list[GatewayProcess]

    @property
    def addresses(self) -> list[str]:
        return [gateway.url for gateway in self.gateways]

    def verify(self) -> str:
        """What `llm-gateway ledger verify` says; empty when it finds no fault."""
        done = self.gateways[0].command("ledger", "verify", check=False)
        return "" if done.returncode == 0 else f"ledger verify exits {done.returncode}: {done.stdout}{done.stderr}"


@asynccontextmanager
async def replicas_of(
    count: int, database_url: str, provider: Upstream, directory: Path, **settings: Any
) -> AsyncIterator[Replicas]:
    """Migrate the database and start so many gateways on it; they end with the block."""
    environment = gateway_environment(database_url, provider, **{**SHORT_HOLDS, **settings})
    gateways = []
    for number in range(count):
        home = directory / f"replica-{number}"
        home.mkdir()
        gateways.append(GatewayProcess(environment, home))
    await asyncio.to_thread(gateways[0].command, "migrate")
    try:
        for gateway in gateways:
            await gateway.start()
        yield Replicas(database_url=database_url, gateways=gateways)
    finally:
        for gateway in gateways:
            await gateway.stop()


async def admit(address: str, name: str, credit: dict[str, int]) -> Customer:
    """A new user with a key and credit."""
    async with asking(address, ADMIN_KEY) as admin:
        tenant = (await said(admin.get("/api/v1/me")))["tenant"]["id"]
        body = {"tenant_id": tenant, "external_id": name, "role": "user"}
        user = (await said(admin.post("/api/v1/admin/users", json=body)))["id"]
        key = await said(admin.post("/api/v1/api-keys", json={"name": "load", "user_id": user}))
    customer = Customer(id=user, name=name, secret=key["secret"], key_id=key["id"])
    await top_up(address, customer, credit)
    return customer


async def top_up(address: str, customer: Customer, amounts: dict[str, int]) -> None:
    """Give a customer more credit and remember it."""
    async with asking(address, ADMIN_KEY) as admin:
        for unit, amount in amounts.items():
            body = {"amount": amount, "unit": unit}
            await said(admin.post(f"/api/v1/admin/users/{customer.id}/tokens", json=body))
            customer.credit[unit] = customer.credit.get(unit, 0) + amount


async def said(request: contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]) -> Any:
    """The body of an answer that must not be an error."""
    async with request as response:
        assert response.status < 300, await response.text()
        return await response.json()


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run found. `breaches` is empty where every law held."""

    title: str
    kills: int
    duration_s: float
    load: Load
    findings: Findings
    verify: str
    still_held: bool = False
    breaches: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.breaches = [*self.findings.breaches, *([self.verify] if self.verify else [])]
        if self.still_held:
            self.breaches.append(f"something is held {SWEPT_WITHIN_S:.0f} s after the last call")

    def __str__(self) -> str:
        found = self.findings
        outcomes = Counter(call.outcome for call in self.load.sent)
        failures = Counter(call.status for call in self.load.sent if call.outcome is Outcome.FAILED)
        rows: list[tuple[str, object, str]] = [("kill -9", self.kills, ""), ("calls", len(self.load.sent), "")]
        rows += [(f"  {outcome}", outcomes[outcome], "") for outcome in Outcome if outcomes[outcome]]
        rows += [(f"    with status {status}", count, "") for status, count in sorted(failures.items())]
        rows += [
            ("acknowledged", found.acknowledged, f"{found.stored} of them in dialogs, all stored as told"),
            ("charged", found.charged, f"{found.unacknowledged} of them cut off before their caller heard the end"),
            ("lost", len(found.lost), ""),
            ("charged twice", len(found.double), ""),
            ("overspent", len(found.overspent), ""),
            ("other breaches", len(self.breaches) - len(found.lost) - len(found.double) - len(found.overspent), ""),
            ("still held", "yes" if self.still_held else "nothing", ""),
            ("ledger verify", "wrong" if self.verify else "right", ""),
        ]
        lines = [f"  {name:<22}{value!s:>8}  {remark}".rstrip() for name, value, remark in rows]
        shown = [f"BREACH: {breach}" for breach in self.breaches[:MOST_SHOWN]]
        more = len(self.breaches) - len(shown)
        return "\n".join(
            [f"{self.title}, {self.duration_s:.0f} s", *lines, *shown, *([f"and {more} more"] if more else [])]
        )


async def loaded(replicas: Replicas, seed: int = 7) -> Load:
    """Customers of every kind, calling from now on."""
    customers = [await admit(replicas.addresses[0], name, credit) for name, credit in CUSTOMERS.items()]
    load = Load(addresses=replicas.addresses, customers=customers, seed=seed)
    load.start()
    return load


async def run_chaos(replicas: Replicas, kills: int, *, title: str, seed: int = 7) -> Report:
    """Load, kill the replicas in turn, let the sweep finish, prove the books."""
    began_s = time.monotonic()
    load = await loaded(replicas, seed)
    chance = random.Random(seed)
    for number in range(kills):
        await asyncio.sleep(chance.uniform(0.1, LONGEST_PAUSE_S))
        killed = replicas.gateways[number % len(replicas.gateways)]
        killed.signal(signal.SIGKILL)
        await killed.wait()
        await killed.start()
        for customer in load.customers:
            poor = {unit: amount for unit, amount in CUSTOMERS[customer.name].items() if amount < PLENTY}
            await top_up(killed.url, customer, poor)
    await load.stop()
    return await proof(replicas, load, title=title, kills=kills, began_s=began_s)


async def proof(
    replicas: Replicas,
    load: Load,
    *,
    title: str,
    kills: int = 0,
    began_s: float,
) -> Report:
    """Wait for the sweep, then hold what callers were told against the books."""
    still_held = False
    try:
        await wait_for_the_sweep(replicas.addresses[0], load.customers, SWEPT_WITHIN_S)
    except TimeoutError:
        still_held = True
    return Report(
        title=title,
        kills=kills,
        duration_s=time.monotonic() - began_s,
        load=load,
        findings=await audit(replicas.addresses[0], replicas.database_url, load.customers, load.sent),
        verify=await asyncio.to_thread(replicas.verify),
        still_held=still_held,
    )
