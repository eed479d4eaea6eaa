"""Anthropic's messages, as the relay lane reads and changes them."""

from collections.abc import Mapping
from typing import Any

import orjson

from src.domain.catalog.model import Usage
from src.domain.completion.model import Finished, FinishReason, Reply, UpstreamRequest
from src.integrations.llm import relay_failures
from src.integrations.llm.sse_bytes import TailReader, parsed, payloads_of

MIN_THINKING_TOKENS = 1024
"""The smallest thinking budget the API takes."""

_REASONS = {
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}
_DELTA_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


def body_for(request: UpstreamRequest, wire_body: Mapping[str, Any], cap_field: str) -> dict[str, Any]:
    """The client's body with the model and the output cap changed; the client's own is untouched."""
    body = {**wire_body, "model": request.model.upstream}
    wish = body.get("max_tokens")
    if request.output_cap is None:
        if wish is None:
            body["max_tokens"] = request.model.max_output
        return body
    limit = min(request.output_cap, request.model.max_output)
    # A maximum of 0 is legal: it only warms the prompt cache.
    if isinstance(wish, int) and 0 <= wish <= limit:
        return body
    body["max_tokens"] = limit
    _fit_thinking(body, limit)
    return body


def _fit_thinking(body: dict[str, Any], limit: int) -> None:
    """The API refuses a thinking budget that leaves nothing of a lowered maximum: a quarter is kept for the answer."""
    thinking = body.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if not isinstance(thinking, dict) or not isinstance(budget, int) or budget < limit:
        return
    if limit <= MIN_THINKING_TOKENS:
        del body["thinking"]
        return
    body["thinking"] = {**thinking, "budget_tokens": max(MIN_THINKING_TOKENS, limit - limit // 4)}


def read_reply(data: bytes) -> Reply:
    """A whole answer. Raises UpstreamFailed where the body is none."""
    body = parsed(data)
    if not isinstance(body, dict):
        raise relay_failures.malformed("The provider's answer is not JSON.")
    if body.get("type") == "error":
        raise relay_failures.of_error_object(body.get("error"))
    content = body.get("content")
    if not isinstance(content, list):
        raise relay_failures.malformed("The provider's answer has no content.")
    usage = read_usage(body.get("usage"))
    finished = Finished(
        reason=_reason(body.get("stop_reason")), usage=usage, upstream_model=_text(body.get("model")) or None, wire=data
    )
    return Reply(text=_reply_text(content, counted=usage is not None), finished=finished)


def _reply_text(content: list[Any], *, counted: bool) -> str:
    """What a reader sees; where tokens must be counted from the text, everything that was generated."""
    blocks = [block for block in content if isinstance(block, dict)]
    visible = "".join(_text(block.get("text")) for block in blocks)
    if counted:
        return visible
    hidden = [_text(block.get("thinking")) for block in blocks]
    calls = [orjson.dumps(block["input"]).decode() for block in blocks if isinstance(block.get("input"), dict)]
    return "".join((*hidden, visible, *calls))


def read_usage(value: Any) -> Usage | None:
    """Reported tokens, unchecked; None where they are missing or no numbers. Our input includes cached tokens."""
    if not isinstance(value, dict):
        return None
    if not isinstance(value.get("input_tokens"), int) or not isinstance(value.get("output_tokens"), int):
        return None
    fresh, written, read, output = (count if isinstance(count := value.get(name), int) else 0 for name in _COUNTS)
    return Usage(
        input_tokens=fresh + written + read,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
    )


def read_text(data: bytes) -> str:
    """Everything generated in some events: text, thinking and the input of tools."""
    return "".join(_delta_text(payload.get("delta")) for payload in payloads_of(data))


def _delta_text(delta: Any) -> str:
    if not isinstance(delta, dict):
        return ""
    field = _DELTA_TEXTS.get(_text(delta.get("type")))
    return _text(delta.get(field)) if field else ""


class AnthropicReader(TailReader):
    """Passes everything on up to `message_stop`. Usage comes in two events, the second one cumulative."""

    marks = (b'"message_', b'"error"', b'"ping"')

    def __init__(self) -> None:
        super().__init__()
        self._reason: FinishReason | None = None
        self._counts: dict[str, Any] = {}
        self._has_final_counts = False
        self._model: str | None = None

    def look(self, payload: dict[str, Any]) -> bool:
        match payload.get("type"):
            case "message_start":
                message = payload.get("message")
                self._begin(message if isinstance(message, dict) else {})
            case "message_delta":
                self._note_delta(payload)
            case "message_stop":
                self.is_over = True
                self.hold()
            case "error":
                self.failure = relay_failures.of_error_object(payload.get("error"))
        return True

    def _begin(self, message: dict[str, Any]) -> None:
        self._model = _text(message.get("model")) or None
        self._count(message.get("usage"))

    def _note_delta(self, payload: dict[str, Any]) -> None:
        delta = payload.get("delta")
        said = delta.get("stop_reason") if isinstance(delta, dict) else None
        if isinstance(said, str):
            self._reason = _reason(said)
        usage = payload.get("usage")
        self._count(usage)
        # The output count of the first event is no more than a beginning.
        self._has_final_counts |= isinstance(usage, dict) and isinstance(usage.get("output_tokens"), int)

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._counts.update({name: usage[name] for name in _COUNTS if isinstance(usage.get(name), int)})

    @property
    def is_complete(self) -> bool:
        return self.is_over or self._reason is not None

    @property
    def is_settled(self) -> bool:
        return self._reason is not None and self._has_final_counts

    def finished(self) -> Finished:
        return Finished(
            reason=self._reason or FinishReason.STOP,
            usage=read_usage(self._counts) if self._has_final_counts else None,
            upstream_model=self._model,
            wire=self.held,
        )


def _reason(said: Any) -> FinishReason:
    return _REASONS.get(said, FinishReason.STOP) if isinstance(said, str) else FinishReason.STOP


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
