"""Vectors as they are kept: float32, little-endian, one after the other."""

import struct
from collections.abc import Sequence


def packed(values: Sequence[float]) -> bytes:
    """The bytes. Raises struct.error for what is no number, OverflowError for one that is too large."""
    return struct.pack(f"<{len(values)}f", *values)


def unpacked(vector: bytes) -> tuple[float, ...]:
    """The numbers."""
    return struct.unpack(f"<{len(vector) // 4}f", vector)
