"""What a scripted provider saw: one `Recorded` for every request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True, eq=False)
class Recorded:
    """One request. `headers` ignores case; `json` is None where the body is none."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    json: Any = None
    provider: str = ""
    model: str = ""
    chunks_sent: int = 0
    """Content chunks written so far."""
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the answer was written to its end, an error or garbage included."""
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client closed the connection before the answer was finished."""
    dropped: bool = False
    """The script dropped the connection."""

    @property
    def disconnected(self) -> bool:
        return self.hung_up.is_set()

    @property
    def stream(self) -> bool:
        return "stream" in self.path.lower() or bool(isinstance(self.json, dict) and self.json.get("stream"))

    async def wait_disconnected(self, timeout_s: float = 5.0) -> None:
        async with asyncio.timeout(timeout_s):
            await self.hung_up.wait()

    async def wait_finished(self, timeout_s: float = 5.0) -> None:
        async with asyncio.timeout(timeout_s):
            await self.finished.wait()
