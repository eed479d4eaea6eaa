"""Google's generateContent, on the stock SDK."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2

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
from src.integrations.llm.anthropic_messages import OPENING, system_text
from src.integrations.llm.failures import Refusal, failed_with, told, upstream_errors
from src.integrations.llm.guarded_client import noting_responses
from src.integrations.llm.translation import left_out, refuse_choices, refuse_untranslatable

if TYPE_CHECKING:
    from google.genai import Client
    from google.genai.types import GenerateContentResponse

_TAKEN = frozenset({"temperature", "top_p", "top_k", "stop", "presence_penalty", "frequency_penalty", "seed"})
"""Parameters that the format can say."""

_FILTERED = frozenset({"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR"})
_ROLES = {ChatRole.USER: "user", ChatRole.ASSISTANT: "model"}


class GoogleGenAI(ChatModel):
    """`client` gives the shared SDK client."""

    def __init__(self, client: "Callable[[], Awaitable[Client]]") -> None:
        self._client = client

    async def complete(self, request: UpstreamRequest) -> Reply:
        arguments = request_arguments(request)
        end = _Told()
        with upstream_errors(_refusal_in):
            client = await self._client()
            text = end.hear(await client.aio.models.generate_content(**arguments))
            return Reply(text=text, finished=end.finished(), dropped=left_out(request, _TAKEN))

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        arguments = request_arguments(request)
        end = _Told()
        if dropped := left_out(request, _TAKEN):
            yield Dropped(dropped)
        with upstream_errors(_refusal_in):
            client = await self._client()
            async with aclosing(_chunks(client, arguments)) as chunks:
                async for chunk in chunks:
                    if text := end.hear(chunk):
                        yield TextDelta(text)
            yield end.finished()


def request_arguments(request: UpstreamRequest) -> dict[str, Any]:
    """The SDK's arguments for a request. Raises UpstreamFailed (unsupported) where it is more than text."""
    refuse_untranslatable(request)
    refuse_choices(request)
    wished = request.chat.parameters
    sampling = request.model.capabilities.sampling
    config = {
        "system_instruction": system_text(request.chat.messages) or None,
        "max_output_tokens": request.max_output_tokens,
        "temperature": wished.temperature if sampling else None,
        "top_p": wished.top_p if sampling else None,
        "top_k": wished.top_k if sampling else None,
        "stop_sequences": list(wished.stop) or None,
        "presence_penalty": wished.presence_penalty if sampling else None,
        "frequency_penalty": wished.frequency_penalty if sampling else None,
        "seed": wished.seed,
        "automatic_function_calling": {"disable": True},
    }
    return {
        "model": request.model.upstream,
        "contents": _contents(request.chat.messages),
        "config": {name: value for name, value in config.items() if value is not None},
    }


@dataclass(slots=True)
class _Told:
    """What the chunks of an answer, or the one of a whole answer, have said about its end so far."""

    reason: str | None = None
    is_blocked: bool = False
    usage: Usage | None = None
    upstream_model: str | None = None

    def hear(self, chunk: "GenerateContentResponse") -> str:
        """The text in a chunk, often none; a model's thoughts are no text."""
        self.upstream_model = told(chunk.model_version) or self.upstream_model
        self.usage = _usage_of(chunk.usage_metadata) or self.usage
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None:
            self.is_blocked = True
        if not chunk.candidates:
            return ""
        candidate = chunk.candidates[0]
        if candidate.finish_reason is not None:
            self.reason = candidate.finish_reason.value
        parts = (candidate.content.parts if candidate.content else None) or ()
        return "".join(told(part.text) for part in parts if part.text and not part.thought)

    def finished(self) -> Finished:
        """Raises UpstreamFailed (malformed) for an answer that has no end."""
        if self.reason is None and not self.is_blocked:
            raise failed_with(Failure.MALFORMED)
        return Finished(reason=self._finish_reason(), usage=self.usage, upstream_model=self.upstream_model)

    def _finish_reason(self) -> FinishReason:
        if self.reason is None or self.reason in _FILTERED:
            return FinishReason.CONTENT_FILTER
        return FinishReason.LENGTH if self.reason == "MAX_TOKENS" else FinishReason.STOP


def _usage_of(reported: Any) -> Usage | None:
    """Google's prompt tokens include the cached ones, as ours do; its thoughts are counted beside the answer."""
    if reported is None or reported.prompt_token_count is None:
        return None
    return Usage(
        input_tokens=reported.prompt_token_count + (reported.tool_use_prompt_token_count or 0),
        output_tokens=(reported.candidates_token_count or 0) + (reported.thoughts_token_count or 0),
        cache_read_tokens=reported.cached_content_token_count or 0,
    )


def _contents(messages: tuple[ChatMessage, ...]) -> list[dict[str, Any]]:
    """Blank turns are refused, and a history must begin with the user."""
    turns = [
        {"role": _ROLES[message.role], "parts": [{"text": message.text}]}
        for message in messages
        if message.role is not ChatRole.SYSTEM and message.text.strip()
    ]
    if not turns or turns[0]["role"] != "user":
        turns.insert(0, {"role": "user", "parts": [{"text": OPENING}]})
    return turns


async def _chunks(client: "Client", arguments: dict[str, Any]) -> "AsyncGenerator[GenerateContentResponse]":
    """The SDK's chunks. Closing its stream would leave the connection open: the response itself is closed here."""
    opened: list[httpx2.Response] = []
    try:
        with noting_responses(opened):
            stream = await client.aio.models.generate_content_stream(**arguments)
            first = await anext(aiter(stream), None)
        if first is not None:
            yield first
            async for chunk in stream:
                yield chunk
    finally:
        for response in opened:
            await response.aclose()


def _refusal_in(error: Exception) -> Refusal | None:
    from google.genai import errors  # loaded already where it raised

    if not isinstance(error, errors.APIError):
        return None
    status = error.code if isinstance(error.code, int) else None
    headers = dict(getattr(error.response, "headers", None) or {})
    message = error.message if isinstance(error.message, str) else ""
    details = [detail for detail in _details(error.details) if isinstance(detail, dict)]
    names = tuple(str(detail["reason"]) for detail in details if "reason" in detail)
    for detail in details:
        if "retryDelay" in detail:  # "34.5s", where others send a header
            headers.setdefault("retry-after", str(detail["retryDelay"]).removesuffix("s"))
    return Refusal(status=status, message=message, names=names, headers=headers)


def _details(body: Any) -> list[Any]:
    error = body.get("error", body) if isinstance(body, dict) else {}
    details = error.get("details") if isinstance(error, dict) else None
    return details if isinstance(details, list) else []
