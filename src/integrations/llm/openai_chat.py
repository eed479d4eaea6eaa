"""Chat completions as OpenAI and the servers compatible with it speak them, on the stock SDK."""

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
from src.integrations.llm.relay_openai import FAILED
from src.integrations.llm.translation import left_out, refuse_choices, refuse_untranslatable

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import CompletionUsage
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

MAX_COMPLETION_TOKENS = "max_completion_tokens"
"""OpenAI's own field for the output cap; its reasoning models refuse the older one."""
MAX_TOKENS = "max_tokens"
"""The field that every compatible server knows."""

_TAKEN = frozenset({"temperature", "top_p", "stop", "presence_penalty", "frequency_penalty", "seed"})
"""Parameters that the format can say."""

_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
}


class OpenAIChat(ChatModel):
    """`client` gives the shared SDK client; `cap_field` is the server's name for the output cap."""

    def __init__(self, client: "Callable[[], Awaitable[AsyncOpenAI]]", *, cap_field: str) -> None:
        self._client = client
        self._cap_field = cap_field

    async def complete(self, request: UpstreamRequest) -> Reply:
        arguments = request_arguments(request, self._cap_field)
        with upstream_errors(_refusal_in):
            client = await self._client()
            reply = reply_of(await client.chat.completions.create(**arguments, **sooner(request), stream=False))
            return replace(reply, dropped=left_out(request, _TAKEN))

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        arguments = request_arguments(request, self._cap_field) | {"stream_options": {"include_usage": True}}
        end = _Told()
        if dropped := left_out(request, _TAKEN):
            yield Dropped(dropped)
        with upstream_errors(_refusal_in):
            client = await self._client()
            stream = await client.chat.completions.create(**arguments, **sooner(request), stream=True)
            async with stream:
                async for chunk in stream:
                    if text := end.hear(chunk):
                        yield TextDelta(text)
            yield end.finished()


def request_arguments(request: UpstreamRequest, cap_field: str) -> dict[str, Any]:
    """The SDK's arguments for a request. Raises UpstreamFailed (unsupported) where it is more than text."""
    refuse_untranslatable(request)
    refuse_choices(request)
    wished = request.chat.parameters
    sampling = request.model.capabilities.sampling
    # Only OpenAI itself knows the role that its models without sampling want instead of system.
    system = "developer" if cap_field == MAX_COMPLETION_TOKENS and not sampling else "system"
    arguments = {
        "model": request.model.upstream,
        "messages": [_message(message, system) for message in request.chat.messages],
        cap_field: request.max_output_tokens,
        "temperature": wished.temperature if sampling else None,
        "top_p": wished.top_p if sampling else None,
        "stop": list(wished.stop) or None,
        "presence_penalty": wished.presence_penalty if sampling else None,
        "frequency_penalty": wished.frequency_penalty if sampling else None,
        "seed": wished.seed,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def reply_of(completion: "ChatCompletion") -> Reply:
    """Raises UpstreamFailed (malformed) for what is no completion."""
    # The SDK does not validate: a proxy's page comes out as a string, and any field may be missing.
    choices = getattr(completion, "choices", None)
    if not choices and (error := getattr(completion, "error", None)):
        raise of_error_object(error)
    if not choices or choices[0].message is None:
        raise failed_with(Failure.MALFORMED)
    message = choices[0].message
    end = _Told(
        reason=choices[0].finish_reason, usage=usage_of(completion.usage), upstream_model=told(completion.model)
    )
    return Reply(text=told(message.content or message.refusal), finished=end.finished())


def usage_of(reported: "CompletionUsage | None") -> Usage | None:
    """OpenAI's prompt tokens include the cached ones, as ours do."""
    if reported is None or reported.prompt_tokens is None or reported.completion_tokens is None:
        return None
    details = reported.prompt_tokens_details
    return Usage(
        input_tokens=int(reported.prompt_tokens),
        output_tokens=int(reported.completion_tokens),
        cache_read_tokens=int(getattr(details, "cached_tokens", None) or 0),
        cache_write_tokens=int(getattr(details, "cache_write_tokens", None) or 0),
    )


@dataclass(slots=True)
class _Told:
    """What a stream has said about its end so far."""

    reason: str | None = None
    usage: Usage | None = None
    upstream_model: str | None = None

    def hear(self, chunk: "ChatCompletionChunk") -> str:
        """The text in a chunk, often none."""
        self.upstream_model = told(chunk.model) or self.upstream_model
        self.usage = usage_of(chunk.usage) or self.usage
        text = ""
        for choice in chunk.choices or ():
            if choice.index:
                continue
            self.reason = choice.finish_reason or self.reason
            if choice.delta is not None:
                text += told(choice.delta.content or choice.delta.refusal)
        return text

    def finished(self) -> Finished:
        """Raises UpstreamFailed for an answer that just stopped (malformed), and one that broke off."""
        if not isinstance(self.reason, str):
            raise failed_with(Failure.MALFORMED)
        if self.reason == FAILED:
            raise failed_with(Failure.SERVER)
        reason = _FINISH_REASONS.get(self.reason, FinishReason.STOP)
        return Finished(reason=reason, usage=self.usage, upstream_model=self.upstream_model or None)


def _message(message: ChatMessage, system: str) -> dict[str, str]:
    role = system if message.role is ChatRole.SYSTEM else message.role.value
    return {"role": role, "content": message.text}


def _refusal_in(error: Exception) -> Refusal | None:
    """Statuses, and errors sent inside a stream, which have none."""
    import openai  # loaded already where it raised

    if isinstance(error, openai.APIStatusError):
        return Refusal(
            status=error.status_code, message=_said(error), names=_names(error), headers=error.response.headers
        )
    if isinstance(error, openai.APIError) and not isinstance(error, openai.APIConnectionError) and error.body:
        return Refusal(status=_status_in(error.body), message=_said(error), names=_names(error))
    return None


def _said(error: "Any") -> str:
    body = error.body if isinstance(error.body, dict) else {}
    message = body.get("message")
    return message if isinstance(message, str) else ""


def _names(error: "Any") -> tuple[str, ...]:
    return tuple(name for name in (error.code, error.type) if isinstance(name, str))


def _status_in(body: object) -> int | None:
    """Compatible servers put the status into the error itself."""
    code = body.get("code") if isinstance(body, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else None
