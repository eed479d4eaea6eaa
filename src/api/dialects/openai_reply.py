"""OpenAI chat completions, outwards: for answers that were translated (relayed ones go out as they came)."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from src.api.dialects.relayed import objects_in, payloads_of
from src.api.dialects.request import ParsedRequest
from src.api.sse import event
from src.domain.catalog.model import Usage
from src.domain.completion.deltas import PartDelta, RefusalDelta, TextDelta
from src.domain.completion.model import FinishReason, Outcome
from src.shared.ids import made_at

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


class OpenAIWriter:
    """Writes one answer, whole or as a stream of chunks."""

    tells_prompt: ClassVar[bool] = False

    def __init__(self, parsed: ParsedRequest, answer_id: UUID) -> None:
        self._id = f"chatcmpl-{answer_id.hex}"
        self._with_usage = parsed.chat.wire is not None and parsed.chat.wire.wants_usage
        self._model = parsed.model
        self._created = _seconds(made_at(answer_id))

    def whole(self, outcome: Outcome, model: str) -> dict[str, Any]:
        """A chat completion."""
        return completion(outcome, self._id, model)

    def first(self, model: str, prompt_tokens: int) -> bytes:
        """The chunk that names the role."""
        self._model = model
        return self._choice({"role": "assistant", "content": "", "refusal": None}, None)

    def delta(self, delta: PartDelta) -> bytes:
        """Some more of the answer."""
        match delta:
            case TextDelta(text=text):
                return self._choice({"content": text}, None)
            case RefusalDelta(text=text):
                return self._choice({"refusal": text}, None)
            case _:
                return b""

    def last(self, outcome: Outcome) -> bytes:
        """Why it stopped, the usage where the client asked for it, and the end."""
        finish = self._choice({}, _REASONS[outcome.finish_reason])
        usage = event({**self._head(), "choices": [], "usage": usage_body(outcome.usage)}) if self._with_usage else b""
        return finish + usage + DONE

    def cut(self, outcome: Outcome, relayed: bytes) -> bytes:
        """Every choice that has not ended ends here, in chunks that look like those before."""
        ended: dict[int, bool] = {}
        head: dict[str, Any] = {}
        for payload in payloads_of(relayed):
            head = {name: payload[name] for name in ("id", "object", "created", "model") if name in payload} or head
            for choice in objects_in(payload.get("choices")):
                index = choice.get("index", 0)
                ended[index] = ended.get(index, False) or choice.get("finish_reason") is not None
        reason = _REASONS[outcome.finish_reason]
        left = [{"index": index, "delta": {}, "finish_reason": reason} for index, over in ended.items() if not over]
        usage = {**self._head(), **head, "choices": [], "usage": usage_body(outcome.usage)}
        told = event(usage) if self._with_usage else b""
        return b"".join(event({**self._head(), **head, "choices": [choice]}) for choice in left) + told + DONE

    def error(self, body: dict[str, Any]) -> bytes:
        """An error in the middle of a stream: an object with `error`, which every SDK raises."""
        return event(body)

    def _head(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "service_tier": "default",
            "system_fingerprint": None,
        }

    def _choice(self, delta: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return event({**self._head(), "choices": [choice]})


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
