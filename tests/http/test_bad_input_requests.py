"""Paths, methods, queries and headers that are wrong or odd: answered in the caller's dialect, and nothing happens."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.http.surface import (
    ADMIN_KEY,
    ANTHROPIC,
    CHAT,
    CONTENTS,
    GEMINI,
    MESSAGES,
    NATIVE,
    OPENAI,
    RESPONSE,
    Scene,
    check_answer,
    check_error,
    nothing_changes,
    set_scene,
)
from tests.support.gateway import RunningGateway
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

ODD_IDS = (
    "not-a-uuid", "%00", "a%00b", "%20", "%2e%2e", "%2F", "%ff", "%ed%a0%80", "x" * 3000, "0", "-1", "null", "1e400",
    "01a1fd81a49e7121a80f58f0768bdddee", "{01a1fd81-a49e-7121-a80f-58f0768bddde}",
    "01a1fd81-a49e-7121-a80f-58f0768bddde", "' OR 1=1 --", "%F0%9F%91%A9", "$(id)", "..;",
)  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene(shared_gateway: RunningGateway) -> Scene:
    return await set_scene(shared_gateway)


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared_gateway: RunningGateway, shared_upstream: Upstream) -> AsyncIterator[RunningGateway]:
    async with nothing_changes(shared_gateway, shared_upstream):
        yield shared_gateway


@pytest.mark.parametrize("odd", ODD_IDS, ids=lambda odd: odd[:40])
async def test_an_id_that_names_nothing_is_a_404(odd: str, gateway: RunningGateway, scene: Scene) -> None:
    dialog = f"/api/v1/dialogs/{scene.dialog_id}"
    for method, path, body in (
        ("GET", f"/api/v1/dialogs/{odd}", None),
        ("PATCH", f"/api/v1/dialogs/{odd}", {"title": "x"}),
        ("DELETE", f"/api/v1/dialogs/{odd}", None),
        ("GET", f"/api/v1/dialogs/{odd}/messages", None),
        ("POST", f"/api/v1/dialogs/{odd}/messages", {"content": "x", "model": "gpt-4o"}),
        ("GET", f"{dialog}/messages/{odd}", None),
        ("DELETE", f"/api/v1/api-keys/{odd}", None),
        ("POST", f"/api/v1/api-keys/{odd}/rotate", None),
        ("GET", f"/api/v1/admin/tenants/{odd}", None),
        ("PATCH", f"/api/v1/admin/tenants/{odd}", {"name": "x"}),
        ("GET", f"/api/v1/admin/users/{odd}", None),
        ("PATCH", f"/api/v1/admin/users/{odd}", {"name": "x"}),
        ("POST", f"/api/v1/admin/users/{odd}/tokens", {"amount": 1}),
        ("GET", f"/api/v1/admin/users/{odd}/tokens", None),
        ("GET", f"/api/v1/admin/users/{odd}/tokens/history", None),
        ("GET", f"/api/v1/admin/users/{odd}/limits", None),
        ("PATCH", f"/api/v1/admin/users/{odd}/limits", {"tokens_per_day": 1}),
        ("DELETE", f"/api/v1/admin/rate-limits/{odd}", None),
        ("GET", f"/api/v1/admin/quotas/{odd}", None),
        ("DELETE", f"/api/v1/admin/quotas/{odd}", None),
        ("POST", f"/api/v1/admin/quotas/{odd}/adjustments", {"amount": 1}),
        ("GET", f"/api/v1/admin/quotas/{odd}/entries", None),
        ("GET", f"/api/v1/models/{odd}", None),
        ("GET", f"/v1/models/{odd}", None),
        ("POST", f"/api/v1/admin/models/{odd}/prices", {"input": 1, "output": 1}),
        ("GET", f"/api/v1/admin/models/{odd}/prices", None),
        ("DELETE", f"/api/v1/admin/chains/{odd}", None),
        ("GET", f"/history/{odd}", None),
        ("GET", f"/v1/responses/{odd}", None),
        ("GET", f"/v1/responses/{odd}?stream=true", None),
        ("DELETE", f"/v1/responses/{odd}", None),
        ("POST", f"/v1/responses/{odd}/cancel", None),
        ("GET", f"/v1/responses/{odd}/input_items", None),
        ("GET", f"/v1/conversations/{odd}", None),
        ("POST", f"/v1/conversations/{odd}", {"metadata": {"a": "b"}}),
        ("DELETE", f"/v1/conversations/{odd}", None),
        ("GET", f"/v1/conversations/{odd}/items", None),
        ("POST", f"/v1/conversations/{odd}/items", {"items": [{"role": "user", "content": "x"}]}),
        ("GET", f"/v1/conversations/{odd}/items/{odd}", None),
        ("GET", f"/v1/conversations/{scene.conversation_id}/items/{odd}", None),
        ("DELETE", f"/v1/conversations/{scene.conversation_id}/items/{odd}", None),
        ("GET", f"/v1beta/models/{odd}", None),
        ("POST", f"/v1beta/models/{odd}:generateContent", CONTENTS),
        ("POST", f"/v1/models/{odd}:countTokens", CONTENTS),
        ("POST", f"/v1beta/models/{odd}", CONTENTS),
        ("POST", f"/v1beta/models/gpt-4o:{odd}", CONTENTS),
    ):
        check_error(await gateway.http.request(method, path, json=body), 404)


QUERIES = {
    "limit": ("0", "-1", "101", "abc", "", "1.5", "1e400", "true", "9" * 30, "%00"),
    "after": ("nonsense", "", "%00", "1", "x" * 3000),
    "before": ("nonsense", "", "%00", "1", "x" * 3000),
    "q": ("%00", "a%00b", "x" * 201),
    "tenant_id": ("nonsense", "", "%00", "1"),
    "scope": ("nonsense", "", "%00", "USER"),
    "scope_id": ("nonsense", "", "%00", "1"),
    "since": ("nonsense", "", "2026-02-30", "0000-01-01", "0001-01-01", "9999-12-31", "%00", "1e400"),
    "until": ("nonsense", "", "2026-02-30", "10000-01-01", "%00"),
}
LISTS = {
    "/api/v1/dialogs": ("limit", "after", "before", "q"),
    "/api/v1/dialogs/{dialog_id}/messages": ("limit", "after", "before"),
    "/api/v1/api-keys": ("limit", "after", "before"),
    "/api/v1/users/me/tokens/history": ("limit", "after", "before"),
    "/api/v1/usage": ("since", "until"),
    "/api/v1/admin/tenants": ("limit", "after", "before"),
    "/api/v1/admin/users": ("limit", "after", "before", "tenant_id"),
    "/api/v1/admin/api-keys": ("limit", "after", "before", "tenant_id"),
    "/api/v1/admin/audit": ("limit", "after", "before", "tenant_id"),
    "/api/v1/admin/quotas": ("limit", "after", "before", "tenant_id", "scope", "scope_id"),
    "/api/v1/admin/rate-limits": ("limit", "after", "before", "tenant_id", "scope"),
    "/api/v1/admin/stats": ("since", "until", "tenant_id"),
    "/history/{user_id}": ("limit",),
}


@pytest.mark.parametrize(("path", "names"), LISTS.items(), ids=LISTS.keys())
async def test_a_wrong_query_parameter_is_a_422_that_names_it(
    path: str, names: tuple[str, ...], gateway: RunningGateway, scene: Scene
) -> None:
    for name in names:
        for value in QUERIES[name]:
            error = check_error(await gateway.http.get(f"{scene.path(path)}?{name}={value}"), 422)
            assert error["param"] == name, value


ODD_QUERIES = (
    "unknown=1", "limit=5&limit=6", "&&&", "=", "%00=1", "%ff=%ff", "after={uuid}", "before={uuid}", "q=%25", "q=_",
    "q=%5C", "q='", "q=%ff", "q=%ed%a0%80", "q=%F0%9F%91%A9", "after={uuid}&before={uuid}", "until=0001-01-01",
    "until=9999-12-31", "x=" + "x" * 3000,
)  # fmt: skip


@pytest.mark.parametrize("query", ODD_QUERIES, ids=lambda query: query[:30])
async def test_an_odd_query_finds_what_there_is(query: str, gateway: RunningGateway, scene: Scene) -> None:
    for path in LISTS:
        given = query.replace("{uuid}", scene.dialog_id)
        response = await gateway.http.get(f"{scene.path(path)}?{given}")
        check_answer(response)
        assert response.status_code == 200, f"{path}: {response.text}"


ITEM_QUERIES = {
    "limit": ("0", "-1", "101", "abc", "", "1.5", "true", "9" * 30, "%00"),
    "order": ("x", "", "ASC", "newest", "%00", "1"),
    "after": ("nonsense", "", "%00", "msg_0123", "msg_01a1fd81a49e7121a80f58f0768bddde", "x" * 3000),
}
EVENT_QUERIES = {
    "starting_after": ("abc", "-1", "1.5", "", "9" * 30, "%00"),
    "stream": ("abc", "2", "", "%00"),
}
PAGE_QUERIES = {"pageSize": ("-1", "abc", "1.5", "", "%00"), "pageToken": ("x" * 201,)}


async def test_a_wrong_query_parameter_of_a_dialect_is_a_400_that_names_it(
    shared_gateway: RunningGateway, shared_upstream: Upstream
) -> None:
    http = shared_gateway.http
    made = (await http.post("/v1/conversations", json={"items": [{"role": "user", "content": "x"}]})).json()
    answered = (await http.post("/v1/responses", json=RESPONSE)).json()
    tables = {
        f"/v1/conversations/{made['id']}/items": ITEM_QUERIES,
        f"/v1/responses/{answered['id']}/input_items": ITEM_QUERIES,
        f"/v1/responses/{answered['id']}": EVENT_QUERIES,
        "/v1beta/models": PAGE_QUERIES,
    }
    async with nothing_changes(shared_gateway, shared_upstream):
        for path, table in tables.items():
            for name, values in table.items():
                for value in values:
                    error = check_error(await http.get(f"{path}?{name}={value}&unknown=1"), 400)
                    assert name in error["message"], f"{path} {name}={value[:20]}: {error}"
            assert (await http.get(f"{path}?unknown=1&%00=1&%ff=%ff&{'x' * 3000}=1")).status_code == 200


UNKNOWN_PATHS = {
    "/nothing": NATIVE,
    "/api": NATIVE,
    "/api/v1": NATIVE,
    "/api/v1/": NATIVE,
    "/api/v1/nothing": NATIVE,
    "/api/v1/dialogs/": NATIVE,
    "/api/v2/dialogs": NATIVE,
    "/API/V1/DIALOGS": NATIVE,
    "/chat/": NATIVE,
    "/.env": NATIVE,
    "/%2e%2e/%2e%2e/etc/passwd": NATIVE,
    "/%00": NATIVE,
    "/v1/nothing": OPENAI,
    "/v1/chat": OPENAI,
    "/v1/chat/completions/": OPENAI,
    "/v1/engines/x/completions": OPENAI,
    "/v1/messages/": ANTHROPIC,
    "/v1/messages/nothing": ANTHROPIC,
    "/v1/messages/count_tokens/": ANTHROPIC,
    "/v1/responses/": OPENAI,
    "/v1/responses/x/nothing": OPENAI,
    "/v1/conversations/": OPENAI,
    "/v1/conversations/x/nothing": OPENAI,
    "/v1/conversations/x/items/y/z": OPENAI,
    "/v1/embeddings/": OPENAI,
    "/v1beta/nothing": GEMINI,
    "/v1beta/files": GEMINI,
    "/v1beta/cachedContents/x": GEMINI,
}


@pytest.mark.parametrize(("path", "dialect"), UNKNOWN_PATHS.items(), ids=UNKNOWN_PATHS.keys())
async def test_an_unknown_path_is_a_404_in_the_dialect(path: str, dialect: str, gateway: RunningGateway) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
        for http in (gateway.http, gateway.client(None)):
            check_error(await http.request(method, path), 404, dialect)


WRONG_METHODS = {
    "/": ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"),
    "/chat": ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"),
    "/api/v1/me": ("POST", "PUT", "DELETE", "OPTIONS"),
    "/api/v1/dialogs": ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"),
    "/api/v1/auth/login": ("GET", "PUT", "DELETE", "OPTIONS"),
    "/api/v1/admin/tenants": ("PUT", "DELETE", "PATCH", "OPTIONS"),
    "/v1/chat/completions": ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"),
    "/v1/models": ("PUT", "DELETE", "PATCH", "OPTIONS"),
    "/v1/messages": ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"),
    "/v1/messages/count_tokens": ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"),
    "/v1/responses": ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"),
    "/v1/responses/x": ("POST", "PUT", "PATCH", "OPTIONS"),
    "/v1/responses/x/cancel": ("GET", "PUT", "DELETE", "PATCH"),
    "/v1/responses/x/input_items": ("POST", "PUT", "DELETE", "PATCH"),
    "/v1/conversations": ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"),
    "/v1/conversations/x": ("PUT", "PATCH", "OPTIONS"),
    "/v1/conversations/x/items": ("PUT", "DELETE", "PATCH"),
    "/v1/conversations/x/items/y": ("POST", "PUT", "PATCH"),
    "/v1/embeddings": ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"),
    "/v1beta/models": ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"),
    "/v1beta/models/gpt-4o:generateContent": ("PUT", "DELETE", "PATCH", "OPTIONS"),
    "/v1/models/gpt-4o:streamGenerateContent": ("PUT", "DELETE", "PATCH", "OPTIONS"),
    "/v1beta/tunedModels/x:generateContent": ("GET", "PUT", "DELETE", "PATCH"),
}


@pytest.mark.parametrize(("path", "methods"), WRONG_METHODS.items(), ids=WRONG_METHODS.keys())
async def test_a_wrong_method_is_a_405_that_says_which_are_right(
    path: str, methods: tuple[str, ...], gateway: RunningGateway
) -> None:
    for method in methods:
        response = await gateway.http.request(method, path)
        error = check_error(response, 405)
        assert response.headers["allow"]
        assert method not in response.headers["allow"].split(", ")
        assert "method" in error["message"]


async def test_probes_of_the_root_are_answered_without_credentials(gateway: RunningGateway) -> None:
    """Claude Code sends HEAD / before anything else."""
    stranger = gateway.client(None)
    head = await stranger.head("/")
    check_answer(head)
    assert (head.status_code, head.content) == (200, b"")
    root = await stranger.get("/")
    assert root.json()["name"] == "LLM Gateway"
    assert root.json()["status"] == "running"


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer\t", "Basic dXNlcjpwYXNz", "sk-gw-without-a-scheme", "Bearer x y", "Bearer " + "x" * 9000,
     "Bearer \xff\xfe", "Bearer a.b.c", "Bearer ..", "Bearer eyJhbGciOiJub25lIn0.e30.", "Token abc"],
    ids=lambda text: text[:30],
)  # fmt: skip
async def test_credentials_that_are_none_are_a_401_in_the_dialect(authorization: str, gateway: RunningGateway) -> None:
    headers = {b"authorization": authorization.encode("latin-1").rstrip()}
    stranger = gateway.client(None)
    native = check_error(await stranger.get("/api/v1/me", headers=headers), 401)
    assert native["type"] == "invalid_api_key"
    openai = check_error(await stranger.post("/v1/chat/completions", json=CHAT, headers=headers), 401)
    assert openai["code"] == "invalid_api_key"
    anthropic = check_error(await stranger.post("/v1/messages", json=MESSAGES, headers=headers), 401)
    assert anthropic["type"] == "authentication_error"
    listed = await stranger.get("/v1/models", headers={**headers, b"anthropic-version": b"2023-06-01"})
    assert check_error(listed, 401, ANTHROPIC)["type"] == "authentication_error"
    for method, path in (("POST", "/v1/responses"), ("GET", "/v1/conversations/x"), ("POST", "/v1/embeddings")):
        error = check_error(await stranger.request(method, path, headers=headers), 401)
        assert error["code"] == "invalid_api_key"
    for path in ("/v1beta/models/gpt-4o:generateContent", "/v1/models/gpt-4o:countTokens", "/v1/tunedModels/x:y"):
        error = check_error(await stranger.post(path, json=CONTENTS, headers=headers), 401)
        assert error["status"] == "UNAUTHENTICATED"


@pytest.mark.parametrize("key", ["", "x", "sk-gw-nobody-has-this-key-0123456789", "%00", "%ff", "x" * 9000, "a.b.c"])
async def test_a_key_in_an_address_is_a_401_in_googles_dialect_where_it_is_none(
    key: str, gateway: RunningGateway
) -> None:
    stranger = gateway.client(None)
    for path in ("/v1beta/models/gpt-4o:generateContent", "/v1/models/gpt-4o:streamGenerateContent"):
        error = check_error(await stranger.post(f"{path}?key={key}&alt=sse", json=CONTENTS), 401)
        assert error["status"] == "UNAUTHENTICATED"
    for path in ("/v1beta/models", "/v1/models", "/v1/models/gpt-4o"):
        assert check_error(await stranger.get(f"{path}?key={key}"), 401, GEMINI)["status"] == "UNAUTHENTICATED"


async def test_a_key_in_an_address_counts_for_googles_paths_alone(gateway: RunningGateway) -> None:
    stranger = gateway.client(None)
    for path in ("/v1beta/models", "/v1/models"):
        assert (await stranger.get(f"{path}?key={ADMIN_KEY}")).status_code == 200
    for method, path in (("GET", "/api/v1/me"), ("POST", "/v1/responses"), ("GET", "/v1/conversations/x")):
        check_error(await stranger.request(method, f"{path}?key={ADMIN_KEY}"), 401)


@pytest.mark.parametrize("given", ["abc-1", "req_0123456789", "a:b/c.d=e+f", "x" * 128])
async def test_a_sane_request_id_is_kept(given: str, gateway: RunningGateway) -> None:
    for path in ("/", "/nothing", "/v1/nothing", "/api/v1/me"):
        response = await gateway.http.get(path, headers={"x-request-id": given})
        assert response.headers["x-request-id"] == response.headers["request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a,b", "<script>", "a\tb", "ä"])
async def test_an_odd_request_id_is_replaced(given: str, gateway: RunningGateway) -> None:
    response = await gateway.http.get("/", headers={b"x-request-id": given.encode("latin-1")})
    check_answer(response)
    assert response.status_code == 200
    assert response.headers["x-request-id"] not in ("", given)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET nothing HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET http://elsewhere/ HTTP/1.1\r\nhost: x\r\n\r\n",
        b"NONSENSE / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /chat HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /chat HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /chat HTTP/1.1\r\nhost: x\r\ncontent-length: \xb2\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-request-id: a\r\nx-request-id: b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100 + b"\r\n\r\n",
    ],
    ids=lambda raw: raw[:40].decode("latin-1").replace("\r\n", "|").replace("\x00", "0"),
)
async def test_what_is_hardly_http_never_ends_in_a_fault(request_bytes: bytes, gateway: RunningGateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(request_bytes)
    writer.write_eof()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert b" 500 " not in answer.partition(b"\r\n")[0]
    assert b"Traceback" not in answer
    assert ADMIN_KEY.encode() not in answer
    assert (await gateway.http.get("/api/v1/me")).status_code == 200


async def test_the_document_of_the_api_is_served_and_whole(gateway: RunningGateway) -> None:
    document = (await gateway.client(None).get("/openapi.json")).json()
    operations = [each for path in document["paths"].values() for each in path.values()]
    names = [each["operationId"] for each in operations]
    assert len(names) == len(set(names))
    assert "/api/v1/dialogs/{dialog_id}/messages" in document["paths"]
    for path in ("/v1/responses", "/v1/conversations/{name}/items", "/v1/embeddings", "/v1beta/models/{target}"):
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema == {"type": "object", "additionalProperties": True}
    schemes = document["components"]["securitySchemes"]
    assert [{name: []} for name in schemes] == document["security"]
    sent_as = {(each["in"], each["name"]) for each in schemes.values() if each["type"] == "apiKey"}
    assert sent_as == {("header", "x-api-key"), ("header", "x-goog-api-key"), ("query", "key")}
    assert (await gateway.client(None).get("/docs")).status_code == 200
