"""Requests in Anthropic's words: in the order that it demands, and with what is left out named."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from src.domain.catalog.model import Capabilities, Model, ReasoningStyle, WireFormat
from src.domain.completion.content import Media, MediaKind, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from src.domain.completion.model import (
    ChatMessage,
    ChatRequest,
    ChatRole,
    Failure,
    Parameters,
    UpstreamFailed,
    UpstreamRequest,
)
from src.domain.completion.tools import Reasoning, ResponseFormat, Tool, ToolChoice, ToolUse
from src.integrations.llm.anthropic.request import JSON_ONLY, asked_of
from src.integrations.llm.anthropic.schema import closed_schema
from src.integrations.llm.translation import OPENING

USER, ASSISTANT, SYSTEM = ChatRole.USER, ChatRole.ASSISTANT, ChatRole.SYSTEM
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = Tool(name="weather", description="Tells it.", schema=SCHEMA)
CLOCK = Tool(name="clock")
CALL = ToolCall(id="t1", name="weather", arguments='{"city":"Malmö"}')
RESULT = ToolResult(call_id="t1", content=(Text(text="18 °C"),))
OWN = Thinking(text="hm", signature="mine", origin=WireFormat.MESSAGES)
THEIRS = Thinking(text="hm", signature="theirs", origin=WireFormat.GENERATE_CONTENT)
PNG = Media(kind=MediaKind.IMAGE, media_type="image/png", data="iVBORw0KGgo=")
PNG_BLOCK = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
USE = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Malmö"}}


def saying(role: ChatRole, *parts: Part | str) -> ChatMessage:
    typed = tuple(Text(text=part) if isinstance(part, str) else part for part in parts)
    return ChatMessage(role=role, text="\n".join(p.text for p in typed if isinstance(p, Text)), parts=typed)


def asking(
    *messages: ChatMessage,
    cap: int | None = None,
    style: ReasoningStyle = ReasoningStyle.NONE,
    tools: tuple[Tool, ...] = (),
    choice: ToolChoice | None = None,
    sampling: bool = True,
    **parameters: Any,
) -> UpstreamRequest:
    model = Model(
        name="public",
        provider="anthropic",
        upstream="some-model",
        context_window=100_000,
        max_output=8000,
        capabilities=Capabilities(reasoning=style, sampling=sampling, audio=True),
    )
    chat = ChatRequest(
        messages=messages or (saying(USER, "hello"),),
        tools=tools,
        tool_choice=choice or ToolChoice(),
        parameters=Parameters(**parameters),
    )
    return UpstreamRequest(model=model, chat=chat, output_cap=cap)


def sent(*messages: ChatMessage, **given: Any) -> dict[str, Any]:
    return asked_of(asking(*messages, **given)).arguments


def turns(*messages: ChatMessage) -> list[tuple[str, Any]]:
    return [(turn["role"], turn["content"]) for turn in sent(*messages)["messages"]]


def dropped(*messages: ChatMessage, **given: Any) -> tuple[str, ...]:
    return asked_of(asking(*messages, **given)).dropped


def refusal_of(*messages: ChatMessage, **given: Any) -> str:
    with pytest.raises(UpstreamFailed) as caught:
        asked_of(asking(*messages, **given))
    assert caught.value.kind is Failure.UNSUPPORTED
    return caught.value.message


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def result(call_id: str = "t1", content: Any = "18 °C") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content}


class TestTurns:
    def test_neighbours_of_one_role_are_one_turn(self) -> None:
        said = (saying(USER, "a"), saying(SYSTEM, "Be brief."), saying(USER, "b"), saying(ASSISTANT, "c"))
        assert turns(*said) == [("user", [text("a"), text("b")]), ("assistant", "c")]

    def test_results_come_first_in_the_turn_after_their_call(self) -> None:
        said = (
            saying(USER, "how warm?"),
            saying(ASSISTANT, "I look.", CALL),
            saying(USER, "be quick"),
            saying(USER, RESULT, "and?"),
        )
        assert turns(*said) == [
            ("user", "how warm?"),
            ("assistant", [text("I look."), USE]),
            ("user", [result(), text("be quick"), text("and?")]),
        ]

    def test_blanks_are_not_said(self) -> None:
        said = (saying(USER, "a", "  "), saying(ASSISTANT, " \n"), saying(USER, ""), saying(ASSISTANT, "b \n", ""))
        assert turns(*said) == [("user", "a"), ("assistant", "b")]

    def test_the_user_begins(self) -> None:
        assert turns(saying(ASSISTANT, "hello")) == [("user", OPENING), ("assistant", "hello")]
        assert turns(saying(SYSTEM, "Be brief.")) == [("user", OPENING)]

    def test_arguments_that_are_no_object_are_one_with_them(self) -> None:
        for arguments, given in (("{", {"_raw": "{"}), ("[1]", {"_raw": "[1]"}), ("", {})):
            call = ToolCall(id="t1", name="weather", arguments=arguments)
            assert turns(saying(USER, "a"), saying(ASSISTANT, call))[1] == ("assistant", [{**USE, "input": given}])

    def test_ids_that_it_would_refuse_are_others_the_same_for_call_and_result(self) -> None:
        call, answer = (
            ToolCall(id="call|1/ü", name="weather", arguments="{}"),
            ToolResult(call_id="call|1/ü", content=()),
        )
        said = turns(saying(USER, "a"), saying(ASSISTANT, call), saying(USER, answer))
        call_id = said[1][1][0]["id"]
        assert call_id.isascii()
        assert said[2] == ("user", [{"type": "tool_result", "tool_use_id": call_id}])

    def test_a_result_may_be_an_error_and_have_pictures(self) -> None:
        answer = ToolResult(call_id="t1", content=(Text(text="see"), Text(text=" "), PNG), is_error=True)
        last = turns(saying(USER, "a"), saying(ASSISTANT, CALL), saying(USER, answer))[-1]
        assert last == ("user", [{**result(content=[text("see"), PNG_BLOCK]), "is_error": True}])

    def test_a_refusal_was_said(self) -> None:
        assert turns(saying(USER, "a"), saying(ASSISTANT, Refusal(text="no")))[1] == ("assistant", "no")

    def test_own_thoughts_go_back_and_others_are_left_out_by_name(self) -> None:
        redacted = Thinking(signature="data", redacted=True, origin=WireFormat.MESSAGES)
        said = (saying(USER, "a"), saying(ASSISTANT, OWN, redacted, THEIRS, Thinking(text="bare"), "b"))
        assert turns(*said)[1] == (
            "assistant",
            [
                {"type": "thinking", "thinking": "hm", "signature": "mine"},
                {"type": "redacted_thinking", "data": "data"},
                text("b"),
            ],
        )
        assert dropped(*said) == ("thinking",)
        assert dropped(saying(USER, "a"), saying(ASSISTANT, OWN, "b")) == ()


class TestFiles:
    @pytest.mark.parametrize(
        ("media", "block"),
        [
            (PNG, PNG_BLOCK),
            (Media(kind=MediaKind.IMAGE, data="iVBORw0KGgo="), PNG_BLOCK),
            (
                Media(kind=MediaKind.IMAGE, media_type="image/jpg", data="AAAA"),
                {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"}},
            ),
            (
                Media(kind=MediaKind.IMAGE, url="https://a.test/b.png"),
                {"type": "image", "source": {"type": "url", "url": "https://a.test/b.png"}},
            ),
            (
                Media(kind=MediaKind.DOCUMENT, media_type="application/pdf", data="JVBERi0=", name="a.pdf"),
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                    "title": "a.pdf",
                },
            ),
            (
                Media(kind=MediaKind.DOCUMENT, url="https://a.test/b.pdf"),
                {"type": "document", "source": {"type": "url", "url": "https://a.test/b.pdf"}},
            ),
            (
                Media(
                    kind=MediaKind.DOCUMENT,
                    media_type="text/markdown; charset=utf-8",
                    data=base64.b64encode("# Ö".encode()).decode(),
                ),
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "# Ö"}},
            ),
        ],
    )
    def test_files_are_blocks(self, media: Media, block: dict[str, Any]) -> None:
        assert turns(saying(USER, media)) == [("user", [block])]

    @pytest.mark.parametrize(
        ("media", "words"),
        [
            (Media(kind=MediaKind.IMAGE, media_type="image/tiff", data="AAAA"), "image/webp"),
            (Media(kind=MediaKind.DOCUMENT, media_type="application/zip", data="AAAA"), "PDF"),
            (Media(kind=MediaKind.DOCUMENT, media_type="text/plain", data="!"), "UTF-8"),
            (Media(kind=MediaKind.AUDIO, media_type="audio/wav", data="AAAA"), "audio"),
        ],
    )
    def test_files_that_it_does_not_take_are_refused(self, media: Media, words: str) -> None:
        assert words in refusal_of(saying(USER, media))

    def test_files_of_the_assistant_are_refused(self) -> None:
        assert "from the user" in refusal_of(saying(USER, "a"), saying(ASSISTANT, PNG))

    def test_how_closely_to_look_is_left_out_by_name(self) -> None:
        assert dropped(saying(USER, Media(kind=MediaKind.IMAGE, url="https://a.test/b.png", detail="low"))) == (
            "detail",
        )


class TestTools:
    def test_a_schema_is_of_an_object(self) -> None:
        bare = Tool(name="bare", schema={"properties": {"a": {}}})
        assert sent(tools=(WEATHER, CLOCK, bare))["tools"] == [
            {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA},
            {"name": "clock", "input_schema": {"type": "object", "properties": {}}},
            {"name": "bare", "input_schema": {"type": "object", "properties": {"a": {}}}},
        ]

    @pytest.mark.parametrize(
        ("choice", "parallel", "said"),
        [
            (ToolChoice(), None, None),
            (ToolChoice(), True, None),
            (ToolChoice(), False, {"type": "auto", "disable_parallel_tool_use": True}),
            (ToolChoice(use=ToolUse.NONE), False, {"type": "none"}),
            (ToolChoice(use=ToolUse.REQUIRED), None, {"type": "any"}),
            (
                ToolChoice(use=ToolUse.REQUIRED, names=("clock",)),
                False,
                {"type": "tool", "name": "clock", "disable_parallel_tool_use": True},
            ),
        ],
    )
    def test_a_choice_is_said(self, choice: ToolChoice, parallel: bool | None, said: Any) -> None:
        given: dict[str, Any] = {"tools": (WEATHER, CLOCK), "choice": choice, "parallel_tool_calls": parallel}
        assert sent(**given).get("tool_choice") == said
        assert [tool["name"] for tool in sent(**given)["tools"]] == ["weather", "clock"]
        assert dropped(**given) == ()

    @pytest.mark.parametrize("use", [ToolUse.AUTO, ToolUse.REQUIRED])
    def test_a_choice_among_some_leaves_the_others_away(self, use: ToolUse) -> None:
        choice = ToolChoice(use=use, names=("clock", "weather"))
        given = sent(tools=(WEATHER, Tool(name="other"), CLOCK), choice=choice)
        assert [tool["name"] for tool in given["tools"]] == ["weather", "clock"]
        assert given.get("tool_choice") == ({"type": "any"} if use is ToolUse.REQUIRED else None)

    def test_tools_of_the_history_are_there_though_they_may_not_be_called(self) -> None:
        given = sent(saying(USER, "a"), saying(ASSISTANT, CALL), saying(USER, RESULT))
        assert given["tools"] == [{"name": "weather", "input_schema": {"type": "object", "properties": {}}}]
        assert given["tool_choice"] == {"type": "none"}

    def test_what_is_not_said_of_tools_is_named(self) -> None:
        assert dropped(tools=(Tool(name="a", strict=True),)) == ("tools.strict",)
        assert dropped(choice=ToolChoice(use=ToolUse.REQUIRED)) == ("tool_choice",)
        assert "tool_choice" not in sent(choice=ToolChoice(use=ToolUse.REQUIRED))


BUDGET, EFFORT = ReasoningStyle.BUDGET, ReasoningStyle.EFFORT
FORCED: dict[str, Any] = {"tools": (WEATHER,), "choice": ToolChoice(use=ToolUse.REQUIRED)}
IN_A_LOOP = (saying(USER, "a"), saying(ASSISTANT, CALL), saying(USER, RESULT))
THOUGHT_IN_A_LOOP = (
    saying(USER, "a"),
    saying(ASSISTANT, OWN, CALL),
    saying(USER, RESULT),
    saying(ASSISTANT, ToolCall(id="t2", name="weather", arguments="{}")),
    saying(USER, ToolResult(call_id="t2", content=())),
)


class TestThinking:
    @pytest.mark.parametrize(
        ("cap", "wished", "budget"),
        [
            (8000, Reasoning(budget_tokens=2000), 2000),
            (8000, Reasoning(budget_tokens=5), 1024),
            (8000, Reasoning(effort="low"), 2048),
            (8000, Reasoning(effort="max"), 6000),
            (100_000, Reasoning(), 8192),
            (2000, Reasoning(budget_tokens=31_999), 1500),
            (1100, Reasoning(budget_tokens=31_999), 1024),
        ],
    )
    def test_a_budget_leaves_something_of_the_maximum(self, cap: int, wished: Reasoning, budget: int) -> None:
        request = asking(style=BUDGET, max_output_tokens=cap, reasoning=wished)
        asked = asked_of(request)
        assert asked.arguments["thinking"] == {"type": "enabled", "budget_tokens": budget}
        assert asked.arguments["max_tokens"] == cap
        assert asked.dropped == ()

    def test_a_maximum_below_any_budget_is_kept_and_the_thinking_named(self) -> None:
        given: dict[str, Any] = {"style": BUDGET, "cap": 1024, "reasoning": Reasoning(effort="high")}
        assert "thinking" not in sent(**given)
        assert sent(**given)["max_tokens"] == 1024
        assert dropped(**given) == ("reasoning",)

    @pytest.mark.parametrize(
        ("wished", "thinking", "effort"),
        [
            (Reasoning(effort="high"), {"type": "adaptive"}, "high"),
            (Reasoning(effort="minimal", shown=True), {"type": "adaptive", "display": "summarized"}, "low"),
            (Reasoning(budget_tokens=9000), {"type": "adaptive"}, "medium"),
            (Reasoning(), {"type": "adaptive"}, None),
            (Reasoning(budget_tokens=5), {"type": "adaptive"}, "low"),
            (Reasoning(budget_tokens=0), {"type": "disabled"}, None),
            (Reasoning(effort="none"), {"type": "disabled"}, None),
        ],
    )
    def test_an_effort_is_the_whole_answers(self, wished: Reasoning, thinking: Any, effort: str | None) -> None:
        given = sent(style=EFFORT, reasoning=wished)
        assert given["thinking"] == thinking
        assert given.get("output_config") == ({"effort": effort} if effort else None)
        assert dropped(style=EFFORT, reasoning=wished) == ()

    def test_a_model_that_does_not_think_is_not_told_to(self) -> None:
        assert dropped(reasoning=Reasoning(effort="high")) == ("reasoning",)
        for style in (ReasoningStyle.NONE, BUDGET):
            assert dropped(reasoning=Reasoning(effort="none"), style=style) == ()
            assert "thinking" not in sent(reasoning=Reasoning(effort="none"), style=style)

    @pytest.mark.parametrize("style", [BUDGET, EFFORT])
    def test_nobody_thinks_who_must_call_a_tool(self, style: ReasoningStyle) -> None:
        given: dict[str, Any] = {"style": style, "reasoning": Reasoning(effort="high"), **FORCED}
        assert "thinking" not in sent(**given)
        assert dropped(**given) == ("reasoning",)

    @pytest.mark.parametrize(
        ("history", "thinks"),
        [
            (IN_A_LOOP, False),
            (THOUGHT_IN_A_LOOP, True),
            ((*IN_A_LOOP, saying(ASSISTANT, "18"), saying(USER, "and tomorrow?")), True),
            ((saying(USER, "a"), saying(ASSISTANT, OWN, "It is")), False),
            ((saying(USER, "a"), saying(ASSISTANT, THEIRS, CALL), saying(USER, RESULT, "quick")), False),
        ],
    )
    def test_who_did_not_think_before_a_tool_does_not_begin_to_after_it(
        self, history: tuple[ChatMessage, ...], thinks: bool
    ) -> None:
        given: dict[str, Any] = {"style": BUDGET, "tools": (WEATHER,), "reasoning": Reasoning(budget_tokens=2000)}
        assert ("thinking" in sent(*history, **given)) == thinks
        assert ("reasoning" in dropped(*history, **given)) != thinks
        adaptive = sent(*history, **{**given, "style": EFFORT})
        assert adaptive["thinking"]["type"] == "adaptive"

    def test_who_thinks_takes_no_sampling_but_a_large_top_p(self) -> None:
        wished: dict[str, Any] = {"temperature": 0.5, "top_k": 5, "reasoning": Reasoning(effort="low")}
        given = sent(style=BUDGET, top_p=0.99, **wished)
        assert given["extra_body"] == {"top_p": 0.99}
        assert dropped(style=BUDGET, top_p=0.99, **wished) == ("temperature", "top_k")
        assert dropped(style=BUDGET, top_p=0.5, **wished) == ("temperature", "top_p", "top_k")


class TestParameters:
    def test_what_the_format_does_not_know_is_named(self) -> None:
        given: dict[str, Any] = {"seed": 1, "presence_penalty": 0.1, "frequency_penalty": 0.1, "logprobs": 2}
        assert dropped(**given) == ("presence_penalty", "frequency_penalty", "seed", "logprobs")

    def test_blank_stop_sequences_are_left_out_by_name(self) -> None:
        assert sent(stop=("\n", "END"))["stop_sequences"] == ["END"]
        assert "stop_sequences" not in sent(stop=("\n\n",))
        assert (dropped(stop=("END",)), dropped(stop=("\n", "END"))) == ((), ("stop",))

    @pytest.mark.parametrize(
        ("upstream", "takes_both"),
        [
            ("claude-3-opus-20240229", True),
            ("claude-opus-4-20250514", True),
            ("claude-sonnet-4-0", True),
            ("claude-opus-4-1-20250805", False),
            ("claude-haiku-4-5-20251001", False),
        ],
    )
    def test_newer_models_take_temperature_or_top_p(self, upstream: str, takes_both: bool) -> None:
        request = asking(temperature=0.5, top_p=0.9)
        asked = asked_of(replace(request, model=replace(request.model, upstream=upstream)))
        assert ("top_p" in asked.arguments["extra_body"]) == takes_both
        assert asked.dropped == (() if takes_both else ("top_p",))

    def test_sampling_goes_by_the_version_that_knows_it(self) -> None:
        given = sent(temperature=0.5)
        assert given["extra_body"] == {"temperature": 0.5}
        assert given["extra_headers"] == {"anthropic-version": "2023-06-01"}
        assert "extra_headers" not in sent(temperature=0.5, sampling=False)
        assert dropped(temperature=0.5, sampling=False) == ("temperature",)

    def test_a_schema_is_the_answers_format(self) -> None:
        wanted = ResponseFormat(schema=SCHEMA)
        assert sent(response_format=wanted, style=EFFORT, reasoning=Reasoning(effort="low"))["output_config"] == {
            "effort": "low",
            "format": {"type": "json_schema", "schema": {**SCHEMA, "additionalProperties": False}},
        }
        assert dropped(response_format=wanted) == ()

    def test_json_of_any_form_is_asked_for_in_words(self) -> None:
        given = sent(saying(SYSTEM, "Be brief."), saying(USER, "a"), response_format=ResponseFormat())
        assert given["system"] == f"Be brief.\n\n{JSON_ONLY}"
        assert sent(response_format=ResponseFormat())["system"] == JSON_ONLY
        assert "output_config" not in given


class TestSchemas:
    @pytest.mark.parametrize(
        ("schema", "closed"),
        [
            (
                {"$schema": "x", "properties": {"a": {"type": "integer", "minimum": 1, "description": "A."}}},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"a": {"type": "integer", "description": "A.\n\n{minimum: 1}"}},
                },
            ),
            (
                {"type": "array", "items": {"type": "object"}, "minItems": 1, "maxItems": 2},
                {
                    "type": "array",
                    "items": {"type": "object", "properties": {}, "additionalProperties": False},
                    "minItems": 1,
                    "description": "{maxItems: 2}",
                },
            ),
            (
                {"type": ["string", "null"], "format": "email", "description": "Whose."},
                {
                    "description": "Whose.",
                    "anyOf": [{"type": "string", "format": "email"}, {"type": "null"}],
                },
            ),
            ({"type": ["string", "null"], "enum": ["a", None]}, {"enum": ["a", None]}),
            (
                {"oneOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"type": "object", "additionalProperties": True}}},
                {
                    "anyOf": [{"$ref": "#/$defs/A"}],
                    "$defs": {"A": {"type": "object", "properties": {}, "additionalProperties": False}},
                },
            ),
            ({"type": "string", "format": "regex"}, {"type": "string", "description": "{format: regex}"}),
            (True, True),
        ],
    )
    def test_objects_are_closed_and_what_is_not_enforced_is_described(self, schema: Any, closed: Any) -> None:
        assert closed_schema(schema) == closed
