"""Anthropic's messages, as the relay lane reads and changes them."""

from collections.abc import Mapping
from typing import Any

from src.domain.catalog.model import Usage
from src.domain.completion.model import Delivered, Finished, FinishReason, Reply, UpstreamRequest
from src.integrations.llm import relay_failures
from src.integrations.llm.anthropic.ids import with_own_ids
from src.integrations.llm.sse_bytes import TailReader, json_text, parsed, payloads_of

MIN_THINKING_TOKENS = 1024
"""The smallest thinking budget the API takes."""

_REASONS = {
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}
_TEXTS = {
    "text": "text",
    "thinking": "thinking",
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
}
_APART = ("compaction", "advisor_message")
"""Kinds of what the model did besides, whose tokens are not among those of the answer."""
_RUN = "_tool_result"
"""How the kinds of blocks end that tell what a tool did which the provider ran."""
_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


def in_its_own_words(body: Mapping[str, Any], upstream: str) -> dict[str, Any]:
    """The body with the model's name, and with ids of calls as the API takes them: other models give others."""
    messages = body.get("messages")
    told = {**body, "model": upstream}
    return {**told, "messages": with_own_ids(messages)} if isinstance(messages, list) else told


def body_for(request: UpstreamRequest, wire_body: Mapping[str, Any], cap_field: str) -> dict[str, Any]:
    """The client's body with the model and the output cap changed; the client's own is untouched."""
    body = in_its_own_words(wire_body, request.model.upstream)
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
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise relay_failures.malformed("The provider's answer has no content.")
    if not isinstance(body.get("stop_reason"), str):
        raise relay_failures.malformed("The provider's answer ended without a reason.")
    usage = read_usage(body.get("usage"))
    finished = Finished(
        reason=_reason(body.get("stop_reason")),
        usage=usage,
        upstream_model=_text(body.get("model")) or None,
        wire=data,
        readings=_readings(body.get("usage"), sum(map(_is_run, content))),
    )
    return Reply(text=_reply_text(content, counted=usage is not None), finished=finished)


def _reply_text(blocks: list[dict[str, Any]], *, counted: bool) -> str:
    """What a reader sees; where tokens must be counted from the text, everything that was generated."""
    visible = "".join(_text(block.get("text")) for block in blocks)
    if counted:
        return visible
    hidden = [_text(block.get("thinking")) for block in blocks]
    calls = [json_text(block["input"]) for block in blocks if isinstance(block.get("input"), dict)]
    return "".join((*hidden, visible, *calls))


def _is_run(block: Any) -> bool:
    return isinstance(block, dict) and _text(block.get("type")).endswith(_RUN)


def _readings(usage: Any, runs: int) -> int:
    return max(len(_iterations(usage)), 1 + runs)


def _iterations(usage: Any) -> list[dict[str, Any]]:
    """What is told of each time that a model was asked for one answer."""
    told = usage.get("iterations") if isinstance(usage, dict) else None
    return [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []


def read_usage(value: Any) -> Usage | None:
    """Reported tokens, unchecked; None where they are missing or no numbers. Our input includes cached tokens."""
    if not isinstance(value, dict):
        return None
    if not isinstance(value.get("input_tokens"), int) or not isinstance(value.get("output_tokens"), int):
        return None
    told = [value, *(each for each in _iterations(value) if each.get("type") in _APART)]
    fresh, written, read, output = (
        sum(count for each in told if isinstance(count := each.get(name), int)) for name in _COUNTS
    )
    return Usage(
        input_tokens=fresh + written + read,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
    )


def read_delivered(data: bytes) -> Delivered:
    """Everything generated in some events, text, thinking and the input of tools, and the usage told so far."""
    texts: list[str] = []
    counts: dict[str, Any] = {"output_tokens": 0}
    for payload in payloads_of(data):
        texts.append(_new_text(payload.get("content_block")) + _new_text(payload.get("delta")))
        counts.update(_counts_in(payload))
    return Delivered("".join(texts), read_usage(counts))


def _new_text(part: Any) -> str:
    """The text of a delta, or of a block as it begins."""
    if not isinstance(part, dict):
        return ""
    field = _TEXTS.get(_text(part.get("type")))
    return _text(part.get(field)) if field else ""


def _counts_in(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What an event tells of usage: each of them replaces what it names."""
    message = payload.get("message")
    usage = message.get("usage") if isinstance(message, dict) else payload.get("usage")
    if not isinstance(usage, dict):
        return {}
    counts: dict[str, Any] = {name: usage[name] for name in _COUNTS if isinstance(usage.get(name), int)}
    return counts | ({"iterations": usage["iterations"]} if "iterations" in usage else {})


class AnthropicReader(TailReader):
    """Passes everything on up to `message_stop`. Usage comes in two events, the second one cumulative."""

    marks = (b'"message_', b'"error"', b'"ping"', b'_tool_result"')

    def __init__(self) -> None:
        super().__init__()
        self._reason: FinishReason | None = None
        self._counts: dict[str, Any] = {}
        self._has_final_counts = False
        self._runs = 0
        self._model: str | None = None

    def look(self, payload: dict[str, Any]) -> bool:
        match payload.get("type"):
            case "message_start":
                message = payload.get("message")
                self._model = (_text(message.get("model")) or None) if isinstance(message, dict) else None
                self._counts.update(_counts_in(payload))
            case "content_block_start":
                self._runs += _is_run(payload.get("content_block"))
            case "message_delta":
                self._note_delta(payload)
            case "message_stop":
                self.is_over = True
                self.hold()
            case "error":
                self.failure = relay_failures.of_error_object(payload.get("error"))
        return True

    def _note_delta(self, payload: dict[str, Any]) -> None:
        delta = payload.get("delta")
        said = delta.get("stop_reason") if isinstance(delta, dict) else None
        if isinstance(said, str):
            self._reason = _reason(said)
        counts = _counts_in(payload)
        self._counts.update(counts)
        # The output count of the first event is no more than a beginning.
        self._has_final_counts |= "output_tokens" in counts

    @property
    def is_complete(self) -> bool:
        return self._reason is not None

    @property
    def is_settled(self) -> bool:
        return self._reason is not None and self._has_final_counts

    def finished(self) -> Finished:
        return Finished(
            reason=self._reason or FinishReason.STOP,
            usage=read_usage(self._counts) if self._has_final_counts else None,
            upstream_model=self._model,
            wire=self.held,
            readings=_readings(self._counts, self._runs),
        )


def _reason(said: Any) -> FinishReason:
    return _REASONS.get(said, FinishReason.STOP) if isinstance(said, str) else FinishReason.STOP


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
