"""Answers of OpenAI's chat completions as servers really write them, in our words."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.content import Part, Refusal, Text, Thinking, ToolCall
from src.domain.completion.deltas import parts_of
from src.domain.completion.model import Failure, Finished, FinishReason, UpstreamFailed
from src.integrations.llm.openai.relay_chat import read_usage
from src.integrations.llm.openai.reply import AnswerReader, reply_of

OWN = WireFormat.CHAT_COMPLETIONS


def streamed(*deltas: dict[str, Any], reason: Any = "stop") -> tuple[tuple[Part, ...], Finished]:
    reader = AnswerReader()
    chunks = [{"model": "m-1", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"model": "m-1", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    found = [delta for chunk in chunks for delta in reader.chunk(chunk)]
    return parts_of(found), reader.finished()


def whole(reason: Any = "stop", **message: Any) -> tuple[tuple[Part, ...], Finished]:
    reply = reply_of({"model": "m-1", "choices": [{"message": message, "finish_reason": reason}]})
    return reply.parts or ((Text(text=reply.text),) if reply.text else ()), reply.finished


def calls(*pieces: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and arguments, from pieces of one chunk each."""
    parts, finished = streamed(*({"tool_calls": [piece]} for piece in pieces))
    assert finished.reason is FinishReason.TOOL_CALLS
    made = [part for part in parts if isinstance(part, ToolCall)]
    assert len({call.id for call in made}) == len(made) == len(parts)
    assert all(call.id not in ("", "null") for call in made)
    return [(call.name, call.arguments) for call in made]


def called(name: str | None, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"function": ({"name": name} if name is not None else {}) | {"arguments": arguments}, **more}


BOTH = [("a", '{"x":1}'), ("b", '{"y":2}')]


@pytest.mark.parametrize(
    ("pieces", "made"),
    [
        pytest.param(
            [
                called("a", "", index=0, id="1"),
                called(None, '{"x"', index=0),
                called(None, ":1}", index=0),
                called("b", "", index=1, id="2"),
                called(None, '{"y":2}', index=1),
            ],
            BOTH,
            id="OpenAI",
        ),
        pytest.param(
            [
                called("a", "", index=0, id="1"),
                called("b", "", index=1, id="2"),
                called(None, '{"y":', index=1),
                called(None, '{"x":1}', index=0),
                called(None, "2}", index=1),
            ],
            BOTH,
            id="interleaved",
        ),
        pytest.param([called(*BOTH[0], id="1"), called(*BOTH[1], id="2")], BOTH, id="whole without an index"),
        pytest.param([called(*BOTH[0]), called(*BOTH[1])], BOTH, id="whole without anything"),
        pytest.param([called(*BOTH[0]), called(*BOTH[0])], [BOTH[0]] * 2, id="the same twice without anything"),
        pytest.param([called(*BOTH[0], index=0, id="1"), called(*BOTH[1], index=0, id="2")], BOTH, id="one index"),
        pytest.param([called(*BOTH[0], index=0, id=""), called(*BOTH[1], index=0, id="")], BOTH, id="one index, no id"),
        pytest.param([called(*BOTH[0], index=3, id="1"), called(*BOTH[1], index=7, id="2")], BOTH, id="gaps"),
        pytest.param(
            [called("a", "", index=0, id="1"), called("", '{"x":', index=0, id="null"), called("", "1}", index=0)],
            BOTH[:1],
            id="Mistral",
        ),
        pytest.param(
            [called("a", '{"x":', index=0, id="1"), called("a", "1}", index=0, id="1")], BOTH[:1], id="all said again"
        ),
        pytest.param(
            [called("a", '{"x":', index=0, id="1"), called(None, "1}", index=0, id="2")], BOTH[:1], id="ids at random"
        ),
        pytest.param([called("a", '{"x":'), called(None, "1}")], BOTH[:1], id="pieces without an index"),
        pytest.param([called("a", '{"x":', id="1"), called(None, "1}", id="1")], BOTH[:1], id="pieces by id"),
        pytest.param(
            [called(None, "", index=0, id="1"), called("a", '{"x":1}', index=0)], BOTH[:1], id="the name comes later"
        ),
        pytest.param([called("a", {"x": 1}, index=0, id="1")], BOTH[:1], id="arguments read already"),
        pytest.param([called("a", None, index=0, id="1")], [("a", "")], id="no arguments"),
        pytest.param([called(*BOTH[0], index=0, id="f"), called(*BOTH[1], index=1, id="f")], BOTH, id="one id"),
        pytest.param(
            [called(*BOTH[0], index=0, id="1"), {"index": 0, "function": None}, {"index": 0, "id": "1"}],
            BOTH[:1],
            id="reminders of nothing",
        ),
    ],
)
def test_calls_are_told_apart_however_a_server_numbers_them(
    pieces: list[dict[str, Any]], made: list[tuple[str, str]]
) -> None:
    assert calls(*pieces) == made


def test_a_function_of_the_time_before_tools_is_a_call() -> None:
    parts, finished = streamed(
        {"function_call": {"name": "a", "arguments": ""}}, {"function_call": {"arguments": '{"x":1}'}}
    )
    ((name, arguments),) = [(part.name, part.arguments) for part in parts if isinstance(part, ToolCall)]
    assert (name, arguments, finished.reason) == ("a", '{"x":1}', FinishReason.TOOL_CALLS)
    assert [part.name for part in whole(function_call={"name": "a", "arguments": "{}"})[0]] == ["a"]  # type: ignore[union-attr]


def test_custom_tools_and_signatures_of_google_are_read() -> None:
    custom = {"id": "1", "type": "custom", "custom": {"name": "code", "input": "1+1"}}
    signed = {**called("a", "{}", id="2"), "extra_content": {"google": {"thought_signature": "c2ln"}}}
    assert whole("tool_calls", content=None, tool_calls=[custom, signed])[0] == (
        ToolCall(id="1", name="code", arguments="1+1", is_custom=True),
        ToolCall(id="2", name="a", arguments="{}", signature="c2ln"),
    )


@pytest.mark.parametrize(
    ("message", "thought"),
    [
        ({"reasoning_content": "hm"}, Thinking(text="hm", origin=OWN)),
        ({"reasoning": "hm", "reasoning_content": "hm"}, Thinking(text="hm", origin=OWN)),
        ({"reasoning": "hm"}, Thinking(text="hm", origin=OWN)),
        ({"reasoning": "hm", "reasoning_details": None}, Thinking(text="hm", origin=OWN)),
        (
            {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "s"}]},
            Thinking(text="hm", signature="s", origin=OWN),
        ),
        ({"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]}, Thinking(text="hm", origin=OWN)),
        (
            {"reasoning_details": [{"type": "reasoning.encrypted", "data": "d"}]},
            Thinking(signature="d", redacted=True, origin=OWN),
        ),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
            Thinking(text="hm", origin=OWN),
        ),
    ],
)
def test_thoughts_are_read_as_servers_write_them(message: dict[str, Any], thought: Thinking) -> None:
    assert whole(**message)[0] == (thought,)
    assert streamed(message)[0] == (thought,)


def test_a_signature_may_come_after_its_thought() -> None:
    parts, _ = streamed(
        {"reasoning_details": [{"type": "reasoning.text", "text": "h", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "m", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.text", "text": None, "signature": "s", "index": 0}]},
        {"content": "so"},
    )
    assert parts == (Thinking(text="hm", signature="s", origin=OWN), Text(text="so"))


def test_content_may_be_a_list() -> None:
    content = [
        {"type": "text", "text": "a"},
        {"type": "reference", "reference_ids": [1]},
        {"type": "text", "text": "b"},
    ]
    assert whole(content=content)[0] == (Text(text="ab"),)


@pytest.mark.parametrize("name", ["content", "refusal", "reasoning_content"])
def test_what_cannot_be_stored_is_mended(name: str) -> None:
    (part,) = whole(**{name: "a\0b\ud800"})[0]
    assert isinstance(part, Text | Refusal | Thinking)
    assert part.text == "a\ufffdb?"


def test_a_refusal_is_no_text() -> None:
    assert whole(content=None, refusal="no")[0] == (Refusal(text="no"),)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("eos", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("model_length", FinishReason.LENGTH),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("tool_calls", FinishReason.TOOL_CALLS),
    ],
)
def test_reasons_are_read(said: str, reason: FinishReason) -> None:
    assert whole(said, content="a")[1].reason is reason
    assert streamed({"content": "a"}, reason=said)[1].reason is reason


@pytest.mark.parametrize("read", [whole, streamed], ids=["whole", "streamed"])
def test_no_reason_is_needed_after_a_whole_call(read: Callable[..., tuple[tuple[Part, ...], Finished]]) -> None:
    def reason_after(arguments: str) -> FinishReason:
        message = {"tool_calls": [called("a", arguments, index=0, id="1")]}
        return (read(None, **message) if read is whole else read(message, reason=None))[1].reason

    assert reason_after('{"x":1}') is reason_after("") is FinishReason.TOOL_CALLS
    with pytest.raises(UpstreamFailed):
        reason_after('{"x":')


def test_an_empty_function_is_none() -> None:
    assert whole(content="a", function_call={}) == whole(content="a")


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"prompt_tokens": 5.0, "completion_tokens": 2.0}, Usage(input_tokens=5, output_tokens=2)),
        ({"prompt_tokens": 5, "total_tokens": 7}, Usage(input_tokens=5, output_tokens=2)),
        ({"prompt_tokens": 5}, None),
        ({"prompt_tokens": 5, "completion_tokens": 2.5}, None),
        ({"prompt_tokens": 5, "completion_tokens": None, "total_tokens": 7.0}, Usage(input_tokens=5, output_tokens=2)),
    ],
)
def test_usage_is_read_as_servers_write_it(usage: dict[str, Any], read: Usage | None) -> None:
    body = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": usage}
    assert reply_of(body).finished.usage == read


def test_the_stop_sequence_is_read_where_a_server_tells_it() -> None:
    choice = {"message": {"content": "a"}, "finish_reason": "stop", "stop_reason": "END"}
    assert reply_of({"choices": [choice]}).finished.stop_sequence == "END"


@pytest.mark.parametrize(
    "body",
    [
        None,
        "text",
        [],
        {},
        {"choices": []},
        {"choices": [5]},
        {"choices": [{}]},
        {"choices": [{"message": None, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": "a"}}]},
        {"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"tool_calls": [5]}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"tool_calls": [{"id": "1"}]}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"tool_calls": [called(None, "{}", id="1")]}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"tool_calls": [called("a", 5)]}, "finish_reason": "stop"}]},
    ],
)
def test_what_is_no_answer_is_malformed(body: Any) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        reply_of(body)
    assert caught.value.kind is Failure.MALFORMED


@pytest.mark.parametrize("chunk", [None, 5, [], "x"])
def test_what_is_no_chunk_is_malformed(chunk: Any) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        list(AnswerReader().chunk(chunk))
    assert caught.value.kind is Failure.MALFORMED


def test_a_call_without_a_name_ends_no_stream() -> None:
    with pytest.raises(UpstreamFailed) as caught:
        streamed({"tool_calls": [called(None, "{}", index=0, id="1")]})
    assert caught.value.kind is Failure.MALFORMED


def test_other_choices_are_passed_over() -> None:
    reader = AnswerReader()
    chunk = {"choices": [{"index": 1, "delta": {"content": "other"}}, {"index": 0, "delta": {"content": "one"}}]}
    assert parts_of(reader.chunk(chunk)) == (Text(text="one"),)


def test_the_newest_usage_counts() -> None:
    reader = AnswerReader()
    for count in (1, 2):
        usage = {"prompt_tokens": 5, "completion_tokens": count, "completion_tokens_details": {"reasoning_tokens": 1}}
        list(reader.chunk({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage}))
    list(reader.chunk({"choices": [], "usage": None}))
    assert reader.finished().usage == Usage(input_tokens=5, output_tokens=2, reasoning_tokens=1)


@pytest.mark.parametrize(("total", "output"), [(None, 9), (41, 9), (135, 103), (0, 9)])
def test_thoughts_that_only_the_total_has_are_output(total: int | None, output: int) -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 5}}
    told = read_usage({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": total, **details})
    assert told == Usage(input_tokens=32, output_tokens=output, reasoning_tokens=5)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("content", "refusal", "reasoning", "reasoning_content", "reasoning_details", "tool_calls", "function_call")


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(FIELDS, JSON),
            "tool_calls": JSON | st.lists(st.fixed_dictionaries({"id": JSON, "index": JSON, "function": JSON})),
            "reasoning_details": JSON | st.lists(st.fixed_dictionaries({"type": JSON, "text": JSON})),
        },
    ),
    JSON,
)
def test_whatever_a_server_writes_is_read_or_malformed(message: dict[str, Any], reason: Any) -> None:
    for parts in (
        read_of(lambda: whole(reason, **message)),
        read_of(lambda: streamed(message, message, reason=reason)),
    ):
        words = "".join(word for part in parts for word in asdict(part).values() if isinstance(word, str))
        assert "\0" not in words
        words.encode()  # no half of a surrogate pair


def read_of(read: Callable[[], tuple[tuple[Part, ...], Finished]]) -> tuple[Part, ...]:
    """What is read; nothing where it is malformed."""
    try:
        return read()[0]
    except UpstreamFailed:
        return ()
