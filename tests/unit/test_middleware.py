"""What surrounds every request."""

import json
import re

import pytest
import structlog
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from src.api.middleware import RequestScope
from src.shared.errors import QuotaExceeded
from src.shared.ids import parse_id
from tests.unit.asgi import Client, http_scope

SECRET = "sk-gw-a-very-secret-key"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body it was sent."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await PlainTextResponse(body, headers={"x-request-id": "the-app's"})(scope, receive, send)


async def ask(client: Client, app=echo, *, scope: Scope | None = None, most: int = 10) -> None:
    scope = http_scope() if scope is None else scope
    await RequestScope(app, max_body_bytes=most)(scope, client.receive, client.send)


def raising(error: Exception):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


@pytest.fixture
def lines():
    with structlog.testing.capture_logs() as captured:
        yield captured


async def test_every_answer_carries_an_id_of_ours() -> None:
    client = Client(b"hello")
    scope = http_scope()
    await ask(client, scope=scope)
    found = client.headers["x-request-id"]
    assert parse_id(found) is not None
    assert client.headers["request-id"] == found == scope["state"]["request_id"]
    assert client.body == b"hello"


@pytest.mark.parametrize("given", ["req-1", "a" * 128, "Ab9._:/+=-"])
async def test_the_callers_own_id_is_kept(given: str) -> None:
    client = Client(b"hello")
    await ask(client, scope=http_scope(headers={"x-request-id": given}))
    assert client.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a" * 129, "two words", "ünfug", "a\n", 'x"; drop', "<script>"])
async def test_an_id_that_is_not_sane_is_replaced(given: str) -> None:
    client = Client(b"hello")
    await ask(client, scope=http_scope(headers={"x-request-id": given}))
    assert client.headers["x-request-id"] != given
    assert parse_id(client.headers["x-request-id"]) is not None


async def test_a_body_at_the_limit_passes() -> None:
    client = Client(b"12345", b"67890")
    await ask(client, scope=http_scope(headers={"content-length": "10"}))
    assert (client.status, client.body) == (200, b"1234567890")


@pytest.mark.parametrize("length", ["11", "9" * 5000])
async def test_a_body_announced_too_large_is_refused_unread(length: str) -> None:
    client = Client(b"12345678901")
    await ask(client, scope=http_scope("/v1/messages", {"content-length": length}))
    assert client.status == 413
    assert json.loads(client.body)["error"]["type"] == "request_too_large"
    assert client.headers["request-id"] == json.loads(client.body)["request_id"]
    assert (await client.receive())["body"] == b"12345678901"


@pytest.mark.parametrize("length", [None, "1", "many", "-5", "\xb2"])
async def test_a_body_that_lies_about_its_length_is_cut_at_the_limit(length: str | None) -> None:
    client = Client(b"123456", b"78901", b"never read")
    await ask(client, scope=http_scope(headers={} if length is None else {"content-length": length}))
    assert client.status == 413
    assert json.loads(client.body)["error"]["code"] == "request_too_large"
    assert (await client.receive())["body"] == b"never read"


async def test_an_error_of_ours_becomes_an_answer_in_the_callers_dialect() -> None:
    client = Client(b"")
    await ask(client, raising(QuotaExceeded("Nothing left.")), scope=http_scope("/v1/chat/completions"))
    assert (client.status, client.headers["x-should-retry"]) == (429, "false")
    assert json.loads(client.body)["error"]["code"] == "insufficient_quota"


async def test_a_fault_becomes_a_500_that_gives_nothing_away(lines) -> None:
    client = Client(b"")
    await ask(client, raising(ZeroDivisionError(SECRET)))
    error = json.loads(client.body)["error"]
    assert (client.status, error["code"]) == (500, "internal_error")
    assert error["request_id"] == client.headers["x-request-id"]
    assert not re.search(rb"Traceback|ZeroDivision|sk-gw|\.py", client.body)
    assert [line["event"] for line in lines] == ["unhandled_error", "request"]
    assert lines[0]["exc_info"]


async def test_a_fault_in_mid_answer_begins_no_second_one(lines) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ZeroDivisionError

    client = Client(b"")
    await ask(client, app)
    assert (client.status, client.body, client.is_complete) == (200, b"half", False)
    assert lines[-1]["status"] == 200


async def test_a_request_is_logged_in_one_line_without_what_it_carried(lines) -> None:
    scope = http_scope("/chat", {"authorization": f"Bearer {SECRET}"}) | {"query_string": f"key={SECRET}".encode()}
    await ask(Client(b"a prompt"), scope=scope)
    (line,) = lines
    assert (line["event"], line["method"], line["path"], line["status"]) == ("request", "POST", "/chat", 200)
    assert line["duration_ms"] >= 0
    assert SECRET not in repr(line)
    assert "a prompt" not in repr(line)


async def test_a_request_without_an_answer_is_logged_as_left(lines) -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        return None

    await ask(Client(b""), silent)
    assert lines[0]["status"] == 499


async def test_the_id_is_in_every_line_logged_meanwhile_and_in_none_of_the_next_request() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(structlog.contextvars.get_contextvars()))
        structlog.contextvars.bind_contextvars(user="me")
        await echo(scope, receive, send)

    for name in ("one", "two"):
        await ask(Client(b""), app, scope=http_scope(headers={"x-request-id": name}))
    assert seen == [{"request_id": "one"}, {"request_id": "two"}]
    structlog.contextvars.clear_contextvars()


async def test_what_is_no_request_passes_untouched() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send))

    client = Client()
    scope: Scope = {"type": "lifespan"}
    await ask(client, app, scope=scope)
    assert seen == [(scope, client.receive, client.send)]
