"""Models, prices, providers and chains: what clients see, what operators write, and which word counts."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.http.surface import CHAT, MESSAGES, books_are_right, check_error
from tests.support.gateway import PROVIDER_KEY, RunningGateway, gateway_environment, running_gateway, sqlite_url
from tests.support.upstream import Answer, Fail, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEED_MODELS = {
    "gpt-4-turbo": ("openai", 10, 30, 128_000),
    "gpt-3.5-turbo": ("openai", 0.5, 1.5, 16_385),
    "claude-3-opus": ("anthropic", 15, 75, 200_000),
    "claude-3-sonnet": ("anthropic", 3, 15, 200_000),
}


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    shared_upstream.always(Answer(text="Four.", usage=Usage(input=1000, output=100)))
    return shared_upstream


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(any_shared_gateway: RunningGateway, upstream: Upstream) -> AsyncIterator[RunningGateway]:
    yield any_shared_gateway
    await books_are_right(any_shared_gateway)


async def put(gateway: RunningGateway, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await gateway.http.post(f"/api/v1/admin{path}", json=body)
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


def model_body(**fields: Any) -> dict[str, Any]:
    return {
        "name": f"m-{uuid4().hex[:8]}", "provider": "openai", "upstream": "gpt-4o", "context_window": 10_000,
        "max_output": 1000, "price": {"input": 1, "output": 2}, **fields,
    }  # fmt: skip


async def cost_of(gateway: RunningGateway, model: str) -> int:
    """What 1000 tokens in and 100 out cost."""
    answer = await gateway.http.post("/v1/chat/completions", json={**CHAT, "model": model})
    assert answer.status_code == 200, answer.text
    return int(answer.headers["x-gateway-cost-micro-usd"])


@pytest.mark.parametrize(("name", "row"), SEED_MODELS.items(), ids=SEED_MODELS.keys())
async def test_the_seeds_models_have_their_prices_and_windows(
    name: str, row: tuple[str, float, float, int], gateway: RunningGateway
) -> None:
    found = (await gateway.http.get(f"/api/v1/models/{name}")).json()
    price = found["price"]
    window = found["context_window"]
    assert (found["provider"], price["input"], price["output"]) == row[:3]
    assert abs(window - row[3]) < 1000
    assert (found["lifecycle"], found["available"]) == ("retired", True)
    assert (await gateway.http.get(f"/api/v1/models/{found['replacement']}")).status_code == 200
    assert price["input_micro_usd_per_million"] == row[1] * 1_000_000
    assert await cost_of(gateway, name) == row[1] * 1000 + row[2] * 100


async def test_lists_of_models_speak_the_callers_dialect(gateway: RunningGateway) -> None:
    native = (await gateway.http.get("/api/v1/models")).json()
    assert native["has_more"] is False
    assert {each["id"] for each in native["data"]} >= set(SEED_MODELS)
    openai = (await gateway.http.get("/v1/models")).json()
    assert openai["object"] == "list"
    assert all(each.keys() >= {"id", "object", "created", "owned_by"} for each in openai["data"])
    headers = {"anthropic-version": "2023-06-01"}
    anthropic = (await gateway.http.get("/v1/models?limit=1000", headers=headers)).json()
    assert anthropic.keys() == {"data", "first_id", "last_id", "has_more"}
    wanted = {"type", "id", "display_name", "created_at", "lifecycle"}
    assert all(each.keys() >= wanted for each in anthropic["data"])
    assert {each["id"] for each in anthropic["data"]} == {each["id"] for each in openai["data"]}
    assert check_error(await gateway.http.get("/v1/models/nobody"), 404)["code"] == "model_not_found"
    unknown = await gateway.http.get("/v1/models/nobody", headers=headers)
    assert check_error(unknown, 404, "anthropic")["type"] == "not_found_error"


async def test_a_models_output_reserve_is_kept_shown_and_taken_away(gateway: RunningGateway) -> None:
    body = model_body(max_output=1000, output_reserve=1000)
    name = (await put(gateway, "/models", body))["name"]
    for reserve in (1000, 1, None):
        assert (await put(gateway, "/models", {**body, "output_reserve": reserve}))["output_reserve"] == reserve
        assert (await gateway.http.get(f"/api/v1/models/{name}")).json()["output_reserve"] == reserve
        rows = (await gateway.http.get("/api/v1/admin/models")).json()["data"]
        assert [row["output_reserve"] for row in rows if row["name"] == name] == [reserve]
    too_much = await gateway.http.post("/api/v1/admin/models", json={**body, "output_reserve": 1001})
    assert check_error(too_much, 422)["param"] == "output_reserve"


async def test_names_with_slashes_are_found(gateway: RunningGateway) -> None:
    name = f"org/{uuid4().hex[:8]}:free"
    await put(gateway, "/models", model_body(name=name))
    for path in (f"/v1/models/{name}", f"/v1/models/{name.replace('/', '%2F')}", f"/api/v1/models/{name}"):
        assert (await gateway.http.get(path)).json()["id"] == name
    assert (await put(gateway, f"/models/{name}/prices", {"input": 5, "output": 5}))["price"]["input"] == 5
    assert await cost_of(gateway, name) == 5500


async def test_a_price_counts_from_its_moment_on(gateway: RunningGateway) -> None:
    now = datetime.now(UTC)
    name = (await put(gateway, "/models", model_body()))["name"]
    assert await cost_of(gateway, name) == 1200
    tomorrow = {"input": 100, "output": 100, "from": (now + timedelta(days=1)).isoformat()}
    shown = await put(gateway, f"/models/{name}/prices", tomorrow)
    assert (shown["price"]["input"], len(shown["prices"])) == (1, 2)
    assert await cost_of(gateway, name) == 1200
    yesterday = {"input": 3, "output": 0.5, "from": (now - timedelta(days=1)).date().isoformat()}
    assert (await put(gateway, f"/models/{name}/prices", yesterday))["price"]["input"] == 3
    assert await cost_of(gateway, name) == 3050
    await put(gateway, f"/models/{name}/prices", {**yesterday, "input": 4})
    assert await cost_of(gateway, name) == 4050
    prices = (await gateway.http.get(f"/api/v1/admin/models/{name}/prices")).json()["data"]
    assert sorted(price["input"] for price in prices) == [1, 4, 100]


async def test_cost_is_rounded_up_once(gateway: RunningGateway, upstream: Upstream) -> None:
    upstream.always(Answer(text="x", usage=Usage(input=1, output=1)))
    name = (await put(gateway, "/models", model_body(price={"input": 0.000001, "output": 0.000001})))["name"]
    assert await cost_of(gateway, name) == 1


async def test_a_replaced_model_counts_at_once(gateway: RunningGateway, upstream: Upstream) -> None:
    body = model_body()
    await put(gateway, "/models", body)
    await put(gateway, "/models", {**body, "upstream": "gpt-4o-mini", "price": {"input": 0, "output": 0}})
    assert await cost_of(gateway, body["name"]) == 0
    assert upstream.requests[-1].model == "gpt-4o-mini"
    await put(gateway, "/models", {**body, "enabled": False})
    gone = await gateway.http.post("/v1/messages", json={**MESSAGES, "model": body["name"]})
    assert check_error(gone, 404)["type"] == "not_found_error"
    assert body["name"] not in (await gateway.http.get("/v1/models")).text


async def test_chains_are_made_used_and_removed(gateway: RunningGateway, upstream: Upstream) -> None:
    name = f"chain-{uuid4().hex[:8]}"
    await put(gateway, "/chains", {"name": name, "models": ["gpt-4o", "claude-3-opus"]})
    upstream.always(Fail(status=503), model="gpt-4o")
    answer = await gateway.http.post("/v1/messages", json={**MESSAGES, "model": name})
    assert (answer.status_code, answer.headers["x-gateway-model"]) == (200, "claude-3-opus")
    assert (await gateway.http.get(f"/api/v1/models/{name}")).json()["models"] == ["gpt-4o", "claude-3-opus"]
    taken = await gateway.http.post("/api/v1/admin/models", json=model_body(name=name))
    assert check_error(taken, 422)["param"] == "name"
    assert (await gateway.http.delete(f"/api/v1/admin/chains/{name}")).status_code == 204
    check_error(await gateway.http.delete(f"/api/v1/admin/chains/{name}"), 404)
    check_error(await gateway.http.post("/v1/chat/completions", json={**CHAT, "model": name}), 404)


async def test_a_compatible_server_without_a_key_is_one_row(gateway: RunningGateway, upstream: Upstream) -> None:
    async with Upstream(require_key=False) as server:
        provider = f"mine-{uuid4().hex[:8]}"
        row = await put(gateway, "/providers", {"name": provider, "kind": "openai", "base_url": server.openai_base_url})
        assert (row["ready"], row["api_key_env"]) == (True, None)
        body = model_body(provider=provider, upstream="meta-llama/Llama-4")
        await put(gateway, "/models", body)
        answer = await gateway.http.post("/v1/chat/completions", json={**CHAT, "model": body["name"]})
        assert answer.json()["choices"][0]["message"]["content"] == "echo: hello"
        answer = await gateway.http.post("/v1/messages", json={**MESSAGES, "model": body["name"]})
        assert answer.json()["content"][0]["text"] == "echo: hello"
        assert [each.model for each in server.requests] == ["meta-llama/Llama-4"] * 2
        for each in server.requests:
            assert PROVIDER_KEY not in str(dict(each.headers))
            assert each.json["max_tokens"] if each is server.requests[1] else "max_completion_tokens" not in each.json
        await put(gateway, "/providers", {"name": provider, "kind": "openai", "base_url": server.url, "enabled": False})
        check_error(await gateway.http.post("/v1/chat/completions", json={**CHAT, "model": body["name"]}), 404)
    assert upstream.requests == []


@pytest.mark.parametrize(("model", "wire"), [("gemini-2.5-flash", "google"), ("gpt-4o", "openai")])
async def test_every_provider_is_reached_through_a_dialog(
    model: str, wire: str, gateway: RunningGateway, upstream: Upstream
) -> None:
    dialog = (await gateway.http.post("/api/v1/dialogs", json={"model": model})).json()["id"]
    sent = await gateway.http.post(f"/api/v1/dialogs/{dialog}/messages", json={"content": "Two and two?"})
    assert (sent.status_code, sent.json()["message"]["content"]) == (201, "Four.")
    assert upstream.requests[-1].provider == wire


async def test_openrouter_is_reached_with_its_own_key(gateway: RunningGateway, upstream: Upstream) -> None:
    body = model_body(provider="openrouter", upstream="meta-llama/llama-4-maverick")
    await put(gateway, "/models", body)
    dialog = (await gateway.http.post("/api/v1/dialogs", json={"model": body["name"]})).json()["id"]
    sent = await gateway.http.post(f"/api/v1/dialogs/{dialog}/messages", json={"content": "Two and two?"})
    assert sent.json()["message"]["content"] == "Four."
    request = upstream.requests[-1]
    assert (request.model, request.headers["authorization"]) == (
        "meta-llama/llama-4-maverick",
        f"Bearer {PROVIDER_KEY}",
    )


async def test_every_change_of_the_catalog_is_audited(gateway: RunningGateway) -> None:
    name = (await put(gateway, "/models", model_body()))["name"]
    await put(gateway, f"/models/{name}/prices", {"input": 1, "output": 1})
    log = (await gateway.http.get("/api/v1/admin/audit?limit=5")).json()["data"]
    assert [(row["action"], row["object_id"]) for row in log[:2]] == [("price.add", name), ("model.put", name)]
    assert all(row["request_id"] and row["actor_user_id"] for row in log[:2])


async def test_providers_are_listed_without_their_keys(gateway: RunningGateway) -> None:
    response = await gateway.http.get("/api/v1/admin/providers")
    assert PROVIDER_KEY not in response.text
    rows = {row["name"]: row for row in response.json()["data"]}
    assert rows.keys() >= {"openai", "anthropic", "google", "openrouter"}
    assert rows["openai"]["ready"] is True


CONFIG = """
providers:
  - {{name: filed, kind: openai, base_url: "{base_url}"}}
models:
  - {{name: quick, provider: filed, upstream: gpt-4o-mini, context_window: 128000, max_output: 16384,
     price: {{input: {price}, output: 0.6, cache_read: 0.075}}}}
  - {{name: dated, provider: filed, context_window: 1000, max_output: 100,
     price: [{{input: 1, output: 1, from: 2020-01-01}}, {{input: 2, output: 2, from: 2999-01-01}}]}}
chains:
  smart: [gpt-4o, quick]
"""


async def test_a_file_is_read_at_start_and_administrators_win_over_it(
    tmp_path: Path, shared_upstream: Upstream, upstream: Upstream
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG.format(base_url=shared_upstream.openai_base_url, price=0.15))
    environment = gateway_environment(sqlite_url(tmp_path), upstream, GATEWAY_CONFIG=file)
    async with Upstream(require_key=False) as server:
        file.write_text(CONFIG.format(base_url=server.openai_base_url, price=0.15))
        server.always(Answer(text="x", usage=Usage(input=1000, output=100)))
        async with running_gateway(environment) as running:
            assert await cost_of(running, "quick") == 210
            assert (await running.http.get("/api/v1/models/smart")).json()["models"] == ["gpt-4o", "quick"]
            assert (await running.http.get("/api/v1/models/dated")).json()["price"]["input"] == 1
            await put(running, "/models/dated/prices", {"input": 7, "output": 7, "from": "2021-01-01"})
            await put(running, "/chains", {"name": "smart", "models": ["quick"]})
            await put(running, "/models", model_body(name="gpt-4-turbo", price={"input": 8, "output": 0}))
        file.write_text(CONFIG.format(base_url=server.openai_base_url, price=0.25))
        async with running_gateway(environment) as running:
            assert await cost_of(running, "quick") == 310
            assert await cost_of(running, "dated") == 7700
            assert await cost_of(running, "gpt-4-turbo") == 8000
            assert (await running.http.get("/api/v1/models/smart")).json()["models"] == ["quick"]
