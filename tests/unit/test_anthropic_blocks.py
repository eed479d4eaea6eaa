"""Answers in Anthropic's blocks: whole, and as a stream that the stock SDK puts together to the same."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from src.api.dialects.anthropic.reply import AnthropicWriter
from src.api.dialects.anthropic.request import parse_messages
from src.api.dialects.signatures import opened
from src.api.json import dumps
from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.content import Opaque
from src.domain.completion.deltas import (
    OpaqueDelta,
    PartDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from src.domain.completion.model import FinishReason, Outcome
from src.domain.ledger.model import CallStatus
from src.shared.money import MicroDollars
from tests.makers import NOW, nobody

OWN, GOOGLES = WireFormat.MESSAGES, WireFormat.GENERATE_CONTENT
EVENTS: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
ANSWER = nobody()
PARSED = parse_messages({"model": "fast", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}, {})


def outcome_of(deltas: Sequence[PartDelta], **given: Any) -> Outcome:
    base = {"status": CallStatus.COMPLETED, "text": "", "finish_reason": FinishReason.STOP, "model": None}
    base |= {"usage": Usage(input_tokens=10, output_tokens=6, cache_read_tokens=3, reasoning_tokens=4)}
    base |= {"cost_micro_usd": MicroDollars(9), "upstream_model": None, "attempts": (), "ended_at": NOW}
    return Outcome(**{"id": nobody(), "deltas": tuple(deltas), **base, **given})


def whole(*deltas: PartDelta, **given: Any) -> Message:
    body = AnthropicWriter(PARSED, ANSWER).whole(outcome_of(deltas, **given), "fast-2026")
    return Message.model_validate_json(dumps(body), strict=True)


def events(*deltas: PartDelta, **given: Any) -> list[dict[str, Any]]:
    writer = AnthropicWriter(PARSED, ANSWER)
    data = writer.first("fast-2026", 7) + b"".join(map(writer.delta, deltas)) + writer.last(outcome_of(deltas, **given))
    found = []
    for block in data.decode().removesuffix("\n\n").split("\n\n"):
        name, payload = block.split("\n")
        found.append(json.loads(payload.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def streamed(*deltas: PartDelta, **given: Any) -> Message:
    """As the SDK puts it together, which knows one open block at a time."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    is_open: int | None = None
    for body in events(*deltas, **given):
        if body["type"] == "ping":
            continue
        if body["type"] == "content_block_start":
            assert is_open is None
            is_open = body["index"]
        elif body["type"].startswith("content_block"):
            assert body["index"] == is_open
            is_open = None if body["type"] == "content_block_stop" else is_open
        event = EVENTS.validate_json(json.dumps(body), strict=True)
        snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    assert is_open is None
    return Message.model_validate(snapshot.to_dict())


def call(index: int, arguments: str, **more: Any) -> ToolCallDelta:
    return ToolCallDelta(index, f"call_{index}", f"tool{index}", arguments, **more)


def blocks(message: Message) -> list[dict[str, Any]]:
    return [{name: value for name, value in block.to_dict().items() if value is not None} for block in message.content]


PIECES: list[PartDelta] = [
    ThinkingDelta("let me ", origin=OWN),
    ThinkingDelta("see"),
    ThinkingDelta(signature="mine", origin=OWN),
    ThinkingDelta(signature="secret", redacted=True, origin=OWN),
    TextDelta("I "),
    TextDelta("look."),
    call(0, '{"city":'),
    ToolCallDelta(0, arguments='"Malmö"}'),
    call(1, "{}"),
]


@pytest.mark.parametrize("write", [whole, streamed])
def test_every_kind_of_part_is_a_block_in_its_place(write: Any) -> None:
    message = write(*PIECES, finish_reason=FinishReason.TOOL_CALLS)
    assert blocks(message) == [
        {"type": "thinking", "thinking": "let me see", "signature": "mine"},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "call_0", "name": "tool0", "input": {"city": "Malmö"}},
        {"type": "tool_use", "id": "call_1", "name": "tool1", "input": {}},
    ]
    assert (message.stop_reason, message.stop_sequence, message.stop_details) == ("tool_use", None, None)
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (7, 3, 6)
    assert usage.output_tokens_details is not None
    assert usage.output_tokens_details.thinking_tokens == 4


@pytest.mark.parametrize("write", [whole, streamed])
@pytest.mark.parametrize(
    "thought",
    [
        ThinkingDelta("hm", signature="theirs", origin=GOOGLES),
        ThinkingDelta("hm", origin=GOOGLES),
        ThinkingDelta(signature="theirs", redacted=True, origin=GOOGLES),
    ],
)
def test_thoughts_of_others_come_back_as_theirs(write: Any, thought: ThinkingDelta) -> None:
    (block, _) = blocks(write(thought, TextDelta("so")))
    assert block["type"] == ("redacted_thinking" if thought.redacted else "thinking")
    assert opened(block.get("signature") or block["data"], OWN) == (thought.signature, GOOGLES)


@pytest.mark.parametrize("write", [whole, streamed])
def test_a_signature_of_googles_goes_with_its_call(write: Any) -> None:
    (block,) = blocks(write(call(0, "{}", signature="sig"), finish_reason=FinishReason.TOOL_CALLS))
    assert block["extra_content"] == {"google": {"thought_signature": "sig"}}


@pytest.mark.parametrize("write", [whole, streamed])
@pytest.mark.parametrize(
    ("deltas", "given", "expected"),
    [
        ([TextDelta("a")], {}, ("end_turn", None)),
        ([], {}, ("end_turn", None)),
        ([TextDelta("a")], {"stop_sequence": "END"}, ("stop_sequence", "END")),
        ([TextDelta("a")], {"finish_reason": FinishReason.LENGTH}, ("max_tokens", None)),
        ([RefusalDelta("no")], {}, ("refusal", None)),
        ([TextDelta("a")], {"finish_reason": FinishReason.CONTENT_FILTER}, ("refusal", None)),
        ([call(0, "{}")], {}, ("tool_use", None)),
    ],
)
def test_it_says_why_it_stopped(write: Any, deltas: list[PartDelta], given: Any, expected: tuple[str, Any]) -> None:
    message = write(*deltas, **given)
    assert (message.stop_reason, message.stop_sequence) == expected
    assert (message.stop_details is not None) == (expected[0] == "refusal")


@pytest.mark.parametrize("write", [whole, streamed])
def test_a_refusal_is_text(write: Any) -> None:
    assert blocks(write(RefusalDelta("I "), RefusalDelta("won't"))) == [{"type": "text", "text": "I won't"}]


@pytest.mark.parametrize("arguments", ['{"city": "Mal', "[1]", "5", "Malmö"])
def test_arguments_that_are_no_object_are_kept_as_they_are(arguments: str) -> None:
    (block,) = blocks(whole(call(0, arguments)))
    assert block["input"] == {"_raw": arguments}


def test_a_call_without_arguments_has_an_empty_input() -> None:
    for write in (whole, streamed):
        (block,) = blocks(write(call(0, "")))
        assert block["input"] == {}


def test_a_call_without_an_id_is_given_one_that_stays_the_same() -> None:
    nameless = ToolCallDelta(0, None, "clock", "{}")
    ids = [blocks(write(nameless))[0]["id"] for write in (whole, streamed)]
    assert ids[0] == ids[1]
    assert ids[0].startswith("toolu_")


@pytest.mark.parametrize("write", [whole, streamed])
def test_blocks_of_this_dialect_pass_and_those_of_others_do_not(write: Any) -> None:
    own = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    found = write(
        OpaqueDelta(Opaque(format=OWN, body=own)),
        OpaqueDelta(Opaque(format=GOOGLES, body={"executableCode": {}})),
        TextDelta("so"),
    )
    assert [block["type"] for block in blocks(found)] == ["server_tool_use", "text"]


def test_a_stream_begins_with_its_message_and_a_ping() -> None:
    kinds = [event["type"] for event in events(TextDelta("a"))]
    assert kinds == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_a_stream_tells_no_parts_of_what_was_cached_that_its_end_contradicts() -> None:
    usage = streamed(TextDelta("a"), usage=Usage(input_tokens=10, output_tokens=1, cache_write_tokens=4)).usage
    assert (usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_creation) == (6, 4, None)


def test_calls_that_come_in_turns_are_written_one_after_the_other() -> None:
    pieces = [call(0, '{"a"'), call(1, '{"b"'), TextDelta("!"), *(ToolCallDelta(i, arguments=":1}") for i in (1, 0))]
    assert blocks(streamed(*pieces, finish_reason=FinishReason.TOOL_CALLS)) == [
        {"type": "tool_use", "id": "call_0", "name": "tool0", "input": {"a": 1}},
        {"type": "tool_use", "id": "call_1", "name": "tool1", "input": {"b": 1}},
        {"type": "text", "text": "!"},
    ]


def test_what_waited_for_a_call_goes_on_as_soon_as_that_is_whole() -> None:
    writer = AnthropicWriter(PARSED, ANSWER)
    writer.delta(call(0, '{"a"'))
    assert writer.delta(TextDelta("!")) == b""
    assert b'"text":"!"' in writer.delta(ToolCallDelta(0, arguments=":1}"))


texts = st.builds(TextDelta, st.sampled_from([" ", "\n\n"]) | st.text(min_size=1, max_size=5))
thoughts = st.builds(ThinkingDelta, st.text(min_size=1, max_size=5), st.none() | st.just("s"), origin=st.just(OWN))
calls = st.builds(call, st.integers(0, 2), st.just('{"a":1}'))


@given(st.lists(texts | thoughts | calls, max_size=8))
def test_a_stream_adds_up_to_the_whole_answer(deltas: list[PartDelta]) -> None:
    seen: set[int] = set()
    fresh = [each for each in deltas if not isinstance(each, ToolCallDelta) or not _again(each, seen)]
    assert blocks(streamed(*fresh)) == blocks(whole(*fresh))


def _again(delta: ToolCallDelta, seen: set[int]) -> bool:
    was_there = delta.index in seen
    seen.add(delta.index)
    return was_there


def test_an_answer_without_parts_is_its_text() -> None:
    body = AnthropicWriter(PARSED, ANSWER).whole(replace(outcome_of([]), text="fine"), "fast")
    assert body["content"] == [{"type": "text", "text": "fine", "citations": None}]
