"""Every provider's adapter keeps the same contract, against a real server that speaks the provider's format."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio

from src.domain.catalog.model import Capabilities, Model, Provider, ProviderKind, Usage, WireFormat
from src.domain.completion.deltas import TextDelta
from src.domain.completion.model import (
    ChatMessage,
    ChatRequest,
    ChatRole,
    Dropped,
    Failure,
    Finished,
    FinishReason,
    Parameters,
    UpstreamEvent,
    UpstreamFailed,
    UpstreamRequest,
    WireBody,
)
from src.domain.completion.ports import ChatModel
from src.integrations.llm.build import ProviderModels
from src.integrations.llm.compatible_servers import STANDARD_PROVIDERS
from tests.support.upstream import (
    Answer,
    Behaviour,
    CutAfter,
    ErrorEvent,
    Fail,
    Garbage,
    Hang,
    MalformedChunk,
    NoUsage,
    ResetBeforeAnswer,
    Upstream,
)
from tests.support.upstream import Usage as Claim

KEY = "sk-secret-of-the-operator"
READ_TIMEOUT_S = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One provider, and where its format keeps things."""

    name: str
    provider: str
    cap: tuple[str, ...]
    stop: tuple[str, ...]
    system: Callable[[dict[str, Any]], Any]
    turns: Callable[[dict[str, Any]], list[Any]]


def _openai_turns(body: dict[str, Any]) -> list[Any]:
    return [(m["role"], m["content"]) for m in body["messages"] if m["role"] in ("user", "assistant")]


def _openai_system(body: dict[str, Any]) -> Any:
    return "\n\n".join(m["content"] for m in body["messages"] if m["role"] in ("system", "developer"))


def _anthropic_turns(body: dict[str, Any]) -> list[Any]:
    """Texts of one turn are blocks of one message."""
    said = ((m["role"], [m["content"]] if isinstance(m["content"], str) else m["content"]) for m in body["messages"])
    return [(role, block if isinstance(block, str) else block["text"]) for role, blocks in said for block in blocks]


def _google_turns(body: dict[str, Any]) -> list[Any]:
    roles = {"user": "user", "model": "assistant"}
    return [(roles[c["role"]], c["parts"][0]["text"]) for c in body["contents"]]


LANES = (
    Lane(
        name="openai",
        provider="openai",
        cap=("max_completion_tokens",),
        stop=("stop",),
        system=_openai_system,
        turns=_openai_turns,
    ),
    Lane(
        name="compatible",
        provider="my-vllm",
        cap=("max_tokens",),
        stop=("stop",),
        system=_openai_system,
        turns=_openai_turns,
    ),
    Lane(
        name="anthropic",
        provider="anthropic",
        cap=("max_tokens",),
        stop=("stop_sequences",),
        system=lambda body: body.get("system", ""),
        turns=_anthropic_turns,
    ),
    Lane(
        name="google",
        provider="google",
        cap=("generationConfig", "maxOutputTokens"),
        stop=("generationConfig", "stopSequences"),
        system=lambda body: body["systemInstruction"]["parts"][0]["text"],
        turns=_google_turns,
    ),
)


@pytest.fixture(params=LANES, ids=lambda lane: lane.name)
def lane(request: pytest.FixtureRequest) -> Lane:
    chosen: Lane = request.param
    return chosen


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def provider_models(upstream: Upstream, read_timeout_s: float) -> ProviderModels:
    return ProviderModels(
        secrets={"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY, "GEMINI_API_KEY": KEY},
        base_urls={
            "OPENAI_BASE_URL": upstream.openai_base_url,
            "ANTHROPIC_BASE_URL": upstream.anthropic_base_url,
            "GOOGLE_GEMINI_BASE_URL": upstream.google_base_url,
        },
        connect_timeout_s=1.0,
        read_timeout_s=read_timeout_s,
    )


@pytest_asyncio.fixture
async def models(upstream: Upstream) -> AsyncIterator[ProviderModels]:
    made = provider_models(upstream, READ_TIMEOUT_S)
    yield made
    await made.close()


@pytest_asyncio.fixture
async def patient(upstream: Upstream) -> AsyncIterator[ProviderModels]:
    """Their read timeout does not end a call before the test does."""
    made = provider_models(upstream, 30.0)
    yield made
    await made.close()


def chat_model(models: ProviderModels, lane: Lane, upstream: Upstream) -> ChatModel:
    providers = {provider.name: provider for provider in STANDARD_PROVIDERS}
    own = Provider(name="my-vllm", kind=ProviderKind.OPENAI, base_url=upstream.openai_base_url + "/")
    provider = providers.get(lane.provider, own)
    return models.chat_model(a_model(lane), provider)


def a_model(lane: Lane, *, sampling: bool = True) -> Model:
    return Model(
        name="public-name",
        provider=lane.provider,
        upstream="upstream-name",
        context_window=8000,
        max_output=4096,
        capabilities=Capabilities(sampling=sampling),
    )


def asking(
    lane: Lane,
    text: str = "one two",
    *,
    stream: bool = False,
    cap: int | None = None,
    sampling: bool = True,
    **wishes: Any,
) -> UpstreamRequest:
    chat = ChatRequest(
        messages=(ChatMessage(role=ChatRole.USER, text=text),), parameters=Parameters(**wishes), stream=stream
    )
    return UpstreamRequest(model=a_model(lane, sampling=sampling), chat=chat, output_cap=cap)


def saying(lane: Lane, *said: tuple[str, str]) -> UpstreamRequest:
    messages = tuple(ChatMessage(role=ChatRole(role), text=text) for role, text in said)
    return UpstreamRequest(model=a_model(lane), chat=ChatRequest(messages=messages))


async def answered(model: ChatModel, request: UpstreamRequest) -> tuple[str, Finished]:
    """The text and the end of an answer, streamed or whole."""
    if not request.chat.stream:
        reply = await model.complete(request)
        return reply.text, reply.finished
    events: list[UpstreamEvent] = [event async for event in model.stream(request)]
    assert isinstance(events[-1], Finished)
    pieces = events[1:-1] if isinstance(events[0], Dropped) else events[:-1]
    assert all(isinstance(event, TextDelta) for event in pieces)
    return "".join(event.text for event in events if isinstance(event, TextDelta)), events[-1]


async def failure_of(answer: Awaitable[object]) -> UpstreamFailed:
    with pytest.raises(UpstreamFailed) as caught:
        await answer
    message = caught.value.message
    assert KEY not in message
    assert "://" not in message
    assert "127.0.0.1" not in message
    assert 0 < len(message) <= 500
    return caught.value


def at(body: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        body = body.get(name) if body is not None else None
    return body


class TestAnswers:
    async def test_text_usage_reason_and_model_are_read(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool
    ) -> None:
        upstream.script(Answer(model="served-name"))
        text, finished = await answered(chat_model(models, lane, upstream), asking(lane, stream=stream))
        assert text == "echo: one two"
        assert finished.reason is FinishReason.STOP
        assert finished.usage == Usage(input_tokens=2, output_tokens=3)
        assert finished.upstream_model == "served-name"

    async def test_a_stream_comes_in_pieces(self, upstream: Upstream, models: ProviderModels, lane: Lane) -> None:
        gate = asyncio.Event()
        upstream.script(Answer(chunks=("first ", "second"), gate=gate, gate_after=1))
        async with aclosing(chat_model(models, lane, upstream).stream(asking(lane, stream=True))) as events:
            assert await anext(events) == TextDelta("first ")
            gate.set()
            assert await anext(events) == TextDelta("second")

    async def test_cached_and_thought_tokens_are_counted_in(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool
    ) -> None:
        upstream.script(Claim(input=100, output=50, cached=60, reasoning=20))
        _, finished = await answered(chat_model(models, lane, upstream), asking(lane, stream=stream))
        assert finished.usage is not None
        counted = replace(finished.usage, reasoning_tokens=0)
        assert counted == Usage(input_tokens=100, output_tokens=50, cache_read_tokens=60)

    async def test_tokens_written_to_the_cache_are_counted_in(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool
    ) -> None:
        written = 0 if lane.name == "google" else 30  # Google does not report them
        upstream.script(Claim(input=100, output=50, cached=60, cache_write=30))
        _, finished = await answered(chat_model(models, lane, upstream), asking(lane, stream=stream))
        expected = Usage(input_tokens=100, output_tokens=50, cache_read_tokens=60, cache_write_tokens=written)
        assert finished.usage == expected

    async def test_absurd_usage_is_passed_on(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool
    ) -> None:
        upstream.script(Claim(input=-5, output=9_000_000_000))
        _, finished = await answered(chat_model(models, lane, upstream), asking(lane, stream=stream))
        assert finished.usage is not None
        assert (finished.usage.input_tokens, finished.usage.output_tokens) == (-5, 9_000_000_000)

    async def test_missing_usage_is_none(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool
    ) -> None:
        upstream.script(NoUsage())
        text, finished = await answered(chat_model(models, lane, upstream), asking(lane, stream=stream))
        assert text == "echo: one two"
        assert finished.usage is None

    @pytest.mark.parametrize(
        ("finish", "reason"),
        [
            ("stop", FinishReason.STOP),
            ("length", FinishReason.LENGTH),
            ("content_filter", FinishReason.CONTENT_FILTER),
        ],
    )
    async def test_finish_reasons(
        self,
        upstream: Upstream,
        models: ProviderModels,
        lane: Lane,
        stream: bool,
        finish: Any,
        reason: FinishReason,
    ) -> None:
        upstream.script(Answer(finish=finish))
        _, finished = await answered(chat_model(models, lane, upstream), asking(lane, stream=stream))
        assert finished.reason is reason


class TestRequests:
    async def test_the_cap_is_sent_and_kept(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool
    ) -> None:
        request = asking(lane, stream=stream, cap=2, max_output_tokens=50)
        text, finished = await answered(chat_model(models, lane, upstream), request)
        assert at(upstream.requests[0].json, lane.cap) == 2
        assert text.split() == ["echo:", "one"]
        assert finished.reason is FinishReason.LENGTH

    async def test_without_any_cap_only_anthropic_gets_the_models_maximum(
        self, upstream: Upstream, models: ProviderModels, lane: Lane
    ) -> None:
        await chat_model(models, lane, upstream).complete(asking(lane))
        assert at(upstream.requests[0].json, lane.cap) == (4096 if lane.name == "anthropic" else None)

    async def test_the_key_goes_to_the_configured_address(
        self, upstream: Upstream, models: ProviderModels, lane: Lane
    ) -> None:
        await chat_model(models, lane, upstream).complete(asking(lane))
        headers = upstream.requests[0].headers
        sent = headers.get("x-goog-api-key") or headers["authorization"].removeprefix("Bearer ")
        assert sent == ("none" if lane.name == "compatible" else KEY)
        assert upstream.requests[0].path.startswith("/v1/")

    async def test_system_messages_keep_their_order_and_place(
        self, upstream: Upstream, models: ProviderModels, lane: Lane
    ) -> None:
        said = saying(
            lane, ("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("system", "In French."), ("user", "c")
        )
        await chat_model(models, lane, upstream).complete(said)
        body = upstream.requests[0].json
        assert lane.system(body) == "Be brief.\n\nIn French."
        assert lane.turns(body) == [("user", "a"), ("assistant", "b"), ("user", "c")]

    async def test_a_history_may_begin_with_the_assistant_and_repeat_a_role(
        self, upstream: Upstream, models: ProviderModels, lane: Lane
    ) -> None:
        said = saying(lane, ("assistant", "hello"), ("user", "a"), ("user", "b"))
        await chat_model(models, lane, upstream).complete(said)
        turns = lane.turns(upstream.requests[0].json)
        assert turns[-3:] == [("assistant", "hello"), ("user", "a"), ("user", "b")]
        assert turns[0][0] == ("user" if lane.name in ("anthropic", "google") else "assistant")

    async def test_every_parameter_the_format_knows_is_sent(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool
    ) -> None:
        wishes: dict[str, Any] = {
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 7,
            "seed": 3,
            "presence_penalty": 0.1,
            "stop": ("END",),
        }
        await answered(chat_model(models, lane, upstream), asking(lane, stream=stream, **wishes))
        body = upstream.requests[0].json
        assert at(body, lane.stop) == ["END"]
        known = body["generationConfig"] if lane.name == "google" else body
        assert known["temperature"] == 0.5
        assert known.get("top_p", known.get("topP")) == 0.9
        assert (known.get("top_k") or known.get("topK")) == (7 if lane.name in ("anthropic", "google") else None)
        assert known.get("seed") == (None if lane.name == "anthropic" else 3)
        assert ("presence_penalty" in known or "presencePenalty" in known) == (lane.name != "anthropic")
        if lane.name == "anthropic":
            assert upstream.requests[0].headers["anthropic-version"] == "2023-06-01"

    async def test_sampling_is_dropped_where_the_model_has_none(
        self, upstream: Upstream, models: ProviderModels, lane: Lane
    ) -> None:
        request = asking(lane, sampling=False, temperature=0.5, top_p=0.9, top_k=7)
        await chat_model(models, lane, upstream).complete(request)
        body = str(upstream.requests[0].json)
        assert "temperature" not in body
        assert "top" not in body

    async def test_openais_models_without_sampling_get_a_developer_message(
        self, upstream: Upstream, models: ProviderModels
    ) -> None:
        lane = LANES[0]
        chat = ChatRequest(messages=(ChatMessage(role=ChatRole.SYSTEM, text="Be brief."),))
        request = UpstreamRequest(model=a_model(lane, sampling=False), chat=chat)
        await chat_model(models, lane, upstream).complete(request)
        assert upstream.requests[0].json["messages"] == [{"role": "developer", "content": "Be brief."}]

    async def test_what_cannot_be_translated_is_refused(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool
    ) -> None:
        foreign = WireFormat.CHAT_COMPLETIONS if lane.name in ("anthropic", "google") else WireFormat.MESSAGES
        wire = WireBody(format=foreign, body={}, untranslatable=("tools", "images"))
        chat = ChatRequest(messages=(ChatMessage(role=ChatRole.USER, text="a"),), stream=stream, wire=wire)
        request = UpstreamRequest(model=a_model(lane), chat=chat)
        failure = await failure_of(answered(chat_model(models, lane, upstream), request))
        assert failure.kind is Failure.UNSUPPORTED
        assert "public-name: tools, images" in failure.message
        assert upstream.requests == []

    async def test_a_foreign_body_of_text_alone_is_translated(
        self, upstream: Upstream, models: ProviderModels, lane: Lane
    ) -> None:
        foreign = WireFormat.CHAT_COMPLETIONS if lane.name in ("anthropic", "google") else WireFormat.MESSAGES
        wire = WireBody(format=foreign, body={"only": "for its own kind"})
        chat = ChatRequest(messages=(ChatMessage(role=ChatRole.USER, text="a"),), wire=wire)
        reply = await chat_model(models, lane, upstream).complete(UpstreamRequest(model=a_model(lane), chat=chat))
        assert reply.text == "echo: a"
        assert "only" not in upstream.requests[0].json


STATUSES = [
    (400, Failure.CALLER),
    (401, Failure.CREDENTIALS),
    (403, Failure.CREDENTIALS),
    (404, Failure.UNKNOWN_MODEL),
    (408, Failure.TIMEOUT),
    (413, Failure.CALLER),
    (422, Failure.CALLER),
    (429, Failure.RATE_LIMITED),
    (500, Failure.SERVER),
    (503, Failure.SERVER),
    (504, Failure.TIMEOUT),
    (529, Failure.SERVER),
]

BEFORE_THE_ANSWER: list[tuple[Behaviour, Failure]] = [
    (Hang(5), Failure.TIMEOUT),
    (ResetBeforeAnswer(), Failure.DROPPED),
    (Garbage(), Failure.MALFORMED),
    (Garbage(content_type="application/json"), Failure.MALFORMED),
    (Garbage(b"{}", "application/json"), Failure.MALFORMED),
    (Garbage(b'{"choices": [], "candidates": [], "content": null}', "application/json"), Failure.MALFORMED),
    (Garbage(b"[1]", "application/json"), Failure.MALFORMED),
    (Garbage(b"", "text/event-stream"), Failure.MALFORMED),
    (Garbage(status=302), Failure.MALFORMED),
]

LONG = Answer(chunks=("one ", "two ", "three"))
MID_STREAM: list[tuple[Behaviour, Failure]] = [
    (CutAfter(1, answer=LONG), Failure.DROPPED),
    (MalformedChunk(1, answer=LONG), Failure.MALFORMED),
    (ErrorEvent(1, status=503, answer=LONG), Failure.SERVER),
    (ErrorEvent(1, status=429, answer=LONG), Failure.RATE_LIMITED),
    (Hang(5, after=1, answer=LONG), Failure.TIMEOUT),
]


class TestFaults:
    @pytest.mark.parametrize(("status", "kind"), STATUSES)
    async def test_statuses_are_named_and_never_retried(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool, status: int, kind: Failure
    ) -> None:
        upstream.always(Fail(status=status, message="the provider's own words"))
        failure = await failure_of(answered(chat_model(models, lane, upstream), asking(lane, stream=stream)))
        assert (failure.kind, failure.status) == (kind, status)
        assert len(upstream.requests) == 1
        assert ("own words" in failure.message) == (kind is Failure.CALLER)

    async def test_retry_after_is_read(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool
    ) -> None:
        upstream.always(Fail(status=429, headers={"retry-after": "7"}))
        failure = await failure_of(answered(chat_model(models, lane, upstream), asking(lane, stream=stream)))
        assert failure.retry_after_s == 7.0
        assert len(upstream.requests) == 1

    async def test_the_callers_message_is_shortened_and_clean(
        self, upstream: Upstream, models: ProviderModels, lane: Lane
    ) -> None:
        upstream.script(Fail(status=400, message=f"Key {KEY} at https://internal.example/x?key=1 " + "is wrong " * 100))
        failure = await failure_of(chat_model(models, lane, upstream).complete(asking(lane)))
        assert failure.kind is Failure.CALLER
        assert failure.message.startswith("Key [...] at [...] is wrong")
        assert len(failure.message) == 500

    @pytest.mark.parametrize(("behaviour", "kind"), BEFORE_THE_ANSWER, ids=repr)
    async def test_what_is_no_answer_fails(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool, behaviour: Behaviour, kind: Failure
    ) -> None:
        upstream.always(behaviour)
        failure = await failure_of(answered(chat_model(models, lane, upstream), asking(lane, stream=stream)))
        assert failure.kind is kind
        assert len(upstream.requests) == 1

    @pytest.mark.parametrize(("behaviour", "kind"), MID_STREAM, ids=repr)
    async def test_a_stream_that_breaks_has_given_what_it_had(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, behaviour: Behaviour, kind: Failure
    ) -> None:
        upstream.script(behaviour)
        events = chat_model(models, lane, upstream).stream(asking(lane, stream=True))
        assert await anext(events) == TextDelta("one ")
        failure = await failure_of(anext(events))
        assert failure.kind is kind
        assert len(upstream.requests) == 1

    async def test_nobody_there(self, upstream: Upstream, lane: Lane, stream: bool) -> None:
        nowhere = "http://127.0.0.1:1"
        settings = ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL")
        keys = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY, "GOOGLE_API_KEY": KEY}
        models = ProviderModels(keys, dict.fromkeys(settings, nowhere))
        provider = next((p for p in STANDARD_PROVIDERS if p.name == lane.provider), None)
        provider = provider or Provider(name="my-vllm", kind=ProviderKind.OPENAI, base_url=nowhere)
        try:
            model = models.chat_model(a_model(lane), provider)
            failure = await failure_of(answered(model, asking(lane, stream=stream)))
        finally:
            await models.close()
        assert failure.kind is Failure.CONNECT


class TestHangingUp:
    async def test_cancelling_the_task_closes_the_connection(
        self, upstream: Upstream, patient: ProviderModels, lane: Lane, stream: bool
    ) -> None:
        upstream.script(Hang(30, after=1, answer=LONG) if stream else Hang(30))
        asked = asking(lane, stream=stream)
        task = asyncio.create_task(answered(chat_model(patient, lane, upstream), asked))
        await upstream.wait_until(lambda up: bool(up.requests) and up.requests[0].chunks_sent >= int(stream))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.requests[0].wait_disconnected(1.0)

    async def test_closing_the_stream_closes_the_connection(
        self, upstream: Upstream, patient: ProviderModels, lane: Lane
    ) -> None:
        upstream.script(Hang(30, after=1, answer=LONG))
        events = chat_model(patient, lane, upstream).stream(asking(lane, stream=True))
        assert await anext(events) == TextDelta("one ")
        await events.aclose()
        await upstream.requests[0].wait_disconnected(1.0)

    async def test_leaving_a_stream_that_is_faster_than_its_listener_closes_the_connection(
        self, upstream: Upstream, patient: ProviderModels, lane: Lane
    ) -> None:
        upstream.script(Hang(30, after=300, answer=Answer(text="word " * 400, ignores_cap=True)))
        events = chat_model(patient, lane, upstream).stream(asking(lane, stream=True))
        assert await anext(events) == TextDelta("word ")
        await upstream.wait_until(lambda up: up.requests[0].chunks_sent == 300)
        await anext(events)
        await events.aclose()
        await upstream.requests[0].wait_disconnected(1.0)

    async def test_the_connection_serves_again_after_a_stream(
        self, upstream: Upstream, models: ProviderModels, lane: Lane
    ) -> None:
        model = chat_model(models, lane, upstream)
        for _ in range(5):
            await answered(model, asking(lane, stream=True))
        assert upstream.in_flight == 0
        assert len(upstream.requests) == 5


class TestConfiguration:
    async def test_a_missing_key_is_named(self) -> None:
        models = ProviderModels({"OPENAI_API_KEY": ""})
        for provider, words in (
            ("openai", "The provider openai has no API key here: an operator must set OPENAI_API_KEY."),
            ("google", "an operator must set GOOGLE_API_KEY or GEMINI_API_KEY."),
            ("openrouter", "an operator must set OPENROUTER_API_KEY."),
            ("builtin", "switched off"),
        ):
            row = next(row for row in STANDARD_PROVIDERS if row.name == provider)
            assert not models.is_ready(row)
            with pytest.raises(UpstreamFailed) as caught:
                models.chat_model(a_model(LANES[0]), row)
            assert caught.value.kind is Failure.CREDENTIALS
            assert words in caught.value.message
        await models.close()

    async def test_a_provider_without_key_setting_is_ready(self) -> None:
        models = ProviderModels({})
        assert models.is_ready(Provider(name="vllm", kind=ProviderKind.OPENAI, base_url="http://127.0.0.1:1/v1"))
        await models.close()

    async def test_same_dialect_bodies_are_relayed(self, upstream: Upstream, models: ProviderModels) -> None:
        body = {
            "model": "public-name",
            "messages": [{"role": "user", "content": "a"}],
            "max_tokens": 9,
            "x_odd": {"x": 1},
        }
        for lane, dialect in ((LANES[0], WireFormat.CHAT_COMPLETIONS), (LANES[2], WireFormat.MESSAGES)):
            wire = WireBody(
                format=dialect, body=body, headers={"anthropic-version": "2023-06-01"}, untranslatable=("tools",)
            )
            request = UpstreamRequest(model=a_model(lane), chat=ChatRequest(messages=(), wire=wire), output_cap=5)
            reply = await chat_model(models, lane, upstream).complete(request)
            sent = upstream.requests[-1]
            assert reply.finished.wire is not None
            assert sent.json == {**body, "model": "upstream-name", "max_tokens": 5}
            assert KEY in (sent.headers.get("x-api-key"), sent.headers.get("authorization", "")[len("Bearer ") :])

    def test_the_sdks_are_not_imported_before_they_are_needed(self) -> None:
        program = (
            "import sys, src.integrations.llm.build, src.integrations.llm.token_meter\n"
            "loaded = {'openai', 'anthropic', 'google.genai', 'splintr', 'xllamacpp'} & set(sys.modules)\n"
            "assert not loaded, loaded"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
