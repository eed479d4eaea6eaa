"""OpenAI's Responses of the scripted provider: the stock SDK finds every field and event where it belongs."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.support.upstream import Answer, ErrorEvent, Fail, ToolCall, Upstream, Usage, signature_of

WEATHER = ToolCall(name="weather", arguments={"city": "Riga"})
TOOL: dict[str, Any] = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
THINKING: dict[str, Any] = {
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
}
TEXT_EVENTS = [
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]
ANY_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


async def events_of(http: httpx2.AsyncClient, **options: Any) -> list[dict[str, Any]]:
    """The events as they are on the wire; the name of each is its type, and they are numbered."""
    body = {"model": "gpt-4o", "input": "hello there", "stream": True, **options}
    reply = await http.post("/v1/responses", json=body)
    assert reply.status_code == 200, reply.text
    named = [record.split("\n") for record in reply.text.strip().split("\n\n")]
    events = [json.loads(data.removeprefix("data: ")) for _, data in named]
    assert [name.removeprefix("event: ") for name, _ in named] == [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def types_of(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


class TestWhole:
    async def test_every_field_of_a_response_is_there(self, http: httpx2.AsyncClient) -> None:
        body = {"model": "gpt-4o", "input": "hello there", "tools": [TOOL], "metadata": {"a": "b"}}
        reply = (await http.post("/v1/responses", json=body)).json()
        response = Response.model_validate(reply)
        assert set(Response.model_fields) <= set(reply)
        assert (response.status, response.output_text, response.metadata) == (
            "completed",
            "echo: hello there",
            {"a": "b"},
        )
        assert response.usage is not None
        assert (response.usage.input_tokens, response.usage.output_tokens) == (2, 3)
        never_null = "temperature top_p truncation text service_tier store background top_logprobs tools tool_choice"
        assert None not in [reply[name] for name in never_null.split()]

    async def test_thinking_text_and_calls_are_items_in_this_order(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI
    ) -> None:
        upstream.always(Answer(text="two words", thinking="let me see", tool_calls=(WEATHER, WEATHER)))
        response = await openai_client.responses.create(model="gpt-4o", input="hello", **THINKING)
        reasoning, message, call, other = response.output
        assert reasoning.type == "reasoning"
        assert reasoning.id.startswith("rs_")
        assert [part.text for part in reasoning.summary] == ["let me see"]
        assert reasoning.encrypted_content == signature_of("let me see")
        assert message.type == "message"
        [text] = message.content
        assert text.type == "output_text"
        assert [one.token for one in text.logprobs or ()] == ["two ", "words"]
        assert call.type == other.type == "function_call"
        assert call.call_id != other.call_id
        assert json.loads(call.arguments) == {"city": "Riga"}
        assert response.usage is not None
        assert response.usage.output_tokens_details.reasoning_tokens == 3

    async def test_what_was_not_asked_for_is_not_shown(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI
    ) -> None:
        upstream.always(Answer(thinking="let me see"))
        response = await openai_client.responses.create(model="gpt-4o", input="hello")
        [reasoning, _] = response.output
        assert reasoning.type == "reasoning"
        assert (reasoning.summary, reasoning.encrypted_content) == ([], None)

    @pytest.mark.parametrize(
        ("answer", "status", "reason"),
        [
            (Answer(text="word " * 17), "incomplete", "max_output_tokens"),
            (Answer(text="one", finish="content_filter"), "incomplete", "content_filter"),
            (Answer(text="one"), "completed", None),
        ],
    )
    async def test_an_answer_ends_as_it_should(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI, answer: Answer, status: str, reason: str | None
    ) -> None:
        upstream.script(answer)
        response = await openai_client.responses.create(model="gpt-4o", input="hello", max_output_tokens=16)
        details = response.incomplete_details
        assert (response.status, details and details.reason) == (status, reason)

    async def test_a_refusal_is_a_part_of_the_message(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI
    ) -> None:
        upstream.script(Answer(refusal="I will not."))
        response = await openai_client.responses.create(model="gpt-4o", input="hello")
        [message] = response.output
        assert message.type == "message"
        assert [part.type for part in message.content] == ["refusal"]

    async def test_failures_are_the_sdks_own(self, upstream: Upstream, openai_client: openai.AsyncOpenAI) -> None:
        upstream.script(Fail(status=429))
        with pytest.raises(openai.RateLimitError):
            await openai_client.responses.create(model="gpt-4o", input="hello")

    async def test_a_response_can_be_continued_with_the_results_of_its_calls(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI
    ) -> None:
        upstream.script(Answer(tool_calls=(WEATHER,), thinking="hm"))
        first = await openai_client.responses.create(model="gpt-4o", input="hello")
        call = first.output[-1]
        assert call.type == "function_call"
        result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
        again = await openai_client.responses.create(model="gpt-4o", input=[result], previous_response_id=first.id)
        assert again.previous_response_id == first.id
        stateless: Any = [{"role": "user", "content": "hello"}, *(item.model_dump() for item in first.output), result]
        assert await openai_client.responses.create(model="gpt-4o", input=stateless)


class TestStream:
    async def test_a_text_has_the_providers_events(self, upstream: Upstream, http: httpx2.AsyncClient) -> None:
        upstream.script(Answer(text="two words", usage=Usage(input=9, output=2, cached=4, cache_write=1)))
        events = await events_of(http)
        assert types_of(events) == ["response.created", "response.in_progress", *TEXT_EVENTS, "response.completed"]
        for event in events:
            ANY_EVENT.validate_python(event)
        assert events[0]["response"]["status"] == "in_progress"
        last = events[-1]["response"]
        assert last["output"][0]["content"][0]["text"] == "two words"
        assert last["usage"]["input_tokens_details"] == {"cached_tokens": 4, "cache_write_tokens": 1}

    async def test_thinking_and_calls_have_theirs(self, upstream: Upstream, http: httpx2.AsyncClient) -> None:
        upstream.script(Answer(text="two words", thinking="let me", tool_calls=(WEATHER,)))
        events = await events_of(http, **THINKING)
        assert types_of(events) == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
            *TEXT_EVENTS,
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
        for event in events:
            ANY_EVENT.validate_python(event)
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        assert done == events[-1]["response"]["output"]
        logprobs = [
            one for event in events if event["type"].endswith("text.delta") for one in event.get("logprobs", ())
        ]
        assert [one["token"] for one in logprobs] == ["two ", "words"]

    async def test_the_streaming_helper_rebuilds_the_response(
        self, upstream: Upstream, openai_client: openai.AsyncOpenAI
    ) -> None:
        upstream.script(Answer(text="two words", thinking="let me", tool_calls=(WEATHER,), refusal="no more"))
        async with openai_client.responses.stream(model="gpt-4o", input="hello", **THINKING) as stream:
            response = await stream.get_final_response()
        assert response.output_text == "two words"
        assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]

    async def test_a_cut_answer_is_incomplete(self, upstream: Upstream, http: httpx2.AsyncClient) -> None:
        upstream.script(Answer(text="word " * 17))
        events = await events_of(http, max_output_tokens=16)
        assert events[-1]["type"] == "response.incomplete"

    async def test_a_refusal_is_streamed(self, upstream: Upstream, http: httpx2.AsyncClient) -> None:
        upstream.script(Answer(refusal="I won't"))
        events = await events_of(http)
        assert types_of(events)[4:7] == ["response.refusal.delta", "response.refusal.delta", "response.refusal.done"]
        for event in events:
            ANY_EVENT.validate_python(event)

    async def test_a_failure_ends_the_stream(self, upstream: Upstream, http: httpx2.AsyncClient) -> None:
        upstream.script(ErrorEvent(after=1, status=429, message="too much"))
        events = await events_of(http)
        ANY_EVENT.validate_python(events[-1])
        failed = events[-1]["response"]
        assert (events[-1]["type"], failed["status"]) == ("response.failed", "failed")
        assert failed["error"] == {"code": "rate_limit_exceeded", "message": "too much"}

    async def test_what_nobody_knows_is_sent_too(self, upstream: Upstream, http: httpx2.AsyncClient) -> None:
        item = {"id": "zz_1", "type": "x_dream", "of": ["sheep"]}
        event = {"type": "response.x_dreaming", "depth": 3}
        upstream.script(Answer(text="a", extra_items=(item,), extra_events=(event,), extra_fields={"x_mood": "good"}))
        events = await events_of(http)
        assert events[-2] == {**event, "sequence_number": len(events) - 2}
        assert (events[-1]["response"]["output"][1], events[-1]["response"]["x_mood"]) == (item, "good")
        assert [e["type"] for e in events if e.get("item") == item] == [
            "response.output_item.added",
            "response.output_item.done",
        ]
