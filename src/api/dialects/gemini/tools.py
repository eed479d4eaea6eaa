"""Google's tools and schemas, inwards: declarations and answer formats as JSON schemas."""

from collections.abc import Mapping
from typing import Any

from src.api.dialects.fields import MAX_MESSAGES
from src.api.dialects.gemini.fields import Notes, camel, camel_fields, listed, text_in
from src.domain.completion.tools import ResponseFormat, Tool, ToolChoice, ToolUse
from src.shared.errors import InvalidRequest

_USES = {
    "MODE_UNSPECIFIED": ToolUse.AUTO,
    "AUTO": ToolUse.AUTO,
    "VALIDATED": ToolUse.AUTO,
    "ANY": ToolUse.REQUIRED,
    "NONE": ToolUse.NONE,
}
_FORMATS = ("date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")
"""JSON schema's own; Google's others (int32, enum, ...) say nothing to other models."""
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_SCHEMAS = frozenset({"items", "additionalProperties"})
_LISTS = frozenset({"anyOf", "prefixItems", "allOf", "oneOf"})
_MAPS = frozenset({"properties", "defs", "$defs"})
_RENAMED = {"defs": "$defs", "ref": "$ref"}
_ENUM = "text/x.enum"
_UNSAID = frozenset({"type", "nullable", "propertyOrdering", "format", "example"})


def read_tools(value: Any, notes: Notes) -> tuple[Tool, ...]:
    """The functions that are declared; tools that Google runs itself are left out and named."""
    found: list[Tool] = []
    for index, given in enumerate(listed([] if value is None else value, "tools", MAX_MESSAGES)):
        where = f"tools[{index}]"
        for name, inner in camel_fields(given, where).items():
            if name != "functionDeclarations":
                notes.leave_out(f"tools[{name}]")
                continue
            declared = listed(inner, f"{where}.{name}", MAX_MESSAGES)
            found += [_tool(each, f"{where}.{name}[{at}]", notes) for at, each in enumerate(declared)]
    return tuple(found)


def _tool(given: Any, where: str, notes: Notes) -> Tool:
    fields = camel_fields(given, where)
    name = text_in(fields, "name", where)
    if not name:
        raise InvalidRequest(f"{where}.name is required.", param=f"{where}.name")
    for unsaid in fields.keys() - {"name", "description", "parameters", "parametersJsonSchema"}:
        notes.leave_out(f"functionDeclarations[{unsaid}]")
    schema = fields.get("parametersJsonSchema")
    if schema is None and "parameters" in fields:
        schema = json_schema(camel_fields(fields["parameters"], f"{where}.parameters"))
    if not isinstance(schema, Mapping | None):
        raise InvalidRequest(f"{where}.parametersJsonSchema must be an object.", param=f"{where}.parametersJsonSchema")
    return Tool(name=name, description=text_in(fields, "description", where), schema=schema or {"type": "object"})


def read_tool_choice(value: Any, notes: Notes) -> ToolChoice:
    """Whether and which functions are to be called."""
    if value is None:
        return ToolChoice()
    fields = camel_fields(value, "toolConfig")
    for unsaid in fields.keys() - {"functionCallingConfig"}:
        notes.leave_out(f"toolConfig.{unsaid}")
    where = "toolConfig.functionCallingConfig"
    calling = camel_fields(fields.get("functionCallingConfig") or {}, where)
    mode = (text_in(calling, "mode", where) or "AUTO").upper()
    if mode not in _USES:
        notes.leave_out(where)
    names = calling.get("allowedFunctionNames") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        place = f"{where}.allowedFunctionNames"
        raise InvalidRequest(f"{place} must be a list of strings.", param=place)
    return ToolChoice(use=_USES.get(mode, ToolUse.AUTO), names=tuple(names))


def read_response_format(config: Mapping[str, Any], notes: Notes) -> ResponseFormat | None:
    """The JSON that the answer is to be. `config` is the generationConfig, its names in camelCase."""
    where = "generationConfig"
    media_type = text_in(config, "responseMimeType", where)
    schema = next((config[name] for name in ("responseJsonSchema", "_responseJsonSchema") if name in config), None)
    if schema is None and "responseSchema" in config:
        schema = json_schema(camel_fields(config["responseSchema"], f"{where}.responseSchema"))
    if not isinstance(schema, Mapping | None):
        raise InvalidRequest(f"{where}.responseJsonSchema must be an object.", param=f"{where}.responseJsonSchema")
    known = media_type in (None, "", "text/plain", "application/json") or (media_type == _ENUM and schema is not None)
    if not known:
        notes.refuse(f"{where}.responseMimeType")
    if media_type != "application/json" and schema is None:
        return None
    return ResponseFormat(schema=schema)


def wants_bare_word(body: Mapping[str, Any]) -> bool:
    """Whether the answer is to be one of some words, without the quotes that JSON has. For a body that was read."""
    config = camel_fields(body, "The body").get("generationConfig") or {}
    return camel_fields(config, "generationConfig").get("responseMimeType") == _ENUM


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of Google's as a JSON schema: its types are in capitals, and null is allowed by a flag."""
    fields = {camel(name): value for name, value in schema.items() if value is not None}
    said = {_RENAMED.get(name, name): _said(name, value) for name, value in fields.items() if name not in _UNSAID}
    if fields.get("format") in _FORMATS:
        said["format"] = fields["format"]
    kind = _type(fields.get("type"))
    if fields.get("nullable") is True:
        return _nullable(said, kind)
    return {"type": kind, **said} if kind is not None else said


def _said(name: str, value: Any) -> Any:
    if name in _COUNTS and isinstance(value, str) and value.isdecimal():
        return int(value)
    if name in _SCHEMAS and isinstance(value, Mapping):
        return json_schema(value)
    if name in _LISTS and isinstance(value, list):
        return [json_schema(each) if isinstance(each, Mapping) else each for each in value]
    if name in _MAPS and isinstance(value, Mapping):
        return {key: json_schema(each) if isinstance(each, Mapping) else each for key, each in value.items()}
    if name == "ref" and isinstance(value, str):
        return value.replace("#/defs/", "#/$defs/")
    return value


def _type(kind: Any) -> Any:
    if isinstance(kind, str):
        return None if kind == "TYPE_UNSPECIFIED" else kind.lower()
    return kind


def _nullable(said: dict[str, Any], kind: Any) -> dict[str, Any]:
    """The same, or null."""
    if isinstance(said.get("enum"), list) and None not in said["enum"]:
        said = {**said, "enum": [*said["enum"], None]}
    if isinstance(kind, str):
        return {"type": [kind, "null"], **said}
    if isinstance(said.get("anyOf"), list):
        return {**said, "anyOf": [*said["anyOf"], {"type": "null"}]}
    return said if kind is None else {"type": kind, **said}
