"""Google's endpoints as its clients and its documents call them: paths, keys, arrays of chunks, models."""

import json
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from src.api import middleware
from tests.http.surface import books_are_right
from tests.support.gateway import ADMIN_KEY, Person, RunningGateway
from tests.support.upstream import Answer, ErrorEvent, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO: dict[str, Any] = {"contents": [{"parts": [{"text": "hello"}]}]}
VERSIONS = pytest.mark.parametrize("version", ["v1", "v1beta"])
MODELS = pytest.mark.parametrize("model", ["gemini-2.5-flash", "gpt-4o"])


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


@pytest_asyncio.fixture(loop_scope="module")
async def http(shared_gateway: RunningGateway, upstream: Upstream) -> httpx2.AsyncClient:
    return shared_gateway.http


def text_of(chunks: list[dict[str, Any]]) -> str:
    parts = [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]
    return "".join(part["text"] for part in parts)


def refusal_in(response: httpx2.Response, code: int, status: str) -> str:
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["status"]) == (code, code, status), response.text
    return str(error["message"])


@pytest.mark.parametrize(("version", "asking"), [("v1", "alt=sse"), ("v1beta", "%24alt=sse")])
@MODELS
async def test_without_asking_for_events_a_stream_is_one_array(
    http: httpx2.AsyncClient, upstream: Upstream, version: str, asking: str, model: str
) -> None:
    upstream.always(Answer(chunks=("Good ", "day"), usage=Usage(input=5, output=2)))
    path = f"/{version}/models/{model}:streamGenerateContent"
    array, events = await http.post(path, json=HELLO), await http.post(f"{path}?{asking}", json=HELLO)
    assert array.headers["content-type"].startswith("application/json")
    assert events.headers["content-type"].startswith("text/event-stream")
    assert array.headers["x-gateway-model"] == events.headers["x-gateway-model"] == model
    chunks = array.json()
    assert text_of(chunks) == "Good day"
    assert chunks[-1]["usageMetadata"]["totalTokenCount"] == 7
    told = [json.loads(line[6:]) for line in events.text.splitlines() if line]
    assert text_of(told) == "Good day"
    assert len(told) == len(chunks)


@MODELS
async def test_an_error_in_the_middle_is_the_last_element(
    http: httpx2.AsyncClient, upstream: Upstream, model: str
) -> None:
    upstream.always(ErrorEvent(1, status=503, answer=Answer(chunks=("one ", "two"))))
    *chunks, last = (await http.post(f"/v1beta/models/{model}:streamGenerateContent", json=HELLO)).json()
    assert (text_of(chunks), last["error"]["status"]) == ("one ", "UNAVAILABLE")


async def test_an_array_is_repeated_as_an_array(http: httpx2.AsyncClient, upstream: Upstream) -> None:
    path, key = "/v1beta/models/gpt-4o:streamGenerateContent", {"idempotency-key": "again"}
    first = await http.post(path, json=HELLO, headers=key)
    again = await http.post(path, json=HELLO, headers=key)
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert len(upstream.requests) == 1


@VERSIONS
async def test_a_key_may_stand_in_the_address_and_is_logged_nowhere(
    shared_gateway: RunningGateway, upstream: Upstream, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[Any] = []
    told = SimpleNamespace(info=lambda *words, **more: logged.append((words, more)))
    monkeypatch.setattr(middleware, "log", told)
    person = await shared_gateway.new_user(f"by-address-{version}")
    path = f"/{version}/models/gemini-2.5-flash:generateContent"
    async with httpx2.AsyncClient(base_url=shared_gateway.url) as http:
        assert (await http.post(f"{path}?key={person.secret}", json=HELLO)).status_code == 200
        listed = await http.get(f"/{version}/models?key={person.secret}")
        assert "models/gpt-4o" in {model["name"] for model in listed.json()["models"]}
        elsewhere = await http.get(f"/api/v1/me?key={person.secret}")
        refusal_in(await http.post(path, json=HELLO), 401, "UNAUTHENTICATED")
        refusal_in(await http.post(f"{path}?key=wrong", json=HELLO), 401, "UNAUTHENTICATED")
    assert elsewhere.status_code == 401
    assert path in str(logged)
    assert person.secret not in str(logged)
    assert person.secret not in str([(sent.query, sent.headers) for sent in upstream.requests])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("openai/gpt-x", "/v1beta/models/openai/gpt-x"),
        ("openai/gpt-x", "/v1/models/openai%2Fgpt-x"),
        ("openai/gpt-x", "/v1/models/models/openai/gpt-x"),
        ("tunedModels/mine", "/v1/tunedModels/mine"),
        ("tunedModels/mine", "/v1beta/tunedModels/mine"),
        ("llama:8b", "/v1beta/models/llama:8b"),
    ],
)
async def test_names_may_have_slashes_and_colons(
    http: httpx2.AsyncClient, upstream: Upstream, name: str, path: str
) -> None:
    made = {"name": name, "provider": "openai", "upstream": "gpt-4o", "context_window": 9000, "max_output": 90}
    created = await http.post("/api/v1/admin/models", json={**made, "price": {"input": 1, "output": 1}})
    assert created.status_code in (200, 201, 409), created.text
    answered = await http.post(f"{path}:generateContent", json=HELLO)
    assert (answered.status_code, answered.headers["x-gateway-model"]) == (200, name)


@pytest.mark.parametrize("path", ["models/gpt-4o:fly", "models/gpt-4o", "models/:generateContent", "tunedModels/x:fly"])
@VERSIONS
async def test_what_is_no_method_is_not_found(http: httpx2.AsyncClient, path: str, version: str) -> None:
    headers = {"x-goog-api-key": ADMIN_KEY}
    refusal_in(await http.post(f"/{version}/{path}", json=HELLO, headers=headers), 404, "NOT_FOUND")


async def test_fields_may_be_written_with_underscores(http: httpx2.AsyncClient, upstream: Upstream) -> None:
    body = {
        **HELLO,
        "system_instruction": {"parts": [{"text": "Be brief."}]},
        "generation_config": {"max_output_tokens": 50, "stop_sequences": ["END"]},
    }
    answered = await http.post("/v1beta/models/gpt-4o:generateContent", json=body)
    assert answered.status_code == 200, answered.text
    assert "x-gateway-dropped-params" not in answered.headers
    sent = upstream.requests[-1].json
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (sent["max_completion_tokens"], sent["stop"]) == (50, ["END"])


async def test_parameters_that_a_model_does_not_take_are_named_in_googles_words(http: httpx2.AsyncClient) -> None:
    body = {**HELLO, "generationConfig": {"topK": 5, "thinkingConfig": {"thinkingBudget": 1024}}}
    answered = await http.post("/v1beta/models/gpt-4o:generateContent", json=body)
    dropped = answered.headers["x-gateway-dropped-params"].split(",")
    assert {"generationConfig.topK", "generationConfig.thinkingConfig"} <= set(dropped)


@MODELS
async def test_prompts_are_counted(http: httpx2.AsyncClient, model: str) -> None:
    for body in (HELLO, {"generateContentRequest": {"model": f"models/{model}", **HELLO}}):
        counted = await http.post(f"/v1beta/models/{model}:countTokens", json=body)
        assert counted.status_code == 200, counted.text
        assert counted.json()["totalTokens"] >= 1
        assert ("x-gateway-estimated" in counted.headers) is not model.startswith("gemini")
    empty = await http.post(f"/v1beta/models/{model}:countTokens", json={})
    assert "contents" in refusal_in(empty, 400, "INVALID_ARGUMENT")


@VERSIONS
async def test_models_are_listed_page_by_page_and_one_by_one(http: httpx2.AsyncClient, version: str) -> None:
    headers = {"x-goog-api-key": ADMIN_KEY}
    names: list[str] = []
    token = ""
    while True:
        listed = await http.get(f"/{version}/models?pageSize=3&pageToken={token}", headers=headers)
        page = listed.json()
        names += [model["name"] for model in page["models"]]
        if not (token := page.get("nextPageToken", "")):
            break
        assert len(page["models"]) == 3
    assert names == sorted(set(names))
    assert "models/gpt-4o" in names
    for path in ("gpt-4o", "models/gpt-4o"):
        one = (await http.get(f"/{version}/models/{path}", headers=headers)).json()
        assert (one["name"], one["baseModelId"], one["displayName"]) == ("models/gpt-4o", "gpt-4o", "gpt-4o")
        assert "generateContent" in one["supportedGenerationMethods"]
    refusal_in(await http.get(f"/{version}/models/nobody", headers=headers), 404, "NOT_FOUND")
    wrong = await http.get(f"/{version}/models?pageSize=many", headers=headers)
    assert "pageSize" in refusal_in(wrong, 400, "INVALID_ARGUMENT")


async def test_the_other_dialects_keep_their_lists(shared_gateway: RunningGateway) -> None:
    person: Person = await shared_gateway.new_user("lister")
    assert (await person.http.get("/v1/models")).json()["object"] == "list"
    anthropic = await person.http.get("/v1/models", headers={"anthropic-version": "2023-06-01", "x-goog-api-key": "x"})
    assert anthropic.json()["data"][0]["type"] == "model"


async def test_after_all_of_this_the_books_are_right(shared_gateway: RunningGateway) -> None:
    await books_are_right(shared_gateway)
