"""Every node of a JSON value, replaced by every kind of value: bodies as no well-meaning author writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

GONE = object()
KINDS: tuple[Any, ...] = (
    GONE, None, True, False, 0, 7, -1, 1.5, 2**64 - 1, 1e300, "", "x", "\x00",
    [], ["x"], [7], [[]], [{}], [None], [{"type": "text"}], [{"type": []}],
    {}, {"x": []}, {"type": "x"}, {"type": []}, {"type": {}}, "NESTED",
)  # fmt: skip


def dumped(value: Any) -> bytes:
    """As JSON, where NESTED is an object that nests deeper than can be written by the library that reads it."""
    return orjson.dumps(value).replace(b'"NESTED"', 400 * b'{"a":' + b"1" + 400 * b"}")


def variants(value: Any) -> Iterator[tuple[str, Any]]:
    """Copies of `value` with one node changed, each with a name that says which and how; parts nobody changed are
    shared."""
    for path, kind, made in _variants(value, "$"):
        yield f"{path} = {'gone' if kind is GONE else kind!r}", made


def _variants(value: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        where = f"{path}.{key}"
        for kind in KINDS:
            yield where, kind, _with(value, key, kind)
        for deeper, kind, made in _variants(inner, where):
            yield deeper, kind, _with(value, key, made)


def _with(value: Any, key: Any, made: Any) -> Any:
    if isinstance(value, dict):
        return {name: made if name == key else old for name, old in value.items() if name != key or made is not GONE}
    return [made if index == key else old for index, old in enumerate(value) if index != key or made is not GONE]
