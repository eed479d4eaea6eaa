"""What Google's SDK is given for a request in our words."""

import base64
from typing import Any

import pytest

from src.domain.catalog.model import Capabilities, Model, WireFormat
from src.domain.completion.content import Media, MediaKind, Opaque, Part, Text, Thinking, ToolCall, ToolResult
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
from src.integrations.llm.google.request import UNSIGNED, request_arguments

GOOGLE = WireFormat.GENERATE_CONTENT
SIGNATURE = base64.b64encode(b"\xff\xfesigned").decode()
EVERYTHING = Capabilities(audio=True)


def asking(*messages: ChatMessage, upstream: str = "gemini-2.5-flash", **given: Any) -> UpstreamRequest:
    model = Model(
        name="m", provider="google", upstream=upstream, context_window=9, max_output=9, capabilities=EVERYTHING
    )
    return UpstreamRequest(model=model, chat=ChatRequest(messages=messages or (by_user(Text(text="hi")),), **given))


def by_user(*parts: Part) -> ChatMessage:
    return ChatMessage(role=ChatRole.USER, parts=parts)


def by_model(*parts: Part) -> ChatMessage:
    return ChatMessage(role=ChatRole.ASSISTANT, parts=parts)


def contents(*messages: ChatMessage, upstream: str = "gemini-2.5-flash") -> list[Any]:
    found: list[Any] = request_arguments(asking(*messages, upstream=upstream))[0]["contents"]
    return found


def config(**given: Any) -> dict[str, Any]:
    found: dict[str, Any] = request_arguments(asking(**given))[0]["config"]
    return found


def thinking(upstream: str, **wish: Any) -> Any:
    given = Parameters(reasoning=Reasoning(**wish))
    return request_arguments(asking(upstream=upstream, parameters=given))[0]["config"].get("thinking_config")


def call(number: int, signature: str | None = None) -> ToolCall:
    return ToolCall(id=f"c{number}", name="f", arguments='{"n": 1}', signature=signature)


def result(number: int, text: str = "fine", **given: Any) -> ToolResult:
    return ToolResult(call_id=f"c{number}", content=(Text(text=text), *given.pop("shown", ())), **given)


def test_files_are_bytes_or_addresses_with_their_type() -> None:
    parts = (
        Media(kind=MediaKind.IMAGE, media_type="image/jpeg", data="-_8"),
        Media(kind=MediaKind.DOCUMENT, name="a.pdf", data="AA=="),
        Media(kind=MediaKind.AUDIO, data="AA=="),
        Media(kind=MediaKind.IMAGE, url="https://x.example/a.webp?b=c"),
        Media(kind=MediaKind.IMAGE, url="gs://bucket/thing"),
    )
    assert contents(by_user(*parts))[0]["parts"] == [
        {"inline_data": {"data": b"\xfb\xff", "mime_type": "image/jpeg"}},
        {"inline_data": {"data": b"\0", "mime_type": "application/pdf"}},
        {"inline_data": {"data": b"\0", "mime_type": "audio/wav"}},
        {"file_data": {"file_uri": "https://x.example/a.webp?b=c", "mime_type": "image/webp"}},
        {"file_data": {"file_uri": "gs://bucket/thing"}},
    ]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Media(kind=MediaKind.IMAGE, url="https://x.example/picture"), "base64"),
        (Media(kind=MediaKind.IMAGE, data="no base64!"), "base64"),
    ],
)
def test_what_cannot_be_said_is_refused_with_a_reason(part: Part, words: str) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        contents(by_user(part))
    assert caught.value.kind is Failure.UNSUPPORTED
    assert words in caught.value.message


def test_results_of_one_turn_stand_together_with_what_they_show() -> None:
    picture = Media(kind=MediaKind.IMAGE, media_type="image/png", data="AA==")
    said = contents(
        by_user(Text(text="go")),
        by_model(Text(text="I call"), call(1)),
        by_model(call(2)),
        by_user(result(1, '{"warm": 7}', shown=(picture,))),
        by_user(result(2, "bad", is_error=True)),
        by_user(result(3, "[1]", name="g")),
    )
    assert [content["role"] for content in said] == ["user", "model", "user"]
    args = {"name": "f", "args": {"n": 1}}
    assert said[1]["parts"][1:] == [{"function_call": {"id": "c1", **args}}, {"function_call": {"id": "c2", **args}}]
    assert said[2]["parts"] == [
        {"function_response": {"id": "c1", "name": "f", "response": {"warm": 7}}},
        {"inline_data": {"data": b"\0", "mime_type": "image/png"}},
        {"function_response": {"id": "c2", "name": "f", "response": {"error": "bad"}}},
        {"function_response": {"id": "c3", "name": "g", "response": {"output": "[1]"}}},
    ]


@pytest.mark.parametrize("upstream", ["gemini-3-pro-preview", "gemini-flash-latest", "models/gemini-12-flash"])
def test_the_first_call_of_each_step_of_the_current_turn_is_signed(upstream: str) -> None:
    said = contents(
        by_user(Text(text="before")),
        by_model(call(1)),
        by_user(result(1)),
        by_model(Text(text="done")),
        by_user(Text(text="now")),
        by_model(call(2, SIGNATURE), call(3)),
        by_user(result(2), result(3)),
        by_model(call(4), call(5)),
        by_user(result(4), result(5)),
        by_user(Text(text="so?")),
        upstream=upstream,
    )
    signatures = [p.get("thought_signature") for c in said for p in c["parts"] if "function_call" in p]
    assert signatures == [None, b"\xff\xfesigned", None, UNSIGNED, None]


def test_older_models_need_no_signatures() -> None:
    said = contents(by_user(Text(text="now")), by_model(call(1)), by_user(result(1)))
    assert "thought_signature" not in said[1]["parts"][0]


def test_only_googles_own_thoughts_go_back_and_others_are_named() -> None:
    own = Thinking(text="hm", signature=SIGNATURE, origin=GOOGLE)
    foreign = Thinking(text="ah", signature="x", origin=WireFormat.MESSAGES)
    request = asking(by_user(Text(text="a")), by_model(own, foreign, Text(text="b")), by_user(Text(text="c")))
    arguments, dropped = request_arguments(request)
    assert arguments["contents"][1]["parts"] == [
        {"text": "hm", "thought": True, "thought_signature": b"\xff\xfesigned"},
        {"text": "b"},
    ]
    assert dropped == ("thinking",)


def test_a_part_that_google_sent_goes_back_as_it_came() -> None:
    body = {"inlineData": {"data": "AA==", "mimeType": "image/png"}, "thoughtSignature": "AA=="}
    said = contents(by_user(Text(text="a")), by_model(Opaque(format=GOOGLE, body=body)))
    assert said[1]["parts"] == [{"inline_data": {"data": b"\0", "mime_type": "image/png"}, "thought_signature": b"\0"}]


@pytest.mark.parametrize(
    ("choice", "calling"),
    [
        (ToolChoice(), None),
        (ToolChoice(use=ToolUse.NONE, names=("f",)), {"mode": "NONE"}),
        (ToolChoice(use=ToolUse.REQUIRED), {"mode": "ANY"}),
        (ToolChoice(use=ToolUse.REQUIRED, names=("f",)), {"mode": "ANY", "allowed_function_names": ["f"]}),
        (ToolChoice(names=("f",)), {"mode": "VALIDATED", "allowed_function_names": ["f"]}),
    ],
)
def test_tools_and_whether_to_call_them(choice: ToolChoice, calling: Any) -> None:
    schema = {"type": "object", "$defs": {}}
    said = config(tools=(Tool(name="f", description="F.", schema=schema),), tool_choice=choice)
    declared = [{"name": "f", "description": "F.", "parameters_json_schema": schema}]
    assert said["tools"] == [{"function_declarations": declared}]
    assert said.get("tool_config") == (calling and {"function_calling_config": calling})


def test_a_function_has_the_schema_of_an_object_or_none() -> None:
    tools = (Tool(name="f"), Tool(name="g", schema={"properties": {"a": {}}}))
    (said,) = config(tools=tools)["tools"]
    assert said["function_declarations"] == [
        {"name": "f", "description": ""},
        {
            "name": "g",
            "description": "",
            "parameters_json_schema": {"type": "object", "properties": {"a": {}}},
        },
    ]


def test_answers_may_have_to_be_json() -> None:
    plain = config(parameters=Parameters(response_format=ResponseFormat()))
    assert (plain["response_mime_type"], "response_json_schema" in plain) == ("application/json", False)
    shaped = config(parameters=Parameters(response_format=ResponseFormat(schema={"type": "object"})))
    assert shaped["response_json_schema"] == {"type": "object"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        ("[1]", {"output": "[1]"}),
        ('{"a": NaN}', {"output": '{"a": NaN}'}),
        ('{"a": 1e999}', {"output": '{"a": 1e999}'}),
        ('{"a": "\\ud800"}', {"output": '{"a": "\\ud800"}'}),
        (nested := '{"a":' * 65 + "1" + "}" * 65, {"output": nested}),
        (nested := '{"a":' * 5000 + "1" + "}" * 5000, {"output": nested}),
    ],
    ids=["an object", "nothing", "a list", "no number", "infinity", "half a character", "deep", "very deep"],
)
def test_a_result_is_an_object_that_google_can_read_or_words(text: str, said: Any) -> None:
    result = ToolResult(call_id="c1", name="f", content=(Text(text=text),))
    called = ToolCall(id="c1", name="f", arguments=text)
    _, model, user = contents(by_user(Text(text="?")), by_model(called), by_user(result))
    assert user["parts"][0]["function_response"]["response"] == said
    assert list(model["parts"][0]["function_call"]["args"].values()) == list(said.values())


@pytest.mark.parametrize(
    ("upstream", "wish", "told"),
    [
        ("gemini-2.5-flash", {"effort": "low"}, {"thinking_budget": 2048}),
        ("gemini-2.5-flash", {"effort": "none"}, {"thinking_budget": 0}),
        ("gemini-2.5-flash", {"effort": "max", "shown": True}, {"thinking_budget": 24576, "include_thoughts": True}),
        ("gemini-2.5-pro", {"effort": "none"}, {"thinking_budget": 128}),
        ("gemini-2.5-pro", {"budget_tokens": 50}, {"thinking_budget": 128}),
        ("gemini-2.5-flash-lite", {"budget_tokens": 50}, {"thinking_budget": 512}),
        ("gemini-3-flash", {"effort": "none"}, {"thinking_level": "MINIMAL"}),
        ("gemini-3-pro", {"effort": "minimal"}, {"thinking_level": "LOW"}),
        ("gemini-3-pro", {"budget_tokens": 20_000}, {"thinking_level": "HIGH"}),
        ("gemini-3-pro", {"shown": True}, {"include_thoughts": True}),
        ("gemini-2.0-flash", {"effort": "high"}, None),
    ],
)
def test_thinking_is_told_as_the_model_takes_it(upstream: str, wish: dict[str, Any], told: Any) -> None:
    assert thinking(upstream, **wish) == told


@pytest.mark.parametrize(
    ("upstream", "most", "budget"),
    [("gemini-2.5-flash", 9000, 8192), ("gemini-2.5-flash", 8192, 6144), ("gemini-2.5-flash-lite", 400, 512)],
)
def test_thoughts_leave_something_of_the_maximum_for_the_answer(upstream: str, most: int, budget: int) -> None:
    given = Parameters(reasoning=Reasoning(effort="medium"), max_output_tokens=most)
    assert config(upstream=upstream, parameters=given)["thinking_config"] == {"thinking_budget": budget}


def test_what_the_model_is_not_told_is_named() -> None:
    given = Parameters(reasoning=Reasoning(effort="low"), logprobs=3, parallel_tool_calls=False, temperature=1)
    _, dropped = request_arguments(asking(upstream="gemini-2.0-flash", parameters=given))
    assert dropped == ("logprobs", "parallel_tool_calls", "reasoning")
    _, dropped = request_arguments(asking(parameters=given))
    assert dropped == ("logprobs", "parallel_tool_calls")
    _, dropped = request_arguments(asking(tools=(Tool(name="f", strict=True),)))
    assert dropped == ("tools.strict",)
    _, dropped = request_arguments(asking(tool_choice=ToolChoice(use=ToolUse.REQUIRED)))
    assert dropped == ("tool_choice",)


def test_more_stop_sequences_than_google_takes_are_refused() -> None:
    assert config(parameters=Parameters(stop=tuple("abcde")))["stop_sequences"] == list("abcde")
    with pytest.raises(UpstreamFailed, match="at most 5 stop sequences: there are 6") as caught:
        request_arguments(asking(parameters=Parameters(stop=tuple("abcdef"))))
    assert caught.value.kind is Failure.UNSUPPORTED


def test_very_many_results_that_come_one_by_one_are_gathered_in_one_pass() -> None:
    many = range(50_000)
    results = [by_user(ToolResult(call_id=f"c{number}", content=(Text(text="r"),))) for number in many]
    told = contents(by_user(Text(text="hi")), by_model(*map(call, many)), *results)
    assert [(content["role"], len(content["parts"])) for content in told[1:]] == [
        ("model", len(many)),
        ("user", len(many)),
    ]
