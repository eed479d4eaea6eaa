"""What the tests of the relay lane share: requests, streams as bytes, and a server made of a bare socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from src.domain.catalog.model import Model, WireFormat
from src.domain.completion.model import (
    ChatRequest,
    Finished,
    UpstreamEvent,
    UpstreamFailed,
    UpstreamRequest,
    WireBody,
    WireChunk,
)
from src.integrations.llm.google import relay as relay_google
from src.integrations.llm.openai import relay_responses
from src.integrations.llm.relay import Relay, Target
from tests.support.upstream import ToolCall

OPENAI, ANTHROPIC = WireFormat.CHAT_COMPLETIONS, WireFormat.MESSAGES
RESPONSES, GOOGLE = WireFormat.RESPONSES, WireFormat.GENERATE_CONTENT
DIALECTS = (OPENAI, ANTHROPIC)
EVERY_FORMAT = (*DIALECTS, RESPONSES, GOOGLE)
SECRET = "sk-very-secret-0123456789"
MODEL = Model(name="public", provider="p", upstream="upstream-name", context_window=100_000, max_output=4000)
WEATHER = ToolCall(name="weather", arguments={"city": "Riga"})
MESSAGES = [{"role": "user", "content": "hello there"}]
Relays = Callable[..., Relay]


@asynccontextmanager
async def relays() -> AsyncIterator[Relays]:
    """A function that makes a relay of a dialect to a server's address."""
    async with aiohttp.ClientSession() as session:
        yield lambda kind, url, read_timeout_s=5.0: _relay(session, kind, url, read_timeout_s)


def _relay(session: aiohttp.ClientSession, kind: WireFormat, url: str, read_timeout_s: float) -> Relay:
    path, key, cap_field = _PLACES[kind]
    headers = {key: f"Bearer {SECRET}" if key == "Authorization" else SECRET}
    target = Target(format=kind, url=url + path, headers=headers, cap_field=cap_field)
    return Relay(session, target, connect_timeout_s=1.0, read_timeout_s=read_timeout_s)


_PLACES = {
    OPENAI: ("/v1/chat/completions", "Authorization", "max_completion_tokens"),
    ANTHROPIC: ("/v1/messages", "x-api-key", "max_completion_tokens"),
    RESPONSES: ("/v1/responses", "Authorization", relay_responses.CAP_FIELD),
    GOOGLE: (f"/v1beta/{relay_google.resource('upstream-name')}", "x-goog-api-key", relay_google.CAP_FIELD),
}
"""Path, header of the credential, and the field that caps output."""


_ASKED: dict[WireFormat, dict[str, Any]] = {
    OPENAI: {"model": "public", "messages": MESSAGES},
    ANTHROPIC: {"model": "public", "messages": MESSAGES},
    RESPONSES: {"model": "public", "input": "hello there", "store": False},
    GOOGLE: {"contents": [{"role": "user", "parts": [{"text": "hello there"}]}]},
}


def asking(
    kind: WireFormat,
    *,
    stream: bool = False,
    cap: int | None = None,
    wants_usage: bool = False,
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> UpstreamRequest:
    body = {**_ASKED[kind], **fields} | ({"stream": True} if stream and kind is not GOOGLE else {})
    wire = WireBody(format=kind, body=body, headers=headers or {}, wants_usage=wants_usage)
    return UpstreamRequest(model=MODEL, chat=ChatRequest(messages=(), stream=stream, wire=wire), output_cap=cap)


async def streamed(relay: Relay, request: UpstreamRequest) -> tuple[list[WireChunk], Finished]:
    events: list[UpstreamEvent] = [event async for event in relay.stream(request)]
    *chunks, finished = events
    assert isinstance(finished, Finished)
    assert all(isinstance(chunk, WireChunk) for chunk in chunks)
    return [chunk for chunk in chunks if isinstance(chunk, WireChunk)], finished


def joined(chunks: Sequence[WireChunk]) -> bytes:
    return b"".join(chunk.data for chunk in chunks)


async def failure_of(relay: Relay, request: UpstreamRequest) -> tuple[UpstreamFailed, bytes]:
    """How a call fails, and what it delivered before."""
    delivered = bytearray()
    with pytest.raises(UpstreamFailed) as caught:
        await _deliver(relay, request, delivered)
    return caught.value, bytes(delivered)


async def _deliver(relay: Relay, request: UpstreamRequest, delivered: bytearray) -> None:
    if not request.chat.stream:
        await relay.complete(request)
        return
    async for event in relay.stream(request):
        delivered += event.data if isinstance(event, WireChunk) else b""


def sse(*payloads: Any, newline: bytes = b"\n") -> bytes:
    lines = (payload if isinstance(payload, bytes) else orjson.dumps(payload) for payload in payloads)
    return b"".join(b"data: " + line + 2 * newline for line in lines)


def delta(text: str | None = None, finish: str | None = None, index: int = 0) -> dict[str, Any]:
    choice = {"index": index, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return {"id": "c", "model": "m-1", "choices": [choice], "usage": None}


USAGE = {"id": "c", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}
TWO_WORDS = (delta("Hello "), delta("wörld"), delta(finish="stop"), USAGE, b"[DONE]")

EVENT_STREAM = "content-type: text/event-stream"
Play = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(play: Play, head: str = EVENT_STREAM, status: int = 200) -> AsyncIterator[str]:
    """A server that answers every request with a bare head and then whatever `play` writes, up to the hang-up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 {status} X\r\nconnection: close\r\n{head}\r\n\r\n".encode())
            await play(writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test has
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def writing(*pieces: bytes, pause_s: float = 0.0) -> Play:
    async def play(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return play
