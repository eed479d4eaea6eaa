"""Embeddings over HTTP: refused before anything happens, charged to the token, repeated and cached like any call."""

import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import select

from src.data.engine import make_engine
from src.data.ledger_tables import usage_records
from tests.http.surface import ANTHROPIC, OPENAI, books_are_right, check_answer, check_error, nothing_changes
from tests.support.gateway import Person, RunningGateway
from tests.support.upstream import Answer, Fail, NoUsage, Upstream, Usage, embedding_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL, GOOGLE = "text-embedding-3-small", "gemini-embedding-001"
BOTH = (SMALL, GOOGLE)
SINGLE, BATCH = "embedContent", "batchEmbedContents"
TEXT = "one two three"
TOKENS = 3
"""Of the text, as its provider counts and as we do."""

every_model = pytest.mark.parametrize("model", BOTH)


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared_gateway: RunningGateway, upstream: Upstream) -> AsyncIterator[RunningGateway]:
    yield shared_gateway
    await books_are_right(shared_gateway)


async def person_of(gateway: RunningGateway, credit: int | None = None) -> Person:
    person = await gateway.new_user(f"user-{uuid4()}")
    if credit is not None:
        given = await gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": credit})
        assert given.status_code == 200, given.text
    return person


async def embedded(person: Any, model: str, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
    body = {"model": model, "input": TEXT, **fields}
    response: httpx2.Response = await person.http.post("/v1/embeddings", json=body, headers=headers)
    return response


async def gemini(person: Any, model: str, verb: str, **fields: Any) -> httpx2.Response:
    request: dict[str, Any] = {"content": {"parts": [{"text": TEXT}]}, **fields}
    body = {"requests": [{"model": f"models/{model}", **request}]} if verb == BATCH else request
    response: httpx2.Response = await person.http.post(f"/v1beta/models/{model}:{verb}", json=body)
    return response


def vector_in(response: httpx2.Response) -> list[float]:
    """The first one."""
    assert response.status_code == 200, response.text
    body = response.json()
    if "data" in body:
        return list(body["data"][0]["embedding"])
    return list((body.get("embedding") or body["embeddings"][0])["values"])


async def standing(person: Person) -> tuple[int, int]:
    found = (await person.http.get("/api/v1/users/me/tokens")).json()
    return found["balance"], found["held"]


async def row_of(gateway: RunningGateway, person: Person) -> Any:
    """The one row of usage."""
    engine = make_engine(gateway.settings.database_url)
    try:
        async with engine.connect() as connection:
            mine = usage_records.c.user_id == UUID(person.id)
            (row,) = await connection.execute(select(usage_records).where(mine))
            return row
    finally:
        await engine.dispose()


class TestAnswers:
    @every_model
    async def test_openais_client_gets_vectors_of_any_model(
        self, gateway: RunningGateway, upstream: Upstream, model: str
    ) -> None:
        response = await embedded(gateway, model)
        check_answer(response)
        assert vector_in(response) == embedding_of(TEXT)
        body = response.json()
        assert body["usage"] == {"prompt_tokens": TOKENS, "total_tokens": TOKENS}
        assert body["object"] == "list"
        assert response.headers["x-gateway-model"] == model
        assert response.headers["x-gateway-cost-micro-usd"] == "1"
        assert "x-gateway-dropped-params" not in response.headers

    @every_model
    @pytest.mark.parametrize("verb", [SINGLE, BATCH])
    async def test_googles_client_gets_vectors_of_any_model(
        self, gateway: RunningGateway, model: str, verb: str
    ) -> None:
        response = await gemini(gateway, model, verb)
        check_answer(response)
        assert vector_in(response) == embedding_of(TEXT)
        assert response.json()["usageMetadata"] == {"promptTokenCount": TOKENS}

    async def test_what_a_model_is_not_told_is_named(self, gateway: RunningGateway) -> None:
        for model, dropped in ((GOOGLE, "x_new"), (SMALL, None)):
            response = await embedded(gateway, model, user="u", x_new="q")
            assert vector_in(response) == embedding_of(TEXT)
            assert response.headers.get("x-gateway-dropped-params") == dropped
        for model, names in ((SMALL, "taskType,title"), (GOOGLE, None)):
            response = await gemini(gateway, model, SINGLE, taskType="CLUSTERING", title="t")
            assert vector_in(response) == embedding_of(TEXT)
            assert response.headers.get("x-gateway-dropped-params") == names

    @every_model
    async def test_a_batch_keeps_its_order(self, gateway: RunningGateway, model: str) -> None:
        texts = [f"text {number}" for number in range(130)]
        response = await embedded(gateway, model, input=texts)
        assert [row["embedding"] for row in response.json()["data"]] == [embedding_of(text) for text in texts]
        assert [row["index"] for row in response.json()["data"]] == list(range(130))
        assert response.json()["usage"]["total_tokens"] == 260

    async def test_a_chain_goes_on_to_its_next_model(self, gateway: RunningGateway, upstream: Upstream) -> None:
        made = await gateway.http.post(
            "/api/v1/admin/chains", json={"name": "vectors", "models": [SMALL, "gpt-4o", GOOGLE]}
        )
        assert made.status_code in (200, 201), made.text
        upstream.always(Fail(status=503), model=SMALL)
        response = await embedded(gateway, "vectors")
        assert vector_in(response) == embedding_of(TEXT)
        assert (response.headers["x-gateway-model"], response.headers["x-gateway-attempts"]) == (GOOGLE, "2")
        assert not upstream.requests_for("gpt-4o")


FAULTS: dict[str, dict[str, Any]] = {
    "no input": {"input": None},
    "none at all": {"input": []},
    "an empty text": {"input": ""},
    "3000 texts": {"input": ["x"] * 3000},
    "3000 lists": {"input": [[1]] * 3000},
    "a number": {"input": 5},
    "an object": {"input": {"text": "x"}},
    "a mixture": {"input": ["x", 1]},
    "true": {"input": [True]},
    "no tokens": {"input": [[]]},
    "half a token": {"input": [[1.5]]},
    "dimensions of nothing": {"dimensions": 0},
    "dimensions in words": {"dimensions": "many"},
    "no encoding": {"encoding_format": 1},
    "no model": {"model": ""},
    "too many models": {"model": [SMALL]},
}
GEMINI_FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "no content": (SINGLE, {}),
    "content of nothing": (SINGLE, {"content": {"parts": []}}),
    "content of numbers": (SINGLE, {"content": {"parts": [5]}}),
    "a content that is none": (SINGLE, {"content": 5}),
    "dimensions of nothing": (SINGLE, {"content": {"parts": [{"text": "x"}]}, "outputDimensionality": 0}),
    "no requests": (BATCH, {}),
    "none at all": (BATCH, {"requests": []}),
    "3000 requests": (BATCH, {"requests": [{"content": {"parts": [{"text": "x"}]}}] * 3000}),
    "requests that are none": (BATCH, {"requests": ["x"]}),
}


class TestRefusals:
    @every_model
    @pytest.mark.parametrize("fields", FAULTS.values(), ids=FAULTS.keys())
    async def test_a_body_that_is_none_is_refused_and_nothing_happens(
        self, gateway: RunningGateway, upstream: Upstream, model: str, fields: dict[str, Any]
    ) -> None:
        async with nothing_changes(gateway, upstream):
            error = check_error(await embedded(gateway, **{"model": model, **fields}), 400, OPENAI)
        (name,) = fields
        assert error["param"].startswith(name)

    @every_model
    @pytest.mark.parametrize(("verb", "body"), GEMINI_FAULTS.values(), ids=GEMINI_FAULTS.keys())
    async def test_so_is_one_of_googles(
        self, gateway: RunningGateway, upstream: Upstream, model: str, verb: str, body: dict[str, Any]
    ) -> None:
        async with nothing_changes(gateway, upstream):
            response = await gateway.http.post(f"/v1beta/models/{model}:{verb}", json=body)
            assert response.status_code == 400, response.text
            assert response.json()["error"]["status"] == "INVALID_ARGUMENT"

    async def test_a_model_for_something_else_is_refused_in_every_dialect(
        self, gateway: RunningGateway, upstream: Upstream
    ) -> None:
        said = [{"role": "user", "content": "hi"}]
        async with nothing_changes(gateway, upstream):
            for model in ("gpt-4o", "claude-3-opus"):
                error = check_error(await embedded(gateway, model), 400, OPENAI)
                assert (error["param"], f"'{model}' answers and makes no vectors" in error["message"]) == (
                    "model",
                    True,
                )
            refused = await gemini(gateway, "gpt-4o", BATCH)
            assert (refused.status_code, refused.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
            body = {"model": SMALL, "messages": said, "max_tokens": 5}
            for path, dialect in (("/v1/chat/completions", OPENAI), ("/v1/messages", ANTHROPIC)):
                error = check_error(await gateway.http.post(path, json=body), 400, dialect)
                assert "call /v1/embeddings" in error["message"]
            check_error(await gateway.http.post("/api/v1/estimates", json={"model": SMALL, "messages": said}), 422)
        called = len(upstream.requests)
        check_error(await gateway.http.post("/chat", json={"content": "hi", "model": SMALL}), 422)
        assert len(upstream.requests) == called

    async def test_tokens_are_for_models_that_know_them(self, gateway: RunningGateway, upstream: Upstream) -> None:
        assert (await embedded(gateway, SMALL, input=[1, 2, 3])).json()["usage"]["prompt_tokens"] == 3
        before = len(upstream.requests)
        error = check_error(await embedded(gateway, GOOGLE, input=[[1, 2, 3]]), 400, OPENAI)
        assert "tokens as input" in error["message"]
        assert len(upstream.requests) == before

    @every_model
    async def test_a_text_too_long_is_refused_in_its_providers_words(
        self, gateway: RunningGateway, upstream: Upstream, model: str
    ) -> None:
        person = await person_of(gateway, 100_000)
        upstream.always(Fail(status=400, message="This model's maximum context length is 8192 tokens."))
        error = check_error(await embedded(person, model, input="word " * 9000), 400, OPENAI)
        assert "maximum context length" in error["message"]
        assert await standing(person) == (100_000, 0)

    async def test_unknown_names_and_foreign_keys_are_told_apart(self, gateway: RunningGateway) -> None:
        assert check_error(await embedded(gateway, "no-such-model"), 404, OPENAI)["code"] == "model_not_found"
        stranger = gateway.client(None)
        check_error(await stranger.post("/v1/embeddings", json={"model": SMALL, "input": "x"}), 401, OPENAI)


class TestQuotas:
    @every_model
    async def test_what_was_used_is_charged_exactly(self, gateway: RunningGateway, model: str) -> None:
        person = await person_of(gateway, 100)
        assert (await embedded(person, model, input=[TEXT, "four five"])).status_code == 200
        assert await standing(person) == (95, 0)
        row = await row_of(gateway, person)
        assert (row.endpoint, row.model, row.input_tokens, row.output_tokens) == ("embeddings", model, 5, 0)
        assert (row.cost_micro_usd, row.flags, row.estimated) == (1, [], False)
        (entry, *_) = (await person.http.get("/api/v1/users/me/tokens/history")).json()["data"]
        assert (entry["amount"], entry["model"]) == (-5, model)

    async def test_the_last_token_can_be_spent_and_none_after_it(
        self, gateway: RunningGateway, upstream: Upstream
    ) -> None:
        person = await person_of(gateway, TOKENS)
        assert (await embedded(person, SMALL)).status_code == 200
        assert await standing(person) == (0, 0)
        before = len(upstream.requests)
        refused = await embedded(person, SMALL)
        error = check_error(refused, 429, OPENAI)
        assert error["code"] == "insufficient_quota"
        assert refused.headers["x-should-retry"] == "false"
        assert (error["details"]["needed"], error["details"]["unit"]) == (TOKENS, "tokens")
        told = await gemini(person, GOOGLE, BATCH)
        assert (told.status_code, told.json()["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")
        assert len(upstream.requests) == before

    async def test_tokens_given_as_tokens_are_held_one_by_one(self, gateway: RunningGateway) -> None:
        person = await person_of(gateway, 10)
        check_error(await embedded(person, SMALL, input=[list(range(6)), list(range(5))]), 429, OPENAI)
        assert (await embedded(person, SMALL, input=[list(range(6)), list(range(4))])).status_code == 200
        assert await standing(person) == (0, 0)

    async def test_money_is_held_at_the_price_of_the_prompt(self, gateway: RunningGateway, upstream: Upstream) -> None:
        person = await person_of(gateway)
        quota = {"scope": "user", "scope_id": person.id, "unit": "micro_usd", "window": "none", "limit": 2}
        assert (await gateway.http.put("/api/v1/admin/quotas", json=quota)).status_code == 200
        check_error(await embedded(person, SMALL, input=[list(range(101))]), 429, OPENAI)
        response = await embedded(person, SMALL, input=[list(range(100))])
        assert response.headers["x-gateway-cost-micro-usd"] == "2"

    @every_model
    async def test_usage_that_nobody_tells_is_counted(
        self, gateway: RunningGateway, upstream: Upstream, model: str
    ) -> None:
        person = await person_of(gateway, 1000)
        upstream.always(NoUsage())
        assert vector_in(await embedded(person, model)) == embedding_of(TEXT)
        row = await row_of(gateway, person)
        assert (row.estimated, row.flags, row.input_tokens >= TOKENS) == (True, ["usage_missing"], True)
        assert await standing(person) == (1000 - row.input_tokens, 0)

    async def test_what_is_claimed_above_the_hold_is_not_the_users_loss(
        self, gateway: RunningGateway, upstream: Upstream
    ) -> None:
        person = await person_of(gateway, TOKENS)
        upstream.always(Answer(usage=Usage(input=5000, output=0)))
        assert (await embedded(person, SMALL)).status_code == 200
        assert await standing(person) == (0, 0)

    @pytest.mark.parametrize(("status", "told"), [(500, 502), (401, 502), (400, 400)])
    async def test_a_call_that_fails_costs_nothing(
        self, gateway: RunningGateway, upstream: Upstream, status: int, told: int
    ) -> None:
        person = await person_of(gateway, 100)
        upstream.always(Fail(status=status))
        check_error(await embedded(person, SMALL), told, OPENAI)
        assert await standing(person) == (100, 0)


class TestRepeating:
    @every_model
    async def test_the_same_key_is_one_call_and_one_charge(
        self, gateway: RunningGateway, upstream: Upstream, model: str
    ) -> None:
        person, key = await person_of(gateway, 100), {"idempotency-key": str(uuid4())}
        first, second = [await embedded(person, model, headers=key) for _ in range(2)]
        assert vector_in(first) == embedding_of(TEXT)
        assert (second.content, second.headers["idempotent-replayed"]) == (first.content, "true")
        assert len(upstream.requests) == 1
        assert await standing(person) == (100 - TOKENS, 0)
        check_error(await embedded(person, model, headers=key, input="another"), 422, OPENAI)

    @every_model
    @pytest.mark.parametrize("encoding", ["float", "base64"])
    async def test_what_is_kept_is_given_again_and_costs_nothing(
        self, gateway: RunningGateway, upstream: Upstream, model: str, encoding: str
    ) -> None:
        person, text = await person_of(gateway, 100), f"kept {uuid4()}"
        asked: dict[str, Any] = {"headers": {"x-gateway-cache": "on"}, "input": text, "encoding_format": encoding}
        first = await embedded(person, model, **asked)
        balance = await standing(person)
        second = await embedded(person, model, **asked)
        assert [each.headers["x-gateway-cache"] for each in (first, second)] == ["miss", "hit"]
        assert second.json()["data"] == first.json()["data"]
        assert (len(upstream.requests), await standing(person)) == (1, balance)
        other = await embedded(person, model, **asked, dimensions=3)
        assert other.headers["x-gateway-cache"] == "miss"


class TestListing:
    async def test_models_of_embeddings_are_listed_with_what_they_can_do(self, gateway: RunningGateway) -> None:
        listed = {row["id"] for row in (await gateway.http.get("/v1/models")).json()["data"]}
        assert {SMALL, GOOGLE, "text-embedding-3-large", "text-embedding-ada-002"} <= listed
        shown = (await gateway.http.get(f"/api/v1/models/{SMALL}")).json()
        assert (shown["capabilities"]["embeddings"], shown["max_output"]) == (True, 0)
        assert (shown["price"]["input"], shown["price"]["output"]) == (0.02, 0)

    async def test_an_operator_adds_one(self, gateway: RunningGateway) -> None:
        body = {"name": "mine", "provider": "openai", "context_window": 512, "max_output": 0}
        error = check_error(await gateway.http.post("/api/v1/admin/models", json=body), 422)
        assert (error["param"], "models of embeddings" in error["message"]) == ("max_output", True)
        made = await gateway.http.post("/api/v1/admin/models", json={**body, "capabilities": {"embeddings": True}})
        assert made.status_code in (200, 201), made.text
        assert vector_in(await embedded(gateway, "mine")) == embedding_of(TEXT)

    async def test_calls_are_counted_in_the_metrics(self, gateway: RunningGateway) -> None:
        await embedded(gateway, SMALL)
        assert re.search(r'endpoint="[^"]*embeddings"', (await gateway.http.get("/metrics")).text)

    async def test_the_document_has_the_endpoint(self, gateway: RunningGateway) -> None:
        assert "post" in gateway.app.openapi()["paths"]["/v1/embeddings"]
