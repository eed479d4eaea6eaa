"""What a response repeats of its request, with what is so where the request does not say."""

from collections.abc import Mapping
from typing import Any

from src.api.dialects.fields import (
    MAX_TOKENS,
    flag_field,
    integer_field,
    number_field,
    object_at,
    text_at,
    text_field,
)
from src.shared.errors import InvalidRequest

MAX_TEXT = 10_000_000
MAX_NAME = 1000
MAX_METADATA = 16

_TIERS = frozenset({"default", "flex", "scale", "priority", "fast", "ultrafast"})
_NAMES = ("user", "safety_identifier", "prompt_cache_key")


def echo_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a response that repeat its request. Raises InvalidRequest."""
    conversation = conversation_of(body)
    return {
        "background": flag_field(body, "background"),
        "conversation": None if conversation is None else {"id": conversation},
        "frequency_penalty": _number(body, "frequency_penalty", 0.0, least=-2, most=2),
        "instructions": instructions_of(body),
        "max_output_tokens": integer_field(body, "max_output_tokens", least=1, most=MAX_TOKENS),
        "max_tool_calls": integer_field(body, "max_tool_calls", least=1, most=MAX_TOKENS),
        "metadata": _metadata(body.get("metadata")),
        "parallel_tool_calls": True
        if body.get("parallel_tool_calls") is None
        else flag_field(body, "parallel_tool_calls"),
        "presence_penalty": _number(body, "presence_penalty", 0.0, least=-2, most=2),
        "previous_response_id": text_field(body, "previous_response_id", longest=MAX_NAME),
        "prompt": _prompt(body.get("prompt")),
        "prompt_cache_retention": _one_of(body, "prompt_cache_retention", ("in_memory", "24h"), None),
        "reasoning": _reasoning(body.get("reasoning")),
        "service_tier": _tier(body),
        "store": True if body.get("store") is None else flag_field(body, "store"),
        "temperature": _number(body, "temperature", 1.0, least=0, most=2),
        "text": _text(body.get("text")),
        "tool_choice": "auto" if body.get("tool_choice") is None else body["tool_choice"],
        "tools": [_tool(tool) for tool in body.get("tools") or ()],
        "top_logprobs": integer_field(body, "top_logprobs", least=0, most=20) or 0,
        "top_p": _number(body, "top_p", 1.0, least=0, most=1),
        "truncation": truncation_of(body),
        **{name: text_field(body, name, longest=MAX_NAME) for name in _NAMES},
    }


def conversation_of(body: Mapping[str, Any]) -> str | None:
    """The id of the conversation, which is named by a string or an object."""
    given = body.get("conversation")
    if given is None or isinstance(given, str):
        return given
    return text_at(object_at(given, "conversation").get("id"), "conversation.id")


def instructions_of(body: Mapping[str, Any]) -> str | None:
    """The text that stands before the conversation."""
    return text_field(body, "instructions", longest=MAX_TEXT)


def truncation_of(body: Mapping[str, Any]) -> str:
    """Whether the oldest of a conversation that is too long is left out (auto) or not (disabled)."""
    return _one_of(body, "truncation", ("auto", "disabled"), "disabled") or "disabled"


def _number(body: Mapping[str, Any], name: str, usual: float, *, least: float, most: float) -> float:
    found = number_field(body, name, least=least, most=most)
    return usual if found is None else found


def _one_of(body: Mapping[str, Any], name: str, values: tuple[str, ...], usual: str | None) -> str | None:
    found = text_field(body, name, longest=MAX_NAME)
    if found is not None and found not in values:
        raise InvalidRequest(f"{name} must be one of {', '.join(values)}.", param=name)
    return usual if found is None else found


def _tier(body: Mapping[str, Any]) -> str:
    wish = text_field(body, "service_tier", longest=MAX_NAME)
    return wish if wish in _TIERS and wish is not None else "default"


def _metadata(given: Any) -> dict[str, str]:
    if given is None:
        return {}
    found = object_at(given, "metadata")
    if len(found) > MAX_METADATA:
        raise InvalidRequest(f"metadata has more than {MAX_METADATA} entries.", param="metadata")
    return {name: text_at(value, f"metadata.{name[:64]}") for name, value in found.items()}


def _prompt(given: Any) -> dict[str, Any] | None:
    if given is None:
        return None
    prompt = object_at(given, "prompt")
    text_at(prompt.get("id"), "prompt.id")
    return dict(prompt)


def _reasoning(given: Any) -> dict[str, Any]:
    found = {} if given is None else object_at(given, "reasoning")
    told = {name: value for name, value in found.items() if isinstance(value, str)}
    return {"effort": None, "summary": None} | told


def _text(given: Any) -> dict[str, Any]:
    found = {} if given is None else object_at(given, "text")
    said = {name: value for name, value in found.items() if value is not None}
    return {"format": {"type": "text"}, "verbosity": "medium"} | said


def _tool(tool: Any) -> Any:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return tool
    usual = {"description": None, "parameters": None, "strict": True}
    return usual | {name: value for name, value in tool.items() if value is not None}
