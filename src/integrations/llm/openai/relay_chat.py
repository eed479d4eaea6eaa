"""OpenAI's chat completions, as the relay lane reads and changes them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from src.domain.catalog.model import Usage
from src.domain.completion.model import Delivered, Finished, FinishReason, Reply, UpstreamRequest
from src.integrations.llm import relay_failures
from src.integrations.llm.openai.content import GOOGLES
from src.integrations.llm.openai.request import MAX_COMPLETION_TOKENS
from src.integrations.llm.sse_bytes import TailReader, parsed, payloads_of

CAP_FIELDS = ("max_tokens", "max_completion_tokens")

_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details")
"""Fields of other servers' answers. OpenAI has none of them, and shows no thoughts here."""
_OPENAIS = re.compile(r"(?:ft:)?(?:gpt-(?!oss)|chatgpt-|codex|o\d)")
"""Models of its own: in its place may be another server, whose models want their thoughts back."""

REASONS = {
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
}
"""What OpenAI's finish reasons mean, and those of servers that have others. All else is a stop."""
FAILED = "error"
"""The finish reason of an answer that broke off, as routers write it."""


def body_for(request: UpstreamRequest, wire_body: Mapping[str, Any], cap_field: str) -> dict[str, Any]:
    """The client's body with the model, the output cap and the usage option changed; the client's own is untouched.

    Its history is without what other servers put there and this one refuses.
    """
    body = {**wire_body, "model": request.model.upstream}
    if messages := _messages(wire_body):
        body["messages"] = _as_known(messages, request.model.upstream, cap_field)
    if request.output_cap is not None:
        _cap(body, request.output_cap, request.model.max_output, cap_field)
    if request.chat.stream:
        options = body.get("stream_options")
        body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return body


def left_out(told: Mapping[str, Any], body: Mapping[str, Any]) -> tuple[str, ...]:
    """The name for thoughts that were told, and are not in the body."""
    had, has = (sum(any(map(message.get, _THOUGHTS)) for message in _messages(each)) for each in (told, body))
    return ("thinking",) if has < had else ()


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    return body.get("messages") or []


def _as_known(messages: list[dict[str, Any]], upstream: str, cap_field: str) -> list[dict[str, Any]]:
    """Answers without fields unknown where the model is: Google's signatures are for its own models alone."""
    is_openais = cap_field == MAX_COMPLETION_TOKENS and _OPENAIS.match(upstream) is not None
    unknown, signed = _THOUGHTS if is_openais else (), GOOGLES.match(upstream) is not None
    return [
        _answer(message, unknown, signed=signed) if message.get("role") == "assistant" else message
        for message in messages
    ]


def _answer(message: dict[str, Any], unknown: Sequence[str], *, signed: bool) -> dict[str, Any]:
    known = message
    if any(name in message for name in unknown):
        known = {name: value for name, value in message.items() if name not in unknown}
    calls = known.get("tool_calls")
    if not signed and isinstance(calls, list) and any(map(_is_signed, calls)):
        known = {**known, "tool_calls": [_unsigned(call) if _is_signed(call) else call for call in calls]}
    return known


def _is_signed(call: Mapping[str, Any]) -> bool:
    extra = call.get("extra_content")
    return isinstance(extra, dict) and "google" in extra


def _unsigned(call: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in call.items() if name != "extra_content"}


def _cap(body: dict[str, Any], output_cap: int, max_output: int, cap_field: str) -> None:
    """Every choice generates its own output, so the choices share the cap. The client's smaller wish stays.

    A null names no field: OpenAI's models refuse both at once, and many of them the older one.
    """
    limit = max(1, min(output_cap // choices_of(body), max_output))
    for name in [name for name in CAP_FIELDS if body.get(name) is not None] or [cap_field]:
        wish = body.get(name)
        body[name] = min(wish, limit) if isinstance(wish, int) and wish > 0 else limit


def choices_of(body: Mapping[str, Any]) -> int:
    """How many answers are asked for; lenient servers also take "2" and 2.0."""
    try:
        return max(1, int(float(body.get("n") or 1)))
    except (TypeError, ValueError, OverflowError):
        return 1


def read_reply(data: bytes) -> Reply:
    """A whole answer. Raises UpstreamFailed where the body is none."""
    body = parsed(data)
    if not isinstance(body, dict):
        raise relay_failures.malformed("The provider's answer is not JSON.")
    if body.get("error"):
        raise relay_failures.of_error_object(body["error"])
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise relay_failures.malformed("The provider's answer has no choices.")
    for choice in choices:
        _check_choice(choice)
    usage = read_usage(body.get("usage"))
    finished = Finished(reason=_reason_of(choices[0]), usage=usage, upstream_model=_model(body), wire=data)
    return Reply(text=_reply_text(choices, counted=usage is not None), finished=finished)


def _reason_of(choice: Mapping[str, Any]) -> FinishReason:
    """Some servers do not say why they stop where they call a tool."""
    reason = choice.get("finish_reason")
    return FinishReason.TOOL_CALLS if reason is None else _reason(reason)


def _check_choice(choice: Any) -> None:
    """Raises UpstreamFailed where a choice is none, failed, or does not say why it ended."""
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        raise relay_failures.malformed("The provider's answer has a choice without a message.")
    reason = choice.get("finish_reason")
    if reason == FAILED:
        raise relay_failures.of_error_object(choice.get("error"))
    if not isinstance(reason, str) and not choice["message"].get("tool_calls"):
        raise relay_failures.malformed("The provider's answer ended without a reason.")


def _reply_text(choices: list[Any], *, counted: bool) -> str:
    """What a reader sees; where tokens must be counted from the text, everything that was generated."""
    messages = [choice.get("message") for choice in choices if isinstance(choice, dict)]
    if counted:
        first = messages[0] if isinstance(messages[0], dict) else {}
        return _text(first.get("content")) or _text(first.get("refusal"))
    return "".join(text for message in messages for text in _generated(message))


def read_usage(value: Any) -> Usage | None:
    """Reported tokens, unchecked; None where they are missing or no numbers.

    The output may be told by the total, which alone has the thoughts where they are counted beside the answer (xAI's
    models, and Google's at its server that is compatible).
    """
    if not isinstance(value, dict):
        return None
    input_tokens, output_tokens = count_in(value.get("prompt_tokens")), count_in(value.get("completion_tokens"))
    total = count_in(value.get("total_tokens"))
    if input_tokens is not None and total is not None:
        output_tokens = max(output_tokens or 0, total - input_tokens)
    if input_tokens is None or output_tokens is None:
        return None
    prompt, completion = _details(value, "prompt_tokens_details"), _details(value, "completion_tokens_details")
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=_count(prompt.get("cached_tokens")),
        cache_write_tokens=_count(prompt.get("cache_write_tokens")),
        reasoning_tokens=_count(completion.get("reasoning_tokens")),
    )


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = usage.get(name)
    return found if isinstance(found, dict) else {}


def read_delivered(data: bytes) -> Delivered:
    """Everything generated in some events, and the newest usage: some servers tell it with each of them."""
    texts: list[str] = []
    usage: Usage | None = None
    for payload in payloads_of(data):
        usage = read_usage(payload.get("usage")) or usage
        for choice in _choices(payload):
            texts.extend(_generated(choice.get("delta")))
    return Delivered("".join(texts), usage)


def _generated(message: Any) -> Iterator[str]:
    """Reasoning, content, refusal and the arguments of tool calls."""
    if not isinstance(message, dict):
        return
    # Servers that renamed the field send both for a while.
    yield _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
    yield _text(message.get("content"))
    yield _text(message.get("refusal"))
    calls = message.get("tool_calls")
    for call in (*(calls if isinstance(calls, list) else ()), {"function": message.get("function_call")}):
        yield from _arguments(call)


def _arguments(call: Any) -> Iterator[str]:
    """What a function is called with, or the free text a custom tool is called with."""
    if not isinstance(call, dict):
        return
    for kind, name in (("function", "arguments"), ("custom", "input")):
        if isinstance(call.get(kind), dict):
            yield _text(call[kind].get(name))


def _text(value: Any) -> str:
    """Plain text, or the texts of a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text(part.get("text") or part.get("thinking")) for part in value if isinstance(part, dict))
    return ""


class OpenAIReader(TailReader):
    """Passes everything on up to the usage chunk, which only those get who asked for it."""

    # Many servers write `"usage":null` and `"finish_reason":null` into every chunk: only filled fields are marks.
    marks = (b'"finish_reason":"', b'"finish_reason": "', b'"prompt_tokens"', b'"tool_calls"', b'"error"', b"[DONE]")

    def __init__(self, *, wants_usage: bool, choices: int) -> None:
        super().__init__()
        self._wants_usage = wants_usage
        self._choices = choices
        self._ended: set[Any] = set()
        self._calls = False
        self._reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._model: str | None = None

    def look(self, payload: dict[str, Any]) -> bool:
        if payload.get("error"):
            self.failure = relay_failures.of_error_object(payload["error"])
            return False
        self._model = self._model or _model(payload)
        choices = _choices(payload)
        for choice in choices:
            self._note_end(choice)
        usage = read_usage(payload.get("usage"))
        self._usage = usage or self._usage
        if choices:
            self._holding = False
        elif usage is not None:
            self.hold()
            return self._wants_usage
        return True

    def _note_end(self, choice: dict[str, Any]) -> None:
        said = choice.get("finish_reason")
        if said == FAILED:
            self.failure = relay_failures.of_error_object(choice.get("error"))
        elif isinstance(said, str):
            self._ended.add(choice.get("index") if isinstance(choice.get("index"), int) else 0)
            self._reason = self._reason or _reason(said)
        delta = choice.get("delta")
        self._calls = self._calls or (isinstance(delta, dict) and bool(delta.get("tool_calls")))

    @property
    def is_complete(self) -> bool:
        # Servers that know one choice only end the stream after the first, and some tell no reason after a call.
        return len(self._ended) >= self._choices or (self.is_over and (bool(self._ended) or self._calls))

    @property
    def is_settled(self) -> bool:
        return self.is_complete and self._holding

    def finished(self) -> Finished:
        reason = self._reason or (FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP)
        return Finished(reason=reason, usage=self._usage, upstream_model=self._model, wire=self.held)


def _choices(payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    choices = payload.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _reason(said: Any) -> FinishReason:
    return REASONS.get(said, FinishReason.STOP) if isinstance(said, str) else FinishReason.STOP


def _model(payload: Mapping[str, Any]) -> str | None:
    model = payload.get("model")
    return model if isinstance(model, str) and model else None


def count_in(value: Any) -> int | None:
    """A count of tokens, which some servers write as 12.0; None for what is none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def _count(value: Any) -> int:
    return count_in(value) or 0
