"""Requests in our words, as OpenAI's chat completions say them."""

import re
from typing import Any

from src.domain.catalog.model import ReasoningStyle, WireFormat
from src.domain.completion.model import UpstreamRequest
from src.domain.completion.tools import EFFORTS, ResponseFormat, Tool, ToolChoice, ToolUse
from src.integrations.llm.openai.content import Speaker
from src.integrations.llm.reasoning import effort_of, style_of
from src.integrations.llm.translation import idle_choice, left_out, refuse_choices, refuse_many_stops, sayable

MAX_COMPLETION_TOKENS = "max_completion_tokens"
"""OpenAI's own field for the output cap; its reasoning models refuse the older one."""
MAX_TOKENS = "max_tokens"
"""The field that every compatible server knows."""

_TAKEN = frozenset(
    {
        *("temperature", "top_p", "stop", "presence_penalty", "frequency_penalty", "seed"),
        *("parallel_tool_calls", "response_format"),
    }
)
"""Parameters that the format can say of every model. Odds of tokens have no place in our answers."""

_MOST_STOPS = 4
"""Of OpenAI itself; servers that are compatible with it have other limits, or none."""

_NO_NAME = re.compile(r"[^a-zA-Z0-9_-]+")
_COMMON = {"minimal": "low", "xhigh": "high", "max": "high"}
_FEWER_EFFORTS = (
    (re.compile(r"o[1-9]|gpt-oss"), ("low", "medium", "high")),
    (re.compile(r"gpt-5(?:$|-)"), ("minimal", "low", "medium", "high")),
)
"""Models that do not know all of them."""


def request_arguments(request: UpstreamRequest, cap_field: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body for a request, and the names of what it leaves out. Raises UpstreamFailed (unsupported).

    The `cap_field` tells OpenAI itself from the servers that are compatible with it: they know fewer fields of the
    format, and have some of their own.
    """
    request, items = sayable(request, WireFormat.CHAT_COMPLETIONS)
    refuse_choices(request)
    is_openai = cap_field == MAX_COMPLETION_TOKENS
    if is_openai:
        refuse_many_stops(request, _MOST_STOPS)
    speaker = Speaker(request, is_openai=is_openai)
    style = style_of(request.model)
    body = {
        "model": request.model.upstream,
        "messages": speaker.messages(request.chat.messages),
        cap_field: request.max_output_tokens,
        **_sampling(request),
        **_tools(request, is_openai=is_openai),
        "response_format": _format(request.chat.parameters.response_format),
        "reasoning_effort": None if style is ReasoningStyle.NONE else _effort(request),
    }
    taken = _TAKEN if style is ReasoningStyle.NONE else _TAKEN | {"reasoning"}
    dropped = (*left_out(request, taken), *idle_choice(request.chat), *speaker.dropped, *items)
    return {name: value for name, value in body.items() if value is not None}, dropped


def _sampling(request: UpstreamRequest) -> dict[str, Any]:
    wished = request.chat.parameters
    sampling = request.model.capabilities.sampling
    return {
        "temperature": wished.temperature if sampling else None,
        "top_p": wished.top_p if sampling else None,
        "stop": list(wished.stop) or None,
        "presence_penalty": wished.presence_penalty if sampling else None,
        "frequency_penalty": wished.frequency_penalty if sampling else None,
        "seed": wished.seed,
    }


def _tools(request: UpstreamRequest, *, is_openai: bool) -> dict[str, Any]:
    """Only OpenAI knows how to forbid some of the tools; elsewhere those are not shown."""
    tools, choice = request.chat.tools, request.chat.tool_choice
    if choice.names and not is_openai:
        tools = tuple(tool for tool in tools if tool.name in choice.names)
    if not tools:
        return {}
    return {
        "tools": [_tool(tool) for tool in tools],
        "tool_choice": _choice(choice, {tool.name: tool for tool in tools}, is_openai=is_openai),
        "parallel_tool_calls": request.chat.parameters.parallel_tool_calls,
    }


def _tool(tool: Tool) -> dict[str, Any]:
    told: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        told["description"] = tool.description
    if tool.is_custom:
        return {"type": "custom", "custom": told}
    if tool.schema:
        told["parameters"] = {"type": "object", "properties": {}, **tool.schema}  # it refuses objects without them
    if tool.strict is not None:
        told["strict"] = tool.strict
    return {"type": "function", "function": told}


def _choice(choice: ToolChoice, tools: dict[str, Tool], *, is_openai: bool) -> Any:
    """None for what is done anyway."""
    if choice.use is ToolUse.NONE:
        return "none"
    if choice.use is ToolUse.REQUIRED and len(choice.names) == 1:
        return _named(choice.names[0], tools)
    if choice.names and is_openai:
        allowed = [_named(name, tools) for name in choice.names]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.use.value, "tools": allowed}}
    return None if choice.use is ToolUse.AUTO else choice.use.value


def _named(name: str, tools: dict[str, Tool]) -> dict[str, Any]:
    kind = "custom" if name in tools and tools[name].is_custom else "function"
    return {"type": kind, kind: {"name": name}}


def _format(wished: ResponseFormat | None) -> dict[str, Any] | None:
    if wished is None:
        return None
    if wished.schema is None:
        return {"type": "json_object"}
    told = {
        "name": _NO_NAME.sub("_", wished.name)[:64] or "answer",
        "schema": dict(wished.schema),
        "description": wished.description,
        "strict": wished.strict,
    }
    return {"type": "json_schema", "json_schema": {name: value for name, value in told.items() if value is not None}}


def _effort(request: UpstreamRequest) -> str | None:
    """The effort that was wished for, as near as the model knows it."""
    reasoning = request.chat.parameters.reasoning
    effort = None if reasoning is None else effort_of(reasoning)
    if reasoning is None or effort is None:
        return None
    if reasoning.effort is None:  # made from a budget: of the efforts between, every model knows these
        effort = _COMMON.get(effort, effort)
    efforts = _efforts(request.model.upstream)
    if effort in efforts:
        return effort
    return efforts[0] if EFFORTS.index(effort) < EFFORTS.index(efforts[0]) else efforts[-1]


def _efforts(upstream: str) -> tuple[str, ...]:
    name = upstream.rpartition("/")[2].removeprefix("ft:")
    return next((efforts for pattern, efforts in _FEWER_EFFORTS if pattern.match(name)), EFFORTS)
