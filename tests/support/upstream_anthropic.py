"""Anthropic's messages, as the provider sends them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tests.support.behaviours import ToolCall, Usage
from tests.support.upstream_memory import Memory
from tests.support.upstream_plan import Asked, Frames, Plan, arguments_json, call_id, compact
from tests.support.upstream_read_anthropic import read_anthropic
from tests.support.upstream_rules_anthropic import check_anthropic

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

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def read(self, body: dict[str, Any], headers: Any, path_model: str, path_verb: str) -> Asked:
        check_anthropic(body, headers.get("anthropic-version"), self.memory, counting=path_verb == "count_tokens")
        return read_anthropic(body)

    def whole(self, plan: Plan) -> dict[str, Any]:
        content = _thoughts(plan)
        if plan.chunks:
            content.append({"type": "text", "text": plan.text, "citations": None})
        content += [_tool_use(plan, n, call, call.arguments) for n, call in enumerate(plan.tool_calls)]
        content += map(dict, plan.answer.extra_items)
        message = _message(plan) | {"content": content} | _end(plan)
        if plan.usage is not None:
            message["usage"] = usage_json(plan.usage)
        return message | dict(plan.answer.extra_fields)

    def frames(self, plan: Plan) -> Frames:
        start = _event("message_start", message=_start_message(plan))
        thoughts = _thoughts(plan)
        before = tuple(event for n, block in enumerate(thoughts) for event in _thought_events(n, block, plan))
        ping, at = _event("ping"), len(thoughts)
        if not plan.chunks:
            return Frames(head=(start, *before, ping), content=(), tail=tuple(self._tail(plan, first_block=at)))
        block = {"type": "text", "text": "", "citations": None}
        return Frames(
            head=(start, *before, _event("content_block_start", index=at, content_block=block), ping),
            content=tuple(
                _event("content_block_delta", index=at, delta={"type": "text_delta", "text": text})
                for text in plan.chunks
            ),
            tail=(_event("content_block_stop", index=at), *self._tail(plan, first_block=at + 1)),
        )

    def _tail(self, plan: Plan, first_block: int) -> Iterator[bytes]:
        for number, call in enumerate(plan.tool_calls):
            yield from _tool_events(plan, number, first_block + number, call)
        for number, item in enumerate(plan.answer.extra_items, first_block + len(plan.tool_calls)):
            yield from _block_events(number, dict(item), ())
        for event in plan.answer.extra_events:
            yield _event(**event)
        usage = {} if plan.usage is None else {"usage": _delta_usage(plan.usage)}
        yield _event("message_delta", delta=_end(plan) | {"container": None}, **usage)
        if plan.last_word:
            yield _event("message_stop")

    def error(self, status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
        error: dict[str, Any] = {"type": kind, "message": message}
        if code is not None:
            error["details"] = {"error_code": code}
        return {"type": "error", "error": error, "request_id": "req_scripted"}

    def error_event(self, status: int, message: str, plan: Plan, events_sent: int) -> bytes:
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


def _event(type: str, **fields: Any) -> bytes:  # noqa: A002
    return f"event: {type}\ndata: {compact({'type': type, **fields})}\n\n".encode()


def _end(plan: Plan) -> dict[str, Any]:
    answer = plan.answer
    reason = _STOP_REASONS.get(plan.finish)
    if answer.refusal is not None:
        reason = "refusal"
    elif answer.stop_sequence is not None and plan.finish == "stop":
        reason = "stop_sequence"
    details = {"type": "refusal", "category": None, "explanation": answer.refusal}
    return {
        "stop_reason": reason,
        "stop_sequence": answer.stop_sequence if reason == "stop_sequence" else None,
        "stop_details": details if reason == "refusal" else None,
    }


def _thoughts(plan: Plan) -> list[dict[str, Any]]:
    """The blocks before the text. Thinking that is not to be displayed comes empty, with its signature."""
    blocks: list[dict[str, Any]] = []
    if plan.thoughts:
        omitted = (plan.asked.body.get("thinking") or {}).get("display") == "omitted"
        shown = "" if omitted else plan.thinking
        blocks.append({"type": "thinking", "thinking": shown, "signature": plan.signature})
    if plan.answer.redacted is not None:
        blocks.append({"type": "redacted_thinking", "data": plan.answer.redacted})
    return blocks


def _thought_events(index: int, block: dict[str, Any], plan: Plan) -> Iterator[bytes]:
    if block["type"] == "redacted_thinking":
        return _block_events(index, block, ())
    texts = plan.thoughts if block["thinking"] else ()
    deltas: list[dict[str, Any]] = [{"type": "thinking_delta", "thinking": text} for text in texts]
    deltas.append({"type": "signature_delta", "signature": block["signature"]})
    return _block_events(index, block | {"thinking": "", "signature": ""}, deltas)


def _block_events(index: int, block: dict[str, Any], deltas: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    yield _event("content_block_start", index=index, content_block=block)
    for delta in deltas:
        yield _event("content_block_delta", index=index, delta=delta)
    yield _event("content_block_stop", index=index)


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
    return message | dict(plan.answer.extra_fields)


def _tool_use(plan: Plan, number: int, call: ToolCall, arguments: Any) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": call_id(plan, number, "toolu_"),
        "name": call.name,
        "input": dict(arguments),
        "caller": {"type": "direct"},
    }


def _tool_events(plan: Plan, number: int, block: int, call: ToolCall) -> Iterator[bytes]:
    arguments = arguments_json(call)
    half = len(arguments) // 2
    pieces = ("", arguments[:half], arguments[half:])
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return _block_events(block, _tool_use(plan, number, call, {}), deltas)
