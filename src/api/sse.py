"""Server-sent events: sent as they come, kept alive while the model thinks, ended when the client is gone."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from src.api.json import dumps
from src.shared.errors import GatewayError

KEEPALIVE_S = 15.0
KEEPALIVE = b": keepalive\n\n"
BLANK = b"\n\n"
"""Keeps alive the streams of clients that take comments for data, as Google's do."""
STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def event(data: Mapping[str, Any], *, name: str | None = None, event_id: str | None = None) -> bytes:
    """One event with JSON data."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    if event_id is not None:
        head += b"id: " + event_id.encode() + b"\n"
    return head + b"data: " + dumps(data) + b"\n\n"


class EventStream(Response):
    """A stream of events whose first decides: an error before it is an ordinary answer with its status.

    When the client hangs up the generator is closed at once, also while it waits for the upstream.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        *,
        headers: Callable[[], Mapping[str, str]],
        failed: Callable[[GatewayError], Response],
        keepalive: bytes = KEEPALIVE,
    ) -> None:
        self._events = events
        self._keepalive = keepalive
        self._late_headers = headers
        self._more_headers = dict(STREAM_HEADERS)
        self._failed = failed
        self._sent = 0
        self.status_code = 200
        self.background = None

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Send these too, where it becomes a stream."""
        self._more_headers |= headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pump = asyncio.create_task(self._pump(scope, receive, send))
        gone = asyncio.create_task(_disconnected(receive))
        alive = asyncio.create_task(self._keep_alive(send))
        try:
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, alive, pump):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await pump

    async def _pump(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            try:
                first = await anext(self._events, b"")
            except GatewayError as error:
                await self._failed(error)(scope, receive, send)
                return
            self.init_headers({**self._more_headers, **self._late_headers()})
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._send(send, first)
            async for data in self._events:
                await self._send(send, data)
            await send({"type": "http.response.body", "body": b""})
        finally:
            await self._events.aclose()

    async def _send(self, send: Send, data: bytes) -> None:
        self._sent += 1
        await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _keep_alive(self, send: Send) -> None:
        """A sign of life whenever nothing was sent for a while: proxies cut connections that are silent."""
        seen = 0
        while True:
            await asyncio.sleep(KEEPALIVE_S)
            if 0 < self._sent == seen:
                await send({"type": "http.response.body", "body": self._keepalive, "more_body": True})
            seen = self._sent


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
