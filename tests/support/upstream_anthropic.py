"""Anthropic's messages, as the provider sends them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.support.behaviours import ToolCall, Usage
from tests.support.upstream_plan import Asked, Frames, Plan, Refusal, arguments_json, compact, texts_in

NEWEST_VERSION = "2026-10-21"
_SAMPLING = ("temperature", "top_p", "top_k")
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class AnthropicMessages:
    """`anthropic-version` must be there; the newest version refuses the sampling parameters, as the provider does."""

    name = "anthropic"

    def read(self, body: dict[str, Any], headers: Any, path_model: str, path_verb: str) -> Asked | Refusal:
        version = headers.get("anthropic-version")
        if not version:
            return Refusal(status=400, message="anthropic-version: header is required")
        required = ("model", "messages") if path_verb == "count_tokens" else ("model", "messages", "max_tokens")
        for name in required:
            if name not in body:
                return Refusal(status=400, message=f"{name}: Field required")
        for name in _SAMPLING:
            if version == NEWEST_VERSION and name in body:
                return Refusal(status=400, message=f"{name}: Extra inputs are not permitted")
        return _asked(body)

    def whole(self, plan: Plan) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if plan.chunks:
            content.append({"type": "text", "text": plan.text, "citations": None})
        content += [_tool_use(plan, n, call, call.arguments) for n, call in enumerate(plan.tool_calls)]
        message = _message(plan) | {"content": content, "stop_reason": _STOP_REASONS.get(plan.finish)}
        if plan.usage is not None:
            message["usage"] = usage_json(plan.usage)
        return message

    def frames(self, plan: Plan) -> Frames:
        ping = _event("ping")
        start = _event("message_start", message=_start_message(plan))
        if not plan.chunks:
            return Frames(head=(start, ping), content=(), tail=tuple(self._tail(plan, first_block=0)))
        block = {"type": "text", "text": "", "citations": None}
        return Frames(
            head=(start, _event("content_block_start", index=0, content_block=block), ping),
            content=tuple(
                _event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
                for text in plan.chunks
            ),
            tail=(_event("content_block_stop", index=0), *self._tail(plan, first_block=1)),
        )

    def _tail(self, plan: Plan, first_block: int) -> Iterator[bytes]:
        for number, call in enumerate(plan.tool_calls):
            yield from _tool_events(plan, number, first_block + number, call)
        delta = {
            "stop_reason": _STOP_REASONS.get(plan.finish),
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
        }
        usage = {} if plan.usage is None else {"usage": _delta_usage(plan.usage)}
        yield _event("message_delta", delta=delta, **usage)
        if plan.last_word:
            yield _event("message_stop")

    def error(self, status: int, message: str, code: str | None = None) -> dict[str, Any]:
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
        error: dict[str, Any] = {"type": kind, "message": message}
        if code is not None:
            error["details"] = {"error_code": code}
        return {"type": "error", "error": error, "request_id": "req_scripted"}

    def error_event(self, status: int, message: str) -> bytes:
        kind = "overloaded_error" if status == 503 else self.error(status, message)["error"]["type"]
        return _event("error", error={"type": kind, "message": message})

    def malformed_event(self) -> bytes:
        return b'event: content_block_delta\ndata: {"type":"content_block_delta","ind\n\n'

    def headers(self, number: int) -> dict[str, str]:
        return {
            "request-id": f"req_{number:024x}",
            "anthropic-organization-id": "00000000-0000-0000-0000-000000000000",
            "anthropic-ratelimit-requests-limit": "4000",
            "anthropic-ratelimit-requests-remaining": "3999",
            "anthropic-ratelimit-requests-reset": "2026-11-01T00:00:00Z",
        }


def models_json(names: tuple[str, ...]) -> dict[str, Any]:
    data = [model_json(name) for name in names]
    return {"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}


def model_json(name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    }


def usage_json(usage: Usage) -> dict[str, Any]:
    return {
        **_delta_usage(usage),
        "cache_creation": {"ephemeral_5m_input_tokens": usage.cache_write, "ephemeral_1h_input_tokens": 0},
        "service_tier": "standard",
        "speed": "standard",
        "inference_geo": "global",
    }


def _delta_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input - usage.cached - usage.cache_write,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
        "server_tool_use": None,
    }


def _asked(body: dict[str, Any]) -> Asked:
    messages = body["messages"]
    users = [m for m in messages if m.get("role") == "user"]
    contents = [body.get("system"), *(m.get("content") for m in messages)]
    return Asked(
        model=body["model"],
        texts=tuple(text for content in contents for text in texts_in(content)),
        last_user_text=" ".join(texts_in(users[-1].get("content"))) if users else "",
        stream=bool(body.get("stream")),
        cap=body.get("max_tokens"),
        body=body,
    )


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {compact({'type': kind, **fields})}\n\n".encode()


def _message(plan: Plan) -> dict[str, Any]:
    return {
        "id": f"msg_{plan.number:024x}",
        "type": "message",
        "role": "assistant",
        "model": plan.model,
        "content": [],
        "container": None,
        "diagnostics": None,
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
    }


def _start_message(plan: Plan) -> dict[str, Any]:
    message = _message(plan)
    if plan.usage is not None:
        message["usage"] = usage_json(plan.usage) | {"output_tokens": min(1, plan.usage.output)}
    return message


def _tool_use(plan: Plan, number: int, call: ToolCall, arguments: Any) -> dict[str, Any]:
    identity = call.id or f"toolu_{plan.number:08x}{number:04x}"
    return {
        "type": "tool_use",
        "id": identity,
        "name": call.name,
        "input": dict(arguments),
        "caller": {"type": "direct"},
    }


def _tool_events(plan: Plan, number: int, block: int, call: ToolCall) -> Iterator[bytes]:
    arguments = arguments_json(call)
    half = len(arguments) // 2
    yield _event("content_block_start", index=block, content_block=_tool_use(plan, number, call, {}))
    for piece in ("", arguments[:half], arguments[half:]):
        yield _event("content_block_delta", index=block, delta={"type": "input_json_delta", "partial_json": piece})
    yield _event("content_block_stop", index=block)
