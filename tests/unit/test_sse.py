"""Server-sent events, against a client scripted at the ASGI level."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping

import pytest
from starlette.responses import Response

from src.api import sse
from src.api.errors import Dialect, error_response
from src.api.sse import KEEPALIVE, EventStream, event
from src.shared.errors import ProvidersFailed, QuotaExceeded
from tests.unit.asgi import Client, http_scope
from tests.unit.support import Gate


class Source:
    """A generator of events that remembers whether it was closed."""

    def __init__(self, *steps: bytes | Exception | Gate) -> None:
        self._steps = steps
        self.closed = 0

    async def events(self) -> AsyncGenerator[bytes]:
        try:
            for step in self._steps:
                if isinstance(step, Gate):
                    await step.wait()
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        finally:
            self.closed += 1


def refused(error: Exception) -> Response:
    assert isinstance(error, ProvidersFailed | QuotaExceeded)
    return error_response(error, Dialect.OPENAI, "req-1")


def stream_of(source: Source, headers: Callable[[], Mapping[str, str]] = dict) -> EventStream:
    return EventStream(source.events(), headers=headers, failed=refused)


async def serve(client: Client, source: Source, headers: Callable[[], Mapping[str, str]] = dict) -> None:
    await stream_of(source, headers)(http_scope(), client.receive, client.send)


async def test_events_are_sent_as_they_come_and_the_body_ends() -> None:
    client, source = Client(b"{}"), Source(b"data: 1\n\n", b"data: 2\n\n")
    await serve(client, source)
    assert (client.status, client.body, source.closed) == (200, b"data: 1\n\ndata: 2\n\n", 1)
    assert client.is_complete


async def test_a_stream_has_the_headers_of_one() -> None:
    client = Client()
    await serve(client, Source(b"data: 1\n\n"), lambda: {"x-gateway-model": "fast"})
    assert client.headers["content-type"].startswith("text/event-stream")
    assert client.headers["cache-control"] == "no-store"
    assert client.headers["x-gateway-model"] == "fast"
    assert "content-length" not in client.headers


async def test_headers_are_asked_for_when_the_first_event_is_there() -> None:
    gate, asked = Gate(), []
    client = Client()
    serving = asyncio.create_task(serve(client, Source(gate, b"data: 1\n\n"), lambda: asked.append(1) or {}))
    await gate.reached.wait()
    assert (asked, client.sent) == ([], [])
    gate.opened.set()
    await serving
    assert asked == [1]


async def test_an_error_before_the_first_event_is_an_ordinary_answer() -> None:
    client, source = Client(), Source(QuotaExceeded("Nothing left."))
    await serve(client, source)
    assert (client.status, client.headers["content-type"], source.closed) == (429, "application/json", 1)
    assert json.loads(client.body)["error"]["code"] == "insufficient_quota"
    assert client.is_complete


async def test_a_stream_without_events_is_an_empty_answer() -> None:
    client = Client()
    await serve(client, Source())
    assert (client.status, client.body, client.is_complete) == (200, b"", True)


async def test_a_fault_in_mid_stream_is_not_hidden() -> None:
    client, source = Client(), Source(b"data: 1\n\n", ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await serve(client, source)
    assert (source.closed, client.is_complete) == (1, False)


async def test_a_client_that_hangs_up_closes_the_source_while_it_waits() -> None:
    gate = Gate()
    client, source = Client(b"{}"), Source(b"data: 1\n\n", gate, b"data: 2\n\n")
    serving = asyncio.create_task(serve(client, source))
    await gate.reached.wait()
    client.leave()
    await serving
    assert (source.closed, client.body) == (1, b"data: 1\n\n")


async def test_a_client_that_hangs_up_before_the_first_event_closes_the_source_too() -> None:
    gate = Gate()
    client, source = Client(), Source(gate)
    serving = asyncio.create_task(serve(client, source))
    await gate.reached.wait()
    client.leave()
    await serving
    assert (source.closed, client.sent) == (1, [])


async def test_a_server_that_stops_closes_the_source() -> None:
    gate = Gate()
    client, source = Client(), Source(b"data: 1\n\n", gate)
    serving = asyncio.create_task(serve(client, source))
    await gate.reached.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert source.closed == 1


async def test_a_client_whose_connection_breaks_closes_the_source() -> None:
    client, source = Client(), Source(b"data: 1\n\n", b"data: 2\n\n")

    async def send(message: object) -> None:
        raise OSError("broken pipe")

    await stream_of(source)(http_scope(), client.receive, send)
    assert source.closed == 1


async def test_a_silent_stream_is_kept_alive_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEPALIVE_S", 0.001)
    before, after = Gate(), Gate()
    client, source = Client(), Source(before, b"data: 1\n\n", after, b"data: 2\n\n")
    serving = asyncio.create_task(serve(client, source))
    await before.reached.wait()
    await asyncio.sleep(0.01)
    assert client.sent == []
    before.opened.set()
    await after.reached.wait()
    while KEEPALIVE not in client.body:
        client.heard.clear()
        await client.heard.wait()
    after.opened.set()
    await serving
    assert client.body.replace(KEEPALIVE, b"") == b"data: 1\n\ndata: 2\n\n"
    assert client.is_complete


def test_an_event_is_json_with_a_name_and_an_id_where_they_are_given() -> None:
    assert event({"a": "ä\n"}) == 'data: {"a":"ä\\n"}\n\n'.encode()
    assert event({}, name="message.delta", event_id="3") == b"event: message.delta\nid: 3\ndata: {}\n\n"
