"""Whole answers in this process: the least recently used go first."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from src.domain.completion.ports import ResponseCache

ENTRY_OVERHEAD_BYTES = 250
"""About what the interpreter spends on an entry besides its bytes."""


@dataclass(frozen=True, slots=True)
class _Entry:
    expires_at_s: float
    data: bytes
    size_bytes: int


class MemoryCache(ResponseCache):
    """Bounded in entries and in bytes. It is always the seeker's turn: within a process nobody asks twice at once.

    `clock` gives monotonic seconds. `put` drops a value that is larger than the whole cache.
    """

    def __init__(
        self,
        *,
        max_entries: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._size_bytes = 0

    async def seek(self, key: str, seeker: str, lease_s: float) -> bytes | bool:
        found = await self.get(key)
        return True if found is None else found

    async def get(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at_s <= self._clock():
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry.data

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        self._remove(key)
        size_bytes = len(key) + len(value) + ENTRY_OVERHEAD_BYTES
        if ttl_s <= 0 or size_bytes > self._max_bytes:
            return
        self._entries[key] = _Entry(self._clock() + ttl_s, value, size_bytes)
        self._size_bytes += size_bytes
        while len(self._entries) > self._max_entries or self._size_bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    async def leave(self, key: str, seeker: str) -> None:
        return None

    async def close(self) -> None:
        self._entries.clear()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """What is kept now."""
        return self._size_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size_bytes -= entry.size_bytes
