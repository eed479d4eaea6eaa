"""The stock SDKs find nothing to complain about in the scripted provider, and its faults reach them as faults."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import errors as google_errors
from google.genai import types as google_types

from tests.support.upstream import (
    Answer,
    Behaviour,
    CutAfter,
    ErrorEvent,
    Fail,
    Garbage,
    Hang,
    MalformedChunk,
    ResetBeforeAnswer,
    ToolCall,
    Upstream,
    Usage,
)

QUESTION: list[Any] = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello there"}]
WEATHER = ToolCall(name="weather", arguments={"city": "Riga"})


async def openai_stream(client: openai.AsyncOpenAI, **options: Any) -> list[Any]:
    stream = await client.chat.completions.create(model="gpt-4o", messages=QUESTION, stream=True, **options)
    return [chunk async for chunk in stream]


async def anthropic_stream(client: anthropic.AsyncAnthropic) -> list[Any]:
    stream = await client.messages.create(
        model="claude-sonnet-5", max_tokens=50, system="be brief", messages=QUESTION[1:], stream=True
    )
    return [event async for event in stream]


async def google_stream(client: genai.Client) -> list[Any]:
    stream = await client.aio.models.generate_content_stream(model="gemini-2.5-flash", contents="hello there")
    return [reply async for reply in stream]


class TestOpenAI:
    async def test_an_unscripted_answer_echoes_and_counts_words(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI
    ) -> None:
        reply = await openai_client.chat.completions.create(model="gpt-4o", messages=QUESTION)
        assert reply.choices[0].message.content == "echo: hello there"
        assert reply.choices[0].finish_reason == "stop"
        assert reply.usage is not None
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (4, 3, 7)
        [seen] = upstream.requests
        assert (seen.path, seen.model, seen.json["messages"]) == ("/v1/chat/completions", "gpt-4o", QUESTION)
        assert seen.headers["AUTHORIZATION"] == "Bearer sk"
        assert seen.finished.is_set()
        assert not seen.disconnected

    async def test_usage_is_streamed_only_when_asked_for(self, openai_client: openai.AsyncOpenAI) -> None:
        plain = await openai_stream(openai_client)
        asked = await openai_stream(openai_client, stream_options={"include_usage": True})
        assert plain[0].choices[0].delta.role == "assistant"
        assert "".join(c.choices[0].delta.content or "" for c in plain) == "echo: hello there"
        assert all(c.usage is None for c in plain)
        assert plain[-1].choices[0].finish_reason == "stop"
        assert asked[-1].choices == []
        assert asked[-1].usage.total_tokens == 7

    async def test_tool_calls_arrive_whole_and_in_pieces(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI
    ) -> None:
        upstream.always(Answer(tool_calls=(WEATHER,)))
        reply = await openai_client.chat.completions.create(model="gpt-4o", messages=QUESTION)
        [call] = reply.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert json.loads(call.function.arguments) == {"city": "Riga"}
        chunks = await openai_stream(openai_client)
        deltas = [d for c in chunks for d in c.choices[0].delta.tool_calls or []]
        assert "".join(d.function.arguments for d in deltas) == '{"city":"Riga"}'
        assert chunks[-1].choices[0].finish_reason == "tool_calls"

    async def test_the_output_cap_cuts_the_answer(self, upstream: Upstream, openai_client: openai.AsyncOpenAI) -> None:
        upstream.script(Answer(text="one two three four"), Answer(text="one two three four", ignores_cap=True))
        cut = await openai_client.chat.completions.create(model="m", messages=QUESTION, max_completion_tokens=2)
        whole = await openai_client.chat.completions.create(model="m", messages=QUESTION, max_completion_tokens=2)
        assert cut.choices[0].message.content == "one two "
        assert cut.choices[0].finish_reason == "length"
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 4

    async def test_models_and_embeddings_are_served(self, openai_client: openai.AsyncOpenAI) -> None:
        names = [model.id async for model in openai_client.models.list()]
        assert "gpt-4o" in names
        assert (await openai_client.models.retrieve("gpt-4o")).id == "gpt-4o"
        plain = await openai_client.embeddings.create(model="e", input=["a b", "c"], encoding_format="float")
        assert plain.usage.prompt_tokens == 3
        lenient = openai_client.copy(_extra_kwargs={"_strict_response_validation": False})
        packed = await lenient.embeddings.create(model="e", input=["a b", "c"])
        assert [item.embedding for item in packed.data] == [item.embedding for item in plain.data]

    @pytest.mark.parametrize(
        ("status", "error"),
        [(401, openai.AuthenticationError), (429, openai.RateLimitError), (503, openai.InternalServerError)],
    )
    async def test_a_failure_is_the_sdks_own_error(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI, status: int, error: type[openai.APIStatusError]
    ) -> None:
        upstream.script(Fail(status=status, headers={"retry-after": "1"}))
        with pytest.raises(error) as caught:
            await openai_client.chat.completions.create(model="gpt-4o", messages=QUESTION)
        assert caught.value.response.headers["retry-after"] == "1"
        assert caught.value.type

    @pytest.mark.parametrize(
        ("behaviour", "error"),
        [
            (ErrorEvent(after=1), openai.APIError),
            (MalformedChunk(after=1), json.JSONDecodeError),
            (CutAfter(chunks=1), openai.APIConnectionError),
            (Hang(0.0, after=1), openai.APIConnectionError),
        ],
    )
    async def test_a_stream_fails_after_its_first_chunk(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI, behaviour: Behaviour, error: type[Exception]
    ) -> None:
        upstream.script(behaviour)
        got: list[str] = []

        async def read() -> None:
            stream = await openai_client.chat.completions.create(model="gpt-4o", messages=QUESTION, stream=True)
            async for chunk in stream:
                got.append(chunk.choices[0].delta.content or "")

        with pytest.raises(error):
            await read()
        assert "".join(got) == "echo: "
        assert upstream.requests[0].chunks_sent == 1

    @pytest.mark.parametrize("behaviour", [ResetBeforeAnswer(), CutAfter(), Hang(0.0)])
    async def test_a_dropped_connection_is_a_connection_error(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI, behaviour: Behaviour
    ) -> None:
        upstream.script(behaviour)
        with pytest.raises(openai.APIConnectionError):
            await openai_client.chat.completions.create(model="gpt-4o", messages=QUESTION)
        assert upstream.requests[0].dropped
        assert not upstream.requests[0].disconnected

    @pytest.mark.parametrize("behaviour", [Garbage(), MalformedChunk()])
    async def test_garbage_is_no_valid_response(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI, behaviour: Behaviour
    ) -> None:
        upstream.script(behaviour)
        with pytest.raises((openai.APIResponseValidationError, json.JSONDecodeError)):
            await openai_client.chat.completions.create(model="gpt-4o", messages=QUESTION)


class TestAnthropic:
    async def ask(self, client: anthropic.AsyncAnthropic) -> Any:
        return await client.messages.create(
            model="claude-sonnet-5", max_tokens=50, system="be brief", messages=QUESTION[1:]
        )

    async def test_an_unscripted_answer_echoes_and_counts_words(
        self, anthropic_client: anthropic.AsyncAnthropic
    ) -> None:
        reply = await self.ask(anthropic_client)
        assert reply.content[0].text == "echo: hello there"
        assert (reply.stop_reason, reply.usage.input_tokens, reply.usage.output_tokens) == ("end_turn", 4, 3)

    async def test_a_stream_has_the_providers_events(
        self, upstream: Upstream, anthropic_client: anthropic.AsyncAnthropic
    ) -> None:
        upstream.script(Answer(text="two words", usage=Usage(input=10, output=2, cached=6, cache_write=1)))
        events = await anthropic_stream(anthropic_client)
        assert [event.type for event in events] == [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        usage = events[-2].usage
        assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (3, 6, 1)
        assert usage.output_tokens == 2

    async def test_the_streaming_helper_rebuilds_a_tool_call(
        self, upstream: Upstream, anthropic_client: anthropic.AsyncAnthropic
    ) -> None:
        upstream.script(Answer(text="let me see", tool_calls=(WEATHER,)))
        async with anthropic_client.messages.stream(model="c", max_tokens=50, messages=QUESTION[1:]) as stream:
            message = await stream.get_final_message()
        [text, call] = message.content
        assert (text.type, call.type) == ("text", "tool_use")
        assert isinstance(call, anthropic.types.ToolUseBlock)
        assert call.input == {"city": "Riga"}
        assert message.stop_reason == "tool_use"

    async def test_counting_and_listing_work(self, anthropic_client: anthropic.AsyncAnthropic) -> None:
        count = await anthropic_client.messages.count_tokens(model="c", messages=QUESTION[1:])
        assert count.input_tokens == 2
        assert {model.lifecycle async for model in anthropic_client.models.list()} == {"active"}

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (402, anthropic.PaymentRequiredError),
            (429, anthropic.RateLimitError),
            (529, anthropic.OverloadedError),
        ],
    )
    async def test_a_failure_is_the_sdks_own_error(
        self,
        upstream: Upstream,
        anthropic_client: anthropic.AsyncAnthropic,
        status: int,
        error: type[anthropic.APIStatusError],
    ) -> None:
        upstream.script(Fail(status=status))
        with pytest.raises(error) as caught:
            await self.ask(anthropic_client)
        assert caught.value.type

    async def test_an_error_event_and_a_cut_break_the_stream(
        self, upstream: Upstream, anthropic_client: anthropic.AsyncAnthropic
    ) -> None:
        upstream.script(ErrorEvent(after=1), CutAfter(chunks=2))
        with pytest.raises(anthropic.APIStatusError) as caught:
            await anthropic_stream(anthropic_client)
        assert caught.value.type == "overloaded_error"
        with pytest.raises(httpx2.RemoteProtocolError):
            await anthropic_stream(anthropic_client)

    async def test_the_newest_version_refuses_sampling_parameters(
        self, anthropic_client: anthropic.AsyncAnthropic
    ) -> None:
        options: dict[str, Any] = {"model": "c", "max_tokens": 5, "messages": QUESTION[1:]}
        sampling: dict[str, Any] = {"extra_body": {"temperature": 0.5}}
        with pytest.raises(anthropic.BadRequestError):
            await anthropic_client.messages.create(**options, **sampling)
        older = {"anthropic-version": "2023-06-01"}
        assert await anthropic_client.messages.create(**options, **sampling, extra_headers=older)


class TestGoogle:
    async def test_an_unscripted_answer_echoes_and_counts_words(self, google_client: genai.Client) -> None:
        reply = await google_client.aio.models.generate_content(model="gemini-2.5-flash", contents="hello there")
        assert reply.text == "echo: hello there"
        assert reply.model_version == "gemini-2.5-flash"
        assert reply.usage_metadata is not None
        assert reply.usage_metadata.prompt_token_count == 2
        assert reply.usage_metadata.candidates_token_count == 3
        assert reply.usage_metadata.total_token_count == 5

    async def test_a_stream_ends_with_reason_and_usage(self, upstream: Upstream, google_client: genai.Client) -> None:
        upstream.script(Answer(text="a b", usage=Usage(input=9, output=7, cached=4, reasoning=5)))
        replies = await google_stream(google_client)
        assert "".join(reply.text or "" for reply in replies) == "a b"
        last = replies[-1]
        assert last.candidates[0].finish_reason == google_types.FinishReason.STOP
        usage = last.usage_metadata
        assert (usage.candidates_token_count, usage.thoughts_token_count) == (2, 5)
        assert (usage.cached_content_token_count, usage.total_token_count) == (4, 16)

    async def test_a_function_call_arrives(self, upstream: Upstream, google_client: genai.Client) -> None:
        upstream.script(Answer(tool_calls=(WEATHER,)))
        reply = await google_client.aio.models.generate_content(model="g", contents="weather?")
        [call] = reply.function_calls or []
        assert (call.name, call.args) == ("weather", {"city": "Riga"})

    async def test_counting_and_listing_work(self, google_client: genai.Client) -> None:
        count = await google_client.aio.models.count_tokens(model="g", contents="hello there")
        assert count.total_tokens == 2
        names = [model.name async for model in await google_client.aio.models.list()]
        assert "models/gemini-2.5-flash" in names

    async def test_failures_are_the_sdks_own_errors(self, upstream: Upstream, google_client: genai.Client) -> None:
        upstream.script(Fail(status=429), Fail(status=503), ErrorEvent(after=1), CutAfter(chunks=1))
        with pytest.raises(google_errors.ClientError) as refused:
            await google_client.aio.models.generate_content(model="g", contents="x")
        assert refused.value.status == "RESOURCE_EXHAUSTED"
        with pytest.raises(google_errors.ServerError):
            await google_client.aio.models.generate_content(model="g", contents="x")
        with pytest.raises(google_errors.ServerError):
            await google_stream(google_client)
        with pytest.raises(httpx2.RemoteProtocolError):
            await google_stream(google_client)

    async def test_without_alt_sse_a_stream_is_one_json_array(self, upstream: Upstream) -> None:
        url = f"{upstream.google_base_url}/v1beta/models/g:streamGenerateContent"
        body = {"contents": [{"parts": [{"text": "hello there"}]}]}
        async with httpx2.AsyncClient() as http:
            replies = (await http.post(url, json=body, headers={"x-goog-api-key": "sk"})).json()
        texts = [reply["candidates"][0]["content"]["parts"][0]["text"] for reply in replies]
        assert "".join(texts) == "echo: hello there"
