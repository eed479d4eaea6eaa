"""Parts of messages: stored and read again, taken apart into pieces and put together."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.api.json import dumps
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import (
    Media,
    MediaKind,
    Opaque,
    Part,
    Particulars,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    part_body,
    part_from,
)
from src.domain.completion.deltas import (
    PartDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    deltas_of,
    parts_of,
)

GOOGLE = WireFormat.GENERATE_CONTENT
SAID: list[Part] = [
    Text(text="hello"),
    Refusal(text="no"),
    Thinking(text="hm", signature="s", origin=GOOGLE),
    Thinking(redacted=True, signature="secret", origin=WireFormat.MESSAGES),
    ToolCall(id="1", name="look", arguments="{}", signature="g"),
    ToolCall(id="2", name="shell", arguments="ls", is_custom=True),
    Opaque(format=WireFormat.RESPONSES, body={"type": "web_search_call", "action": {"query": "x"}}),
    Text(text="cited", particulars=Particulars(format=GOOGLE, fields={"a": [1]}, item={"b": None})),
    Refusal(text="no", particulars=Particulars(format=GOOGLE, place=0)),
    Thinking(signature="s", particulars=Particulars(format=GOOGLE, fields={"a": {}})),
    ToolCall(id="3", name="look", arguments="{}", particulars=Particulars(format=GOOGLE, fields={"a": False})),
]
HEARD: list[Part] = [
    Media(kind=MediaKind.IMAGE, media_type="image/png", data="AAAA", detail="low"),
    Media(kind=MediaKind.DOCUMENT, url="https://example.org/a.pdf", name="a.pdf"),
    ToolResult(call_id="1", content=(Text(text=""), Media(kind=MediaKind.AUDIO, data="AA")), name="f", is_error=True),
]


@pytest.mark.parametrize("part", [*SAID, *HEARD], ids=lambda part: type(part).__name__)
def test_a_part_is_stored_as_json_and_read_again(part: Part) -> None:
    body = part_body(part)
    assert dumps(body)
    assert part_from(body) == part


def test_an_answer_in_pieces_is_the_same_answer() -> None:
    assert parts_of(deltas_of(SAID)) == tuple(SAID)


PIECES = st.one_of(
    st.builds(TextDelta, st.text(max_size=3), begins=st.booleans()),
    st.builds(RefusalDelta, st.text(max_size=3)),
    st.builds(
        ThinkingDelta, st.text(max_size=3), st.sampled_from([None, None, "s"]), origin=st.sampled_from([None, GOOGLE])
    ),
    st.builds(
        ToolCallDelta,
        st.integers(0, 1),
        st.sampled_from([None, "i"]),
        st.sampled_from([None, "n"]),
        st.text(max_size=3),
    ),
)


def crumbs(delta: PartDelta) -> list[PartDelta]:
    """The same, character by character; what else a piece says, its first or last character says."""
    match delta:
        case TextDelta(text=text):
            return [TextDelta("", begins=delta.begins), *map(TextDelta, text)]
        case ThinkingDelta(text=text, origin=origin):
            return [
                *(ThinkingDelta(each, origin=origin) for each in text),
                ThinkingDelta("", delta.signature, origin=origin),
            ]
        case ToolCallDelta(arguments=text, index=index):
            return [replace(delta, arguments=""), *(ToolCallDelta(index, arguments=each) for each in text)]
        case _:
            return [delta]


@given(st.lists(PIECES, max_size=12))
def test_however_small_the_pieces_are_the_parts_are_the_same(deltas: list[PartDelta]) -> None:
    assert parts_of([crumb for delta in deltas for crumb in crumbs(delta)]) == parts_of(deltas)


def test_what_begins_anew_is_another_part_and_particulars_are_those_of_the_words_around_them() -> None:
    one, two, more = (Particulars(format=GOOGLE, fields={name: 1}) for name in ("one", "two", "more"))
    deltas: list[PartDelta] = [
        TextDelta("", one, begins=True),
        TextDelta("a"),
        TextDelta("b", more),
        TextDelta("", begins=True),
        TextDelta("c"),
        TextDelta("", two, begins=True),
        RefusalDelta("no"),
        RefusalDelta("", two, begins=True),
    ]
    assert parts_of(deltas) == (
        Text(text="ab", particulars=one.and_then(more)),
        Text(text="c"),
        Refusal(text="no", particulars=two),
    )


def test_neighbouring_pieces_are_one_part() -> None:
    deltas: list[PartDelta] = [
        ThinkingDelta("let ", origin=GOOGLE),
        ThinkingDelta("me see"),
        ThinkingDelta(signature="proof"),
        ThinkingDelta("again"),
        TextDelta("he"),
        TextDelta("llo"),
        ToolCallDelta(0, "a", "look", '{"q":'),
        ToolCallDelta(1, "b", "look", "{}"),
        ToolCallDelta(0, arguments="1}"),
        RefusalDelta("n"),
        RefusalDelta("o"),
        TextDelta("bye"),
    ]
    assert parts_of(deltas) == (
        Thinking(text="let me see", signature="proof", origin=GOOGLE),
        Thinking(text="again"),
        Text(text="hello"),
        ToolCall(id="a", name="look", arguments='{"q":1}'),
        ToolCall(id="b", name="look", arguments="{}"),
        Refusal(text="no"),
        Text(text="bye"),
    )
    assert "".join(delta.generated for delta in deltas[6:9]) == 'look{"q":look{}1}'


@pytest.mark.parametrize("part", HEARD, ids=lambda part: type(part).__name__)
def test_no_model_answers_with_what_only_users_send(part: Part) -> None:
    with pytest.raises(TypeError):
        deltas_of([part])
