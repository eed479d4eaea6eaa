"""OpenAI's Responses, as the provider sends them."""

from __future__ import annotations

import time
from typing import Any

from tests.support.behaviours import Usage
from tests.support.upstream_openai import OpenAIWire
from tests.support.upstream_plan import Asked, Frames, Plan, arguments_json, call_id, compact
from tests.support.upstream_read_responses import read_responses
from tests.support.upstream_responses_events import Events
from tests.support.upstream_rules_responses import check_responses

_DEFAULTS: dict[str, Any] = {
    "background": False,
    "conversation": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "previous_response_id": None,
    "prompt": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "user": None,
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_logprobs": 0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "tool_choice": "auto",
    "truncation": "disabled",
    "store": True,
    "metadata": {},
    "access_programs": None,
    "image": None,
    "prompt_cache_options": {"mode": "implicit", "ttl": "30m"},
}
_TOOL_USAGE = {
    "image_gen": {
        "input_tokens": 0,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"image_tokens": 0, "text_tokens": 0},
        "total_tokens": 0,
    },
    "web_search": {"num_requests": 0},
}
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class OpenAIResponses(OpenAIWire):
    def read(self, body: dict[str, Any], headers: Any, path_model: str, path_verb: str) -> Asked:
        check_responses(body, self.memory)
        return read_responses(body)

    def whole(self, plan: Plan) -> dict[str, Any]:
        items = output_items(plan)
        self._remember(plan, items)
        return response_json(plan, output=items)

    def frames(self, plan: Plan) -> Frames:
        items = output_items(plan)
        self._remember(plan, items)
        return Events(plan).frames(
            started=response_json(plan, output=[], status="in_progress"),
            items=items,
            ended=response_json(plan, output=items),
        )

    def _remember(self, plan: Plan, items: list[dict[str, Any]]) -> None:
        if plan.asked.body.get("store") is not False:
            self.memory.note_response(plan, response_id(plan), [item["id"] for item in items if "id" in item])

    def error_event(self, status: int, message: str, plan: Plan, events_sent: int) -> bytes:
        """`response.failed`, as a model that breaks off ends its stream."""
        error = {"code": "rate_limit_exceeded" if status == 429 else "server_error", "message": message}
        failed = response_json(plan, output=[], status="failed") | {"error": error}
        event = {"type": "response.failed", "sequence_number": events_sent, "response": failed}
        return f"event: response.failed\ndata: {compact(event)}\n\n".encode()

    def malformed_event(self) -> bytes:
        return b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","seq\n\n'


def response_id(plan: Plan) -> str:
    return f"resp_{plan.number:048x}"


def response_json(plan: Plan, *, output: list[dict[str, Any]], status: str | None = None) -> dict[str, Any]:
    body, now = plan.asked.body, time.time()
    incomplete = _INCOMPLETE.get(plan.finish)
    ended = status or ("incomplete" if incomplete else "completed")
    given = {name: body[name] for name in _DEFAULTS if body.get(name) is not None}
    usage = usage_json(plan.usage) if plan.usage is not None and status is None else None
    return {
        "id": response_id(plan),
        "object": "response",
        "created_at": int(now),
        "status": ended,
        "completed_at": int(now) if ended == "completed" else None,
        "error": None,
        "incomplete_details": {"reason": incomplete} if ended == "incomplete" else None,
        **_DEFAULTS,
        **given,
        "conversation": _conversation(body.get("conversation")),
        "input_transformations": [],
        "moderation": None,
        "prompt_cache_diagnostics": None,
        "tool_usage": _TOOL_USAGE,
        "model": plan.model,
        "output": output,
        "reasoning": {"effort": None, "summary": None, **(body.get("reasoning") or {})},
        "service_tier": "default",
        "text": {"format": {"type": "text"}, "verbosity": "medium", **(body.get("text") or {})},
        "tools": [_tool(tool) for tool in body.get("tools") or ()],
        "usage": usage,
        **plan.answer.extra_fields,
    }


def usage_json(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def output_items(plan: Plan) -> list[dict[str, Any]]:
    """The finished items: reasoning, message, function calls, and those no client knows."""
    items = [_reasoning(plan)] if plan.thoughts else []
    if plan.chunks or plan.answer.refusal is not None or not plan.tool_calls:
        items.append(_message(plan))
    for number, call in enumerate(plan.tool_calls):
        items.append(
            {
                "id": f"fc_{plan.number:044x}{number:04x}",
                "type": "function_call",
                "status": "completed",
                "arguments": arguments_json(call),
                "call_id": call_id(plan, number, "call_"),
                "name": call.name,
            }
        )
    return [*items, *map(dict, plan.answer.extra_items)]


def _reasoning(plan: Plan) -> dict[str, Any]:
    """The summary is there if it was asked for, the encrypted content if it was to be included."""
    wanted = (plan.asked.body.get("reasoning") or {}).get("summary")
    summary = [{"type": "summary_text", "text": plan.thinking}] if wanted else []
    item: dict[str, Any] = {"id": f"rs_{plan.number:048x}", "type": "reasoning", "summary": summary}
    if "reasoning.encrypted_content" in (plan.asked.body.get("include") or ()):
        item["encrypted_content"] = plan.signature
    return item


def _message(plan: Plan) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if plan.chunks:
        tokens = plan.chunks if _wants_logprobs(plan) else ()
        content.append(
            {"type": "output_text", "text": plan.text, "annotations": [], "logprobs": list(map(logprob, tokens))}
        )
    if plan.answer.refusal is not None:
        content.append({"type": "refusal", "refusal": plan.answer.refusal})
    status = "incomplete" if plan.finish in _INCOMPLETE else "completed"
    return {
        "id": f"msg_{plan.number:048x}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def logprob(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.1, "bytes": list(token.encode()), "top_logprobs": []}


def _wants_logprobs(plan: Plan) -> bool:
    return "message.output_text.logprobs" in (plan.asked.body.get("include") or ())


def _conversation(given: Any) -> Any:
    return {"id": given} if isinstance(given, str) else given


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": True, **tool}
