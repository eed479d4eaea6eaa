"""Tools whose names their provider does not take."""

import re
from typing import Any

import pytest

from src.domain.completion.content import ToolCall, ToolResult
from src.domain.completion.deltas import TextDelta, ToolCallDelta
from src.domain.completion.model import (
    ChatMessage,
    ChatRequest,
    ChatRole,
    Finished,
    FinishReason,
    Reply,
    UpstreamRequest,
)
from src.domain.completion.tools import Tool, ToolChoice, ToolUse
from src.integrations.llm.tool_names import ANTHROPICS, GOOGLES, OPENAIS, FittingToolNames
from tests.unit.support import make_model
from tests.unit.test_custom_tools import Recording

DONE = Finished(reason=FinishReason.TOOL_CALLS)


def asking(*names: str) -> UpstreamRequest:
    """A talk in which every tool was called."""
    calls = tuple(ToolCall(id=name, name=name, arguments="{}") for name in names)
    results = tuple(ToolResult(call_id=name, name=name, content=()) for name in names)
    chat = ChatRequest(
        messages=(ChatMessage(role=ChatRole.ASSISTANT, parts=calls), ChatMessage(role=ChatRole.USER, parts=results)),
        tools=tuple(Tool(name=name) for name in names),
        tool_choice=ToolChoice(use=ToolUse.REQUIRED, names=names[:1]),
    )
    return UpstreamRequest(model=make_model(), chat=chat)


def named(request: UpstreamRequest) -> list[str]:
    parts: Any = [part for message in request.chat.messages for part in message.parts]
    assert request.chat.tool_choice.names == (request.chat.tools[0].name,)
    names = [tool.name for tool in request.chat.tools]
    assert [part.name for part in parts] == names * 2
    return names


@pytest.mark.parametrize("fitting", [OPENAIS, ANTHROPICS, GOOGLES])
async def test_names_are_made_to_fit_and_calls_bear_the_own_ones(fitting: re.Pattern[str]) -> None:
    own = ("crm.find", "crm:find", "crm_find", "1-st", "wetter für", "\ud800", "a" * 200, "a" * 199 + "b")
    calls = tuple(ToolCall(id=name, name=name, arguments="{}") for name in own)
    inner = Recording()
    model = FittingToolNames(inner, fitting)
    assert [event async for event in model.stream(asking(*own))] == []
    told = named(inner.asked[0])
    assert len(set(told)) == len(own)
    assert all(fitting.fullmatch(name) for name in told)
    assert told[2] == "crm_find"
    called = tuple(ToolCall(id=name, name=made, arguments="{}") for name, made in zip(own, told, strict=True))
    finished = Finished(reason=FinishReason.TOOL_CALLS, parts=called)
    deltas = [ToolCallDelta(index, each.id, each.name, "{}") for index, each in enumerate(called)]
    other = (TextDelta("a"), ToolCallDelta(0, arguments="{}"), ToolCallDelta(9, "x", "nobodys"))
    inner = Recording(*deltas, *other, finished, reply=Reply(finished=finished, parts=called))
    model = FittingToolNames(inner, fitting)
    streamed = [event async for event in model.stream(asking(*own))]
    assert [event.name for event in streamed[: len(own)] if isinstance(event, ToolCallDelta)] == list(own)
    assert streamed[len(own) :] == [*other, Finished(reason=FinishReason.TOOL_CALLS, parts=calls)]
    whole = await model.complete(asking(*own))
    assert whole.parts == whole.finished.parts == calls


async def test_a_name_that_fits_stays_and_is_nobody_elses() -> None:
    inner = Recording(DONE)
    request = asking("a_b", "a-b")
    assert [event async for event in FittingToolNames(inner, OPENAIS).stream(request)] == [DONE]
    assert inner.asked == [request]
    inner = Recording(DONE)
    assert [event async for event in FittingToolNames(inner, OPENAIS).stream(asking("a.b", "a_b"))] == [DONE]
    changed, kept = named(inner.asked[0])
    assert (changed.startswith("a_b_"), kept) == (True, "a_b")
