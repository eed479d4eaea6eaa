"""Tools in Anthropic's words, inwards."""

from collections.abc import Mapping
from typing import Any

from src.api.dialects.anthropic.content import Notes
from src.domain.completion.tools import Tool, ToolChoice, ToolUse
from src.shared.errors import InvalidRequest

_READ = frozenset({"type", "name", "description", "input_schema", "strict"})
_CHOICE_READ = frozenset({"type", "name", "disable_parallel_tool_use"})
_USES = {"auto": ToolUse.AUTO, "any": ToolUse.REQUIRED, "tool": ToolUse.REQUIRED, "none": ToolUse.NONE}


def tools_of(body: Mapping[str, Any], notes: Notes) -> tuple[Tool, ...]:
    """The client's own tools; those that Anthropic runs itself are left out by name. Raises InvalidRequest."""
    tools = body.get("tools")
    if tools is None:
        return ()
    if not isinstance(tools, list):
        raise InvalidRequest("tools must be a list.", param="tools")
    found = (_tool(tool, f"tools[{index}]", notes) for index, tool in enumerate(tools))
    return tuple(tool for tool in found if tool is not None)


def _tool(tool: Any, where: str, notes: Notes) -> Tool | None:
    if not isinstance(tool, dict):
        raise InvalidRequest(f"{where} must be an object.", param=where)
    kind = tool.get("type")
    if isinstance(kind, str) and kind != "custom":
        notes.leave_out(f"tools[{kind}]")
        return None
    name, schema, described = tool.get("name"), tool.get("input_schema"), tool.get("description")
    strict = tool.get("strict")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"{where}.name must be a string.", param=f"{where}.name")
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{where}.input_schema must be a JSON schema.", param=f"{where}.input_schema")
    if described is not None and not isinstance(described, str):
        raise InvalidRequest(f"{where}.description must be a string.", param=f"{where}.description")
    if strict is not None and not isinstance(strict, bool):
        raise InvalidRequest(f"{where}.strict must be true or false.", param=f"{where}.strict")
    notes.leave_out_rest(tool, _READ)
    return Tool(name=name, description=described, schema=schema, strict=strict)


def choice_of(body: Mapping[str, Any], tools: tuple[Tool, ...], notes: Notes) -> tuple[ToolChoice, bool | None]:
    """Which tools are to be called, and False where no two at once. Raises InvalidRequest.

    A choice of what was left out is left out too, but for one that demands a tool which nobody else has.
    """
    choice = body.get("tool_choice")
    if choice is None:
        return ToolChoice(), None
    if not isinstance(choice, dict):
        raise InvalidRequest("tool_choice must be an object.", param="tool_choice")
    kind, name = choice.get("type"), choice.get("name")
    parallel = False if choice.get("disable_parallel_tool_use") is True else None
    use = _USES.get(kind) if isinstance(kind, str) else None
    if kind == "tool" and not isinstance(name, str):
        raise InvalidRequest("tool_choice.name must be a string.", param="tool_choice.name")
    notes.leave_out_rest(choice, _CHOICE_READ, "tool_choice.")
    if kind == "tool" and name not in {tool.name for tool in tools}:
        notes.keep_out("tool_choice")
    elif use is None or not tools:
        notes.leave_out("tool_choice")
    else:
        return ToolChoice(use=use, names=(str(name),) if kind == "tool" else ()), parallel
    return ToolChoice(), None
