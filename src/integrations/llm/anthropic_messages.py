"""Anthropic's messages, on the stock SDK."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from src.domain.catalog.model import Usage
from src.domain.completion.deltas import TextDelta
from src.domain.completion.model import (
    ChatMessage,
    ChatRole,
    Dropped,
    Failure,
    Finished,
    FinishReason,
    Reply,
    UpstreamEvent,
    UpstreamRequest,
)
from src.domain.completion.ports import ChatModel
from src.integrations.llm.failures import Refusal, failed_with, told, upstream_errors
from src.integrations.llm.guarded_client import sooner
from src.integrations.llm.relay_failures import of_error_object
from src.integrations.llm.translation import left_out, refuse_choices, refuse_untranslatable

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from anthropic.types import Message

SAMPLING_VERSION = "2023-06-01"
"""The newest API version refuses temperature, top_p and top_k; this one passes them to the models that know them."""

OPENING = "(The conversation begins with the assistant.)"
"""A history must begin with the user."""

_TAKEN = frozenset({"temperature", "top_p", "top_k", "stop"})
"""Parameters that the format can say."""

_FINISH_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}


class AnthropicMessages(ChatModel):
    """`client` gives the shared SDK client."""

    def __init__(self, client: "Callable[[], Awaitable[AsyncAnthropic]]") -> None:
        self._client = client

    async def complete(self, request: UpstreamRequest) -> Reply:
        arguments = request_arguments(request)
        with upstream_errors(_refusal_in):
            client = await self._client()
            reply = reply_of(await client.messages.create(**arguments, **sooner(request), stream=False))
            return replace(reply, dropped=left_out(request, _TAKEN))

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        arguments = request_arguments(request)
        end = _Told()
        if dropped := left_out(request, _TAKEN):
            yield Dropped(dropped)
        with upstream_errors(_refusal_in):
            client = await self._client()
            stream = await client.messages.create(**arguments, **sooner(request), stream=True)
            async with stream:
                async for event in stream:
                    if text := end.hear(event):
                        yield TextDelta(text)
            yield end.finished()


def request_arguments(request: UpstreamRequest) -> dict[str, Any]:
    """The SDK's arguments for a request. Raises UpstreamFailed (unsupported) where it is more than text."""
    refuse_untranslatable(request)
    refuse_choices(request)
    cap = request.max_output_tokens
    arguments: dict[str, Any] = {
        "model": request.model.upstream,
        "messages": _turns(request.chat.messages),
        "max_tokens": request.model.max_output if cap is None else cap,
    }
    if system := system_text(request.chat.messages):
        arguments["system"] = system
    if request.chat.parameters.stop:
        arguments["stop_sequences"] = list(request.chat.parameters.stop)
    return arguments | _sampling(request)


def system_text(messages: tuple[ChatMessage, ...]) -> str:
    """All system messages as one."""
    return "\n\n".join(message.text for message in messages if message.role is ChatRole.SYSTEM and message.text)


def reply_of(message: "Message") -> Reply:
    """Raises UpstreamFailed (malformed) for what is no message."""
    content = getattr(message, "content", None)
    if content is None and (error := getattr(message, "error", None)):
        raise of_error_object(error)
    if content is None:
        raise failed_with(Failure.MALFORMED)
    text = "".join(told(block.text) for block in content if block.type == "text")
    end = _Told(reason=message.stop_reason, upstream_model=told(message.model) or None)
    end.note_usage(message.usage)
    return Reply(text=text, finished=end.finished())


@dataclass(slots=True)
class _Told:
    """What a stream has said about its end so far. Usage comes in pieces: each replaces what it names."""

    reason: str | None = None
    upstream_model: str | None = None
    fresh: int | None = None
    written: int = 0
    read: int = 0
    output: int | None = None
    has_ended: bool = False

    def hear(self, event: Any) -> str:
        """The text in an event, often none."""
        match event.type:
            case "message_start":
                self.upstream_model = told(event.message.model) or None
                self.note_usage(event.message.usage)
            case "content_block_delta" if event.delta.type == "text_delta":
                return told(event.delta.text)
            case "message_delta":
                self.reason = event.delta.stop_reason or self.reason
                self.note_usage(event.usage)
        return ""

    def note_usage(self, usage: Any) -> None:
        if usage is None:
            return
        self.fresh = _given(usage, "input_tokens", self.fresh)
        self.output = _given(usage, "output_tokens", self.output)
        self.written = _given(usage, "cache_creation_input_tokens", self.written) or 0
        self.read = _given(usage, "cache_read_input_tokens", self.read) or 0

    def finished(self) -> Finished:
        """Raises UpstreamFailed (malformed) for an answer that just stopped."""
        if not isinstance(self.reason, str):
            raise failed_with(Failure.MALFORMED)
        reason = _FINISH_REASONS.get(self.reason, FinishReason.STOP)
        return Finished(reason=reason, usage=self._usage(), upstream_model=self.upstream_model)

    def _usage(self) -> Usage | None:
        """Anthropic's input tokens leave out the cached ones, ours include them."""
        if self.fresh is None or self.output is None:
            return None
        return Usage(
            input_tokens=self.fresh + self.written + self.read,
            output_tokens=self.output,
            cache_read_tokens=self.read,
            cache_write_tokens=self.written,
        )


def _given(usage: Any, name: str, before: int | None) -> int | None:
    value = getattr(usage, name, None)
    return before if value is None else int(value)


def _turns(messages: tuple[ChatMessage, ...]) -> list[dict[str, str]]:
    """Blank turns are refused, and so are spaces at the end of an answer to be continued."""
    turns = [
        {"role": message.role.value, "content": message.text}
        for message in messages
        if message.role is not ChatRole.SYSTEM and message.text.strip()
    ]
    if not turns or turns[0]["role"] != ChatRole.USER.value:
        turns.insert(0, {"role": ChatRole.USER.value, "content": OPENING})
    if turns[-1]["role"] == ChatRole.ASSISTANT.value:
        turns[-1]["content"] = turns[-1]["content"].rstrip()
    return turns


def _sampling(request: UpstreamRequest) -> dict[str, Any]:
    wished = request.chat.parameters
    named = {"temperature": wished.temperature, "top_p": wished.top_p, "top_k": wished.top_k}
    given = {name: value for name, value in named.items() if value is not None}
    if not given or not request.model.capabilities.sampling:
        return {}
    return {"extra_body": given, "extra_headers": {"anthropic-version": SAMPLING_VERSION}}


def _refusal_in(error: Exception) -> Refusal | None:
    """Statuses, and errors sent inside a stream, which come with the stream's own status."""
    import anthropic  # loaded already where it raised

    if not isinstance(error, anthropic.APIStatusError):
        return None
    said = error.body.get("error", error.body) if isinstance(error.body, dict) else {}
    said = said if isinstance(said, dict) else {}
    return Refusal(
        status=error.status_code,
        message=str(said.get("message") or ""),
        names=(str(said.get("type") or ""),),
        headers=error.response.headers,
    )
