"""What a chat completions request asks for."""

from __future__ import annotations

from typing import Any

from tests.support.upstream_plan import Asked, Refused, Wants, texts_in
from tests.support.upstream_reading import Json, as_tuple, data_named, last_text, last_turn, parts_of, url_named

SILENT_EFFORTS = (None, "none")


def read_chat(body: dict[str, Any]) -> Asked:
    messages = body["messages"]
    users = [m for m in messages if m.get("role") == "user"]
    return Asked(
        model=body["model"],
        texts=tuple(text for m in messages for text in texts_in(m.get("content"))),
        last_user_text=last_text(users),
        stream=bool(body.get("stream")),
        cap=body.get("max_completion_tokens", body.get("max_tokens")),
        body=body,
        choices=body.get("n") or 1,
        wants=_wants(body, messages, users),
    )


def _wants(body: Json, messages: list[Json], users: list[Json]) -> Wants:
    names = tuple(t["function"]["name"] for t in body.get("tools") or () if t.get("type") == "function")
    tools, forced, tool = chosen(names, _flat(body.get("tool_choice")))
    wanted = body.get("response_format") or {}
    turn = last_turn(messages, lambda m: m.get("role") == "assistant")
    return Wants(
        tools=tools,
        forced=forced,
        tool=tool,
        parallel=body.get("parallel_tool_calls") is not False,
        json=wanted.get("type") in ("json_object", "json_schema"),
        schema=(wanted.get("json_schema") or {}).get("schema"),
        thinking=body.get("reasoning_effort") not in SILENT_EFFORTS,
        stops=as_tuple(body.get("stop")),
        results=tuple(" ".join(texts_in(m.get("content"))) for m in turn if m.get("role") == "tool"),
        attachments=tuple(filter(None, map(_attachment, parts_of(users[-1].get("content"))))) if users else (),
    )


def chosen(names: tuple[str, ...], choice: Any) -> tuple[tuple[str, ...], bool, str | None]:
    """What may be called, whether something must be, and what; `choice` is as the Responses API writes it."""
    match choice:
        case "none":
            return (), False, None
        case "required":
            return names, True, None
        case {"type": "function", "name": name}:
            return names, True, name
        case {"type": "allowed_tools", "mode": mode, "tools": allowed}:
            among = {tool.get("name") or tool["function"]["name"] for tool in allowed}
            return tuple(name for name in names if name in among), mode == "required", None
        case _:
            return names, False, None


def _flat(choice: Any) -> Any:
    match choice:
        case {"type": "function", "function": {"name": name}}:
            return {"type": "function", "name": name}
        case {"type": "allowed_tools", "allowed_tools": allowed}:
            return {"type": "allowed_tools", **allowed}
        case _:
            return choice


def _attachment(part: Json) -> str | None:
    match part:
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return url_named("image", url, what="'image_url.url'")
        case {"type": "file", "file": {"file_data": str(data)}}:
            return url_named("document", data, what="'file.file_data'")
        case {"type": "file", "file": {"file_id": str(identity)}}:
            return f"document: {identity}"
        case {"type": "input_audio", "input_audio": {"data": data, "format": form}}:
            return data_named("audio", f"audio/{form}", data)
        case {"type": "image_url" | "file" | "input_audio"}:
            raise Refused(f"Invalid content part of type '{part['type']}'.", param="messages")
        case _:
            return None
