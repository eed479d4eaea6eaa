"""Questions that mean the same, asked of models that wish it: the real model of meaning decides."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio

from src.integrations.semantic.minilm import is_installed
from tests.http.surface import ANTHROPIC, GEMINI, NATIVE, books_are_right
from tests.http.ways import EVERY_WAY, Way, text_of
from tests.support.gateway import Person, RunningGateway
from tests.support.upstream import Answer, Upstream, Usage

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not is_installed(), reason="the extra `semantic` is not installed"),
]

CREDIT = 1_000_000
QUESTION, PARAPHRASE = "How do I reset my password?", "How can I reset my password?"
UNRELATED = "What is the capital of France?"
SIMILARITY = 0.95
ON = {"x-gateway-cache": "on"}
WAYS = [way for way in EVERY_WAY if not way.is_stateful]
COMPATIBLE = [way for way in WAYS if way.dialect != NATIVE]


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    shared_upstream.always(Answer(text="Click on it.", usage=Usage(input=7, output=5)))
    return shared_upstream


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared_gateway: RunningGateway, upstream: Upstream) -> AsyncIterator[RunningGateway]:
    yield shared_gateway
    await books_are_right(shared_gateway)


@pytest_asyncio.fixture(loop_scope="module")
async def alice(gateway: RunningGateway) -> Person:
    return await person_of(gateway)


async def person_of(gateway: RunningGateway, **fields: Any) -> Person:
    person = await gateway.new_user(f"user-{uuid4()}", **fields)
    given = await gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": CREDIT})
    assert given.status_code == 200, given.text
    return person


async def to_model(gateway: RunningGateway, way: Way, **policy: Any) -> Way:
    """The way to a model of its own, with that cache policy."""
    name = f"model-{uuid4().hex[:12]}"
    provider = "openai" if way.model == "gpt-4o" else "anthropic"
    body = {"name": name, "provider": provider, "upstream": way.model, "context_window": 9000, "max_output": 1000}
    cache = {"ttl_s": 60, "similarity": SIMILARITY, **policy}
    made = await gateway.http.post("/api/v1/admin/models", json={**body, "cache": cache})
    assert made.status_code < 300, made.text
    return replace(way, model=name)


async def ask(
    person: Person, way: Way, text: str, headers: dict[str, str] | None = None, **more: Any
) -> httpx2.Response:
    """In a dialog of its own, where it is one."""
    path = (await way.prepare(person)).path
    return await person.http.post(path, json={**way.body(text), **more}, headers=headers)


async def use(person: Person, way: Way, text: str, headers: dict[str, str] | None = None, **more: Any) -> str | None:
    """What the cache had for it."""
    answer = await ask(person, way, text, headers, **more)
    assert text_of(answer, way) == "Click on it."
    return answer.headers.get("x-gateway-cache")


@pytest.mark.parametrize("way", WAYS, ids=str)
class TestEveryWay:
    async def test_a_paraphrase_gets_the_same_answer_for_nothing(
        self, way: Way, gateway: RunningGateway, alice: Person, upstream: Upstream
    ) -> None:
        way = await to_model(gateway, way)
        uses = [await use(alice, way, text) for text in (QUESTION, PARAPHRASE, UNRELATED, QUESTION, PARAPHRASE)]
        assert uses == ["miss", "semantic", "miss", "hit", "semantic"]
        assert len(upstream.requests) == 2
        spent = CREDIT - (await alice.http.get("/api/v1/users/me/tokens")).json()["balance"]
        assert spent == 2 * 12

    async def test_another_tenant_gets_nothing_of_it(self, way: Way, gateway: RunningGateway, alice: Person) -> None:
        way = await to_model(gateway, way)
        tenant = await gateway.http.post("/api/v1/admin/tenants", json={"slug": f"t-{uuid4().hex[:12]}", "name": "x"})
        stranger = await person_of(gateway, tenant_id=tenant.json()["id"])
        assert [await use(alice, way, QUESTION), await use(stranger, way, PARAPHRASE)] == ["miss", "miss"]

    async def test_nor_another_user_where_the_model_keeps_them_apart(
        self, way: Way, gateway: RunningGateway, alice: Person
    ) -> None:
        bob = await person_of(gateway)
        apart, shared = await to_model(gateway, way, per_user=True), await to_model(gateway, way)
        assert [await use(alice, apart, QUESTION), await use(bob, apart, PARAPHRASE)] == ["miss", "miss"]
        assert [await use(alice, shared, QUESTION), await use(bob, shared, PARAPHRASE)] == ["miss", "semantic"]

    async def test_a_request_may_do_without_it(self, way: Way, gateway: RunningGateway, alice: Person) -> None:
        way = await to_model(gateway, way)
        assert await use(alice, way, QUESTION) == "miss"
        assert await use(alice, way, PARAPHRASE, {"x-gateway-cache": "off"}) is None
        assert await use(alice, way, PARAPHRASE, {"cache-control": "no-store"}) is None
        assert await use(alice, way, PARAPHRASE, {"x-gateway-cache": "refresh"}) == "miss"
        assert await use(alice, way, PARAPHRASE) == "hit"

    async def test_equal_questions_only_are_the_rule(self, way: Way, gateway: RunningGateway, alice: Person) -> None:
        way = await to_model(gateway, way, similarity=None)
        assert [await use(alice, way, text) for text in (QUESTION, PARAPHRASE, QUESTION)] == ["miss", "miss", "hit"]

    async def test_the_threshold_is_the_models(self, way: Way, gateway: RunningGateway, alice: Person) -> None:
        strict = await to_model(gateway, way, similarity=1.0)
        assert [await use(alice, strict, text, ON) for text in (QUESTION, PARAPHRASE)] == ["miss", "miss"]
        loose = await to_model(gateway, way, similarity=0.5)
        forgotten = "I have forgotten my password. How can I change it?"
        assert [await use(alice, loose, text, ON) for text in (QUESTION, forgotten)] == ["miss", "semantic"]

    async def test_a_negation_is_another_question(self, way: Way, gateway: RunningGateway, alice: Person) -> None:
        way = await to_model(gateway, way, similarity=0.5)
        texts = ("Is it safe to take aspirin with wine?", "Is it not safe to take aspirin with wine?")
        assert [await use(alice, way, text) for text in texts] == ["miss", "miss"]

    async def test_a_text_too_long_for_the_model_is_not_compared(
        self, way: Way, gateway: RunningGateway, alice: Person
    ) -> None:
        way = await to_model(gateway, way)
        texts = ["word " * 300 + end for end in ("one", "two", "one")]
        assert [await use(alice, way, text) for text in texts] == ["miss", "miss", "hit"]


@pytest.mark.parametrize("way", COMPATIBLE, ids=str)
async def test_what_else_is_asked_must_be_the_same(way: Way, gateway: RunningGateway, alice: Person) -> None:
    way = await to_model(gateway, way)
    told = {"role": "user", "content": PARAPHRASE}
    before = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"}]
    if way.dialect == ANTHROPIC:
        system: dict[str, Any] = {"system": "Be brief."}
    else:
        system = {"messages": [{"role": "system", "content": "Be brief."}, told]}
    others = [system, {"messages": [*before, told]}, {"temperature": 0.5}, {"max_tokens": 50}]
    if way.dialect == GEMINI:
        turns = [{"role": role, "parts": [{"text": text}]} for role, text in (("user", "Hello."), ("model", "Hello!"))]
        asked = {"role": "user", "parts": [{"text": PARAPHRASE}]}
        config = [
            {"generationConfig": {name: value}} for name, value in (("temperature", 0.5), ("maxOutputTokens", 50))
        ]
        others = [{"systemInstruction": {"parts": [{"text": "Be brief."}]}}, {"contents": [*turns, asked]}, *config]
    assert await use(alice, way, QUESTION) == "miss"
    assert [await use(alice, way, PARAPHRASE, **other) for other in others] == ["miss"] * 4
    assert await use(alice, way, PARAPHRASE) == "semantic"


async def test_a_dialogs_earlier_turns_must_be_the_same(gateway: RunningGateway, alice: Person) -> None:
    way = await to_model(gateway, EVERY_WAY[0])

    async def second_turn(first: str, second: str, **dialog: str) -> str:
        made = await alice.http.post("/api/v1/dialogs", json=dialog)
        path = f"/api/v1/dialogs/{made.json()['id']}/messages"
        answers = [await alice.http.post(path, json=way.body(text)) for text in (first, second)]
        return str(answers[1].headers["x-gateway-cache"])

    assert await second_turn("Hello.", QUESTION) == "miss"
    assert await second_turn("Hello.", PARAPHRASE) == "semantic"
    assert await second_turn("Good evening.", PARAPHRASE) == "miss"
    assert await second_turn("Hello.", PARAPHRASE, system_prompt="Be brief.") == "miss"


async def test_what_it_finds_is_stored_as_cached_and_counted(gateway: RunningGateway, alice: Person) -> None:
    way = await to_model(gateway, EVERY_WAY[0])
    answers = [(await ask(alice, way, text)).json()["message"] for text in (QUESTION, PARAPHRASE)]
    assert [each["cached"] for each in answers] == [False, True]
    assert (answers[1]["cost_micro_usd"], answers[1]["usage"]["total_tokens"]) == (0, 0)
    metrics = (await gateway.http.get("/metrics")).text
    assert 'gateway_cache_total{result="semantic"}' in metrics


async def test_administrators_see_what_they_may_set(gateway: RunningGateway) -> None:
    way = await to_model(gateway, EVERY_WAY[0])
    models = (await gateway.http.get("/api/v1/admin/models")).json()["data"]
    shown = next(each["cache"] for each in models if each["name"] == way.model)
    assert shown == {"ttl_s": 60.0, "per_user": False, "similarity": SIMILARITY}


@pytest.mark.parametrize("similarity", [0.49, 1.01, -1, "NaN", "much"])
async def test_a_similarity_that_is_none_is_refused(similarity: Any, gateway: RunningGateway) -> None:
    model = {"name": "x", "provider": "openai", "context_window": 9000, "max_output": 1000}
    body = {**model, "cache": {"ttl_s": 60, "similarity": similarity}}
    refused = await gateway.http.post("/api/v1/admin/models", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "cache.similarity")
