"""What OpenAI's chat completions may call, and the shape that an answer is to have, inwards."""

from collections.abc import Iterator, Mapping
from typing import Any

from src.api.dialects.fields import list_at, object_at, text_at
from src.api.dialects.openai.content import leave_out_rest
from src.domain.completion.tools import ResponseFormat, Tool, ToolChoice, ToolUse

Untranslated = dict[str, None]
"""Names of what has no place in our words, in the order in which they were found."""


_KINDS = ("type", "function", "custom")


def speaks_of_functions(body: Mapping[str, Any]) -> bool:
    """Whether the client is from the time before tools, and will look for its answer there."""
    return bool(body.get("functions")) and not body.get("tools")


def tools_of(body: Mapping[str, Any], untranslated: Untranslated) -> tuple[Tool, ...]:
    """Functions and custom tools. Raises InvalidRequest; tools that a provider runs itself are untranslated."""
    return (*_tools(body, untranslated), *_functions(body))


def _tools(body: Mapping[str, Any], untranslated: Untranslated) -> Iterator[Tool]:
    for index, value in enumerate(list_at(body.get("tools"), "tools")):
        tool = object_at(value, f"tools[{index}]")
        match kind := tool.get("type", "function"):
            case "function":
                where = f"tools[{index}].function"
                leave_out_rest(tool, _KINDS, untranslated)
                yield _function(object_at(tool.get("function"), where), where)
            case "custom":
                where = f"tools[{index}].custom"
                leave_out_rest(tool, _KINDS, untranslated)
                yield _custom(object_at(tool.get("custom"), where), where, untranslated)
            case _:
                untranslated[f"tools[{str(kind)[:50]}]"] = None


def _functions(body: Mapping[str, Any]) -> Iterator[Tool]:
    for index, value in enumerate(list_at(body.get("functions"), "functions")):
        where = f"functions[{index}]"
        yield _function(object_at(value, where), where)


def _function(function: Mapping[str, Any], where: str) -> Tool:
    schema, strict = function.get("parameters"), function.get("strict")
    return Tool(
        name=text_at(function.get("name"), f"{where}.name"),
        description=_description(function, where),
        schema={} if schema is None else object_at(schema, f"{where}.parameters"),
        strict=strict if isinstance(strict, bool) else None,
    )


def _custom(tool: Mapping[str, Any], where: str, untranslated: Untranslated) -> Tool:
    form = tool.get("format")
    if isinstance(form, dict) and form.get("type") not in (None, "text"):
        untranslated["tools[custom].format"] = None
    return Tool(name=text_at(tool.get("name"), f"{where}.name"), description=_description(tool, where), is_custom=True)


def _description(body: Mapping[str, Any], where: str) -> str | None:
    value = body.get("description")
    return None if value is None else text_at(value, f"{where}.description")


def choice_of(body: Mapping[str, Any], untranslated: Untranslated) -> ToolChoice:
    """Which tools are to be called; what we do not know is untranslated."""
    name = "tool_choice" if body.get("tool_choice") is not None else "function_call"
    match value := body.get(name):
        case None:
            return ToolChoice()
        case str() if value in set(ToolUse):
            return ToolChoice(use=ToolUse(value))
        case {"type": "allowed_tools"}:
            return _allowed(object_at(value.get("allowed_tools"), "tool_choice.allowed_tools"))
        case dict():
            if name == "function_call":
                return ToolChoice(use=ToolUse.REQUIRED, names=(text_at(value.get("name"), "function_call.name"),))
            if value.get("type") in ("function", "custom"):
                return ToolChoice(use=ToolUse.REQUIRED, names=(_named(value, "tool_choice"),))
    untranslated[name] = None
    return ToolChoice()


def _allowed(allowed: Mapping[str, Any]) -> ToolChoice:
    where = "tool_choice.allowed_tools.tools"
    tools = [object_at(tool, f"{where}[{n}]") for n, tool in enumerate(list_at(allowed.get("tools"), where))]
    return ToolChoice(
        use=ToolUse.REQUIRED if allowed.get("mode") == "required" else ToolUse.AUTO,
        names=tuple(_named(tool, f"{where}[{n}]") for n, tool in enumerate(tools)),
    )


def _named(tool: Mapping[str, Any], where: str) -> str:
    kind = "custom" if tool.get("type") == "custom" else "function"
    return text_at(object_at(tool.get(kind), f"{where}.{kind}").get("name"), f"{where}.{kind}.name")


def format_of(body: Mapping[str, Any], untranslated: Untranslated) -> ResponseFormat | None:
    """The shape that the answer is to have; None for text."""
    if body.get("response_format") is None:
        return None
    wished = object_at(body["response_format"], "response_format")
    match wished.get("type"):
        case "json_schema":
            where = "response_format.json_schema"
            return _schema_format(object_at(wished.get("json_schema"), where), where)
        case "json_object":
            return ResponseFormat()
        case "text":
            return None
    untranslated["response_format"] = None
    return None


def _schema_format(body: Mapping[str, Any], where: str) -> ResponseFormat:
    schema, name, strict = body.get("schema"), body.get("name"), body.get("strict")
    return ResponseFormat(
        schema=None if schema is None else object_at(schema, f"{where}.schema"),
        name="answer" if name is None else text_at(name, f"{where}.name"),
        description=_description(body, where),
        strict=strict if isinstance(strict, bool) else None,
    )
