"""A model that must be reached sooner than others is given up sooner, in every lane that connects."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from src.domain.catalog.model import Deadlines, Model, Provider, ProviderKind, WireFormat
from src.domain.completion.model import (
    ChatMessage,
    ChatRequest,
    ChatRole,
    Failure,
    UpstreamFailed,
    UpstreamRequest,
    WireBody,
)
from src.domain.completion.ports import ChatModel
from src.integrations.llm.build import ProviderModels

PATIENCE_S = 30.0
SOON_S = 0.2
BODY = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hello?"}]}
QUEUE = 8


@pytest.fixture
def crowded_port() -> Iterator[int]:
    """Where connections wait for ever: nobody accepts, and the line is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(QUEUE):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("relayed", [False, True], ids=["translated", "relayed"])
@pytest.mark.parametrize("kind", [ProviderKind.OPENAI, ProviderKind.ANTHROPIC])
async def test_who_cannot_be_reached_soon_is_given_up(
    kind: ProviderKind, relayed: bool, stream: bool, crowded_port: int
) -> None:
    upstreams = ProviderModels({"A_KEY": "key"}, connect_timeout_s=PATIENCE_S, read_timeout_s=PATIENCE_S)
    address = f"http://127.0.0.1:{crowded_port}/v1"
    provider = Provider(name="far", kind=kind, base_url=address, api_key_env="A_KEY")
    deadlines = Deadlines(connect_s=SOON_S)
    model = Model(name="m", provider="far", upstream="m", context_window=100, max_output=10, deadlines=deadlines)
    wire_format = WireFormat.MESSAGES if kind is ProviderKind.ANTHROPIC else WireFormat.CHAT_COMPLETIONS
    wire = WireBody(format=wire_format, body=BODY) if relayed else None
    chat = ChatRequest(messages=(ChatMessage(role=ChatRole.USER, text="Hello?"),), stream=stream, wire=wire)
    request = UpstreamRequest(model=model, chat=chat)
    try:
        async with asyncio.timeout(PATIENCE_S / 2):
            with pytest.raises(UpstreamFailed) as caught:
                await called(upstreams.chat_model(model, provider), request)
    finally:
        await upstreams.close()
    assert caught.value.kind is Failure.CONNECT


async def called(model: ChatModel, request: UpstreamRequest) -> None:
    if not request.chat.stream:
        await model.complete(request)
        return
    async for _ in model.stream(request):
        pass
