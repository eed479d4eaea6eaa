"""Everybody at once against credit for exactly k calls: k are admitted, on two gateways as on one, in every unit."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.processes.conftest import eventually
from tests.support.audit import Book, asking, book_of
from tests.support.chaos import PLENTY, Replicas, admit, replicas_of, said
from tests.support.gateway import ADMIN_KEY, sqlite_url
from tests.support.load import Customer
from tests.support.upstream import Answer, Upstream

CALLERS_EACH = 64
"""At every gateway."""
PAID_FOR = 9
USAGE_TOKENS = 2
"""One word in, one word out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A way in with a demand that cannot shrink: one token of output is the least there is."""

    path: str
    body: dict[str, Any]
    refusal: int


QUESTION = {"max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}
OPENAI = Door(path="/v1/chat/completions", body={"model": "gpt-4o", **QUESTION}, refusal=429)
ANTHROPIC = Door(path="/v1/messages", body={"model": "claude-3-opus", **QUESTION}, refusal=402)
DIALOG = Door(
    path="/api/v1/dialogs/{}/messages",
    body={"model": "gpt-4o", "content": "Hello", "params": {"max_output_tokens": 1}},
    refusal=402,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one caller got."""

    status: int
    request_id: str
    body: Any

    @property
    def details(self) -> dict[str, Any]:
        """What a refusal says."""
        found: dict[str, Any] = self.body["error"]["details"]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Gateways on one database, and an upstream that answers when it is told to."""

    replicas: Replicas
    upstream: Upstream

    @property
    def callers(self) -> int:
        return CALLERS_EACH * len(self.replicas.addresses)

    async def needed(self, door: Door, unit: str) -> int:
        """What one call holds in a unit, as a refusal says it."""
        if unit == "requests":
            return 1
        poor = await self.admit(f"probe of {unit} at {door.path}", {unit: 1})
        async with asking(self.replicas.addresses[0], poor.secret) as http:
            refused = await call(http, door)
        assert (refused.status, refused.details["unit"]) == (door.refusal, unit)
        needed: int = refused.details["needed"]
        return needed

    async def admit(self, name: str, credit: dict[str, int]) -> Customer:
        return await admit(self.replicas.addresses[0], name, credit)

    async def book(self, customer: Customer) -> Book:
        return await book_of(self.replicas.addresses[-1], customer)

    async def all_at_once(self, door: Door, *customers: Customer) -> list[Reply]:
        """Everybody calls at every gateway; nobody is answered before all others are refused: the holds overlap."""
        gate = asyncio.Event()
        self.upstream.reset()
        self.upstream.always(Answer(text="ok", gate=gate))
        async with AsyncExitStack() as stack:
            sessions = [
                await stack.enter_async_context(asking(address, customer.secret))
                for address, customer in product(self.replicas.addresses, customers)
            ]
            turns = islice(cycle(sessions), self.callers)
            tasks = [asyncio.create_task(call(http, door)) for http in turns]

            async def is_decided() -> bool:
                return sum(task.done() for task in tasks) + self.upstream.in_flight >= self.callers

            await eventually(is_decided, timeout_s=60)
            gate.set()
            return await asyncio.gather(*tasks)


async def call(http: aiohttp.ClientSession, door: Door) -> Reply:
    """One call; in a dialog of its own where the door needs one."""
    path = door.path
    if door is DIALOG:
        async with http.post("/api/v1/dialogs", json={}) as response:
            path = path.format((await response.json())["id"])
    async with http.post(path, json=door.body) as response:
        if response.status in (402, 429):
            assert response.headers["x-should-retry"] == "false"
        return Reply(status=response.status, request_id=response.headers["x-request-id"], body=await response.json())


@pytest.fixture
async def on_postgres(postgres_url: str, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Scene]:
    async with replicas_of(2, postgres_url, upstream, tmp_path) as replicas:
        yield Scene(replicas=replicas, upstream=upstream)


@pytest.fixture
async def on_sqlite(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Scene]:
    async with replicas_of(1, sqlite_url(tmp_path), upstream, tmp_path) as replicas:
        yield Scene(replicas=replicas, upstream=upstream)


async def check_wave(scene: Scene, door: Door, customer: Customer, unit: str, needed: int) -> int:
    """As many are admitted as are paid for and all others hear why not; how many that were."""
    before = await scene.book(customer)
    left, spent = _left(before, unit), _spent(before, unit)
    admitted = left // needed
    replies = await scene.all_at_once(door, customer)
    answered = [reply for reply in replies if reply.status < 300]
    refused = [reply for reply in replies if reply.status >= 300]
    assert Counter(reply.status for reply in refused) == {door.refusal: scene.callers - admitted}
    assert len(answered) == len(scene.upstream.requests) == scene.upstream.max_in_flight == admitted
    why = {"scope": "user", "unit": unit, "window": "none", "limit": left + spent, "used": spent}
    for reply in refused:
        assert reply.details | why | {"held": admitted * needed, "needed": needed} == reply.details
    _check_charged(answered, door, customer, before, await scene.book(customer))
    return admitted


def _check_charged(answered: list[Reply], door: Door, customer: Customer, before: Book, after: Book) -> None:
    """Each answered call is charged once in every unit, nothing else is, and nothing is held."""
    new = [entry for entry in after.charges if entry not in before.charges]
    charges = Counter((entry["request_id"], entry["unit"]) for entry in new)
    assert charges == dict.fromkeys(((reply.request_id, unit) for reply in answered for unit in customer.credit), 1)
    assert all(entry["amount"] == -USAGE_TOKENS for entry in new if entry["unit"] == "tokens")
    assert all(_left(after, unit) == credit - _spent(after, unit) for unit, credit in customer.credit.items())
    assert len(after.messages) - len(before.messages) == (2 * len(answered) if door is DIALOG else 0)
    assert (after.standing["held"], {quota["held"] for quota in after.standing["quotas"]}) == (0, {0})
    if "tokens" in customer.credit:
        assert after.standing["balance"] == _left(after, "tokens")


def _left(book: Book, unit: str) -> int:
    return sum(int(entry["amount"]) for entry in book.entries if entry["unit"] == unit)


def _spent(book: Book, unit: str) -> int:
    return -sum(int(entry["amount"]) for entry in book.charges if entry["unit"] == unit)


async def check_races(scene: Scene, door: Door, unit: str, others: dict[str, int]) -> None:
    """Credit for exactly so many calls; then what those left of their holds is raced for."""
    needed = await scene.needed(door, unit)
    customer = await scene.admit(f"{unit} at {door.path}", {unit: PAID_FOR * needed, **others})
    assert await check_wave(scene, door, customer, unit, needed) == PAID_FOR
    await check_wave(scene, door, customer, unit, needed)
    assert not await asyncio.to_thread(scene.replicas.verify)


RACES = pytest.mark.parametrize(
    ("door", "unit", "others"),
    [
        pytest.param(OPENAI, "tokens", {}, id="tokens"),
        pytest.param(ANTHROPIC, "micro_usd", {"tokens": PLENTY}, id="money"),
        pytest.param(DIALOG, "requests", {"tokens": PLENTY, "micro_usd": PLENTY}, id="requests"),
    ],
)


@RACES
async def test_two_gateways_admit_exactly_what_is_paid_for(
    on_postgres: Scene, door: Door, unit: str, others: dict[str, int]
) -> None:
    await check_races(on_postgres, door, unit, others)


@RACES
async def test_a_gateway_on_sqlite_admits_exactly_what_is_paid_for(
    on_sqlite: Scene, door: Door, unit: str, others: dict[str, int]
) -> None:
    await check_races(on_sqlite, door, unit, others)


async def put_quota(scene: Scene, scope: str, scope_id: str, unit: str, window: str, limit: int) -> dict[str, Any]:
    """What an administrator allows, and the quota as it is told."""
    body = {"scope": scope, "scope_id": scope_id, "unit": unit, "window": window, "limit": limit}
    async with asking(scene.replicas.addresses[0], ADMIN_KEY) as admin:
        quota: dict[str, Any] = await said(admin.put("/api/v1/admin/quotas", json=body))
        return quota


async def check_quota(scene: Scene, quota: dict[str, Any], needed: int, *customers: Customer) -> None:
    """So many calls as the quota has room for are admitted, whoever makes them; all others are told of it."""
    replies = await scene.all_at_once(OPENAI, *customers)
    refused = [reply for reply in replies if reply.status >= 300]
    assert Counter(reply.status for reply in refused) == {429: scene.callers - PAID_FOR}
    assert len(scene.upstream.requests) == PAID_FOR
    why = {name: quota[name] for name in ("scope", "unit", "window", "limit", "used")}
    for reply in refused:
        assert reply.details | why | {"held": PAID_FOR * needed, "needed": needed} == reply.details
        assert (reply.details["resets_at"] is None) == (quota["window"] == "none")
    async with asking(scene.replicas.addresses[-1], ADMIN_KEY) as admin:
        after = await said(admin.get(f"/api/v1/admin/quotas/{quota['id']}"))
    one = 1 if quota["unit"] == "requests" else USAGE_TOKENS
    assert (after["used"], after["held"]) == (PAID_FOR * one, 0)
    charged = [entry for customer in customers for entry in (await scene.book(customer)).charges]
    assert {entry["request_id"] for entry in charged} == {reply.request_id for reply in replies if reply.status < 300}
    assert not await asyncio.to_thread(scene.replicas.verify)


async def check_tenant(scene: Scene) -> None:
    """Two users of one tenant race for what is left of its month."""
    needed = await scene.needed(OPENAI, "tokens")
    customers = [await scene.admit(name, {"tokens": PLENTY}) for name in ("alice", "bob")]
    async with asking(scene.replicas.addresses[0], ADMIN_KEY) as admin:
        tenant = (await said(admin.get("/api/v1/me")))["tenant"]["id"]
    quota = await put_quota(scene, "tenant", tenant, "tokens", "month", PAID_FOR * needed)
    await check_quota(scene, quota, needed, *customers)


async def check_key(scene: Scene) -> None:
    """All callers share one key that may make so many requests, of a user and a tenant that may make many more."""
    alice = await scene.admit("alice", {"tokens": PLENTY, "requests": PLENTY})
    quota = await put_quota(scene, "api_key", alice.key_id, "requests", "none", PAID_FOR)
    await check_quota(scene, quota, 1, alice)


SCOPES = pytest.mark.parametrize("check", [check_tenant, check_key], ids=["tenant", "key"])


@SCOPES
async def test_two_gateways_admit_exactly_what_a_shared_quota_has_room_for(
    on_postgres: Scene, check: Callable[[Scene], Awaitable[None]]
) -> None:
    await check(on_postgres)


@SCOPES
async def test_a_gateway_on_sqlite_admits_exactly_what_a_shared_quota_has_room_for(
    on_sqlite: Scene, check: Callable[[Scene], Awaitable[None]]
) -> None:
    await check(on_sqlite)
