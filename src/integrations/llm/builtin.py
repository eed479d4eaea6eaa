"""The built-in model: the local server's where it runs, else a fallback that says that it is no model."""

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from src.domain.catalog.model import Usage
from src.domain.completion.deltas import TextDelta
from src.domain.completion.model import (
    ChatRequest,
    ChatRole,
    Dropped,
    Failure,
    Finished,
    FinishReason,
    Reply,
    UpstreamEvent,
    UpstreamFailed,
    UpstreamRequest,
)
from src.domain.completion.ports import ChatModel
from src.integrations.llm.builtin_server import BuiltinServer
from src.integrations.llm.translation import left_out, refuse_untranslatable

FALLBACK_NAME = "builtin-fallback"
SUMMARY_CHARS = 120

_WORD = re.compile(r"\s*\S+")


class BuiltinModel(ChatModel):
    """Decides at every call: the server may have crashed, or come back. `served_at` makes the model behind a URL."""

    def __init__(self, server: BuiltinServer, served_at: Callable[[str], ChatModel]) -> None:
        self._server = server
        self._served_at = served_at

    async def complete(self, request: UpstreamRequest) -> Reply:
        refuse_untranslatable(request)  # its server ignores tools, and fails when it is shown images
        base_url = await self._server.base_url()
        try:
            return await self._at(base_url).complete(request)
        except UpstreamFailed as failure:
            base_url = await self._after(failure, base_url)
        return await self._at(base_url).complete(request)

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        refuse_untranslatable(request)
        base_url = await self._server.base_url()
        try:
            async with aclosing(self._at(base_url).stream(request)) as events:
                async for event in events:
                    yield event
            return
        except UpstreamFailed as failure:
            base_url = await self._after(failure, base_url)
        async with aclosing(self._at(base_url).stream(request)) as events:
            async for event in events:
                yield event

    def _at(self, base_url: str | None) -> ChatModel:
        return FallbackModel() if base_url is None else self._served_at(base_url)

    async def _after(self, failure: UpstreamFailed, base_url: str | None) -> str | None:
        """Where to try once more, when a crashed server could not be reached; other failures are raised."""
        # A dying process closes its socket before the system tells that it has ended.
        if failure.kind is not Failure.CONNECT or base_url is None:
            raise failure
        await self._server.discard(base_url)
        return await self._server.base_url()


class FallbackModel(ChatModel):
    """Answers the same to the same question, word by word. Its tokens are words."""

    async def complete(self, request: UpstreamRequest) -> Reply:
        words = _answer_words(request)
        return Reply(text="".join(words), finished=_finished(request, len(words)), dropped=_left_out(request))

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        words = _answer_words(request)
        if dropped := _left_out(request):
            yield Dropped(dropped)
        for word in words:
            yield TextDelta(word)
        yield _finished(request, len(words))


def _left_out(request: UpstreamRequest) -> tuple[str, ...]:
    """Everything: it says the same however it is asked."""
    return left_out(request, frozenset())


def _answer_words(request: UpstreamRequest) -> list[str]:
    return _WORD.findall(_answer(request.chat))[: request.max_output_tokens]


def _answer(chat: ChatRequest) -> str:
    asked = next((message.text for message in reversed(chat.messages) if message.role is ChatRole.USER), "")
    question = " ".join(asked[: 8 * SUMMARY_CHARS].split())
    if len(question) > SUMMARY_CHARS:
        question = question[:SUMMARY_CHARS].rstrip() + "..."
    return (
        "This is the gateway's built-in fallback: no language model is installed here, so nobody thought about this "
        f'answer. You asked: "{question}". Configure a provider, or install the local model, for a real answer.'
    )


def _finished(request: UpstreamRequest, output_words: int) -> Finished:
    prompt_words = sum(len(message.text.split()) for message in request.chat.messages)
    was_cut = output_words < len(_WORD.findall(_answer(request.chat)))
    return Finished(
        reason=FinishReason.LENGTH if was_cut else FinishReason.STOP,
        usage=Usage(input_tokens=prompt_words, output_tokens=output_words),
        upstream_model=FALLBACK_NAME,
    )
