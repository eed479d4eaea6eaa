"""Requests of other dialects at OpenAI and at servers compatible with it: parts there, parts back."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from src.domain.catalog.model import Model, Provider, ProviderKind, WireFormat
from src.domain.completion.content import Media, MediaKind, Refusal, Text, Thinking, ToolCall, ToolResult
from src.domain.completion.deltas import parts_of
from src.domain.completion.model import (
    ChatMessage,
    ChatRequest,
    ChatRole,
    Dropped,
    Failure,
    Finished,
    FinishReason,
    Parameters,
    Reply,
    UpstreamFailed,
    UpstreamRequest,
    WireChunk,
)
from src.domain.completion.ports import ChatModel
from src.domain.completion.tools import Reasoning, ResponseFormat, Tool, ToolChoice, ToolUse
from src.integrations.llm.build import ProviderModels
from tests.support.upstream import Answer, Mind, Upstream
from tests.support.upstream import ToolCall as Made
from tests.support.upstream import Usage as Claim

USER, ASSISTANT = ChatRole.USER, ChatRole.ASSISTANT
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}}
WEATHER = Tool(name="weather", description="How warm it is.", schema=SCHEMA)
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\nrest").decode()
PDF = base64.b64encode(b"%PDF-1.4 rest").decode()


@pytest.fixture(params=["openai", "compatible"])
def provider(request: pytest.FixtureRequest, upstream: Upstream) -> Provider:
    if request.param == "openai":
        return Provider(name="openai", kind=ProviderKind.OPENAI, api_key_env="OPENAI_API_KEY")
    return Provider(name="my-vllm", kind=ProviderKind.OPENAI, base_url=upstream.openai_base_url)


@pytest_asyncio.fixture
async def models(upstream: Upstream) -> AsyncIterator[ProviderModels]:
    upstream.always(Mind())
    made = ProviderModels(
        secrets={"OPENAI_API_KEY": "sk-1"}, base_urls={"OPENAI_BASE_URL": upstream.openai_base_url}, read_timeout_s=5.0
    )
    yield made
    await made.close()


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def model(models: ProviderModels, provider: Provider) -> ChatModel:
    return models.chat_model(named("public"), provider)


def named(upstream_name: str) -> Model:
    return Model(name="public", provider="p", upstream=upstream_name, context_window=8000, max_output=4096)


def asking(
    *messages: ChatMessage, stream: bool = False, upstream_name: str = "gpt-5.2", **chat: Any
) -> UpstreamRequest:
    return UpstreamRequest(model=named(upstream_name), chat=ChatRequest(messages=messages, stream=stream, **chat))


def user(*parts: Any) -> ChatMessage:
    return ChatMessage(role=USER, parts=parts)


def said(text: str) -> ChatMessage:
    return ChatMessage(role=USER, text=text)


def assistant(*parts: Any) -> ChatMessage:
    return ChatMessage(role=ASSISTANT, parts=parts)


async def answered(model: ChatModel, request: UpstreamRequest) -> Reply:
    """The same whole and streamed."""
    if not request.chat.stream:
        reply = await model.complete(request)
        parts = reply.parts or ((Text(text=reply.text),) if reply.text else ())
        return Reply(text=reply.text, finished=reply.finished, parts=parts, dropped=reply.dropped)
    *events, finished = [event async for event in model.stream(request)]
    assert isinstance(finished, Finished)
    dropped = next((event.names for event in events if isinstance(event, Dropped)), ())
    pieces = [event for event in events if not isinstance(event, Dropped | Finished | WireChunk)]
    return Reply(finished=finished, parts=parts_of(pieces), dropped=dropped)


async def test_a_tool_is_called_and_its_result_is_answered(model: ChatModel, stream: bool) -> None:
    reply = await answered(model, asking(said("call twice"), stream=stream, tools=(WEATHER,)))
    assert reply.finished.reason is FinishReason.TOOL_CALLS
    first, second = reply.parts
    assert isinstance(first, ToolCall)
    assert isinstance(second, ToolCall)
    assert (first.name, first.arguments, first.id != second.id) == ("weather", '{"q":"call twice"}', True)
    results = [
        user(ToolResult(call_id=call.id, content=(Text(text=text),))) for call, text in ((first, "a"), (second, "b"))
    ]
    request = asking(said("call twice"), assistant(first, second), *results, stream=stream, tools=(WEATHER,))
    assert (await answered(model, request)).parts == (Text(text="result: a b"),)


async def test_pictures_of_results_follow_all_results(model: ChatModel, upstream: Upstream) -> None:
    picture = Media(kind=MediaKind.IMAGE, media_type="image/png", data=PNG)
    calls = (ToolCall(id="a", name="weather", arguments="{}"), ToolCall(id="b", name="weather", arguments=""))
    request = asking(
        said("show"),
        assistant(*calls),
        user(
            ToolResult(call_id="a", content=(picture,)),
            ToolResult(call_id="b", content=(Text(text="no"),), is_error=True),
        ),
        said("and now?"),
        tools=(WEATHER,),
    )
    await answered(model, request)
    sent = upstream.requests[0].json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "user", "user"]
    assert sent[1]["content"] is None
    assert sent[1]["tool_calls"][1]["function"]["arguments"] == "{}"
    assert [sent[2]["content"], sent[3]["content"]] == ["The result follows as a file.", "Error: no"]
    assert [part["type"] for part in sent[4]["content"]] == ["text", "image_url"]


async def test_files_are_shown(model: ChatModel, upstream: Upstream) -> None:
    await answered(
        model,
        asking(
            user(
                Text(text="See."),
                Media(kind=MediaKind.IMAGE, media_type="image/png", data=PNG, detail="low"),
                Media(kind=MediaKind.IMAGE, url="https://host/cat.png"),
                Media(kind=MediaKind.DOCUMENT, media_type="application/pdf", data=PDF),
                Media(kind=MediaKind.DOCUMENT, media_type="text/plain", data="aGk=", name="hi.txt"),
            )
        ),
    )
    assert upstream.requests[0].json["messages"][0]["content"] == [
        {"type": "text", "text": "See."},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://host/cat.png"}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
        {"type": "text", "text": "hi.txt:\nhi"},
    ]


async def test_sounds_are_played(models: ProviderModels, provider: Provider, upstream: Upstream) -> None:
    hearing = named("gpt-audio")
    hearing = replace(hearing, capabilities=replace(hearing.capabilities, audio=True))
    sound = Media(kind=MediaKind.AUDIO, media_type="audio/mpeg", data="SUQzBA==")
    request = UpstreamRequest(model=hearing, chat=ChatRequest(messages=(user(sound),)))
    await answered(models.chat_model(hearing, provider), request)
    (part,) = upstream.requests[0].json["messages"][0]["content"]
    assert part == {"type": "input_audio", "input_audio": {"data": "SUQzBA==", "format": "mp3"}}


@pytest.mark.parametrize(
    "messages",
    [
        (assistant(Media(kind=MediaKind.IMAGE, data=PNG)), said("x")),
        (user(Media(kind=MediaKind.VIDEO, url="gs://x")),),
        (user(Media(kind=MediaKind.DOCUMENT, url="https://host/a.pdf")),),
    ],
)
async def test_what_openai_cannot_be_told_is_refused(
    models: ProviderModels, upstream: Upstream, messages: tuple[ChatMessage, ...]
) -> None:
    openai = Provider(name="openai", kind=ProviderKind.OPENAI, api_key_env="OPENAI_API_KEY")
    with pytest.raises(UpstreamFailed, match="public") as caught:
        await models.chat_model(named("gpt-5.2"), openai).complete(asking(*messages))
    assert caught.value.kind is Failure.UNSUPPORTED
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (ToolChoice(), None),
        (ToolChoice(use=ToolUse.NONE), "none"),
        (ToolChoice(use=ToolUse.REQUIRED), "required"),
        (ToolChoice(use=ToolUse.REQUIRED, names=("time",)), {"type": "function", "function": {"name": "time"}}),
    ],
)
async def test_the_choice_of_tools_is_said(model: ChatModel, upstream: Upstream, choice: ToolChoice, sent: Any) -> None:
    tools = (WEATHER, Tool(name="time", strict=True))
    reply = await answered(
        model, asking(said("x"), tools=tools, tool_choice=choice, parameters=Parameters(parallel_tool_calls=False))
    )
    body = upstream.requests[0].json
    assert body.get("tool_choice") == sent
    assert body["parallel_tool_calls"] is False
    assert body["tools"][-1] == {"type": "function", "function": {"name": "time", "strict": True}}
    assert reply.dropped == ()


async def test_some_of_the_tools_may_be_allowed(model: ChatModel, provider: Provider, upstream: Upstream) -> None:
    tools = (WEATHER, Tool(name="time"), Tool(name="place"))
    choice = ToolChoice(use=ToolUse.REQUIRED, names=("time", "place"))
    reply = await answered(model, asking(said("x"), tools=tools, tool_choice=choice))
    assert [part.name for part in reply.parts if isinstance(part, ToolCall)] == ["time"]
    body = upstream.requests[0].json
    assert len(body["tools"]) == (3 if provider.name == "openai" else 2)


async def test_a_choice_without_tools_is_left_out_and_named(model: ChatModel, upstream: Upstream) -> None:
    reply = await answered(model, asking(said("x"), tool_choice=ToolChoice(use=ToolUse.REQUIRED)))
    assert reply.dropped == ("tool_choice",)
    assert "tool_choice" not in upstream.requests[0].json


@pytest.mark.parametrize(
    ("wished", "sent"),
    [
        (ResponseFormat(), {"type": "json_object"}),
        (
            ResponseFormat(schema=SCHEMA, name="a city!", strict=True),
            {"type": "json_schema", "json_schema": {"name": "a_city_", "schema": SCHEMA, "strict": True}},
        ),
    ],
)
async def test_the_shape_of_the_answer_is_said(
    model: ChatModel, upstream: Upstream, wished: ResponseFormat, sent: Any
) -> None:
    reply = await answered(model, asking(said("x"), parameters=Parameters(response_format=wished)))
    assert upstream.requests[0].json["response_format"] == sent
    assert reply.dropped == ()


@pytest.mark.parametrize(
    ("upstream_name", "reasoning", "sent"),
    [
        ("gpt-5.2", Reasoning(effort="xhigh"), "xhigh"),
        ("gpt-5.2", Reasoning(budget_tokens=31_999), "high"),
        ("gpt-5.2", Reasoning(budget_tokens=1024), "low"),
        ("gpt-5.2", Reasoning(budget_tokens=0), "none"),
        ("gpt-5-mini", Reasoning(effort="none"), "minimal"),
        ("gpt-5-mini", Reasoning(effort="max"), "high"),
        ("o3", Reasoning(effort="minimal"), "low"),
        ("openai/gpt-oss-120b", Reasoning(effort="max"), "high"),
        ("anthropic/claude-3.7-sonnet", Reasoning(budget_tokens=8192), "medium"),
        ("gpt-5.2", Reasoning(shown=True), None),
    ],
)
async def test_how_hard_to_think_is_said_as_the_model_knows_it(
    model: ChatModel, upstream: Upstream, upstream_name: str, reasoning: Reasoning, sent: str | None
) -> None:
    reply = await answered(
        model, asking(said("x"), upstream_name=upstream_name, parameters=Parameters(reasoning=reasoning))
    )
    assert upstream.requests[0].json.get("reasoning_effort") == sent
    assert reply.dropped == ()


async def test_what_the_format_cannot_say_is_named(model: ChatModel, upstream: Upstream, stream: bool) -> None:
    wished = Parameters(reasoning=Reasoning(effort="low"), logprobs=2, top_k=5)
    reply = await answered(model, asking(said("x"), upstream_name="gpt-4o", stream=stream, parameters=wished))
    assert set(reply.dropped) == {"reasoning", "logprobs", "top_k"}
    assert "reasoning_effort" not in upstream.requests[0].json


async def test_only_servers_own_thoughts_are_told_again(
    model: ChatModel, provider: Provider, upstream: Upstream
) -> None:
    own = Thinking(text="hm", origin=WireFormat.CHAT_COMPLETIONS)
    foreign = Thinking(text="ach", signature="s", origin=WireFormat.MESSAGES)
    turns = (said("a"), assistant(own, Text(text="b")), said("c"))
    upstream.always(Answer(text="fine"))
    is_openai = provider.name == "openai"
    if is_openai:
        reply = await answered(model, asking(*turns))
        assert reply.dropped == ("thinking",)
        assert upstream.requests[0].json["messages"][1] == {"role": "assistant", "content": "b"}
        return
    async with Upstream(lenient=True) as server:
        models = ProviderModels(secrets={}, read_timeout_s=5.0)
        lenient = Provider(name="x", kind=ProviderKind.OPENAI, base_url=server.openai_base_url)
        chat = models.chat_model(named("x"), lenient)
        assert (await answered(chat, asking(*turns))).dropped == ()
        assert server.requests[0].json["messages"][1]["reasoning_content"] == "hm"
        assert (await answered(chat, asking(said("a"), assistant(foreign, Text(text="b"))))).dropped == ("thinking",)
        assert "reasoning_content" not in server.requests[1].json["messages"][1]
        await models.close()


async def test_thoughts_refusals_and_counts_are_read(model: ChatModel, upstream: Upstream, stream: bool) -> None:
    usage = Claim(input=9, output=8, reasoning=3)
    upstream.always(Answer(thinking="hm hm", shows_reasoning=True, refusal="I must not.", usage=usage))
    reply = await answered(model, asking(said("x"), stream=stream))
    assert reply.parts == (
        Thinking(text="hm hm", origin=WireFormat.CHAT_COMPLETIONS),
        Refusal(text="I must not."),
    )
    assert reply.finished.usage is not None
    assert reply.finished.usage.reasoning_tokens == 3


async def test_ids_are_made_to_fit(model: ChatModel, upstream: Upstream) -> None:
    call = ToolCall(id="an id of another provider " * 4, name="weather", arguments="{}")
    turns = (assistant(call), user(ToolResult(call_id=call.id, content=(Text(text="a"),))))
    for upstream_name, longest in (("gpt-5.2", 40), ("mistralai/mistral-large", 9)):
        await answered(model, asking(said("x"), *turns, upstream_name=upstream_name, tools=(WEATHER,)))
        _, called, told = upstream.requests[-1].json["messages"]
        assert called["tool_calls"][0]["id"] == told["tool_call_id"]
        assert len(told["tool_call_id"]) <= longest
        assert told["tool_call_id"].replace("_", "").isalnum()


async def test_a_call_in_an_answer_is_whole(model: ChatModel, upstream: Upstream, stream: bool) -> None:
    upstream.always(Answer(text="Let me see.", tool_calls=(Made(name="weather", arguments={"q": "ü"}, id="c1"),)))
    reply = await answered(model, asking(said("x"), stream=stream, tools=(WEATHER,)))
    assert reply.parts == (
        Text(text="Let me see."),
        ToolCall(id="c1", name="weather", arguments='{"q":"ü"}'),
    )
