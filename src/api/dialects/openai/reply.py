"""OpenAI chat completions, outwards: for answers that were translated (relayed ones go out as they came)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from src.api.dialects.openai.content import OWN
from src.api.dialects.signatures import sealed
from src.domain.catalog.model import Usage
from src.domain.completion.content import Part, Refusal, Text, Thinking, ToolCall
from src.domain.completion.deltas import ThinkingDelta
from src.domain.completion.model import FinishReason, Outcome

_REASONS = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.CANCELLED: "stop",
    FinishReason.ERROR: "stop",
}


def completion(outcome: Outcome, completion_id: str, model: str, *, functions: bool = False) -> dict[str, Any]:
    """A whole chat completion. `functions`: for a client that knows no tools."""
    choice = {
        "index": 0,
        "message": _message(outcome, functions=functions),
        "logprobs": None,
        "finish_reason": reason_of(outcome, functions=functions),
    }
    return {
        "id": completion_id,
        "object": "chat.completion",
        "created": seconds(outcome.ended_at),
        "model": model,
        "choices": [choice],
        "usage": usage_body(outcome.usage),
        "service_tier": "default",
        "system_fingerprint": None,
    }


def _message(outcome: Outcome, *, functions: bool) -> dict[str, Any]:
    parts = outcome.parts
    calls = [part for part in parts if isinstance(part, ToolCall)]
    text = "".join(part.text for part in parts if isinstance(part, Text)) if parts else outcome.text
    refusal = "".join(part.text for part in parts if isinstance(part, Refusal)) or None
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text or (None if calls or refusal else ""),
        "refusal": refusal,
        "annotations": [],
    }
    message |= _reasoning(parts)
    if calls and functions:
        message["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments}
    elif calls:
        message["tool_calls"] = [_tool_call(call) for call in calls]
    return message


def _reasoning(parts: Sequence[Part]) -> dict[str, Any]:
    """Thoughts as most servers write them, and as routers do, with what proves them."""
    thoughts = [part for part in parts if isinstance(part, Thinking)]
    if not thoughts:
        return {}
    details = [
        detail(ThinkingDelta(thought.text, thought.signature, thought.redacted, thought.origin), index, ends=True)
        for index, thought in enumerate(thoughts)
    ]
    text = "\n".join(thought.text for thought in thoughts if thought.text)
    return ({"reasoning_content": text} if text else {}) | {"reasoning_details": details}


def detail(delta: ThinkingDelta, index: int, *, begins: bool = True, ends: bool = False) -> dict[str, Any]:
    """A piece of the thought number `index`. Clients join texts: what is said once comes as it `begins` or `ends`.

    The end of another format's thought bears a seal, also where nothing proves it: who reads it knows whose it was.
    """
    told: dict[str, Any] = {"index": index}
    if delta.redacted:
        told |= {"type": "reasoning.encrypted", "data": sealed(delta.signature, delta.origin, OWN)}
    else:
        told |= {"type": "reasoning.text", "text": delta.text}
        if delta.signature or (ends and delta.origin not in (None, OWN)):
            told["signature"] = sealed(delta.signature, delta.origin, OWN)
    return told | ({"format": "unknown"} if begins else {})


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        **called(call.name, call.arguments, is_custom=call.is_custom),
        **extra_content(call.signature),
    }


def called(name: str | None, arguments: str, *, is_custom: bool) -> dict[str, Any]:
    """What is called, and with what; a later piece of a call has no name, and its type no more."""
    kind, field = ("custom", "input") if is_custom else ("function", "arguments")
    if name is None:
        return {kind: {field: arguments}}
    return {"type": kind, kind: {"name": name, field: arguments}}


def extra_content(signature: str | None) -> dict[str, Any]:
    """The signature of the thought behind a call, where Google's own dialect of this format has it."""
    return {"extra_content": {"google": {"thought_signature": signature}}} if signature else {}


def reason_of(outcome: Outcome, *, functions: bool) -> str:
    """Why the answer ended."""
    if functions and outcome.finish_reason is FinishReason.TOOL_CALLS:
        return "function_call"
    return _REASONS[outcome.finish_reason]


def usage_body(usage: Usage) -> dict[str, Any]:
    """Usage in OpenAI's words: prompt_tokens include cached ones, completion_tokens those of thoughts."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": max(0, min(usage.reasoning_tokens, usage.output_tokens)),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def completion_id(answer_id: UUID) -> str:
    """What a client knows the answer by."""
    return f"chatcmpl-{answer_id.hex}"


def seconds(moment: datetime) -> int:
    """Times as OpenAI writes them."""
    return int(moment.timestamp())
