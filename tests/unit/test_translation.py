"""What every translation refuses, and what it leaves out of a history."""

import pytest

from src.domain.catalog.model import Model, WireFormat
from src.domain.completion.content import Opaque, Part, Text, ToolCall
from src.domain.completion.model import (
    ChatMessage,
    ChatRequest,
    ChatRole,
    Failure,
    Parameters,
    UpstreamFailed,
    UpstreamRequest,
    WireBody,
)
from src.domain.completion.tools import Tool, ToolChoice, ToolUse
from src.integrations.llm.translation import refuse_many_stops, sayable, strict_left_out

MODEL = Model(name="m", provider="p", upstream="u", context_window=9, max_output=9)
SEARCH = Opaque(format=WireFormat.RESPONSES, body={"type": "web_search_call", "id": "ws_1"})
CODE = Opaque(format=WireFormat.GENERATE_CONTENT, body={"executableCode": {"code": "1"}})
OWN = Opaque(format=WireFormat.MESSAGES, body={"type": "server_tool_use"})


def asking(*said: tuple[Part, ...], **given: object) -> UpstreamRequest:
    messages = tuple(ChatMessage(role=ChatRole.ASSISTANT, parts=parts) for parts in said)
    plain = ChatMessage(role=ChatRole.USER, text="hi")
    return UpstreamRequest(model=MODEL, chat=ChatRequest(messages=(*messages, plain), **given))  # type: ignore[arg-type]


def test_items_of_other_formats_are_left_out_of_the_history_and_named() -> None:
    request = asking((SEARCH,), (Text(text="a"), CODE, OWN, SEARCH), ())
    left, names = sayable(request, WireFormat.MESSAGES)
    assert [message.parts for message in left.chat.messages] == [(Text(text="a"), OWN), (), ()]
    assert names == ("items[web_search_call]", "items[executableCode]")


def test_a_history_without_such_items_stays_as_it_is() -> None:
    request = asking((OWN, ToolCall(id="c", name="f", arguments="{}")))
    assert sayable(request, WireFormat.MESSAGES) == (request, ())


def test_what_is_new_and_cannot_be_said_is_refused() -> None:
    wire = WireBody(format=WireFormat.RESPONSES, body={}, untranslatable=("web_search_call",))
    with pytest.raises(UpstreamFailed, match="web_search_call") as caught:
        sayable(asking((SEARCH,), wire=wire), WireFormat.MESSAGES)
    assert caught.value.kind is Failure.UNSUPPORTED


def test_a_tool_that_must_be_called_must_be_there() -> None:
    def chosen(use: ToolUse, *names: str) -> UpstreamRequest:
        return asking(tools=(Tool(name="f"), Tool(name="g")), tool_choice=ToolChoice(use=use, names=names))

    for request in (chosen(ToolUse.REQUIRED, "x", "g"), chosen(ToolUse.REQUIRED), chosen(ToolUse.AUTO, "x")):
        assert sayable(request, WireFormat.MESSAGES) == (request, ())
    with pytest.raises(UpstreamFailed, match="not among the tools: x, y") as caught:
        sayable(chosen(ToolUse.REQUIRED, "x", "y"), WireFormat.MESSAGES)
    assert caught.value.kind is Failure.UNSUPPORTED


def test_too_many_stop_sequences_are_refused() -> None:
    request = asking(parameters=Parameters(stop=("a", "b", "c")))
    refuse_many_stops(request, 3)
    with pytest.raises(UpstreamFailed, match="at most 2 stop sequences: there are 3") as caught:
        refuse_many_stops(request, 2)
    assert caught.value.kind is Failure.UNSUPPORTED


@pytest.mark.parametrize(("strict", "names"), [(True, ("tools.strict",)), (False, ()), (None, ())])
def test_strict_tools_are_named_where_they_cannot_be_said(strict: bool | None, names: tuple[str, ...]) -> None:
    assert strict_left_out(ChatRequest(messages=(), tools=(Tool(name="f", strict=strict),))) == names
