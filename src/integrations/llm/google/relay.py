"""Google's generateContent, as the relay lane reads and changes it."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from src.domain.catalog.model import Usage
from src.domain.completion.model import Delivered, Finished, FinishReason, Reply, UpstreamRequest
from src.integrations.llm import relay_failures
from src.integrations.llm.sse_bytes import TailReader, json_text, parsed, payloads_of

MIN_THINKING_TOKENS = 128
"""The smallest thinking budget that every model takes which takes any."""

CAP_FIELD = "maxOutputTokens"

_TUNED = "tunedModels/"
_FILTERED = frozenset(
    {
        *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR", "ESCALATION"),
        *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "PUP_LIMITED_DISABLED"),
    }
)
_CUT = frozenset({"MAX_TOKENS", "CONTINUATION"})
_UNSAID = "FINISH_REASON_UNSPECIFIED"


def resource(upstream: str) -> str:
    """The model as a part of an address."""
    name = upstream if upstream.startswith((_TUNED, "models/")) else f"models/{upstream}"
    return quote(name, safe="/")


def address(url: str, stream: bool) -> str:
    """Where the model at that address is called."""
    return f"{url}:streamGenerateContent?alt=sse" if stream else f"{url}:generateContent"


def body_for(request: UpstreamRequest, wire_body: Mapping[str, Any], cap_field: str) -> dict[str, Any]:
    """The client's body with only the output capped; model and streaming are said by the address."""
    body = {name: value for name, value in wire_body.items() if name != "model"}
    if request.output_cap is None:
        return body
    # Every candidate generates its own output, so they share the cap.
    limit = max(1, min(request.output_cap // request.chat.parameters.choices, request.model.max_output))
    place = "generation_config" if "generation_config" in body else "generationConfig"
    given = body.get(place)
    config = dict(given) if isinstance(given, dict) else {}
    name = "max_output_tokens" if "max_output_tokens" in config else cap_field
    wish = request.chat.parameters.max_output_tokens
    if wish is None or wish > limit:
        config[name] = limit
        body[place] = _with_less_thought(config, limit)
    return body


def _with_less_thought(config: dict[str, Any], limit: int) -> dict[str, Any]:
    """A lowered maximum, which thoughts count in, leaves a quarter for the answer."""
    for place, name in (("thinkingConfig", "thinkingBudget"), ("thinking_config", "thinking_budget")):
        thinking = config.get(place)
        budget = thinking.get(name) if isinstance(thinking, dict) else None
        if isinstance(thinking, dict) and isinstance(budget, int) and budget >= limit:
            most = max(MIN_THINKING_TOKENS, limit - limit // 4)
            config = {**config, place: {**thinking, name: min(budget, most)}}
    return config


def read_reply(data: bytes) -> Reply:
    """A whole answer. Raises UpstreamFailed where the body is none."""
    body = parsed(data)
    if not isinstance(body, dict):
        raise relay_failures.malformed("The provider's answer is not JSON.")
    if body.get("error"):
        raise relay_failures.of_error_object(body["error"])
    candidates = _objects(body.get("candidates"))
    if not candidates and not _is_blocked(body):
        raise relay_failures.malformed("The provider's answer has no candidates.")
    reasons = [_said_reason(candidate) for candidate in candidates]
    if not all(reasons):
        raise relay_failures.malformed("The provider's answer ended without a reason.")
    usage = read_usage(body.get("usageMetadata"))
    called = any("functionCall" in part for part in _parts(candidates[:1]))
    finished = Finished(
        reason=reason_of(reasons[0] if reasons else None, called=called),
        usage=usage,
        upstream_model=_text(body.get("modelVersion")) or None,
        wire=data,
    )
    if usage is None:
        return Reply(text="".join(_generated(candidates)), finished=finished)
    return Reply(text="".join(_visible(candidates[:1])), finished=finished)


def read_usage(value: Any) -> Usage | None:
    """Reported tokens, unchecked; None where they are missing or no numbers. Thoughts are output like any other."""
    if not isinstance(value, dict) or not isinstance(value.get("promptTokenCount"), int):
        return None
    thoughts = _count(value, "thoughtsTokenCount")
    return Usage(
        input_tokens=value["promptTokenCount"] + _count(value, "toolUsePromptTokenCount"),
        output_tokens=_count(value, "candidatesTokenCount") + thoughts,
        cache_read_tokens=_count(value, "cachedContentTokenCount"),
        reasoning_tokens=thoughts,
    )


def read_delivered(data: bytes) -> Delivered:
    """Everything generated in some chunks, and the newest usage: each of them tells it."""
    texts: list[str] = []
    usage: Usage | None = None
    for payload in payloads_of(data):
        usage = read_usage(payload.get("usageMetadata")) or usage
        texts.extend(_generated(_objects(payload.get("candidates"))))
    return Delivered("".join(texts), usage)


class GoogleReader(TailReader):
    """Passes everything on up to the chunk in which the last candidate ends: no other says that nothing follows."""

    marks = (b'"finishReason"', b'"functionCall"', b'"error"', b'"promptFeedback"')

    def __init__(self, *, choices: int) -> None:
        super().__init__()
        self._choices = choices
        self._reasons: dict[int, str | None] = {}
        self._is_blocked = False
        self._has_called = False
        self._usage: Usage | None = None
        self._model: str | None = None

    def look(self, payload: dict[str, Any]) -> bool:
        if payload.get("error"):
            self.failure = relay_failures.of_error_object(payload["error"])
            return False
        self._model = _text(payload.get("modelVersion")) or self._model
        self._usage = read_usage(payload.get("usageMetadata")) or self._usage
        self._is_blocked |= _is_blocked(payload)
        candidates = _objects(payload.get("candidates"))
        for candidate in candidates:
            self._note(candidate)
        if self.is_complete and (candidates or not self._holding):
            # Some servers say in every chunk that it may be the last.
            self.hold(anew=True)
        elif candidates:
            self._holding = False
        return True

    def _is_marked(self, events: bytes) -> bool:
        # Of several candidates each has its own end: all of them are looked for.
        return self._choices > 1 or super()._is_marked(events)

    def _note(self, candidate: dict[str, Any]) -> None:
        index = candidate.get("index")
        place = index if isinstance(index, int) else 0
        self._reasons[place] = _said_reason(candidate) or self._reasons.get(place)
        self._has_called |= any("functionCall" in part for part in _parts([candidate]))

    @property
    def is_complete(self) -> bool:
        # Fewer candidates may come than were asked for.
        return self._is_blocked or (bool(self._reasons) and None not in self._reasons.values())

    @property
    def is_settled(self) -> bool:
        return self.is_complete and len(self._reasons) >= self._choices and self._usage is not None

    def finished(self) -> Finished:
        reason = reason_of(next(iter(self._reasons.values()), None), called=self._has_called)
        return Finished(reason=reason, usage=self._usage, upstream_model=self._model, wire=self.held)


def _said_reason(candidate: Mapping[str, Any]) -> str | None:
    reason = candidate.get("finishReason")
    return reason if isinstance(reason, str) and reason not in ("", _UNSAID) else None


def reason_of(said: str | None, *, called: bool) -> FinishReason:
    """Why an answer ended, in our words. Nothing is said of one whose question was blocked."""
    if said is None or said in _FILTERED:
        return FinishReason.CONTENT_FILTER
    if said in _CUT:
        return FinishReason.LENGTH
    return FinishReason.TOOL_CALLS if called else FinishReason.STOP


def _is_blocked(body: Mapping[str, Any]) -> bool:
    feedback = body.get("promptFeedback")
    return isinstance(feedback, dict) and bool(feedback.get("blockReason"))


def _visible(candidates: list[dict[str, Any]]) -> Iterator[str]:
    return (_text(part.get("text")) for part in _parts(candidates) if part.get("thought") is not True)


def _generated(candidates: list[dict[str, Any]]) -> Iterator[str]:
    """Texts, thoughts, calls with their arguments, and code."""
    for part in _parts(candidates):
        yield _text(part.get("text"))
        call, code = part.get("functionCall"), part.get("executableCode")
        if isinstance(call, dict):
            yield json_text(call.get("args") or {})
        if isinstance(code, dict):
            yield _text(code.get("code"))


def _parts(candidates: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for candidate in candidates:
        content = candidate.get("content")
        yield from _objects(content.get("parts") if isinstance(content, dict) else None)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _count(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) else 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
