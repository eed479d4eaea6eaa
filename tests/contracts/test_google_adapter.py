"""Google's models through their SDK: thoughts, calls and their signatures, there and back again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from src.domain.catalog.model import Model, Provider, ProviderKind, WireFormat
from src.domain.completion.content import Opaque, Text, Thinking, ToolCall, ToolResult
from src.domain.completion.deltas import PartDelta, ToolCallDelta, parts_of
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
    WireChunk,
)
from src.domain.completion.ports import ChatModel
from src.domain.completion.tools import Reasoning, ResponseFormat, Tool
from src.integrations.llm.build import ProviderModels
from tests.support.upstream import Answer, Garbage, Mind, Upstream
from tests.support.upstream import ToolCall as Called

GOOGLE = WireFormat.GENERATE_CONTENT
MODEL = Model(name="m", provider="google", upstream="gemini-3-flash", context_window=9000, max_output=900)
PROVIDER = Provider(name="google", kind=ProviderKind.GOOGLE, api_key_env="GOOGLE_API_KEY")
CALLED = Called(name="weather", arguments={"q": 2})
WEATHER = Tool(
    name="weather", schema={"type": "object", "properties": {"q": {"$ref": "#/$defs/q"}}, "$defs": {"q": {}}}
)


@pytest_asyncio.fixture
async def google(upstream: Upstream) -> AsyncIterator[ChatModel]:
    models = ProviderModels({"GOOGLE_API_KEY": "k"}, {"GOOGLE_GEMINI_BASE_URL": upstream.google_base_url})
    yield models.chat_model(MODEL, PROVIDER)
    await models.close()


def asking(*messages: ChatMessage, **given: Any) -> UpstreamRequest:
    return UpstreamRequest(model=MODEL, chat=ChatRequest(messages=messages, **given))


def by_user(*parts: Any) -> ChatMessage:
    return ChatMessage(role=ChatRole.USER, parts=parts)


async def answered(model: ChatModel, request: UpstreamRequest, *, stream: bool) -> tuple[tuple[Any, ...], Finished]:
    """The parts of an answer and its end, whole or put together."""
    if not stream:
        reply = await model.complete(request)
        return reply.parts or ((Text(text=reply.text),) if reply.text else ()), reply.finished
    deltas: list[PartDelta] = []
    async for event in model.stream(replace(request, chat=replace(request.chat, stream=True))):
        if isinstance(event, Finished):
            return parts_of(deltas), event
        assert not isinstance(event, Dropped | WireChunk)
        deltas.append(event)
    raise AssertionError("the answer has no end")


BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@BOTH
async def test_signatures_of_calls_go_back_where_they_came_from(
    upstream: Upstream, google: ChatModel, stream: bool
) -> None:
    upstream.script(Answer(text="", thinking="hm", tool_calls=(Called(name="weather", arguments={"q": 1}), CALLED)))
    upstream.always(Mind())
    thinking = Parameters(reasoning=Reasoning(effort="low", shown=True))
    question = by_user(Text(text="how warm?"))
    parts, finished = await answered(google, asking(question, tools=(WEATHER,), parameters=thinking), stream=stream)
    thought, first, second = parts
    assert thought == Thinking(text="hm", origin=GOOGLE)
    assert isinstance(first, ToolCall)
    assert isinstance(second, ToolCall)
    assert (first.name, first.arguments) == ("weather", '{"q":1}')
    assert (bool(first.signature), second.signature, first.id != second.id) == (True, None, True)
    assert finished.reason is FinishReason.TOOL_CALLS
    assert finished.usage is not None
    assert 0 < finished.usage.reasoning_tokens < finished.usage.output_tokens
    results = (ToolResult(call_id=each.id, content=(Text(text="warm"),)) for each in (first, second))
    told = asking(question, ChatMessage(role=ChatRole.ASSISTANT, parts=parts), by_user(*results), tools=(WEATHER,))
    parts, finished = await answered(google, told, stream=stream)
    assert (parts, finished.reason) == ((Text(text="result: warm warm"),), FinishReason.STOP)


@BOTH
async def test_answers_fit_their_schema(upstream: Upstream, google: ChatModel, stream: bool) -> None:
    upstream.always(Mind())
    schema = {"type": "object", "properties": {"a": {"const": 5}}, "additionalProperties": False}
    wanted = Parameters(response_format=ResponseFormat(schema=schema))
    parts, _ = await answered(google, asking(by_user(Text(text="x")), parameters=wanted), stream=stream)
    assert parts == (Text(text='{"a":5}'),)


@BOTH
async def test_parts_that_only_google_knows_are_kept_as_they_are(
    upstream: Upstream, google: ChatModel, stream: bool
) -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "1+1"}}
    upstream.always(Answer(text="so", extra_items=(code,)))
    question = by_user(Text(text="x"))
    parts, _ = await answered(google, asking(question), stream=stream)
    assert parts == (Text(text="so"), Opaque(format=GOOGLE, body=code))
    said = asking(question, ChatMessage(role=ChatRole.ASSISTANT, parts=parts), question)
    await answered(google, said, stream=stream)
    assert upstream.requests[-1].json["contents"][1]["parts"] == [{"text": "so"}, code]


@BOTH
async def test_calls_without_ids_are_given_some(upstream: Upstream, google: ChatModel, stream: bool) -> None:
    body = b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}},{"functionCall":{"name":"f"}}]},'
    body += b'"finishReason":"STOP"}]}'
    upstream.always(
        Garbage(b"data: " + body + b"\r\n\r\n", "text/event-stream") if stream else Garbage(body, "application/json")
    )
    parts, _ = await answered(google, asking(by_user(Text(text="x"))), stream=stream)
    assert [part.arguments for part in parts] == ["{}", "{}"]
    assert len({part.id for part in parts} - {""}) == 2


@BOTH
@pytest.mark.parametrize("reason", [b"MALFORMED_FUNCTION_CALL", b"TOO_MANY_TOOL_CALLS", b"OTHER"])
async def test_an_answer_that_the_model_did_not_get_right_is_tried_elsewhere(
    upstream: Upstream, google: ChatModel, stream: bool, reason: bytes
) -> None:
    body = b'{"candidates":[{"content":{"parts":[]},"finishReason":"%s"}]}' % reason
    upstream.always(
        Garbage(b"data: " + body + b"\r\n\r\n", "text/event-stream") if stream else Garbage(body, "application/json")
    )
    with pytest.raises(UpstreamFailed) as caught:
        await answered(google, asking(by_user(Text(text="x"))), stream=stream)
    assert caught.value.kind is Failure.MALFORMED


async def test_calls_of_other_models_in_the_current_turn_are_accepted(upstream: Upstream, google: ChatModel) -> None:
    call = ToolCall(id="toolu_1", name="weather", arguments="{}")
    result = ToolResult(call_id="toolu_1", content=(Text(text="warm"),))
    said = (by_user(Text(text="x")), ChatMessage(role=ChatRole.ASSISTANT, parts=(call,)), by_user(result))
    upstream.always(Mind())
    reply = await google.complete(asking(*said, tools=(WEATHER,)))
    assert reply.text == "result: warm"


async def test_a_stream_gives_each_call_in_one_piece(upstream: Upstream, google: ChatModel) -> None:
    upstream.always(Answer(text="", tool_calls=(Called(name="f", arguments={"a": "ü\0"}), Called(name="g"))))
    request = asking(by_user(Text(text="x")), stream=True)
    found = [event async for event in google.stream(request) if isinstance(event, ToolCallDelta)]
    assert [(each.index, each.name, each.arguments) for each in found] == [
        (0, "f", '{"a":"ü\\u0000"}'),
        (1, "g", "{}"),
    ]
