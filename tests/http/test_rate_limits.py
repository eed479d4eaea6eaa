"""Rate limits over HTTP: put, changed, removed; met in every dialect, whole and streamed, told of in its headers."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio

from tests.http.surface import ANTHROPIC, books_are_right, check_answer, check_error
from tests.http.ways import EVERY_WAY, STREAMS, Sender, Way, code_of, details_of, text_of
from tests.support.gateway import Person, RunningGateway
from tests.support.upstream import Answer, Fail, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

RATE_LIMITS = "/api/v1/admin/rate-limits"
NAMES = ("requests_per_minute", "tokens_per_minute", "parallel")
SHAPE = {"id", "tenant_id", "scope", "scope_id", *NAMES, "updated_at"}
SCOPES = ("tenant", "user", "api_key", "model")
ANSWER = Answer(chunks=("Good ", "day", "."), usage=Usage(input=11, output=3))


@dataclass(frozen=True, kw_only=True)
class Town:
    """A gateway, its upstream, and tenants with people as they are needed."""

    gateway: RunningGateway
    upstream: Upstream

    @property
    def root(self) -> httpx2.AsyncClient:
        return self.gateway.http

    async def tenant(self) -> str:
        """A new tenant."""
        made = await self.root.post("/api/v1/admin/tenants", json={"slug": f"t-{uuid4().hex}", "name": "T"})
        found: str = made.json()["id"]
        return found

    async def somebody(self, tenant: str | None = None, role: str = "user") -> Person:
        """A new user, of a new tenant where none is named."""
        return await self.gateway.new_user(f"user-{uuid4()}", tenant_id=tenant or await self.tenant(), role=role)

    async def scope_id(self, scope: str, person: Person, model: str) -> str:
        """What a limit of the scope must name to be met by the person's calls of the model."""
        me = (await person.http.get("/api/v1/me")).json()
        ids = {"tenant": me["tenant"]["id"], "user": person.id, "api_key": me["api_key"]["id"], "model": model}
        return str(ids[scope])

    async def chain(self, way: Way) -> Way:
        """The same way, by a name of the model that nobody else calls."""
        name = f"c-{uuid4().hex}"
        made = await self.root.post("/api/v1/admin/chains", json={"name": name, "models": [way.model]})
        assert made.status_code == 201, made.text
        return replace(way, model=name)

    async def limit(self, scope: str, scope_id: str, **limits: int) -> dict[str, Any]:
        """Put a limit as the platform's administrator."""
        return await put(self.root, scope=scope, scope_id=scope_id, **limits)


async def put(http: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await http.put(RATE_LIMITS, json=body)
    check_answer(response)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    assert found.keys() == SHAPE
    return found


async def remove(http: httpx2.AsyncClient, limit: dict[str, Any]) -> None:
    assert (await http.delete(f"{RATE_LIMITS}/{limit['id']}")).status_code == 204


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def town(shared_gateway: RunningGateway, shared_upstream: Upstream) -> AsyncIterator[Town]:
    yield Town(gateway=shared_gateway, upstream=shared_upstream)
    await books_are_right(shared_gateway)


@pytest.fixture(autouse=True)
def good_day(town: Town) -> None:
    town.upstream.reset()
    town.upstream.always(ANSWER)


def left(response: httpx2.Response, way: Way) -> dict[str, str]:
    """The headers about rate limits, by what they say."""
    if way.dialect == ANTHROPIC:
        named = {name: "anthropic-ratelimit-{kind}-" + name for name in ("limit", "remaining", "reset")}
    else:
        named = {name: f"x-ratelimit-{name}-" + "{kind}" for name in ("limit", "remaining", "reset")}
    found = {
        f"{kind} {name}": response.headers.get(header.format(kind=kind))
        for kind in ("requests", "tokens")
        for name, header in named.items()
    }
    others = [name for name in response.headers if "ratelimit" in name]
    told = {name: text for name, text in found.items() if text is not None}
    assert len(others) == len(told), others
    return told


def check_refusal(response: httpx2.Response, way: Way, **details: Any) -> float:
    """A 429 in the dialect that says of which limit, and invites to come back; returns after how many seconds."""
    error = check_error(response, 429, way.dialect)
    told = details_of(error, way)
    assert {name: told[name] for name in details} == {name: str(value) for name, value in details.items()}
    wait_s = float(told["retry_after_s"])
    assert response.headers["retry-after-ms"] == str(round(wait_s * 1000))
    assert int(response.headers["retry-after"]) - 1 < wait_s <= int(response.headers["retry-after"])
    assert "x-should-retry" not in response.headers
    assert code_of(error, way) == "rate_limit_exceeded"
    return wait_s


class TestEveryWay:
    @pytest.mark.parametrize("way", EVERY_WAY, ids=str)
    async def test_a_call_without_limits_is_told_of_none(self, town: Town, way: Way) -> None:
        person = await town.somebody()
        assert left(await ask(await way.prepare(person)), way) == {}

    @pytest.mark.parametrize("way", EVERY_WAY, ids=str)
    @pytest.mark.parametrize("scope", SCOPES)
    async def test_requests_are_limited_and_counted_down(self, town: Town, way: Way, scope: str) -> None:
        person, way = await town.somebody(), await town.chain(way)
        limit = await town.limit(scope, await town.scope_id(scope, person, way.model), requests_per_minute=2)
        sender = await way.prepare(person)
        for remaining in ("1", "0"):
            told = left(await ask(sender), way)
            reset = told.pop("requests reset")
            assert told == {"requests limit": "2", "requests remaining": remaining}
            assert resets_within_a_minute(reset, way)
        called = len(town.upstream.requests)
        refused = await sender({})
        wait_s = check_refusal(refused, way, scope=scope, limit_name="requests_per_minute", limit=2, used=2)
        assert 50 < wait_s <= 61
        assert left(refused, way)["requests remaining"] == "0"
        assert len(town.upstream.requests) == called
        await remove(town.root, limit)
        assert left(await ask(sender), way) == {}

    @pytest.mark.parametrize("way", EVERY_WAY, ids=str)
    async def test_tokens_are_held_before_and_corrected_after(self, town: Town, way: Way) -> None:
        person = await town.somebody()
        await town.limit("user", person.id, tokens_per_minute=10**6)
        sender = await way.prepare(person)
        told = left(await ask(sender), way)
        assert told["tokens limit"] == "1000000"
        assert int(told["tokens remaining"]) <= 10**6 - 100, "the most that it may use is held"
        await town.limit("user", person.id, tokens_per_minute=14)
        refused = await sender({})
        check_refusal(refused, way, scope="user", limit_name="tokens_per_minute", limit=14, used=14)
        assert left(refused, way)["tokens remaining"] == "0"

    @pytest.mark.parametrize("way", EVERY_WAY, ids=str)
    async def test_calls_under_way_are_limited(self, town: Town, way: Way) -> None:
        person, gate = await town.somebody(), asyncio.Event()
        await town.limit("user", person.id, parallel=1)
        first, second = await way.prepare(person), await way.prepare(person)
        town.upstream.script(replace(ANSWER, gate=gate))
        under_way = asyncio.create_task(ask(first, "Take your time."))
        await town.upstream.wait_in_flight(1)
        refused = await second({})
        assert check_refusal(refused, way, scope="user", limit_name="parallel", limit=1, used=1) == 1.0
        assert left(refused, way) == {}
        gate.set()
        await under_way
        for _ in range(3):  # one after the other is never too many
            await ask(second)

    @pytest.mark.parametrize("way", EVERY_WAY, ids=str)
    async def test_a_call_that_failed_gives_everything_back_but_the_request(self, town: Town, way: Way) -> None:
        person = await town.somebody()
        await town.limit("user", person.id, requests_per_minute=9, tokens_per_minute=10**6, parallel=1)
        sender = await way.prepare(person)
        town.upstream.script(Fail(status=400), Fail(status=400))
        for _ in range(2):
            failed = await sender({})
            assert failed.status_code >= 400 or "message.failed" in failed.text
        await town.limit("user", person.id, requests_per_minute=9, tokens_per_minute=1, parallel=1)
        told = left(await ask(sender), way)
        assert (told["tokens remaining"], told["requests remaining"]) == ("0", "6")

    @pytest.mark.parametrize("way", EVERY_WAY, ids=str)
    async def test_a_call_that_the_quota_refuses_holds_nothing(self, town: Town, way: Way) -> None:
        person = await town.somebody()
        await town.limit("user", person.id, requests_per_minute=9, tokens_per_minute=10**6, parallel=1)
        quota = {"scope": "user", "scope_id": person.id, "unit": "tokens", "window": "day", "limit": 0}
        await town.root.put("/api/v1/admin/quotas", json=quota)
        sender = await way.prepare(person)
        for _ in range(3):
            refused = await sender({})
            assert refused.status_code == way.exhausted
            assert refused.headers["x-should-retry"] == "false"
        await town.root.put("/api/v1/admin/quotas", json={**quota, "limit": 10**9})
        await town.limit("user", person.id, requests_per_minute=9, tokens_per_minute=1, parallel=1)
        assert left(await ask(sender), way)["requests remaining"] == "5"

    @pytest.mark.parametrize("way", EVERY_WAY, ids=str)
    async def test_what_is_repeated_under_its_key_does_not_count(self, town: Town, way: Way) -> None:
        person = await town.somebody()
        await town.limit("user", person.id, requests_per_minute=2)
        sender = await way.prepare(person)
        key = {"idempotency-key": uuid4().hex}
        assert left(await sender(key), way)["requests remaining"] == "1"
        for _ in range(3):
            repeated = await sender(key)
            assert (repeated.status_code, repeated.headers["idempotent-replayed"]) == (way.status, "true")
            assert left(repeated, way) == {}
        assert left(await ask(sender), way)["requests remaining"] == "0"
        assert (await sender(key)).status_code == way.status
        check_refusal(await sender({}), way, limit_name="requests_per_minute")

    @pytest.mark.parametrize("way", EVERY_WAY, ids=str)
    async def test_of_the_same_key_at_once_one_counts(self, town: Town, way: Way) -> None:
        person = await town.somebody()
        await town.limit("user", person.id, requests_per_minute=50, parallel=50)
        sender, key = await way.prepare(person), {"idempotency-key": uuid4().hex}
        found = await asyncio.gather(*(sender(key) for _ in range(12)))
        assert {each.status_code for each in found} <= {way.status, 409}
        assert left(await ask(sender), way)["requests remaining"] == "48"

    @pytest.mark.parametrize("way", EVERY_WAY, ids=str)
    async def test_of_many_at_once_exactly_as_many_as_may_pass(self, town: Town, way: Way) -> None:
        person = await town.somebody()
        await town.limit("user", person.id, requests_per_minute=5)
        senders = [await way.prepare(person) for _ in range(16)]
        found = await asyncio.gather(*(sender({}, f"Question {uuid4()}") for sender in senders))
        assert sorted(each.status_code for each in found) == [way.status] * 5 + [429] * 11

    @pytest.mark.parametrize("way", STREAMS, ids=str)
    async def test_who_hangs_up_is_no_longer_under_way(self, town: Town, way: Way) -> None:
        person = await town.somebody()
        await town.limit("user", person.id, parallel=1, tokens_per_minute=10**6)
        sender = await way.prepare(person)
        town.upstream.script(replace(ANSWER, chunk_delay_s=0.05))
        await way.hang_up_after(person, sender.path, {}, b"Good")
        async with asyncio.timeout(10):
            while (response := await sender({})).status_code == 429:
                await asyncio.sleep(0.02)
        assert text_of(response, way) == "Good day."


async def test_a_limit_of_another_is_not_met(town: Town) -> None:
    tenant = await town.tenant()
    limited, colleague, stranger = await town.somebody(tenant), await town.somebody(tenant), await town.somebody()
    way = EVERY_WAY[0]
    await town.limit("user", limited.id, requests_per_minute=1)
    await town.limit("tenant", tenant, requests_per_minute=3)
    senders = [await way.prepare(person) for person in (limited, colleague, stranger)]
    assert [(await sender({})).status_code for sender in senders] == [201, 201, 201]
    check_refusal(await senders[0]({}), way, scope="user")
    assert (await senders[1]({})).status_code == 201
    check_refusal(await senders[1]({}), way, scope="tenant")
    assert (await senders[2]({})).status_code == 201


async def test_the_tightest_limit_is_told(town: Town) -> None:
    person, way = await town.somebody(), EVERY_WAY[2]
    for scope, limit in (("tenant", 50), ("user", 3), ("api_key", 7)):
        await town.limit(scope, await town.scope_id(scope, person, way.model), requests_per_minute=limit)
    told = left(await ask(await way.prepare(person)), way)
    assert (told["requests limit"], told["requests remaining"]) == ("3", "2")


async def test_limits_are_put_listed_and_removed(town: Town) -> None:
    tenant = await town.tenant()
    admin, alice = await town.somebody(tenant, "tenant_admin"), await town.somebody(tenant)
    stranger = await town.somebody(role="tenant_admin")
    of_tenant = await town.limit("tenant", tenant, parallel=3)
    of_alice = await put(admin.http, scope="user", scope_id=alice.id, requests_per_minute=5, tokens_per_minute=None)
    of_model = await town.limit("model", (await town.chain(EVERY_WAY[0])).model, parallel=9)
    assert (of_alice["tenant_id"], of_alice["requests_per_minute"], of_alice["parallel"]) == (tenant, 5, None)
    assert of_model["tenant_id"] is None
    assert (await listed(admin.http))["data"] == [of_tenant, of_alice]
    assert (await listed(town.root, f"?tenant_id={tenant}&limit=1"))["data"] == [of_tenant]
    assert (await listed(town.root, f"?tenant_id={tenant}&scope=user"))["data"] == [of_alice]
    assert of_model in (await listed(town.root, "?scope=model&limit=100"))["data"]
    assert (await listed(stranger.http))["data"] == []
    check_error(await alice.http.get(RATE_LIMITS), 403)
    check_error(await stranger.http.get(f"{RATE_LIMITS}?tenant_id={tenant}"), 404)
    check_error(await admin.http.delete(f"{RATE_LIMITS}/{of_tenant['id']}"), 403)
    check_error(await stranger.http.delete(f"{RATE_LIMITS}/{of_alice['id']}"), 404)
    check_error(await admin.http.delete(f"{RATE_LIMITS}/{of_model['id']}"), 404)
    await remove(admin.http, of_alice)
    check_error(await admin.http.delete(f"{RATE_LIMITS}/{of_alice['id']}"), 404)
    log = (await admin.http.get("/api/v1/admin/audit?limit=100")).json()["data"]
    assert [row["action"] for row in log if row["object_id"] == of_alice["id"]] == [
        "rate_limit.removed",
        "rate_limit.put",
    ]


async def listed(http: httpx2.AsyncClient, query: str = "") -> dict[str, Any]:
    response = await http.get(RATE_LIMITS + query)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


@pytest.mark.parametrize("scope", SCOPES)
async def test_what_is_not_there_gets_no_limit(town: Town, scope: str) -> None:
    for scope_id in (str(uuid4()), "nobody"):
        check_error(await town.root.put(RATE_LIMITS, json={"scope": scope, "scope_id": scope_id, "parallel": 1}), 404)


async def test_a_limit_that_limits_nothing_is_refused(town: Town) -> None:
    body = {"scope": "tenant", "scope_id": await town.tenant()}
    for limits in ({}, dict.fromkeys(NAMES)):
        check_error(await town.root.put(RATE_LIMITS, json={**body, **limits}), 422)


async def test_a_users_rate_limits_stand_beside_their_quotas(town: Town) -> None:
    tenant = await town.tenant()
    admin, user = await town.somebody(tenant, "tenant_admin"), await town.somebody(tenant)
    path = f"/api/v1/admin/users/{user.id}/limits"
    nothing = (await admin.http.get(path)).json()
    assert {name: nothing[name] for name in NAMES} == dict.fromkeys(NAMES)
    body = {"requests_per_minute": 2, "parallel": 5, "tokens_per_day": 10**6}
    changed = await admin.http.patch(path, json=body)
    check_answer(changed)
    assert changed.json() == {**nothing, **body}
    changed = await admin.http.patch(path, json={"parallel": None, "tokens_per_minute": 10**5})
    assert changed.json() == {**nothing, "requests_per_minute": 2, "tokens_per_minute": 10**5, "tokens_per_day": 10**6}
    assert (await admin.http.get(path)).json() == changed.json()
    sender = await EVERY_WAY[0].prepare(user)
    assert left(await ask(sender), EVERY_WAY[0])["requests remaining"] == "1"
    lifted = await admin.http.patch(path, json=dict.fromkeys(NAMES))
    assert lifted.json() == {**nothing, "tokens_per_day": 10**6}
    assert left(await ask(sender), EVERY_WAY[0]) == {}
    assert (await listed(admin.http))["data"] == []


def resets_within_a_minute(reset: str, way: Way) -> bool:
    if way.dialect != ANTHROPIC:
        return reset in {"1m0s", "1m1s"}
    return timedelta(seconds=50) < datetime.fromisoformat(reset) - datetime.now(UTC) <= timedelta(seconds=62)


async def ask(sender: Sender, question: str = "Count to five.") -> httpx2.Response:
    response = await sender({}, question)
    text_of(response, sender.way)
    return response
