"""How `Mind` answers: from what a request asks for, in no dialect's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.support.behaviours import Answer, ToolCall
from tests.support.upstream_plan import Asked, Wants, compact, words


def answer_by_mind(asked: Asked, like: Answer) -> Answer:
    """`like`, but with the text, the tool calls, the thinking and the cached tokens that fit the request."""
    said = asked.last_user_text
    thinking = f"thinking about {said}" if asked.wants.thinking else like.thinking
    cached = sum(map(words, asked.texts)) // 2 if "cached" in said else like.cached
    minded = replace(like, thinking=thinking, cached=cached)
    calls = _calls(asked.wants, said)
    if calls:
        return replace(minded, text="", tool_calls=calls)
    text, stop = _cut_at_stop(_text(asked.wants, said), asked.wants.stops)
    return replace(minded, text=text, stop_sequence=stop)


def _calls(wants: Wants, said: str) -> tuple[ToolCall, ...]:
    if not wants.tools or wants.results or not (wants.forced or "call" in said):
        return ()
    call = ToolCall(name=wants.tool or wants.tools[0], arguments={"q": said})
    return (call, call) if "call twice" in said and wants.parallel else (call,)


def _text(wants: Wants, said: str) -> str:
    if wants.results:
        return f"result: {' '.join(wants.results)}"
    if wants.json:
        return compact({"text": said} if wants.schema is None else fit(wants.schema))
    if wants.attachments:
        return " ".join(wants.attachments)
    return f"echo: {said}"


def _cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    found = [(text.index(stop), stop) for stop in stops if stop in text]
    if not found:
        return text, None
    at, stop = min(found)
    return text[:at], stop


def fit(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> Any:
    """A value that fits a JSON schema (or Google's dialect of it): the plainest of each type."""
    root = root or schema
    if "$ref" in schema:
        return fit(_referred(schema["$ref"], root), root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for name in ("anyOf", "any_of", "oneOf", "allOf"):
        if schema.get(name):
            return fit(schema[name][0], root)
    return _plainest(schema, root)


def _plainest(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    kind = schema.get("type", "object")
    kind = (kind if isinstance(kind, str) else kind[0]).lower()
    if kind == "object":
        return {name: fit(value, root) for name, value in (schema.get("properties") or {}).items()}
    return {"string": "x", "number": 1, "integer": 1, "boolean": True, "array": [], "null": None}[kind]


def _referred(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for step in reference.removeprefix("#/").split("/"):
        found = found if step == "#" else found[step]
    return found  # type: ignore[no-any-return]
