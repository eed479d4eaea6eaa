"""Anthropic messages, outwards: for answers that were translated (relayed ones go out as they came)."""

from typing import Any, ClassVar
from uuid import UUID

from src.api.dialects.relayed import payloads_of
from src.api.dialects.request import ParsedRequest
from src.api.sse import event
from src.domain.catalog.model import Usage
from src.domain.completion.deltas import PartDelta, RefusalDelta, TextDelta
from src.domain.completion.model import FinishReason, Outcome

_REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.CONTENT_FILTER: "refusal",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CANCELLED: "end_turn",
    FinishReason.ERROR: "end_turn",
}

_STOPPED = event({"type": "message_stop"}, name="message_stop")


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


class AnthropicWriter:
    """Writes one answer, whole or as a stream of events."""

    tells_prompt: ClassVar[bool] = True

    def __init__(self, _: ParsedRequest, answer_id: UUID) -> None:
        self._id = f"msg_{answer_id.hex}"

    def whole(self, outcome: Outcome, model: str) -> dict[str, Any]:
        """A message."""
        return {
            **_head(self._id, model),
            "content": [{"type": "text", "text": outcome.text, "citations": None}],
            "stop_reason": _REASONS[outcome.finish_reason],
            "usage": usage_body(outcome.usage),
        }

    def first(self, model: str, prompt_tokens: int) -> bytes:
        """The start of a stream, up to where text follows. The prompt's tokens are our count; the end corrects them."""
        head = {**_head(self._id, model), "usage": usage_body(Usage(input_tokens=prompt_tokens))}
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        return (
            event({"type": "message_start", "message": head}, name="message_start")
            + event(block, name="content_block_start")
            + event({"type": "ping"}, name="ping")
        )

    def delta(self, delta: PartDelta) -> bytes:
        """Some more of the answer."""
        if not isinstance(delta, TextDelta | RefusalDelta):
            return b""
        told = {"type": "text_delta", "text": delta.text}
        return event({"type": "content_block_delta", "index": 0, "delta": told}, name="content_block_delta")

    def last(self, outcome: Outcome) -> bytes:
        """Why it stopped, the usage, and the end."""
        return _stop_block(0) + _stop_message(outcome)

    def cut(self, outcome: Outcome, relayed: bytes) -> bytes:
        """The same for a relayed stream: open blocks end too, and what was told already is not told again."""
        open_blocks: dict[int, None] = {}
        has_reason = False
        for payload in payloads_of(relayed):
            match payload.get("type"):
                case "content_block_start":
                    open_blocks[payload.get("index", 0)] = None
                case "content_block_stop":
                    open_blocks.pop(payload.get("index", 0), None)
                case "message_delta":
                    has_reason = True
        end = _STOPPED if has_reason else _stop_message(outcome)
        return b"".join(_stop_block(index) for index in open_blocks) + end

    def error(self, body: dict[str, Any]) -> bytes:
        """An error in the middle of a stream."""
        return event(body, name="error")


def _stop_block(index: int) -> bytes:
    return event({"type": "content_block_stop", "index": index}, name="content_block_stop")


def _stop_message(outcome: Outcome) -> bytes:
    delta = {"stop_reason": _REASONS[outcome.finish_reason], "stop_sequence": None}
    told = {"type": "message_delta", "delta": delta, "usage": usage_body(outcome.usage)}
    return event(told, name="message_delta") + _STOPPED
