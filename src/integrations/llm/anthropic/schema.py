"""JSON schemas as Anthropic's structured outputs take them."""

from collections.abc import Mapping
from typing import Any

_MAPS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf")
_KEPT = frozenset({"type", "description", "title", "enum", "const", "default", "required", "$ref", "items", "format"})
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
_NOTES = frozenset({"$schema", "$id", "$comment", "additionalProperties", "oneOf", *_MAPS, *_LISTS})


def closed_schema(schema: Any) -> Any:
    """The schema with closed objects. What the API does not enforce, like bounds of numbers, becomes description."""
    if not isinstance(schema, Mapping):
        return schema
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return _any_of(schema, kinds)
    found = {name: value for name, value in schema.items() if name in _KEPT}
    for name in _MAPS:
        if isinstance(schema.get(name), Mapping):
            found[name] = {key: closed_schema(value) for key, value in schema[name].items()}
    for name in _LISTS:
        if isinstance(schema.get(name), list):
            found[name] = [closed_schema(each) for each in schema[name]]
    if isinstance(schema.get("oneOf"), list):
        found["anyOf"] = [closed_schema(each) for each in schema["oneOf"]]
    if "items" in found:
        found["items"] = closed_schema(found["items"])
    if kinds == "object" or "properties" in found:
        found["type"] = "object"
        found.setdefault("properties", {})
        found["additionalProperties"] = False
    return _described(found, schema)


def _described(found: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """What is not enforced is at least read by the model."""
    rest = {name: value for name, value in schema.items() if name not in _KEPT and name not in _NOTES}
    if rest.get("minItems") in (0, 1):
        found["minItems"] = rest.pop("minItems")
    if "format" in found and found["format"] not in _FORMATS:
        rest["format"] = found.pop("format")
    if rest:
        words = "{" + ", ".join(f"{name}: {value}" for name, value in rest.items()) + "}"
        before = found.get("description")
        found["description"] = f"{before}\n\n{words}" if before else words
    return found


def _any_of(schema: Mapping[str, Any], kinds: list[Any]) -> dict[str, Any]:
    """Several types are a choice of schemas of one type each."""
    rest = {name: value for name, value in schema.items() if name not in ("type", "description", "enum")}
    if "enum" in schema:
        return {name: schema[name] for name in ("description", "enum") if name in schema}
    plain = ("null", "boolean")
    choices = [{"type": kind} if kind in plain else closed_schema({**rest, "type": kind}) for kind in kinds]
    described = {"description": schema["description"]} if "description" in schema else {}
    return described | {"anyOf": choices}
