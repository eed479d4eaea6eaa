"""OpenAI chat completions, outwards: for answers that were translated (relayed ones go out as they came)."""

from datetime import datetime
from typing import Any

import orjson

from src.domain.catalog.model import Usage
from src.domain.completion.model import FinishReason, Outcome

DONE = b"data: [DONE]\n\n"

_REASONS = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.CANCELLED: "stop",
    FinishReason.ERROR: "stop",
}


def completion(outcome: Outcome, completion_id: str, model: str) -> dict[str, Any]:
    """A whole chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": outcome.text, "refusal": None, "annotations": []}
    return {
        "id": completion_id,
        "object": "chat.completion",
        "created": _seconds(outcome.ended_at),
        "model": model,
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": _REASONS[outcome.finish_reason]}
        ],
        "usage": usage_body(outcome.usage),
        "service_tier": "default",
        "system_fingerprint": None,
    }


def usage_body(usage: Usage) -> dict[str, Any]:
    """Usage in OpenAI's words: prompt_tokens include cached ones."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


class ChunkWriter:
    """Writes the chunks of one stream."""

    def __init__(self, completion_id: str, created: datetime, model: str) -> None:
        self._head = {
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": _seconds(created),
            "model": model,
            "service_tier": "default",
            "system_fingerprint": None,
        }

    def first(self) -> bytes:
        """The chunk that names the role."""
        return self._choice({"role": "assistant", "content": "", "refusal": None}, None)

    def text(self, text: str) -> bytes:
        """Some more of the answer."""
        return self._choice({"content": text}, None)

    def last(self, outcome: Outcome, *, with_usage: bool) -> bytes:
        """Why it stopped, the usage where the client asked for it, and the end."""
        finish = self._choice({}, _REASONS[outcome.finish_reason])
        usage = _data({**self._head, "choices": [], "usage": usage_body(outcome.usage)}) if with_usage else b""
        return finish + usage + DONE

    def _choice(self, delta: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _data({**self._head, "choices": [choice]})


def error_event(body: dict[str, Any]) -> bytes:
    """An error in the middle of a stream: an object with `error`, which every SDK raises."""
    return _data(body)


def _data(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
