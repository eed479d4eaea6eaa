"""What OpenAI refuses of a Responses request."""

from __future__ import annotations

from typing import Any

from tests.support.upstream_memory import ALLOWED_PREFIXES, Memory
from tests.support.upstream_plan import Refused
from tests.support.upstream_read_responses import items_of
from tests.support.upstream_reading import Json, names, parts_of
from tests.support.upstream_rules_chat import check_name, check_parameters, check_parameters_schema, missing

KNOWN = names(
    "access_programs background client_metadata context_management conversation image include input instructions "
    "max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls previous_response_id prompt "
    "prompt_cache_key prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store "
    "stream stream_options temperature text tool_choice tools top_logprobs top_p truncation user"
)
ITEM_TYPES = names(
    "message reasoning function_call function_call_output custom_tool_call custom_tool_call_output item_reference "
    "web_search_call file_search_call computer_call computer_call_output image_generation_call code_interpreter_call "
    "local_shell_call local_shell_call_output shell_call shell_call_output apply_patch_call apply_patch_call_output "
    "mcp_list_tools mcp_approval_request mcp_approval_response mcp_call compaction compaction_trigger "
    "tool_search_call tool_search_output additional_tools program program_output configuration_update"
)
ROLES = ("user", "assistant", "system", "developer")
INPUT_PARTS = ("input_text", "input_image", "input_file", "input_audio")
LEAST_OUTPUT = 16
OUTPUT_PARTS = ("output_text", "refusal")


def check_responses(body: Json, memory: Memory) -> None:
    """Raises `Refused` as OpenAI does."""
    check_parameters(body, KNOWN, memory)
    if not body.get("model"):
        raise missing("model")
    previous = body.get("previous_response_id")
    if not body.get("input") and previous is None and not body.get("prompt"):
        raise missing("input")
    if previous is not None and previous not in memory.responses:
        message = f"Previous response with id '{previous}' not found."
        raise Refused(message, code="previous_response_not_found", param="previous_response_id")
    most = body.get("max_output_tokens")
    if isinstance(most, int) and most < LEAST_OUTPUT:
        message = f"Invalid 'max_output_tokens': integer below minimum value. Expected a value >= {LEAST_OUTPUT}."
        raise Refused(message, code="integer_below_min_value", param="max_output_tokens")
    _check_tools(body)
    _check_format((body.get("text") or {}).get("format"))
    for number, item in enumerate(items_of(body)):
        _check_item(item, f"input[{number}]", memory)
    _check_calls(items_of(body), memory.responses.get(str(previous), frozenset()))


def _check_tools(body: Json) -> None:
    for number, tool in enumerate(body.get("tools") or ()):
        if tool.get("type") != "function":
            continue
        place = f"tools[{number}]"
        if "name" not in tool:
            raise missing(f"{place}.name")
        check_name(tool["name"], f"{place}.name")
        check_parameters_schema(tool.get("parameters"), tool["name"], f"{place}.parameters")
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "function" and "name" not in choice:
        raise missing("tool_choice.name")
    if choice not in (None, "auto", "none") and not body.get("tools"):
        raise Refused("Tool choice is only allowed when 'tools' are specified.", param="tool_choice")


def _check_format(wanted: Any) -> None:
    if not wanted:
        return
    if wanted.get("type") not in ("text", "json_object", "json_schema"):
        raise Refused(f"Invalid value: '{wanted.get('type')}'.", code="invalid_value", param="text.format.type")
    if wanted["type"] == "json_schema":
        for name in ("name", "schema"):
            if not wanted.get(name):
                raise missing(f"text.format.{name}")
        check_name(wanted["name"], "text.format.name")


def _check_item(item: Json, place: str, memory: Memory) -> None:
    kind = item["type"]
    if kind not in ITEM_TYPES and not str(kind).startswith(ALLOWED_PREFIXES):
        raise Refused(f"Invalid value: '{kind}'. ({place})", code="invalid_value", param=place)
    if kind == "message":
        _check_message(item, place)
    elif kind == "reasoning":
        _check_reasoning(item, place, memory)
    elif kind == "item_reference" and item.get("id") not in memory.items:
        raise _not_found(item)
    elif kind == "function_call":
        check_name(item.get("name"), f"{place}.name")
        if not isinstance(item.get("arguments"), str):
            raise Refused(f"Invalid type for '{place}.arguments': expected a string.", param=f"{place}.arguments")
    elif kind == "function_call_output" and "output" not in item:
        raise missing(f"{place}.output")


def _check_message(item: Json, place: str) -> None:
    role = item.get("role")
    if role not in ROLES:
        raise Refused(f"Invalid value: '{role}'. ({place}.role)", code="invalid_value", param=place)
    if item.get("content") is None:
        raise missing(f"{place}.content")
    if isinstance(item["content"], str):
        return
    supported = OUTPUT_PARTS if role == "assistant" else INPUT_PARTS
    for number, part in enumerate(parts_of(item["content"])):
        if part.get("type") not in supported:
            said = " and ".join(f"'{one}'" for one in supported)
            param = f"{place}.content[{number}]"
            message = f"Invalid value: '{part.get('type')}'. Supported values are: {said}."
            raise Refused(message, code="invalid_value", param=param)


def _check_reasoning(item: Json, place: str, memory: Memory) -> None:
    """It comes back with the encrypted content that was given, or is known by its id since it was stored."""
    sealed = item.get("encrypted_content")
    if sealed is None and item.get("id") not in memory.items:
        raise _not_found(item)
    if sealed is not None and sealed not in memory.thoughts:
        message = f"The encrypted content {str(sealed)[:20]} could not be verified."
        raise Refused(message, code="invalid_encrypted_content", param=place)


def _not_found(item: Json) -> Refused:
    message = f"Item with id '{item.get('id')}' not found. Items are not persisted when `store` is set to false."
    return Refused(message, status=404, param="input")


def _check_calls(items: list[Json], earlier: frozenset[str]) -> None:
    called = {item.get("call_id") for item in items if item["type"] == "function_call"}
    answered = {item.get("call_id") for item in items if item["type"] == "function_call_output"}
    for orphan in answered - called - earlier:
        raise Refused(f"No tool call found for function call output with call_id {orphan}.", param="input")
    for silent in (called | earlier) - answered:
        raise Refused(f"No tool output found for function call {silent}.", param="input")
