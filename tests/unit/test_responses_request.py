"""Bodies of POST /v1/responses in our words: what is read, what is named as left out, what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response

from src.api.dialects.responses.reply import response_body
from src.api.dialects.responses.request import chat_of, namespaces_in, parse_response
from src.api.dialects.signatures import sealed
from src.api.json import dumps
from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.content import Opaque, Text, Thinking, ToolCall, ToolResult
from src.domain.completion.model import ChatMessage, ChatRole, Parameters
from src.domain.completion.tools import Reasoning, ResponseFormat, Tool, ToolChoice, ToolUse
from src.shared.errors import InvalidRequest
from tests.unit.test_responses_items import JSON, VALUES

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
RESPONSE_ID = "resp_" + UUID("0199f7a0-0000-7000-8000-00000000abcd").hex
SEARCH = {"type": "web_search_call", "id": "ws_1"}
LOOK_UP = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}}
CODEX: dict[str, Any] = {
    "model": "m",
    "instructions": "You are Codex",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "be brief"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
    ],
    "tools": [
        {**LOOK_UP, "strict": False, "description": "look"},
        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "G"}},
        {"type": "namespace", "name": "mcp__crm__", "description": "", "tools": [{**LOOK_UP, "name": "find"}]},
        {"type": "web_search", "external_web_access": False},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "thread",
    "text": {"verbosity": "low"},
    "client_metadata": {"x": "y"},
}


def asked(**fields: Any) -> Any:
    return parse_response({"model": "m", "input": "hi", **fields}, {})


class TestReading:
    def test_what_codex_sends(self) -> None:
        found = parse_response(CODEX, {"originator": "codex", "Session-Id": "s", "cookie": "c", "openai-beta": "b"})
        assert (found.stream, found.store, found.background, found.instructions) == (
            True, False, False, "You are Codex"
        )  # fmt: skip
        assert [message.role for message in found.inputs] == [ChatRole.SYSTEM, ChatRole.USER]
        assert found.tools == (
            Tool(name="look_up", description="look", schema=LOOK_UP["parameters"], strict=False),  # type: ignore[arg-type]
            Tool(name="apply_patch", description="The input must match this lark grammar:\nG", is_custom=True),
            Tool(name="mcp__crm__find", schema=LOOK_UP["parameters"]),  # type: ignore[arg-type]
        )
        assert found.parameters == Parameters(
            parallel_tool_calls=False, reasoning=Reasoning(effort="medium", shown=True)
        )
        assert set(found.untranslated) == {
            "tools[web_search]", "tools[custom].format", "client_metadata", "prompt_cache_key", "text.verbosity"
        }  # fmt: skip
        assert found.headers == {"originator": "codex", "Session-Id": "s", "openai-beta": "b"}
        assert namespaces_in(found) == {"mcp__crm__find": ("mcp__crm__", "find")}

    @pytest.mark.parametrize(
        ("fields", "parameters"),
        [
            ({"max_output_tokens": 9}, {"max_output_tokens": 9}),
            ({"temperature": 0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
            ({"top_logprobs": 3}, {"logprobs": 3}),
            ({"include": ["message.output_text.logprobs"]}, {"logprobs": 0}),
            ({"reasoning": {"effort": None, "summary": None}}, {}),
            ({"reasoning": {"generate_summary": "auto"}}, {"reasoning": Reasoning(shown=True)}),
            ({"text": {"format": {"type": "text"}}}, {}),
            ({"text": {"format": {"type": "json_object"}}}, {"response_format": ResponseFormat()}),
            (
                {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}, "strict": True}}},
                {"response_format": ResponseFormat(schema={"a": 1}, name="n", strict=True)},
            ),
        ],
    )
    def test_parameters(self, fields: dict[str, Any], parameters: dict[str, Any]) -> None:
        found = asked(**fields)
        assert found.parameters == Parameters(**parameters)
        assert found.untranslated == ()

    @pytest.mark.parametrize(
        ("choice", "ours"),
        [
            ("none", ToolChoice(use=ToolUse.NONE)),
            ("required", ToolChoice(use=ToolUse.REQUIRED)),
            ({"type": "function", "name": "look_up"}, ToolChoice(use=ToolUse.REQUIRED, names=("look_up",))),
            ({"type": "custom", "name": "p"}, ToolChoice(use=ToolUse.REQUIRED, names=("p",))),
            (
                {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look_up"}]},
                ToolChoice(names=("look_up",)),
            ),
        ],
    )
    def test_how_tools_are_chosen(self, choice: Any, ours: ToolChoice) -> None:
        found = asked(tools=[LOOK_UP], tool_choice=choice)
        assert (found.tool_choice, found.untranslated) == (ours, ())

    @pytest.mark.parametrize(
        ("fields", "names"),
        [
            ({"tools": [LOOK_UP], "tool_choice": {"type": "file_search"}}, ("tool_choice",)),
            ({"tools": [{"type": "mcp", "server_label": "x"}]}, ("tools[mcp]",)),
            ({"include": ["file_search_call.results"]}, ("include",)),
            ({"reasoning": {"effort": "galactic"}}, ("reasoning.effort",)),
            ({"reasoning": {"mode": "pro"}}, ("reasoning.mode",)),
            ({"text": {"format": {"type": "lark"}}}, ("text.format",)),
            ({"service_tier": "flex", "max_tool_calls": 2}, ("max_tool_calls", "service_tier")),
            ({"context_management": [{"type": "compaction"}], "future": 1}, ("context_management", "future")),
        ],
    )
    def test_what_has_no_place_is_named(self, fields: dict[str, Any], names: tuple[str, ...]) -> None:
        assert asked(**fields).untranslated == names

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"model": None}, "model"),
            ({"input": None}, "input"),
            ({"input": 5}, "input"),
            ({"input": [5]}, "input[0]"),
            ({"instructions": 5}, "instructions"),
            ({"previous_response_id": "resp_1", "conversation": "conv_1"}, "previous_response_id"),
            ({"conversation": {"name": "x"}}, "conversation.id"),
            ({"store": "yes"}, "store"),
            ({"background": 1}, "background"),
            ({"temperature": "hot"}, "temperature"),
            ({"max_output_tokens": 0}, "max_output_tokens"),
            ({"tools": {}}, "tools"),
            ({"tools": [{"name": "f"}]}, "tools[0].type"),
            ({"tools": [{"type": "function"}]}, "tools[0].name"),
            ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "custom"}]}]}, "tools[0].tools[0].name"),
            ({"tool_choice": "sometimes"}, "tool_choice"),
            ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
            ({"include": "all"}, "include"),
            ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
            ({"truncation": "middle"}, "truncation"),
            ({"metadata": {"a": 1}}, "metadata.a"),
            ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
            ({"prompt": {"version": "1"}}, "prompt.id"),
            ({"reasoning": "hard"}, "reasoning"),
        ],
    )
    def test_what_is_wrong_is_named(self, fields: dict[str, Any], param: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            asked(**fields)
        assert caught.value.param == param

    def test_tools_may_be_told_in_the_middle_of_a_conversation(self) -> None:
        told = {"type": "additional_tools", "role": "developer", "tools": [CODEX["tools"][2]]}
        found = asked(input=[told, {"role": "user", "content": "hi"}])
        assert [tool.name for tool in found.tools] == ["mcp__crm__find"]
        parsed = chat_of(found, (), RESPONSE_ID)
        assert [message.text for message in parsed.chat.messages] == ["hi"]
        assert parsed.chat.wire is not None
        assert parsed.chat.wire.untranslatable == ()


class TestEcho:
    @pytest.mark.parametrize("body", [CODEX, {"model": "m", "input": "hi"}, {"model": "m", "conversation": "conv_1"}])
    def test_a_response_that_repeats_its_request_is_one_for_the_sdk(self, body: dict[str, Any]) -> None:
        echo = parse_response(body, {}).echo
        told = response_body(
            response_id=RESPONSE_ID,
            created_at=NOW,
            model="m",
            echo=echo,
            status="completed",
            output=[],
            usage=Usage(input_tokens=5, output_tokens=4, cache_read_tokens=2, reasoning_tokens=1),
            completed_at=NOW,
        )
        found = Response.model_validate_json(dumps(told), strict=True)
        never_null = (
            "temperature", "top_p", "truncation", "text", "service_tier", "store", "background", "presence_penalty",
            "frequency_penalty", "top_logprobs", "parallel_tool_calls", "tools", "tool_choice", "metadata",
        )  # fmt: skip
        assert [name for name in never_null if told[name] is None] == []
        assert found.usage is not None
        assert found.usage.input_tokens_details.cached_tokens == 2
        assert found.usage.output_tokens_details.reasoning_tokens == 1
        may_be_missing = {
            "access_programs", "image", "input_transformations", "moderation", "prompt_cache_diagnostics",
            "prompt_cache_options", "tool_usage",
        }  # fmt: skip
        assert set(Response.model_fields) - set(told) == may_be_missing

    def test_what_was_wished_comes_back(self) -> None:
        echo = asked(
            conversation="conv_1", metadata={"a": "b"}, temperature=0.5, tools=[LOOK_UP], service_tier="auto"
        ).echo
        assert echo["conversation"] == {"id": "conv_1"}
        assert (echo["metadata"], echo["temperature"], echo["service_tier"]) == ({"a": "b"}, 0.5, "default")
        assert echo["tools"] == [{**LOOK_UP, "description": None, "strict": True}]


class TestTelling:
    HISTORY = (
        ChatMessage(role=ChatRole.USER, text="before"),
        ChatMessage(
            role=ChatRole.ASSISTANT,
            text="",
            parts=(
                Thinking(text="t", signature="s", origin=WireFormat.MESSAGES),
                ToolCall(id="c", name="mcp__crm__find", arguments="{}"),
            ),
        ),
    )

    def test_a_model_is_told_instructions_history_and_what_is_asked(self) -> None:
        found = parse_response(CODEX, {})
        parsed = chat_of(found, self.HISTORY, RESPONSE_ID)
        system = ChatMessage(role=ChatRole.SYSTEM, text="You are Codex")
        assert parsed.chat.messages == (system, *self.HISTORY, *found.inputs)
        assert (parsed.model, parsed.chat.stream, parsed.untranslated) == ("m", True, found.untranslated)

    def test_an_upstream_of_the_format_gets_the_body_with_the_history_in_it(self) -> None:
        found = parse_response({**CODEX, "store": True, "previous_response_id": "resp_0", "metadata": {"a": "b"}}, {})
        wire = chat_of(found, self.HISTORY, RESPONSE_ID).chat.wire
        assert wire is not None
        call = {"type": "function_call", "call_id": "c", "name": "find", "namespace": "mcp__crm__", "arguments": "{}"}
        before = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "before"}]}
        expected = {**CODEX, "store": False, "metadata": {"a": "b"}, "input": [before, call, *CODEX["input"]]}
        assert wire.body == expected
        assert wire.answered_for == {
            "id": RESPONSE_ID, "store": True, "previous_response_id": "resp_0", "conversation": None,
            "background": False, "metadata": {"a": "b"},
        }  # fmt: skip

    def test_a_string_stays_a_string_where_nothing_was_said_before(self) -> None:
        wire = chat_of(asked(), (), RESPONSE_ID).chat.wire
        assert wire is not None
        assert wire.body == {"model": "m", "input": "hi", "store": False}
        after = chat_of(asked(), self.HISTORY[:1], RESPONSE_ID).chat.wire
        assert after is not None
        assert after.body["input"][-1] == {"role": "user", "content": "hi"}

    def test_content_of_openais_own_is_not_translated_but_for_what_was_answered_before(self) -> None:
        image = {"type": "input_image", "file_id": "file-1"}
        search = Opaque(format=WireFormat.RESPONSES, body={"type": "web_search_call", "id": "ws_1"})
        history = (
            ChatMessage(role=ChatRole.USER, parts=(Opaque(format=WireFormat.RESPONSES, body={"type": "input_file"}),)),
            ChatMessage(role=ChatRole.ASSISTANT, text="a", parts=(search, Text(text="a"))),
        )
        found = asked(input=[SEARCH, {"role": "user", "content": [image]}], prompt={"id": "pmpt_1"})
        wire = chat_of(found, history[1:], RESPONSE_ID).chat.wire
        assert wire is not None
        assert wire.untranslatable == ("prompt", "web_search_call", "input_image.file_id")
        wire = chat_of(asked(), history, RESPONSE_ID).chat.wire
        assert wire is not None
        assert wire.untranslatable == ("input_file",), "what a user showed is more than history"
        with pytest.raises(InvalidRequest, match="input_image") as caught:
            chat_of(replace(found, background=True), history, RESPONSE_ID)
        assert caught.value.param == "background"

    def test_what_openai_cannot_read_of_a_history_is_left_out_and_named(self) -> None:
        foreign = Thinking(text="hm", signature="s", origin=WireFormat.MESSAGES)
        code = Opaque(format=WireFormat.GENERATE_CONTENT, body={"executableCode": {"code": "1"}})
        history = (ChatMessage(role=ChatRole.ASSISTANT, text="a", parts=(foreign, code, Text(text="a"))),)
        wire = chat_of(asked(), history, RESPONSE_ID).chat.wire
        assert wire is not None
        assert wire.left_out == ("thinking", "items[executableCode]")
        assert [item["type"] for item in wire.body["input"][:-1]] == ["message"]
        mine = {"type": "reasoning", "summary": [], "encrypted_content": "own"}
        theirs = {**mine, "encrypted_content": sealed("s", WireFormat.MESSAGES, WireFormat.RESPONSES)}
        for items, left_out in (([mine], ()), ([mine, theirs], ("thinking",))):
            wire = chat_of(asked(input=items), (), RESPONSE_ID).chat.wire
            assert wire is not None
            assert (wire.left_out, wire.body["input"]) == (left_out, [mine])

    def test_what_tells_of_tools_is_no_message(self) -> None:
        tools = {"type": "additional_tools", "role": "developer", "tools": [LOOK_UP]}
        call = {"type": "function_call", "call_id": "c", "name": "look_up", "arguments": "{}"}
        output = {"type": "function_call_output", "call_id": "c", "output": "1"}
        parsed = chat_of(asked(input=[tools, call, output]), (), RESPONSE_ID)
        assert [message.parts[0].__class__ for message in parsed.chat.messages] == [ToolCall, ToolResult]
        assert [len(message.parts) for message in parsed.chat.messages] == [1, 1]

    def test_a_background_response_is_translated(self) -> None:
        assert chat_of(asked(background=True), (), RESPONSE_ID).chat.wire is None


TOP = st.sampled_from(
    ["instructions", "previous_response_id", "conversation", "background", "store", "stream", "tools", "tool_choice",
     "reasoning", "text", "include", "metadata", "prompt", "truncation", "temperature", "max_output_tokens",
     "top_logprobs", "service_tier", "user", "prompt_cache_key", "stream_options"]
)  # fmt: skip
TOOLISH = st.fixed_dictionaries(
    {"type": st.sampled_from(["function", "custom", "namespace", "web_search", "additional_tools"])},
    optional={"name": VALUES, "parameters": JSON, "tools": VALUES, "strict": JSON, "format": JSON},
)


@given(
    fields=st.dictionaries(TOP, VALUES | st.lists(TOOLISH, max_size=2), max_size=5),
    given_input=VALUES | st.lists(TOOLISH | VALUES, max_size=2),
)
def test_whatever_json_comes_is_read_or_refused(fields: dict[str, Any], given_input: Any) -> None:
    try:
        found = parse_response({"model": "m", "input": given_input, **fields}, {})
        parsed = chat_of(found, (), RESPONSE_ID)
    except InvalidRequest:
        return
    namespaces_in(found)
    assert parsed.chat.wire is not None or found.background
    dumps(dict(found.echo))
