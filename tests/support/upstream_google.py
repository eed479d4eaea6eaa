"""Google's generateContent, as the provider sends it."""

from __future__ import annotations

from typing import Any

from tests.support.behaviours import ToolCall, Usage
from tests.support.upstream_plan import Asked, Frames, Plan, Refusal, compact, texts_in

_FINISH_REASONS = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class GoogleGenerate:
    name = "google"

    def read(self, body: dict[str, Any], headers: Any, path_model: str, path_verb: str) -> Asked | Refusal:
        contents = body.get("contents")
        if not contents:
            return Refusal(status=400, message="* GenerateContentRequest.contents: contents is not specified")
        users = [c for c in contents if c.get("role", "user") == "user"]
        system = body.get("systemInstruction") or body.get("system_instruction") or {}
        parts = [system.get("parts"), *(c.get("parts") for c in contents)]
        config = body.get("generationConfig") or body.get("generation_config") or {}
        return Asked(
            model=path_model,
            texts=tuple(text for part in parts for text in texts_in(part)),
            last_user_text=" ".join(texts_in(users[-1].get("parts"))) if users else "",
            stream=path_verb == "streamGenerateContent",
            cap=config.get("maxOutputTokens", config.get("max_output_tokens")),
            body=body,
        )

    def whole(self, plan: Plan) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"text": plan.text}] if plan.chunks else []
        parts += [_function_call(call) for call in plan.tool_calls]
        return _reply(plan, parts, finish=_FINISH_REASONS.get(plan.finish), usage=_maybe(plan.usage))

    def replies(self, plan: Plan) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The streamed answer as objects: one per content chunk, then what follows."""
        running = None if plan.usage is None else _prompt_usage(plan.usage)
        content = [_reply(plan, [{"text": text}], finish=None, usage=running) for text in plan.chunks]
        tail = [_reply(plan, [_function_call(call)], finish=None, usage=running) for call in plan.tool_calls]
        last = _reply(plan, [{"text": ""}], finish=_FINISH_REASONS.get(plan.finish), usage=_maybe(plan.usage))
        return content, [*tail, last]

    def frames(self, plan: Plan) -> Frames:
        content, tail = self.replies(plan)
        return Frames(head=(), content=tuple(map(_frame, content)), tail=tuple(map(_frame, tail)))

    def error(self, status: int, message: str, code: str | None = None) -> dict[str, Any]:
        fallback = "FAILED_PRECONDITION" if status < 500 else "UNKNOWN"
        return {"error": {"code": status, "message": message, "status": code or _STATUSES.get(status, fallback)}}

    def error_event(self, status: int, message: str) -> bytes:
        return _frame(self.error(status, message))

    def malformed_event(self) -> bytes:
        return b'data: {"candidates":[{"content":{"par\r\n\r\n'

    def headers(self, number: int) -> dict[str, str]:
        return {"server-timing": "gfet4t7; dur=1", "vary": "Origin, X-Origin, Referer"}


class GoogleArray(GoogleGenerate):
    """A stream without `alt=sse`: one JSON array, an element at a time."""

    def frames(self, plan: Plan) -> Frames:
        content, tail = self.replies(plan)
        separators = ["[", *[",\r\n"] * (len(content) + len(tail) - 1)]
        pieces = [f"{s}{compact(r)}".encode() for s, r in zip(separators, [*content, *tail], strict=True)]
        return Frames(head=(), content=tuple(pieces[: len(content)]), tail=(*pieces[len(content) :], b"]"))

    def error_event(self, status: int, message: str) -> bytes:
        return f",\r\n{compact(self.error(status, message))}]".encode()

    def malformed_event(self) -> bytes:
        return b',\r\n{"candidates":[{"content":{"par]'


def models_json(names: tuple[str, ...]) -> dict[str, Any]:
    return {"models": [model_json(name) for name in names]}


def model_json(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name,
        "description": name,
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }


def usage_json(usage: Usage) -> dict[str, Any]:
    """`candidatesTokenCount` leaves the thoughts out; cached tokens and thoughts are named only when there are any."""
    counts: dict[str, Any] = _prompt_usage(usage)
    candidates = usage.output - usage.reasoning
    counts["candidatesTokenCount"] = candidates
    counts["candidatesTokensDetails"] = _text_detail(candidates)
    counts["totalTokenCount"] = usage.input + usage.output
    if usage.reasoning:
        counts["thoughtsTokenCount"] = usage.reasoning
    return counts


def _prompt_usage(usage: Usage) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "promptTokenCount": usage.input,
        "totalTokenCount": usage.input,
        "promptTokensDetails": _text_detail(usage.input),
    }
    if usage.cached:
        counts["cachedContentTokenCount"] = usage.cached
        counts["cacheTokensDetails"] = _text_detail(usage.cached)
    return counts


def _text_detail(count: int) -> list[dict[str, Any]]:
    return [{"modality": "TEXT", "tokenCount": count}]


def _maybe(usage: Usage | None) -> dict[str, Any] | None:
    return None if usage is None else usage_json(usage)


def _reply(
    plan: Plan, parts: list[dict[str, Any]], *, finish: str | None, usage: dict[str, Any] | None
) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    reply: dict[str, Any] = {"candidates": [candidate]}
    if usage is not None:
        reply["usageMetadata"] = usage
    return reply | {"modelVersion": plan.model, "responseId": f"resp-{plan.number:016x}"}


def _function_call(call: ToolCall) -> dict[str, Any]:
    function: dict[str, Any] = {"name": call.name, "args": dict(call.arguments)}
    if call.id is not None:
        function["id"] = call.id
    return {"functionCall": function}


def _frame(value: dict[str, Any]) -> bytes:
    return f"data: {compact(value)}\r\n\r\n".encode()
