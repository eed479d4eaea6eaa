"""Anthropic messages, outwards: for answers that were translated (relayed ones go out as they came)."""

from typing import Any

from src.api.sse import event
from src.domain.catalog.model import Usage
from src.domain.completion.model import FinishReason, Outcome

_REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.CONTENT_FILTER: "refusal",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CANCELLED: "end_turn",
    FinishReason.ERROR: "end_turn",
}


def message(outcome: Outcome, message_id: str, model: str) -> dict[str, Any]:
    """A whole message."""
    return {
        **_head(message_id, model),
        "content": [{"type": "text", "text": outcome.text, "citations": None}],
        "stop_reason": _REASONS[outcome.finish_reason],
        "usage": usage_body(outcome.usage),
    }


def usage_body(usage: Usage) -> dict[str, Any]:
    """Usage in Anthropic's words: input_tokens leave out what was read from or written to the cache."""
    return {
        "input_tokens": usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
        "service_tier": "standard",
    }


def _head(message_id: str, model: str) -> dict[str, Any]:
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def first_events(message_id: str, model: str, prompt_tokens: int) -> bytes:
    """The start of a stream, up to where text follows."""
    usage = usage_body(Usage(input_tokens=prompt_tokens))
    start = event(
        {"type": "message_start", "message": {**_head(message_id, model), "usage": usage}}, name="message_start"
    )
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return start + event(block, name="content_block_start") + event({"type": "ping"}, name="ping")


def text_event(text: str) -> bytes:
    """Some more of the answer."""
    delta = {"type": "text_delta", "text": text}
    return event({"type": "content_block_delta", "index": 0, "delta": delta}, name="content_block_delta")


def last_events(outcome: Outcome) -> bytes:
    """Why it stopped, the usage, and the end."""
    delta = {"stop_reason": _REASONS[outcome.finish_reason], "stop_sequence": None}
    return (
        event({"type": "content_block_stop", "index": 0}, name="content_block_stop")
        + event({"type": "message_delta", "delta": delta, "usage": usage_body(outcome.usage)}, name="message_delta")
        + event({"type": "message_stop"}, name="message_stop")
    )


def error_event(body: dict[str, Any]) -> bytes:
    """An error in the middle of a stream."""
    return event(body, name="error")
