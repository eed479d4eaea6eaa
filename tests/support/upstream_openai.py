"""OpenAI's chat completions and embeddings, as the provider sends them."""

from __future__ import annotations

import base64
import hashlib
import struct
import time
from collections.abc import Iterator
from typing import Any

from tests.support.behaviours import ToolCall, Usage
from tests.support.upstream_plan import Asked, Frames, Plan, Refusal, arguments_json, compact, texts_in

FINGERPRINT = "fp_0123456789"
EMBEDDING_SIZE = 8
_TYPES = {400: "invalid_request_error", 401: "invalid_request_error", 403: "invalid_request_error", 429: "requests"}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


class OpenAIChat:
    name = "openai"

    def read(self, body: dict[str, Any], headers: Any, path_model: str, path_verb: str) -> Asked | Refusal:
        for required in ("model", "messages"):
            if not body.get(required):
                return Refusal(status=400, message=f"you must provide a {required} parameter")
        messages = body["messages"]
        cap = body.get("max_completion_tokens", body.get("max_tokens"))
        users = [m for m in messages if m.get("role") == "user"]
        return Asked(
            model=body["model"],
            texts=tuple(text for m in messages for text in texts_in(m.get("content"))),
            last_user_text=" ".join(texts_in(users[-1].get("content"))) if users else "",
            stream=bool(body.get("stream")),
            cap=cap,
            body=body,
            choices=body.get("n") or 1,
        )

    def whole(self, plan: Plan) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": plan.text if plan.chunks or not plan.tool_calls else None,
            "refusal": None,
            "annotations": [],
        }
        if plan.tool_calls:
            message["tool_calls"] = [_tool_call(plan, i, call) for i, call in enumerate(plan.tool_calls)]
        choices = [
            {
                "index": index,
                "message": message,
                "logprobs": _logprobs(plan, plan.chunks),
                "finish_reason": _said(plan),
            }
            for index in range(plan.asked.choices)
        ]
        reply = _envelope(plan, "chat.completion") | {"choices": choices}
        if plan.usage is not None:
            reply["usage"] = usage_json(plan.usage)
        return reply

    def frames(self, plan: Plan) -> Frames:
        return Frames(
            head=tuple(
                _frame(plan, _choice(i, {"role": "assistant", "content": "", "refusal": None})) for i in _indexes(plan)
            ),
            content=tuple(
                b"".join(_frame(plan, _choice(i, {"content": text}, _logprobs(plan, (text,)))) for i in _indexes(plan))
                for text in plan.chunks
            ),
            tail=tuple(self._tail(plan)),
        )

    def _tail(self, plan: Plan) -> Iterator[bytes]:
        for number, call in enumerate(plan.tool_calls):
            for delta in _tool_deltas(plan, number, call):
                yield _frame(plan, _choice(0, {"tool_calls": [delta]}))
        for index in _indexes(plan):
            yield _frame(plan, _choice(index, {}, finish=_said(plan)))
        if _wants_usage(plan) and plan.usage is not None:
            yield _frame(plan, None, usage=usage_json(plan.usage))
        if plan.last_word:
            yield b"data: [DONE]\n\n"

    def error(self, status: int, message: str, code: str | None = None) -> dict[str, Any]:
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        if code == "insufficient_quota":
            kind = code
        return {"error": {"message": message, "type": kind, "param": None, "code": code or _CODES.get(status)}}

    def error_event(self, status: int, message: str) -> bytes:
        return f"data: {compact(self.error(status, message))}\n\n".encode()

    def malformed_event(self) -> bytes:
        return b'data: {"id":"chatcmpl-broken","object":"chat.completion.chunk","choi\n\n'

    def headers(self, number: int) -> dict[str, str]:
        return {
            "x-request-id": f"req_{number:032x}",
            "openai-processing-ms": "1",
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-reset-requests": "6ms",
        }


class OpenAIEmbeddings(OpenAIChat):
    """Vectors of `EMBEDDING_SIZE` floats made from the hash of each input; usage counts its words."""

    def read(self, body: dict[str, Any], headers: Any, path_model: str, path_verb: str) -> Asked | Refusal:
        if not body.get("model") or "input" not in body:
            return Refusal(status=400, message="you must provide a model and an input parameter")
        texts = tuple(texts_in(body["input"]))
        return Asked(model=body["model"], texts=texts, last_user_text="", stream=False, cap=None, body=body)

    def whole(self, plan: Plan) -> dict[str, Any]:
        as_base64 = plan.asked.body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _embedding(text, as_base64)}
            for index, text in enumerate(plan.asked.texts)
        ]
        reply: dict[str, Any] = {"object": "list", "data": data, "model": plan.model}
        if plan.usage is not None:
            reply["usage"] = {"prompt_tokens": plan.usage.input, "total_tokens": plan.usage.input}
        return reply


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
    return {"id": call.id or f"call_{plan.number:08x}{number:04x}", "type": "function", "function": function}


def _tool_deltas(plan: Plan, number: int, call: ToolCall) -> Iterator[dict[str, Any]]:
    first = _tool_call(plan, number, call)
    arguments = first["function"]["arguments"]
    half = len(arguments) // 2
    yield {"index": number, **first, "function": {"name": call.name, "arguments": ""}}
    for piece in (arguments[:half], arguments[half:]):
        yield {"index": number, "function": {"arguments": piece}}


def _embedding(text: str, as_base64: bool) -> str | list[float]:
    digest = hashlib.sha256(text.encode()).digest()
    vector = [byte / 256 for byte in digest[:EMBEDDING_SIZE]]
    return base64.b64encode(struct.pack(f"<{EMBEDDING_SIZE}f", *vector)).decode() if as_base64 else vector
