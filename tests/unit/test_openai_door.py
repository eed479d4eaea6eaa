"""OpenAI chat completions, inwards: what is more than text becomes our words, and nothing is lost in silence."""

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.api.dialects.openai.request import parse_chat_completion
from src.api.dialects.request import ParsedRequest
from src.api.dialects.signatures import sealed
from src.api.json import dumps
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import Media, MediaKind, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from src.domain.completion.model import ChatRole, Parameters
from src.domain.completion.tools import Reasoning, ResponseFormat, Tool, ToolChoice, ToolUse
from src.shared.errors import InvalidRequest

OWN = WireFormat.CHAT_COMPLETIONS
HELLO = {"role": "user", "content": "hello"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "weather", "description": "How warm it is.", "parameters": SCHEMA}
PNG = base64.b64encode(b"\x89PNG").decode()


def parse(**given: Any) -> ParsedRequest:
    return parse_chat_completion({"model": "fast", "messages": [HELLO], **given}, {})


def parts(*messages: dict[str, Any]) -> list[tuple[Part, ...]]:
    return [message.parts for message in parse(messages=[HELLO, *messages]).chat.messages[1:]]


def part(content: dict[str, Any]) -> Part:
    ((_, read),) = parts({"role": "user", "content": [{"type": "text", "text": "see"}, content]})
    return read


def refusal_of(**given: Any) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**given)
    assert caught.value.param is not None
    assert caught.value.param in caught.value.message
    return caught.value.param


@pytest.mark.parametrize(
    ("content", "read"),
    [
        (
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
            Media(kind=MediaKind.IMAGE, media_type="image/png", data=PNG, detail="low"),
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://host/cat.jpg"}},
            Media(kind=MediaKind.IMAGE, url="https://host/cat.jpg"),
        ),
        (
            {"type": "image_url", "image_url": "https://host/cat.jpg"},
            Media(kind=MediaKind.IMAGE, url="https://host/cat.jpg"),
        ),
        (
            {"type": "image_url", "image_url": {"url": "data:image/svg+xml,%3Csvg%3E"}},
            Media(kind=MediaKind.IMAGE, media_type="image/svg+xml", data=base64.b64encode(b"<svg>").decode()),
        ),
        (
            {"type": "video_url", "video_url": {"url": "https://host/cat.mp4"}},
            Media(kind=MediaKind.VIDEO, url="https://host/cat.mp4"),
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QQ=="}},
            Media(kind=MediaKind.DOCUMENT, media_type="application/pdf", data="QQ==", name="a.pdf"),
        ),
        (
            {"type": "file", "file": {"filename": "a.txt", "file_data": "QQ=="}},
            Media(kind=MediaKind.DOCUMENT, media_type="text/plain", data="QQ==", name="a.txt"),
        ),
        (
            {"type": "file", "file": {"file_data": "data:image/gif;base64,QQ=="}},
            Media(kind=MediaKind.IMAGE, media_type="image/gif", data="QQ=="),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "mp3"}},
            Media(kind=MediaKind.AUDIO, media_type="audio/mpeg", data="QQ=="),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
            Media(kind=MediaKind.AUDIO, media_type="audio/wav", data="QQ=="),
        ),
    ],
)
def test_files_are_read(content: dict[str, Any], read: Part) -> None:
    assert part(content) == read


def test_calls_and_their_results_are_read() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Malmö"}'}}
    custom = {"id": "call_2", "type": "custom", "custom": {"name": "code", "input": "1+1"}}
    signed = {**call, "id": "call_3", "extra_content": {"google": {"thought_signature": "c2ln"}}}
    assert parts(
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call, custom, signed]},
        {"role": "tool", "tool_call_id": "call_1", "content": "cold"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "2"}]},
    ) == [
        (
            Text(text="Let me see."),
            ToolCall(id="call_1", name="weather", arguments='{"city": "Malmö"}'),
            ToolCall(id="call_2", name="code", arguments="1+1", is_custom=True),
            ToolCall(id="call_3", name="weather", arguments='{"city": "Malmö"}', signature="c2ln"),
        ),
        (ToolResult(call_id="call_1", content=(Text(text="cold"),)),),
        (ToolResult(call_id="call_2", content=(Text(text="2"),)),),
    ]


def test_the_result_of_a_tool_is_said_by_the_user() -> None:
    message = parse(messages=[{"role": "tool", "tool_call_id": "x", "content": "5"}]).chat.messages[0]
    assert (message.role, message.text) == (ChatRole.USER, "")


def test_functions_of_the_time_before_tools_are_calls_with_ids_that_fit() -> None:
    asked = {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": ""}}
    told = {"role": "function", "name": "weather", "content": "cold"}
    first, result, second, other = parts(asked, told, asked, told)
    assert first == (ToolCall(id="call_0", name="weather", arguments="{}"),)
    assert result == (ToolResult(call_id="call_0", content=(Text(text="cold"),), name="weather"),)
    assert second == (ToolCall(id="call_1", name="weather", arguments="{}"),)
    assert other == (ToolResult(call_id="call_1", content=(Text(text="cold"),), name="weather"),)


def test_refusals_are_read_wherever_they_stand() -> None:
    assert parts({"role": "assistant", "content": None, "refusal": "no"}) == [(Refusal(text="no"),)]
    assert parts({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}) == [(Refusal(text="no"),)]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_are_read_in_the_words_of_most_servers(name: str) -> None:
    message = {"role": "assistant", "content": "so", name: "hm"}
    assert parts(message) == [(Thinking(text="hm", origin=OWN), Text(text="so"))]


def test_thoughts_are_read_with_what_proves_them() -> None:
    foreign = sealed("sig", WireFormat.MESSAGES, OWN)
    details = [
        {"type": "reasoning.text", "text": "hm", "signature": foreign, "format": "unknown", "index": 0},
        {"type": "reasoning.encrypted", "data": sealed("secret", WireFormat.MESSAGES, OWN)},
        {"type": "reasoning.text", "text": None, "signature": "routers own"},
        {"type": "reasoning.summary", "summary": "in short"},
        {"type": "reasoning.of_the_future"},
    ]
    message = {"role": "assistant", "content": "", "reasoning_content": "hm", "reasoning_details": details}
    assert parts(message) == [
        (
            Thinking(text="hm", signature="sig", origin=WireFormat.MESSAGES),
            Thinking(signature="secret", redacted=True, origin=WireFormat.MESSAGES),
            Thinking(signature="routers own", origin=OWN),
            Thinking(text="in short", origin=OWN),
        )
    ]


def test_tools_are_read_and_what_a_provider_runs_itself_is_named() -> None:
    tools = [
        {"type": "function", "function": {**FUNCTION, "strict": True}},
        {"type": "custom", "custom": {"name": "code", "format": {"type": "grammar", "grammar": {}}}},
        {"type": "web_search"},
        {"function": {"name": "bare", "parameters": None}},
    ]
    parsed = parse(tools=tools)
    assert parsed.chat.tools == (
        Tool(name="weather", description="How warm it is.", schema=SCHEMA, strict=True),
        Tool(name="code", is_custom=True),
        Tool(name="bare"),
    )
    assert parsed.untranslated == ("tools[custom].format", "tools[web_search]")


def test_functions_are_tools_of_which_one_is_called_at_a_time() -> None:
    chat = parse(functions=[FUNCTION], function_call={"name": "weather"}).chat
    assert chat.tools == (Tool(name="weather", description="How warm it is.", schema=SCHEMA),)
    assert chat.tool_choice == ToolChoice(use=ToolUse.REQUIRED, names=("weather",))
    assert chat.parameters.parallel_tool_calls is False


@pytest.mark.parametrize(
    ("choice", "read"),
    [
        ("none", ToolChoice(use=ToolUse.NONE)),
        ("auto", ToolChoice()),
        ("required", ToolChoice(use=ToolUse.REQUIRED)),
        ({"type": "function", "function": {"name": "a"}}, ToolChoice(use=ToolUse.REQUIRED, names=("a",))),
        ({"type": "custom", "custom": {"name": "a"}}, ToolChoice(use=ToolUse.REQUIRED, names=("a",))),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [
                        {"type": "function", "function": {"name": "a"}},
                        {"type": "custom", "custom": {"name": "b"}},
                    ],
                },
            },
            ToolChoice(use=ToolUse.REQUIRED, names=("a", "b")),
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"function": {"name": "a"}}]}},
            ToolChoice(names=("a",)),
        ),
    ],
)
def test_the_choice_of_tools_is_read(choice: Any, read: ToolChoice) -> None:
    parsed = parse(tool_choice=choice)
    assert (parsed.chat.tool_choice, parsed.untranslated) == (read, ())


@pytest.mark.parametrize("choice", ["any", 5, {"type": "mcp"}, {}])
def test_a_choice_of_tools_that_we_do_not_know_is_named(choice: Any) -> None:
    parsed = parse(tool_choice=choice)
    assert (parsed.chat.tool_choice, parsed.untranslated) == (ToolChoice(), ("tool_choice",))


@pytest.mark.parametrize(
    ("form", "read"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, ResponseFormat()),
        (
            {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}},
            ResponseFormat(schema=SCHEMA, name="city", strict=True),
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "city", "description": "one", "schema": SCHEMA}},
            ResponseFormat(schema=SCHEMA, name="city", description="one"),
        ),
    ],
)
def test_the_shape_of_the_answer_is_read(form: Any, read: ResponseFormat | None) -> None:
    parsed = parse(response_format=form)
    assert (parsed.chat.parameters.response_format, parsed.untranslated) == (read, ())


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"reasoning_effort": "high"}, Reasoning(effort="high", shown=True)),
        ({"reasoning_effort": "none"}, Reasoning(effort="none")),
        ({"reasoning": {"effort": "low"}}, Reasoning(effort="low", shown=True)),
        ({"reasoning": {"effort": "low", "exclude": True}}, Reasoning(effort="low")),
        ({"reasoning": {"max_tokens": 2000}}, Reasoning(budget_tokens=2000, shown=True)),
        ({"reasoning": {"enabled": True}}, Reasoning(effort="medium", shown=True)),
        ({"reasoning": {}}, None),
    ],
)
def test_how_hard_to_think_is_read(given: dict[str, Any], read: Reasoning | None) -> None:
    parsed = parse(**given)
    assert (parsed.chat.parameters.reasoning, parsed.untranslated) == (read, ())


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"logprobs": True}, Parameters(logprobs=0)),
        ({"logprobs": True, "top_logprobs": 3}, Parameters(logprobs=3)),
        ({"logprobs": False}, Parameters()),
        ({"n": 2}, Parameters(choices=2)),
        ({"top_k": 40}, Parameters(top_k=40)),
        ({"top_k": -1}, Parameters()),
        ({"parallel_tool_calls": False}, Parameters(parallel_tool_calls=False)),
        ({"parallel_tool_calls": True}, Parameters(parallel_tool_calls=True)),
    ],
)
def test_more_parameters_are_read(given: dict[str, Any], read: Parameters) -> None:
    parsed = parse(**given)
    assert (parsed.chat.parameters, parsed.untranslated) == (read, ())
    assert parsed.chat.wire is not None
    assert parsed.chat.wire.untranslatable == ()


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"user": "u", "safety_identifier": "s", "prompt_cache_key": "k"}, ()),
        ({"stream_options": {"include_obfuscation": False}}, ()),
        ({"store": False, "service_tier": "auto", "logit_bias": {}, "modalities": ["text"], "metadata": None}, ()),
        ({"store": True, "metadata": {}, "service_tier": "flex"}, ("metadata", "service_tier", "store")),
        ({"web_search_options": {}, "logit_bias": {"5": 1}}, ("logit_bias", "web_search_options")),
        ({"verbosity": "low", "prediction": {}, "novel": 0}, ("novel", "prediction", "verbosity")),
        ({"modalities": ["text", "image"]}, ("modalities",)),
        ({"reasoning_effort": "utmost"}, ("reasoning_effort",)),
        ({"reasoning": "much"}, ("reasoning",)),
        ({"response_format": {"type": "grammar"}}, ("response_format",)),
        ({"messages": [{"role": "user", "content": "a", "name": "ann"}]}, ("messages.name",)),
        ({"messages": [{"role": "tool", "content": "a", "tool_call_id": "1", "name": "f"}]}, ()),
        (
            {"messages": [{"role": "assistant", "content": "a", "annotations": [], "audio": None, "prefix": True}]},
            ("messages.prefix",),
        ),
        (
            {
                "messages": [
                    {"role": "system", "content": [{"type": "text", "text": "a", "cache_control": {"type": "e"}}]}
                ]
            },
            ("cache_control",),
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}, "cache_control": {"type": "e"}}]},
            ("cache_control",),
        ),
    ],
)
def test_what_has_no_place_in_our_words_is_named(given: dict[str, Any], names: tuple[str, ...]) -> None:
    assert parse(**given).untranslated == names


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": "a", "parameters": []}}]}, "tools[0].function.parameters"),
        ({"tools": [{"function": {"name": "a", "description": 5}}]}, "tools[0].function.description"),
        ({"functions": [{}]}, "functions[0].name"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        ({"function_call": {}}, "function_call.name"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}},
            "response_format.json_schema.schema",
        ),
        ({"logprobs": 5}, "logprobs"),
        ({"top_logprobs": "5"}, "top_logprobs"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"reasoning_effort": 5}, "reasoning_effort"),
        ({"reasoning": {"max_tokens": "5"}}, "reasoning.max_tokens"),
    ],
)
def test_wrong_values_are_refused_by_name(given: dict[str, Any], param: str) -> None:
    assert refusal_of(**given) == param


CALL = {"id": "c", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "tool", "content": "5"}, "tool_call_id"),
        ({"role": "tool", "tool_call_id": 5, "content": "5"}, "tool_call_id"),
        ({"role": "tool", "tool_call_id": "c"}, "content"),
        ({"role": "function", "content": "5"}, "name"),
        ({"role": "assistant", "tool_calls": 5}, "tool_calls"),
        ({"role": "assistant", "tool_calls": [5]}, "tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [{**CALL, "id": None}]}, "tool_calls[0].id"),
        ({"role": "assistant", "tool_calls": [{**CALL, "function": 5}]}, "tool_calls[0].function"),
        ({"role": "assistant", "tool_calls": [{**CALL, "function": {}}]}, "tool_calls[0].function.name"),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": 5}}]},
            "tool_calls[0].function.arguments",
        ),
        ({"role": "assistant", "tool_calls": [{"id": "c", "type": "custom"}]}, "tool_calls[0].custom"),
        ({"role": "assistant", "function_call": "f"}, "function_call"),
        ({"role": "assistant", "refusal": 5}, "refusal"),
        ({"role": "assistant", "reasoning_details": [5]}, "reasoning_details[0]"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "content[0].image_url"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "content[0].image_url.url"),
        ({"role": "user", "content": [{"type": "file", "file": {"file_data": 5}}]}, "content[0].file.file_data"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "content[0].input_audio.data"),
    ],
)
def test_bad_parts_of_messages_are_refused_by_name(message: dict[str, Any], param: str) -> None:
    assert refusal_of(messages=[HELLO, message]) == f"messages[1].{param}"


def test_arguments_that_came_read_are_written_again() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}
    ((read,),) = parts({"role": "assistant", "tool_calls": [call]})
    assert isinstance(read, ToolCall)
    assert read.arguments == '{"a":1}'


EVERYTHING: dict[str, Any] = {
    "model": "fast",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,QQ=="}},
                {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [CALL],
            "function_call": {"name": "f", "arguments": "{}"},
            "reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "s"}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "5"},
        {"role": "function", "name": "f", "content": "5"},
    ],
    "tools": [{"type": "function", "function": FUNCTION}, {"type": "custom", "custom": {"name": "code"}}],
    "functions": [FUNCTION],
    "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"function": FUNCTION}]}},
    "function_call": {"name": "weather"},
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    "reasoning": {"effort": "low", "max_tokens": 5},
    "stream_options": {"include_usage": True},
    "modalities": ["text"],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found += places(child, (*path, key))
    return found


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    key, *rest = path
    if isinstance(value, dict):
        return {**value, key: put(value[key], tuple(rest), new)}
    return [put(child, tuple(rest), new) if index == key else child for index, child in enumerate(value)]


@settings(max_examples=600)
@given(st.sampled_from(places(EVERYTHING)), JSON)
def test_whatever_stands_somewhere_is_read_or_refused_by_name(path: tuple[Any, ...], value: Any) -> None:
    body = put(EVERYTHING, path, value)
    assert is_named(body) or parse_chat_completion(body, {}).chat.messages


def is_named(body: dict[str, Any]) -> bool:
    """Whether the body is refused, with a field that a client can be told."""
    try:
        parse_chat_completion(body, {})
    except InvalidRequest as refused:
        return bool(refused.param) and bool(dumps(refused.message))
    return False
