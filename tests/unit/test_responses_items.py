"""Items of the Responses API and messages in our words: what one says, the other says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseItem, ResponseOutputItem
from pydantic import TypeAdapter

from src.api.dialects.responses.items import (
    items_of,
    messages_of,
    own_item,
    place_of,
    references_in,
    with_items,
)
from src.api.dialects.responses.kept import items_in, output_items, without_item
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
from src.domain.completion.model import ChatMessage, ChatRequest, ChatRole
from src.domain.dialogs.model import Message, MessageId
from src.domain.dialogs.responding import Asked, as_messages
from src.domain.dialogs.storing import chat_message
from src.integrations.llm.prompt_walk import body_of
from src.shared.errors import InvalidRequest, NotFound
from tests.makers import NOW, make_dialog, make_tenant, make_user

RESPONSES, MESSAGES, GOOGLE = WireFormat.RESPONSES, WireFormat.MESSAGES, WireFormat.GENERATE_CONTENT
MESSAGE_ID = UUID("0199f7a0-0000-7000-8000-00000000abcd")
HEX = MESSAGE_ID.hex
PNG = "data:image/png;base64,aGk="

OUTPUT: TypeAdapter[Any] = TypeAdapter(list[ResponseOutputItem])
ITEM: TypeAdapter[Any] = TypeAdapter(list[ResponseItem])


def said(role: ChatRole, *parts: Part) -> ChatMessage:
    text = "\n".join(part.text for part in parts if isinstance(part, Text | Refusal))
    return ChatMessage(role=role, text=text, parts=parts)


def kept(message: ChatMessage) -> Message:
    """The message as it is stored."""
    dialog = make_dialog(make_user(make_tenant()))
    [stored] = as_messages(dialog, None, [message], Asked(at=NOW, request_id="r", model=None, settings={}))
    return replace(stored, id=MessageId(MESSAGE_ID))


class TestReading:
    def test_a_string_is_what_a_user_says(self) -> None:
        assert messages_of("hi") == (ChatMessage(role=ChatRole.USER, text="hi"),)

    @pytest.mark.parametrize(
        ("role", "ours"),
        [("user", ChatRole.USER), ("system", ChatRole.SYSTEM), ("developer", ChatRole.SYSTEM)],
    )
    def test_each_message_of_others_stands_alone(self, role: str, ours: ChatRole) -> None:
        content = [{"type": "input_text", "text": "a"}]
        found = messages_of([{"role": role, "content": content}, {"type": "message", "role": role, "content": "b"}])
        by_developer = role == "developer"
        said = tuple(ChatMessage(role=ours, text=text, by_developer=by_developer) for text in "ab")
        assert found == said
        assert [item["role"] for message in said for item in items_of(message)] == [role, role]

    def test_what_a_model_did_in_a_row_is_one_message(self) -> None:
        found = messages_of(
            [
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
                {"role": "assistant", "content": "I look"},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "*** Begin"},
                {"type": "function_call_output", "call_id": "c1", "output": "1"},
                {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
                {"role": "user", "content": "go on"},
            ]
        )
        assert found == (
            said(
                ChatRole.ASSISTANT,
                Thinking(text="hm", origin=RESPONSES, id="rs_1"),
                Text(text="I look"),
                ToolCall(id="c1", name="f", arguments="{}"),
                ToolCall(id="c2", name="patch", arguments="*** Begin", is_custom=True),
            ),
            ChatMessage(
                role=ChatRole.USER,
                parts=(
                    ToolResult(call_id="c1", content=(Text(text="1"),)),
                    ToolResult(call_id="c2", content=(Text(text="2"),), is_custom=True),
                ),
            ),
            ChatMessage(role=ChatRole.USER, text="go on"),
        )

    @pytest.mark.parametrize(
        ("part", "media"),
        [
            (
                {"type": "input_image", "image_url": PNG, "detail": "low"},
                Media(kind=MediaKind.IMAGE, media_type="image/png", data="aGk=", detail="low"),
            ),
            ({"type": "input_image", "image_url": "https://x/y"}, Media(kind=MediaKind.IMAGE, url="https://x/y")),
            (
                {"type": "input_file", "file_data": "aGk=", "filename": "a.pdf"},
                Media(kind=MediaKind.DOCUMENT, media_type="application/pdf", data="aGk=", name="a.pdf"),
            ),
            (
                {"type": "input_file", "file_data": "data:text/plain;base64,aGk="},
                Media(kind=MediaKind.DOCUMENT, media_type="text/plain", data="aGk="),
            ),
            ({"type": "input_file", "file_url": "https://x/y"}, Media(kind=MediaKind.DOCUMENT, url="https://x/y")),
            (
                {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
                Media(kind=MediaKind.AUDIO, media_type="audio/wav", data="aGk="),
            ),
        ],
    )
    def test_files_are_media(self, part: dict[str, Any], media: Media) -> None:
        (message,) = messages_of([{"role": "user", "content": [{"type": "input_text", "text": "see"}, part]}])
        assert message == said(ChatRole.USER, Text(text="see"), media)

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "input_image", "file_id": "file-1"},
            {"type": "input_file", "file_id": "file-1"},
            {"type": "input_hologram", "depth": 3},
        ],
    )
    def test_content_that_only_openai_knows_stays_as_it_is(self, part: dict[str, Any]) -> None:
        (message,) = messages_of([{"role": "user", "content": [part]}])
        assert message.parts == (Opaque(format=RESPONSES, body=part),)
        (item,) = items_of(message)
        assert item["content"] == [part]

    @pytest.mark.parametrize(
        "item",
        [
            {"type": "item_reference", "id": "msg_1"},
            {"id": "msg_1"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            {"type": "future_item", "x": [1]},
            {"type": "function_call_output", "name": "thread", "output": "from another call"},
            {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot"}},
        ],
    )
    def test_items_that_only_openai_knows_stay_as_they_are(self, item: dict[str, Any]) -> None:
        (message,) = messages_of([item])
        assert message.parts == (Opaque(format=RESPONSES, body=item),)
        assert items_of(message) == [{name: value for name, value in item.items() if name != "status"}]

    def test_a_tool_of_a_namespace_has_a_flat_name(self) -> None:
        item = {"type": "function_call", "call_id": "c", "name": "find", "namespace": "crm", "arguments": "{}"}
        (message,) = messages_of([item])
        assert message.parts == (ToolCall(id="c", name="crm__find", arguments="{}"),)
        assert items_of(message, namespaces={"crm__find": ("crm", "find")}) == [item]

    @pytest.mark.parametrize(
        ("items", "param"),
        [
            ([5], "x[0]"),
            ([{"type": 5}], "x[0].type"),
            ([{"role": "robot", "content": ""}], "x[0].role"),
            ([{"role": "user", "content": 5}], "x[0].content"),
            ([{"role": "user"}], "x[0].content"),
            ([{"role": "user", "content": ["a"]}], "x[0].content[0]"),
            ([{"role": "user", "content": [{"text": "a"}]}], "x[0].content[0].type"),
            ([{"role": "user", "content": [{"type": "input_text"}]}], "x[0].content[0].text"),
            ([{"role": "user", "content": [{"type": "input_image", "image_url": 1}]}], "x[0].content[0].image_url"),
            ([{"role": "user", "content": [{"type": "input_audio"}]}], "x[0].content[0].input_audio"),
            ([{"type": "function_call", "name": "f", "arguments": ""}], "x[0].call_id"),
            ([{"type": "function_call", "call_id": "c", "arguments": ""}], "x[0].name"),
            ([{"type": "function_call", "call_id": "c", "name": "f"}], "x[0].arguments"),
            ([{"type": "custom_tool_call", "call_id": "c", "name": "f"}], "x[0].input"),
            ([{"type": "function_call_output", "output": ""}], "x[0].call_id"),
            ([{"type": "function_call_output", "call_id": "c"}], "x[0].output"),
            ([{"type": "reasoning", "encrypted_content": 5}], "x[0].encrypted_content"),
        ],
    )
    def test_what_is_wrong_is_named(self, items: list[Any], param: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            messages_of(items, "x")
        assert caught.value.param == param


CITED = {"type": "url_citation", "url": "https://x", "title": "X", "start_index": 0, "end_index": 1}
LOGPROB = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}


def of_openai(*, place: int | None = None, item: dict[str, Any] | None = None, **fields: Any) -> Particulars:
    return Particulars(format=RESPONSES, fields=fields, place=place, item=item or {})


def output_message(*content: dict[str, Any], **besides: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "status": "completed", "content": list(content), **besides}


def output_text(text: str, **besides: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": [], **besides}


class TestWhatOnlyOpenAISays:
    """Citations, phases and the like: they are kept with the part, and said again."""

    ITEMS: ClassVar[list[dict[str, Any]]] = [
        output_message(output_text("let me see"), phase="commentary"),
        output_message(
            output_text("a", annotations=[CITED], logprobs=[LOGPROB]), output_text("b"), phase="final_answer"
        ),
        output_message({"type": "refusal", "refusal": "no"}),
        output_message(output_text("c"), {"type": "refusal", "refusal": "no"}, output_text("d", annotations=[CITED])),
        {
            "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "status": "completed",
            "caller": {"type": "direct"},
        },
        {
            "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "gAAA",
            "content": [{"type": "reasoning_text", "text": "in full"}], "future": [1],
        },
    ]  # fmt: skip

    def test_is_kept_and_told_again(self) -> None:
        (message,) = messages_of(self.ITEMS)
        assert [part_from(part_body(part)) for part in message.parts] == list(message.parts)
        stored = kept(message)
        items = items_in(stored)
        assert [{name: value for name, value in item.items() if name != "id"} for item in items] == self.ITEMS
        assert [place_of(item["id"]) for item in items] == [(MESSAGE_ID, place) for place in range(len(items))]
        ITEM.validate_json(dumps(items), strict=True)
        assert messages_of(items) == (message,)

    def test_goes_back_to_openai_without_the_logprobs(self) -> None:
        (message,) = messages_of(self.ITEMS)
        sent = items_of(message)
        assert [item.get("phase") for item in sent] == ["commentary", "final_answer", *[None] * 4]
        assert sent[1]["content"] == [output_text("a", annotations=[CITED]), output_text("b")]
        assert (sent[4]["caller"], sent[5]["future"]) == ({"type": "direct"}, [1])

    def test_is_no_part_of_what_other_formats_are_measured_by(self) -> None:
        (message,) = messages_of(self.ITEMS)
        assert "X" not in str(body_of(ChatRequest(messages=(message,))))

    def test_leaves_with_its_item_whatever_else_is_taken_out(self) -> None:
        (message,) = messages_of(self.ITEMS)
        stored = kept(message)
        names = [item["id"] for item in items_in(stored)]
        left = without_item(stored, names[1])
        assert [item["id"] for item in items_in(left)] == [names[0], *names[2:]]
        assert "token" not in str(left.parts)
        assert chat_message(left).parts == (message.parts[0], *message.parts[3:])

    def test_of_another_format_is_left_out(self) -> None:
        theirs = Particulars(format=MESSAGES, fields={"citations": [1]}, place=1, item={"x": 1})
        message = said(ChatRole.ASSISTANT, Text(text="a"), Text(text="b", particulars=theirs))
        assert items_of(message) == [
            {name: value for name, value in output_message(output_text(text)).items() if name != "status"}
            for text in "ab"
        ]

    def test_of_what_a_user_says_is_kept_too(self) -> None:
        part = {"type": "input_text", "text": "see", "future": {"a": 1}}
        (message,) = messages_of([{"role": "user", "content": [part]}])
        assert items_of(message)[0]["content"] == [part] == items_in(kept(message))[0]["content"]

    def test_that_is_no_list_where_there_must_be_one_is_not_told(self) -> None:
        (message,) = messages_of([output_message({"type": "output_text", "text": "a", "annotations": "x"})])
        assert output_items(message.parts, MESSAGE_ID)[0]["content"] == [output_text("a")]

    def test_a_kind_of_content_that_nobody_knows_is_told_as_it_came(self) -> None:
        hologram = Text(text="", particulars=of_openai(type="output_hologram", depth=3))
        (item,) = output_items([hologram], MESSAGE_ID)
        assert item["content"] == [{"type": "output_hologram", "depth": 3}]


TEXTS = st.text(min_size=1, max_size=8)
BASE64 = st.sampled_from(["aGk=", "AAAA"])
THOUGHTS = st.builds(
    Thinking,
    text=st.text(max_size=5),
    signature=st.sampled_from(["sig", "c2ln"]),
    redacted=st.booleans(),
    origin=st.sampled_from([MESSAGES, GOOGLE]),
) | st.builds(
    Thinking, text=TEXTS, signature=st.none() | st.just("gAAA"), origin=st.just(RESPONSES), id=st.just("rs_x")
)
CALLS = st.builds(
    ToolCall,
    id=TEXTS,
    name=TEXTS,
    arguments=st.text(max_size=5),
    is_custom=st.booleans(),
    signature=st.none() | st.just("google's"),
    particulars=st.none() | st.just(of_openai(caller={"type": "direct"})),
)
MEDIA = (
    st.builds(Media, kind=st.just(MediaKind.IMAGE), media_type=st.just("image/png"), data=BASE64, detail=st.just("low"))
    | st.builds(Media, kind=st.just(MediaKind.AUDIO), media_type=st.just("audio/wav"), data=BASE64)
    | st.builds(Media, kind=st.just(MediaKind.DOCUMENT), url=TEXTS, name=st.none() | TEXTS)
)
RESULTS = st.builds(
    ToolResult,
    call_id=TEXTS,
    content=st.tuples(st.builds(Text, text=TEXTS)) | st.tuples(st.builds(Text, text=TEXTS), MEDIA),
    is_custom=st.booleans(),
)
SAID = st.builds(Text, text=TEXTS)
TOLD = st.builds(
    Text,
    text=TEXTS,
    particulars=st.none() | st.sampled_from([of_openai(annotations=[CITED]), of_openai(item={"phase": "commentary"})]),
)
ANSWERS = st.lists(TOLD | st.builds(Refusal, text=TEXTS) | THOUGHTS | CALLS, min_size=1, max_size=6).map(
    lambda parts: said(ChatRole.ASSISTANT, *parts)
)
ASKED = st.lists(SAID | MEDIA, min_size=2, max_size=4).map(lambda parts: said(ChatRole.USER, *parts))
GIVEN_BACK = st.lists(RESULTS, min_size=1, max_size=3).map(
    lambda parts: ChatMessage(role=ChatRole.USER, parts=tuple(parts))
)


class TestBothWays:
    @given(message=ANSWERS | ASKED | GIVEN_BACK)
    def test_items_with_ids_say_the_message_again(self, message: ChatMessage) -> None:
        items = items_in(kept(message))
        (found,) = messages_of(items)
        assert _without_ids(found.all_parts) == _without_ids(message.all_parts)
        assert [place_of(item["id"]) for item in items] == [(MESSAGE_ID, place) for place in range(len(items))]
        if "input_audio" not in str(items):  # the SDK knows it in requests alone
            ITEM.validate_json(dumps(items), strict=True)

    @given(message=ANSWERS)
    def test_the_output_of_a_response_is_what_the_sdk_expects(self, message: ChatMessage) -> None:
        items = output_items(message.all_parts, MESSAGE_ID)
        OUTPUT.validate_json(dumps(items), strict=True)
        assert items == items_in(kept(message))

    @given(message=ANSWERS | ASKED | GIVEN_BACK)
    def test_an_upstream_gets_everything_but_thoughts_that_are_not_its_own(self, message: ChatMessage) -> None:
        items = items_of(message)
        kept = [
            part
            for part in message.all_parts
            if not isinstance(part, Thinking) or (part.origin is RESPONSES and part.signature)
        ]
        found = [part for each in messages_of(items) for part in each.all_parts]
        assert _bare(found) == _bare(kept)
        assert not any("gateway" in str(item.get("encrypted_content")) for item in items)

    def test_only_the_last_item_of_a_broken_answer_is_incomplete(self) -> None:
        parts = (Text(text="a"), ToolCall(id="c", name="f", arguments="{"))
        assert [item["status"] for item in output_items(parts, MESSAGE_ID, status="incomplete")] == [
            "completed",
            "incomplete",
        ]

    def test_ids_tell_the_kind_and_the_place(self) -> None:
        search = Opaque(format=RESPONSES, body={"type": "web_search_call", "id": "ws_9", "status": "completed"})
        parts = (
            Thinking(text="t"),
            search,
            Text(text="a"),
            Refusal(text="b"),
            ToolCall(id="c", name="f", arguments=""),
        )
        ids = [item["id"] for item in output_items(parts, MESSAGE_ID)]
        assert ids == [f"rs_{HEX}", f"ws_{HEX}_1", f"msg_{HEX}_2", f"fc_{HEX}_3"]
        assert place_of("msg_5") is None

    def test_nothing_said_is_nothing_put_out(self) -> None:
        assert output_items((), MESSAGE_ID) == []
        assert items_in(kept(ChatMessage(role=ChatRole.USER)))[0]["content"] == [{"type": "input_text", "text": ""}]


class TestHoles:
    @given(message=ANSWERS | ASKED | GIVEN_BACK, data=st.data())
    def test_whatever_is_taken_out_the_rest_stays_what_and_where_it_is(
        self, message: ChatMessage, data: st.DataObject
    ) -> None:
        stored = kept(message)
        left = items_in(stored)
        while left:
            gone = left.pop(data.draw(st.integers(0, len(left) - 1)))
            stored = without_item(stored, gone["id"])
            assert items_in(stored) == left
            with pytest.raises(NotFound):
                without_item(stored, gone["id"])
        assert (chat_message(stored).text, chat_message(stored).parts, stored.content) == ("", (), "")

    def test_what_only_other_formats_say_stays_with_the_rest(self) -> None:
        theirs = Opaque(format=MESSAGES, body={"type": "web_search_tool_result", "content": "found"})
        failed = ToolResult(call_id="c", name="look", content=(Text(text="no"),), is_error=True)
        answer = kept(said(ChatRole.ASSISTANT, Text(text="secret"), theirs, Text(text="b")))
        results = kept(ChatMessage(role=ChatRole.USER, parts=(ToolResult(call_id="b", content=()), failed)))
        answer, results = (without_item(each, items_in(each)[0]["id"]) for each in (answer, results))
        assert chat_message(answer).parts == (theirs, Text(text="b"))
        assert chat_message(results).parts == (failed,)
        assert "secret" not in str(answer)


def _without_ids(parts: Any) -> list[Part]:
    """Our own ids are none of a provider's; a signature of nothing is none."""
    return [_thought(part) if isinstance(part, Thinking) else _without_place(part) for part in parts]


def _without_place(part: Part) -> Part:
    """Where a part stands in its item is told only where it has come out of one."""
    if not isinstance(part, Refusal) or part.particulars is None:
        return part
    return replace(part, particulars=None)


def _thought(thought: Thinking) -> Thinking:
    return Thinking(text=thought.text, signature=thought.signature, redacted=thought.redacted, origin=thought.origin)


def _bare(parts: Any) -> list[Any]:
    """Without what only we know of a call."""
    return [
        (part.id, part.name, part.arguments, part.particulars) if isinstance(part, ToolCall) else part
        for part in _without_ids(parts)
    ]


class TestForOpenAI:
    def test_a_clients_own_items_go_on_as_they_are(self) -> None:
        item = {"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA", "summary": [], "future": 1}
        assert own_item(item) is item
        assert own_item("what is this") == "what is this"

    def test_what_it_got_from_us_alone_stays_with_us(self) -> None:
        call = {"type": "function_call", "id": f"fc_{HEX}_1", "call_id": "c", "name": "f", "arguments": "{}"}
        signed = {**call, "extra_content": {"google": {"thought_signature": "s"}}}
        assert own_item(signed) == {name: value for name, value in call.items() if name != "id"}

    def test_thoughts_of_others_are_no_thoughts_of_openais(self) -> None:
        foreign = output_items((Thinking(text="t", signature="s", origin=MESSAGES),), MESSAGE_ID)
        assert own_item(foreign[0]) is None
        assert own_item({"type": "reasoning", "id": "rs_1", "summary": []}) is None

    def test_references_are_replaced_by_what_they_name(self) -> None:
        items = [{"type": "item_reference", "id": "msg_1"}, {"id": "fc_2"}, {"role": "user", "content": "a"}, 5]
        assert references_in(items) == ("msg_1", "fc_2")
        told = {"type": "message", "role": "assistant", "content": "b"}
        assert with_items(items, {"msg_1": told}) == [told, *items[1:]]
        assert references_in("text") == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["type", "role", "content", "call_id", "name", "namespace", "arguments", "input", "output", "summary", "id",
     "encrypted_content", "image_url", "file_data", "file_url", "file_id", "input_audio", "text", "refusal"]
)  # fmt: skip
KINDS = st.sampled_from(
    ["message", "user", "assistant", "reasoning", "function_call", "function_call_output", "custom_tool_call",
     "custom_tool_call_output", "item_reference", "input_text", "input_image", "input_file", "input_audio",
     "output_text", "refusal"]
)  # fmt: skip
VALUES = st.recursive(
    JSON | KINDS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(FIELDS, inner, max_size=5), max_leaves=12
)


@given(items=st.lists(st.dictionaries(FIELDS, VALUES, max_size=6), max_size=3))
def test_whatever_json_comes_is_read_or_refused(items: list[Any]) -> None:
    try:
        messages = messages_of(items)
    except InvalidRequest:
        return
    for message in messages:
        items_in(kept(message))
        items_of(message)
    for item in items:
        own_item(item)
