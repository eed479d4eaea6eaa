"""Everything that Anthropic's models are asked for and answer, through the SDK, from requests in our own words."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from src.domain.catalog.model import Capabilities, Model, ReasoningStyle, Usage, WireFormat
from src.domain.completion.content import Media, MediaKind, Opaque, Part, Text, Thinking, ToolCall, ToolResult
from src.domain.completion.deltas import TextDelta, ToolCallDelta, parts_of
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
)
from src.domain.completion.ports import ChatModel
from src.domain.completion.tools import Reasoning, ResponseFormat, Tool, ToolChoice, ToolUse
from src.integrations.llm.build import ProviderModels
from src.integrations.llm.compatible_servers import STANDARD_PROVIDERS
from tests.support import upstream as script
from tests.support.upstream import Answer, Garbage, Mind, Upstream, signature_of

OWN = WireFormat.MESSAGES
USER, ASSISTANT = ChatRole.USER, ChatRole.ASSISTANT
WEATHER = Tool(name="weather", schema={"type": "object", "properties": {"q": {"type": "string"}}})
ANTHROPIC = next(provider for provider in STANDARD_PROVIDERS if provider.name == "anthropic")


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as made:
        made.always(Mind())
        yield made


@pytest_asyncio.fixture
async def claude(upstream: Upstream) -> AsyncIterator[ChatModel]:
    models = ProviderModels({"ANTHROPIC_API_KEY": "sk-secret"}, {"ANTHROPIC_BASE_URL": upstream.anthropic_base_url})
    yield models.chat_model(a_model(), ANTHROPIC)
    await models.close()


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def a_model(style: ReasoningStyle = ReasoningStyle.BUDGET) -> Model:
    return Model(
        name="public",
        provider="anthropic",
        upstream="claude-x",
        context_window=100_000,
        max_output=8000,
        capabilities=Capabilities(reasoning=style),
    )


def said(role: ChatRole, *parts: Part) -> ChatMessage:
    return ChatMessage(role=role, text="\n".join(part.text for part in parts if isinstance(part, Text)), parts=parts)


def hello(text: str = "hello") -> ChatMessage:
    return ChatMessage(role=USER, text=text)


async def answered(
    model: ChatModel,
    *messages: ChatMessage,
    stream: bool,
    tools: tuple[Tool, ...] = (),
    choice: ToolChoice | None = None,
    style: ReasoningStyle = ReasoningStyle.BUDGET,
    **parameters: Any,
) -> tuple[tuple[Part, ...], Finished, tuple[str, ...]]:
    """The parts of an answer, its end, and what was left out."""
    chat = ChatRequest(
        messages=messages or (hello(),),
        tools=tools,
        tool_choice=choice or ToolChoice(),
        parameters=Parameters(**parameters),
        stream=stream,
    )
    request = UpstreamRequest(model=a_model(style), chat=chat)
    if not stream:
        reply = await model.complete(request)
        parts = reply.parts or ((Text(text=reply.text),) if reply.text else ())
        assert reply.text == "".join(part.text for part in parts if isinstance(part, Text))
        return parts, reply.finished, reply.dropped
    events: list[UpstreamEvent] = [event async for event in model.stream(request)]
    dropped = events.pop(0) if isinstance(events[0], Dropped) else Dropped(())
    finished = events.pop()
    assert isinstance(dropped, Dropped)
    assert isinstance(finished, Finished)
    return parts_of(events), finished, dropped.names  # type: ignore[arg-type]


async def test_a_tool_is_called_and_answered(claude: ChatModel, stream: bool) -> None:
    parts, finished, _ = await answered(claude, hello("call it"), tools=(WEATHER,), stream=stream)
    (call,) = parts
    assert isinstance(call, ToolCall)
    assert (call.name, json.loads(call.arguments), finished.reason) == (
        "weather",
        {"q": "call it"},
        FinishReason.TOOL_CALLS,
    )
    result = ToolResult(call_id=call.id, content=(Text(text="cold"),))
    parts, finished, dropped = await answered(
        claude, hello("call it"), said(ASSISTANT, call), said(USER, result), tools=(WEATHER,), stream=stream
    )
    assert (parts, finished.reason, dropped) == ((Text(text="result: cold"),), FinishReason.STOP, ())


async def test_a_history_of_tools_needs_none_now(claude: ChatModel, stream: bool) -> None:
    call = ToolCall(id="c1", name="weather", arguments='{"q":"a"}')
    result = ToolResult(call_id="c1", content=(Text(text="cold"),))
    history = (hello("call it"), said(ASSISTANT, call), said(USER, result, Text(text="call again")))
    parts, _, _ = await answered(claude, *history, stream=stream)
    assert parts == (Text(text="result: cold"),)


async def test_a_tool_without_arguments_is_called_with_none(
    upstream: Upstream, claude: ChatModel, stream: bool
) -> None:
    upstream.always(Answer(tool_calls=(script.ToolCall(name="weather", arguments={}),)))
    ((call),), _, _ = await answered(claude, tools=(WEATHER,), stream=stream)
    assert isinstance(call, ToolCall)
    assert call.arguments == "{}"


async def test_two_calls_are_two_though_their_blocks_have_other_numbers(upstream: Upstream, claude: ChatModel) -> None:
    calls = tuple(script.ToolCall(name="weather", arguments={"q": q}) for q in "ab")
    upstream.always(Answer(thinking="hm", text="so", tool_calls=calls))
    request = UpstreamRequest(
        model=a_model(),
        chat=ChatRequest(messages=(hello(),), tools=(WEATHER,), stream=True),
    )
    events = [event async for event in claude.stream(request) if isinstance(event, ToolCallDelta)]
    assert [event.index for event in events if event.name] == [0, 1]
    assert all(event.id is None for event in events if event.name is None)


async def test_thoughts_are_signed_and_go_back(upstream: Upstream, claude: ChatModel, stream: bool) -> None:
    upstream.script(Answer(thinking="hm hm", redacted="secret", text="so"))
    wished: dict[str, Any] = {"reasoning": Reasoning(budget_tokens=2000), "stream": stream}
    parts, finished, dropped = await answered(claude, **wished)
    thought = Thinking(text="hm hm", signature=signature_of("hm hm"), origin=OWN)
    redacted = Thinking(signature="secret", redacted=True, origin=OWN)
    assert (parts, dropped) == ((thought, redacted, Text(text="so")), ())
    assert finished.usage is not None
    assert finished.usage.reasoning_tokens == 2
    assert upstream.requests[0].json["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    parts, _, dropped = await answered(claude, hello(), said(ASSISTANT, *parts), hello("and?"), **wished)
    assert parts[-1] == Text(text="echo: and?")
    assert dropped == ()


async def test_what_others_thought_stays_with_them(upstream: Upstream, claude: ChatModel, stream: bool) -> None:
    theirs = Thinking(text="hm", signature="theirs", origin=WireFormat.RESPONSES)
    parts, _, dropped = await answered(
        claude, hello(), said(ASSISTANT, theirs, Text(text="a")), hello("b"), stream=stream
    )
    assert (parts, dropped) == ((Text(text="echo: b"),), ("thinking",))


@pytest.mark.parametrize("style", [ReasoningStyle.BUDGET, ReasoningStyle.EFFORT])
async def test_a_model_thinks_as_its_style_is(
    upstream: Upstream, claude: ChatModel, stream: bool, style: ReasoningStyle
) -> None:
    parts, _, dropped = await answered(
        claude, style=style, stream=stream, reasoning=Reasoning(effort="low"), temperature=0.5, top_k=3
    )
    assert isinstance(parts[0], Thinking)
    assert parts[0].text == "thinking about hello"
    assert dropped == ("temperature", "top_k")
    sent = upstream.requests[0].json
    assert sent["thinking"]["type"] == ("enabled" if style is ReasoningStyle.BUDGET else "adaptive")
    assert sent.get("output_config") == (None if style is ReasoningStyle.BUDGET else {"effort": "low"})


@pytest.mark.parametrize("style", [ReasoningStyle.BUDGET, ReasoningStyle.EFFORT])
async def test_a_tool_that_must_be_called_is_called_without_thinking(
    claude: ChatModel, stream: bool, style: ReasoningStyle
) -> None:
    parts, _, dropped = await answered(
        claude,
        style=style,
        stream=stream,
        tools=(WEATHER,),
        choice=ToolChoice(use=ToolUse.REQUIRED, names=("weather",)),
        reasoning=Reasoning(effort="high"),
    )
    assert [type(part) for part in parts] == [ToolCall]
    assert dropped == ("reasoning",)


async def test_files_are_seen(claude: ChatModel, stream: bool) -> None:
    png = Media(kind=MediaKind.IMAGE, media_type="image/png", data="iVBORw0KGgo=")
    pdf = Media(kind=MediaKind.DOCUMENT, media_type="application/pdf", data="JVBERi0=", name="a.pdf")
    far = Media(kind=MediaKind.IMAGE, url="https://a.test/b.png")
    parts, _, _ = await answered(claude, said(USER, Text(text="see"), png, pdf, far), stream=stream)
    assert parts == (
        Text(text="image: image/png 8 bytes document: application/pdf 5 bytes image: https://a.test/b.png"),
    )


@pytest.mark.parametrize("schema", [{"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}, None])
async def test_an_answer_is_json(claude: ChatModel, upstream: Upstream, stream: bool, schema: Any) -> None:
    parts, _, dropped = await answered(claude, stream=stream, response_format=ResponseFormat(schema=schema))
    assert dropped == ()
    if schema is None:
        assert "JSON object" in upstream.requests[0].json["system"]
    else:
        assert parts == (Text(text='{"a":1}'),)


async def test_a_stop_sequence_is_told(claude: ChatModel, stream: bool) -> None:
    parts, finished, _ = await answered(claude, hello("one two"), stream=stream, stop=("two",))
    assert parts == (Text(text="echo: one "),)
    assert (finished.reason, finished.stop_sequence) == (FinishReason.STOP, "two")


async def test_a_refusal_is_told(upstream: Upstream, claude: ChatModel, stream: bool) -> None:
    upstream.always(Answer(refusal="no"))
    _, finished, _ = await answered(claude, stream=stream)
    assert finished.reason is FinishReason.CONTENT_FILTER


async def test_blocks_of_its_own_stay_as_they_are(upstream: Upstream, claude: ChatModel, stream: bool) -> None:
    own = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    future = {"type": "of_the_future", "a": [{"b": 1}]}
    upstream.always(Answer(text="so", extra_items=(own, future)))
    parts, _, _ = await answered(claude, stream=stream)
    assert parts == (Text(text="so"), Opaque(format=OWN, body=own), Opaque(format=OWN, body=future))


async def test_cached_tokens_are_counted_in(upstream: Upstream, claude: ChatModel, stream: bool) -> None:
    upstream.always(Answer(usage=script.Usage(input=100, output=50, cached=60, cache_write=30, reasoning=20)))
    _, finished, _ = await answered(claude, stream=stream)
    assert finished.usage == Usage(
        input_tokens=100, output_tokens=50, cache_read_tokens=60, cache_write_tokens=30, reasoning_tokens=20
    )


async def test_surrogates_and_nul_in_arguments_do_no_harm(upstream: Upstream, claude: ChatModel) -> None:
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "tool_use", "id": "t\0", "name": "weather", "input": {"q": "\ud800\0"}}],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    upstream.script(Garbage(json.dumps(body).encode(), "application/json"))
    ((call),), _, _ = await answered(claude, tools=(WEATHER,), stream=False)
    assert isinstance(call, ToolCall)
    assert call.id == "t\ufffd"
    call.arguments.encode()
    assert isinstance(json.loads(call.arguments), dict)


@pytest.mark.parametrize("block", [{"type": "tool_use"}, {"type": "text", "text": 5}, {"no": "type"}, 5])
async def test_blocks_that_are_none_are_malformed(upstream: Upstream, claude: ChatModel, block: Any) -> None:
    body = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [block]}
    body |= {"stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}
    upstream.script(Garbage(json.dumps(body).encode(), "application/json"))
    with pytest.raises(UpstreamFailed) as caught:
        await answered(claude, stream=False)
    assert caught.value.kind is Failure.MALFORMED


async def test_calls_are_told_as_they_come(upstream: Upstream, claude: ChatModel) -> None:
    gate = asyncio.Event()
    upstream.script(Answer(text="so", tool_calls=(script.ToolCall(name="weather"),), gate=gate, gate_after=1))
    chat = ChatRequest(messages=(hello(),), tools=(WEATHER,), stream=True)
    events = claude.stream(UpstreamRequest(model=a_model(), chat=chat))
    assert await anext(events) == TextDelta("so")
    gate.set()
    assert [type(event).__name__ async for event in events][-1] == "Finished"
