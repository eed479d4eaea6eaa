"""Vectors in providers' answers: cut out where they are only handed on, packed where they are translated."""

import struct
from typing import Any

from src.integrations.llm import relay_failures
from src.integrations.llm.sse_bytes import parsed
from src.shared import vectors

MAX_VECTORS_BYTES = 256 * 1024 * 1024
"""Some 2048 vectors of 3072 numbers, as providers write them for people to read."""

_BLANK = b" \t\r\n"
_CLOSING = {b"[": b"]", b'"': b'"'}


def outline_of(data: bytes, name: bytes) -> dict[str, Any]:
    """An answer without the vectors under that name: a list each, or base64. Reading these would take seconds.

    Raises UpstreamFailed where it is no JSON object, or reports an error.
    """
    body = parsed(_outlined(data, b'"' + name + b'"'))
    if not isinstance(body, dict):
        raise relay_failures.malformed("The provider's answer is not JSON.")
    if body.get("error"):
        raise relay_failures.of_error_object(body["error"])
    return body


def whole_of(data: bytes) -> dict[str, Any]:
    """All of an answer whose outline was read. Raises UpstreamFailed where its vectors are none."""
    body = parsed(data)
    if not isinstance(body, dict):
        raise relay_failures.malformed("The provider's answer has vectors that are not JSON.")
    return body


def _outlined(data: bytes, key: bytes) -> bytes:
    pieces, start, at = [], 0, data.find(key)
    while at >= 0:
        begin = _value_after(data, at + len(key))
        closing = _CLOSING.get(data[begin : begin + 1])
        end = -1 if closing is None else data.find(closing, begin + 1)
        if end >= 0:
            pieces.append(data[start : begin + 1])
            start = end
        at = data.find(key, max(end, at + len(key)))
    return b"".join((*pieces, data[start:]))


def _value_after(data: bytes, at: int) -> int:
    """Where the value of a key begins; the end of all where this was no key."""
    at = _after_blanks(data, at)
    return _after_blanks(data, at + 1) if data[at : at + 1] == b":" else len(data)


def _after_blanks(data: bytes, at: int) -> int:
    while data[at : at + 1] and data[at] in _BLANK:
        at += 1
    return at


def packed(values: Any) -> bytes:
    """Numbers as float32, little-endian. Raises UpstreamFailed (malformed) for anything else, and for none."""
    if not isinstance(values, list) or not values:
        raise relay_failures.malformed("The provider's answer lacks a vector.")
    try:
        return vectors.packed(values)
    except (struct.error, OverflowError):
        raise relay_failures.malformed("The provider's answer has a vector of something else than numbers.") from None
