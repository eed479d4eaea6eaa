"""Tools in Anthropic's words."""

from collections.abc import Iterable
from typing import Any

from src.domain.completion.model import ChatRequest
from src.domain.completion.tools import Tool, ToolUse
from src.integrations.llm.translation import idle_choice, strict_left_out


def tool_arguments(chat: ChatRequest, called: Iterable[str]) -> dict[str, Any]:
    """The SDK's arguments `tools` and `tool_choice`.

    Tools of the history that there are no more must be there all the same: they are, and may not be called.
    """
    if not chat.tools:
        gone = [_tool(Tool(name=name)) for name in called]
        return {"tools": gone, "tool_choice": {"type": "none"}} if gone else {}
    choice = chat.tool_choice
    may_be_called = choice.names if len(choice.names) > 1 or choice.use is ToolUse.AUTO else ()
    tools = [_tool(tool) for tool in chat.tools if not may_be_called or tool.name in may_be_called]
    chosen = _choice(chat)
    return {"tools": tools} | ({"tool_choice": chosen} if chosen else {})


def forces_a_tool(chat: ChatRequest) -> bool:
    """Whether a tool must be called."""
    return bool(chat.tools) and chat.tool_choice.use is ToolUse.REQUIRED


def tools_left_out(chat: ChatRequest) -> tuple[str, ...]:
    """What is not said: that schemas are kept to exactly, which needs schemas of another form; a choice of nothing."""
    return strict_left_out(chat) + idle_choice(chat)


def _choice(chat: ChatRequest) -> dict[str, Any]:
    """Nothing where the model may do as it likes."""
    names = chat.tool_choice.names
    one_at_a_time = {"disable_parallel_tool_use": True} if chat.parameters.parallel_tool_calls is False else {}
    match chat.tool_choice.use:
        case ToolUse.NONE:
            return {"type": "none"}
        case ToolUse.AUTO:
            return {"type": "auto", **one_at_a_time} if one_at_a_time else {}
        case ToolUse.REQUIRED if len(names) == 1:
            return {"type": "tool", "name": names[0], **one_at_a_time}
        case ToolUse.REQUIRED:
            return {"type": "any", **one_at_a_time}


def _tool(tool: Tool) -> dict[str, Any]:
    schema = {"type": "object", **tool.schema}
    if not tool.schema:
        schema["properties"] = {}
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "input_schema": schema}
