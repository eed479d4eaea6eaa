"""Questions by meaning, in this process: the least recently used go first."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from src.domain.completion.ports import QuestionIndex

if TYPE_CHECKING:
    from src.integrations.semantic.rows import Rows


class MemoryIndex(QuestionIndex):
    """Bounded in entries and in bytes over all scopes. `clock` gives monotonic seconds."""

    def __init__(
        self,
        *,
        max_entries: int = 10_000,
        max_bytes: int = 32 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._scopes: dict[str, Rows] = {}
        self._recent: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._size_bytes = 0

    def nearest(self, scope: str, vector: Sequence[float], least: float) -> str | None:
        known = self._scopes.get(scope)
        if known is None:
            return None
        key, cosine = known.nearest(vector, self._clock())
        if cosine < least:
            return None
        self._recent.move_to_end((scope, key))
        return key

    def put(self, scope: str, key: str, vector: Sequence[float], ttl_s: float) -> None:
        from src.integrations.semantic.rows import Rows  # where there is a vector, numpy is loaded

        known = self._scopes.setdefault(scope, Rows(len(vector)))
        before_bytes = known.size_bytes if len(known) else 0
        known.put(key, vector, self._clock() + ttl_s)
        self._size_bytes += known.size_bytes - before_bytes
        self._recent[scope, key] = None
        self._recent.move_to_end((scope, key))
        while len(self._recent) > self._max_entries or self._size_bytes > self._max_bytes:
            self.forget(*next(iter(self._recent)))

    def forget(self, scope: str, key: str) -> None:
        if (scope, key) not in self._recent:
            return
        del self._recent[scope, key]
        known = self._scopes[scope]
        self._size_bytes -= known.size_bytes
        known.remove(key)
        if len(known):
            self._size_bytes += known.size_bytes
        else:
            del self._scopes[scope]

    @property
    def size_bytes(self) -> int:
        """What is kept now."""
        return self._size_bytes

    def __len__(self) -> int:
        return len(self._recent)
