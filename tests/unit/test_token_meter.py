"""Estimates and bounds of tokens, offline."""

from __future__ import annotations

import base64
import json
import sys
import threading
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.domain.catalog.model import Model, WireFormat
from src.domain.completion.content import ToolCall
from src.domain.completion.model import ChatMessage, ChatRequest, ChatRole, Parameters, WireBody
from src.domain.completion.tools import ResponseFormat, Tool
from src.integrations.llm import token_meter
from src.integrations.llm.prompt_walk import FORMAT_TOKENS, LIKELY, MOST, Prompt, PromptWalk
from src.integrations.llm.token_meter import (
    ANTHROPIC,
    GOOGLE,
    OLDER_OPENAI,
    OPENAI,
    OTHERS,
    SMOLLM2,
    Family,
    SplintrMeter,
    family_of,
)

METER = SplintrMeter()
FIXED = MOST.request + MOST.message

TEXTS = {
    "prose": "The quick brown fox jumps over the lazy dog, and nobody minds. " * 50,
    "code": "def f(x: int) -> int:\n        if x > 10:\n            return x * 2\n        return f(x + 1)\n" * 40,
    "json": '{"id": "a1b2", "values": [1, 22, 333, 4444.5], "nested": {"on": true}}\n' * 40,
    "digits": "1234567890" * 100,
    "spaces": " " * 2000,
    "lines": "\n" * 2000,
    "rules": "-" * 500 + "=" * 500,
    "pairs": "=-" * 500,
    "signs": "#+=-~|" * 200,
    "tabs and lines": "\t\n" * 500,
    "escaped lines": "\\n" * 500,
    "japanese": "日本語の文章です。東京は今日も雨。" * 60,
    "russian": "Это обычный русский текст, который надо посчитать. " * 40,
    "thai": "สวัสดีครับ วันนี้อากาศดีมาก " * 50,
    "emoji": "😀🎉🚀" * 100,
    "base64": base64.b64encode(Random(1).randbytes(3000)).decode(),
    "hex": Random(1).randbytes(2000).hex(),
}


def model(upstream: str = "gpt-4o", window: int = 200_000) -> Model:
    return Model(name="m", provider="p", upstream=upstream, context_window=window, max_output=100)


def plain(*texts: str) -> ChatRequest:
    return ChatRequest(messages=tuple(ChatMessage(role=ChatRole.USER, text=text) for text in texts))


def wired(**body: Any) -> ChatRequest:
    return ChatRequest(messages=(), wire=WireBody(format=WireFormat.CHAT_COMPLETIONS, body=body))


def with_parts(*parts: dict[str, Any], role: str = "user") -> ChatRequest:
    return wired(messages=[{"role": role, "content": list(parts)}])


@cache
def vocabulary(name: str) -> Any:
    import splintr

    return splintr.Tokenizer.from_pretrained(name)


def counted(text: str, name: str) -> int:
    return len(vocabulary(name).encode_ordinary(text))


SEPARATORS = ((", ", ": "), (",", ":"))


def shown(value: Any, separators: tuple[str, str]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=separators).encode(errors="replace").decode()


class TestFamilies:
    @pytest.mark.parametrize(
        ("upstream", "family"),
        [
            ("gpt-4o-mini", OPENAI),
            ("gpt-4.1", OPENAI),
            ("gpt-6.1-sol", OPENAI),
            ("o3-mini", OPENAI),
            ("openai/gpt-5", OPENAI),
            ("ft:gpt-4o-2024-08-06:us:name:id", OPENAI),
            ("gpt-4-turbo", OLDER_OPENAI),
            ("gpt-4", OLDER_OPENAI),
            ("gpt-3.5-turbo-0125", OLDER_OPENAI),
            ("claude-3-opus-20240229", ANTHROPIC),
            ("anthropic/claude-sonnet-5", ANTHROPIC),
            ("gemini-2.5-flash", GOOGLE),
            ("SmolLM2-135M-Instruct", SMOLLM2),
            ("meta-llama/llama-3.3-70b", OTHERS),
            ("gpt-oss-120b", OTHERS),
            ("gpt-j-6b", OTHERS),
        ],
    )
    def test_upstream_names(self, upstream: str, family: Family) -> None:
        assert family_of(model(upstream)) is family


class TestCount:
    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    def test_openai_is_exact(self, text: str) -> None:
        assert METER.count(text, model("gpt-4o")) == counted(text, "o200k_base")
        assert METER.count(text, model("gpt-4-turbo")) == counted(text, "cl100k_base")

    def test_anthropic_counts_a_quarter_more(self) -> None:
        text = TEXTS["prose"]
        assert METER.count(text, model("claude-3-opus")) == pytest.approx(1.25 * counted(text, "o200k_base"), abs=1)

    def test_no_text_has_more_tokens_than_bytes(self) -> None:
        assert counted("~}" * 200, "o200k_base") == 400
        assert METER.count("~}" * 200, model("claude-3-opus")) == 400

    def test_nothing_is_nothing(self) -> None:
        assert METER.count("", model()) == 0

    def test_control_words_in_a_text_are_text(self) -> None:
        assert METER.count("<|endoftext|>", model()) > 1

    def test_long_texts_are_counted_in_slices(self) -> None:
        text = "word " * 50_000
        assert METER.count(text, model()) == pytest.approx(50_000, abs=20)

    def test_lone_surrogates_do_no_harm(self) -> None:
        assert METER.count("a\ud800b", model()) >= 1


class TestBound:
    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    @pytest.mark.parametrize(
        ("upstream", "names"),
        [
            ("gpt-4o", ["o200k_base"]),
            ("gpt-4", ["cl100k_base"]),
            ("gemini-2.5-flash", ["gemma2", "gemma3"]),
            ("claude-3-opus", ["cl100k_base", "llama3"]),
            ("some-model", ["cl100k_base", "llama3", "mistral_v3", "qwen2", "deepseek_v3", "glm4", "phi4"]),
        ],
    )
    async def test_it_is_no_less_than_real_vocabularies_count(self, text: str, upstream: str, names: list[str]) -> None:
        bound = await METER.prompt_bound(plain(text), model(upstream))
        assert bound >= max(counted(text, name) for name in names)

    @pytest.mark.parametrize("upstream", ["gpt-4o", "gemini-2.5-flash", "claude-3-opus", "some-model"])
    @pytest.mark.parametrize("name", ["prose", "code"])
    async def test_it_is_not_much_more_than_the_count(self, upstream: str, name: str) -> None:
        bound = await METER.prompt_bound(plain(TEXTS[name]), model(upstream))
        assert bound <= 1.7 * counted(TEXTS[name], "o200k_base") + FIXED

    @given(st.text(max_size=300))
    @settings(max_examples=150)
    async def test_bytes_are_the_last_resort(self, text: str) -> None:
        for upstream in ("gpt-4o", "claude-3-opus", "some-model", "SmolLM2-135M-Instruct"):
            bound = await METER.prompt_bound(plain(text), model(upstream)) - FIXED
            assert METER.count(text, model("gpt-4o")) <= bound <= len(text.encode())

    async def test_every_message_and_request_has_its_overhead(self) -> None:
        assert await METER.prompt_bound(plain("", ""), model()) == MOST.request + 2 * MOST.message

    async def test_large_prompts_are_measured_in_a_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        threads = []
        measured = SplintrMeter._bound

        def noting(self: SplintrMeter, prompt: Prompt, family: Family) -> int:
            threads.append(threading.current_thread() is threading.main_thread())
            return measured(self, prompt, family)

        monkeypatch.setattr(SplintrMeter, "_bound", noting)
        METER.count("load", model())
        await METER.prompt_bound(plain("small"), model())
        await METER.prompt_bound(plain("large " * 50_000), model())
        await METER.prompt_bound(wired(tools=[{"name": "large " * 50_000}]), model())
        assert threads == [True, False, False]

    async def test_bodies_of_very_many_values_are_gone_through_in_a_thread(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads = []
        gone_through = PromptWalk.go_on

        def noting(self: PromptWalk, most_values: int | None = None) -> bool:
            threads.append(threading.current_thread() is threading.main_thread())
            return gone_through(self, most_values)

        monkeypatch.setattr(PromptWalk, "go_on", noting)
        ones = wired(tools=[1] * 2 * token_meter.VALUES_AT_ONCE)
        assert await METER.prompt_bound(ones, model()) > 2 * token_meter.VALUES_AT_ONCE
        assert threads == [True, False]


class TestWireBodies:
    async def test_every_string_counts(self) -> None:
        secret_places = [
            wired(messages=[{"role": "user", "content": TEXTS["prose"]}]),
            wired(system=[{"type": "text", "text": TEXTS["prose"], "cache_control": {"type": "ephemeral"}}]),
            wired(tools=[{"name": "f", "input_schema": {"properties": {"x": {"description": TEXTS["prose"]}}}}]),
            with_parts({"type": "tool_result", "content": [{"type": "text", "text": TEXTS["prose"]}]}),
            wired(response_format={"json_schema": {TEXTS["prose"]: 1}}),
            with_parts({"type": "document", "source": {"type": "text", "data": TEXTS["prose"]}}),
        ]
        for chat in secret_places:
            assert await METER.prompt_bound(chat, model()) >= counted(TEXTS["prose"], "o200k_base")

    async def test_tools_that_anthropic_is_told_again_count_there(self) -> None:
        call = ToolCall(id="c", name="a_long_name_of_a_tool " * 20, arguments="{}")
        called = tuple(ChatMessage(role=ChatRole.ASSISTANT, parts=(call,)) for _ in range(3))
        history = ChatRequest(messages=called, wire=WireBody(format=WireFormat.CHAT_COMPLETIONS, body={"messages": []}))
        before = replace(history, messages=())
        bounds = [await METER.prompt_bound(chat, model("claude-opus-4-8")) for chat in (before, history)]
        told = json.dumps({"name": call.name, "input_schema": {"type": "object", "properties": {}}})
        least = MOST.tools + counted(told, "o200k_base")
        assert least <= bounds[1] - bounds[0] < 2 * least, "once, however often it was called"
        offered = replace(history, tools=(Tool(name="f"),))
        assert await METER.prompt_bound(offered, model("claude-opus-4-8")) == bounds[0]
        assert len({await METER.prompt_bound(chat, model()) for chat in (before, history)}) == 1
        assert len({await METER.prompt_estimate(chat, model("claude-opus-4-8")) for chat in (before, history)}) == 1

    async def test_what_anthropic_writes_around_a_form_of_the_answer_counts_there(self) -> None:
        formed = Parameters(response_format=ResponseFormat(schema={"type": "object"}))
        for upstream, added in (("claude-opus-4-8", FORMAT_TOKENS), ("gpt-4o", 0)):
            chats = [replace(wired(output_config={}), parameters=given) for given in (Parameters(), formed)]
            bounds = [await METER.prompt_bound(chat, model(upstream)) for chat in chats]
            assert bounds[1] - bounds[0] == added
        schema = {"type": "object", "description": TEXTS["prose"]}
        plainly = replace(plain("hi"), parameters=Parameters(response_format=ResponseFormat(schema=schema)))
        assert await METER.prompt_bound(plainly, model()) > counted(TEXTS["prose"], "o200k_base")

    async def test_tools_cost_what_is_written_around_them(self) -> None:
        with_tools = await METER.prompt_bound(wired(tools=[{"name": "f"}]), model())
        assert MOST.tools < with_tools < MOST.tools + 60

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + TEXTS["base64"] * 100}},
            {"type": "input_image", "image_url": "data:image/png;base64," + TEXTS["base64"] * 100},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": TEXTS["base64"] * 100}},
            {"type": "image_url", "image_url": {"url": "https://pictures.example/cat.png"}},
            {"inlineData": {"mimeType": "image/png", "data": TEXTS["base64"] * 100}},
            {"inline_data": {"mime_type": "image/png", "data": TEXTS["base64"] * 100}},
        ],
        ids=lambda part: next(iter(part.values())) if "type" in part else next(iter(part)),
    )
    async def test_an_image_is_a_constant(self, part: dict[str, Any]) -> None:
        bound = await METER.prompt_bound(with_parts(part, {"type": "text", "text": "What is it?"}), model())
        assert MOST.image < bound < MOST.image + 150
        twice = await METER.prompt_bound(with_parts(part, part), model())
        assert twice > 2 * MOST.image
        dear = await METER.prompt_bound(with_parts(part), model("gpt-4o-mini"))
        assert MOST.dear_image < dear < MOST.dear_image + 150

    async def test_an_image_in_a_tool_result_counts(self) -> None:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": TEXTS["base64"]}}
        bound = await METER.prompt_bound(with_parts({"type": "tool_result", "content": [image]}), model())
        assert MOST.image < bound < MOST.image + 150

    @pytest.mark.parametrize(("size", "tokens"), [(100, MOST.file), (40_000, 15_000), (4_000_000, 200_000)])
    async def test_a_file_counts_by_its_size_up_to_the_window(self, size: int, tokens: int) -> None:
        part = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "A" * size}}
        bound = await METER.prompt_bound(with_parts(part), model())
        assert tokens < bound < tokens + 150

    async def test_a_file_elsewhere_counts_as_a_large_one(self) -> None:
        part = {"type": "file", "file": {"file_id": "file-123"}}
        assert await METER.prompt_bound(with_parts(part), model()) > MOST.distant_file
        assert await METER.prompt_bound(with_parts(part), model(window=8000)) < 8200

    async def test_base64_in_a_text_is_text(self) -> None:
        part = {"type": "text", "text": TEXTS["base64"]}
        assert await METER.prompt_bound(with_parts(part), model()) >= counted(TEXTS["base64"], "o200k_base")

    async def test_text_that_claims_to_be_data_is_text(self) -> None:
        text = "data:" + TEXTS["prose"]
        for part in (
            {"type": "document", "title": text, "source": {"type": "text", "data": "short"}},
            {"type": "document", "source": {"type": "text", "data": text}},
        ):
            estimate = await METER.prompt_estimate(with_parts(part), model())
            assert estimate == pytest.approx(counted(text, "o200k_base"), abs=20)

    async def test_a_tool_that_claims_to_be_an_image_is_text(self) -> None:
        tool = {"type": "image", "data": TEXTS["prose"]}
        assert await METER.prompt_estimate(wired(tools=[tool]), model()) > 0.75 * counted(TEXTS["prose"], "o200k_base")

    @pytest.mark.parametrize("value", [None, [], {}, [[]], ["", [], {}, {}, {}], True, 1, ""])
    async def test_values_without_words_count(self, value: Any) -> None:
        bodies = (wired(tools=[value] * 10_000), with_parts({"type": "tool_use", "input": {"x": [value] * 10_000}}))
        for body in bodies:
            for separators in SEPARATORS:
                count = counted(shown([value] * 10_000, separators), "o200k_base")
                assert await METER.prompt_bound(body, model()) > count

    async def test_deep_bodies_are_measured(self) -> None:
        deep: dict[str, Any] = {}
        for _ in range(50_000):
            deep = {"a": deep}
        assert await METER.prompt_bound(wired(messages=[deep]), model()) > 0


JSON_TEXTS = st.one_of(
    st.text(max_size=30),
    st.text(alphabet='ab 01{}[]":,\n\\/-_é日😀', max_size=30),
    st.sampled_from(["type", "object", "string", "The city's name.", "\n" * 30, '"' * 20, "0" * 40]),
)
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), JSON_TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(JSON_TEXTS, inner, max_size=6)),
    max_leaves=25,
)
UPSTREAMS = ("gpt-4o", "gpt-4", "claude-3-opus", "gemini-2.5-flash", "SmolLM2-135M-Instruct", "some-model")


class TestAnyBody:
    @given(st.lists(JSON_VALUES, min_size=1, max_size=4), st.text(max_size=100))
    @settings(max_examples=150)
    async def test_the_bound_is_no_less_than_the_count_of_all_it_shows_a_model(
        self, tools: list[Any], text: str
    ) -> None:
        tools = tools * 20  # what is written around tools must not hide what they are counted too low by
        chat = wired(tools=tools, messages=[{"role": "user", "content": text}])
        for upstream in UPSTREAMS:
            bound = await METER.prompt_bound(chat, model(upstream)) - MOST.tools
            for separators in SEPARATORS:
                counts = METER.count(shown(tools, separators), model(upstream)) + METER.count(text, model(upstream))
                assert counts <= bound

    @given(st.dictionaries(st.sampled_from(["messages", "tools", "system", "input", "x"]), JSON_VALUES))
    @settings(max_examples=150)
    async def test_the_estimate_is_never_above_the_bound(self, body: dict[str, Any]) -> None:
        for upstream in UPSTREAMS:
            bound = await METER.prompt_bound(wired(**body), model(upstream))
            assert 0 < await METER.prompt_estimate(wired(**body), model(upstream)) <= bound

    @given(st.lists(st.text(max_size=100), max_size=4))
    async def test_nor_is_it_for_words_of_ours(self, texts: list[str]) -> None:
        for upstream in UPSTREAMS:
            bound = await METER.prompt_bound(plain(*texts), model(upstream))
            assert 0 < await METER.prompt_estimate(plain(*texts), model(upstream)) <= bound


class TestEstimate:
    async def test_a_short_question_is_what_openai_counts(self) -> None:
        """Its own guide gives three tokens a message, one for the role, and three for the request."""
        settings_of_it = {"model": "gpt-4o", "temperature": 0.5, "stream": True, "max_tokens": 100}
        question = wired(messages=[{"role": "user", "content": "hello"}], **settings_of_it)
        assert await METER.prompt_estimate(question, model()) == 1 + 3 + 1 + 3
        assert await METER.prompt_estimate(plain("hello"), model()) == 1 + 3 + 1 + 3

    @pytest.mark.parametrize("field", ["tools", "functions", "response_format", "unheard_of"])
    async def test_what_is_beside_the_messages_counts(self, field: str) -> None:
        whole = counted(TEXTS["prose"], "o200k_base")
        body = {field: [{"name": "f", "parameters": {"description": TEXTS["prose"]}}]}
        assert 0.75 * whole < await METER.prompt_estimate(wired(**body), model()) < 1.25 * whole

    @pytest.mark.parametrize("upstream", ["gpt-4o", "gpt-4o-mini"])
    async def test_an_image_counts_as_a_usual_one(self, upstream: str) -> None:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": TEXTS["base64"]}}
        estimate = await METER.prompt_estimate(with_parts(image), model(upstream))
        assert estimate == pytest.approx(LIKELY.image if upstream == "gpt-4o" else LIKELY.dear_image, abs=20)

    async def test_the_address_of_an_image_is_no_text(self) -> None:
        address = {"url": "https://pictures.example/?signature=" + TEXTS["hex"]}
        estimate = await METER.prompt_estimate(with_parts({"type": "image_url", "image_url": address}), model())
        assert estimate == pytest.approx(LIKELY.image, abs=20)

    @pytest.mark.parametrize(("size", "tokens"), [(100, 1_500), (400_000, 30_000), (40_000_000, 200_000)])
    async def test_a_file_counts_by_its_size(self, size: int, tokens: int) -> None:
        part = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "A" * size}}
        assert await METER.prompt_estimate(with_parts(part), model()) == pytest.approx(tokens, abs=20)


class TestWithoutVocabulary:
    @pytest.fixture(autouse=True)
    def no_splintr(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "splintr", None)

    async def test_bytes_are_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        meter = SplintrMeter()
        assert await meter.prompt_bound(plain("hello wörld"), model()) == FIXED + 12
        assert meter.count("hello wörld", model()) == 12 / token_meter.BYTES_PER_TOKEN
        assert len(caplog.records) == 1
