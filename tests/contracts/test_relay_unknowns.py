"""What no gateway knows yet passes the relay lane of OpenAI's chat completions, byte for byte, both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from src.domain.catalog.model import Usage
from src.domain.completion.model import FinishReason
from tests.contracts.relaying import OPENAI, USAGE, Relays, asking, joined, raw_server, relays, sse, streamed, writing
from tests.support.upstream import Upstream

SCHEMA = {"type": "object", "properties": {}, "$defs": {}}
WISHES: dict[str, Any] = {
    "x_deep": {"of": [1, None, {"the": "future"}]},
    "tools": [
        {"type": "function", "function": {"name": "f", "parameters": SCHEMA, "x": 1}},
        {"type": "web_search", "x_place": "here"},
    ],
    "tool_choice": "auto",
    "logprobs": True,
    "top_logprobs": 2,
    "reasoning_effort": "high",
    "service_tier": "flex",
    "metadata": {"a": "ü"},
}
CHUNKS: list[Any] = [
    {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "reasoning_content": "hm"}}]},
    {"id": "c", "choices": [{"index": 1, "delta": {"reasoning_details": [{"type": "reasoning.text", "text": "so"}]}}]},
    {
        "id": "c",
        "choices": [
            {
                "index": 0,
                "delta": {"tool_calls": [{"index": 0, "id": "call_1", "x": 1, "function": {"name": "f"}}]},
                "logprobs": {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": []}]},
            }
        ],
    },
    {"id": "c", "choices": [{"index": 0, "delta": {"x_of_the_future": {"a": 1}}}], "x_chunk": [None, 1.50]},
    {"object": "x.of.the.future", "anything": True},
    {"id": "c", "choices": [{"index": 1, "delta": {}, "finish_reason": "of_the_future"}]},
    {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], "moderation": {"x": 1}},
]


@pytest_asyncio.fixture
async def relay_to() -> AsyncIterator[Relays]:
    async with relays() as make:
        yield make


async def test_every_wish_is_sent_as_it_is(upstream: Upstream, relay_to: Relays) -> None:
    request = asking(OPENAI, stream=True, **WISHES)
    assert request.chat.wire is not None
    await streamed(relay_to(OPENAI, upstream.url), request)
    sent = upstream.requests[0].json
    assert sent == {**request.chat.wire.body, "model": "upstream-name", "stream_options": {"include_usage": True}}
    assert sent.items() >= WISHES.items()


@pytest.mark.parametrize("wants_usage", [False, True])
async def test_every_chunk_comes_back_as_it_was(relay_to: Relays, wants_usage: bool) -> None:
    before, usage, after = b": a comment\n\n" + sse(*CHUNKS), sse({**USAGE, "x_cost": 0.10}), sse(b"[DONE]")
    async with raw_server(writing(before, usage, after)) as url:
        chunks, finished = await streamed(
            relay_to(OPENAI, url), asking(OPENAI, stream=True, wants_usage=wants_usage, n=2)
        )
    assert joined(chunks) + (finished.wire or b"") == before + (usage if wants_usage else b"") + after
    assert finished.usage == Usage(input_tokens=7, output_tokens=2)
    assert finished.reason is FinishReason.STOP


async def test_a_whole_answer_comes_back_as_it_was(relay_to: Relays) -> None:
    message = {
        "role": "assistant", "content": None, "reasoning_content": "hm", "x": [1.50],
        "tool_calls": [{"id": "c", "type": "x_type", "x_type": {}}], "annotations": [{"type": "x"}],
    }  # fmt: skip
    choices = [{"index": n, "message": message, "logprobs": {"x": 1}, "finish_reason": "stop"} for n in range(2)]
    data = orjson.dumps({"choices": choices, "usage": {"prompt_tokens": 1, "completion_tokens": 2, "x": 3}, "y": "ü"})
    head = f"content-type: application/json\r\ncontent-length: {len(data)}"
    async with raw_server(writing(data), head) as url:
        reply = await relay_to(OPENAI, url).complete(asking(OPENAI, n=2))
    assert reply.finished.wire == data
