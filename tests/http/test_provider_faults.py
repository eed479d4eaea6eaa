"""Providers that are not configured, away, broken or slow: a clear error in the caller's dialect, and no charge."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.http.surface import (
    CHAT,
    CONTENTS,
    GEMINI,
    MESSAGES,
    RESPONSE,
    books_are_right,
    check_error,
    dialect_of,
    open_holds,
)
from tests.http.ways import error_of, events_in, gemini_path
from tests.support.gateway import Person, RunningGateway, gateway_environment, running_gateway, sqlite_url
from tests.support.upstream import (
    CutAfter,
    Fail,
    Garbage,
    Hang,
    MalformedChunk,
    ResetBeforeAnswer,
    Upstream,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

READ_TIMEOUT_S = 0.3
MODELS = {"gpt-4o": "openai", "claude-3-opus": "anthropic", "gemini-2.5-flash": "google"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_gateway(
    tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream
) -> AsyncIterator[RunningGateway]:
    """A gateway with little patience."""
    url = sqlite_url(tmp_path_factory.mktemp("gateway"))
    environment = gateway_environment(url, shared_upstream, GATEWAY_UPSTREAM_READ_TIMEOUT_S=READ_TIMEOUT_S)
    async with running_gateway(environment) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def payer(shared_gateway: RunningGateway) -> Person:
    person = await shared_gateway.new_user("payer")
    await shared_gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": 1_000_000})
    return person


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


async def ask_everywhere(http: httpx2.AsyncClient, model: str) -> list[httpx2.Response]:
    """One question through every door, whole and streamed, wherever an error is an ordinary answer."""
    dialog = (await http.post("/api/v1/dialogs", json={"model": model})).json()["id"]
    openai, anthropic = {**CHAT, "model": model}, {**MESSAGES, "model": model}
    asking = (
        ("/v1/chat/completions", openai),
        ("/v1/chat/completions", {**openai, "stream": True}),
        ("/v1/messages", anthropic),
        ("/v1/messages", {**anthropic, "stream": True}),
        ("/v1/responses", {**RESPONSE, "model": model}),
        ("/v1/responses", {**RESPONSE, "model": model, "stream": True}),
        (f"/v1beta/models/{model}:generateContent", CONTENTS),
        (f"/v1beta/models/{model}:streamGenerateContent", CONTENTS),
        (f"/v1/models/{model}:streamGenerateContent?alt=sse", CONTENTS),
        ("/chat", {"content": "hello", "model": model}),
        (f"/api/v1/dialogs/{dialog}/messages", {"content": "hello"}),
    )
    return await asyncio.gather(*(http.post(path, json=body) for path, body in asking))


async def check_nothing_was_charged(gateway: RunningGateway, payer: Person) -> None:
    standing = (await payer.http.get("/api/v1/users/me/tokens")).json()
    assert (standing["balance"], standing["held"], standing["total_used"]) == (1_000_000, 0, 0)
    assert open_holds(gateway) == 0
    await books_are_right(gateway)


TECHNICAL: dict[str, tuple[Any, int]] = {
    "it says 500": (Fail(status=500), 502),
    "it says 503": (Fail(status=503), 502),
    "it says 529": (Fail(status=529), 502),
    "it says 408": (Fail(status=408), 504),
    "it refuses our key": (Fail(status=401, message="Incorrect API key provided: sk-provider-secret-0123456789"), 502),
    "it forbids": (Fail(status=403), 502),
    "it knows no such model": (Fail(status=404), 502),
    "it limits our rate": (Fail(status=429), 502),
    "it answers a web page": (Garbage(), 502),
    "it answers nothing": (Garbage(body=b""), 502),
    "it answers a number": (Garbage(body=b"5", content_type="application/json"), 502),
    "it answers an empty object": (Garbage(body=b"{}", content_type="application/json"), 502),
    "it answers an empty list": (Garbage(body=b"[]", content_type="application/json"), 502),
    "it answers NUL": (Garbage(body=b"\x00" * 100, content_type="application/json"), 502),
    "it errs with a web page": (Garbage(status=500), 502),
    "it redirects": (Fail(status=302, headers={"location": "http://127.0.0.1:9/"}), 502),
    "it resets the connection": (ResetBeforeAnswer(), 502),
    "it hangs": (Hang(30), 504),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("behaviour", "status"), TECHNICAL.values(), ids=TECHNICAL.keys())
async def test_a_technical_failure_is_a_502_or_504_and_costs_nothing(
    behaviour: Any, status: int, model: str, shared_gateway: RunningGateway, upstream: Upstream, payer: Person
) -> None:
    upstream.always(behaviour)
    for response in await ask_everywhere(payer.http, model):
        error = check_error(response, status)
        assert "127.0.0.1" not in error["message"]
        if dialect_of(response.url.path) == GEMINI:
            assert error["status"] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        else:
            assert error["type"] in ("api_error", "timeout_error", "provider_failed", "provider_timeout")
    await check_nothing_was_charged(shared_gateway, payer)


@pytest.mark.parametrize("model", MODELS)
async def test_what_the_provider_blames_on_the_caller_is_told_to_the_caller(
    model: str, shared_gateway: RunningGateway, upstream: Upstream, payer: Person
) -> None:
    upstream.always(Fail(status=400, message="temperature and top_p cannot both be set"))
    for response in await ask_everywhere(payer.http, model):
        error = check_error(response, 422 if response.url.path.startswith(("/api", "/chat")) else 400)
        assert "temperature and top_p cannot both be set" in error["message"]
    await check_nothing_was_charged(shared_gateway, payer)


async def test_a_provider_that_is_down_is_a_502(tmp_path_factory: pytest.TempPathFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    environment = gateway_environment(
        sqlite_url(tmp_path_factory.mktemp("down")),
        OPENAI_API_KEY="sk-x", OPENAI_BASE_URL=f"{nobody}/v1", ANTHROPIC_API_KEY="sk-x", ANTHROPIC_BASE_URL=nobody,
        GOOGLE_API_KEY="sk-x", GOOGLE_GEMINI_BASE_URL=nobody,
    )  # fmt: skip
    async with running_gateway(environment) as running:
        for model in MODELS:
            for response in await ask_everywhere(running.http, model):
                check_error(response, 502)
        assert open_holds(running) == 0
        assert (await running.http.get("/health")).status_code == 200


async def test_a_missing_key_is_a_502_that_names_the_setting(tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = gateway_environment(sqlite_url(tmp_path_factory.mktemp("keyless")))
    async with running_gateway(environment) as running:
        for model, setting in (
            ("gpt-4o", "OPENAI_API_KEY"),
            ("claude-3-opus", "ANTHROPIC_API_KEY"),
            ("gemini-2.5-flash", "GOOGLE_API_KEY or GEMINI_API_KEY"),
        ):
            for response in await ask_everywhere(running.http, model):
                assert setting in check_error(response, 502)["message"]
        listed = (await running.http.get("/v1/models")).json()["data"]
        assert not {"gpt-4o", "claude-3-opus", "gemini-2.5-flash"} & {each["id"] for each in listed}
        known = (await running.http.get("/api/v1/models/gpt-4o")).json()
        assert known["available"] is False


BREAKING = {
    "the connection is cut": CutAfter(chunks=2),
    "a chunk is broken": MalformedChunk(after=2),
    "it falls silent": Hang(30, after=2),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("behaviour", BREAKING.values(), ids=BREAKING.keys())
async def test_a_stream_that_breaks_ends_with_an_error_and_charges_what_was_delivered(
    behaviour: Any, model: str, shared_gateway: RunningGateway, upstream: Upstream
) -> None:
    person = await shared_gateway.new_user(f"{model}-{type(behaviour).__name__}")
    await shared_gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": 1_000_000})
    upstream.always(behaviour)
    question = "one two three four five six seven"
    messages = [{"role": "user", "content": question}]
    dialog = (await person.http.post("/api/v1/dialogs", json={"model": model})).json()["id"]
    for path, body in (
        ("/v1/chat/completions", {**CHAT, "model": model, "messages": messages, "stream": True}),
        ("/v1/messages", {**MESSAGES, "model": model, "messages": messages, "stream": True}),
        ("/v1/responses", {"model": model, "input": question, "stream": True}),
        (gemini_path(stream=True).format(model=model), {"contents": [{"parts": [{"text": question}]}]}),
        (f"/api/v1/dialogs/{dialog}/messages", {"content": question, "stream": True}),
    ):
        before = (await person.http.get("/api/v1/users/me/tokens")).json()["balance"]
        response = await person.http.post(path, json=body)
        assert response.status_code == 200
        assert error_of(events_in(response)[-1])["message"], path
        standing = (await person.http.get("/api/v1/users/me/tokens")).json()
        assert 0 < before - standing["balance"] < 100
        assert standing["held"] == 0
    kept = (await person.http.get(f"/api/v1/dialogs/{dialog}/messages")).json()["data"]
    assert kept[-1]["status"] == "interrupted"
    assert kept[-1]["content"]
    await books_are_right(shared_gateway)
