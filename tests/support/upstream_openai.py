"""OpenAI's chat completions, as the provider sends them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tests.support.behaviours import ToolCall, Usage
from tests.support.upstream_memory import Memory
from tests.support.upstream_plan import Asked, Frames, Plan, arguments_json, call_id, compact, split
from tests.support.upstream_read_chat import read_chat
from tests.support.upstream_rules_chat import check_chat

FINGERPRINT = "fp_0123456789"
_TYPES = {400: "invalid_request_error", 401: "invalid_request_error", 403: "invalid_request_error", 429: "requests"}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


class OpenAIWire:
    """What all of OpenAI's endpoints share."""

    name = "openai"

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def error(self, status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        if code == "insufficient_quota":
            kind = code
        return {"error": {"message": message, "type": kind, "param": param, "code": code or _CODES.get(status)}}

    def headers(self, number: int) -> dict[str, str]:
        return {
            "x-request-id": f"req_{number:032x}",
            "openai-processing-ms": "1",
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-reset-requests": "6ms",
        }


class OpenAIChat(OpenAIWire):
    def read(self, body: dict[str, Any], headers: Any, path_model: str, path_verb: str) -> Asked:
        check_chat(body, self.memory)
        return read_chat(body)

    def whole(self, plan: Plan) -> dict[str, Any]:
        says_nothing = not plan.chunks and (plan.tool_calls or plan.answer.refusal)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if says_nothing else plan.text,
            "refusal": plan.answer.refusal,
            "annotations": [],
        }
        if _shown(plan):
            message["reasoning_content"] = plan.thinking
        if plan.tool_calls:
            message["tool_calls"] = [_tool_call(plan, i, call) for i, call in enumerate(plan.tool_calls)]
        choices = [
            {
                "index": index,
                "message": message,
                "logprobs": _logprobs(plan, plan.chunks),
                "finish_reason": _said(plan),
            }
            for index in _indexes(plan)
        ]
        reply = _envelope(plan, "chat.completion") | {"choices": choices}
        if plan.usage is not None:
            reply["usage"] = usage_json(plan.usage)
        return reply

    def frames(self, plan: Plan) -> Frames:
        opening = {"role": "assistant", "content": "", "refusal": None}
        return Frames(
            head=(
                *(_frame(plan, _choice(i, opening)) for i in _indexes(plan)),
                *(_everywhere(plan, {"reasoning_content": text}) for text in _shown(plan)),
            ),
            content=tuple(
                b"".join(_frame(plan, _choice(i, {"content": text}, _logprobs(plan, (text,)))) for i in _indexes(plan))
                for text in plan.chunks
            ),
            tail=tuple(self._tail(plan)),
        )

    def _tail(self, plan: Plan) -> Iterator[bytes]:
        for text in split(plan.answer.refusal or ""):
            yield _everywhere(plan, {"refusal": text})
        for number, call in enumerate(plan.tool_calls):
            for delta in _tool_deltas(plan, number, call):
                yield _everywhere(plan, {"tool_calls": [delta]})
        for index in _indexes(plan):
            yield _frame(plan, _choice(index, {}, finish=_said(plan)))
        for event in plan.answer.extra_events:
            yield f"data: {compact(event)}\n\n".encode()
        if _wants_usage(plan) and plan.usage is not None:
            yield _frame(plan, None, usage=usage_json(plan.usage))
        if plan.last_word:
            yield b"data: [DONE]\n\n"

    def error_event(self, status: int, message: str, plan: Plan, events_sent: int) -> bytes:
        return f"data: {compact(self.error(status, message))}\n\n".encode()

    def malformed_event(self) -> bytes:
        return b'data: {"id":"chatcmpl-broken","object":"chat.completion.chunk","choi\n\n'


def models_json(names: tuple[str, ...]) -> dict[str, Any]:
    return {"object": "list", "data": [model_json(name) for name in names]}


def model_json(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "system"}


def usage_json(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
            "audio_tokens": 0,
            "image_tokens": 0,
            "text_tokens": usage.input,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "text_tokens": usage.output - usage.reasoning,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _envelope(plan: Plan, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{plan.number:024x}",
        "object": kind,
        "created": int(time.time()),
        "model": plan.model,
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
        **plan.answer.extra_fields,
    }


def _choice(
    index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish: str | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _frame(plan: Plan, choice: dict[str, Any] | None, usage: dict[str, Any] | None = None) -> bytes:
    chunk = _envelope(plan, "chat.completion.chunk") | {"choices": [] if choice is None else [choice]}
    if _wants_usage(plan):
        chunk["usage"] = usage
    if (plan.asked.body.get("stream_options") or {}).get("include_obfuscation", True):
        chunk["obfuscation"] = "x" * 7
    return f"data: {compact(chunk)}\n\n".encode()


def _wants_usage(plan: Plan) -> bool:
    return bool((plan.asked.body.get("stream_options") or {}).get("include_usage"))


def _everywhere(plan: Plan, delta: dict[str, Any]) -> bytes:
    """The same for every choice."""
    return b"".join(_frame(plan, _choice(index, delta)) for index in _indexes(plan))


def _shown(plan: Plan) -> tuple[str, ...]:
    return plan.thoughts if plan.answer.shows_reasoning else ()


def _indexes(plan: Plan) -> range:
    return range(plan.asked.choices)


def _said(plan: Plan) -> str | None:
    return None if plan.finish == "none" else plan.finish


def _logprobs(plan: Plan, tokens: tuple[str, ...]) -> dict[str, Any] | None:
    if not plan.asked.body.get("logprobs"):
        return None
    content = [{"token": token, "logprob": -0.1, "bytes": list(token.encode()), "top_logprobs": []} for token in tokens]
    return {"content": content, "refusal": None}


def _tool_call(plan: Plan, number: int, call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments_json(call)}
    return {"id": call_id(plan, number, "call_"), "type": "function", "function": function}


def _tool_deltas(plan: Plan, number: int, call: ToolCall) -> Iterator[dict[str, Any]]:
    first = _tool_call(plan, number, call)
    arguments = first["function"]["arguments"]
    half = len(arguments) // 2
    yield {"index": number, **first, "function": {"name": call.name, "arguments": ""}}
    for piece in (arguments[:half], arguments[half:]):
        yield {"index": number, "function": {"arguments": piece}}
