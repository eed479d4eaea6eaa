"""What a Responses request asks for."""

from __future__ import annotations

from typing import Any

from tests.support.upstream_plan import Asked, Refused, Wants, texts_in
from tests.support.upstream_read_chat import SILENT_EFFORTS, chosen
from tests.support.upstream_reading import Json, data_named, last_text, last_turn, parts_of, result_text, url_named

MODELS_OWN = ("reasoning", "function_call", "custom_tool_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")


def items_of(body: Json) -> list[Json]:
    """The input as items; a text is a user message."""
    given = body.get("input")
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return [item if "type" in item else {"type": "message", **item} for item in given or ()]


def read_responses(body: dict[str, Any]) -> Asked:
    items = items_of(body)
    messages = [item for item in items if item["type"] == "message"]
    users = [m for m in messages if m.get("role") == "user"]
    outputs = [result_text(item.get("output")) for item in items if item["type"] in _OUTPUTS]
    instructions = body.get("instructions") or ""
    return Asked(
        model=body["model"],
        texts=(instructions, *(text for m in messages for text in texts_in(m.get("content"))), *outputs),
        last_user_text=last_text(users),
        stream=bool(body.get("stream")),
        cap=body.get("max_output_tokens"),
        body=body,
        wants=_wants(body, items, users),
    )


def _wants(body: Json, items: list[Json], users: list[Json]) -> Wants:
    names = tuple(tool["name"] for tool in body.get("tools") or () if tool.get("type") == "function")
    tools, forced, tool = chosen(names, body.get("tool_choice"))
    wanted = (body.get("text") or {}).get("format") or {}
    turn = last_turn(items, lambda item: item["type"] in MODELS_OWN or item.get("role") == "assistant")
    return Wants(
        tools=tools,
        forced=forced,
        tool=tool,
        parallel=body.get("parallel_tool_calls") is not False,
        json=wanted.get("type") in ("json_object", "json_schema"),
        schema=wanted.get("schema"),
        thinking=(body.get("reasoning") or {}).get("effort") not in SILENT_EFFORTS,
        results=tuple(result_text(item.get("output")) for item in turn if item["type"] in _OUTPUTS),
        attachments=tuple(filter(None, map(_attachment, parts_of(users[-1].get("content"))))) if users else (),
    )


def _attachment(part: Json) -> str | None:
    match part:
        case {"type": "input_image", "image_url": str(url)}:
            return url_named("image", url, what="'input[].content[].image_url'")
        case {"type": "input_image", "file_id": str(identity)}:
            return f"image: {identity}"
        case {"type": "input_file", "file_data": str(url)} | {"type": "input_file", "file_url": str(url)}:
            return url_named("document", url, what="'input[].content[].file_data'")
        case {"type": "input_file", "file_id": str(identity)}:
            return f"document: {identity}"
        case {"type": "input_audio", "input_audio": {"data": data, "format": form}}:
            return data_named("audio", f"audio/{form}", data)
        case {"type": "input_image" | "input_file" | "input_audio"}:
            raise Refused(f"Invalid content part of type '{part['type']}'.", param="input")
        case _:
            return None
