"""OpenAI chat completions, outwards: every kind of part, whole and in chunks, as the stock SDK reads them."""

import json
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from src.api.dialects.openai.reply import usage_body
from src.api.dialects.openai.request import parse_chat_completion
from src.api.dialects.openai.stream import DONE, OpenAIWriter
from src.api.dialects.signatures import sealed
from src.api.json import dumps
from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.content import Opaque, Part, Refusal, Text, Thinking, ToolCall
from src.domain.completion.deltas import (
    OpaqueDelta,
    PartDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    deltas_of,
)
from src.domain.completion.model import FinishReason, Outcome
from src.domain.ledger.model import CallStatus
from src.shared.money import MicroDollars
from tests.makers import NOW, nobody

OWN, FOREIGN = WireFormat.CHAT_COMPLETIONS, WireFormat.MESSAGES
FUNCTIONS = [{"name": "weather"}]
PIECES: tuple[PartDelta, ...] = (
    ThinkingDelta("h", origin=FOREIGN),
    ThinkingDelta("m", origin=FOREIGN),
    ThinkingDelta(signature="s", origin=FOREIGN),
    ThinkingDelta(signature="secret", redacted=True, origin=FOREIGN),
    ThinkingDelta("so", origin=FOREIGN),
    TextDelta("Let "),
    TextDelta("me see."),
    ToolCallDelta(0, "c1", "weather", ""),
    ToolCallDelta(0, arguments='{"q":'),
    ToolCallDelta(0, arguments="1}"),
    ToolCallDelta(1, "c2", "time", "{}", signature="c2ln"),
)


def writer(**given: Any) -> OpenAIWriter:
    body = {"model": "fast", "messages": [{"role": "user", "content": "x"}], **given}
    return OpenAIWriter(parse_chat_completion(body, {}), nobody())


def outcome(*deltas: PartDelta, reason: FinishReason = FinishReason.STOP) -> Outcome:
    return Outcome(
        id=nobody(),
        status=CallStatus.COMPLETED,
        text="",
        finish_reason=reason,
        usage=Usage(input_tokens=5, output_tokens=9, reasoning_tokens=4),
        cost_micro_usd=MicroDollars(0),
        model=None,
        upstream_model=None,
        attempts=(),
        ended_at=NOW,
        deltas=deltas,
    )


def whole(*deltas: PartDelta, reason: FinishReason = FinishReason.STOP, **given: Any) -> dict[str, Any]:
    body = writer(**given).whole(outcome(*deltas, reason=reason), "m-1")
    ChatCompletion.model_validate_json(dumps(body), strict=True)
    choice: dict[str, Any] = json.loads(dumps(body))["choices"][0]
    return choice


def chunks(*deltas: PartDelta, reason: FinishReason = FinishReason.STOP, **given: Any) -> list[dict[str, Any]]:
    made = writer(stream=True, **given)
    data = made.first("m-1", 5) + b"".join(made.delta(delta) for delta in deltas)
    data += made.last(outcome(*deltas, reason=reason))
    events = data.removesuffix(DONE).decode().split("\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in events if event]


def put_together(*deltas: PartDelta, reason: FinishReason = FinishReason.STOP, **given: Any) -> dict[str, Any]:
    """The choice that the SDK makes of the chunks."""
    state: Any = ChatCompletionStreamState()
    for chunk in chunks(*deltas, reason=reason, **given):
        state.handle_chunk(ChatCompletionChunk.model_validate_json(json.dumps(chunk), strict=True))
    choice: dict[str, Any] = state.current_completion_snapshot.model_dump(exclude_none=True)["choices"][0]
    return choice


def test_a_whole_answer_has_every_part() -> None:
    choice = whole(*PIECES, reason=FinishReason.TOOL_CALLS)
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "Let me see.",
        "refusal": None,
        "annotations": [],
        "reasoning_content": "hm\nso",
        "reasoning_details": [
            {
                "index": 0,
                "type": "reasoning.text",
                "text": "hm",
                "signature": sealed("s", FOREIGN, OWN),
                "format": "unknown",
            },
            {"index": 1, "type": "reasoning.encrypted", "data": sealed("secret", FOREIGN, OWN), "format": "unknown"},
            {
                "index": 2,
                "type": "reasoning.text",
                "text": "so",
                "signature": sealed(None, FOREIGN, OWN),
                "format": "unknown",
            },
        ],
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"q":1}'}},
            {
                "id": "c2",
                "type": "function",
                "function": {"name": "time", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": "c2ln"}},
            },
        ],
    }


def test_chunks_add_up_to_the_whole_answer() -> None:
    told, made = whole(*PIECES, reason=FinishReason.TOOL_CALLS), put_together(*PIECES, reason=FinishReason.TOOL_CALLS)
    for call in made["message"]["tool_calls"]:
        assert call.pop("index", None) is not None
    assert made["finish_reason"] == told["finish_reason"]
    for name in ("content", "reasoning_details", "tool_calls"):
        assert made["message"][name] == told["message"][name]
    assert made["message"]["reasoning_content"] == "hmso"


@pytest.mark.parametrize("origin", [OWN, FOREIGN])
def test_thoughts_before_and_after_words_are_two(origin: WireFormat) -> None:
    deltas = (ThinkingDelta("a", origin=origin), TextDelta("so"), ThinkingDelta("b", origin=origin), TextDelta("!"))
    details = whole(*deltas)["message"]["reasoning_details"]
    assert [each["text"] for each in details] == ["a", "b"]
    assert put_together(*deltas)["message"]["reasoning_details"] == details


@pytest.mark.parametrize("form", ["whole", "chunks"])
@pytest.mark.parametrize(
    "part",
    [
        Text(text="hi"),
        Refusal(text="no"),
        Thinking(text="hm", signature="s", origin=FOREIGN),
        Thinking(text="hm", signature="s", origin=OWN),
        Thinking(text="hm", origin=FOREIGN),
        Thinking(text="hm", origin=OWN),
        Thinking(signature="secret", redacted=True, origin=FOREIGN),
        ToolCall(id="c", name="f", arguments='{"a":1}', signature="c2ln"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_what_is_answered_comes_back_as_it_was(part: Part, form: str) -> None:
    choice = (whole if form == "whole" else put_together)(*deltas_of([part]))
    message = {"role": "assistant", "content": None, **choice["message"]}
    read = parse_chat_completion({"model": "fast", "messages": [message]}, {}).chat.messages[0]
    assert read.all_parts == (part,)


@pytest.mark.parametrize(
    ("deltas", "content"),
    [
        ((), ""),
        ((TextDelta("a"),), "a"),
        ((ToolCallDelta(0, "c", "f", "{}"),), None),
        ((RefusalDelta("no"),), None),
        ((TextDelta("a"), ToolCallDelta(0, "c", "f", "{}")), "a"),
    ],
)
def test_there_is_no_content_where_nothing_is_said(deltas: tuple[PartDelta, ...], content: str | None) -> None:
    assert whole(*deltas)["message"]["content"] == content
    assert put_together(*deltas)["message"].get("content") == content
    first, *others = chunks(*deltas)
    assert first["choices"][0]["delta"] == {
        "role": "assistant",
        "content": None if content is None else "",
        "refusal": None,
    }
    assert not any("role" in each["choices"][0]["delta"] for each in others)


def test_a_client_of_the_time_before_tools_gets_a_function_call() -> None:
    deltas = (
        ToolCallDelta(0, "c", "weather", '{"q":'),
        ToolCallDelta(0, arguments="1}"),
        ToolCallDelta(1, "d", "x", "{}"),
    )
    called = {"name": "weather", "arguments": '{"q":1}'}
    for form in (whole, put_together):
        choice = form(*deltas, reason=FinishReason.TOOL_CALLS, functions=FUNCTIONS)
        assert (choice["finish_reason"], choice["message"]["function_call"]) == ("function_call", called)
        assert "tool_calls" not in choice["message"]


def test_custom_tools_are_called_with_text() -> None:
    deltas = (ToolCallDelta(0, "c", "code", "1+", is_custom=True), ToolCallDelta(0, arguments="1"))
    called = {"id": "c", "type": "custom", "custom": {"name": "code", "input": "1+1"}}
    assert whole(*deltas)["message"]["tool_calls"] == [called]
    pieces = [call for chunk in chunks(*deltas) for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert pieces == [
        {"index": 0, "id": "c", "type": "custom", "custom": {"name": "code", "input": "1+"}},
        {"index": 0, "custom": {"input": "1"}},
    ]


def test_what_only_another_format_knows_is_not_written() -> None:
    strange = OpaqueDelta(Opaque(format=FOREIGN, body={"type": "server_tool_use"}))
    assert whole(strange, TextDelta("a"))["message"]["content"] == "a"
    assert put_together(strange, TextDelta("a"))["message"]["content"] == "a"


@pytest.mark.parametrize(("reported", "told"), [(4, 4), (-1, 0), (99, 9)])
def test_tokens_of_thoughts_are_some_of_the_output(reported: int, told: int) -> None:
    usage = usage_body(Usage(input_tokens=5, output_tokens=9, reasoning_tokens=reported))
    assert usage["completion_tokens_details"]["reasoning_tokens"] == told
