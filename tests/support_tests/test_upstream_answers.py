"""Thinking, refusals and what nobody knows yet, as chat completions, Anthropic and Google send them."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import types as google_types

from tests.support.upstream import Answer, ToolCall, Upstream, signature_of

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]
WEATHER = ToolCall(name="weather", arguments={"city": "Riga"})
THOUGHTS: Any = {"thinking_config": {"include_thoughts": True}}
THINKER = Answer(text="two words", thinking="let me see", redacted="hidden", tool_calls=(WEATHER, WEATHER))
UNKNOWN = Answer(
    text="a",
    extra_fields={"x_mood": "good"},
    extra_items=({"type": "x_dream", "of": ["sheep"]},),
    extra_events=({"type": "x_dreaming", "depth": 3},),
)


async def lines(http: httpx2.AsyncClient, path: str, **body: Any) -> str:
    reply = await http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.text


class TestChat:
    async def test_reasoning_is_counted_and_shown_only_where_a_server_shows_it(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI
    ) -> None:
        upstream.script(Answer(text="a", thinking="b c"), Answer(text="a", thinking="b c", shows_reasoning=True))
        hidden = await openai_client.chat.completions.create(model="m", messages=HELLO)
        shown = await openai_client.chat.completions.create(model="m", messages=HELLO)
        assert "reasoning_content" not in hidden.choices[0].message.model_dump()
        assert shown.choices[0].message.model_dump()["reasoning_content"] == "b c"
        assert hidden.usage is not None
        assert hidden.usage.completion_tokens_details is not None
        assert (hidden.usage.completion_tokens, hidden.usage.completion_tokens_details.reasoning_tokens) == (3, 2)

    async def test_reasoning_is_streamed_before_the_text(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI
    ) -> None:
        upstream.script(Answer(text="a", thinking="b c", shows_reasoning=True))
        stream = await openai_client.chat.completions.create(model="m", messages=HELLO, stream=True, n=2)
        deltas = [chunk.choices[0].delta.model_dump() async for chunk in stream if chunk.choices[0].index == 1]
        said = [delta.get("reasoning_content") or delta["content"] for delta in deltas]
        assert said == ["", "b ", "c", "a", None]

    async def test_a_refusal_has_no_content(self, upstream: Upstream, openai_client: openai.AsyncOpenAI) -> None:
        upstream.always(Answer(refusal="I will not"))
        reply = await openai_client.chat.completions.create(model="m", messages=HELLO)
        assert (reply.choices[0].message.content, reply.choices[0].message.refusal) == (None, "I will not")
        stream = await openai_client.chat.completions.create(model="m", messages=HELLO, stream=True)
        assert "".join([chunk.choices[0].delta.refusal or "" async for chunk in stream]) == "I will not"

    async def test_what_nobody_knows_is_sent_too(self, upstream: Upstream, http: httpx2.AsyncClient) -> None:
        upstream.always(UNKNOWN)
        whole = await lines(http, "/v1/chat/completions", model="m", messages=HELLO)
        streamed = await lines(http, "/v1/chat/completions", model="m", messages=HELLO, stream=True)
        assert '"x_mood":"good"' in whole
        assert streamed.count('"x_mood":"good"') == 3
        assert 'data: {"type":"x_dreaming","depth":3}\n\n' in streamed


class TestAnthropic:
    OPTIONS: dict[str, Any] = {"model": "c", "max_tokens": 4000, "messages": HELLO}

    async def test_thinking_comes_before_text_and_calls(
        self, upstream: Upstream, anthropic_client: anthropic.AsyncAnthropic
    ) -> None:
        upstream.always(THINKER)
        whole = await anthropic_client.messages.create(**self.OPTIONS)
        async with anthropic_client.messages.stream(**self.OPTIONS) as stream:
            streamed = await stream.get_final_message()
        for reply in (whole, streamed):
            kinds = [block.type for block in reply.content]
            assert kinds == ["thinking", "redacted_thinking", "text", "tool_use", "tool_use"]
            thought, hidden = reply.content[:2]
            assert isinstance(thought, anthropic.types.ThinkingBlock)
            assert isinstance(hidden, anthropic.types.RedactedThinkingBlock)
            assert (thought.thinking, thought.signature) == ("let me see", signature_of("let me see"))
            assert hidden.data == "hidden"
            assert reply.usage.output_tokens_details is not None
            assert reply.usage.output_tokens_details.thinking_tokens == 3

    async def test_thinking_is_streamed_in_pieces_and_then_signed(
        self, upstream: Upstream, anthropic_client: anthropic.AsyncAnthropic
    ) -> None:
        upstream.always(Answer(text="a", thinking="b c", signature="sig-own"))
        events: list[Any] = [
            event async for event in await anthropic_client.messages.create(**self.OPTIONS, stream=True)
        ]
        assert events[1].content_block.model_dump() == {"type": "thinking", "thinking": "", "signature": ""}
        assert [event.delta.type for event in events[2:5]] == ["thinking_delta", "thinking_delta", "signature_delta"]
        assert events[4].delta.signature == "sig-own"
        assert [event.index for event in events if event.type == "content_block_start"] == [0, 1]

    async def test_thinking_that_is_not_to_be_displayed_is_signed_all_the_same(
        self, upstream: Upstream, anthropic_client: anthropic.AsyncAnthropic
    ) -> None:
        upstream.always(Answer(text="a", thinking="b c"))
        quiet: Any = {"type": "adaptive", "display": "omitted"}
        reply = await anthropic_client.messages.create(**self.OPTIONS, thinking=quiet)
        [thought, _] = reply.content
        assert isinstance(thought, anthropic.types.ThinkingBlock)
        assert (thought.thinking, thought.signature) == ("", signature_of("b c"))

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_refusal_has_its_details(
        self, upstream: Upstream, anthropic_client: anthropic.AsyncAnthropic, stream: bool
    ) -> None:
        upstream.always(Answer(refusal="I will not"))
        if stream:
            async with anthropic_client.messages.stream(**self.OPTIONS) as events:
                reply: Any = await events.get_final_message()
        else:
            reply = await anthropic_client.messages.create(**self.OPTIONS)
        assert (reply.content, reply.stop_reason) == ([], "refusal")
        assert reply.stop_details.explanation == "I will not"

    async def test_what_nobody_knows_is_sent_too(self, upstream: Upstream, http: httpx2.AsyncClient) -> None:
        upstream.always(UNKNOWN)
        whole = (await http.post("/v1/messages", json=self.OPTIONS)).json()
        assert (whole["x_mood"], whole["content"][1]) == ("good", {"type": "x_dream", "of": ["sheep"]})
        streamed = await lines(http, "/v1/messages", **self.OPTIONS, stream=True)
        assert '"index":1,"content_block":{"type":"x_dream","of":["sheep"]}' in streamed
        assert 'event: x_dreaming\ndata: {"type":"x_dreaming","depth":3}\n\n' in streamed


class TestGoogle:
    async def test_thoughts_come_before_text_and_calls_when_they_are_included(
        self, upstream: Upstream, google_client: genai.Client
    ) -> None:
        upstream.always(THINKER)
        ask: Any = {"model": "g", "contents": "hello"}
        whole = await google_client.aio.models.generate_content(**ask, config=THOUGHTS)
        hidden = await google_client.aio.models.generate_content(**ask)
        parts = _parts(whole)
        assert [(part.text, part.thought) for part in parts[:2]] == [("let me see", True), ("two words", None)]
        assert [part.function_call is not None for part in parts] == [False, False, True, True]
        assert [part.thought_signature for part in parts[2:]] == [signature_of("let me see").encode(), None]
        assert len({part.function_call.id for part in parts[2:] if part.function_call}) == 2
        assert not any(part.thought for part in _parts(hidden))
        for reply in (whole, hidden):
            assert reply.usage_metadata is not None
            assert reply.usage_metadata.thoughts_token_count == 3

    async def test_thoughts_are_streamed_and_the_signature_is_on_the_end_of_the_text(
        self, upstream: Upstream, google_client: genai.Client
    ) -> None:
        upstream.always(Answer(text="a", thinking="b c"))
        stream = await google_client.aio.models.generate_content_stream(model="g", contents="x", config=THOUGHTS)
        parts = [part async for reply in stream for part in _parts(reply)]
        assert [(part.text, part.thought) for part in parts] == [("b ", True), ("c", True), ("a", None), ("", None)]
        assert parts[-1].thought_signature == signature_of("b c").encode()

    async def test_a_refusal_is_a_reason_to_finish(
        self, upstream: Upstream, google_client: genai.Client, http: httpx2.AsyncClient
    ) -> None:
        upstream.always(Answer(refusal="I will not"))
        reply = await google_client.aio.models.generate_content(model="g", contents="x")
        [candidate] = reply.candidates or []
        assert candidate.finish_reason == google_types.FinishReason.SAFETY
        assert not reply.text
        body = {"contents": [{"parts": [{"text": "x"}]}]}
        assert '"finishMessage":"I will not"' in await lines(http, "/v1/models/g:generateContent", **body)

    async def test_what_nobody_knows_is_sent_too(self, upstream: Upstream, http: httpx2.AsyncClient) -> None:
        upstream.always(UNKNOWN)
        body: dict[str, Any] = {"contents": [{"parts": [{"text": "x"}]}]}
        whole = (await http.post("/v1beta/models/g:generateContent", json=body)).json()
        assert whole["x_mood"] == "good"
        assert whole["candidates"][0]["content"]["parts"][1] == {"type": "x_dream", "of": ["sheep"]}
        streamed = await lines(http, "/v1/models/g:streamGenerateContent?alt=sse", **body)
        assert streamed.count('"x_mood":"good"') == 3
        assert 'data: {"type":"x_dreaming","depth":3}\r\n\r\n' in streamed


def _parts(reply: Any) -> list[Any]:
    [candidate] = reply.candidates
    return list(candidate.content.parts)
