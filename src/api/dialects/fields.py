"""Typed looks into a client's body: each names the field it refuses. Unknown fields are never refused."""

from collections.abc import Mapping
from typing import Any

from src.shared.errors import InvalidRequest

MAX_TOKENS = 100_000_000
MAX_MESSAGES = 100_000
MAX_STOPS = 64
MAX_INPUTS = 2048
MAX_DIMENSIONS = 100_000
MAX_METADATA = 16


def text_field(body: Mapping[str, Any], name: str, *, longest: int) -> str | None:
    """A string, or None where it is absent."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a string.", param=name)
    if len(value) > longest:
        raise InvalidRequest(f"{name} is longer than {longest} characters.", param=name)
    return value


def model_field(body: Mapping[str, Any]) -> str:
    """The public model name, which these dialects require."""
    name = text_field(body, "model", longest=200)
    if not name:
        raise InvalidRequest("Name a model: the field model is required.", param="model")
    return name


def integer_field(body: Mapping[str, Any], name: str, *, least: int, most: int) -> int | None:
    """A whole number within bounds, or None where it is absent."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest(f"{name} must be a whole number from {least} to {most}.", param=name)
    return value


def number_field(body: Mapping[str, Any], name: str, *, least: float, most: float) -> float | None:
    """A finite number within bounds, or None where it is absent."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"{name} must be a number.", param=name)
    if not least <= value <= most:
        raise InvalidRequest(f"{name} must be from {least:g} to {most:g}.", param=name)
    return float(value)


def flag_field(body: Mapping[str, Any], name: str) -> bool:
    """A boolean; absent is false."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false.", param=name)
    return bool(value)


def stops_field(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A string or a list of strings."""
    value = body.get(name)
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(stop, str) for stop in stops):
        raise InvalidRequest(f"{name} must be a string or a list of at most {MAX_STOPS} strings.", param=name)
    return tuple(stops)


def object_at(value: Any, where: str) -> Mapping[str, Any]:
    """An object, at a place deep in a body."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where} must be an object.", param=where)
    return value


def list_at(value: Any, where: str) -> list[Any]:
    """A list, at a place deep in a body; null is an empty one."""
    if value is not None and not isinstance(value, list):
        raise InvalidRequest(f"{where} must be a list.", param=where)
    return value or []


def text_at(value: Any, where: str) -> str:
    """A string, at a place deep in a body."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{where} must be a string.", param=where)
    return value


def messages_field(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A list of message objects with something in it."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages must be a list with at least one message.", param="messages")
    if len(messages) > MAX_MESSAGES:
        raise InvalidRequest(f"There are more than {MAX_MESSAGES} messages.", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidRequest(f"messages[{index}] must be an object.", param=f"messages[{index}]")
    return messages


def sampling_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """temperature and top_p, which all dialects name alike."""
    return {
        "temperature": number_field(body, "temperature", least=0, most=2),
        "top_p": number_field(body, "top_p", least=0, most=1),
    }


def metadata_field(body: Mapping[str, Any]) -> dict[str, str]:
    """A few short texts by name; absent is none."""
    metadata = body.get("metadata")
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or len(metadata) > MAX_METADATA:
        raise InvalidRequest(f"metadata must be an object of at most {MAX_METADATA} texts.", param="metadata")
    for name, value in metadata.items():
        if not isinstance(value, str) or len(name) > 64 or len(value) > 512:
            raise InvalidRequest(
                f"metadata.{name[:64]} must be a string of at most 512 characters, under a name of at most 64.",
                param="metadata",
            )
    return metadata


def dropped_header(dropped: tuple[str, ...]) -> dict[str, str]:
    """The header that names what was left out, where there is anything that can be named in a header."""
    safe = [name[:64] for name in dict.fromkeys(dropped) if name.isascii() and name.isprintable()]
    return {"x-gateway-dropped-params": ",".join(safe[:32])} if safe else {}
