"""A stream of events as Google's clients get it that did not ask for events: one JSON array, written as it grows."""

from collections.abc import Iterator

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

EVENT_STREAM = "text/event-stream"


class ArrayOfEvents(Response):
    """Sends another response; where that is a stream of events, their data as the elements of an array."""

    def __init__(self, inner: Response) -> None:
        self._inner = inner
        self.status_code = inner.status_code
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._inner(scope, receive, _Rewritten(send))


class _Rewritten:
    """A way out on which events become elements."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_stream = False
        self._pending = b""
        self._count = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start(message)
        elif self._is_stream and message["type"] == "http.response.body":
            message = {**message, "body": self._rewritten(message)}
        await self._send(message)

    def _start(self, message: Message) -> None:
        headers = MutableHeaders(raw=message["headers"])
        self._is_stream = headers.get("content-type", "").startswith(EVENT_STREAM)
        if self._is_stream:
            headers["content-type"] = "application/json; charset=UTF-8"
            if "content-length" in headers:
                del headers["content-length"]

    def _rewritten(self, message: Message) -> bytes:
        """The elements in some bytes. What is no event keeps the connection alive, as a blank does in JSON."""
        data: bytes = message.get("body", b"")
        has_ended = not message.get("more_body", False)
        data += b"\n" if has_ended else b""
        body = b"".join(self._elements(data))
        if has_ended:
            return body + (b"]" if self._count else b"[]")
        return body or (b"\n" if data else b"")

    def _elements(self, data: bytes) -> Iterator[bytes]:
        lines = (self._pending + data).split(b"\n")
        self._pending = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                yield (b",\r\n" if self._count else b"[") + line.removeprefix(b"data:").strip()
                self._count += 1
