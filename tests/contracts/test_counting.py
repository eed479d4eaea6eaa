"""A provider's own count of a prompt, and everything that may come instead."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from src.domain.catalog.model import Model, WireFormat
from src.domain.completion.model import ChatRequest, Failure, UpstreamFailed, UpstreamRequest, WireBody
from src.integrations.llm import counting
from src.integrations.llm.build import ProviderModels
from src.integrations.llm.compatible_servers import STANDARD_PROVIDERS
from tests.contracts.relaying import raw_server, writing
from tests.support.upstream import Upstream

KEY = "sk-secret-of-the-operator"
MODEL = Model(name="public", provider="anthropic", upstream="claude-x", context_window=1000, max_output=100)
ANTHROPIC = next(provider for provider in STANDARD_PROVIDERS if provider.name == "anthropic")
SAID: list[Any] = [{"role": "user", "content": "one two three"}]


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as made:
        yield made


def asking(wire_format: WireFormat = WireFormat.MESSAGES, **fields: Any) -> UpstreamRequest:
    headers = {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b"}
    wire = WireBody(format=wire_format, body={"model": "public", "messages": SAID, **fields}, headers=headers)
    return UpstreamRequest(model=MODEL, chat=ChatRequest(messages=(), wire=wire))


async def count(url: str, request: UpstreamRequest | None = None, key: str = KEY) -> int:
    models = ProviderModels({"ANTHROPIC_API_KEY": key}, {"ANTHROPIC_BASE_URL": url})
    try:
        told = await models.count_prompt(request or asking(), ANTHROPIC)
    finally:
        await models.close()
    assert told.body["input_tokens"] == told.input_tokens
    return told.input_tokens


async def failure_of(url: str, request: UpstreamRequest | None = None, key: str = KEY) -> Failure:
    with pytest.raises(UpstreamFailed) as caught:
        await count(url, request, key)
    assert "://" not in caught.value.message
    return caught.value.kind


async def test_the_clients_body_and_headers_are_asked_with(upstream: Upstream) -> None:
    assert await count(upstream.anthropic_base_url, asking(x_new={"a": 1})) == 3
    (sent,) = upstream.requests
    assert sent.path == "/v1/messages/count_tokens"
    assert sent.json == {"model": "claude-x", "messages": SAID, "x_new": {"a": 1}}
    assert sent.headers["x-api-key"] == KEY
    assert (sent.headers["anthropic-version"], sent.headers["anthropic-beta"]) == ("2026-10-21", "a,b")


async def test_what_the_provider_refuses_is_a_failure(upstream: Upstream) -> None:
    assert await failure_of(upstream.anthropic_base_url, asking(nonsense=1)) is Failure.MALFORMED


async def test_a_format_that_nobody_counts_and_a_missing_key_are_failures(upstream: Upstream) -> None:
    url = upstream.anthropic_base_url
    assert await failure_of(url, asking(WireFormat.CHAT_COMPLETIONS)) is Failure.UNSUPPORTED
    assert await failure_of(url, UpstreamRequest(model=MODEL, chat=ChatRequest(messages=()))) is Failure.UNSUPPORTED
    assert await failure_of(url, key="") is Failure.CREDENTIALS
    assert upstream.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>",
        b"{}",
        b"[1]",
        b'{"input_tokens": "5"}',
        b'{"input_tokens": true}',
        b'{"input_tokens": -1}',
        b'{"input_tokens": 1e300}',
        b'{"input_tokens": 5, "more": "' + b"x" * (counting.MAX_COUNT_BYTES + 1) + b'"}',
    ],
    ids=lambda answer: str(answer[:25]),
)
async def test_what_is_no_count_is_a_failure(answer: bytes) -> None:
    async with raw_server(writing(answer), head="content-type: application/json") as url:
        assert await failure_of(url) is Failure.MALFORMED


@pytest.mark.parametrize("status", [302, 400, 404, 500])
async def test_a_count_comes_with_success_alone(status: int) -> None:
    async with raw_server(writing(b'{"input_tokens": 5}'), "content-type: application/json", status) as url:
        assert await failure_of(url) is Failure.MALFORMED


async def test_nobody_there_and_nobody_who_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await failure_of("http://127.0.0.1:1") is Failure.CONNECT
    monkeypatch.setattr(counting, "COUNT_TIMEOUT_S", 0.05)

    async with raw_server(writing(b"", pause_s=5)) as url:
        assert await failure_of(url) is Failure.TIMEOUT
