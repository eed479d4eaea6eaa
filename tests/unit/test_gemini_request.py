"""Google's bodies: what is read of them, what is left out, and what is refused by name."""

import base64
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from src.api.dialects.gemini.request import parse_count_tokens, parse_generate_content
from src.api.dialects.gemini.tools import json_schema
from src.api.dialects.request import ParsedRequest
from src.api.dialects.signatures import sealed
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import Media, MediaKind, Opaque, Text, Thinking, ToolCall, ToolResult
from src.domain.completion.model import ChatMessage, ChatRole, Parameters
from src.domain.completion.tools import Reasoning, ResponseFormat, ToolChoice, ToolUse
from src.shared.errors import InvalidRequest

HELLO = [{"role": "user", "parts": [{"text": "hello"}]}]
GOOGLE = WireFormat.GENERATE_CONTENT


def parse(contents: Any = HELLO, **given: Any) -> ParsedRequest:
    return parse_generate_content("fast", {"contents": contents, **given}, {})


def saying(*parts: Any, role: str = "user") -> ChatMessage:
    (message,) = parse([{"role": role, "parts": list(parts)}]).chat.messages
    return message


def configured(**config: Any) -> Parameters:
    return parse(generationConfig=config).chat.parameters


def refused(*parts: Any, **given: Any) -> tuple[str, ...]:
    wire = parse([{"parts": [*parts, {"text": "x"}]}], **given).chat.wire
    assert wire is not None
    return wire.untranslatable


class TestContents:
    def test_the_least_body_is_a_request(self) -> None:
        parsed = parse([{"parts": [{"text": "hello"}]}])
        assert (parsed.model, parsed.untranslated, parsed.chat.stream) == ("fast", (), False)
        assert parsed.chat.messages == (ChatMessage(role=ChatRole.USER, text="hello"),)
        assert parsed.chat.wire is not None
        assert (parsed.chat.wire.format, parsed.chat.wire.untranslatable) == (GOOGLE, ())

    @pytest.mark.parametrize(
        "instruction",
        ["Be kind.", {"parts": [{"text": "Be kind."}]}, {"parts": {"text": "Be kind."}}, [{"text": "Be kind."}]],
    )
    @pytest.mark.parametrize("name", ["systemInstruction", "system_instruction"])
    def test_the_system_instruction_comes_first(self, instruction: Any, name: str) -> None:
        first, _ = parse(**{name: instruction}).chat.messages
        assert first == ChatMessage(role=ChatRole.SYSTEM, text="Be kind.")

    @pytest.mark.parametrize(
        ("part", "media"),
        [
            (
                {"inlineData": {"mimeType": "image/png", "data": "-_8="}},
                Media(kind=MediaKind.IMAGE, media_type="image/png", data="+/8="),
            ),
            (
                {"inline_data": {"mime_type": "application/pdf", "data": "AA==", "display_name": "a.pdf"}},
                Media(kind=MediaKind.DOCUMENT, media_type="application/pdf", data="AA==", name="a.pdf"),
            ),
            (
                {"fileData": {"fileUri": "https://x.example/a.mp3?b"}},
                Media(kind=MediaKind.AUDIO, media_type="audio/mpeg", url="https://x.example/a.mp3?b"),
            ),
        ],
    )
    def test_files_are_inline_or_elsewhere(self, part: Any, media: Media) -> None:
        assert saying({"text": "look"}, part).parts == (Text(text="look"), media)

    def test_what_lies_at_google_cannot_be_told_to_others(self) -> None:
        assert refused({"fileData": {"fileUri": "gs://bucket/a.png"}}) == ("fileData",)

    def test_calls_and_results_without_ids_find_each_other(self) -> None:
        calls = [{"functionCall": {"name": name, "args": {"q": 1}}} for name in ("a", "b", "a")]
        results = [{"functionResponse": {"name": name, "response": {"r": 1}}} for name in ("b", "a", "a")]
        messages = parse([*HELLO, {"role": "model", "parts": calls}, {"role": "function", "parts": results}])
        _, called, answered = messages.chat.messages
        ids = [part.id for part in called.parts if isinstance(part, ToolCall)]
        assert len(set(ids)) == 3
        found = [part.call_id for part in answered.parts if isinstance(part, ToolResult)]
        assert found == [ids[1], ids[0], ids[2]]

    def test_a_result_without_an_id_is_that_of_the_oldest_call_of_its_tool_that_has_none(self) -> None:
        calls = [("look", {}), ("look", {"id": "second"}), ("wait", {}), ("look", {"id": "second"}), ("look", {})]
        results = [("look", {"id": "second"}), ("look", {}), ("wait", {}), ("look", {}), ("look", {}), ("sit", {})]
        messages = parse(
            [
                {"role": "model", "parts": [{"functionCall": {"name": name, **ids}} for name, ids in calls]},
                {"parts": [{"functionResponse": {"name": name, **ids}} for name, ids in results]},
            ]
        ).chat.messages
        called = [part.id for part in messages[0].parts if isinstance(part, ToolCall)]
        answered = [part.call_id for part in messages[1].parts if isinstance(part, ToolResult)]
        assert answered[:4] == ["second", called[0], called[2], called[4]]
        assert len({*called, *answered}) == len({*called}) + 2  # those that answer nothing have ids of their own

    def test_a_result_is_its_response_as_json_with_the_files_it_shows(self) -> None:
        response = {"id": "c1", "name": "look", "response": {"error": "no"}, "parts": [
            {"inlineData": {"mimeType": "image/png", "data": "AA=="}}
        ]}  # fmt: skip
        (part,) = saying({"functionResponse": response}).parts
        assert isinstance(part, ToolResult)
        assert (part.call_id, part.name, part.is_error, part.text) == ("c1", "look", True, '{"error":"no"}')
        assert part.content[1] == Media(kind=MediaKind.IMAGE, media_type="image/png", data="AA==")

    def test_a_models_pieces_are_one_message(self) -> None:
        pieces = [
            {"text": "I ", "thought": True},
            {"text": "see", "thought": True, "thoughtSignature": "c2ln"},
            {"text": "Good "},
            {"text": "day"},
            {"text": ""},
            {"functionCall": {"id": "c", "name": "f"}, "thoughtSignature": "c2ln"},
        ]
        contents = [*HELLO, *({"role": "model", "parts": [piece]} for piece in pieces)]
        _, message = parse(contents).chat.messages
        assert message.parts == (
            Thinking(text="I see", signature="c2ln", origin=GOOGLE),
            Text(text="Good day"),
            ToolCall(id="c", name="f", arguments="{}", signature="c2ln"),
        )

    def test_a_thought_of_another_model_is_known_by_its_seal_in_either_alphabet(self) -> None:
        for signature in ("sig>>>???", "redacted data>>>"):
            seal = sealed(signature, WireFormat.MESSAGES, GOOGLE)
            for written in (seal, base64.urlsafe_b64encode(base64.b64decode(seal)).decode(), seal.rstrip("=")):
                (thought,) = saying({"text": "", "thought": True, "thoughtSignature": written}, role="model").parts
                assert isinstance(thought, Thinking)
                assert thought.origin is WireFormat.MESSAGES
                assert thought.redacted is signature.startswith("redacted")
                assert thought.signature == signature.removeprefix("redacted ")

    def test_thoughts_of_other_models_are_not_relayed_and_named(self) -> None:
        foreign = {"text": "hm", "thought": True, "thoughtSignature": sealed("sig", WireFormat.MESSAGES, GOOGLE)}
        secret = {"thought": True, "thought_signature": sealed("redacted data", None, GOOGLE)}
        own = {"text": "hm", "thought": True, "thoughtSignature": "c2ln"}
        unsigned = {"text": "hm", "thought": True}
        told = [own, unsigned, {"text": "a"}, {"functionCall": {"name": "f"}, "thoughtSignature": "c2ln"}]
        contents = [*HELLO, {"role": "model", "parts": [foreign, *told[:2]]}, {"role": "model", "parts": [secret]}]
        wire = parse([*contents, {"role": "model", "parts": told[2:]}]).chat.wire
        assert wire is not None
        assert wire.left_out == ("thinking",)
        kept = [{"role": "model", "parts": told[:2]}, {"role": "model", "parts": told[2:]}]
        assert wire.body["contents"] == [*HELLO, *kept]
        wire = parse([*HELLO, *kept]).chat.wire
        assert wire is not None
        assert (wire.left_out, wire.body["contents"]) == ((), [*HELLO, *kept])

    @pytest.mark.parametrize(
        ("part", "name"),
        [
            ({"executableCode": {"code": "1"}}, "executableCode"),
            ({"codeExecutionResult": {}}, "codeExecutionResult"),
            ({"text": "x", "videoMetadata": {}}, "videoMetadata"),
            ({"ofTheFuture": 5}, "ofTheFuture"),
        ],
    )
    def test_parts_that_only_google_knows_are_named(self, part: Any, name: str) -> None:
        assert refused(part) == (name,)

    def test_what_googles_tools_did_is_left_to_google(self) -> None:
        code = {"thoughtSignature": "AA==", "executable_code": {"code": "1"}}
        parsed = parse([*HELLO, {"role": "model", "parts": [code, {"text": "It is 1."}]}])
        opaque = Opaque(
            format=WireFormat.GENERATE_CONTENT, body={"executableCode": {"code": "1"}, "thoughtSignature": "AA=="}
        )
        assert parsed.chat.messages[-1].parts == (opaque, Text(text="It is 1."))
        assert parsed.chat.wire is not None
        assert parsed.chat.wire.untranslatable == ()

    def test_contents_that_are_kept_at_google_cannot_be_told_to_others(self) -> None:
        assert refused(cached_content="cachedContents/1") == ("cached_content",)

    @pytest.mark.parametrize(
        ("contents", "param"),
        [
            (None, "contents"),
            ([], "contents"),
            ("hello", "contents"),
            ([5], "contents[0]"),
            ([{"role": "robot", "parts": []}], "contents[0].role"),
            ([{"role": {}, "parts": []}], "contents[0].role"),
            ([{"parts": 5}], "contents[0].parts"),
            ([{"parts": [5]}], "contents[0].parts[0]"),
            ([{"parts": [{"text": 5}]}], "contents[0].parts[0].text"),
            ([{"parts": [{"inlineData": 5}]}], "contents[0].parts[0].inlineData"),
            ([{"parts": [{"inlineData": {"data": "AA=="}}]}], "contents[0].parts[0].inlineData"),
            ([{"parts": [{"fileData": {}}]}], "contents[0].parts[0].fileData.fileUri"),
            ([{"parts": [{"functionCall": {}}]}], "contents[0].parts[0].functionCall.name"),
            ([{"parts": [{"functionCall": {"name": "f", "args": 5}}]}], "contents[0].parts[0].functionCall.args"),
            ([{"parts": [{"functionResponse": {"response": {}}}]}], "contents[0].parts[0].functionResponse.name"),
        ],
    )
    def test_wrong_contents_are_refused_by_name(self, contents: Any, param: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            parse(contents)
        assert caught.value.param == param


class TestSettings:
    def test_every_setting_has_its_place(self) -> None:
        said = configured(
            maxOutputTokens=50, temperature=0.5, top_p=0.9, topK=40.0, stopSequences=["END"], seed="7",
            presencePenalty=1, frequency_penalty=-1, candidateCount=2, responseLogprobs=True, logprobs=3,
        )  # fmt: skip
        assert said == Parameters(
            max_output_tokens=50, temperature=0.5, top_p=0.9, top_k=40, stop=("END",), seed=7, presence_penalty=1,
            frequency_penalty=-1, choices=2, logprobs=3,
        )  # fmt: skip
        assert configured(responseLogprobs=True).logprobs == 0

    @pytest.mark.parametrize(
        ("config", "reasoning"),
        [
            ({"thinkingBudget": 1024}, Reasoning(budget_tokens=1024)),
            ({"thinking_budget": 0, "include_thoughts": False}, Reasoning(budget_tokens=0)),
            ({"thinkingBudget": -1}, None),
            ({"thinkingBudget": -1, "includeThoughts": True}, Reasoning(shown=True)),
            ({"thinkingLevel": "HIGH"}, Reasoning(effort="high")),
            ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, None),
            ({}, None),
        ],
    )
    def test_thinking_is_a_budget_or_a_level(self, config: Any, reasoning: Reasoning | None) -> None:
        assert configured(thinkingConfig=config).reasoning == reasoning

    @pytest.mark.parametrize(
        ("config", "wanted"),
        [
            ({"responseMimeType": "application/json"}, ResponseFormat()),
            ({"responseMimeType": "text/plain"}, None),
            (
                {"responseMimeType": "text/x.enum", "responseSchema": {"enum": ["a"]}},
                ResponseFormat(schema={"enum": ["a"]}),
            ),
            ({"responseSchema": {"type": "STRING"}}, ResponseFormat(schema={"type": "string"})),
            ({"response_json_schema": {"const": 1}}, ResponseFormat(schema={"const": 1})),
        ],
    )
    def test_the_answer_may_have_to_be_json(self, config: Any, wanted: ResponseFormat | None) -> None:
        assert configured(**config).response_format == wanted

    def test_what_no_other_model_can_be_told_is_named_in_the_clients_words(self) -> None:
        parsed = parse(
            safetySettings=[],
            labels=None,
            tools=[{"googleSearch": {}, "code_execution": {}}],
            toolConfig={"retrievalConfig": {}},
            generationConfig={"speechConfig": {}, "of_tomorrow": 1},
        )
        assert parsed.untranslated == (
            "generationConfig.ofTomorrow",
            "generationConfig.speechConfig",
            "safetySettings",
            "toolConfig.retrievalConfig",
            "tools[codeExecution]",
            "tools[googleSearch]",
        )

    @pytest.mark.parametrize(
        ("config", "name"),
        [
            ({"responseModalities": ["TEXT", "IMAGE"]}, "generationConfig.responseModalities"),
            ({"responseMimeType": "text/x.enum"}, "generationConfig.responseMimeType"),
            ({"responseMimeType": "text/x.xml", "responseSchema": {}}, "generationConfig.responseMimeType"),
        ],
    )
    def test_answers_that_are_no_text_cannot_be_had_elsewhere(self, config: Any, name: str) -> None:
        assert refused(generationConfig=config) == (name,)
        assert refused(generationConfig={"responseModalities": ["TEXT"], "responseMimeType": "text/plain"}) == ()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("maxOutputTokens", 0),
            ("maxOutputTokens", "many"),
            ("temperature", 3),
            ("topP", "1"),
            ("topK", 1.5),
            ("stopSequences", [5]),
            ("candidateCount", 0),
            ("responseLogprobs", 1),
            ("thinkingConfig", 5),
            ("responseSchema", 5),
            ("responseJsonSchema", "x"),
            ("responseMimeType", 5),
        ],
    )
    def test_a_wrong_setting_is_refused_by_name(self, name: str, value: Any) -> None:
        with pytest.raises(InvalidRequest) as caught:
            configured(**{name: value})
        assert caught.value.param == f"generationConfig.{name}"

    def test_headers_of_googles_go_along_and_credentials_do_not(self) -> None:
        headers = {"X-Goog-Api-Key": "k", "x-goog-user-project": "p", "X-Goog-New": "1", "authorization": "Bearer k"}
        wire = parse_generate_content("fast", {"contents": HELLO}, headers).chat.wire
        assert wire is not None
        assert wire.headers == {"x-goog-new": "1"}

    def test_a_whole_request_can_be_counted(self) -> None:
        body = {"generateContentRequest": {"model": "models/x", "contents": HELLO, "systemInstruction": "Be kind."}}
        chat = parse_count_tokens("fast", body, {}).chat
        assert [message.text for message in chat.messages] == ["Be kind.", "hello"]
        assert chat.wire is not None
        assert chat.wire.body is body


class TestTools:
    def test_functions_are_declared_in_either_schema(self) -> None:
        googles = {"type": "OBJECT", "properties": {"q": {"type": "STRING"}}}
        plain = {"type": "object", "properties": {"q": {"type": "string"}}}
        declared = [
            {"name": "a", "description": "A.", "parameters": googles},
            {"name": "b", "parametersJsonSchema": plain},
            {"name": "c"},
        ]
        a, b, c = parse(tools=[{"functionDeclarations": declared}]).chat.tools
        assert (a.name, a.description, a.schema, b.schema) == ("a", "A.", plain, plain)
        assert c.schema == {"type": "object"}

    @pytest.mark.parametrize(
        ("mode", "use"),
        [
            ("AUTO", ToolUse.AUTO),
            ("ANY", ToolUse.REQUIRED),
            ("any", ToolUse.REQUIRED),
            ("NONE", ToolUse.NONE),
            ("VALIDATED", ToolUse.AUTO),
            (None, ToolUse.AUTO),
        ],
    )
    def test_the_mode_says_whether_to_call(self, mode: str | None, use: ToolUse) -> None:
        config = {"function_calling_config": {"mode": mode, "allowed_function_names": ["a"]}}
        assert parse(tool_config=config).chat.tool_choice == ToolChoice(use=use, names=("a",))

    def test_a_schema_of_googles_becomes_a_json_schema(self) -> None:
        assert json_schema(
            {
                "type": "OBJECT",
                "nullable": True,
                "propertyOrdering": ["b", "a"],
                "properties": {
                    "a": {"type": "ARRAY", "items": {"type": "INTEGER", "format": "int32"}, "minItems": "1"},
                    "property_ordering": {"type": "STRING", "format": "date-time", "example": "x"},
                    "c": {"any_of": [{"type": "NUMBER"}, {"ref": "#/defs/d"}], "nullable": True},
                    "e": {"type": "STRING", "enum": ["x"], "nullable": True},
                },
                "required": ["a"],
                "defs": {"d": {"type": "BOOLEAN"}},
            }
        ) == {
            "type": ["object", "null"],
            "properties": {
                "a": {"type": "array", "items": {"type": "integer"}, "minItems": 1},
                "property_ordering": {"type": "string", "format": "date-time"},
                "c": {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/d"}, {"type": "null"}]},
                "e": {"type": ["string", "null"], "enum": ["x", None]},
            },
            "required": ["a"],
            "$defs": {"d": {"type": "boolean"}},
        }

    @pytest.mark.parametrize(
        ("given", "param"),
        [
            ({"tools": 5}, "tools"),
            ({"tools": [5]}, "tools[0]"),
            ({"tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name"),
            (
                {"tools": [{"functionDeclarations": [{"name": "a", "parameters": 5}]}]},
                "tools[0].functionDeclarations[0].parameters",
            ),
            ({"toolConfig": 5}, "toolConfig"),
            ({"toolConfig": {"functionCallingConfig": {"mode": 5}}}, "toolConfig.functionCallingConfig.mode"),
        ],
    )
    def test_wrong_tools_are_refused_by_name(self, given: Any, param: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            parse(**given)
        assert caught.value.param == param


KNOWN = [
    "contents", "role", "parts", "text", "inlineData", "mimeType", "data", "fileData", "fileUri", "functionCall",
    "functionResponse", "name", "id", "args", "response", "thought", "thoughtSignature", "systemInstruction",
    "tools", "functionDeclarations", "parameters", "parametersJsonSchema", "type", "properties", "items", "anyOf",
    "nullable", "enum", "toolConfig", "functionCallingConfig", "mode", "allowedFunctionNames", "generationConfig",
    "maxOutputTokens", "temperature", "topK", "stopSequences", "seed", "thinkingConfig", "thinkingBudget",
    "thinkingLevel", "responseSchema", "responseMimeType", "responseModalities", "candidateCount", "logprobs",
    "generateContentRequest", "x",
]  # fmt: skip
LEAVES = some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(max_size=5)
BODIES = some.recursive(
    LEAVES | some.sampled_from(["user", "model", "ANY", "OBJECT", "STRING", "application/json"]),
    lambda inner: (
        some.lists(inner, max_size=3) | some.dictionaries(some.sampled_from(KNOWN) | some.text(max_size=3), inner)
    ),
    max_leaves=30,
)


@settings(max_examples=300)
@given(some.dictionaries(some.sampled_from(KNOWN), BODIES), BODIES, BODIES)
def test_any_json_is_read_or_refused_with_a_reason(body: dict[str, Any], part: Any, config: Any) -> None:
    for tried in (body, {**body, "contents": [{"parts": [part]}]}, {"contents": HELLO, "generationConfig": config}):
        with suppress(InvalidRequest):
            parse_generate_content("fast", tried, {})
        with suppress(InvalidRequest):
            parse_count_tokens("fast", tried, {})
