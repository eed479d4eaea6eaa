"""Bodies that are none: every endpoint that takes one refuses them in its caller's dialect, and nothing happens."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.http.surface import (
    ADMIN_KEY,
    CHAT,
    JSON_TYPE,
    MESSAGES,
    NATIVE,
    RESPONSE,
    Scene,
    bad_body_status,
    body_routes,
    check_answer,
    check_error,
    dialect_of,
    nothing_changes,
    send,
    set_scene,
)
from tests.support.gateway import RunningGateway
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
TOO_LARGE = 11 * MIB


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene(shared_gateway: RunningGateway) -> Scene:
    return await set_scene(shared_gateway)


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared_gateway: RunningGateway, shared_upstream: Upstream) -> AsyncIterator[RunningGateway]:
    async with nothing_changes(shared_gateway, shared_upstream):
        yield shared_gateway


NO_JSON = {
    "cut short": b'{"content": "x"',
    "a word": b"hello",
    "single quotes": b"{'content': 'x'}",
    "trailing comma": b'{"content": "x",}',
    "two documents": b'{"content": "x"}{"content": "x"}',
    "invalid UTF-8": b'{"content": "\xff\xfe"}',
    "UTF-16": '{"content": "x"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"content": "x"}',
    "raw NUL": b'{"content": "a\x00b"}',
    "raw NUL first": b'\x00{"content": "x"}',
    "escaped NUL": b'{"content": "a\\u0000b"}',
    "escaped NUL in a name": b'{"a\\u0000b": 1}',
    "escaped NUL deep inside": b'{"metadata": {"a": [{"b": "\\u0000"}]}}',
    "lone high surrogate": b'{"content": "\\ud800"}',
    "lone low surrogate": b'{"content": "\\udc00"}',
    "raw surrogate": b'{"content": "\xed\xa0\x80"}',
    "NaN": b'{"content": NaN}',
    "Infinity": b'{"content": -Infinity}',
    "1e400": b'{"content": 1e400}',
    "nested 2000 deep": b'{"metadata": {"a": ' + b"[" * 2000 + b"]" * 2000 + b"}}",
    "nested 500 deep": b'{"metadata": {"a": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}}",
    "nested 101 deep": b'{"metadata":' + b"[" * 100 + b"]" * 100 + b"}",
    "only brackets": b"[" * 100_000,
}


@pytest.mark.parametrize("raw", NO_JSON.values(), ids=NO_JSON.keys())
async def test_what_is_no_json_that_can_be_stored_is_a_400_everywhere(
    raw: bytes, gateway: RunningGateway, scene: Scene
) -> None:
    for method, template in body_routes(gateway, optional=True):
        error = check_error(await send(gateway.http, method, scene.path(template), raw), 400)
        match dialect_of(template):
            case "native":
                assert error["code"] == "malformed_json"
            case "openai":
                assert (error["type"], error["code"]) == ("invalid_request_error", "malformed_json")
            case "gemini":
                assert (error["status"], error["details"][0]["reason"]) == ("INVALID_ARGUMENT", "malformed_json")
            case "anthropic":
                assert error["type"] == "invalid_request_error"


NO_OBJECT = {"null": b"null", "list": b"[]", "text": b'"x"', "number": b"1", "true": b"true", "a list of it": b"[{}]"}


@pytest.mark.parametrize("raw", NO_OBJECT.values(), ids=NO_OBJECT.keys())
async def test_json_that_is_no_object_is_refused_with_a_sentence(
    raw: bytes, gateway: RunningGateway, scene: Scene
) -> None:
    for method, template in body_routes(gateway):
        error = check_error(await send(gateway.http, method, scene.path(template), raw), bad_body_status(template))
        assert "JSON object" in error["message"]


async def test_an_empty_body_is_refused_with_a_sentence(gateway: RunningGateway, scene: Scene) -> None:
    for method, template in body_routes(gateway):
        error = check_error(await send(gateway.http, method, scene.path(template), b""), bad_body_status(template))
        assert "JSON" in error["message"]


async def test_unknown_fields_are_named_by_native_endpoints(gateway: RunningGateway, scene: Scene) -> None:
    for method, template in body_routes(gateway):
        if dialect_of(template) != NATIVE:
            continue
        error = check_error(await send(gateway.http, method, scene.path(template), {"colour": "red"}), 422)
        assert "colour" in [fault["param"] for fault in error["details"]["errors"]], template


async def test_values_that_were_sent_are_not_sent_back(gateway: RunningGateway, scene: Scene) -> None:
    names = ("password", "content", "title", "metadata", "items", "model", "contents", "requests", "messages", "input")
    body = {"email": "a@b", **{name: ["hunter2hunter2"] for name in names}}
    for method, template in body_routes(gateway):
        response = await send(gateway.http, method, scene.path(template), body)
        check_error(response, bad_body_status(template))
        assert "hunter2" not in response.text


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
)
async def test_native_endpoints_say_which_content_type_they_need(
    content_type: str, gateway: RunningGateway, scene: Scene
) -> None:
    for method, template in body_routes(gateway):
        if dialect_of(template) != NATIVE:
            continue
        headers = {"content-type": content_type}
        response = await gateway.http.request(method, scene.path(template), content=b'{"a": 1}', headers=headers)
        assert "content-type: application/json" in check_error(response, 422)["message"]


@pytest.mark.parametrize("credential", [None, "sk-gw-nobody-has-this-key-0123456789", "a.b.c"])
async def test_bodies_without_good_credentials_are_a_401_everywhere(
    credential: str | None, gateway: RunningGateway, scene: Scene
) -> None:
    stranger = gateway.client(credential)
    for method, template in body_routes(gateway):
        if "/auth/" in template:
            continue
        error = check_error(await send(stranger, method, scene.path(template), {"a": 1}), 401)
        assert "key" in error["message"] or "token" in error["message"].lower() or "credential" in error["message"]


async def test_a_body_announced_too_large_is_a_413_everywhere(gateway: RunningGateway, scene: Scene) -> None:
    """Refused by its length alone: not a byte of it is sent."""
    for method, template in body_routes(gateway):
        head, body = await _raw(gateway, method, scene.path(template), f"content-length: {TOO_LARGE}")
        assert head.startswith("HTTP/1.1 413"), head
        assert "\r\nx-request-id: " in head
        assert '"error"' in body
        assert "10485760" in body


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/messages",
        "/v1/responses",
        "/v1/embeddings",
        "/v1beta/models/gpt-4o:generateContent",
        "/chat",
        "/api/v1/dialogs",
    ],
)
async def test_a_body_that_grows_too_large_is_a_413(path: str, gateway: RunningGateway) -> None:
    """Chunked, so nobody knows its length before."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"content": "'
        for _ in range(TOO_LARGE // MIB):
            yield b"x" * MIB
        yield b'"}'

    error = check_error(await gateway.http.post(path, content=chunks(), headers=JSON_TYPE), 413)
    assert "10485760" in error["message"]
    if dialect_of(path) == NATIVE:
        assert error["code"] == "request_too_large"


async def _raw(gateway: RunningGateway, method: str, path: str, *headers: str) -> tuple[str, str]:
    """Head and body of the answer to a request whose body is never sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    lines = (f"{method} {path} HTTP/1.1", "host: gateway", f"authorization: Bearer {ADMIN_KEY}", *headers)
    writer.write(("\r\n".join((*lines, "content-type: application/json", "connection: close", "", ""))).encode())
    async with asyncio.timeout(10):
        answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return head, body


async def test_a_caller_who_leaves_in_the_middle_of_a_body_does_no_harm(gateway: RunningGateway, scene: Scene) -> None:
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1beta/models/gpt-4o:countTokens", "/chat"):
        _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {ADMIN_KEY}\r\ncontent-length: 100\r\n"
        writer.write(f'{head}content-type: application/json\r\n\r\n{{"content":'.encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert (await gateway.http.get("/api/v1/me")).status_code == 200


HUGE = {
    "a title of 9 MiB": ("/api/v1/dialogs", {"title": "x" * 9 * MIB}),
    "9 MiB of metadata": ("/api/v1/dialogs", {"metadata": {"a": "x" * 9 * MIB}}),
    "a question of 9 MiB": ("/chat", {"content": "x" * 9 * MIB}),
    "a name of 9 MiB": ("/api/v1/api-keys", {"name": "x" * 9 * MIB}),
    "a password of 9 MiB": ("/api/v1/auth/login", {"email": "a@b", "password": "x" * 9 * MIB}),
    "a million models in a chain": ("/api/v1/admin/chains", {"name": "c", "models": ["gpt-4o"] * 1_000_000}),
    "a million stops": ("/v1/chat/completions", {**CHAT, "stop": ["x"] * 1_000_000}),
    "a million stops of Anthropic's": ("/v1/messages", {**MESSAGES, "stop_sequences": ["x"] * 1_000_000}),
    "a model name of 9 MiB": ("/v1/messages", {**MESSAGES, "model": "x" * 9 * MIB}),
    "a million empty messages": ("/v1/chat/completions", {**CHAT, "messages": [{}] * 1_000_000}),
    "a million empty items": ("/v1/responses", {**RESPONSE, "input": [{}] * 1_000_000}),
    "a million items of a conversation": ("/v1/conversations", {"items": [{}] * 1_000_000}),
    "9 MiB of a conversation's metadata": ("/v1/conversations", {"metadata": {"a": "x" * 9 * MIB}}),
    "a response's id of 9 MiB": ("/v1/responses", {**RESPONSE, "previous_response_id": 5, "user": "x" * 9 * MIB}),
    "a million empty contents": ("/v1beta/models/gpt-4o:generateContent", {"contents": [{}] * 1_000_000}),
    "a million empty requests": ("/v1beta/models/gpt-4o:batchEmbedContents", {"requests": [{}] * 1_000_000}),
    "a million tokens": ("/v1/embeddings", {"model": "gpt-4o", "input": [-1] * 1_000_000}),
}


@pytest.mark.parametrize(("path", "body"), HUGE.values(), ids=HUGE.keys())
async def test_huge_values_within_the_limit_are_refused_with_a_short_answer(
    path: str, body: dict, gateway: RunningGateway
) -> None:
    response = await send(gateway.http, "POST", path, body)
    check_error(response, bad_body_status(path))
    assert len(response.content) < 5000


async def test_a_hundred_levels_are_deep_enough_for_anybody(
    shared_gateway: RunningGateway, shared_upstream: Upstream
) -> None:
    nested: list = []
    for _ in range(97):
        nested = [nested]
    made = await shared_gateway.http.post("/api/v1/dialogs", json={"metadata": {"a": nested}})
    check_answer(made)
    assert made.status_code == 201
    assert (await shared_gateway.http.get(f"/api/v1/dialogs/{made.json()['id']}")).json() == made.json()
    relayed = await shared_gateway.http.post("/v1/chat/completions", json={**CHAT, "x_something_new": nested})
    assert relayed.status_code == 200
    assert shared_upstream.requests[-1].json["x_something_new"] == nested
