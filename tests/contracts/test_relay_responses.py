"""The relay lane for the Responses API: what goes out, what comes back, and what the gateway answers for itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from uuid import UUID

import aiohttp
import orjson
import pytest
import pytest_asyncio
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from src.api.json import dumps
from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.content import (
    Opaque,
    Part,
    Particulars,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    in_one_item,
    part_body,
)
from src.domain.completion.model import (
    ChatRequest,
    Delivered,
    Failure,
    FinishReason,
    UpstreamFailed,
    UpstreamRequest,
    WireBody,
)
from src.integrations.llm.openai import relay_responses
from src.integrations.llm.openai.responses_parts import read_output
from src.integrations.llm.relay import Relay, Target
from src.integrations.llm.sse_bytes import payloads_of
from tests.contracts.relaying import MODEL, SECRET, WEATHER, failure_of, joined, raw_server, sse, streamed, writing
from tests.support import upstream as scripted
from tests.support.upstream import Answer, NoUsage, Upstream

ANSWER_ID = UUID("0199f7a0-0000-7000-8000-00000000abcd")
OURS = {
    "id": f"resp_{ANSWER_ID.hex}",
    "store": True,
    "previous_response_id": "resp_before",
    "conversation": None,
    "background": False,
    "metadata": {"a": "b"},
}
KEY = {"Authorization": f"Bearer {SECRET}"}
TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}]
THINKING = {"effort": "low", "summary": "auto"}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
SEARCH = {"type": "search", "query": "q"}
STRANGE = {"type": "web_search_call", "id": "ws_0123456789", "status": "completed", "action": SEARCH, "future": [1]}


CITED = {"type": "url_citation", "url": "https://x", "title": "X", "start_index": 0, "end_index": 1}
LOGPROB = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}
INCLUDING = {"include": ["message.output_text.logprobs"]}


def output_text(text: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": [LOGPROB]}


def output_message(number: int, phase: str, *content: dict[str, Any]) -> dict[str, Any]:
    item_id = f"msg_012345678{number}"
    return {
        "type": "message", "id": item_id, "role": "assistant", "status": "completed", "phase": phase,
        "content": list(content),
    }  # fmt: skip


REFUSED = {"type": "refusal", "refusal": "no"}
SAID = (
    output_message(1, "commentary", output_text("let me see")),
    output_message(2, "final_answer", output_text("one", CITED), output_text("two"), REFUSED),
    {
        "type": "function_call", "id": "fc_0123456789", "call_id": "c", "name": "f", "arguments": "{}",
        "status": "completed", "caller": {"type": "direct"},
    },
)  # fmt: skip


def particulars(*, place: int | None = None, item: dict[str, Any] | None = None, **fields: Any) -> Particulars:
    return Particulars(format=WireFormat.RESPONSES, fields=fields, place=place, item=item or {})


def parts_said(**logprobs: Any) -> tuple[Part, ...]:
    """What was said after the first text, in our words."""
    return (
        Text(text="let me see", particulars=particulars(item={"phase": "commentary"}, **logprobs)),
        Text(text="one", particulars=particulars(annotations=[CITED], item={"phase": "final_answer"}, **logprobs)),
        Text(text="two", particulars=particulars(place=1, **logprobs)),
        Refusal(text="no", particulars=particulars(place=2)),
        ToolCall(id="c", name="f", arguments="{}", particulars=particulars(caller={"type": "direct"})),
    )


def asking(*, stream: bool = False, cap: int | None = None, upstream: str = "gpt-9", **fields: Any) -> UpstreamRequest:
    body = {"model": "public", "input": "hello there", "store": False, **fields} | ({"stream": True} if stream else {})
    wire = WireBody(format=WireFormat.RESPONSES, body=body, answered_for=OURS, wants_usage=True)
    chat = ChatRequest(messages=(), stream=stream, wire=wire)
    return UpstreamRequest(model=replace(MODEL, upstream=upstream), chat=chat, output_cap=cap)


def with_our_id(part: Any) -> Opaque:
    """An item as it went through the stream."""
    return replace(part, body={**part.body, "id": f"ws_{ANSWER_ID.hex}_4"})


def relay_over(session: aiohttp.ClientSession, url: str) -> Relay:
    target = Target(
        format=WireFormat.RESPONSES,
        url=f"{url}/v1/responses",
        headers=KEY,
        cap_field="max_completion_tokens",
    )
    return Relay(session, target, connect_timeout_s=1.0, read_timeout_s=5.0)


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


@pytest.fixture
def relay(session: aiohttp.ClientSession, upstream: Upstream) -> Relay:
    return relay_over(session, upstream.url)


class TestBody:
    @pytest.mark.parametrize(
        ("fields", "cap", "sent"),
        [
            ({}, None, {}),
            ({"max_output_tokens": 90}, None, {"max_output_tokens": 90}),
            ({}, 50, {"max_output_tokens": 50}),
            ({"max_output_tokens": 90}, 50, {"max_output_tokens": 50}),
            ({"max_output_tokens": 20}, 50, {"max_output_tokens": 20}),
            ({}, 9000, {"max_output_tokens": 4000}),
        ],
    )
    async def test_only_the_model_the_cap_and_what_is_included_change(
        self, upstream: Upstream, relay: Relay, fields: dict[str, Any], cap: int | None, sent: dict[str, Any]
    ) -> None:
        more: dict[str, Any] = {"client_metadata": {"x": [1, None]}, "prompt_cache_key": "ü"}
        await relay.complete(asking(cap=cap, **fields, **more))
        assert upstream.requests[0].json == {
            "model": "gpt-9",
            "input": "hello there",
            "store": False,
            "include": ["reasoning.encrypted_content"],
            **more,
            **sent,
        }

    @pytest.mark.parametrize(
        ("fields", "upstream", "include"),
        [
            ({}, "gpt-4o", None),
            ({"include": ["web_search_call.results"]}, "gpt-4o", ["web_search_call.results"]),
            ({"include": ["reasoning.encrypted_content"]}, "o3", ["reasoning.encrypted_content"]),
            ({"store": True}, "o3", None),
        ],
    )
    def test_thoughts_are_asked_for_of_models_that_think(
        self, fields: dict[str, Any], upstream: str, include: list[str] | None
    ) -> None:
        request = asking(upstream=upstream, **fields)
        assert request.chat.wire is not None
        assert relay_responses.body_for(request, request.chat.wire.body, "").get("include") == include


class TestWhole:
    async def test_the_gateway_answers_for_what_it_keeps(self, upstream: Upstream, relay: Relay) -> None:
        upstream.always(
            Answer(
                text="Hello wörld",
                thinking="hm",
                tool_calls=(WEATHER,),
                extra_fields={"future": 1},
                extra_items=(STRANGE,),
            )
        )
        reply = await relay.complete(asking(tools=TOOLS, reasoning=THINKING))
        finished = reply.finished
        assert finished.wire is not None
        body = orjson.loads(finished.wire)
        Response.model_validate(body, strict=True)
        assert {name: body[name] for name in OURS} == OURS
        assert body["future"] == 1
        hex_id = ANSWER_ID.hex
        assert [item["id"] for item in body["output"]] == [
            f"rs_{hex_id}", f"msg_{hex_id}_1", f"fc_{hex_id}_2", f"ws_{hex_id}_3"
        ]  # fmt: skip
        thought, text, call, strange = finished.parts
        assert isinstance(thought, Thinking)
        assert (thought.text, thought.origin) == ("hm", WireFormat.RESPONSES)
        assert thought.signature
        assert thought.id is not None
        assert thought.id.startswith("rs_00")
        assert text == Text(text="Hello wörld")
        assert isinstance(call, ToolCall)
        assert (call.name, orjson.loads(call.arguments)) == ("weather", WEATHER.arguments)
        assert strange == Opaque(format=WireFormat.RESPONSES, body=STRANGE)
        assert (reply.text, reply.parts, finished.reason) == ("Hello wörld", finished.parts, FinishReason.TOOL_CALLS)

    async def test_usage_is_read(self, upstream: Upstream, relay: Relay) -> None:
        upstream.always(scripted.Usage(input=9, output=5, cached=4, cache_write=2, reasoning=3))
        reply = await relay.complete(asking())
        assert reply.finished.usage == Usage(
            input_tokens=9, output_tokens=5, cache_read_tokens=4, cache_write_tokens=2, reasoning_tokens=3
        )
        upstream.always(NoUsage())
        assert (await relay.complete(asking())).finished.usage is None

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (Answer(), FinishReason.STOP),
            (Answer(finish="length"), FinishReason.LENGTH),
            (Answer(finish="content_filter"), FinishReason.CONTENT_FILTER),
        ],
    )
    async def test_why_it_ended(self, upstream: Upstream, relay: Relay, answer: Answer, reason: FinishReason) -> None:
        upstream.always(answer)
        assert (await relay.complete(asking())).finished.reason is reason
        _, finished = await streamed(relay, asking(stream=True))
        assert finished.reason is reason

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (b"[]", Failure.MALFORMED),
            (b"{}", Failure.MALFORMED),
            (b'{"output": [], "status": "in_progress"}', Failure.MALFORMED),
            (b'{"error": {"code": "server_error", "message": "m"}, "status": "failed"}', Failure.SERVER),
            (b'{"error": {"code": "rate_limit_exceeded", "message": "m"}}', Failure.RATE_LIMITED),
            (b'{"error": {"code": "invalid_image", "message": "m"}}', Failure.CALLER),
        ],
    )
    async def test_what_is_no_answer_has_failed(
        self, session: aiohttp.ClientSession, body: bytes, kind: Failure
    ) -> None:
        async with raw_server(writing(body), head="content-type: application/json") as url:
            failed, _ = await failure_of(relay_over(session, url), asking())
        assert failed.kind is kind


class TestWhatOnlyOpenAISays:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("fields", [{}, INCLUDING], ids=["plain", "with logprobs"])
    async def test_is_kept_with_the_parts_of_an_answer(
        self, upstream: Upstream, relay: Relay, stream: bool, fields: dict[str, Any]
    ) -> None:
        upstream.always(Answer(text="Hello", extra_items=SAID))
        request = asking(stream=stream, **fields)
        finished = (await streamed(relay, request))[1] if stream else (await relay.complete(request)).finished
        first, *others = finished.parts
        assert isinstance(first, Text)
        assert (first.text, bool(first.particulars)) == ("Hello", bool(fields))
        assert tuple(others) == parts_said(**({"logprobs": [LOGPROB]} if fields else {}))

    @pytest.mark.parametrize("fields", [{}, INCLUDING], ids=["plain", "with logprobs"])
    async def test_is_kept_of_a_stream_that_was_cut_off(
        self, upstream: Upstream, relay: Relay, fields: dict[str, Any]
    ) -> None:
        upstream.always(Answer(text="Hello", extra_items=SAID))
        chunks, _ = await streamed(relay, asking(stream=True, **fields))
        kept = chunks[0].read(joined(chunks)).parts[1:]
        said = parts_said(**({"logprobs": [LOGPROB]} if fields else {}))
        of_last = kept[3]
        assert isinstance(of_last, Refusal)
        assert of_last.particulars == particulars(place=2, item={"phase": "final_answer"})  # its end tells it again
        assert (*kept[:3], kept[4]) == (*said[:3], said[4])

    async def test_messages_are_not_one_where_a_stream_is_cut_off_in_the_second(
        self, upstream: Upstream, relay: Relay
    ) -> None:
        upstream.always(Answer(text="Hello", extra_items=SAID))
        chunks, _ = await streamed(relay, asking(stream=True))
        told = joined(chunks)
        place = told.index(b'"delta":"let ')
        in_second = told[: told.index(b"\n\n", place) + 2]
        assert chunks[0].read(in_second).parts == (
            Text(text="Hello"),
            Text(text="let ", particulars=particulars(item={"phase": "commentary"})),
        )

    @pytest.mark.parametrize("name", ["future", "annotations"])
    def test_that_nests_too_deep_is_no_answer(self, name: str) -> None:
        for depth, is_read in ((90, True), (900, False)):
            nested = orjson.loads(b"[" * depth + b"]" * depth)
            item = {**SAID[0], "content": [{**output_text("a"), name: [nested]}]}
            with nullcontext() if is_read else pytest.raises(UpstreamFailed):
                dumps([part_body(part) for part in read_output([item])])


def test_an_answer_that_nests_too_deep_to_be_written_again_is_none() -> None:
    wire = WireBody(format=WireFormat.RESPONSES, body={}, answered_for=OURS)
    nested = b"[" * 900 + b"]" * 900
    whole = b'{"status":"completed","future":%s,"output":[]}' % nested
    with pytest.raises(UpstreamFailed):
        relay_responses.answered_by_us(relay_responses.read_reply(whole), wire)
    event = b'data: {"type":"response.created","response":{"future":%s}}\n\n' % nested
    with pytest.raises(UpstreamFailed):
        relay_responses.ResponsesReader(wire).read(event)


class TestStream:
    async def test_only_events_that_hold_the_response_or_an_item_change(
        self, upstream: Upstream, relay: Relay, session: aiohttp.ClientSession
    ) -> None:
        upstream.always(
            Answer(chunks=("Hello ", "wörld"), thinking="hm hm", tool_calls=(WEATHER,), extra_items=(STRANGE,))
        )
        fields: dict[str, Any] = {"tools": TOOLS, "reasoning": THINKING}
        body: dict[str, Any] = {"model": "gpt-9", "input": "hello there", "stream": True, "store": False, **fields}
        body["include"] = ["reasoning.encrypted_content"]
        async with session.post(f"{upstream.url}/v1/responses", json=body, headers=KEY) as response:
            theirs = list(payloads_of(await response.read()))
        chunks, finished = await streamed(relay, asking(stream=True, **fields))
        assert finished.wire is not None
        data = joined(chunks) + finished.wire
        ours = list(payloads_of(data))
        assert [event["type"] for event in ours] == [event["type"] for event in theirs]
        for told, meant in zip(ours, theirs, strict=True):
            EVENT.validate_python(told, strict=True)
            changed = {name for name in meant if told[name] != meant[name]}
            assert changed <= {"response", "item", "item_id"}
            if "response" in told:
                assert {name: told["response"][name] for name in OURS} == OURS
        assert list(payloads_of(finished.wire))[-1]["type"] == "response.completed"
        assert b"response.completed" not in joined(chunks)

    async def test_items_keep_one_id_from_beginning_to_end(self, upstream: Upstream, relay: Relay) -> None:
        upstream.always(Answer(text="Hello wörld", thinking="hm", tool_calls=(WEATHER,)))
        chunks, finished = await streamed(relay, asking(stream=True, tools=TOOLS, reasoning=THINKING))
        events = list(payloads_of(joined(chunks) + (finished.wire or b"")))
        ids: dict[int, set[str]] = {}
        for event in events:
            named = event.get("item_id") or event.get("item", {}).get("id")
            if named is not None:
                ids.setdefault(event["output_index"], set()).add(named)
        last = [item["id"] for item in events[-1]["response"]["output"]]
        assert [ids[index] for index in sorted(ids)] == [{each} for each in last]
        assert last == [f"rs_{ANSWER_ID.hex}", f"msg_{ANSWER_ID.hex}_1", f"fc_{ANSWER_ID.hex}_2"]

    async def test_it_ends_with_what_a_whole_answer_has(self, upstream: Upstream, relay: Relay) -> None:
        upstream.always(Answer(text="Hello", refusal="no", usage=scripted.Usage(input=3, output=2, cached=1)))
        _, finished = await streamed(relay, asking(stream=True))
        assert finished.parts == in_one_item((Text(text="Hello"), Refusal(text="no")), WireFormat.RESPONSES)
        assert finished.usage == Usage(input_tokens=3, output_tokens=2, cache_read_tokens=1)
        assert finished.upstream_model == "gpt-9"

    async def test_what_a_cut_off_stream_delivered_is_read_from_it(self, upstream: Upstream, relay: Relay) -> None:
        upstream.always(Answer(text="Hello wörld", thinking="hm hm", tool_calls=(WEATHER,)))
        chunks, _ = await streamed(relay, asking(stream=True, tools=TOOLS, reasoning=THINKING))
        delivered = chunks[0].read(joined(chunks))
        assert delivered.text == 'hm hmHello wörld{"city":"Riga"}'
        assert delivered.words == "Hello wörld"

    @pytest.mark.parametrize("at_once", [True, False], ids=["at once", "piece by piece"])
    async def test_what_was_delivered_has_the_parts_of_the_whole(
        self, upstream: Upstream, relay: Relay, at_once: bool
    ) -> None:
        answer = Answer(text="Hello wörld", refusal="no", thinking="hm hm", tool_calls=(WEATHER, WEATHER))
        upstream.always(replace(answer, extra_items=(STRANGE,)))
        chunks, finished = await streamed(relay, asking(stream=True, tools=TOOLS, reasoning=THINKING, upstream="o3"))
        told = joined(chunks)
        events = [told] if at_once else [event + b"\n\n" for event in told.split(b"\n\n") if event]
        pieces = tuple(piece for event in events for piece in chunks[0].read(event).pieces)
        kept = Delivered("", pieces=pieces)
        whole = [replace(each, id=None) if isinstance(each, Thinking) else each for each in finished.parts]
        assert [type(part) for part in whole] == [Thinking, Text, Refusal, ToolCall, ToolCall, Opaque]
        assert kept.parts[:-1] == tuple(whole[:-1])
        assert (kept.parts[-1], kept.words) == (with_our_id(whole[-1]), "Hello wörldno")

    async def test_what_is_open_where_a_stream_is_cut_is_kept_as_far_as_it_came(
        self, upstream: Upstream, relay: Relay
    ) -> None:
        upstream.always(Answer(thinking="hm hm", tool_calls=(WEATHER,)))
        chunks, _ = await streamed(relay, asking(stream=True, tools=TOOLS, reasoning=THINKING))
        told = joined(chunks)
        in_call = told[: told.rindex(b"event: response.function_call_arguments.delta")]
        thought, call = chunks[0].read(in_call).parts
        assert isinstance(call, ToolCall)
        assert isinstance(thought, Thinking)
        assert (thought.text, bool(thought.signature), call.name, bool(call.id)) == ("hm hm", True, "weather", True)
        assert '{"city":"Riga"}'.startswith(call.arguments)
        in_thought = told[: told.index(b"event: response.output_item.done")]
        assert chunks[0].read(in_thought).parts == (Thinking(text="hm hm", origin=WireFormat.RESPONSES),)

    @pytest.mark.parametrize(
        ("behaviour", "kind"),
        [
            (scripted.ErrorEvent(after=1), Failure.SERVER),
            (scripted.ErrorEvent(after=1, status=429), Failure.RATE_LIMITED),
            (scripted.CutAfter(1), Failure.DROPPED),
            (scripted.MalformedChunk(after=1), Failure.MALFORMED),
            (Answer(last_word=False), Failure.DROPPED),
        ],
    )
    async def test_a_stream_that_breaks_off_has_failed(
        self, upstream: Upstream, relay: Relay, behaviour: Any, kind: Failure
    ) -> None:
        upstream.always(behaviour)
        failed, delivered = await failure_of(relay, asking(stream=True))
        assert failed.kind is kind
        assert b"response.failed" not in delivered
        assert b"echo:" in delivered

    @pytest.mark.parametrize(
        ("event", "kind"),
        [
            ({"type": "error", "code": "server_error", "message": "m", "sequence_number": 1}, Failure.SERVER),
            ({"type": "error", "error": {"type": "invalid_request_error", "message": "m"}}, Failure.CALLER),
            ({"type": "response.failed", "response": {"error": {"code": "invalid_prompt"}}}, Failure.CALLER),
            ({"type": "response.failed", "response": None}, Failure.SERVER),
        ],
    )
    async def test_its_own_errors_are_failures(
        self, session: aiohttp.ClientSession, event: dict[str, Any], kind: Failure
    ) -> None:
        async with raw_server(writing(b"data: " + orjson.dumps(event) + b"\n\n")) as url:
            failed, delivered = await failure_of(relay_over(session, url), asking(stream=True))
        assert (failed.kind, delivered) == (kind, b"")


def test_what_a_database_does_not_take_is_not_stored() -> None:
    (part,) = read_output([{"type": "new_call", "text": "a\0", "list": [{"b\0": 1}]}])
    assert part == Opaque(
        format=WireFormat.RESPONSES, body={"type": "new_call", "text": "a\ufffd", "list": [{"b\ufffd": 1}]}
    )


def test_an_answer_without_an_id_of_ours_keeps_its_items_as_they_are() -> None:
    wire = WireBody(format=WireFormat.RESPONSES, body={}, answered_for={"store": True})
    item = {"type": "message", "id": "msg_0123456789", "content": []}
    event = {"type": "response.output_item.added", "output_index": 0, "item": item}
    told = relay_responses.ResponsesReader(wire).read(b"data: " + orjson.dumps(event) + b"\n\n")
    assert list(payloads_of(told)) == [event]


@pytest.mark.parametrize("output", [[], None])
def test_items_that_the_last_response_does_not_repeat_are_kept(output: Any) -> None:
    items: list[dict[str, Any]] = [
        {"type": "message", "id": "msg_0123", "content": [{"type": "output_text", "text": "Hello"}]},
        {"type": "function_call", "id": "fc_0123", "call_id": "c", "name": "f", "arguments": "{}"},
    ]
    done = [{"type": "response.output_item.done", "output_index": at, "item": items[at]} for at in (1, 0)]
    last = {"type": "response.completed", "response": {"status": "completed", "output": output}}
    reader = relay_responses.ResponsesReader(WireBody(format=WireFormat.RESPONSES, body={}))
    reader.read(sse(*done, last))
    assert reader.finished().parts == (Text(text="Hello"), ToolCall(id="c", name="f", arguments="{}"))
    assert reader.finished().reason is FinishReason.TOOL_CALLS
