"""The relay lane when things go wrong: every fault has its kind, no message tells too much, nothing is left open."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson
import pytest
import pytest_asyncio

from src.domain.catalog.model import WireFormat
from src.domain.completion.model import Failure, WireChunk
from src.integrations.llm import relay as relay_module
from tests.contracts.relaying import (
    ANTHROPIC,
    EVERY_FORMAT,
    GOOGLE,
    OPENAI,
    RESPONSES,
    SECRET,
    TWO_WORDS,
    Relays,
    asking,
    delta,
    failure_of,
    raw_server,
    relays,
    sse,
    writing,
)
from tests.support.processes import free_port
from tests.support.upstream import (
    Answer,
    Behaviour,
    CutAfter,
    ErrorEvent,
    Fail,
    Garbage,
    Hang,
    MalformedChunk,
    ResetBeforeAnswer,
    Upstream,
)


@pytest_asyncio.fixture
async def relay_to() -> AsyncIterator[Relays]:
    async with relays() as make:
        yield make


BEFORE_THE_ANSWER: list[tuple[Behaviour, Failure]] = [
    (Fail(status=400), Failure.CALLER),
    (Fail(status=401), Failure.CREDENTIALS),
    (Fail(status=403), Failure.CREDENTIALS),
    (Fail(status=404), Failure.UNKNOWN_MODEL),
    (Fail(status=408), Failure.TIMEOUT),
    (Fail(status=413), Failure.CALLER),
    (Fail(status=422, body={"detail": "max_tokens: too many"}), Failure.CALLER),
    (Fail(status=429, headers={"retry-after": "7"}), Failure.RATE_LIMITED),
    (Fail(status=500), Failure.SERVER),
    (Fail(status=503, body=b"<html>"), Failure.SERVER),
    (Fail(status=529), Failure.SERVER),
    (Fail(status=302, headers={"location": "http://127.0.0.1:1/"}), Failure.MALFORMED),
    (Garbage(), Failure.MALFORMED),
    (Garbage(b'{"choices":[]}', content_type="application/json"), Failure.MALFORMED),
    (Garbage(b"[1]", content_type="application/json"), Failure.MALFORMED),
    (ResetBeforeAnswer(), Failure.DROPPED),
    (Hang(0.0), Failure.DROPPED),
    (Hang(30.0), Failure.TIMEOUT),
]


@pytest.mark.parametrize("kind", EVERY_FORMAT)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("behaviour", "failure_kind"), BEFORE_THE_ANSWER)
async def test_a_fault_before_the_answer_has_its_kind(
    upstream: Upstream,
    relay_to: Relays,
    kind: WireFormat,
    stream: bool,
    behaviour: Behaviour,
    failure_kind: Failure,
) -> None:
    upstream.script(behaviour)
    failure, delivered = await failure_of(relay_to(kind, upstream.url, 0.2), asking(kind, stream=stream))
    assert (failure.kind, delivered) == (failure_kind, b"")
    assert "127.0.0.1" not in failure.message
    if isinstance(behaviour, Fail):
        assert failure.status == behaviour.status
        assert failure.retry_after_s == (7.0 if behaviour.status == 429 else None)


FAULTS = [{"type": "x", "loc": ["body", "max_tokens"], "msg": "too many"}, {"msg": "no"}, 5]


@pytest.mark.parametrize(
    ("behaviour", "failure_kind", "said"),
    [
        (Fail(status=422, body={"detail": FAULTS}), Failure.CALLER, "max_tokens: too many; no"),
        (Fail(status=422, body={"message": {"detail": FAULTS[:1]}}), Failure.CALLER, "max_tokens: too many"),
        (Fail(status=400, body={"error": "No such voice."}), Failure.CALLER, "No such voice."),
        (Fail(status=429, code="insufficient_quota"), Failure.CREDENTIALS, "credentials"),
    ],
)
async def test_what_servers_like_openai_say_is_told(
    upstream: Upstream, relay_to: Relays, behaviour: Behaviour, failure_kind: Failure, said: str
) -> None:
    upstream.script(behaviour)
    failure, _ = await failure_of(relay_to(OPENAI, upstream.url), asking(OPENAI))
    assert (failure.kind, said in failure.message) == (failure_kind, True)


IN_A_STREAM: list[tuple[Behaviour, Failure]] = [
    (CutAfter(1), Failure.DROPPED),
    (Hang(0.0, after=1), Failure.DROPPED),
    (Hang(30.0, after=1), Failure.TIMEOUT),
    (MalformedChunk(1), Failure.MALFORMED),
    (ErrorEvent(1), Failure.SERVER),
    (ErrorEvent(1, status=429), Failure.RATE_LIMITED),
]
THE_CALLERS = (ErrorEvent(1, status=400), Failure.CALLER)
"""Responses have no status for this, but codes that say what is wrong."""


@pytest.mark.parametrize(
    ("kind", "behaviour", "failure_kind"),
    [
        *((kind, *fault) for kind in EVERY_FORMAT for fault in IN_A_STREAM),
        *((kind, *THE_CALLERS) for kind in EVERY_FORMAT if kind is not RESPONSES),
    ],
)
async def test_a_fault_in_a_stream_comes_after_what_was_delivered(
    upstream: Upstream, relay_to: Relays, kind: WireFormat, behaviour: Behaviour, failure_kind: Failure
) -> None:
    upstream.script(behaviour)
    failure, delivered = await failure_of(relay_to(kind, upstream.url, 0.2), asking(kind, stream=True))
    assert failure.kind is failure_kind
    assert b"echo: " in delivered
    assert b"scripted failure" not in delivered
    assert delivered.endswith((b"\n\n", b"\r\n\r\n"))


@pytest.mark.parametrize("kind", EVERY_FORMAT)
@pytest.mark.parametrize(
    ("behaviour", "failure_kind"), [(CutAfter(), Failure.DROPPED), (MalformedChunk(), Failure.MALFORMED)]
)
async def test_half_an_answer_is_none(
    upstream: Upstream, relay_to: Relays, kind: WireFormat, behaviour: Behaviour, failure_kind: Failure
) -> None:
    upstream.script(behaviour)
    failure, _ = await failure_of(relay_to(kind, upstream.url), asking(kind))
    assert failure.kind is failure_kind


@pytest.mark.parametrize("error", [{"message": "no", "code": 429}, {"type": "rate_limit_error"}])
async def test_an_error_object_with_status_200_is_an_error(
    upstream: Upstream, relay_to: Relays, error: dict[str, Any]
) -> None:
    upstream.always(Garbage(orjson.dumps({"type": "error", "error": error}), content_type="application/json"))
    for kind in EVERY_FORMAT:
        failure, _ = await failure_of(relay_to(kind, upstream.url), asking(kind))
        assert failure.kind is Failure.RATE_LIMITED


async def test_a_choice_that_broke_off_is_an_error(upstream: Upstream, relay_to: Relays) -> None:
    """As routers tell of the providers behind them."""
    choice = {"message": {"content": "so f"}, "finish_reason": "error", "error": {"code": 429, "message": "slow"}}
    upstream.script(Garbage(orjson.dumps({"choices": [choice]}), content_type="application/json"))
    upstream.script(Garbage(sse(delta("so f"), {"choices": [{**choice, "delta": {}}]}), "text/event-stream"))
    for stream in (False, True):
        failure, _ = await failure_of(relay_to(OPENAI, upstream.url), asking(OPENAI, stream=stream))
        assert failure.kind is Failure.RATE_LIMITED


@pytest.mark.parametrize("kind", [OPENAI, ANTHROPIC, GOOGLE])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_end_without_a_reason_is_an_error(
    upstream: Upstream, relay_to: Relays, kind: WireFormat, stream: bool
) -> None:
    upstream.always(Answer(finish="none"))
    failure, _ = await failure_of(relay_to(kind, upstream.url), asking(kind, stream=stream))
    # Google's streams have no other last word: without it they were cut.
    assert failure.kind is (Failure.DROPPED if kind is GOOGLE and stream else Failure.MALFORMED)


@pytest.mark.parametrize("garbage", [b"<p>\n\n", b"\xff\x00\n\n", b"dbta: {}\n\n"])
async def test_garbage_between_events_is_never_handed_on(relay_to: Relays, garbage: bytes) -> None:
    """However many events come at once."""
    for events in ([sse(delta("a")), garbage, sse(*TWO_WORDS)], [sse(delta("a")) + garbage + sse(*TWO_WORDS)]):
        async with raw_server(writing(sse(delta("x")), *events, pause_s=0.02)) as url:
            failure, delivered = await failure_of(relay_to(OPENAI, url), asking(OPENAI, stream=True))
        assert failure.kind is Failure.MALFORMED
        assert delivered == sse(delta("x"), delta("a"))


async def test_a_refusal_is_quoted_without_addresses_and_keys(upstream: Upstream, relay_to: Relays) -> None:
    said = f"bad 'seed': see https://10.0.0.1:9/x?key=1 {SECRET} sk-other-key-0123456789\n" + "long " * 1000
    upstream.always(Fail(status=400, message=said))
    for kind in EVERY_FORMAT:
        failure, _ = await failure_of(relay_to(kind, upstream.url), asking(kind))
        assert failure.message.startswith("bad 'seed': see ")
        assert len(failure.message) <= 500
        assert not any(word in failure.message for word in ("10.0.0.1", "sk-", "\n"))


async def test_a_port_where_nobody_listens_is_a_connect_failure(relay_to: Relays) -> None:
    failure, _ = await failure_of(relay_to(OPENAI, f"http://127.0.0.1:{free_port()}"), asking(OPENAI))
    assert failure.kind is Failure.CONNECT
    assert "127.0.0.1" not in failure.message


async def test_a_server_that_takes_no_connections_is_a_connect_failure(relay_to: Relays) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address: tuple[str, int] = full.getsockname()
        waiting = [socket.socket() for _ in range(8)]
        try:
            for connection in waiting:
                connection.setblocking(False)
                connection.connect_ex(address)
            failure, _ = await failure_of(relay_to(OPENAI, f"http://127.0.0.1:{address[1]}"), asking(OPENAI))
        finally:
            for connection in waiting:
                connection.close()
    assert failure.kind is Failure.CONNECT


@pytest.mark.parametrize("kind", EVERY_FORMAT)
async def test_closing_a_stream_closes_the_upstream(upstream: Upstream, relay_to: Relays, kind: WireFormat) -> None:
    upstream.script(Hang(30.0, after=2))
    async with aclosing(relay_to(kind, upstream.url).stream(asking(kind, stream=True))) as events:
        async for event in events:
            assert isinstance(event, WireChunk)
            break
    await upstream.requests[0].wait_disconnected(1.0)


@pytest.mark.parametrize("kind", EVERY_FORMAT)
@pytest.mark.parametrize("behaviour", [Hang(30.0), Hang(30.0, after=1)])
async def test_cancelling_closes_the_upstream(
    upstream: Upstream, relay_to: Relays, kind: WireFormat, behaviour: Behaviour
) -> None:
    upstream.script(behaviour)
    for_stream = isinstance(behaviour, Hang) and behaviour.after is not None
    task = asyncio.create_task(failure_of(relay_to(kind, upstream.url), asking(kind, stream=for_stream)))
    await upstream.wait_until(lambda up: up.in_flight == 1 and up.requests[0].chunks_sent == int(for_stream))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    await upstream.requests[0].wait_disconnected(1.0)


async def test_a_compressed_answer_is_read(relay_to: Relays) -> None:
    body = gzip.compress(b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}')
    async with raw_server(writing(body), "content-type: application/json\r\ncontent-encoding: gzip") as url:
        assert (await relay_to(OPENAI, url).complete(asking(OPENAI))).text == "hi"


@pytest.mark.parametrize("body", [gzip.compress(b" " * 40 * 1024 * 1024), b"this was never compressed"])
async def test_a_bomb_and_broken_compression_are_refused(relay_to: Relays, body: bytes) -> None:
    async with raw_server(writing(body), "content-type: application/json\r\ncontent-encoding: gzip") as url:
        failure, _ = await failure_of(relay_to(OPENAI, url), asking(OPENAI))
    assert failure.kind is Failure.MALFORMED


async def test_an_endless_stream_is_ended(relay_to: Relays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MAX_STREAM_BYTES", 10_000)
    async with raw_server(writing(*[sse(delta("x"))] * 500)) as url:
        failure, delivered = await failure_of(relay_to(OPENAI, url), asking(OPENAI, stream=True))
    assert failure.kind is Failure.MALFORMED
    assert len(delivered) <= 10_000


async def test_a_connection_left_open_after_the_end_delays_nothing(relay_to: Relays) -> None:
    """Neither after the last word, nor where usage came and the last word does not."""
    done = sse(delta("a", "stop"), b"[DONE]")
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    for data, limit_s in ((done, 0.5), (sse(delta("a", "stop"), usage), 2.0)):
        async with raw_server(writing(data, pause_s=5.0)) as url, asyncio.timeout(limit_s):
            events = [event async for event in relay_to(OPENAI, url, 30.0).stream(asking(OPENAI, stream=True))]
            assert len(events) == 2


async def test_an_error_that_never_ends_is_known_by_its_status(
    relay_to: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "ERROR_TIMEOUT_S", 0.1)
    async with raw_server(writing(*[b"x"] * 100, pause_s=0.05), status=503) as url, asyncio.timeout(1.0):
        failure, _ = await failure_of(relay_to(ANTHROPIC, url), asking(ANTHROPIC))
    assert failure.kind is Failure.SERVER
