"""The relay lane against a scripted provider and against raw sockets: what goes out and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import orjson
import pytest
import pytest_asyncio

from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.model import Delivered, Failure, FinishReason
from src.integrations.llm.anthropic import relay as relay_anthropic
from src.integrations.llm.openai import relay_chat as relay_openai
from tests.contracts.relaying import (
    ANTHROPIC,
    DIALECTS,
    MESSAGES,
    OPENAI,
    RESPONSES,
    SECRET,
    TWO_WORDS,
    USAGE,
    WEATHER,
    Relays,
    asking,
    delta,
    failure_of,
    joined,
    raw_server,
    relays,
    sse,
    streamed,
    writing,
)
from tests.support import upstream as scripted
from tests.support.upstream import Answer, Garbage, NoUsage, Upstream


@pytest_asyncio.fixture
async def relay_to() -> AsyncIterator[Relays]:
    async with relays() as make:
        yield make


class TestBody:
    @pytest.mark.parametrize("kind", DIALECTS)
    async def test_only_the_model_and_the_cap_change(
        self, upstream: Upstream, relay_to: Relays, kind: WireFormat
    ) -> None:
        request = asking(kind, cap=50, max_tokens=90, x_future={"a": [1, None]}, metadata={"user": "ü"})
        assert request.chat.wire is not None
        before = deepcopy(request.chat.wire.body)
        await relay_to(kind, upstream.url).complete(request)
        assert upstream.requests[0].json == {**before, "model": "upstream-name", "max_tokens": 50}
        assert request.chat.wire.body == before

    @pytest.mark.parametrize(
        ("fields", "cap", "sent"),
        [
            ({}, None, {}),
            ({"max_tokens": 9}, None, {"max_tokens": 9}),
            ({}, 50, {"max_completion_tokens": 50}),
            ({"max_tokens": 90}, 50, {"max_tokens": 50}),
            ({"max_completion_tokens": 20}, 50, {"max_completion_tokens": 20}),
            ({"max_tokens": None}, 50, {"max_tokens": None, "max_completion_tokens": 50}),
            ({"max_tokens": None, "max_completion_tokens": 99}, 50, {"max_tokens": None, "max_completion_tokens": 50}),
            ({}, 9000, {"max_completion_tokens": 4000}),
            ({"n": 4}, 50, {"n": 4, "max_completion_tokens": 12}),
            ({"n": 9, "max_tokens": 4}, 5, {"n": 9, "max_tokens": 1}),
        ],
    )
    async def test_openai_caps(
        self, upstream: Upstream, relay_to: Relays, fields: dict[str, Any], cap: int | None, sent: dict[str, Any]
    ) -> None:
        await relay_to(OPENAI, upstream.url).complete(asking(OPENAI, cap=cap, **fields))
        assert upstream.requests[0].json == {"model": "upstream-name", "messages": MESSAGES, **sent}

    @pytest.mark.parametrize(
        ("fields", "cap", "sent"),
        [
            ({}, None, {"max_tokens": 4000}),
            ({"max_tokens": 9}, None, {"max_tokens": 9}),
            ({"max_tokens": 0}, 50, {"max_tokens": 0}),
            ({"max_tokens": 90}, 50, {"max_tokens": 50}),
            ({"max_tokens": 3000, "thinking": 2000}, 2500, {"max_tokens": 2500, "thinking": 2000}),
            ({"max_tokens": 3000, "thinking": 2000}, 2000, {"max_tokens": 2000, "thinking": 1500}),
            ({"max_tokens": 3000, "thinking": 2000}, 1025, {"max_tokens": 1025, "thinking": 1024}),
            ({"max_tokens": 3000, "thinking": 2000}, 1024, {"max_tokens": 1024}),
        ],
    )
    async def test_anthropic_caps(
        self, upstream: Upstream, relay_to: Relays, fields: dict[str, Any], cap: int | None, sent: dict[str, Any]
    ) -> None:
        def with_thinking(values: dict[str, Any]) -> dict[str, Any]:
            budget = values.get("thinking")
            return values if budget is None else {**values, "thinking": {"type": "enabled", "budget_tokens": budget}}

        await relay_to(ANTHROPIC, upstream.url).complete(asking(ANTHROPIC, cap=cap, **with_thinking(fields)))
        expected = {"model": "upstream-name", "messages": MESSAGES, **with_thinking(sent)}
        assert upstream.requests[0].json == expected

    async def test_a_stream_always_asks_for_usage_and_keeps_other_options(
        self, upstream: Upstream, relay_to: Relays
    ) -> None:
        options = {"include_usage": False, "include_obfuscation": False}
        await streamed(relay_to(OPENAI, upstream.url), asking(OPENAI, stream=True, stream_options=options))
        assert upstream.requests[0].json["stream_options"] == {"include_usage": True, "include_obfuscation": False}

    async def test_headers_go_on_but_credentials_stay_ours(self, upstream: Upstream, relay_to: Relays) -> None:
        headers = {"Anthropic-Version": "2026-10-21", "anthropic-beta": "a,b", "X-Api-Key": "client's", "cookie": "c"}
        await relay_to(ANTHROPIC, upstream.url).complete(asking(ANTHROPIC, headers=headers))
        await relay_to(ANTHROPIC, upstream.url).complete(asking(ANTHROPIC))
        first, second = (seen.headers for seen in upstream.requests)
        assert (first["anthropic-version"], first["anthropic-beta"]) == ("2026-10-21", "a,b")
        assert (first["x-api-key"], first.get("cookie")) == (SECRET, None)
        assert second["anthropic-version"] == "2023-06-01"

    @pytest.mark.parametrize("kind", [OPENAI, RESPONSES])
    async def test_no_client_chooses_among_accounts(
        self, upstream: Upstream, relay_to: Relays, kind: WireFormat
    ) -> None:
        headers = {"OpenAI-Organization": "org-1", "openai-project": "proj_1", "openai-beta": "b"}
        await relay_to(kind, upstream.url).complete(asking(kind, headers=headers))
        sent = upstream.requests[0].headers
        assert (sent.get("openai-organization"), sent.get("openai-project"), sent["openai-beta"]) == (None, None, "b")

    async def test_a_body_of_another_dialect_is_not_sent(self, upstream: Upstream, relay_to: Relays) -> None:
        failure, _ = await failure_of(relay_to(OPENAI, upstream.url), asking(ANTHROPIC))
        assert failure.kind is Failure.UNSUPPORTED
        assert not upstream.requests

    async def test_megabytes_are_sent_without_complaint(self, upstream: Upstream, relay_to: Relays) -> None:
        await relay_to(OPENAI, upstream.url).complete(asking(OPENAI, x_image="x" * 3_000_000))
        assert len(upstream.requests[0].json["x_image"]) == 3_000_000


class TestAnswers:
    @pytest.mark.parametrize("kind", DIALECTS)
    async def test_a_whole_answer_is_read_and_kept_byte_for_byte(
        self, upstream: Upstream, relay_to: Relays, kind: WireFormat
    ) -> None:
        usage = scripted.Usage(input=10, output=2, cached=6, cache_write=1)
        upstream.script(Answer(text="two wörds", usage=usage, model="m-1", finish="length"))
        reply = await relay_to(kind, upstream.url).complete(asking(kind))
        assert (reply.text, reply.finished.reason) == ("two wörds", FinishReason.LENGTH)
        assert reply.finished.upstream_model == "m-1"
        assert reply.finished.usage == Usage(
            input_tokens=10, output_tokens=2, cache_read_tokens=6, cache_write_tokens=1
        )
        assert reply.finished.wire is not None
        assert orjson.loads(reply.finished.wire)["model"] == "m-1"

    @pytest.mark.parametrize("stream", [False, True])
    async def test_what_a_model_of_anthropics_did_besides_is_counted(
        self, upstream: Upstream, relay_to: Relays, stream: bool
    ) -> None:
        counts = {
            "input_tokens": 10,
            "output_tokens": 2,
            "cache_read_input_tokens": 6,
            "cache_creation_input_tokens": 1,
        }
        besides = [{"type": kind, **counts} for kind in ("message", "compaction", "advisor_message", "of_the_future")]
        ran: dict[str, Any] = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
        answer = Answer(text="so", extra_items=(ran,) * 7, extra_fields={"usage": {**counts, "iterations": besides}})
        upstream.script(replace(answer, usage=scripted.Usage(input=17, output=2, cached=6, cache_write=1)))
        relay, request = relay_to(ANTHROPIC, upstream.url), asking(ANTHROPIC, stream=stream)
        finished = (await streamed(relay, request))[1] if stream else (await relay.complete(request)).finished
        assert finished.usage == Usage(input_tokens=51, output_tokens=6, cache_read_tokens=18, cache_write_tokens=3)
        assert finished.readings == 8

    async def test_bytes_of_a_whole_answer_are_untouched(self, upstream: Upstream, relay_to: Relays) -> None:
        odd = b' {"choices" : [{"message":{"content":"\\u00fc"},"finish_reason":"stop","x":1.50}],\n"n":[1]}\n'
        upstream.script(Garbage(odd, content_type="application/json"))
        reply = await relay_to(OPENAI, upstream.url).complete(asking(OPENAI))
        assert (reply.finished.wire, reply.text, reply.finished.usage) == (odd, "ü", None)

    @pytest.mark.parametrize("kind", DIALECTS)
    async def test_a_stream_is_read_from_its_tail(self, upstream: Upstream, relay_to: Relays, kind: WireFormat) -> None:
        usage = scripted.Usage(input=10, output=2, cached=6, cache_write=1)
        upstream.script(Answer(text="two wörds", usage=usage, model="m-1", finish="length"))
        chunks, finished = await streamed(relay_to(kind, upstream.url), asking(kind, stream=True))
        assert chunks[0].read(joined(chunks)).text == "two wörds"
        assert (finished.reason, finished.upstream_model) == (FinishReason.LENGTH, "m-1")
        assert finished.usage == Usage(input_tokens=10, output_tokens=2, cache_read_tokens=6, cache_write_tokens=1)
        terminal = b"data: [DONE]\n\n" if kind is OPENAI else b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
        assert finished.wire == terminal
        assert (b"message_delta" in joined(chunks)) is (kind is ANTHROPIC)

    @pytest.mark.parametrize("kind", DIALECTS)
    async def test_what_was_generated_can_be_read_out_of_tool_calls(
        self, upstream: Upstream, relay_to: Relays, kind: WireFormat
    ) -> None:
        upstream.always(Answer(text="let me ", tool_calls=(WEATHER,)))
        chunks, finished = await streamed(relay_to(kind, upstream.url), asking(kind, stream=True))
        assert finished.reason is FinishReason.TOOL_CALLS
        assert chunks[0].read(joined(chunks)).text == 'let me {"city":"Riga"}'
        assert (await relay_to(kind, upstream.url).complete(asking(kind))).text == "let me "

    async def test_the_prompt_is_told_before_the_answer_ends_where_the_stream_begins_with_it(
        self, upstream: Upstream, relay_to: Relays
    ) -> None:
        usage = scripted.Usage(input=10, output=2, cached=6, cache_write=1)
        upstream.script(Answer(text="two wörds", usage=usage), Answer(usage=NoUsage()))
        chunks, _ = await streamed(relay_to(ANTHROPIC, upstream.url), asking(ANTHROPIC, stream=True))
        told = Usage(input_tokens=10, output_tokens=1, cache_read_tokens=6, cache_write_tokens=1)
        beginning = joined(chunks).partition(b"\n\n")[0] + b"\n\n"
        assert chunks[0].read(beginning).usage == told
        assert chunks[0].read(joined(chunks)).usage == replace(told, output_tokens=2)
        silent, _ = await streamed(relay_to(ANTHROPIC, upstream.url), asking(ANTHROPIC, stream=True))
        assert silent[0].read(joined(silent)).usage is None

    @pytest.mark.parametrize("wanted", [False, True])
    async def test_counts_may_be_written_as_fractions(self, relay_to: Relays, wanted: bool) -> None:
        usage = {"choices": [], "usage": {"prompt_tokens": 7.0, "completion_tokens": 2.0}}
        async with raw_server(writing(sse(*TWO_WORDS[:3], usage, b"[DONE]"))) as url:
            _, finished = await streamed(relay_to(OPENAI, url), asking(OPENAI, stream=True, wants_usage=wanted))
        assert finished.usage == Usage(input_tokens=7, output_tokens=2)
        assert finished.wire == (sse(usage, b"[DONE]") if wanted else sse(b"[DONE]"))

    async def test_the_prompt_is_told_where_each_chunk_has_its_usage(self, relay_to: Relays) -> None:
        counts = [{"prompt_tokens": 7, "completion_tokens": output} for output in (0, 1)]
        events = (delta("a") | {"usage": counts[0]}, delta("b") | {"usage": counts[1]}, delta("c"), *TWO_WORDS[2:])
        async with raw_server(writing(sse(*events))) as url:
            chunks, _ = await streamed(relay_to(OPENAI, url), asking(OPENAI, stream=True))
        assert chunks[0].read(sse(*events[:3])).usage == Usage(input_tokens=7, output_tokens=1)
        assert chunks[0].read(sse(*events[2:3])).usage is None

    @pytest.mark.parametrize(
        ("read", "events", "text"),
        [
            (relay_openai.read_delivered, [{"reasoning": "hm", "reasoning_content": "hm"}, {"content": "so"}], "hmso"),
            (relay_openai.read_delivered, [{"reasoning": "hm"}, {"refusal": "no"}], "hmno"),
            (relay_openai.read_delivered, [{"tool_calls": [{"custom": {"input": "ls"}}, None]}], "ls"),
            (relay_openai.read_delivered, [{"function_call": {"arguments": "{}"}}], "{}"),
            (relay_anthropic.read_delivered, [{"type": "thinking_delta", "thinking": "hm"}], "hm"),
            (relay_anthropic.read_delivered, [{"type": "input_json_delta", "partial_json": "{}"}], "{}"),
            (relay_anthropic.read_delivered, [{"type": "signature_delta", "signature": "x"}], ""),
        ],
    )
    def test_all_that_was_generated_counts_once(
        self, read: Callable[[bytes], Delivered], events: list[dict[str, Any]], text: str
    ) -> None:
        data = sse(*({"choices": [{"delta": event}], "delta": event} for event in events))
        assert read(data).text == text

    def test_a_block_may_begin_with_text(self) -> None:
        blocks = ({"type": "text", "text": "one "}, {"type": "thinking", "thinking": "two"}, {"type": "tool_use"})
        data = sse(*({"type": "content_block_start", "content_block": block} for block in blocks))
        assert relay_anthropic.read_delivered(data).text == "one two"

    @pytest.mark.parametrize("kind", DIALECTS)
    @pytest.mark.parametrize("stream", [False, True])
    async def test_missing_usage_is_none(
        self, upstream: Upstream, relay_to: Relays, kind: WireFormat, stream: bool
    ) -> None:
        upstream.script(Answer(tool_calls=(WEATHER,), usage=NoUsage()))
        relay, request = relay_to(kind, upstream.url), asking(kind, stream=stream)
        if stream:
            assert (await streamed(relay, request))[1].usage is None
            return
        reply = await relay.complete(request)
        assert (reply.text, reply.finished.usage) == ('{"city":"Riga"}', None)

    async def test_a_connection_is_used_again(self, upstream: Upstream, relay_to: Relays) -> None:
        for kind in DIALECTS:
            await streamed(relay_to(kind, upstream.url), asking(kind, stream=True))
            await relay_to(kind, upstream.url).complete(asking(kind))
        connector: Any = relay_to(OPENAI, upstream.url)._session.connector
        assert sum(len(idle) for idle in connector._conns.values()) == 1


class TestStreamBytes:
    @pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
    @pytest.mark.parametrize("wants_usage", [False, True])
    @pytest.mark.parametrize("size", [1, 7, 10_000])
    async def test_however_it_is_split_the_bytes_are_the_same(
        self, relay_to: Relays, newline: bytes, wants_usage: bool, size: int
    ) -> None:
        data = b": hello" + 2 * newline + sse(*TWO_WORDS, newline=newline)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        async with raw_server(writing(*pieces)) as url:
            request = asking(OPENAI, stream=True, wants_usage=wants_usage)
            chunks, finished = await streamed(relay_to(OPENAI, url), request)
        held = sse(USAGE, b"[DONE]", newline=newline) if wants_usage else sse(b"[DONE]", newline=newline)
        assert finished.wire == held
        assert joined(chunks) + sse(USAGE, b"[DONE]", newline=newline) == data
        assert all(chunk.data.endswith(2 * newline) for chunk in chunks)
        assert finished.usage == Usage(input_tokens=7, output_tokens=2)
        assert chunks[0].read(joined(chunks)).text == "Hello wörld"

    async def test_an_event_is_handed_on_before_the_next_one_comes(self, relay_to: Relays) -> None:
        async with raw_server(writing(sse(delta("a")), sse(delta("b")), sse(*TWO_WORDS), pause_s=0.05)) as url:
            chunks, _ = await streamed(relay_to(OPENAI, url), asking(OPENAI, stream=True))
        assert [chunk.data for chunk in chunks[:2]] == [sse(delta("a")), sse(delta("b"))]

    @pytest.mark.parametrize("tail", [(), (USAGE,)])
    async def test_an_answer_that_lacks_only_done_is_complete(self, relay_to: Relays, tail: tuple[Any, ...]) -> None:
        async with raw_server(writing(sse(*TWO_WORDS[:3], *tail))) as url:
            _, finished = await streamed(relay_to(OPENAI, url), asking(OPENAI, stream=True))
        assert (finished.usage is not None, finished.wire) == (bool(tail), b"")

    async def test_a_last_event_may_lack_its_blank_line(self, relay_to: Relays) -> None:
        async with raw_server(writing(sse(*TWO_WORDS).removesuffix(b"\n\n"))) as url:
            _, finished = await streamed(relay_to(OPENAI, url), asking(OPENAI, stream=True))
        assert finished.wire == b"data: [DONE]"

    @pytest.mark.parametrize("spoilt", [sse(*TWO_WORDS[:2]), sse(*TWO_WORDS)[:150], b"", b": nothing\n\n"])
    async def test_an_end_without_a_reason_is_a_dropped_stream(self, relay_to: Relays, spoilt: bytes) -> None:
        async with raw_server(writing(spoilt)) as url:
            failure, _ = await failure_of(relay_to(OPENAI, url), asking(OPENAI, stream=True))
        assert failure.kind is Failure.DROPPED

    async def test_no_reason_is_needed_after_a_call(self, upstream: Upstream, relay_to: Relays) -> None:
        upstream.script(*[Answer(tool_calls=(WEATHER,), finish="none")] * 2)
        relay = relay_to(OPENAI, upstream.url)
        _, finished = await streamed(relay, asking(OPENAI, stream=True))
        assert (finished.reason, finished.usage is None) == (FinishReason.TOOL_CALLS, False)
        assert (await relay.complete(asking(OPENAI))).finished.reason is FinishReason.TOOL_CALLS

    async def test_of_two_choices_both_must_end(self, relay_to: Relays) -> None:
        async with raw_server(writing(sse(delta("a"), delta(finish="stop"), delta("b", index=1)))) as url:
            failure, _ = await failure_of(relay_to(OPENAI, url), asking(OPENAI, stream=True, n=2))
        assert failure.kind is Failure.DROPPED

    async def test_usage_in_the_middle_does_not_end_the_stream(self, relay_to: Relays) -> None:
        events = (delta("a"), USAGE, delta("b", "stop"), USAGE, b"[DONE]")
        async with raw_server(writing(sse(*events))) as url:
            chunks, finished = await streamed(relay_to(OPENAI, url), asking(OPENAI, stream=True, wants_usage=True))
        assert joined(chunks) == sse(*events[:3])
        assert finished.wire == sse(*events[3:])

    async def test_text_that_looks_like_the_end_is_text(self, relay_to: Relays) -> None:
        text = 'data: [DONE]\n\n "error" "finish_reason":"stop" "prompt_tokens": 1 event: message_stop'
        async with raw_server(writing(sse(delta("x"), delta(text)), sse(*TWO_WORDS), pause_s=0.05)) as url:
            chunks, finished = await streamed(relay_to(OPENAI, url), asking(OPENAI, stream=True))
        assert chunks[0].read(joined(chunks)).text == f"x{text}Hello wörld"
        assert finished.usage == Usage(input_tokens=7, output_tokens=2)

    async def test_a_huge_line_is_refused(self, relay_to: Relays) -> None:
        megabyte = b"x" * 1024 * 1024
        async with raw_server(writing(b"data: ", *[megabyte] * 12)) as url:
            failure, delivered = await failure_of(relay_to(OPENAI, url), asking(OPENAI, stream=True))
        assert (failure.kind, delivered) == (Failure.MALFORMED, b"")

    @pytest.mark.parametrize("crumb", [b": keep-alive\n\n", b'event: ping\ndata: {"type": "ping"}\n\n', b"x"])
    @pytest.mark.parametrize("begun", [b"", sse(delta("a"))])
    async def test_keep_alives_do_not_stretch_the_read_timeout(
        self, relay_to: Relays, crumb: bytes, begun: bytes
    ) -> None:
        async with raw_server(writing(begun, *[crumb] * 60, pause_s=0.05)) as url, asyncio.timeout(1.5):
            failure, _ = await failure_of(relay_to(ANTHROPIC, url, 0.3), asking(ANTHROPIC, stream=True))
        assert failure.kind is Failure.TIMEOUT
