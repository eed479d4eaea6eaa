"""What the dialects' readers share: attachments, tool results, and whose turn is the last."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.support.upstream_plan import Refused, compact, texts_in

Json = Mapping[str, Any]
_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)(;[\w=.-]+)*;base64,(?P<data>.*)", re.DOTALL)


def data_named(kind: str, media_type: str, data: Any) -> str:
    """An attachment as `Mind` names it. Raises `Refused` if the data is not base64."""
    return f"{kind}: {media_type} {len(decoded(data))} bytes"


def url_named(kind: str, url: str, *, what: str = "url") -> str:
    """An attachment as `Mind` names it, from a URL or a data URL. Raises `Refused` if neither."""
    match = _DATA_URL.fullmatch(url)
    if match:
        return data_named(kind, match["type"], match["data"])
    if not url.startswith(("http://", "https://")):
        raise Refused(f"Invalid {what}: expected a base64-encoded data URL or an http(s) URL, but got {url[:40]!r}.")
    return f"{kind}: {url}"


def decoded(data: Any) -> bytes:
    """Base64 of either alphabet. Raises `Refused`."""
    try:
        return base64.b64decode(str(data).replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("Invalid base64 data") from None


def last_turn(turns: Sequence[Json], is_models: Any) -> Sequence[Json]:
    """What came after the model's last turn."""
    ends = [number for number, turn in enumerate(turns) if is_models(turn)]
    return turns[ends[-1] + 1 :] if ends else turns


def last_text(users: Sequence[Json]) -> str:
    """The text of the last of these messages, without the results of tools."""
    return " ".join(texts_in(users[-1].get("content"))) if users else ""


def parts_of(content: Any) -> list[Json]:
    """A message's content as parts, whatever it is written as."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [part for part in content or [] if isinstance(part, Mapping)]


def result_text(value: Any) -> str:
    """What a tool gave back: a text, text parts, or an object, which counts as its text if it holds nothing else."""
    if isinstance(value, (str, list)):
        return " ".join(texts_in(value))
    if isinstance(value, Mapping) and len(value) == 1:
        [only] = value.values()
        if isinstance(only, (str, list)):
            return result_text(only)
    return compact(value)


def either(body: Json, camel: str) -> Any:
    """A field written in camelCase or in snake_case."""
    return body.get(camel, body.get(snake(camel)))


def snake(camel: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", camel).lower()


def as_tuple(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(value or ())


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def check_known(names: Iterable[str], known: Iterable[str], accepts: Any) -> str | None:
    """The first field that is neither known nor let through."""
    return next((name for name in names if name not in set(known) and not accepts(name)), None)
