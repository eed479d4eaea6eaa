"""Chat completions as OpenAI and the servers compatible with it speak them, on the stock SDK's client."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from src.domain.completion.model import Dropped, Reply, UpstreamEvent, UpstreamRequest
from src.domain.completion.ports import ChatModel
from src.integrations.llm.failures import Refusal, upstream_errors
from src.integrations.llm.guarded_client import sooner
from src.integrations.llm.openai.reply import AnswerReader, reply_of
from src.integrations.llm.openai.request import request_arguments
from src.integrations.llm.relay_failures import message_in

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_PATH = "/chat/completions"


class OpenAIChat(ChatModel):
    """`client` gives the shared SDK client; `cap_field` is the server's name for the output cap."""

    def __init__(self, client: "Callable[[], Awaitable[AsyncOpenAI]]", *, cap_field: str) -> None:
        self._client = client
        self._cap_field = cap_field

    async def complete(self, request: UpstreamRequest) -> Reply:
        body, dropped = request_arguments(request, self._cap_field)
        options = cast("Any", sooner(request))
        with upstream_errors(_refusal_in):
            client = await self._client()
            # As plain JSON: the SDK checks nothing, and its models have no place for what other servers add.
            answer = await client.post(_PATH, cast_to=object, body=body, options=options)
            return replace(reply_of(answer), dropped=dropped)

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        body, dropped = request_arguments(request, self._cap_field)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        if dropped:
            yield Dropped(dropped)
        reader, options = AnswerReader(), cast("Any", sooner(request))
        with upstream_errors(_refusal_in):
            from openai import AsyncStream

            client = await self._client()
            stream = await client.post(
                _PATH, cast_to=object, body=body, options=options, stream=True, stream_cls=AsyncStream[object]
            )
            async with stream:
                async for chunk in stream:
                    for delta in reader.chunk(chunk):
                        yield delta
            yield reader.finished()


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
    return message_in(error.body)


def _names(error: "Any") -> tuple[str, ...]:
    return tuple(name for name in (error.code, error.type) if isinstance(name, str))


def _status_in(body: object) -> int | None:
    """Compatible servers put the status into the error itself."""
    code = body.get("code") if isinstance(body, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else None
