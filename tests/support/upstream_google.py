"""Google's generateContent, as the provider sends it."""

from __future__ import annotations

import base64
from typing import Any

from tests.support.behaviours import Usage
from tests.support.upstream_memory import Memory
from tests.support.upstream_plan import Asked, Frames, Plan, call_id, compact
from tests.support.upstream_read_google import read_google, thinking_config
from tests.support.upstream_reading import either
from tests.support.upstream_rules_google import check_google

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

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def read(self, body: dict[str, Any], headers: Any, path_model: str, path_verb: str) -> Asked:
        if path_verb == "countTokens":
            body = either(body, "generateContentRequest") or body
        check_google(body, path_model, self.memory)
        return read_google(body, path_model, stream=path_verb == "streamGenerateContent")

    def whole(self, plan: Plan) -> dict[str, Any]:
        parts = [{"text": plan.thinking, "thought": True}] if _shown(plan) else []
        if plan.chunks:
            parts.append({"text": plan.text} | _signed(plan, in_a_call=False))
        parts += _calls(plan, self.memory)
        parts += map(dict, plan.answer.extra_items)
        return _reply(plan, parts, finish=_finish(plan), usage=_maybe(plan.usage))

    def replies(self, plan: Plan) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """The streamed answer as objects: the thoughts, one per content chunk, then what follows."""
        running = None if plan.usage is None else _prompt_usage(plan.usage)
        thoughts = [_reply(plan, [{"text": t, "thought": True}], finish=None, usage=running) for t in _shown(plan)]
        content = [_reply(plan, [{"text": text}], finish=None, usage=running) for text in plan.chunks]
        parts = [*_calls(plan, self.memory), *map(dict, plan.answer.extra_items)]
        tail = [_reply(plan, [part], finish=None, usage=running) for part in parts]
        tail += map(dict, plan.answer.extra_events)
        ending = {"text": ""} | (_signed(plan, in_a_call=False) if plan.chunks else {})
        last = _reply(plan, [ending], finish=_finish(plan), usage=_maybe(plan.usage))
        return thoughts, content, [*tail, last]

    def frames(self, plan: Plan) -> Frames:
        thoughts, content, tail = self.replies(plan)
        return Frames(
            head=tuple(map(_frame, thoughts)), content=tuple(map(_frame, content)), tail=tuple(map(_frame, tail))
        )

    def error(self, status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
        fallback = "FAILED_PRECONDITION" if status < 500 else "UNKNOWN"
        return {"error": {"code": status, "message": message, "status": code or _STATUSES.get(status, fallback)}}

    def error_event(self, status: int, message: str, plan: Plan, events_sent: int) -> bytes:
        return _frame(self.error(status, message))

    def malformed_event(self) -> bytes:
        return b'data: {"candidates":[{"content":{"par\r\n\r\n'

    def headers(self, number: int) -> dict[str, str]:
        return {"server-timing": "gfet4t7; dur=1", "vary": "Origin, X-Origin, Referer"}


class GoogleArray(GoogleGenerate):
    """A stream without `alt=sse`: one JSON array, an element at a time."""

    def frames(self, plan: Plan) -> Frames:
        thoughts, content, tail = self.replies(plan)
        every = [*thoughts, *content, *tail]
        separators = ["[", *[",\r\n"] * (len(every) - 1)]
        pieces = tuple(f"{s}{compact(r)}".encode() for s, r in zip(separators, every, strict=True))
        start, end = len(thoughts), len(thoughts) + len(content)
        return Frames(head=pieces[:start], content=pieces[start:end], tail=(*pieces[end:], b"]"))

    def error_event(self, status: int, message: str, plan: Plan, events_sent: int) -> bytes:
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
        "supportedGenerationMethods": ["generateContent", "countTokens", "embedContent", "batchEmbedContents"],
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
        if plan.answer.refusal is not None:
            candidate["finishMessage"] = plan.answer.refusal
    reply: dict[str, Any] = {"candidates": [candidate]}
    if usage is not None:
        reply["usageMetadata"] = usage
    return reply | {
        "modelVersion": plan.model,
        "responseId": f"resp-{plan.number:016x}",
        **plan.answer.extra_fields,
    }


def _finish(plan: Plan) -> str | None:
    return "SAFETY" if plan.answer.refusal is not None else _FINISH_REASONS.get(plan.finish)


def _shown(plan: Plan) -> tuple[str, ...]:
    return plan.thoughts if either(thinking_config(plan.asked.body), "includeThoughts") else ()


def _signed(plan: Plan, *, in_a_call: bool) -> dict[str, Any]:
    """The signature of the thoughts is on the first call, without calls on the end of the text."""
    if not plan.thoughts or in_a_call != bool(plan.tool_calls):
        return {}
    return {"thoughtSignature": base64.b64encode(plan.signature.encode()).decode()}


def _calls(plan: Plan, memory: Memory) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for number, call in enumerate(plan.tool_calls):
        identity = call_id(plan, number, "fc-")
        signature = {} if number else _signed(plan, in_a_call=True)
        if signature:
            memory.note_signed(identity, call, plan.signature)
        function = {"id": identity, "name": call.name, "args": dict(call.arguments)}
        parts.append({"functionCall": function, **signature})
    return parts


def _frame(value: dict[str, Any]) -> bytes:
    return f"data: {compact(value)}\r\n\r\n".encode()
