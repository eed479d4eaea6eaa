"""Vectors that are compared with each other, a row each. Imported with the first: numpy takes its time and memory."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ENTRY_OVERHEAD_BYTES = 1200
"""About what the interpreter spends on an entry besides its vector, when it is the only one."""

Vectors = NDArray[np.float32]


class Rows:
    """Of keys, their vectors and when they end. Room is made for at most four times as many."""

    def __init__(self, dimensions: int) -> None:
        self._keys: list[str] = []
        self._row_of: dict[str, int] = {}
        self._vectors: Vectors = np.empty((1, dimensions), dtype=np.float32)
        self._ends_at_s = np.empty(1)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def size_bytes(self) -> int:
        return self._vectors.nbytes + len(self._keys) * ENTRY_OVERHEAD_BYTES

    def put(self, key: str, vector: Sequence[float], ends_at_s: float) -> None:
        row = self._row_of.setdefault(key, len(self._keys))
        if row == len(self._keys):
            self._keys.append(key)
            if row == len(self._vectors):
                self._resize(2 * row)
        self._vectors[row], self._ends_at_s[row] = vector, ends_at_s

    def remove(self, key: str) -> None:
        """The last row fills the gap."""
        row, last = self._row_of.pop(key), self._keys.pop()
        if last != key:
            self._keys[row], self._row_of[last] = last, row
            self._vectors[row], self._ends_at_s[row] = self._vectors[len(self._keys)], self._ends_at_s[len(self._keys)]
        if 4 * len(self._keys) < len(self._vectors):
            self._resize(len(self._vectors) // 2)

    def nearest(self, vector: Sequence[float], now_s: float) -> tuple[str, float]:
        """The key of the question that is nearest, and its cosine; -1 where none is in force any more."""
        count = len(self._keys)
        cosines = self._vectors[:count] @ np.asarray(vector, dtype=np.float32)
        cosines[self._ends_at_s[:count] <= now_s] = -1
        row = int(cosines.argmax())
        return self._keys[row], float(cosines[row])

    def _resize(self, rows: int) -> None:
        count = min(rows, len(self._vectors))
        vectors, ends_at_s = np.empty((rows, self._vectors.shape[1]), dtype=np.float32), np.empty(rows)
        vectors[:count], ends_at_s[:count] = self._vectors[:count], self._ends_at_s[:count]
        self._vectors, self._ends_at_s = vectors, ends_at_s
