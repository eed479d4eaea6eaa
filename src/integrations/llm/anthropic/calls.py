"""Anthropic's messages, on the stock SDK."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from src.domain.completion.model import Dropped, Reply, UpstreamEvent, UpstreamRequest
from src.domain.completion.ports import ChatModel
from src.integrations.llm.anthropic.reply import AnswerReader, reply_of
from src.integrations.llm.anthropic.request import asked_of
from src.integrations.llm.failures import Refusal, upstream_errors
from src.integrations.llm.guarded_client import sooner

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic


class AnthropicMessages(ChatModel):
    """`client` gives the shared SDK client."""

    def __init__(self, client: "Callable[[], Awaitable[AsyncAnthropic]]") -> None:
        self._client = client

    async def complete(self, request: UpstreamRequest) -> Reply:
        asked = asked_of(request)
        with upstream_errors(_refusal_in):
            client = await self._client()
            reply = reply_of(await client.messages.create(**asked.arguments, **sooner(request), stream=False))
            return replace(reply, dropped=asked.dropped)

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        asked = asked_of(request)
        answer = AnswerReader()
        if asked.dropped:
            yield Dropped(asked.dropped)
        with upstream_errors(_refusal_in):
            client = await self._client()
            stream = await client.messages.create(**asked.arguments, **sooner(request), stream=True)
            async with stream:
                async for event in stream:
                    for delta in answer.hear(event):
                        yield delta
            yield answer.finished()


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
