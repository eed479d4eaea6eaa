"""What Anthropic's clients send becomes our words, and whatever they send is no fault of ours."""

import base64
import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.api.dialects.anthropic.request import parse_count, parse_messages
from src.api.dialects.request import ParsedRequest
from src.api.dialects.signatures import sealed
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import Media, MediaKind, Part, Text, Thinking, ToolCall, ToolResult
from src.domain.completion.model import ChatRole
from src.domain.completion.tools import Reasoning, ResponseFormat, Tool, ToolChoice, ToolUse
from src.shared.errors import InvalidRequest

PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}
OURS = Tool(name="weather", description="Tells it.", schema=SCHEMA)
GOOGLES = sealed("sig", WireFormat.GENERATE_CONTENT, WireFormat.MESSAGES)


def parse(**fields: Any) -> ParsedRequest:
    body = {"model": "fast", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}], **fields}
    return parse_messages(body, {})


def saying(role: str, *blocks: Any) -> ParsedRequest:
    return parse(messages=[{"role": role, "content": list(blocks)}])


def parts(role: str, *blocks: Any) -> tuple[Part, ...]:
    return saying(role, *blocks).chat.messages[0].parts


def kept_out(parsed: ParsedRequest) -> tuple[str, ...]:
    assert parsed.chat.wire is not None
    return parsed.chat.wire.untranslatable


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ({"type": "image", "source": PNG}, Media(kind=MediaKind.IMAGE, media_type="image/png", data="iVBORw0KGgo=")),
        (
            {"type": "image", "source": {"type": "url", "url": "https://a.test/b.png"}},
            Media(kind=MediaKind.IMAGE, url="https://a.test/b.png"),
        ),
        (
            {"type": "document", "source": PDF, "title": "a.pdf"},
            Media(kind=MediaKind.DOCUMENT, media_type="application/pdf", data="JVBERi0=", name="a.pdf"),
        ),
        (
            {"type": "document", "source": {"type": "url", "url": "https://a.test/b.pdf"}},
            Media(kind=MediaKind.DOCUMENT, media_type="application/pdf", url="https://a.test/b.pdf"),
        ),
        (
            {"type": "tool_result", "tool_use_id": "t1", "content": "18 °C"},
            ToolResult(call_id="t1", content=(Text(text="18 °C"),)),
        ),
        ({"type": "tool_result", "tool_use_id": "t1"}, ToolResult(call_id="t1", content=())),
        (
            {
                "type": "tool_result",
                "tool_use_id": "t1",
                "is_error": True,
                "content": [{"type": "text", "text": "no"}, {"type": "image", "source": PNG}],
            },
            ToolResult(
                call_id="t1",
                content=(
                    Text(text="no"),
                    Media(kind=MediaKind.IMAGE, media_type="image/png", data="iVBORw0KGgo="),
                ),
                is_error=True,
            ),
        ),
    ],
)
def test_what_the_user_sends_besides_text_is_a_part(block: dict[str, Any], part: Part) -> None:
    parsed = saying("user", block)
    assert parsed.chat.messages[0].parts == (part,)
    assert (kept_out(parsed), parsed.untranslated) == ((), ())


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Malmö"}},
            ToolCall(id="t1", name="weather", arguments='{"city":"Malmö"}'),
        ),
        (
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {}, "caller": {"type": "direct"}},
            ToolCall(id="t1", name="weather", arguments="{}"),
        ),
        (
            {
                "type": "tool_use",
                "id": "t1",
                "name": "weather",
                "input": {},
                "extra_content": {"google": {"thought_signature": "sig"}},
            },
            ToolCall(id="t1", name="weather", arguments="{}", signature="sig"),
        ),
        (
            {"type": "thinking", "thinking": "hm", "signature": "abc"},
            Thinking(text="hm", signature="abc", origin=WireFormat.MESSAGES),
        ),
        (
            {"type": "thinking", "thinking": "hm", "signature": GOOGLES},
            Thinking(text="hm", signature="sig", origin=WireFormat.GENERATE_CONTENT),
        ),
        (
            {"type": "redacted_thinking", "data": "abc"},
            Thinking(signature="abc", redacted=True, origin=WireFormat.MESSAGES),
        ),
    ],
)
def test_what_the_model_said_besides_text_is_a_part(block: dict[str, Any], part: Part) -> None:
    parsed = saying("assistant", block, {"type": "text", "text": "so"})
    assert parsed.chat.messages[0].parts == (part, Text(text="so"))
    assert parsed.chat.messages[0].text == "so"
    assert (kept_out(parsed), parsed.untranslated) == ((), ())


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"type": "text", "media_type": "text/plain", "data": "the law"}, "the law"),
        ({"type": "content", "content": "the law"}, "the law"),
        (
            {"type": "content", "content": [{"type": "text", "text": "the"}, {"type": "text", "text": "law"}]},
            "the\nlaw",
        ),
    ],
)
def test_a_document_of_text_is_that_text_below_its_title(source: dict[str, Any], words: str) -> None:
    parsed = saying("user", {"type": "document", "source": source, "title": "Laws", "context": "old"})
    (message,) = parsed.chat.messages
    assert (message.text, message.parts) == (f"Laws\nold\n{words}", ())


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "image.source.file"),
        ({"type": "document", "source": {"type": "file", "file_id": "f"}}, "document.source.file"),
        ({"type": "image", "source": {}}, "image.source"),
        ({"type": "search_result", "source": "s", "title": "t", "content": []}, "search_result"),
        ({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, "server_tool_use"),
        ({"type": "web_search_tool_result", "tool_use_id": "s", "content": []}, "web_search_tool_result"),
        ({"type": "mcp_tool_use"}, "mcp_tool_use"),
        ({"type": "container_upload", "file_id": "f"}, "container_upload"),
        ({"type": "x" * 500}, "x" * 64),
        (
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference", "tool_name": "n"}]},
            "tool_reference",
        ),
    ],
)
def test_what_nobody_else_understands_is_named(block: dict[str, Any], name: str) -> None:
    parsed = saying("user", block, {"type": "text", "text": "and"})
    assert kept_out(parsed) == (name,)
    assert parsed.chat.messages[0].text == "and"


def test_a_system_prompt_of_more_than_text_cannot_be_translated() -> None:
    assert kept_out(parse(system=[{"type": "image", "source": PNG}])) == ("image",)


def test_system_messages_may_say_nothing_or_only_until_the_user_speaks_again() -> None:
    asked = [
        {"role": "user", "content": "a"},
        {"role": "system", "output_config": {"effort": "low"}},
        {"role": "system", "content": "for now", "clear_at": "next_user_message"},
        {"role": "system", "content": "for ever", "clear_at": "never"},
        {"role": "user", "content": "b"},
        {"role": "system", "content": "and now", "clear_at": "next_user_message"},
        {"role": "assistant", "content": "c", "of_the_future": 1},
    ]
    parsed = parse(messages=asked)
    assert [message.text for message in parsed.chat.messages] == ["a", "for ever", "b", "and now", "c"]
    assert parsed.untranslated == ("messages.of_the_future", "messages.output_config")
    assert parsed.chat.wire is not None
    assert parsed.chat.wire.body["messages"] == asked


def test_settings_of_blocks_and_tools_are_named_once_where_they_say_nothing_elsewhere() -> None:
    marked = {"cache_control": {"type": "ephemeral"}}
    parsed = parse(
        system=[{"type": "text", "text": "Be brief.", **marked}],
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a", "citations": None, **marked},
                    {"type": "document", "source": PDF, "citations": {"enabled": True}},
                ],
            }
        ],
        tools=[{**WEATHER, **marked}, {"type": "web_search_20250305", "name": "web_search"}],
    )
    assert parsed.untranslated == ("cache_control", "citations", "tools[web_search_20250305]")
    assert parsed.chat.tools == (OURS,)
    assert kept_out(parsed) == ()


@pytest.mark.parametrize(
    ("choice", "ours", "parallel"),
    [
        ({"type": "auto"}, ToolChoice(), None),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice(), False),
        ({"type": "any"}, ToolChoice(use=ToolUse.REQUIRED), None),
        ({"type": "tool", "name": "weather"}, ToolChoice(use=ToolUse.REQUIRED, names=("weather",)), None),
        ({"type": "none"}, ToolChoice(use=ToolUse.NONE), None),
    ],
)
def test_a_choice_of_tools_is_read(choice: dict[str, Any], ours: ToolChoice, parallel: bool | None) -> None:
    parsed = parse(tools=[{"type": "custom", **WEATHER}], tool_choice=choice)
    assert (parsed.chat.tool_choice, parsed.chat.parameters.parallel_tool_calls) == (ours, parallel)
    assert (parsed.untranslated, kept_out(parsed)) == ((), ())


def test_a_choice_among_no_tools_is_left_out_and_one_that_demands_a_tool_of_anthropics_is_untranslatable() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    parsed = parse(tools=[search], tool_choice={"type": "any"})
    assert (parsed.chat.tool_choice, kept_out(parsed)) == (ToolChoice(), ())
    assert parsed.untranslated == ("tool_choice", "tools[web_search_20250305]")
    assert kept_out(parse(tools=[search], tool_choice={"type": "tool", "name": "web_search"})) == ("tool_choice",)
    assert parse(tools=[WEATHER], tool_choice={"type": "of_the_future"}).untranslated == ("tool_choice",)


@pytest.mark.parametrize(
    ("fields", "ours", "left_out"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, Reasoning(budget_tokens=2000, shown=True), ()),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}},
            Reasoning(budget_tokens=2000),
            (),
        ),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
            Reasoning(effort="low", shown=True),
            (),
        ),
        ({"thinking": {"type": "between_tools"}}, Reasoning(shown=True), ()),
        ({"thinking": {"type": "disabled"}}, Reasoning(effort="none"), ()),
        (
            {"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}},
            Reasoning(effort="none"),
            ("output_config.effort",),
        ),
        ({"output_config": {"effort": "max"}}, Reasoning(effort="max"), ()),
        ({"output_config": {"effort": "wild", "mood": 1}}, None, ("output_config.effort", "output_config.mood")),
        ({"thinking": {"type": "of_the_future"}}, None, ("thinking",)),
        ({"thinking": None, "output_config": None}, None, ()),
    ],
)
def test_how_much_to_think_is_read(fields: dict[str, Any], ours: Reasoning | None, left_out: tuple[str, ...]) -> None:
    parsed = parse(**fields)
    assert (parsed.chat.parameters.reasoning, parsed.untranslated) == (ours, left_out)


@pytest.mark.parametrize("fields", [{"output_config": {"format": ...}}, {"output_format": ...}], ids=["new", "old"])
def test_the_form_of_the_answer_is_read(fields: dict[str, Any]) -> None:
    wanted = {"type": "json_schema", "schema": SCHEMA}
    name, value = next(iter(fields.items()))
    parsed = parse(**{name: {"format": wanted} if isinstance(value, dict) else wanted})
    assert parsed.chat.parameters.response_format == ResponseFormat(schema=SCHEMA)
    assert parsed.untranslated == ()
    strange = {"type": "of_the_future"}
    parsed = parse(**{name: {"format": strange} if isinstance(value, dict) else strange})
    assert parsed.chat.parameters.response_format is None
    assert parsed.untranslated == (f"{name}.format" if isinstance(value, dict) else name,)


def test_warming_a_cache_cannot_be_translated() -> None:
    assert kept_out(parse(max_tokens=0)) == ("max_tokens: 0",)


def test_a_count_needs_no_maximum() -> None:
    parsed = parse_count({"model": "fast", "messages": [{"role": "user", "content": "hello"}]}, {})
    assert parsed.chat.parameters.max_output_tokens is None


THEIR_THOUGHT = {"type": "thinking", "thinking": "hm", "signature": GOOGLES}
CALLED = {"type": "tool_use", "id": "t", "name": "weather", "input": {}}
ANSWERED = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "18"}]}


def wire_body(parsed: ParsedRequest) -> Any:
    assert parsed.chat.wire is not None
    return parsed.chat.wire.body


def test_anthropic_is_not_told_the_thoughts_of_others() -> None:
    own = {"type": "thinking", "thinking": "hm", "signature": "abc"}
    signed = {**CALLED, "extra_content": {"google": {"thought_signature": "sig"}}}
    asked = {"role": "user", "content": "how warm?"}
    said = [
        asked,
        {"role": "assistant", "content": [THEIR_THOUGHT, own, signed]},
        ANSWERED,
        {"role": "assistant", "content": [THEIR_THOUGHT, {"type": "redacted_thinking", "data": GOOGLES}]},
    ]
    parsed = parse(messages=said, metadata={"a": 1})
    told = [asked, {"role": "assistant", "content": [own, CALLED]}, ANSWERED]
    assert wire_body(parsed) == {"model": "fast", "max_tokens": 50, "messages": told, "metadata": {"a": 1}}
    assert len(parsed.chat.messages[1].parts) == 3


@pytest.mark.parametrize(
    ("begun_by", "more", "thinks"),
    [
        ([THEIR_THOUGHT], [], False),
        ([THEIR_THOUGHT], [{"role": "system", "output_config": {"effort": "low"}}], False),
        ([THEIR_THOUGHT], [{"role": "assistant", "content": "18"}, {"role": "user", "content": "and?"}], True),
        ([{"type": "thinking", "thinking": "hm", "signature": "abc"}, THEIR_THOUGHT], [], True),
    ],
)
def test_anthropic_does_not_think_in_the_middle_of_what_others_began(
    begun_by: list[Any], more: list[Any], thinks: bool
) -> None:
    said = [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": [*begun_by, CALLED]},
        ANSWERED,
        *more,
    ]
    body = wire_body(parse(messages=said, thinking={"type": "enabled", "budget_tokens": 2000}))
    assert ("thinking" in body) == thinks
    adaptive = wire_body(parse(messages=said, thinking={"type": "adaptive"}))
    assert adaptive["thinking"] == {"type": "adaptive"}


def in_content(role: str, block: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": [block]}]}


AT = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (in_content("user", {"type": "image"}), f"{AT}.source"),
        (in_content("user", {"type": "image", "source": {"type": "base64", "data": "a"}}), f"{AT}.source.media_type"),
        (in_content("user", {"type": "image", "source": {**PNG, "data": 5}}), f"{AT}.source.data"),
        (in_content("user", {"type": "image", "source": {"type": "url"}}), f"{AT}.source.url"),
        (in_content("user", {"type": "document", "source": PDF, "title": 5}), f"{AT}.title"),
        (in_content("user", {"type": "document", "source": {"type": "text"}}), f"{AT}.source.data"),
        (in_content("user", {"type": "document", "source": {"type": "content"}}), f"{AT}.source.content"),
        (in_content("user", {"type": "tool_result"}), f"{AT}.tool_use_id"),
        (in_content("user", {"type": "tool_result", "tool_use_id": "t", "content": 5}), f"{AT}.content"),
        (in_content("user", {"type": "tool_result", "tool_use_id": "t", "content": [5]}), f"{AT}.content[0]"),
        (in_content("user", {"type": "tool_result", "tool_use_id": "t", "is_error": "no"}), f"{AT}.is_error"),
        (in_content("user", {"type": "tool_use", "id": "t", "name": "n", "input": {}}), AT),
        (in_content("user", {"type": "thinking", "thinking": "", "signature": ""}), AT),
        (in_content("assistant", {"type": "tool_result", "tool_use_id": "t"}), AT),
        (in_content("assistant", {"type": "tool_use", "name": "n", "input": {}}), f"{AT}.id"),
        (in_content("assistant", {"type": "tool_use", "id": "t", "input": {}}), f"{AT}.name"),
        (in_content("assistant", {"type": "tool_use", "id": "t", "name": "n", "input": "{}"}), f"{AT}.input"),
        (in_content("assistant", {"type": "thinking", "signature": ""}), f"{AT}.thinking"),
        (in_content("assistant", {"type": "redacted_thinking"}), f"{AT}.data"),
        (in_content("system", {"type": "text", "text": 5}), f"{AT}.text"),
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "n"}]}, "tools[0].input_schema"),
        ({"tools": [{**WEATHER, "description": 5}]}, "tools[0].description"),
        ({"tools": [{**WEATHER, "strict": 5}]}, "tools[0].strict"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"thinking": "on"}, "thinking"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": "many"}}, "budget_tokens"),
        ({"output_config": []}, "output_config"),
        ({"output_config": {"effort": 5}}, "output_config.effort"),
        ({"output_config": {"format": "json"}}, "output_config.format"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_format": {"type": "json_schema", "schema": []}}, "output_format.schema"),
    ],
)
def test_what_is_wrong_is_refused_by_its_place(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.param == param
    assert param.split(".")[-1] in caught.value.message


words = st.sampled_from(
    [
        *("type", "text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking", "source"),
        *("base64", "url", "file", "content", "data", "media_type", "id", "name", "input", "tool_use_id", "is_error"),
        *(
            "signature",
            "role",
            "user",
            "assistant",
            "system",
            "enabled",
            "adaptive",
            "budget_tokens",
            "effort",
            "format",
        ),
        *("json_schema", "schema", "auto", "any", "tool", "none", "custom", "input_schema", "citations", "title"),
        *("extra_content", "google", "thought_signature", GOOGLES, base64.b64encode(b"llm-gateway:").decode(), ""),
    ]
)
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(), inner, max_size=5),
    max_leaves=25,
)
blocks = st.dictionaries(words, anything, max_size=6) | st.fixed_dictionaries({"type": words, "source": anything})
messages = st.fixed_dictionaries({"role": words, "content": st.lists(blocks, max_size=3) | anything})
FIELDS = (
    *("model", "max_tokens", "system", "tools", "tool_choice", "thinking", "output_config", "output_format", "stream"),
    *("stop_sequences", "temperature", "top_k", "metadata", "cache_control"),
)


@settings(max_examples=300)
@given(
    fields=st.dictionaries(st.sampled_from(FIELDS) | st.text(), anything, max_size=5),
    said=st.lists(messages, min_size=1, max_size=3) | anything,
)
def test_any_body_is_read_or_refused(fields: dict[str, Any], said: Any) -> None:
    try:
        parsed = parse_messages({"model": "fast", "max_tokens": 5, "messages": said, **fields}, {})
    except InvalidRequest:
        return
    assert all(message.role in ChatRole for message in parsed.chat.messages)
    for message in parsed.chat.messages:
        for part in message.parts:
            if isinstance(part, ToolCall):
                assert isinstance(json.loads(part.arguments), dict)
    orjson.dumps([parsed.untranslated, kept_out(parsed)])
