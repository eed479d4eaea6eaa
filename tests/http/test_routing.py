"""Chains, deployments, retries, breakers and deadlines, as callers and operators see them."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import text

from src.data.engine import make_engine, reading
from tests.http.surface import ANTHROPIC, OPENAI, books_are_right, check_error
from tests.http.ways import STREAMS, WHOLES, Way, text_of
from tests.support.gateway import RunningGateway, gateway_environment, running_gateway, sqlite_url
from tests.support.upstream import Answer, Fail, Hang, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

BREAKS_AFTER = 3
OPEN_S = 0.4
RETRYING = {"GATEWAY_RETRIES": 2, "GATEWAY_RETRY_SHARE": 1}
BREAKING = {"GATEWAY_BREAKER_FAILURES": BREAKS_AFTER, "GATEWAY_BREAKER_OPEN_S": OPEN_S}
CALLS = 60


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    shared_upstream.always(Answer(text="Four.", usage=Usage(input=1000, output=100)))
    return shared_upstream


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return sqlite_url(tmp_path_factory.mktemp("routing"))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_gateway(database_url: str, shared_upstream: Upstream) -> AsyncIterator[RunningGateway]:
    environment = gateway_environment(database_url, shared_upstream, **RETRYING, **BREAKING)
    async with running_gateway(environment) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared_gateway: RunningGateway, upstream: Upstream) -> AsyncIterator[RunningGateway]:
    yield shared_gateway
    await books_are_right(shared_gateway)


async def put(gateway: RunningGateway, what: str, body: dict[str, Any]) -> str:
    response = await gateway.http.post(f"/api/v1/admin/{what}", json=body)
    assert response.status_code == 201, response.text
    return str(response.json()["name"])


async def model(gateway: RunningGateway, **fields: Any) -> str:
    """A new model, called upstream by the same name: no test meets another's breaker."""
    base = {"name": f"m-{uuid4().hex[:8]}", "provider": "openai", "context_window": 100_000, "max_output": 1000}
    return await put(gateway, "models", base | {"price": {"input": 1, "output": 2}} | fields)


async def chain(gateway: RunningGateway, *models: str, **fields: Any) -> str:
    return await put(gateway, "chains", {"name": f"c-{uuid4().hex[:8]}", "models": list(models), **fields})


async def ask(gateway: RunningGateway, name: str, question: str = "2 + 2?", **fields: Any) -> httpx2.Response:
    body = {"model": name, "messages": [{"role": "user", "content": question}], **fields}
    return await gateway.http.post("/v1/chat/completions", json=body)


async def answered_by(gateway: RunningGateway, name: str, question: str = "2 + 2?", **fields: Any) -> tuple[str, int]:
    """The model that answered, and after how many attempts."""
    answer = await ask(gateway, name, question, **fields)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-gateway-model"], int(answer.headers["x-gateway-attempts"])


async def breaker_of(gateway: RunningGateway, upstream_name: str) -> dict[str, Any]:
    providers = (await gateway.http.get("/api/v1/admin/providers")).json()["data"]
    found = [each for provider in providers for each in provider["deployments"] if each["upstream"] == upstream_name]
    assert len(found) == 1
    return dict(found[0])


async def test_a_weighted_chain_shares_out_its_calls_and_keeps_conversations_together(gateway: RunningGateway) -> None:
    models = [await model(gateway) for _ in range(2)]
    name = await chain(gateway, *models, strategy="weighted", weights=[3, 1])
    questions = [f"What is {number} + 2?" for number in range(CALLS)]
    first = [(await answered_by(gateway, name, question))[0] for question in questions]
    again = [(await answered_by(gateway, name, question))[0] for question in questions]
    assert first == again
    assert 0 < Counter(first)[models[1]] < CALLS / 2


async def test_the_turns_of_a_dialog_stay_at_one_deployment(gateway: RunningGateway, upstream: Upstream) -> None:
    place = {"provider": "openrouter", "upstream": f"elsewhere-{uuid4().hex[:6]}"}
    name = await model(gateway, deployments=[place])
    used = set()
    for _ in range(8):
        dialog = (await gateway.http.post("/api/v1/dialogs", json={"model": name})).json()["id"]
        seen = len(upstream.requests)
        for turn in range(3):
            sent = await gateway.http.post(f"/api/v1/dialogs/{dialog}/messages", json={"content": f"Turn {turn}"})
            assert sent.status_code == 201, sent.text
        places = {request.model for request in upstream.requests[seen:]}
        assert len(places) == 1
        used |= places
    assert used == {name, place["upstream"]}


@pytest.mark.parametrize("way", [*WHOLES, *STREAMS], ids=str)
async def test_a_deployment_that_fails_is_replaced_by_another_of_the_same_model(
    way: Way, gateway: RunningGateway, upstream: Upstream, database_url: str
) -> None:
    kind = "anthropic" if way.model.startswith("claude") else "openai"
    spare = f"spare-{uuid4().hex[:6]}"
    name = await model(gateway, provider=kind, deployments=[{"provider": kind, "upstream": spare, "weight": 0}])
    upstream.always(Fail(status=503), model=name)
    send = await Way(name="", dialect=way.dialect, model=name, stream=way.stream, path=way.path).prepare(
        await gateway.new_user(f"user-{uuid4()}")
    )
    answer = await send({"x-request-id": (request_id := f"call-{uuid4()}")})
    assert text_of(answer, way) == "Four."
    assert [request.model for request in upstream.requests] == [name, spare]
    assert await attempts_of(database_url, request_id) == [(name, kind, "server_error"), (name, kind, "ok")]
    if way.path.startswith("/v1"):
        assert (answer.headers["x-gateway-model"], answer.headers["x-gateway-attempts"]) == (name, "2")


async def attempts_of(database_url: str, request_id: str) -> list[tuple[str, str, str]]:
    engine = make_engine(database_url)
    async with reading(engine) as connection:
        statement = text("SELECT attempts FROM usage_records WHERE request_id = :request_id")
        stored = json.loads((await connection.execute(statement, {"request_id": request_id})).scalar_one())
    await engine.dispose()
    return [(each["model"], each["provider"], each["outcome"]) for each in stored]


async def test_the_cheapest_model_of_a_chain_is_asked_first(gateway: RunningGateway, upstream: Upstream) -> None:
    dear, cheap = [await model(gateway, price={"input": price, "output": price}) for price in (5, 1)]
    name = await chain(gateway, dear, cheap, strategy="cheapest")
    assert await answered_by(gateway, name) == (cheap, 1)
    upstream.always(Fail(status=500), model=cheap)
    assert (await answered_by(gateway, name))[0] == dear


async def test_the_fastest_model_of_a_chain_is_asked_first(gateway: RunningGateway, upstream: Upstream) -> None:
    slow, fast = [await model(gateway) for _ in range(2)]
    name = await chain(gateway, slow, fast, strategy="fastest")
    upstream.always(Answer(text="Four.", delay_s=0.2), model=slow)
    assert {(await answered_by(gateway, name))[0] for _ in range(2)} == {slow, fast}
    assert [await answered_by(gateway, name) for _ in range(3)] == [(fast, 1)] * 3
    assert (await breaker_of(gateway, slow))["latency_ms"] >= 200


async def test_a_call_that_failed_everywhere_is_tried_again(gateway: RunningGateway, upstream: Upstream) -> None:
    name = await model(gateway)
    upstream.script(Fail(status=503), Fail(status=429), model=name)
    assert await answered_by(gateway, name) == (name, 3)


async def test_a_provider_is_given_the_time_it_asks_for(gateway: RunningGateway, upstream: Upstream) -> None:
    name = await model(gateway)
    upstream.script(Fail(status=429, headers={"retry-after": "1"}), model=name)
    began_s = asyncio.get_running_loop().time()
    assert await answered_by(gateway, name) == (name, 2)
    assert asyncio.get_running_loop().time() - began_s >= 1


@pytest.mark.parametrize("stream", [False, True])
async def test_what_keeps_failing_is_left_alone_and_found_again(
    stream: bool, gateway: RunningGateway, upstream: Upstream
) -> None:
    name = await model(gateway)
    upstream.always(Fail(status=500), model=name)
    assert (await ask(gateway, name, stream=stream)).status_code == 502
    assert len(upstream.requests) == BREAKS_AFTER
    shown = await breaker_of(gateway, name)
    assert (shown["breaker"], shown["reason"]) == ("open", "server_error")
    assert 0 < shown["retry_in_s"] <= OPEN_S
    refused = await ask(gateway, name, stream=stream)
    error = check_error(refused, 503, OPENAI)
    assert (error["code"], refused.headers["retry-after"]) == ("provider_resting", "1")
    body = {"model": name, "max_tokens": 10, "messages": [{"role": "user", "content": "2 + 2?"}], "stream": stream}
    check_error(await gateway.http.post("/v1/messages", json=body), 529, ANTHROPIC)
    assert len(upstream.requests) == BREAKS_AFTER
    upstream.always(Answer(text="Four."), model=name)
    await asyncio.sleep(OPEN_S)
    assert (await ask(gateway, name, stream=stream)).status_code == 200
    assert (await breaker_of(gateway, name))["breaker"] == "closed"


async def test_a_resting_model_of_a_chain_costs_its_callers_nothing(
    gateway: RunningGateway, upstream: Upstream
) -> None:
    dead, alive = [await model(gateway) for _ in range(2)]
    name = await chain(gateway, dead, alive)
    upstream.always(Fail(status=500), model=dead)
    answers = [await answered_by(gateway, name) for _ in range(BREAKS_AFTER + 3)]
    assert answers == [(alive, 2)] * BREAKS_AFTER + [(alive, 1)] * 3


async def test_a_refused_key_rests_its_deployment_at_once_and_is_told_to_the_operator(
    gateway: RunningGateway, upstream: Upstream
) -> None:
    name = await model(gateway)
    upstream.always(Fail(status=401), model=name)
    assert (await ask(gateway, name)).status_code == 502
    assert (await ask(gateway, name)).status_code == 503
    assert len(upstream.requests) == 1
    assert (await breaker_of(gateway, name))["reason"] == "credentials"
    metrics = (await gateway.http.get("/metrics")).text
    assert f'gateway_breaker_opened_total{{deployment="openai/{name}",reason="credentials"}} 1.0' in metrics


@pytest.mark.parametrize("known", [True, False], ids=["by our count", "by its provider's word"])
async def test_a_prompt_too_long_for_one_model_goes_to_a_larger_one(
    known: bool, gateway: RunningGateway, upstream: Upstream
) -> None:
    small = await model(gateway, context_window=100 if known else 50_000, max_output=50)
    name = await chain(gateway, small, large := await model(gateway))
    if not known:
        refusal = Fail(status=400, code="context_length_exceeded", message="This model's maximum context length is 10.")
        upstream.always(refusal, model=small)
    assert await answered_by(gateway, name, "word " * 500) == (large, 1 if known else 2)
    assert await answered_by(gateway, small if known else large, "short") == (small if known else large, 1)


async def test_a_model_without_eyes_is_not_shown_images(gateway: RunningGateway, upstream: Upstream) -> None:
    blind = await model(gateway, capabilities={"images": False})
    name = await chain(gateway, blind, seeing := await model(gateway))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
    assert await answered_by(gateway, name, messages=messages) == (seeing, 1)
    assert await answered_by(gateway, name) == (blind, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_is_late_by_its_own_deadlines_is_left_for_the_next(
    stream: bool, gateway: RunningGateway, upstream: Upstream
) -> None:
    slow = await model(gateway, deadlines={"first_event_s": 0.1, "total_s": 0.3})
    name = await chain(gateway, slow, quick := await model(gateway))
    upstream.always(Hang(), model=slow)
    assert await answered_by(gateway, name, stream=stream) == (quick, 2)
    await upstream.requests[0].wait_disconnected(1)


async def test_operators_read_what_they_wrote(gateway: RunningGateway) -> None:
    fields: dict[str, Any] = {
        "weight": 3,
        "deployments": [{"provider": "openrouter", "upstream": "x/y", "weight": 0}],
        "deadlines": {"connect_s": 1.5, "first_event_s": 10.0, "between_events_s": None, "total_s": 60.0},
        "cache": {"ttl_s": 60.0, "per_user": True, "similarity": 0.97},
    }
    name = await model(gateway, **fields)
    models = (await gateway.http.get("/api/v1/admin/models")).json()["data"]
    shown = next(each for each in models if each["name"] == name)
    assert {field: shown[field] for field in fields} == fields
    chained = await chain(gateway, name, strategy="weighted", weights=[2], sticky=False)
    chains = (await gateway.http.get("/api/v1/admin/chains")).json()["data"]
    shown = next(each for each in chains if each["name"] == chained)
    assert (shown["strategy"], shown["weights"], shown["sticky"]) == ("weighted", [2], False)


@pytest.mark.parametrize(
    ("what", "wrong", "param"),
    [
        ("chains", {"strategy": "luckiest"}, "strategy"),
        ("chains", {"strategy": "weighted", "weights": [1]}, None),
        ("chains", {"weights": [1, 1]}, None),
        ("chains", {"strategy": "weighted", "weights": [1, -1]}, "weights.1"),
        ("models", {"deployments": [{"provider": "nobody"}]}, "provider"),
        ("models", {"deployments": [{"provider": "openai", "weight": -1}]}, "deployments.0.weight"),
        ("models", {"deadlines": {"total_s": 0}}, "deadlines.total_s"),
        ("models", {"cache": {"ttl_s": 0}}, "cache.ttl_s"),
    ],
)
async def test_what_cannot_be_routed_is_refused(
    what: str, wrong: dict[str, Any], param: str | None, gateway: RunningGateway
) -> None:
    base: dict[str, Any] = {"name": f"x-{uuid4().hex[:8]}", "models": ["gpt-4o", "claude-3-opus"]}
    if what == "models":
        base = {"name": base["name"], "provider": "openai", "context_window": 100, "max_output": 10}
    error = check_error(await gateway.http.post(f"/api/v1/admin/{what}", json=base | wrong), 422)
    assert param is None or error["param"] == param
