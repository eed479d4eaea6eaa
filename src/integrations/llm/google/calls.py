"""Google's generateContent, on the stock SDK."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import httpx2

from src.domain.completion.model import Dropped, Reply, UpstreamEvent, UpstreamRequest
from src.domain.completion.ports import ChatModel
from src.integrations.llm.failures import Refusal, upstream_errors
from src.integrations.llm.google.reply import Told, reply_of
from src.integrations.llm.google.request import request_arguments
from src.integrations.llm.guarded_client import noting_responses
from src.integrations.llm.relay_failures import delay_in, reasons_in

if TYPE_CHECKING:
    from google.genai import Client
    from google.genai.types import GenerateContentResponse


class GoogleGenAI(ChatModel):
    """`client` gives the shared SDK client."""

    def __init__(self, client: "Callable[[], Awaitable[Client]]") -> None:
        self._client = client

    async def complete(self, request: UpstreamRequest) -> Reply:
        arguments, dropped = request_arguments(request)
        with upstream_errors(_refusal_in):
            client = await self._client()
            return reply_of(await client.aio.models.generate_content(**arguments), dropped)

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        arguments, dropped = request_arguments(request)
        end = Told()
        if dropped:
            yield Dropped(dropped)
        with upstream_errors(_refusal_in):
            client = await self._client()
            async with aclosing(_chunks(client, arguments)) as chunks:
                async for chunk in chunks:
                    for delta in end.hear(chunk):
                        yield delta
            yield end.finished()


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
    said = error.details.get("error", error.details) if isinstance(error.details, dict) else {}
    message = error.message if isinstance(error.message, str) else ""
    return Refusal(status=status, message=message, names=reasons_in(said), headers={**delay_in(said), **headers})
