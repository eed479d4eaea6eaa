"""Anthropic messages, outwards: for answers that were translated (relayed ones go out as they came)."""

from typing import Any, ClassVar
from uuid import UUID

from src.api.dialects.anthropic.stream import BlockStream, block_stop, blocks_of
from src.api.dialects.relayed import payloads_of
from src.api.dialects.request import ParsedRequest
from src.api.sse import event
from src.domain.catalog.model import Usage
from src.domain.completion.content import Refusal, Text, ToolCall
from src.domain.completion.deltas import PartDelta
from src.domain.completion.model import FinishReason, Outcome

_REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.CONTENT_FILTER: "refusal",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CANCELLED: "end_turn",
    FinishReason.ERROR: "end_turn",
}

PING = event({"type": "ping"}, name="ping")
"""What keeps a silent stream alive: clients of this dialect look for it."""

_STOPPED = event({"type": "message_stop"}, name="message_stop")


def usage_body(usage: Usage) -> dict[str, Any]:
    """Usage in Anthropic's words: input_tokens leave out what was read from or written to the cache."""
    return {
        **_last_usage(usage),
        "cache_creation": {"ephemeral_5m_input_tokens": usage.cache_write_tokens, "ephemeral_1h_input_tokens": 0},
        "service_tier": "standard",
        "inference_geo": None,
    }


def _last_usage(usage: Usage) -> dict[str, Any]:
    """What the end of a stream says of it."""
    return {
        "input_tokens": usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "server_tool_use": None,
    }


def _head(message_id: str, model: str) -> dict[str, Any]:
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "container": None,
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
    }


class AnthropicWriter:
    """Writes one answer, whole or as a stream of events."""

    tells_prompt: ClassVar[bool] = True

    def __init__(self, _: ParsedRequest, answer_id: UUID) -> None:
        self._answer_id = answer_id.hex
        self._blocks = BlockStream(self._answer_id)

    def whole(self, outcome: Outcome, model: str) -> dict[str, Any]:
        """A message."""
        parts = outcome.parts or ((Text(text=outcome.text),) if outcome.text else ())
        return {
            **self._message(model),
            "content": blocks_of(parts, self._answer_id),
            **_end_of(
                outcome,
                has_called=any(isinstance(part, ToolCall) for part in parts),
                has_refused=any(isinstance(part, Refusal) for part in parts),
            ),
            "usage": usage_body(outcome.usage),
        }

    def first(self, model: str, prompt_tokens: int) -> bytes:
        """The start of a stream. The prompt's tokens are our count, which the end corrects: it has no parts of sums."""
        usage = usage_body(Usage(input_tokens=prompt_tokens)) | {"cache_creation": None}
        head = {**self._message(model), "usage": usage}
        return event({"type": "message_start", "message": head}, name="message_start") + PING

    def delta(self, delta: PartDelta) -> bytes:
        """Some more of the answer."""
        return self._blocks.write(delta)

    def last(self, outcome: Outcome) -> bytes:
        """The end of what is open, why it stopped, the usage, and the end."""
        blocks = self._blocks
        return blocks.end() + _stop_message(outcome, has_called=blocks.has_called, has_refused=blocks.has_refused)

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
        return b"".join(block_stop(index) for index in open_blocks) + end

    def error(self, body: dict[str, Any], relayed: bytes = b"") -> bytes:
        """An error in the middle of a stream."""
        return event(body, name="error")

    def _message(self, model: str) -> dict[str, Any]:
        return _head(f"msg_{self._answer_id}", model)


def _end_of(outcome: Outcome, *, has_called: bool, has_refused: bool) -> dict[str, Any]:
    """Why it stopped. What providers call a normal end may be a refusal or a call of a tool here."""
    reason = _REASONS[outcome.finish_reason]
    if reason == "end_turn" and outcome.finish_reason is FinishReason.STOP:
        if has_refused:
            reason = "refusal"
        elif has_called:
            reason = "tool_use"
        elif outcome.stop_sequence is not None:
            reason = "stop_sequence"
    return {
        "stop_reason": reason,
        "stop_sequence": outcome.stop_sequence if reason == "stop_sequence" else None,
        "stop_details": {"type": "refusal", "category": None, "explanation": None} if reason == "refusal" else None,
    }


def _stop_message(outcome: Outcome, *, has_called: bool = False, has_refused: bool = False) -> bytes:
    end = _end_of(outcome, has_called=has_called, has_refused=has_refused)
    told = {"type": "message_delta", "delta": {**end, "container": None}, "usage": _last_usage(outcome.usage)}
    return event(told, name="message_delta") + _STOPPED
