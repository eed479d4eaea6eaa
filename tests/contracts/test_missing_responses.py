"""Servers in OpenAI's place that have no Responses API: they are spoken to by chat completions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest
import pytest_asyncio

from src.domain.catalog.model import Model, Provider, WireFormat
from src.domain.completion.model import (
    ChatMessage,
    ChatRequest,
    ChatRole,
    Failure,
    Finished,
    UpstreamEvent,
    UpstreamFailed,
    UpstreamRequest,
    WireBody,
)
from src.integrations.llm import compatible_servers
from src.integrations.llm.build import ProviderModels
from src.integrations.llm.compatible_servers import STANDARD_PROVIDERS
from src.integrations.llm.lanes import ASKED_AGAIN_S, Missing
from tests.support.upstream import CutAfter, ErrorEvent, Fail, Upstream

OPENAI = next(provider for provider in STANDARD_PROVIDERS if provider.name == "openai")
MODEL = Model(name="m", provider="openai", upstream="gpt-9", context_window=9000, max_output=900)
RESPONSES, CHAT = "/v1/responses", "/v1/chat/completions"


def asking(*, stream: bool) -> UpstreamRequest:
    body = {"model": "m", "input": "hello there", "store": False, "stream": stream}
    wire = WireBody(format=WireFormat.RESPONSES, body=body, wants_usage=True)
    said = (ChatMessage(role=ChatRole.USER, text="hello there"),)
    return UpstreamRequest(model=MODEL, chat=ChatRequest(messages=said, stream=stream, wire=wire))


@pytest_asyncio.fixture
async def models(upstream: Upstream) -> AsyncIterator[ProviderModels]:
    made = ProviderModels(
        secrets={"OPENAI_API_KEY": "sk-secret-of-the-operator"}, base_urls={"OPENAI_BASE_URL": upstream.openai_base_url}
    )
    yield made
    await made.close()


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def events_of(models: ProviderModels, provider: Provider, *, stream: bool) -> list[UpstreamEvent]:
    model = models.chat_model(MODEL, provider)
    if not stream:
        return [(await model.complete(asking(stream=False))).finished]
    async with aclosing(model.stream(asking(stream=True))) as events:
        return [event async for event in events]


def paths_of(upstream: Upstream) -> list[str]:
    return [recorded.path for recorded in upstream.requests]


async def test_it_is_translated_and_the_server_is_not_asked_in_vain_again(
    upstream: Upstream, models: ProviderModels, stream: bool
) -> None:
    upstream.lacking.add(RESPONSES)
    for _ in range(3):
        events = await events_of(models, OPENAI, stream=stream)
        assert isinstance(events[-1], Finished)
        assert events[-1].wire is None
    assert paths_of(upstream) == [RESPONSES, CHAT, CHAT, CHAT]


async def test_a_server_that_has_it_is_relayed_to(upstream: Upstream, models: ProviderModels, stream: bool) -> None:
    for _ in range(2):
        events = await events_of(models, OPENAI, stream=stream)
        assert isinstance(events[-1], Finished)
        assert events[-1].wire is not None
    assert paths_of(upstream) == [RESPONSES, RESPONSES]


async def test_what_an_operator_says_is_believed(upstream: Upstream, models: ProviderModels, stream: bool) -> None:
    upstream.lacking.add(RESPONSES)
    with pytest.raises(UpstreamFailed) as failed:
        await events_of(models, replace(OPENAI, responses=True), stream=stream)
    assert failed.value.kind is Failure.UNKNOWN_MODEL
    assert paths_of(upstream) == [RESPONSES]


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
async def test_other_refusals_stand(upstream: Upstream, models: ProviderModels, stream: bool, status: int) -> None:
    upstream.always(Fail(status=status))
    with pytest.raises(UpstreamFailed):
        await events_of(models, OPENAI, stream=stream)
    assert paths_of(upstream) == [RESPONSES]


async def test_an_unknown_model_is_told_as_such_and_nothing_is_remembered(
    upstream: Upstream, models: ProviderModels, stream: bool
) -> None:
    upstream.script(Fail(status=404), Fail(status=404))
    with pytest.raises(UpstreamFailed) as failed:
        await events_of(models, OPENAI, stream=stream)
    assert failed.value.kind is Failure.UNKNOWN_MODEL
    await events_of(models, OPENAI, stream=stream)
    assert paths_of(upstream) == [RESPONSES, CHAT, RESPONSES]


async def test_openai_itself_has_it_and_says_404_of_what_a_request_names(
    upstream: Upstream, models: ProviderModels, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(compatible_servers, "_OPENAIS_HOSTS", ("127.0.0.1",))
    upstream.script(Fail(status=404))
    with pytest.raises(UpstreamFailed):
        await events_of(models, OPENAI, stream=stream)
    await events_of(models, OPENAI, stream=stream)
    assert paths_of(upstream) == [RESPONSES, RESPONSES]


@pytest.mark.parametrize("behaviour", [CutAfter(2), ErrorEvent(2, status=404)], ids=["cut", "an error of its own"])
async def test_a_stream_that_has_begun_is_never_begun_again(
    upstream: Upstream, models: ProviderModels, behaviour: CutAfter | ErrorEvent
) -> None:
    upstream.always(behaviour)
    async with aclosing(models.chat_model(MODEL, OPENAI).stream(asking(stream=True))) as events:
        assert await anext(events)
        with pytest.raises(UpstreamFailed):
            _ = [event async for event in events]
    assert paths_of(upstream) == [RESPONSES]


def test_after_a_while_it_is_asked_again() -> None:
    now = 0.0
    missing = Missing(clock=lambda: now)
    missing.add("a")
    assert "a" in missing
    assert "b" not in missing
    now = ASKED_AGAIN_S
    assert "a" not in missing
