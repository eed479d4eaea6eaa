"""What an Anthropic messages request asks for."""

from __future__ import annotations

from typing import Any

from tests.support.upstream_plan import Asked, Wants, texts_in
from tests.support.upstream_reading import Json, as_tuple, data_named, last_turn, parts_of, result_text


def read_anthropic(body: dict[str, Any]) -> Asked:
    messages = body["messages"]
    contents = [body.get("system"), *(m.get("content") for m in messages)]
    users = [m for m in messages if m.get("role") == "user"]
    said = [_own_text(m) for m in users if _has_own_parts(m)]
    return Asked(
        model=body["model"],
        texts=tuple(text for content in contents for text in texts_in(content)),
        last_user_text=said[-1] if said else "",
        stream=bool(body.get("stream")),
        cap=body.get("max_tokens"),
        body=body,
        wants=_wants(body, messages, users),
    )


def _has_own_parts(message: Json) -> bool:
    return any(part.get("type") != "tool_result" for part in parts_of(message.get("content")))


def _own_text(message: Json) -> str:
    own = [part for part in parts_of(message.get("content")) if part.get("type") != "tool_result"]
    return " ".join(texts_in(own))


def _wants(body: Json, messages: list[Json], users: list[Json]) -> Wants:
    choice = body.get("tool_choice") or {}
    off = choice.get("type") == "none"
    names = () if off else tuple(tool["name"] for tool in body.get("tools") or () if "input_schema" in tool)
    wanted = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    turn = last_turn(messages, lambda m: m.get("role") == "assistant")
    parts = [part for m in turn for part in parts_of(m.get("content"))]
    return Wants(
        tools=names,
        forced=choice.get("type") in ("any", "tool"),
        tool=choice.get("name"),
        parallel=not choice.get("disable_parallel_tool_use"),
        json=wanted.get("type") == "json_schema",
        schema=wanted.get("schema"),
        thinking=(body.get("thinking") or {}).get("type", "disabled") != "disabled",
        stops=as_tuple(body.get("stop_sequences")),
        results=tuple(result_text(part.get("content") or "") for part in parts if part.get("type") == "tool_result"),
        attachments=tuple(filter(None, map(_attachment, parts_of(users[-1].get("content"))))) if users else (),
    )


def _attachment(part: Json) -> str | None:
    if part.get("type") not in ("image", "document"):
        return None
    kind = part["type"]
    match part.get("source"):
        case {"type": "base64", "media_type": media_type, "data": data}:
            return data_named(kind, media_type, data)
        case {"type": "text", "data": str(text)}:
            return f"{kind}: text/plain {len(text.encode())} bytes"
        case {"type": "url", "url": url}:
            return f"{kind}: {url}"
        case {"type": "file", "file_id": identity}:
            return f"{kind}: {identity}"
        case _:
            return f"{kind}: content"
