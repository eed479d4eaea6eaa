"""The events of a translated response: their order, their numbers, and what is left of them after a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from src.api.dialects.request import ParsedRequest
from src.api.dialects.responses.items import grouped, place_of
from src.api.dialects.responses.kept import items_in, without_item
from src.api.dialects.responses.request import parse_response
from src.api.dialects.responses.stream import ResponsesWriter, after, end_after
from src.api.json import dumps
from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.content import (
    Opaque,
    Part,
    Particulars,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    in_one_item,
    part_body,
)
from src.domain.completion.deltas import (
    OpaqueDelta,
    PartDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    deltas_of,
    grown,
    parts_of,
)
from src.domain.completion.model import ChatRequest, ChatRole, FinishReason, Outcome
from src.domain.dialogs.model import Message, MessageStatus
from src.domain.dialogs.removing import entries_of
from src.domain.ledger.model import CallStatus
from src.shared.money import MicroDollars
from tests.makers import make_answer, make_dialog, make_message, make_tenant, make_user

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
ANSWER_ID = UUID("0199f7a0-0000-7000-8000-00000000abcd")
HEX = ANSWER_ID.hex
PARSED = ParsedRequest(model="public", chat=ChatRequest(messages=(), stream=True))
CRM = {"type": "namespace", "name": "crm", "description": "", "tools": [{"type": "function", "name": "find"}]}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
SEARCH = Opaque(
    format=WireFormat.RESPONSES,
    body={"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
)
EVERYTHING: tuple[PartDelta, ...] = (
    ThinkingDelta("let me "),
    ThinkingDelta("see", origin=WireFormat.MESSAGES),
    ThinkingDelta(signature="sig", origin=WireFormat.MESSAGES),
    ThinkingDelta(signature="data", redacted=True, origin=WireFormat.MESSAGES),
    TextDelta("Hello "),
    TextDelta("wörld"),
    OpaqueDelta(SEARCH),
    TextDelta("no: "),
    RefusalDelta("I must "),
    RefusalDelta("not"),
    ToolCallDelta(0, "c1", "crm__find", signature="g"),
    ToolCallDelta(0, arguments='{"q":'),
    ToolCallDelta(1, "c2", "patch", "*** Begin", is_custom=True),
    ToolCallDelta(0, arguments="1}"),
)


def writer(**fields: Any) -> ResponsesWriter:
    echo = parse_response({"model": "public", "input": "hi", "tools": [CRM], **fields}, {}).echo
    return ResponsesWriter(PARSED, ANSWER_ID, echo=echo, response_id=f"resp_{HEX}", created_at=NOW)


def outcome(deltas: Sequence[PartDelta] = (), **given: Any) -> Outcome:
    usual: dict[str, Any] = {
        "id": ANSWER_ID,
        "status": CallStatus.COMPLETED,
        "text": "".join(delta.text for delta in deltas if isinstance(delta, TextDelta | RefusalDelta)),
        "finish_reason": FinishReason.STOP,
        "usage": Usage(input_tokens=5, output_tokens=4, reasoning_tokens=2),
        "cost_micro_usd": MicroDollars(0),
        "model": None,
        "upstream_model": "m-1",
        "attempts": (),
        "ended_at": NOW,
        "deltas": deltas,
    }
    return Outcome(**(usual | given))


def stream(deltas: Sequence[PartDelta], ended: Outcome | None = None, **fields: Any) -> list[bytes]:
    writing = writer(**fields)
    told = [writing.first("m-1", 0), *map(writing.delta, deltas)]
    return [*told, writing.last(ended or outcome(deltas))]


def events(told: Sequence[bytes]) -> list[dict[str, Any]]:
    """The payloads, each of which the SDK would take."""
    found = []
    for each in b"".join(told).split(b"\n\n")[:-1]:
        name, data = each.split(b"\ndata: ")
        EVENT.validate_json(data, strict=True)
        payload: dict[str, Any] = orjson.loads(data)
        assert name == f"event: {payload['type']}".encode()
        found.append(payload)
    return found


def kinds(told: Sequence[bytes]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events(told)]


class TestOrder:
    def test_a_text(self) -> None:
        assert kinds(stream([TextDelta("a"), TextDelta(""), TextDelta("b")])) == [
            "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
            "output_text.delta", "output_text.done", "content_part.done", "output_item.done", "completed",
        ]  # fmt: skip

    def test_everything_there_is(self) -> None:
        told = stream(EVERYTHING)
        assert kinds(told) == [
            "created", "in_progress",
            "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
            "reasoning_summary_text.delta", "reasoning_summary_text.done", "reasoning_summary_part.done",
            "output_item.done",
            "output_item.added", "output_item.done",
            "output_item.added", "content_part.added", "output_text.delta", "output_text.delta", "output_text.done",
            "content_part.done", "output_item.done",
            "output_item.added", "output_item.done",
            "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
            "content_part.added", "refusal.delta", "refusal.delta", "refusal.done", "content_part.done",
            "output_item.done",
            "output_item.added", "function_call_arguments.delta",
            "output_item.added", "custom_tool_call_input.delta", "function_call_arguments.delta",
            "function_call_arguments.done", "output_item.done",
            "custom_tool_call_input.done", "output_item.done",
            "completed",
        ]  # fmt: skip
        done = [event for event in events(told) if event["type"] == "response.output_item.done"]
        last = events(told)[-1]["response"]
        assert last["output"] == [event["item"] for event in sorted(done, key=lambda event: event["output_index"])]
        assert last["output"] == writer().whole(outcome(EVERYTHING), "m-1")["output"]
        assert last["output"][5] == {
            "id": f"fc_{HEX}_5", "type": "function_call", "call_id": "c1", "name": "find", "namespace": "crm",
            "arguments": '{"q":1}', "status": "completed", "extra_content": {"google": {"thought_signature": "g"}},
        }  # fmt: skip

    def test_nothing_at_all(self) -> None:
        told = events(stream([]))
        assert [event["type"] for event in told][2:] == ["response.completed"]
        assert told[-1]["response"]["output"] == []

    def test_a_background_response_is_queued_first(self) -> None:
        told = events(stream([TextDelta("a")], background=True))
        assert [(event["type"], event["response"]["status"]) for event in told[:3]] == [
            ("response.created", "queued"), ("response.queued", "queued"), ("response.in_progress", "in_progress")
        ]  # fmt: skip


class TestEnds:
    @pytest.mark.parametrize(
        ("ended", "kind", "status", "reason"),
        [
            ({"finish_reason": FinishReason.TOOL_CALLS}, "completed", "completed", None),
            ({"finish_reason": FinishReason.LENGTH}, "incomplete", "incomplete", "max_output_tokens"),
            ({"finish_reason": FinishReason.CONTENT_FILTER}, "incomplete", "incomplete", "content_filter"),
            ({"status": CallStatus.CANCELLED}, "incomplete", "cancelled", None),
            ({"status": CallStatus.INTERRUPTED}, "failed", "failed", None),
        ],
    )
    def test_a_response_says_how_it_ended(
        self, ended: dict[str, Any], kind: str, status: str, reason: str | None
    ) -> None:
        deltas: list[PartDelta] = [TextDelta("a"), ToolCallDelta(0, "c", "f", "{}")]
        last = events(stream(deltas, outcome(deltas, **ended)))[-1]
        told = last["response"]
        assert (last["type"], told["status"]) == (f"response.{kind}", status)
        assert told["incomplete_details"] == (None if reason is None else {"reason": reason})
        assert (told["completed_at"] is None) == (status != "completed")
        broken = "completed" if status == "completed" else "incomplete"
        assert [item["status"] for item in told["output"]] == ["completed", broken]
        assert told["usage"]["total_tokens"] == 9

    def test_a_failure_tells_what_there_was(self) -> None:
        writing = writer()
        told = [writing.first("m-1", 0), writing.delta(TextDelta("Hel"))]
        error = {"error": {"message": "gone", "type": "api_error", "param": None, "code": "provider_failed"}}
        (failed,) = events([writing.error(error)])
        assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
        assert failed["response"]["error"] == {"code": "server_error", "message": "gone"}
        assert failed["response"]["output"][0]["content"][0]["text"] == "Hel"
        assert failed["sequence_number"] == events(told)[-1]["sequence_number"] + 1

    @given(cut=st.integers(min_value=1, max_value=40))
    def test_a_failure_after_what_was_relayed_tells_that_too(self, cut: int) -> None:
        relayed = events(stream(EVERYTHING))[:cut]
        data = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in relayed)
        error = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
        (failed,) = events([writer().error(error, data)])
        read = EVENT.validate_python(failed)
        assert read.type == failed["type"] == "response.failed"
        assert failed["sequence_number"] == relayed[-1]["sequence_number"] + 1
        told = failed["response"]
        assert (told["status"], told["error"]["code"]) == ("failed", "rate_limit_exceeded")
        assert told["id"] == relayed[0]["response"]["id"]
        begun = [event for event in relayed if event["type"] == "response.output_item.added"]
        assert [item["id"] for item in told["output"]] == [event["item"]["id"] for event in begun]
        said = "".join(event["delta"] for event in relayed if event["type"] == "response.output_text.delta")
        texts = [part["text"] for item in told["output"] for part in item.get("content") or () if "text" in part]
        assert "".join(texts) == said

    @given(cut=st.integers(min_value=2, max_value=40))
    def test_a_relayed_stream_that_was_stopped_ends_as_its_own(self, cut: int) -> None:
        relayed = events(stream(EVERYTHING))[:cut]
        data = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in relayed)
        ended = outcome(finish_reason=FinishReason.LENGTH)
        told = events([writer().cut(ended, data)])
        numbers = [event["sequence_number"] for event in (*relayed, *told)]
        assert numbers == sorted(set(numbers))
        assert (told[-1]["type"], told[-1]["response"]["status"]) == ("response.incomplete", "incomplete")
        added = [event for event in relayed if event["type"] == "response.output_item.added"]
        done = [event for event in (*relayed, *told) if event["type"] == "response.output_item.done"]
        assert len(done) == len(added) == len(told[-1]["response"]["output"])
        words = "".join(event["delta"] for event in relayed if event["type"] == "response.output_text.delta")
        messages = [item for item in told[-1]["response"]["output"] if item["type"] == "message"]
        assert words == "".join(part.get("text", "") for item in messages for part in item["content"])

    def test_a_whole_response_is_one_for_the_sdk(self) -> None:
        told = writer().whole(outcome(EVERYTHING), "m-1")
        assert Response.model_validate_json(dumps(told), strict=True).output_text == "Hello wörldno: "
        assert (told["id"], told["model"], told["status"]) == (f"resp_{HEX}", "m-1", "completed")


TEXTS = st.text(min_size=1, max_size=6)
DELTAS: st.SearchStrategy[list[PartDelta]] = st.lists(
    st.builds(TextDelta, TEXTS)
    | st.builds(RefusalDelta, TEXTS)
    | st.builds(ThinkingDelta, TEXTS, st.none() | st.just("s"), origin=st.just(WireFormat.MESSAGES))
    | st.just(OpaqueDelta(SEARCH)),
    max_size=8,
)


def with_calls(deltas: list[PartDelta], arguments: list[list[str]]) -> list[PartDelta]:
    """Calls come after everything else, in one or more pieces."""
    calls: list[PartDelta] = []
    for index, pieces in enumerate(arguments):
        calls.append(ToolCallDelta(index, f"c{index}", "f"))
        calls += [ToolCallDelta(index, arguments=piece) for piece in pieces]
    return [*deltas, *calls]


ANSWERS = st.builds(with_calls, DELTAS, st.lists(st.lists(TEXTS, max_size=3), max_size=2))


class TestNumbers:
    def test_structure_counts_one_and_words_their_characters(self) -> None:
        numbers = [event["sequence_number"] for event in events(stream([TextDelta("Hello "), TextDelta("wörld")]))]
        assert numbers == [0, 1, 2, 3, 9, 14, 15, 16, 17, 18]

    @given(deltas=ANSWERS)
    def test_stored_parts_tell_the_same_at_the_same_numbers(self, deltas: list[PartDelta]) -> None:
        again = deltas_of(parts_of(deltas))
        assert _by_character(stream(deltas)) == _by_character(stream(again, outcome(deltas)))

    @given(deltas=ANSWERS, data=st.data())
    def test_what_comes_after_a_number_is_what_was_missing(self, deltas: list[PartDelta], data: st.DataObject) -> None:
        told = stream(deltas)
        again = stream(deltas_of(parts_of(deltas)), outcome(deltas))
        last = events(told)[-1]["sequence_number"]
        start = data.draw(st.integers(min_value=-1, max_value=last))
        left = [left for each in again for left in after([each], start)]
        expected = [pair for pair in _by_character(told) if pair[0] > start]
        assert _by_character(left) == expected

    @given(deltas=ANSWERS, cuts=st.lists(st.integers(min_value=0, max_value=30), max_size=3))
    def test_what_was_noted_on_the_way_tells_the_same_at_the_same_numbers(
        self, deltas: list[PartDelta], cuts: list[int]
    ) -> None:
        notes = [parts_of(deltas[:cut]) for cut in (0, *sorted(cuts), len(deltas))]
        pieces = [piece for before, now in pairwise(notes) for piece in grown(before, now)]
        assert _by_character(stream(pieces, outcome(deltas))) == _by_character(stream(deltas))

    @given(deltas=ANSWERS, start=st.integers(min_value=-1, max_value=200))
    def test_the_last_event_is_told_whatever_was_heard_before(self, deltas: list[PartDelta], start: int) -> None:
        end = stream(deltas)[-1]
        left = events([end_after(end, start)])
        assert left[-1] | {"sequence_number": 0} == events([end])[-1] | {"sequence_number": 0}
        numbers = [event["sequence_number"] for event in left]
        assert numbers == sorted(set(numbers))
        assert numbers[0] > start

    def test_nothing_comes_after_the_end(self) -> None:
        told = stream(EVERYTHING)
        assert list(after(told, 10_000)) == []
        assert b"".join(after(told, -1)) == b"".join(told)


def _by_character(told: Sequence[bytes]) -> list[tuple[int, Any]]:
    """Each character of a delta with its number, and each event of structure with its own."""
    found: list[tuple[int, Any]] = []
    for event in events(told):
        number, words = event["sequence_number"], event.get("delta")
        if words is None:
            found.append((number, {name: value for name, value in event.items() if name != "sequence_number"}))
        else:
            first = number - len(words) + 1
            found += [(first + n, (event["type"], event["item_id"], char)) for n, char in enumerate(words)]
    return found


ITEMS = st.lists(
    st.builds(Text, text=st.text(max_size=4, min_size=1))
    | st.builds(Refusal, text=st.text(max_size=4, min_size=1))
    | st.builds(Thinking, text=st.text(max_size=4), signature=st.sampled_from([None, "s"]), redacted=st.booleans())
    | st.builds(ToolCall, id=st.just("c"), name=st.just("f"), arguments=st.text(max_size=4), is_custom=st.booleans())
    | st.just(SEARCH),
    max_size=6,
)


@given(parts=ITEMS, data=st.data())
def test_what_is_left_of_an_answer_has_the_numbers_and_places_it_was_told_with(
    parts: list[Part], data: st.DataObject
) -> None:
    deltas = deltas_of(parts_of(deltas_of(parts)))
    made = writer()
    told = events([made.first("public", 0), *map(made.delta, deltas), made.last(outcome())])
    indexes = sorted({event["output_index"] for event in told if "output_index" in event})
    gone = data.draw(st.sets(st.sampled_from(indexes))) if indexes else set()
    stored = make_answer(make_message(make_dialog(make_user(make_tenant()))), id=ANSWER_ID, content="")
    stored = replace(stored, parts=tuple(map(part_body, parts_of(deltas))), status=MessageStatus.COMPLETED)
    for item in items_in(stored):
        place = place_of(item["id"])
        if place is not None and place[1] in gone:
            stored = without_item(stored, item["id"])
    kept = writer()
    items = map(kept.kept, grouped(entries_of(stored), ChatRole.ASSISTANT))
    again = events([kept.first("public", 0), *items, kept.last(outcome())])
    left = [event for event in told if event.get("output_index") not in gone]
    assert [{**event, "response": None} for event in again] == [{**event, "response": None} for event in left]
    assert again[-1]["response"]["output"] == items_in(stored)


CITED = {"type": "url_citation", "url": "https://x", "title": "X", "start_index": 0, "end_index": 1}
LOGPROB = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}


def of_openai(*, item: dict[str, Any] | None = None, **fields: Any) -> Particulars:
    return Particulars(format=WireFormat.RESPONSES, fields=fields, item=item or {})


CONTENT = st.lists(
    st.builds(
        Text,
        text=st.text(max_size=4),
        particulars=st.sampled_from(
            [None, of_openai(annotations=[CITED]), of_openai(annotations=[CITED, CITED], logprobs=[LOGPROB])]
        ),
    )
    | st.builds(Refusal, text=st.text(max_size=4, min_size=1)),
    min_size=1,
    max_size=3,
)
RELAYED = st.lists(
    st.builds(
        lambda content, item: in_one_item(content, WireFormat.RESPONSES, item),
        CONTENT,
        st.sampled_from([None, of_openai(phase="commentary")]),
    )
    | st.just((ToolCall(id="c", name="f", arguments="{}", particulars=of_openai(caller={"type": "direct"})),))
    | st.just((Thinking(text="hm", signature="s", origin=WireFormat.RESPONSES, particulars=of_openai(future=1)),))
    | st.just((SEARCH,)),
    max_size=4,
)


def stored_answer(parts: Sequence[Part]) -> Message:
    made = make_answer(make_message(make_dialog(make_user(make_tenant()))), id=ANSWER_ID, content="")
    return replace(made, parts=tuple(part_body(part) for part in parts), status=MessageStatus.COMPLETED)


def told_of(stored: Message) -> list[dict[str, Any]]:
    """What is heard of it again."""
    kept = writer()
    items = map(kept.kept, grouped(entries_of(stored), ChatRole.ASSISTANT))
    return events([kept.first("public", 0), *items, kept.last(outcome())])


@given(items=RELAYED, data=st.data())
def test_what_only_openai_said_is_heard_again_at_the_same_numbers_whatever_was_taken_out(
    items: list[tuple[Part, ...]], data: st.DataObject
) -> None:
    stored = stored_answer([part for item in items for part in item])
    told = told_of(stored)
    output = told[-1]["response"]["output"]
    assert len(output) == len(items)
    assert output == items_in(stored)
    done = [event["item"] for event in told if event["type"] == "response.output_item.done"]
    assert sorted(done, key=output.index) == output
    annotated = [event["annotation"] for event in told if event["type"] == "response.output_text.annotation.added"]
    content = [part for item in output for part in item.get("content", ())]
    assert annotated == [each for part in content for each in part.get("annotations", ())]
    gone = data.draw(st.sets(st.sampled_from(range(len(items))))) if items else set()
    for place in gone:
        stored = without_item(stored, output[place]["id"])
    left = [{**event, "response": None} for event in told if event.get("output_index") not in gone]
    assert [{**event, "response": None} for event in told_of(stored)] == left


def test_what_is_said_of_an_item_is_told_from_its_beginning_on() -> None:
    message = in_one_item([Text(text="a"), Text(text="b")], WireFormat.RESPONSES, of_openai(phase="commentary"))
    told = [event for event in told_of(stored_answer(message)) if event["type"].startswith("response.output_item.")]
    assert [event["item"]["phase"] for event in told] == ["commentary", "commentary"]
    assert [part["text"] for part in told[-1]["item"]["content"]] == ["a", "b"]


def test_items_of_a_provider_stay_apart_and_keep_their_places_though_they_say_nothing() -> None:
    parts = (Text(text="a"), Text(text="b"), Text(text=""), ToolCall(id="c", name="f", arguments="{}"))
    stored = make_answer(make_message(make_dialog(make_user(make_tenant()))), id=ANSWER_ID)
    stored = replace(stored, parts=tuple(map(part_body, parts)), status=MessageStatus.COMPLETED)
    kept = writer()
    items = map(kept.kept, grouped(entries_of(stored), ChatRole.ASSISTANT))
    told = events([kept.first("public", 0), *items, kept.last(outcome())])
    added = [event for event in told if event["type"] == "response.output_item.added"]
    assert [(event["output_index"], event["item"]["id"]) for event in added] == [
        (place, item["id"]) for place, item in enumerate(items_in(stored))
    ]
    assert told[-1]["response"]["output"] == items_in(stored)
