"""The surface at the root: /chat with its cache, /history, /health, /."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio

from tests.http.surface import books_are_right, check_error
from tests.support.gateway import Person, RunningGateway, gateway_environment, running_gateway, sqlite_url
from tests.support.redis_server import RedisServer
from tests.support.upstream import Answer, Fail, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREDIT = 1_000_000


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    shared_upstream.always(Answer(text="Four.", usage=Usage(input=20, output=5)))
    return shared_upstream


async def paying(gateway: RunningGateway, **fields: Any) -> Person:
    person = await gateway.new_user(f"user-{uuid4()}", **fields)
    await gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": CREDIT})
    return person


@pytest_asyncio.fixture(loop_scope="module")
async def alice(any_shared_gateway: RunningGateway, upstream: Upstream) -> AsyncIterator[Person]:
    person = await paying(any_shared_gateway)
    yield person
    await books_are_right(any_shared_gateway)


async def chat(http: httpx2.AsyncClient, content: str, **fields: Any) -> httpx2.Response:
    response = await http.post("/chat", json={"content": content, "model": "gpt-4o", **fields})
    assert response.status_code == 200, response.text
    assert response.headers["x-gateway-cache"] == ("hit" if response.json()["cached"] else "miss")
    return response


async def balance(person: Person) -> int:
    standing = (await person.http.get("/api/v1/users/me/tokens")).json()
    assert standing["held"] == 0
    found: int = standing["balance"]
    return found


def unique() -> str:
    """A question nobody has asked."""
    return f"What about {uuid4()}?"


async def test_a_question_is_answered_once_and_then_from_the_cache(alice: Person, upstream: Upstream) -> None:
    question = unique()
    first = await chat(alice.http, question)
    assert first.json().keys() == {"id", "content", "timestamp", "cached", "model"}
    assert (first.json()["content"], first.json()["cached"], first.json()["model"]) == ("Four.", False, "gpt-4o")
    assert first.headers["x-gateway-model"] == "gpt-4o"
    assert first.headers["x-gateway-cost-micro-usd"] == "100"
    second = await chat(alice.http, question)
    assert (second.json()["content"], second.json()["cached"], second.json()["model"]) == ("Four.", True, "gpt-4o")
    assert second.json()["id"] != first.json()["id"]
    assert second.headers["x-gateway-cost-micro-usd"] == "0"
    assert len(upstream.requests) == 1
    assert await balance(alice) == CREDIT - 25


async def test_the_history_has_hits_and_misses_newest_first(alice: Person) -> None:
    question = unique()
    ids = [(await chat(alice.http, question)).json()["id"] for _ in range(3)]
    me = (await alice.http.get("/api/v1/me")).json()["user"]["external_id"]
    rows = (await alice.http.get(f"/history/{me}")).json()
    assert [row["id"] for row in rows] == ids[::-1]
    newest, oldest = rows[0], rows[-1]
    assert newest.keys() >= {"id", "user_id", "content", "response", "model", "usage", "timestamp"}
    assert (newest["user_id"], newest["content"], newest["response"], newest["model"]) == (
        me,
        question,
        "Four.",
        "gpt-4o",
    )
    assert (newest["usage"]["total_tokens"], oldest["usage"]["total_tokens"]) == (0, 25)
    assert (newest["cached"], oldest["cached"]) == (True, False)
    assert [row["id"] for row in (await alice.http.get(f"/history/{me}?limit=1")).json()] == ids[2:]
    assert (await alice.http.get(f"/history/{alice.id}")).json() == rows
    dialogs = (await alice.http.get("/api/v1/dialogs")).json()["data"]
    assert dialogs == []


async def test_cache_keys_differ_by_tenant_model_and_content(
    alice: Person, any_shared_gateway: RunningGateway, upstream: Upstream
) -> None:
    slug = f"t-{uuid4().hex[:12]}"
    tenant = (await any_shared_gateway.http.post("/api/v1/admin/tenants", json={"slug": slug, "name": "x"})).json()
    foreigner = await paying(any_shared_gateway, tenant_id=tenant["id"])
    colleague = await paying(any_shared_gateway)
    question = unique()
    asked = [
        await chat(alice.http, question),
        await chat(foreigner.http, question),
        await chat(alice.http, question, model="claude-3-opus"),
        await chat(alice.http, question + " "),
        await chat(alice.http, question.lower()),
        await chat(colleague.http, question),
        await chat(foreigner.http, question),
    ]
    assert [each.json()["cached"] for each in asked] == [False, False, False, False, False, True, True]
    assert len(upstream.requests) == 5
    assert await balance(colleague) == CREDIT
    assert await balance(foreigner) == CREDIT - 25


async def test_a_changed_model_is_not_answered_from_the_old_ones_cache(
    any_shared_gateway: RunningGateway, alice: Person
) -> None:
    name, question = f"alias-{uuid4().hex[:8]}", unique()
    body = {"name": name, "provider": "openai", "upstream": "gpt-4o", "context_window": 1000, "max_output": 100}
    await any_shared_gateway.http.post("/api/v1/admin/models", json=body)
    assert not (await chat(alice.http, question, model=name)).json()["cached"]
    assert (await chat(alice.http, question, model=name)).json()["cached"]
    await any_shared_gateway.http.post("/api/v1/admin/models", json={**body, "upstream": "gpt-4o-mini"})
    assert not (await chat(alice.http, question, model=name)).json()["cached"]


async def test_a_scoped_key_gets_nothing_from_the_cache_of_a_model_it_may_not_use(alice: Person) -> None:
    question = unique()
    await chat(alice.http, question)
    key = (await alice.http.post("/api/v1/api-keys", json={"name": "x", "models": ["claude-3-opus"]})).json()
    async with httpx2.AsyncClient(base_url=alice.http.base_url, headers={"x-api-key": key["secret"]}) as scoped:
        check_error(await scoped.post("/chat", json={"content": question, "model": "gpt-4o"}), 403)


async def test_failures_are_not_cached(alice: Person, upstream: Upstream) -> None:
    question = unique()
    upstream.script(Fail(status=500))
    check_error(await alice.http.post("/chat", json={"content": question, "model": "gpt-4o"}), 502)
    assert not (await chat(alice.http, question)).json()["cached"]
    assert await balance(alice) == CREDIT - 25


async def test_identical_questions_at_once_call_the_provider_once(alice: Person, upstream: Upstream) -> None:
    gate, question = asyncio.Event(), unique()
    upstream.always(Answer(text="Four.", usage=Usage(input=20, output=5), gate=gate))
    asking = [asyncio.create_task(chat(alice.http, question)) for _ in range(8)]
    await upstream.wait_in_flight(1)
    gate.set()
    answers = await asyncio.gather(*asking)
    assert sorted(each.json()["cached"] for each in answers) == [False] + [True] * 7
    assert len(upstream.requests) == 1
    assert await balance(alice) == CREDIT - 25


async def test_administrators_ask_for_others_who_pay(any_shared_gateway: RunningGateway, alice: Person) -> None:
    me = (await alice.http.get("/api/v1/me")).json()["user"]["external_id"]
    await chat(any_shared_gateway.http, unique(), user_id=me)
    assert await balance(alice) == CREDIT - 25
    assert len((await alice.http.get(f"/history/{me}")).json()) == 1
    newcomer = f"newcomer-{uuid4()}"
    await chat(any_shared_gateway.http, unique(), user_id=newcomer)
    rows = (await any_shared_gateway.http.get(f"/history/{newcomer}")).json()
    assert [row["user_id"] for row in rows] == [newcomer]


async def test_health_tells_strangers_little_and_users_more(any_shared_gateway: RunningGateway, alice: Person) -> None:
    stranger = any_shared_gateway.client(None)
    health = (await stranger.get("/health")).json()
    assert health["status"] == "healthy"
    assert health["services"] == {"storage": True, "cache": "memory", "llm": True}
    assert (await stranger.get("/health/live")).json() == {"status": "alive"}
    assert (await stranger.get("/health/ready")).json() == {"status": "ready"}
    check_error(await stranger.get("/health/detailed"), 401)
    detailed = (await alice.http.get("/health/detailed")).json()
    assert detailed["providers"]["openai"] == "ready"
    assert detailed["answers_in_progress"] == 0
    for path in ("/chat", "/history/x"):
        assert (
            await stranger.request("POST" if path == "/chat" else "GET", path, json={"content": "x"})
        ).status_code == 401


async def test_replicas_share_answers_through_redis(
    tmp_path: Path, upstream: Upstream, redis_server: RedisServer
) -> None:
    """Two gateways on one database; nothing of this test was asked before."""
    given = {"REDIS_URL": redis_server.url, "GATEWAY_REDIS_TIMEOUT_S": 10}  # the machine may be busy
    environment = gateway_environment(sqlite_url(tmp_path), upstream, **given)
    question = unique()
    async with running_gateway(environment) as one, running_gateway(environment) as other:
        assert (await one.http.get("/health")).json()["services"]["cache"] == "redis"
        assert not (await chat(one.http, question)).json()["cached"]
        assert (await chat(other.http, question)).json()["cached"]
    assert len(upstream.requests) == 1


async def test_the_gateway_serves_on_when_redis_dies(
    tmp_path: Path, upstream: Upstream, disposable_redis: RedisServer
) -> None:
    environment = gateway_environment(sqlite_url(tmp_path), upstream, REDIS_URL=disposable_redis.url)
    async with running_gateway(environment) as running:
        before, after = unique(), unique()
        assert not (await chat(running.http, before)).json()["cached"]
        disposable_redis.kill()
        async with asyncio.timeout(10):
            await chat(running.http, before)
            assert not (await chat(running.http, after)).json()["cached"]
            assert (await chat(running.http, after)).json()["cached"]
            health = await running.http.get("/health")
            assert (health.status_code, health.json()["services"]["cache"]) == (200, "memory")
        await books_are_right(running)


async def test_the_gateway_starts_while_redis_is_away(
    tmp_path: Path, upstream: Upstream, disposable_redis: RedisServer
) -> None:
    disposable_redis.kill()
    environment = gateway_environment(sqlite_url(tmp_path), upstream, REDIS_URL=disposable_redis.url)
    async with running_gateway(environment) as running:
        question = unique()
        assert not (await chat(running.http, question)).json()["cached"]
        assert (await chat(running.http, question)).json()["cached"]
