"""Reading what was relayed of a stream, where we have to end it ourselves."""

from collections.abc import Iterator
from typing import Any

import orjson


def payloads_of(relayed: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of the events."""
    for line in relayed.splitlines():
        if line.startswith(b"data:"):
            try:
                payload = orjson.loads(line.removeprefix(b"data:"))
            except orjson.JSONDecodeError:
                continue
            if isinstance(payload, dict):
                yield payload


def objects_in(value: Any) -> Iterator[dict[str, Any]]:
    """The JSON objects of a list; whatever else a provider wrote there is passed over."""
    return (each for each in value if isinstance(each, dict)) if isinstance(value, list) else iter(())
