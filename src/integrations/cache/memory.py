"""Whole answers in this process: the least recently used go first."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from src.domain.completion.ports import ResponseCache

ENTRY_OVERHEAD_BYTES = 250
"""About what the interpreter spends on an entry besides its bytes."""


@dataclass(frozen=True, slots=True)
class _Entry:
    expires_at_s: float
    data: bytes
    size_bytes: int


class MemoryCache(ResponseCache):
    """Bounded in entries and in bytes; values are kept as JSON, so nobody can change what another reads.

    `clock` gives monotonic seconds. `put` raises TypeError for a value that is not JSON, and drops one that is larger
    than the whole cache.
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

    async def get(self, key: str) -> Mapping[str, Any] | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at_s <= self._clock():
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        value: dict[str, Any] = orjson.loads(entry.data)
        return value

    async def put(self, key: str, value: Mapping[str, Any], ttl_s: float) -> None:
        data = dumped(value)
        self._remove(key)
        size_bytes = len(key) + len(data) + ENTRY_OVERHEAD_BYTES
        if ttl_s <= 0 or size_bytes > self._max_bytes:
            return
        self._entries[key] = _Entry(self._clock() + ttl_s, data, size_bytes)
        self._size_bytes += size_bytes
        while len(self._entries) > self._max_entries or self._size_bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

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


def dumped(value: Mapping[str, Any]) -> bytes:
    """The value as JSON. Raises TypeError where it is none."""
    return orjson.dumps(dict(value))
