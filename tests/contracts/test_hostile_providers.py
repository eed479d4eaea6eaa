"""What no provider should send, in every lane: never an answer, named, in time, in bounded memory, and hung up on."""

from __future__ import annotations

import asyncio
import functools
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from src.domain.catalog.model import Model, Provider, WireFormat
from src.domain.completion.deltas import TextDelta
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
    WireChunk,
)
from src.domain.completion.ports import ChatModel
from src.integrations.llm.build import ProviderModels
from src.integrations.llm.compatible_servers import STANDARD_PROVIDERS
from tests.support.tcp_proxy import Corrupt, Cut, Drip, Fair, Hang, Refuse, Reset, TcpProxy, Weather
from tests.support.upstream import (
    Answer,
    Behaviour,
    ErrorEvent,
    Fail,
    Garbage,
    Interject,
    LyingLength,
    MalformedChunk,
    Upstream,
    gzip_bomb,
)
from tests.support.upstream import Drip as SlowDrip

PATIENCE_S = 0.3
CONNECT_S = 0.2
MIB = 1024 * 1024
QUESTION = "one two three four five six"


@dataclass(frozen=True, slots=True)
class Lane:
    """A provider, and the format of the client's own body where that is relayed to it."""

    provider: str
    relayed: WireFormat | None = None

    def __str__(self) -> str:
        return f"{self.provider}{f' relayed {self.relayed}' if self.relayed else ''}"


LANES = (
    Lane("openai"),
    Lane("anthropic"),
    Lane("google"),
    Lane("openai", WireFormat.CHAT_COMPLETIONS),
    Lane("anthropic", WireFormat.MESSAGES),
    Lane("openai", WireFormat.RESPONSES),
    Lane("google", WireFormat.GENERATE_CONTENT),
)
MESSAGES = {"model": "public", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 1000}
BODIES: dict[WireFormat, dict[str, Any]] = {
    WireFormat.CHAT_COMPLETIONS: MESSAGES,
    WireFormat.MESSAGES: MESSAGES,
    WireFormat.RESPONSES: {"model": "public", "input": QUESTION, "store": False},
    WireFormat.GENERATE_CONTENT: {"contents": [{"role": "user", "parts": [{"text": QUESTION}]}]},
}


@pytest.fixture(params=LANES, ids=str)
def lane(request: pytest.FixtureRequest) -> Lane:
    chosen: Lane = request.param
    return chosen


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest_asyncio.fixture
async def proxy(upstream: Upstream) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(upstream.url) as made:
        yield made


@pytest_asyncio.fixture
async def models(proxy: TcpProxy) -> AsyncIterator[ProviderModels]:
    made = ProviderModels(
        secrets={"OPENAI_API_KEY": "sk-a", "ANTHROPIC_API_KEY": "sk-a", "GEMINI_API_KEY": "sk-a"},
        base_urls={
            "OPENAI_BASE_URL": f"{proxy.url}/v1",
            "ANTHROPIC_BASE_URL": proxy.url,
            "GOOGLE_GEMINI_BASE_URL": proxy.url,
        },
        connect_timeout_s=CONNECT_S,
        read_timeout_s=PATIENCE_S,
    )
    yield made
    await made.close()


@dataclass(slots=True)
class Asked:
    """How a question to a provider went."""

    failed_as: Failure | None = None
    text: str = ""
    has_answer: bool = False

    def hear(self, event: UpstreamEvent) -> None:
        match event:
            case TextDelta(text=text):
                self.text += text
            case WireChunk(data=data, read=read):
                self.text += read(data).text
            case Finished():
                self.has_answer = True


def model_of(models: ProviderModels, lane: Lane) -> tuple[ChatModel, Model]:
    provider: Provider = next(row for row in STANDARD_PROVIDERS if row.name == lane.provider)
    model = Model(name="public", provider=lane.provider, upstream="up", context_window=8000, max_output=4096)
    return models.chat_model(model, provider), model


async def ask(models: ProviderModels, lane: Lane, *, stream: bool) -> Asked:
    chat_model, model = model_of(models, lane)
    wire = None
    if lane.relayed is not None:
        wire = WireBody(format=lane.relayed, body=BODIES[lane.relayed])
    messages = (ChatMessage(role=ChatRole.USER, text=QUESTION),)
    request = UpstreamRequest(model=model, chat=ChatRequest(messages=messages, stream=stream, wire=wire))
    asked = Asked()
    try:
        async with asyncio.timeout(10):
            await _hear(chat_model, request, asked)
    except UpstreamFailed as failure:
        asked.failed_as = failure.kind
    return asked


async def _hear(chat_model: ChatModel, request: UpstreamRequest, asked: Asked) -> None:
    if not request.chat.stream:
        reply = await chat_model.complete(request)
        asked.text, asked.has_answer = reply.text, True
        return
    async with aclosing(chat_model.stream(request)) as events:
        async for event in events:
            asked.hear(event)


async def warm_up(models: ProviderModels, lane: Lane, upstream: Upstream) -> None:
    """SDKs take their time at first use."""
    assert (await ask(models, lane, stream=False)).has_answer
    upstream.requests.clear()


def hundred_megabytes() -> Behaviour:
    return Interject(opening=b"data: ", piece=b"x" * MIB, times=100)


@functools.cache
def bomb() -> Behaviour:
    return gzip_bomb(256)


def no_reason() -> Behaviour:
    return Answer(finish="none")


def json(body: bytes) -> Garbage:
    return Garbage(body, None)


NO_ANSWER = {Failure.MALFORMED, Failure.DROPPED}
TOO_MUCH = {Failure.MALFORMED, Failure.TIMEOUT}
"""Where bytes come slowly, patience ends before the limit is reached."""
NEVER_AN_ANSWER: dict[str, tuple[Callable[[], Behaviour], set[Failure]]] = {
    "a web page": (Garbage, {Failure.MALFORMED}),
    "a web page that is called an answer": (lambda: Garbage(content_type=None), NO_ANSWER),
    "JSON of another shape": (lambda: json(b'{"status": "ok"}'), NO_ANSWER),
    "an answer of the wrong types": (
        lambda: json(b'{"choices": "no", "content": 5, "candidates": {"a": 1}, "type": "message"}'),
        NO_ANSWER,
    ),
    "an answer in a list": (lambda: json(b'[{"choices": []}]'), NO_ANSWER),
    "nothing": (lambda: json(b""), NO_ANSWER),
    "no content": (lambda: Garbage(b"", None, 204), NO_ANSWER | {Failure.SERVER}),
    # Google's streams have no other last word: without it they were cut.
    "an end without a reason": (no_reason, NO_ANSWER),
    "broken JSON": (MalformedChunk, {Failure.MALFORMED}),
    "garbage between events": (lambda: Interject(piece=b"\x00\xff<garbage>\n\n", times=1), {Failure.MALFORMED}),
    "broken compression": (
        lambda: Garbage(b"never compressed", None, headers={"content-encoding": "gzip"}),
        {Failure.MALFORMED},
    ),
    "a redirect": (lambda: Fail(status=307, headers={"location": "http://127.0.0.1:1/"}), {Failure.MALFORMED}),
    "a busy provider": (lambda: Fail(status=529), {Failure.SERVER}),
    "an error as the answer": (lambda: ErrorEvent(after=0, status=429), {Failure.RATE_LIMITED}),
    "an error after the answer has begun": (lambda: ErrorEvent(after=1, status=429), {Failure.RATE_LIMITED}),
}
MANY_HEADERS = Answer(headers={f"x-{number}": "0123456789" for number in range(50)})
NEVER_ENDING: dict[str, tuple[Callable[[], Behaviour], set[Failure]]] = {
    # Google's SDK knows no comments: it takes them for JSON.
    "keep-alives": (
        lambda: Interject(piece=b": keep-alive\n\n", every_s=0.02),
        {Failure.TIMEOUT, Failure.MALFORMED},
    ),
    "blanks": (lambda: Interject(piece=b"\n", every_s=0.02), {Failure.TIMEOUT}),
    "crumbs of an event": (lambda: Interject(opening=b'data: {"', piece=b"x", every_s=0.02), {Failure.TIMEOUT}),
    "headers that drip": (lambda: SlowDrip(every_s=0.05, head=True, answer=MANY_HEADERS), {Failure.TIMEOUT}),
    "a line of 100 MB": (hundred_megabytes, TOO_MUCH),
}


class TestAnswers:
    @pytest.mark.parametrize("name", NEVER_AN_ANSWER)
    async def test_what_is_no_answer_is_a_failure_with_a_name(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool, name: str
    ) -> None:
        behaviour, kinds = NEVER_AN_ANSWER[name]
        if behaviour is no_reason and lane.relayed is WireFormat.RESPONSES:
            return  # whose answers have a status instead
        upstream.always(behaviour())
        asked = await ask(models, lane, stream=stream)
        assert asked.failed_as in kinds
        assert not asked.has_answer

    @pytest.mark.parametrize("name", NEVER_ENDING)
    async def test_what_never_ends_is_ended_and_hung_up_on(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool, name: str
    ) -> None:
        await warm_up(models, lane, upstream)
        behaviour, kinds = NEVER_ENDING[name]
        upstream.always(behaviour())
        asked = await ask(models, lane, stream=stream)
        assert asked.failed_as in kinds
        assert not asked.has_answer
        await upstream.requests[0].wait_disconnected(1.0)

    @pytest.mark.parametrize("made", [hundred_megabytes, bomb], ids=["a line of 100 MB", "a bomb"])
    async def test_what_is_huge_is_refused_in_little_memory(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool, made: Callable[[], Behaviour]
    ) -> None:
        await warm_up(models, lane, upstream)
        upstream.always(made())
        tracemalloc.start()
        try:
            asked = await ask(models, lane, stream=stream)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert asked.failed_as in TOO_MUCH
        assert peak_bytes < 64 * MIB

    async def test_an_endless_error_is_known_by_its_status(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool
    ) -> None:
        await warm_up(models, lane, upstream)
        upstream.always(Fail(status=503, body=b"<" * 2 * MIB))
        asked = await ask(models, lane, stream=stream)
        assert asked.failed_as is Failure.SERVER

    @pytest.mark.parametrize("more", [-30, 200])
    async def test_a_wrong_length_is_a_failure_and_spoils_no_other_answer(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, more: int
    ) -> None:
        await warm_up(models, lane, upstream)
        upstream.script(LyingLength(more))
        asked = await ask(models, lane, stream=False)
        assert asked.failed_as is (Failure.MALFORMED if more < 0 else Failure.TIMEOUT)
        for _ in range(2):
            assert (await ask(models, lane, stream=False)).text == f"echo: {QUESTION}"

    async def test_text_that_cannot_be_stored_is_mended(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool
    ) -> None:
        if lane.relayed:
            return  # its bytes are the client's
        upstream.always(Answer(chunks=("a\x00b ", "c")))
        assert (await ask(models, lane, stream=stream)).text == "a\ufffdb c"


class TestPatience:
    """What is slow but sound is an answer."""

    async def test_a_stream_may_take_longer_than_any_silence(
        self, upstream: Upstream, models: ProviderModels, lane: Lane
    ) -> None:
        await warm_up(models, lane, upstream)
        upstream.always(Answer(chunk_delay_s=PATIENCE_S / 3))
        assert (await ask(models, lane, stream=True)).text == f"echo: {QUESTION}"

    async def test_an_answer_may_come_in_pieces(
        self, upstream: Upstream, models: ProviderModels, lane: Lane, stream: bool
    ) -> None:
        await warm_up(models, lane, upstream)
        upstream.always(SlowDrip(size=100, every_s=0.005))
        assert (await ask(models, lane, stream=stream)).text == f"echo: {QUESTION}"

    async def test_a_stream_may_lack_its_last_word(
        self, upstream: Upstream, models: ProviderModels, lane: Lane
    ) -> None:
        upstream.always(Answer(last_word=False))
        asked = await ask(models, lane, stream=True)
        # In a response that word is the answer's end.
        assert asked.failed_as is (Failure.DROPPED if lane.relayed is WireFormat.RESPONSES else None)
        assert asked.text == f"echo: {QUESTION}"


NETWORK: dict[str, tuple[Weather, set[Failure]]] = {
    "it refuses": (Refuse(), {Failure.CONNECT, Failure.DROPPED}),
    "it hangs": (Hang(), {Failure.TIMEOUT}),
    "it drips": (Drip(size=1, every_s=0.03), {Failure.TIMEOUT}),
    "it resets": (Reset(), {Failure.DROPPED, Failure.CONNECT}),
    "it resets in the head": (Reset(50), {Failure.DROPPED}),
    "it resets in the body": (Reset(700), {Failure.DROPPED}),
    "it cuts": (Cut(), {Failure.DROPPED}),
    "it cuts in the head": (Cut(50), {Failure.DROPPED}),
    "it cuts in the body": (Cut(700), {Failure.DROPPED}),
    "it corrupts": (Corrupt(every=40), {Failure.DROPPED, Failure.MALFORMED}),
}


class TestNetwork:
    @pytest.mark.parametrize("name", NETWORK)
    async def test_bad_weather_is_a_failure_that_passes(
        self, upstream: Upstream, proxy: TcpProxy, models: ProviderModels, lane: Lane, stream: bool, name: str
    ) -> None:
        await warm_up(models, lane, upstream)
        weather, kinds = NETWORK[name]
        upstream.always(Answer(text="word " * 300))
        await proxy.turn(weather)
        asked = await ask(models, lane, stream=stream)
        assert asked.failed_as in kinds
        assert not asked.has_answer
        await proxy.wait_until_open(0, 1.0)
        await proxy.turn(Fair())
        assert (await ask(models, lane, stream=stream)).text == "word " * 300
