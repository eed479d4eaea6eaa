"""Free-text tools for models that know functions alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.domain.completion.content import Text, ToolCall, ToolResult
from src.domain.completion.deltas import TextDelta, ToolCallDelta, parts_of
from src.domain.completion.model import (
    ChatMessage,
    ChatRequest,
    ChatRole,
    Finished,
    FinishReason,
    Reply,
    UpstreamEvent,
    UpstreamRequest,
)
from src.domain.completion.ports import ChatModel
from src.domain.completion.tools import Tool
from src.integrations.llm.custom_tools import CustomToolsAsFunctions, free_text
from tests.unit.support import make_model

DONE = Finished(reason=FinishReason.TOOL_CALLS)
PATCH = Tool(name="patch", description="Patches.", is_custom=True)
FIND = Tool(name="find", schema={"type": "object"})


class Recording(ChatModel):
    """Answers with what it was given, and remembers what it was asked."""

    def __init__(self, *events: UpstreamEvent, reply: Reply | None = None) -> None:
        self._events = events
        self._reply = reply
        self.asked: list[UpstreamRequest] = []

    async def complete(self, request: UpstreamRequest) -> Reply:
        self.asked.append(request)
        assert self._reply is not None
        return self._reply

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent]:
        self.asked.append(request)
        for event in self._events:
            yield event


def asking(*tools: Tool, messages: tuple[ChatMessage, ...] = ()) -> UpstreamRequest:
    return UpstreamRequest(model=make_model(), chat=ChatRequest(messages=messages, tools=tools))


async def streamed(*events: UpstreamEvent) -> list[UpstreamEvent]:
    model = CustomToolsAsFunctions(Recording(*events, DONE))
    return [event async for event in model.stream(asking(PATCH, FIND))]


def called(events: list[UpstreamEvent]) -> tuple[Any, ...]:
    return parts_of(event for event in events if isinstance(event, ToolCallDelta | TextDelta))


async def test_a_request_without_them_passes_as_it_is() -> None:
    inner = Recording(TextDelta("a"), DONE, reply=Reply(text="a", finished=DONE))
    request = asking(FIND)
    assert [event async for event in CustomToolsAsFunctions(inner).stream(request)] == [TextDelta("a"), DONE]
    await CustomToolsAsFunctions(inner).complete(request)
    assert [asked is request for asked in inner.asked] == [True, True]


async def test_they_are_offered_as_functions_and_calls_of_them_are_those_of_functions() -> None:
    before = ChatMessage(
        role=ChatRole.ASSISTANT,
        parts=(ToolCall(id="c", name="patch", arguments='a "b"', is_custom=True), Text(text="x")),
    )
    after = ChatMessage(
        role=ChatRole.USER, parts=(ToolResult(call_id="c", content=(Text(text="ok"),), is_custom=True),)
    )
    inner = Recording(reply=Reply(finished=DONE))
    await CustomToolsAsFunctions(inner).complete(asking(PATCH, FIND, messages=(before, after)))
    chat = inner.asked[0].chat
    patch, find = chat.tools
    assert (patch.name, patch.description, patch.is_custom, find) == ("patch", "Patches.", False, FIND)
    assert patch.schema["required"] == ["input"]
    assert chat.messages[0].parts[0] == ToolCall(id="c", name="patch", arguments='{"input":"a \\"b\\""}')
    assert chat.messages[1] == after


async def test_a_whole_answer_calls_them_with_free_text() -> None:
    parts = (
        ToolCall(id="c", name="patch", arguments='{"input": "a\\nb"}'),
        ToolCall(id="d", name="find", arguments='{"input": "as it is"}'),
    )
    inner = Recording(reply=Reply(parts=parts, finished=DONE))
    reply = await CustomToolsAsFunctions(inner).complete(asking(PATCH, FIND))
    assert reply.parts == (ToolCall(id="c", name="patch", arguments="a\nb", is_custom=True), parts[1])


async def test_a_stream_calls_them_with_free_text_as_it_comes() -> None:
    found = await streamed(
        TextDelta("see"),
        ToolCallDelta(0, "c", "patch"),
        ToolCallDelta(0, arguments='{"input": "one '),
        ToolCallDelta(1, "d", "find", '{"input":1}'),
        ToolCallDelta(0, arguments='\\u00e4nd two"}'),
    )
    texts = [event.arguments for event in found if isinstance(event, ToolCallDelta) and event.index == 0]
    assert texts == ["", "one ", "änd two"]
    assert called(found) == (
        Text(text="see"),
        ToolCall(id="c", name="patch", arguments="one änd two", is_custom=True),
        ToolCall(id="d", name="find", arguments='{"input":1}'),
    )
    assert found[-1] == DONE


@given(text=st.text(max_size=30), cuts=st.lists(st.integers(0, 60), max_size=8), escaped=st.booleans())
async def test_a_text_is_the_same_however_its_json_is_cut(text: str, cuts: list[int], escaped: bool) -> None:
    arguments = orjson.dumps({"input": text}).decode()
    if escaped:
        arguments = '{ "input" : "' + "".join(f"\\u{unit:04X}" for unit in _units(text)) + '" }'
    places = sorted({0, len(arguments), *(cut for cut in cuts if cut < len(arguments))})
    pieces = [ToolCallDelta(0, arguments=arguments[start:end]) for start, end in pairwise(places)]
    (call,) = called(await streamed(ToolCallDelta(0, "c", "patch"), *pieces))
    assert call.arguments == text.replace("\0", "\ufffd")


def _units(text: str) -> list[int]:
    data = text.encode("utf-16-be")
    return [int.from_bytes(data[place : place + 2], "big") for place in range(0, len(data), 2)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("", ""),
        ("*** Begin Patch", "*** Begin Patch"),
        ('{"patch": "a"}', '{"patch": "a"}'),
        ('{"why": "so", "input": "a"}', "a"),
        ('{"input": 5}', '{"input": 5}'),
        ('{"input": "cut o', "cut o"),
        ('{"input": "cut \\u00', "cut "),
        ('{"input": "a", "more": "b"}', "a"),
        ('{"input": "half \\ud83d"}', "half ?"),
    ],
)
async def test_arguments_of_another_shape_are_meant_as_they_are(arguments: str, text: str) -> None:
    assert free_text(arguments) == text
    pieces = [ToolCallDelta(0, arguments=char) for char in arguments]
    (call,) = called(await streamed(ToolCallDelta(0, "c", "patch"), *pieces))
    assert call.arguments == text
