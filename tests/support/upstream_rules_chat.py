"""What OpenAI refuses of a chat completions or an embeddings request."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tests.support.upstream_memory import Memory
from tests.support.upstream_plan import Refused
from tests.support.upstream_reading import Json, check_known, names, parts_of

KNOWN = names(
    "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages "
    "metadata modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key "
    "prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier "
    "stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity "
    "web_search_options"
)
KNOWN_OF_EMBEDDINGS = names("model input dimensions encoding_format user")
ROLES = ("developer", "system", "user", "assistant", "tool", "function")
MOST_STOPS = 4
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def check_chat(body: Json, memory: Memory) -> None:
    """Raises `Refused` as OpenAI does."""
    check_parameters(body, KNOWN, memory)
    for required in ("model", "messages"):
        if not body.get(required):
            raise Refused(f"you must provide a {required} parameter", param=required)
    _check_tools(body)
    _check_format(body.get("response_format"))
    stops = body.get("stop")
    if isinstance(stops, list) and len(stops) > MOST_STOPS:
        raise Refused(f"Invalid 'stop': array too long. Expected at most {MOST_STOPS} elements.", param="stop")
    for number, message in enumerate(body["messages"]):
        _check_message(message, f"messages[{number}]")
    _check_calls_are_answered(body["messages"])


def check_embeddings(body: Json, memory: Memory) -> None:
    """Raises `Refused` as OpenAI does."""
    check_parameters(body, KNOWN_OF_EMBEDDINGS, memory)
    if not body.get("model") or "input" not in body:
        raise Refused("you must provide a model and an input parameter")
    if body["input"] in ("", []):
        raise Refused("'$.input' is invalid. Please check the API reference.", param="input")
    dimensions = body.get("dimensions")
    if dimensions is not None and (not isinstance(dimensions, int) or dimensions < 1):
        raise Refused(f"Invalid 'dimensions': {dimensions!r} is not a positive integer.", param="dimensions")


def check_parameters(body: Json, known: Iterable[str], memory: Memory) -> None:
    unknown = check_known(body, known, memory.accepts)
    if unknown is not None:
        raise Refused(f"Unknown parameter: '{unknown}'.", code="unknown_parameter", param=unknown)
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        message = "Invalid type for 'stream_options': expected an object."
        raise Refused(message, code="invalid_type", param="stream_options")


def check_name(name: Any, place: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        message = f"Invalid '{place}': string does not match pattern. Expected a string that matches '{_NAME.pattern}'."
        raise Refused(message, code="invalid_value", param=place)


def check_parameters_schema(schema: Any, name: str, place: str) -> None:
    if schema and schema.get("type") != "object":
        message = f"Invalid schema for function '{name}': schema must be a JSON Schema of 'type: \"object\"'."
        raise Refused(message, code="invalid_function_parameters", param=place)


def missing(place: str) -> Refused:
    return Refused(f"Missing required parameter: '{place}'.", code="missing_required_parameter", param=place)


def _check_tools(body: Json) -> None:
    tools = body.get("tools")
    for dependent in ("tool_choice", "parallel_tool_calls"):
        if body.get(dependent) not in (None, "none", "auto") and not tools:
            raise Refused(f"'{dependent}' is only allowed when 'tools' are specified.", param=dependent)
    for number, tool in enumerate(tools or ()):
        place = f"tools[{number}].function"
        if tool.get("type") != "function":
            continue
        if "function" not in tool:
            raise missing(place)
        check_name(tool["function"].get("name"), f"{place}.name")
        schema = tool["function"].get("parameters")
        check_parameters_schema(schema, tool["function"]["name"], f"{place}.parameters")
        if schema and "properties" not in schema:
            raise Refused(
                f"Invalid schema for function '{tool['function']['name']}': "
                "In context=(), object schema missing properties.",
                code="invalid_function_parameters",
                param=f"{place}.parameters",
            )


def _check_format(wanted: Any) -> None:
    if not wanted:
        return
    if wanted.get("type") not in ("text", "json_object", "json_schema"):
        raise Refused(f"Invalid value: '{wanted.get('type')}'.", code="invalid_value", param="response_format.type")
    if wanted["type"] == "json_schema":
        schema = wanted.get("json_schema") or {}
        for name in ("name", "schema"):
            if not schema.get(name):
                raise missing(f"response_format.json_schema.{name}")
        check_name(schema["name"], "response_format.json_schema.name")
        kind = schema["schema"].get("type")
        if kind != "object":
            raise Refused(
                f"Invalid schema for response_format '{schema['name']}': "
                f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'.",
                param="response_format",
            )


def _check_message(message: Json, place: str) -> None:
    role = message.get("role")
    if role not in ROLES:
        supported = ", ".join(f"'{one}'" for one in ROLES)
        raise Refused(
            f"Invalid value: '{role}'. Supported values are: {supported}.", code="invalid_value", param=f"{place}.role"
        )
    if message.get("content") is None and not (role == "assistant" and _says_otherwise(message)):
        raise Refused(f"Invalid value for 'content': expected a string, got null. ({place})", param=f"{place}.content")
    for part in parts_of(message.get("content")):
        if part.get("type") not in ("text", "refusal", "image_url", "input_audio", "file"):
            param = f"{place}.content.type"
            raise Refused(f"Invalid value: '{part.get('type')}'. ({param})", code="invalid_value", param=param)
        if part["type"] == "image_url" and role != "user":
            raise Refused(f"Image URLs are only allowed for messages with role 'user'. ({place})", param=place)
    for call in message.get("tool_calls") or ():
        if call.get("type") == "function":
            check_name(call["function"].get("name"), f"{place}.tool_calls.function.name")
            if not isinstance(call["function"].get("arguments"), str):
                raise Refused(f"Invalid type for '{place}.tool_calls.function.arguments': expected a string.")


def _says_otherwise(message: Json) -> bool:
    return any(message.get(name) for name in ("tool_calls", "function_call", "refusal", "audio"))


def _check_calls_are_answered(messages: list[Json]) -> None:
    open_calls: set[str] = set()
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_calls:
                raise Refused(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                    "'tool_calls'.",
                    param=f"messages.[{number}].role",
                )
            open_calls.discard(message["tool_call_id"])
            continue
        _none_open(open_calls, number)
        open_calls = {call["id"] for call in message.get("tool_calls") or ()}
    _none_open(open_calls, len(messages))


def _none_open(calls: set[str], number: int) -> None:
    if calls:
        raise Refused(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'. The following tool_call_ids did not have response messages: " + ", ".join(sorted(calls)),
            param=f"messages.[{number}].role",
        )
