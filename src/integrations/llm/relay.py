"""The lane for clients that speak the upstream's own dialect: bytes through, usage read from the tail.

The client's body goes on with the model name, the output cap and the usage option changed, and the upstream's bytes
come back as they are.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, NoReturn

import aiohttp
import orjson
from yarl import URL

from src.domain.catalog.model import WireFormat
from src.domain.completion.model import (
    ChatRequest,
    Delivered,
    Dropped,
    Failure,
    Reply,
    UpstreamEvent,
    UpstreamFailed,
    UpstreamRequest,
    WireBody,
    WireChunk,
)
from src.domain.completion.ports import ChatModel
from src.integrations.llm import relay_failures
from src.integrations.llm.anthropic import relay as relay_anthropic
from src.integrations.llm.bounds import ERROR_TIMEOUT_S, MAX_BODY_BYTES, MAX_ERROR_BYTES, MAX_STREAM_BYTES
from src.integrations.llm.google import embeddings as embeddings_google
from src.integrations.llm.google import relay as relay_google
from src.integrations.llm.openai import embeddings as embeddings_openai
from src.integrations.llm.openai import relay_chat as relay_openai
from src.integrations.llm.openai import relay_responses
from src.integrations.llm.sse_bytes import EventSplitter, StreamReader, is_whole, parsed
from src.integrations.llm.vectors import MAX_VECTORS_BYTES

LARGE_REQUEST_BYTES = 1024 * 1024
LINGER_S = 1.0
"""How long a settled stream may take to say its last word."""
DRAIN_S = 0.05
"""How long to wait, after the last word, for the end of the message: then the connection can be used again."""
DEFAULT_ANTHROPIC_VERSION = "2023-06-01"

_NOT_FORWARDED = frozenset(
    {
        *("authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"),
        *("host", "connection", "content-length", "content-type", "transfer-encoding", "te", "upgrade"),
        *("accept", "accept-encoding", "expect", "x-forwarded-for", "forwarded"),
        *("openai-organization", "openai-project"),
    }
)
"""Credentials, what chooses among accounts of the operator's, and what belongs to a connection."""
_TRANSPORT_ERRORS = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a relay sends to. `headers` hold the credentials; `cap_field` caps output where the client named none."""

    format: WireFormat
    url: str
    headers: Mapping[str, str]
    cap_field: str


def _never_streams(*_: object) -> NoReturn:
    raise UpstreamFailed(Failure.UNSUPPORTED, "The provider gives no streams of this.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """A wire format, as functions. A whole body has at most so many bytes.

    `delivered` gives what reads a cut-off stream. `answered` puts what the gateway has its own values for into a whole
    answer. `left_out` names what the body lacks of the client's messages. Where there is an `address`, it
    says below the target's URL whether the answer is to be a stream; elsewhere the body does.
    """

    body_for: Callable[[UpstreamRequest, Mapping[str, Any], str], dict[str, Any]]
    read_reply: Callable[[bytes], Reply]
    delivered: Callable[[WireBody], Callable[[bytes], Delivered]] = _never_streams
    reader: Callable[[ChatRequest, WireBody], StreamReader] = _never_streams
    answered: Callable[[Reply, WireBody], Reply] = lambda reply, wire: reply
    left_out: Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[str, ...]] = lambda told, body: ()
    most_bytes: int = MAX_BODY_BYTES
    address: Callable[[str, bool], str] | None = None


_GOOGLE_VECTORS = _Format(
    body_for=embeddings_google.body_for, read_reply=embeddings_google.read_reply, most_bytes=MAX_VECTORS_BYTES
)
_FORMATS = {
    WireFormat.CHAT_COMPLETIONS: _Format(
        body_for=relay_openai.body_for,
        read_reply=relay_openai.read_reply,
        delivered=lambda wire: relay_openai.read_delivered,
        reader=lambda chat, wire: relay_openai.OpenAIReader(
            wants_usage=wire.wants_usage, choices=relay_openai.choices_of(wire.body)
        ),
        left_out=relay_openai.left_out,
    ),
    WireFormat.MESSAGES: _Format(
        body_for=relay_anthropic.body_for,
        read_reply=relay_anthropic.read_reply,
        delivered=lambda wire: relay_anthropic.read_delivered,
        reader=lambda chat, wire: relay_anthropic.AnthropicReader(),
    ),
    WireFormat.RESPONSES: _Format(
        body_for=relay_responses.body_for,
        read_reply=relay_responses.read_reply,
        delivered=relay_responses.reading_delivered,
        reader=lambda chat, wire: relay_responses.ResponsesReader(wire),
        answered=relay_responses.answered_by_us,
    ),
    WireFormat.GENERATE_CONTENT: _Format(
        body_for=relay_google.body_for,
        read_reply=relay_google.read_reply,
        delivered=lambda wire: relay_google.read_delivered,
        reader=lambda chat, wire: relay_google.GoogleReader(choices=chat.parameters.choices),
        address=relay_google.address,
    ),
    WireFormat.EMBEDDINGS: _Format(
        body_for=embeddings_openai.body_for, read_reply=embeddings_openai.read_reply, most_bytes=MAX_VECTORS_BYTES
    ),
    WireFormat.EMBED_CONTENT: _GOOGLE_VECTORS,
    WireFormat.BATCH_EMBED_CONTENTS: _GOOGLE_VECTORS,
}


class Relay(ChatModel):
    """One upstream endpoint. Cheap to make; the session is shared and closed by whoever made it.

    `connect_timeout_s` bounds getting a connection, `read_timeout_s` each wait for more of a stream and the time that a
    whole body takes; together they bound the time to the headers.
    """

    def __init__(
        self, session: aiohttp.ClientSession, target: Target, *, connect_timeout_s: float, read_timeout_s: float
    ) -> None:
        self._session = session
        self._target = target
        self._format = _FORMATS[target.format]
        self._headers = {name.lower(): value for name, value in target.headers.items()}
        self._headers["content-type"] = "application/json"
        self._read_timeout_s = read_timeout_s
        self._headers_s = connect_timeout_s + read_timeout_s
        self._timeout = _timeout(connect_timeout_s, read_timeout_s)

    async def complete(self, request: UpstreamRequest) -> Reply:
        """The whole answer; `Finished.wire` holds its bytes."""
        wire, body = self._wire_of(request), self._body_for(request)
        response = await self._open(request, body)
        try:
            async with asyncio.timeout(self._read_timeout_s):
                data = await _read_whole(response, self._format.most_bytes)
        except _TRANSPORT_ERRORS as error:
            raise relay_failures.of_transport(error) from error
        finally:
            response.close()
        reply = self._format.answered(self._format.read_reply(data), wire)
        return replace(reply, dropped=self._left_out(wire, body))

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        """Whole events as they arrive. The last ones come in `Finished.wire`, to be sent once the call is settled."""
        wire, body = self._wire_of(request), self._body_for(request)
        response = await self._open(request, body)
        try:
            if dropped := self._left_out(wire, body):
                yield Dropped(dropped)
            if not response.content_type.startswith("text/event-stream"):
                raise relay_failures.malformed("The provider did not answer with a stream.", response.status)
            reader = self._format.reader(request.chat, wire)
            feed = _Feed(response, reader, self._read_timeout_s)
            read = self._format.delivered(wire)
            while (data := await feed.next()) is not None:
                yield WireChunk(data, read)
            yield reader.finished()
        finally:
            response.close()

    def _body_for(self, request: UpstreamRequest) -> dict[str, Any]:
        body = self._format.body_for(request, self._wire_of(request).body, self._target.cap_field)
        if self._format.address is None and (request.chat.stream or "stream" in body):
            body["stream"] = request.chat.stream
        return body

    def _left_out(self, wire: WireBody, body: Mapping[str, Any]) -> tuple[str, ...]:
        """Names of what the client said and the provider is not told; which model is meant, the address may say."""
        fields = (name for name in wire.body if name not in body and name != "model")
        return (*wire.left_out, *fields, *self._format.left_out(wire.body, body))

    async def _open(self, request: UpstreamRequest, body: dict[str, Any]) -> aiohttp.ClientResponse:
        """Send the request; raises UpstreamFailed unless the upstream answers with success."""
        wire, stream, address = self._wire_of(request), request.chat.stream, self._format.address
        url = self._target.url if address is None else address(self._target.url, stream)
        try:
            async with asyncio.timeout(self._headers_s):
                response = await self._session.post(
                    URL(url),
                    data=_dumped(body),
                    headers=self._headers_for(wire, stream),
                    timeout=self._timeout_of(request),
                    allow_redirects=False,
                )
        except _TRANSPORT_ERRORS as error:
            raise relay_failures.of_transport(error) from error
        if not 200 <= response.status < 300:
            raise await self._refused(response)
        return response

    def _timeout_of(self, request: UpstreamRequest) -> aiohttp.ClientTimeout:
        connect_s = request.model.deadlines.connect_s
        if connect_s is None:
            return self._timeout
        return _timeout(connect_s, self._read_timeout_s)

    def _wire_of(self, request: UpstreamRequest) -> WireBody:
        wire = request.chat.wire
        if wire is None or wire.format is not self._target.format:
            raise UpstreamFailed(Failure.UNSUPPORTED, "The request is not written in the provider's own dialect.")
        return wire

    def _headers_for(self, wire: WireBody, stream: bool) -> dict[str, str]:
        """The client's headers below ours, but for those that say how its body is to be read."""
        lowered = {name.lower(): value for name, value in wire.headers.items()}
        forwarded = {name: value for name, value in lowered.items() if name not in _NOT_FORWARDED}
        headers = {**forwarded, **self._headers}
        if self._target.format is WireFormat.MESSAGES:
            headers.setdefault("anthropic-version", DEFAULT_ANTHROPIC_VERSION)
            headers.update({name: value for name, value in forwarded.items() if name.startswith("anthropic-")})
        if stream:
            # Compressors collect bytes before they let them go.
            headers["accept-encoding"] = "identity"
        return headers

    async def _refused(self, response: aiohttp.ClientResponse) -> UpstreamFailed:
        try:
            async with asyncio.timeout(ERROR_TIMEOUT_S):
                data = await _read_whole(response, MAX_ERROR_BYTES)
        except (*_TRANSPORT_ERRORS, UpstreamFailed):
            data = b""
        finally:
            response.close()
        return relay_failures.of_answer(response.status, parsed(data), response.headers, self._secrets())

    def _secrets(self) -> tuple[str, ...]:
        """What must never be quoted: a provider may repeat the key it was sent."""
        values = (value.removeprefix("Bearer ").strip() for value in self._target.headers.values())
        return tuple(value for value in values if len(value) >= 8)


class _Feed:
    """One response's bytes, cut into what may flow on; ends when the answer is whole, raises when it is not."""

    def __init__(self, response: aiohttp.ClientResponse, reader: StreamReader, read_timeout_s: float) -> None:
        self._content = response.content
        self._reader = reader
        self._splitter = EventSplitter()
        self._read_timeout_s = read_timeout_s
        self._clock = asyncio.get_running_loop().time
        self._deadline_s = self._clock() + read_timeout_s
        self._progressed = True
        self._received_bytes = 0
        self._has_ended = False

    async def next(self) -> bytes | None:
        """Whole events to hand on now; None when the answer is complete."""
        while not self._has_ended:
            if self._reader.failure is not None:
                raise self._reader.failure
            if self._reader.is_over:
                await self._drain()
                break
            chunk = await self._read()
            events = self._splitter.feed(chunk) if chunk else self._last_events()
            if flowing := self._look_at(events):
                return flowing
        self._check_the_end()
        return None

    def _look_at(self, events: bytes) -> bytes:
        flowing = self._reader.read(events) if events else b""
        self._progressed = bool(events) and self._reader.progressed
        if self._progressed:
            self._deadline_s = self._clock() + self._read_timeout_s
        return flowing

    def _last_events(self) -> bytes:
        """At the end a last event may lack its blank line; one that was cut in the middle is nothing."""
        self._has_ended = True
        rest = self._splitter.rest()
        return rest if rest and is_whole(rest) else b""

    def _check_the_end(self) -> None:
        if self._reader.failure is not None:
            raise self._reader.failure
        if self._reader.is_over and not self._reader.is_complete:
            raise relay_failures.malformed("The provider's answer ended without a reason.")
        if not self._reader.is_complete:
            raise UpstreamFailed(Failure.DROPPED, "The provider's stream ended before the answer did.")

    async def _read(self) -> bytes:
        """More bytes; empty at the end, also where a whole answer's connection breaks."""
        try:
            chunk = await self._read_in_time()
        except _TRANSPORT_ERRORS as error:
            if self._reader.is_complete:
                return b""
            raise relay_failures.of_transport(error) from error
        self._received_bytes += len(chunk)
        if self._received_bytes > MAX_STREAM_BYTES:
            raise relay_failures.malformed("The provider's stream is too large.")
        return chunk

    async def _read_in_time(self) -> bytes:
        """The client's own timer bounds silence; keep-alives and crumbs of events need one that they do not reset."""
        if self._reader.is_settled:
            self._deadline_s = min(self._deadline_s, self._clock() + LINGER_S)
        elif self._progressed:
            return await self._content.readany()
        async with asyncio.timeout_at(self._deadline_s):
            return await self._content.readany()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_S):
                while await self._content.readany():
                    pass
        except _TRANSPORT_ERRORS:
            return


def _timeout(connect_s: float, read_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_s, sock_connect=connect_s, sock_read=read_s)


def _dumped(body: dict[str, Any]) -> bytes | BytesIO:
    try:
        data = orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise UpstreamFailed(Failure.CALLER, "The request holds what JSON cannot say.") from error
    # Bytes are written in one go, however many; a file is written in pieces.
    return data if len(data) <= LARGE_REQUEST_BYTES else BytesIO(data)


async def _read_whole(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """The decompressed body. Raises UpstreamFailed (malformed) past the limit."""
    pieces: list[bytes] = []
    size = 0
    while piece := await response.content.readany():
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            raise relay_failures.malformed("The provider's answer is too large.", response.status)
    return b"".join(pieces)
