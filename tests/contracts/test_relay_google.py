"""The relay lane for Google's own format: what goes out and what comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.model import ChatRequest, Failure, FinishReason, Parameters, UpstreamRequest, WireBody
from src.integrations.llm.google.relay import CAP_FIELD, read_delivered, resource
from src.integrations.llm.relay import Relay, Target
from tests.contracts.relaying import MODEL, SECRET, failure_of, joined, raw_server, sse, streamed, writing
from tests.support import upstream as scripted
from tests.support.upstream import Answer, CutAfter, ErrorEvent, Fail, Garbage, NoUsage, ToolCall, Upstream

CONTENTS = [{"role": "user", "parts": [{"text": "hello there"}]}]
WEATHER = ToolCall(name="weather", arguments={"city": "Riga"})
RIGA = '{"city":"Riga"}'
GOOGLE = WireFormat.GENERATE_CONTENT


def asking(
    *, stream: bool = False, cap: int | None = None, choices: int = 1, wish: int | None = None, **fields: Any
) -> UpstreamRequest:
    wire = WireBody(format=GOOGLE, body={"contents": CONTENTS, **fields}, headers={"x-goog-new": "1"})
    parameters = Parameters(choices=choices, max_output_tokens=wish)
    chat = ChatRequest(messages=(), parameters=parameters, stream=stream, wire=wire)
    return UpstreamRequest(model=MODEL, chat=chat, output_cap=cap)


def candidate(text: str | None = None, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    content = {"content": {"role": "model", "parts": [{"text": text}]}} if text is not None else {}
    return {"candidates": [{**content, **({"finishReason": finish} if finish else {}), "index": index}], **more}


def counted(prompt: int, output: int, **more: int) -> dict[str, Any]:
    return {"usageMetadata": {"promptTokenCount": prompt, "candidatesTokenCount": output, **more}}


class Lane:
    """A relay to any address."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    def to(self, url: str, read_timeout_s: float = 5.0) -> Relay:
        target = Target(
            format=GOOGLE,
            url=f"{url}/v1beta/{resource('upstream-name')}",
            headers={"x-goog-api-key": SECRET},
            cap_field=CAP_FIELD,
        )
        return Relay(self._session, target, connect_timeout_s=1.0, read_timeout_s=read_timeout_s)


@pytest_asyncio.fixture
async def lane() -> AsyncIterator[Lane]:
    async with aiohttp.ClientSession() as session:
        yield Lane(session)


class TestBody:
    @pytest.mark.parametrize("stream", [False, True])
    async def test_only_the_cap_changes_and_the_address_says_the_rest(
        self, upstream: Upstream, lane: Lane, stream: bool
    ) -> None:
        config = {"maxOutputTokens": 90, "thinking_config": {"include_thoughts": True}}
        odd: dict[str, Any] = {"x_odd": {"a": [1, None]}, "safetySettings": [{"category": "X", "threshold": "ü"}]}
        request = asking(stream=stream, cap=50, wish=90, generationConfig=config, model="public", **odd)
        assert request.chat.wire is not None
        before = deepcopy(request.chat.wire.body)
        if stream:
            await streamed(lane.to(upstream.url), request)
        else:
            await lane.to(upstream.url).complete(request)
        sent = upstream.requests[0]
        assert sent.json == {"contents": CONTENTS, **odd, "generationConfig": {**config, "maxOutputTokens": 50}}
        verb = "streamGenerateContent" if stream else "generateContent"
        assert sent.path == f"/v1beta/models/upstream-name:{verb}"
        assert dict(sent.query) == ({"alt": "sse"} if stream else {})
        assert (sent.headers["x-goog-api-key"], sent.headers["x-goog-new"]) == (SECRET, "1")
        assert request.chat.wire.body == before

    @pytest.mark.parametrize(
        ("fields", "more", "sent"),
        [
            ({}, {}, {}),
            ({}, {"cap": 50}, {"generationConfig": {"maxOutputTokens": 50}}),
            ({"generationConfig": {"topK": 1}}, {"cap": 50}, {"generationConfig": {"topK": 1, "maxOutputTokens": 50}}),
            (
                {"generation_config": {"max_output_tokens": 90}},
                {"cap": 50, "wish": 90},
                {"generation_config": {"max_output_tokens": 50}},
            ),
            (
                {"generationConfig": {"maxOutputTokens": 9}},
                {"cap": 50, "wish": 9},
                {"generationConfig": {"maxOutputTokens": 9}},
            ),
            (
                {"generationConfig": {"candidateCount": 4}},
                {"cap": 50, "choices": 4},
                {"generationConfig": {"candidateCount": 4, "maxOutputTokens": 12}},
            ),
            ({}, {"cap": 9000}, {"generationConfig": {"maxOutputTokens": 4000}}),
            (
                {"generationConfig": {"thinkingConfig": {"thinkingBudget": 3000}}},
                {"cap": 2000},
                {"generationConfig": {"thinkingConfig": {"thinkingBudget": 1500}, "maxOutputTokens": 2000}},
            ),
        ],
    )
    async def test_caps(
        self, upstream: Upstream, lane: Lane, fields: dict[str, Any], more: dict[str, Any], sent: dict[str, Any]
    ) -> None:
        await lane.to(upstream.url).complete(asking(**fields, **more))
        assert upstream.requests[0].json == {"contents": CONTENTS, **sent}

    @pytest.mark.parametrize(
        ("upstream_name", "path"),
        [
            ("gemini-x", "models/gemini-x"),
            ("models/gemini-x", "models/gemini-x"),
            ("tunedModels/mine", "tunedModels/mine"),
            ("a b?c", "models/a%20b%3Fc"),
        ],
    )
    def test_the_model_is_a_part_of_the_address(self, upstream_name: str, path: str) -> None:
        assert resource(upstream_name) == path


class TestAnswers:
    async def test_a_whole_answer_is_read_and_kept_byte_for_byte(self, lane: Lane, upstream: Upstream) -> None:
        odd = (
            b'{"candidates": [ {"content":{"parts":[{"text":"hm","thought":true},{"text":"\\u00fc"}]},'
            b'"finishReason":"MAX_TOKENS","of_tomorrow":1.50}], "modelVersion":"m-1", "usageMetadata":'
            b'{"promptTokenCount":10,"candidatesTokenCount":2,"thoughtsTokenCount":3,"cachedContentTokenCount":6}}\n'
        )
        upstream.script(Garbage(odd, content_type="application/json"))
        reply = await lane.to(upstream.url).complete(asking())
        assert (reply.finished.wire, reply.text, reply.finished.upstream_model) == (odd, "ü", "m-1")
        assert reply.finished.reason is FinishReason.LENGTH
        assert reply.finished.usage == Usage(input_tokens=10, output_tokens=5, cache_read_tokens=6, reasoning_tokens=3)

    async def test_a_stream_is_read_from_its_tail_which_is_held_back(self, upstream: Upstream, lane: Lane) -> None:
        usage = scripted.Usage(input=10, output=2, cached=6)
        upstream.script(Answer(text="two wörds", usage=usage, model="m-1"))
        chunks, finished = await streamed(lane.to(upstream.url), asking(stream=True))
        assert chunks[0].read(joined(chunks)).text == "two wörds"
        assert (finished.reason, finished.upstream_model) == (FinishReason.STOP, "m-1")
        assert finished.usage == Usage(input_tokens=10, output_tokens=2, cache_read_tokens=6)
        assert b"finishReason" not in joined(chunks)
        assert finished.wire is not None
        assert b'"finishReason":"STOP"' in finished.wire

    async def test_every_byte_of_a_stream_comes_through(self, lane: Lane) -> None:
        events = (
            candidate("a", **counted(7, 1)),
            candidate("b"),
            {"odd": [1.50]},
            candidate("", "STOP", **counted(7, 2)),
        )
        data = sse(*events, newline=b"\r\n")
        for size in (1, 7, 10_000):
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            async with raw_server(writing(*pieces)) as url:
                chunks, finished = await streamed(lane.to(url), asking(stream=True))
            assert joined(chunks) + (finished.wire or b"") == data
            assert finished.wire == sse(events[-1], newline=b"\r\n")
            assert finished.usage == Usage(input_tokens=7, output_tokens=2)

    async def test_usage_may_come_after_the_end_and_content_after_what_looked_like_it(self, lane: Lane) -> None:
        events = (candidate("a", "STOP"), candidate("b", "STOP"), counted(7, 2))
        async with raw_server(writing(sse(*events))) as url:
            chunks, finished = await streamed(lane.to(url), asking(stream=True))
        assert (joined(chunks), finished.wire) == (sse(*events[:1]), sse(*events[1:]))
        assert finished.usage == Usage(input_tokens=7, output_tokens=2)

    async def test_of_two_candidates_both_must_end(self, lane: Lane) -> None:
        events = (candidate("a"), candidate("b", index=1), candidate("", "STOP"))
        async with raw_server(writing(sse(*events))) as url:
            failure, _ = await failure_of(lane.to(url), asking(stream=True, choices=2))
        assert failure.kind is Failure.DROPPED
        async with raw_server(writing(sse(*events, candidate("", "MAX_TOKENS", 1)))) as url:
            chunks, finished = await streamed(lane.to(url), asking(stream=True, choices=2))
        assert (finished.reason, joined(chunks)) == (FinishReason.STOP, sse(*events))

    async def test_fewer_candidates_than_were_asked_for_are_an_answer(self, lane: Lane) -> None:
        async with raw_server(writing(sse(candidate("a"), candidate("", "STOP")))) as url:
            _, finished = await streamed(lane.to(url), asking(stream=True, choices=2))
        assert finished.reason is FinishReason.STOP

    async def test_a_blocked_prompt_is_an_answer(self, lane: Lane) -> None:
        blocked = {"promptFeedback": {"blockReason": "SAFETY"}, **counted(7, 0)}
        async with raw_server(writing(sse(blocked))) as url:
            _, finished = await streamed(lane.to(url), asking(stream=True))
        assert (finished.reason, finished.wire) == (FinishReason.CONTENT_FILTER, sse(blocked))
        async with raw_server(writing(orjson.dumps(blocked)), "content-type: application/json") as url:
            assert (await lane.to(url).complete(asking())).finished.reason is FinishReason.CONTENT_FILTER

    @pytest.mark.parametrize("stream", [False, True])
    async def test_calls_are_counted_where_the_provider_counts_nothing(
        self, upstream: Upstream, lane: Lane, stream: bool
    ) -> None:
        upstream.script(Answer(text="let me ", tool_calls=(WEATHER,), usage=NoUsage()))
        if stream:
            chunks, finished = await streamed(lane.to(upstream.url), asking(stream=True))
            text = chunks[0].read(joined(chunks)).text
        else:
            reply = await lane.to(upstream.url).complete(asking())
            finished, text = reply.finished, reply.text
        assert (finished.reason, finished.usage, text) == (FinishReason.TOOL_CALLS, None, "let me " + RIGA)

    def test_all_that_was_generated_is_delivered_with_the_newest_usage(self) -> None:
        parts = [
            {"text": "hm", "thought": True},
            {"executableCode": {"code": "1+1"}},
            {"functionCall": {"name": "f"}},
            5,
        ]
        events = ({"candidates": [{"content": {"parts": parts}}, 5], **counted(7, 1)}, {"candidates": 5}, counted(7, 2))
        told = read_delivered(sse(*events))
        assert (told.text, told.usage) == ("hm1+1{}", Usage(input_tokens=7, output_tokens=2))


class TestFaults:
    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_wait_is_read_from_the_details_and_no_secret_is_told(
        self, upstream: Upstream, lane: Lane, stream: bool
    ) -> None:
        details = [{"@type": "google.rpc.RetryInfo", "retryDelay": "34.5s"}]
        error = {"code": 429, "message": f"slow down {SECRET}", "status": "RESOURCE_EXHAUSTED", "details": details}
        upstream.script(Fail(status=429, body={"error": error}))
        failure, _ = await failure_of(lane.to(upstream.url), asking(stream=stream))
        assert (failure.kind, failure.retry_after_s) == (Failure.RATE_LIMITED, 34.5)
        assert SECRET not in failure.message

    async def test_a_refused_key_is_the_operators_business(self, upstream: Upstream, lane: Lane) -> None:
        details = [{"@type": "google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
        upstream.script(Fail(status=400, body={"error": {"code": 400, "message": "no", "details": details}}))
        failure, _ = await failure_of(lane.to(upstream.url), asking())
        assert failure.kind is Failure.CREDENTIALS

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (b"[1]", Failure.MALFORMED),
            (b"{}", Failure.MALFORMED),
            (b'{"candidates": []}', Failure.MALFORMED),
            (b'{"candidates": [{"content": {"parts": [{"text": "x"}]}}]}', Failure.MALFORMED),
            (b'{"candidates": [{"finishReason": "FINISH_REASON_UNSPECIFIED"}]}', Failure.MALFORMED),
            (b'{"error": {"code": 503, "message": "x"}}', Failure.SERVER),
        ],
    )
    async def test_what_is_no_answer_fails(self, upstream: Upstream, lane: Lane, body: bytes, kind: Failure) -> None:
        upstream.script(Garbage(body, content_type="application/json"))
        failure, _ = await failure_of(lane.to(upstream.url), asking())
        assert failure.kind is kind

    @pytest.mark.parametrize(
        ("behaviour", "kind"),
        [
            (ErrorEvent(1, status=429, answer=Answer(chunks=("one ", "two"))), Failure.RATE_LIMITED),
            (CutAfter(1, answer=Answer(chunks=("one ", "two"))), Failure.DROPPED),
        ],
        ids=repr,
    )
    async def test_a_stream_that_breaks_has_given_what_it_had(
        self, upstream: Upstream, lane: Lane, behaviour: Any, kind: Failure
    ) -> None:
        upstream.script(behaviour)
        failure, delivered = await failure_of(lane.to(upstream.url), asking(stream=True))
        assert failure.kind is kind
        assert read_delivered(delivered).text == "one "

    @pytest.mark.parametrize("odd", [{"index": []}, {"content": 5}, {"finishReason": 5}, {"content": {"parts": [5]}}])
    async def test_odd_candidates_are_no_fault_of_ours(self, lane: Lane, odd: dict[str, Any]) -> None:
        events = ({"candidates": [{**odd, "finishReason": odd.get("finishReason", "STOP")}]}, candidate("", "STOP"))
        async with raw_server(writing(sse(*events))) as url:
            chunks, finished = await streamed(lane.to(url), asking(stream=True))
        assert joined(chunks) + (finished.wire or b"") == sse(*events)
