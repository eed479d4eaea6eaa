"""Which part of a dialog's history is sent to the model."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.domain.catalog.model import WireFormat
from src.domain.completion.content import Particulars, Text, Thinking, ToolCall, ToolResult, part_body
from src.domain.completion.model import ChatMessage, ChatRole, Parameters
from src.domain.dialogs.context import NOT_CALLED, as_told, fitting, with_results
from src.domain.dialogs.model import AnswerEnded, Message, MessageRole, MessageStatus, fitted, turns_of
from tests.makers import make_answer, make_dialog, make_message, make_tenant, make_user
from tests.unit.support import WordMeter, make_model

DIALOG = make_dialog(make_user(make_tenant()))


def path_of(*contents: str) -> list[Message]:
    """Messages by their content: those that begin with `q` are questions."""
    path: list[Message] = []
    for content in contents:
        role = MessageRole.USER if content.startswith("q") else MessageRole.ASSISTANT
        path.append(make_message(DIALOG, content=content, role=role, parent_id=path[-1].id if path else None))
    return path


def kept(path: list[Message], budget: int, tokens: int = 10) -> tuple[list[str], int]:
    context = fitted(path, {message.id: tokens for message in path}, budget)
    return [message.content for message in context.messages], context.omitted_turns


def test_a_history_that_fits_is_kept_whole_and_in_order() -> None:
    assert kept(path_of("q1", "a1", "q2", "a2", "q3"), 50) == (["q1", "a1", "q2", "a2", "q3"], 0)


def test_the_oldest_turns_are_left_out_whole() -> None:
    path = path_of("q1", "a1", "q2", "a2", "q3")
    assert kept(path, 49) == (["q2", "a2", "q3"], 1)
    assert kept(path, 30) == (["q2", "a2", "q3"], 1)
    assert kept(path, 29) == (["q3"], 2)


def test_a_question_that_does_not_fit_leaves_nothing() -> None:
    assert kept(path_of("q1", "a1", "q2"), 9) == ([], 2)
    assert kept(path_of("q1"), -5) == ([], 1)


def test_a_gap_is_never_in_the_middle() -> None:
    path = path_of("q1", "a1", "q2", "a2", "q3")
    sizes = dict(zip((message.id for message in path), (1, 1, 100, 1, 1), strict=True))
    assert [message.content for message in fitted(path, sizes, 50).messages] == ["q3"]


def test_an_empty_path_is_an_empty_context() -> None:
    assert kept([], 100) == ([], 0)


def test_what_only_one_format_says_of_an_answer_takes_no_room_from_it() -> None:
    question, *_ = path_of("q1")
    besides = Particulars(format=WireFormat.RESPONSES, fields={"logprobs": [{"token": "a b c"}] * 5000})
    said = part_body(Text(text="a1", particulars=besides))
    path = [question, make_answer(question, content="a1", parts=(said,))]
    context = fitting(path, make_model(context_window=200), Parameters(), 0, WordMeter())
    assert [message.content for message in context.messages] == ["q1", "a1"]


def test_a_turn_is_a_question_with_all_that_follows() -> None:
    turns = turns_of(path_of("a0", "q1", "a1", "a1b", "q2", "q3"))
    assert [[message.content for message in turn] for turn in turns] == [["a0"], ["q1", "a1", "a1b"], ["q2"], ["q3"]]


def test_the_results_of_tools_stay_with_their_calls() -> None:
    path = path_of("q1", "a1", "q2", "a2", "q3")
    results = replace(path[2], parts=({"type": "tool_result", "call_id": "c", "content": []},))
    path[2] = results
    assert [len(turn) for turn in turns_of(path)] == [4, 1]
    assert kept(path, 30) == (["q3"], 1)


def test_every_call_of_a_tool_has_a_result() -> None:
    calls = tuple(ToolCall(id=name, name=f"do_{name}", arguments="{}") for name in "abc")
    asked = ChatMessage(role=ChatRole.USER, text="do it")
    called = ChatMessage(role=ChatRole.ASSISTANT, parts=calls)
    done = ToolResult(call_id="b", content=(Text(text="done"),))
    answered = ChatMessage(role=ChatRole.USER, parts=(done,))
    told = with_results([asked, called, answered, asked, called])
    assert [told[0], told[1], told[3], told[4], told[5]] == [asked, called, answered, asked, called]
    assert [(part.call_id, part.text, part.is_error) for part in results_in(told[2])] == [
        ("a", NOT_CALLED, True),
        ("c", NOT_CALLED, True),
    ]
    assert [part.call_id for part in results_in(told[6])] == ["a", "b", "c"]
    all_done = replace(answered, parts=tuple(replace(done, call_id=each.id) for each in calls))
    assert with_results([asked, called, all_done]) == [asked, called, all_done]


def results_in(message: ChatMessage) -> list[ToolResult]:
    return [part for part in message.parts if isinstance(part, ToolResult)]


@given(st.lists(st.tuples(st.sampled_from("qa"), st.integers(0, 50)), max_size=12), st.integers(-10, 300))
def test_what_is_kept_is_the_longest_end_of_whole_turns_that_fits(shape: list[tuple[str, int]], budget: int) -> None:
    path = path_of(*(f"{kind}{index}" for index, (kind, _) in enumerate(shape)))
    sizes = {message.id: size for message, (_, size) in zip(path, shape, strict=True)}
    context = fitted(path, sizes, budget)
    turns = turns_of(path)
    kept_turns = turns[context.omitted_turns :]
    assert list(context.messages) == [message for turn in kept_turns for message in turn]
    assert not context.messages or sum(sizes[message.id] for message in context.messages) <= budget
    if context.omitted_turns:
        one_more = [message for turn in turns[context.omitted_turns - 1 :] for message in turn]
        assert sum(sizes[message.id] for message in one_more) > budget


def test_plain_text_is_one_part() -> None:
    assert make_message(DIALOG, content="hello").all_parts == ({"type": "text", "text": "hello"},)
    parts = ({"type": "text", "text": "a"}, {"type": "text", "text": "b"})
    assert make_message(DIALOG, parts=parts).all_parts == parts


def test_only_an_answer_that_can_be_built_upon_becomes_the_head() -> None:
    question = make_message(DIALOG)
    ended = [
        status for status in MessageStatus if AnswerEnded(answer=make_answer(question, status=status)).becomes_head
    ]
    assert MessageStatus.FAILED not in ended
    assert {MessageStatus.COMPLETED, MessageStatus.CANCELLED, MessageStatus.INTERRUPTED} <= set(ended)


@pytest.mark.parametrize(
    ("status", "reason", "is_told"),
    [
        (MessageStatus.COMPLETED, "tool_calls", True),
        (MessageStatus.COMPLETED, "length", False),
        (MessageStatus.INTERRUPTED, None, False),
        (MessageStatus.CANCELLED, "cancelled", False),
    ],
)
def test_what_may_not_be_whole_of_an_answer_is_not_told(
    status: MessageStatus, reason: str | None, is_told: bool
) -> None:
    call = ToolCall(id="c", name="look", arguments='{"q":')
    parts = (Text(text="Let me "), Thinking(text="hm"), call)
    stored = replace(
        make_answer(make_message(DIALOG)),
        content="Let me ",
        parts=tuple(map(part_body, parts)),
        status=status,
        finish_reason=reason,
    )
    (told,) = as_told([stored])
    assert told.parts == (parts if is_told else parts[:1])
    result = ChatMessage(role=ChatRole.USER, parts=(ToolResult(call_id="c", content=(Text(text="42"),)),))
    (answered,) = as_told([stored], [result])
    assert call in answered.parts
    assert as_told([replace(stored, content="", parts=tuple(map(part_body, parts[1:2])))]) == (
        [ChatMessage(role=ChatRole.ASSISTANT, parts=parts[1:2])] if is_told else []
    )
