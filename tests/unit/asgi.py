"""A client scripted at the ASGI level: what it sends, and what it was sent."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.types import Message, Scope


def http_scope(path: str = "/chat", headers: Mapping[str, str] | None = None, method: str = "POST") -> Scope:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    return {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b""}


class Client:
    """Sends its body in pieces, then stays until `leave()`."""

    def __init__(self, *pieces: bytes) -> None:
        last = len(pieces) - 1
        self._coming: list[Message] = [
            {"type": "http.request", "body": piece, "more_body": index < last} for index, piece in enumerate(pieces)
        ]
        self._gone = asyncio.Event()
        self.sent: list[Message] = []
        self.heard = asyncio.Event()

    def leave(self) -> None:
        self._gone.set()

    async def receive(self) -> Message:
        if self._coming:
            return self._coming.pop(0)
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        self.heard.set()

    @property
    def status(self) -> int:
        """Of the one answer that was begun."""
        (status,) = (message["status"] for message in self.sent if message["type"] == "http.response.start")
        return status

    @property
    def headers(self) -> dict[str, str]:
        """Of the one answer that was begun; none comes twice."""
        (raw,) = (message["headers"] for message in self.sent if message["type"] == "http.response.start")
        found: dict[str, Any] = {name.decode(): value.decode() for name, value in raw}
        assert len(found) == len(raw)
        return found

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent if message["type"] == "http.response.body")

    @property
    def is_complete(self) -> bool:
        """Whether the answer ended as answers should: once, at the end."""
        more = [message.get("more_body", False) for message in self.sent if message["type"] == "http.response.body"]
        return bool(more) and more == [True] * (len(more) - 1) + [False]
