"""Google's generateContent, outwards: for answers that were translated (relayed ones go out as they came)."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar
from uuid import UUID

import orjson

from src.api.dialects.gemini.signatures import STAND_IN, thought_part
from src.api.dialects.gemini.tools import wants_bare_word
from src.api.dialects.relayed import objects_in, payloads_of
from src.api.dialects.request import ParsedRequest
from src.api.sse import event
from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.content import Opaque, ToolCall
from src.domain.completion.deltas import (
    OpaqueDelta,
    PartDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    deltas_of,
    parts_of,
)
from src.domain.completion.model import FinishReason, Outcome
from src.shared.ids import made_at

MALFORMED_CALL = "MALFORMED_FUNCTION_CALL"

_REASONS = {
    FinishReason.STOP: "STOP",
    FinishReason.LENGTH: "MAX_TOKENS",
    FinishReason.CONTENT_FILTER: "SAFETY",
    FinishReason.TOOL_CALLS: "STOP",
    FinishReason.CANCELLED: "STOP",
    FinishReason.ERROR: "OTHER",
}


def usage_body(usage: Usage) -> dict[str, Any]:
    """Usage in Google's words: the prompt's tokens include cached ones, the candidates' leave out the thoughts."""
    counts = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "totalTokenCount": usage.total_tokens,
    }
    if usage.cache_read_tokens:
        counts["cachedContentTokenCount"] = usage.cache_read_tokens
    if usage.reasoning_tokens:
        counts["thoughtsTokenCount"] = usage.reasoning_tokens
    return counts


class GeminiWriter:
    """Writes one answer, whole or as a stream of chunks. A call of a function goes out whole, once its end is there."""

    tells_prompt: ClassVar[bool] = False

    def __init__(self, parsed: ParsedRequest, answer_id: UUID) -> None:
        self._head = {"responseId": answer_id.hex, "createTime": made_at(answer_id)}
        self._model = parsed.model
        self._calls: list[ToolCallDelta] = []
        self._is_malformed = False
        self._has_called = False
        wire = parsed.chat.wire
        self._word: list[str] | None = [] if wire is not None and wants_bare_word(wire.body) else None

    def whole(self, outcome: Outcome, model: str) -> dict[str, Any]:
        """The whole response."""
        self._model = model
        parts = [part for delta in deltas_of(outcome.parts) for part in self._parts(delta)] + self._ended_calls()
        if not outcome.parts and outcome.text:
            parts = self._said(outcome.text)
        return self._response(parts + self._ended_word(), outcome)

    def first(self, model: str, prompt_tokens: int) -> bytes:
        """Nothing: a stream begins with its first piece."""
        self._model = model
        return b""

    def delta(self, delta: PartDelta) -> bytes:
        """Some more of the answer, after the calls that it ends."""
        parts = self._parts(delta)
        return event(self._response(parts, None)) if parts else b""

    def last(self, outcome: Outcome) -> bytes:
        """The calls that are left, why it stopped, and the usage."""
        return event(self._response(self._ended_calls() + self._ended_word(), outcome))

    def cut(self, outcome: Outcome, relayed: bytes) -> bytes:
        """Every candidate that has not ended ends here, in a chunk that looks like those before."""
        ended: dict[int, bool] = {}
        head: dict[str, Any] = {}
        for payload in payloads_of(relayed):
            head = {name: payload[name] for name in ("modelVersion", "responseId") if name in payload} or head
            for candidate in objects_in(payload.get("candidates")):
                index = candidate.get("index", 0)
                ended[index] = ended.get(index, False) or candidate.get("finishReason") is not None
        reason = _REASONS[outcome.finish_reason]
        left = [_candidate([], reason, index) for index, over in ended.items() if not over]
        return event({"candidates": left, "usageMetadata": usage_body(outcome.usage), **head})

    def error(self, body: dict[str, Any], relayed: bytes = b"") -> bytes:
        """An error in the middle of a stream: an object that begins with `error`, which every SDK raises."""
        return event(body)

    def _parts(self, delta: PartDelta) -> list[dict[str, Any]]:
        if isinstance(delta, ToolCallDelta):
            self._calls.append(delta)
            return []
        match delta:
            case TextDelta(text=text) | RefusalDelta(text=text):
                parts = self._said(text)
            case ThinkingDelta():
                parts = [thought_part(delta)]
            case OpaqueDelta(part=Opaque(format=WireFormat.GENERATE_CONTENT, body=body)):
                parts = [dict(body)]
            case _:
                parts = []
        return self._ended_calls() + parts

    def _said(self, text: str) -> list[dict[str, Any]]:
        """A bare word waits for its end."""
        if self._word is None:
            return [{"text": text}] if text else []
        self._word.append(text)
        return []

    def _ended_word(self) -> list[dict[str, Any]]:
        text = "".join(self._word or ())
        return [{"text": _unquoted(text)}] if text else []

    def _ended_calls(self) -> list[dict[str, Any]]:
        """The calls whose pieces have come so far. One whose arguments are no JSON object was cut, and is not told."""
        calls = [part for part in parts_of(self._calls) if isinstance(part, ToolCall)]
        self._calls.clear()
        told = [(call, _arguments(call)) for call in calls]
        self._is_malformed |= any(arguments is None for _, arguments in told)
        return [self._call_part(call, arguments) for call, arguments in told if arguments is not None]

    def _call_part(self, call: ToolCall, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The first call of an answer is always signed, as Google's are."""
        signature = call.signature or (None if self._has_called else STAND_IN)
        self._has_called = True
        part: dict[str, Any] = {"functionCall": {"name": call.name, "args": arguments}}
        if call.id:
            part["functionCall"] = {"id": call.id, **part["functionCall"]}
        return part if signature is None else {**part, "thoughtSignature": signature}

    def _response(self, parts: Iterable[dict[str, Any]], end: Outcome | None) -> dict[str, Any]:
        reason = None if end is None else _REASONS[end.finish_reason]
        if reason == "STOP" and self._is_malformed:
            reason = MALFORMED_CALL
        usage = {} if end is None else {"usageMetadata": usage_body(end.usage)}
        return {"candidates": [_candidate(parts, reason)], **usage, "modelVersion": self._model, **self._head}


def _candidate(parts: Iterable[dict[str, Any]], reason: str | None, index: int = 0) -> dict[str, Any]:
    content = {"role": "model", "parts": list(parts) or [{"text": ""}]}
    return {"content": content, **({} if reason is None else {"finishReason": reason}), "index": index}


def _unquoted(text: str) -> str:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return found if isinstance(found, str) else text


def _arguments(call: ToolCall) -> Mapping[str, Any] | None:
    if call.is_custom:
        return {"input": call.arguments}
    try:
        found = orjson.loads(call.arguments or "{}")
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
