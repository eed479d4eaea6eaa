"""OpenAI chat completions: bodies read, answers written as the stock SDK reads them."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from src.api.dialects.openai.reply import usage_body
from src.api.dialects.openai.request import parse_chat_completion
from src.api.dialects.openai.stream import DONE, OpenAIWriter
from src.api.dialects.request import ParsedRequest
from src.api.errors import Dialect, error_body
from src.api.json import dumps
from src.domain.catalog.model import Usage, WireFormat
from src.domain.completion.deltas import TextDelta
from src.domain.completion.model import ChatRole, FinishReason, Outcome, Parameters
from src.domain.ledger.model import CallStatus
from src.shared.errors import InvalidRequest, ProvidersFailed
from src.shared.money import MicroDollars
from tests.makers import NOW, nobody

HELLO = {"role": "user", "content": "hello"}
ABSURD_NUMBERS = ["1", True, [], {}, float("nan"), float("inf"), float("-inf"), pytest.param(10**400, id="huge")]


def parse(headers: Mapping[str, str] | None = None, **given: Any) -> ParsedRequest:
    body = {"model": "fast", "messages": [HELLO], **given}
    return parse_chat_completion({name: value for name, value in body.items() if value is not ...}, headers or {})


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def said(*messages: Any) -> list[tuple[ChatRole, str]]:
    return [(message.role, message.text) for message in parse(messages=list(messages)).chat.messages]


def refusal_of(**given: Any) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**given)
    assert caught.value.param is not None
    assert len(caught.value.message) < 300
    return caught.value.param


def test_the_least_body_is_a_request() -> None:
    parsed = parse()
    assert (parsed.model, parsed.untranslated) == ("fast", ())
    assert (parsed.chat.stream, parsed.chat.parameters) == (False, Parameters())
    assert parsed.chat.wire is not None
    assert (parsed.chat.wire.format, parsed.chat.wire.untranslatable) == (WireFormat.CHAT_COMPLETIONS, ())


def test_the_original_body_goes_along_untouched() -> None:
    body = {"model": "fast", "messages": [HELLO], "prompt_cache_key": "x", "unheard_of": {"deep": [1]}}
    parsed = parse_chat_completion(body, {})
    assert parsed.chat.wire is not None
    assert parsed.chat.wire.body is body
    assert parsed.untranslated == ("unheard_of",)


def test_only_the_dialects_own_headers_go_along() -> None:
    accounts = {"openai-organization": "org-1", "openai-project": "p", "authorization": "Bearer sk-gw-1"}
    parsed = parse({"openai-beta": "b", "x-stainless-lang": "python", **accounts})
    assert parsed.chat.wire is not None
    assert parsed.chat.wire.headers == {"openai-beta": "b"}


@pytest.mark.parametrize(
    ("role", "heard"),
    [
        ("system", ChatRole.SYSTEM),
        ("developer", ChatRole.SYSTEM),
        ("user", ChatRole.USER),
        ("assistant", ChatRole.ASSISTANT),
    ],
)
def test_every_role_is_heard(role: str, heard: ChatRole) -> None:
    assert said({"role": role, "content": "hello", "name": "Ann", "unheard_of": 1}) == [(heard, "hello")]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", ""),
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "one\ntwo"),
        ([{"type": "refusal", "refusal": "no"}], "no"),
        ([{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:"}}], "see"),
        ([{"type": "of_the_future", "text": 5}], ""),
    ],
)
def test_content_is_text_or_parts(content: Any, text: str) -> None:
    assert said({"role": "user", "content": content}) == [(ChatRole.USER, text)]


@pytest.mark.parametrize("message", [{"role": "assistant"}, {"role": "assistant", "content": None, "tool_calls": []}])
def test_an_assistant_may_have_said_nothing(message: dict[str, Any]) -> None:
    assert said(HELLO, message)[1] == (ChatRole.ASSISTANT, "")


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (..., "messages"),
        (None, "messages"),
        ([], "messages"),
        ("hello", "messages"),
        ({"role": "user"}, "messages"),
        ([HELLO] * 100_001, "messages"),
        (["hello"], "messages[0]"),
        ([HELLO, None], "messages[1]"),
        ([{"content": "hello"}], "messages[0].role"),
        ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": ["hello"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"text": "hello"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": ["text"]}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
    ],
)
def test_bad_messages_are_refused_by_name(messages: Any, param: str) -> None:
    assert refusal_of(messages=messages) == param


@pytest.mark.parametrize("model", [..., None, "", 5, ["fast"], "x" * 201])
def test_a_model_must_be_named(model: Any) -> None:
    assert refusal_of(model=model) == "model"


def test_parameters_are_read() -> None:
    parsed = parse(
        max_tokens=5, temperature=1, top_p=0.5, stop=["a", "b"], presence_penalty=-2, frequency_penalty=2, seed=-7
    )
    assert parsed.chat.parameters == Parameters(
        max_output_tokens=5,
        temperature=1.0,
        top_p=0.5,
        stop=("a", "b"),
        presence_penalty=-2.0,
        frequency_penalty=2.0,
        seed=-7,
    )


def test_the_newer_name_of_the_output_limit_wins() -> None:
    assert parse(max_tokens=5, max_completion_tokens=9).chat.parameters.max_output_tokens == 9


def test_one_stop_may_stand_alone() -> None:
    assert parse(stop="end").chat.parameters.stop == ("end",)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "seed", "n"])
@pytest.mark.parametrize("value", [*ABSURD_NUMBERS, 1.5, 2**63, -(2**63) - 1])
def test_absurd_whole_numbers_are_refused(name: str, value: Any) -> None:
    assert refusal_of(**{name: value}) == name


@pytest.mark.parametrize("name", ["temperature", "top_p", "presence_penalty", "frequency_penalty"])
@pytest.mark.parametrize("value", [*ABSURD_NUMBERS, 2.1, -2.1])
def test_absurd_numbers_are_refused(name: str, value: Any) -> None:
    assert refusal_of(**{name: value}) == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", 100_000_001),
        ("n", 0),
        ("n", 129),
        ("stream", "yes"),
        ("stream", 1),
        ("stop", 5),
        ("stop", [5]),
        ("stop", ["x"] * 65),
        ("stop", {"a": 1}),
    ],
)
def test_other_bad_values_are_refused_by_name(name: str, value: Any) -> None:
    assert refusal_of(**{name: value}) == name


@pytest.mark.parametrize(
    "name", ["max_tokens", "temperature", "stop", "stream", "stream_options", "n", "tools", "seed"]
)
def test_null_is_as_good_as_absent(name: str) -> None:
    parsed = parse(**{name: None})
    assert parsed.chat.parameters == Parameters()
    assert parsed.chat.wire is not None
    assert parsed.chat.wire.untranslatable == ()


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({"include_usage": True}, True), ({"include_usage": False}, False), ({}, False), ("yes", False), (None, False)],
)
def test_usage_in_the_stream_is_wanted_where_it_is_asked_for(options: Any, wanted: bool) -> None:
    parsed = parse(stream=True, stream_options=options)
    assert parsed.chat.stream
    assert parsed.chat.wire is not None
    assert parsed.chat.wire.wants_usage is wanted


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"modalities": ["text", "audio"]}, ("audio",)),
        ({"audio": {"voice": "x"}}, ("audio",)),
        ({"modalities": ["text"]}, ()),
        ({"messages": [HELLO, {"role": "assistant", "function_call": {}, "content": ""}]}, ()),
        ({"messages": [HELLO, {"role": "assistant", "audio": {"id": "audio_1"}}]}, ("audio",)),
        ({"messages": [HELLO, {"role": "assistant", "tool_calls": [{"type": "mcp"}]}]}, ("tool_calls[mcp]",)),
        ({"messages": [{"role": "user", "content": [{"type": "of_the_future"}]}]}, ("of_the_future",)),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, ("file",)),
        ({"messages": [{"role": "user", "content": [picture("data:image/png")]}]}, ("image_url",)),
        ({"messages": [{"role": "system", "content": [picture("https://x/y")]}]}, ("files in system messages",)),
    ],
)
def test_what_cannot_be_translated_is_named(given: dict[str, Any], names: tuple[str, ...]) -> None:
    wire = parse(**given).chat.wire
    assert wire is not None
    assert wire.untranslatable == names


def outcome_of(**given: Any) -> Outcome:
    base: dict[str, Any] = {
        "status": CallStatus.COMPLETED,
        "text": "fine",
        "finish_reason": FinishReason.STOP,
        "model": None,
    }
    base |= {
        "usage": Usage(input_tokens=5, output_tokens=2, cache_read_tokens=3, cache_write_tokens=1),
        "cost_micro_usd": MicroDollars(9),
    }
    return Outcome(**{"id": nobody(), **base, "upstream_model": None, "attempts": (), "ended_at": NOW, **given})


def events_of(data: bytes) -> list[Any]:
    events = data.removesuffix(DONE).decode().split("\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in events if event]


@pytest.mark.parametrize("reason", FinishReason)
def test_a_completion_is_what_the_sdk_expects(reason: FinishReason) -> None:
    body = OpenAIWriter(parse(), nobody()).whole(outcome_of(finish_reason=reason), "fast-2026")
    read = ChatCompletion.model_validate_json(dumps(body), strict=True)
    assert (read.model, read.choices[0].message.content, read.created) == ("fast-2026", "fine", int(NOW.timestamp()))
    assert read.usage is not None
    assert (read.usage.prompt_tokens, read.usage.completion_tokens, read.usage.total_tokens) == (5, 2, 7)
    assert read.usage.prompt_tokens_details is not None
    assert read.usage.prompt_tokens_details.cached_tokens == 3
    assert read.usage.prompt_tokens_details.cache_write_tokens == 1


@pytest.mark.parametrize("reason", FinishReason)
def test_chunks_are_what_the_sdk_expects(reason: FinishReason) -> None:
    writer = OpenAIWriter(parse(stream=True), nobody())
    first = writer.first("fast-2026", 7)
    data = (
        first
        + writer.delta(TextDelta("fi"))
        + writer.delta(TextDelta("ne\n\u2028"))
        + writer.last(outcome_of(finish_reason=reason))
    )
    assert data.endswith(DONE)
    chunks = [ChatCompletionChunk.model_validate_json(json.dumps(each), strict=True) for each in events_of(data)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "fine\n\u2028"
    assert (chunks[0].choices[0].delta.role, chunks[-1].choices[0].delta.content) == ("assistant", None)
    assert chunks[-1].choices[0].finish_reason is not None
    assert {(chunk.id, chunk.model, chunk.created) for chunk in chunks} == {
        (chunks[0].id, "fast-2026", chunks[0].created)
    }
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_in_a_chunk_of_its_own_where_it_was_asked_for() -> None:
    writer = OpenAIWriter(parse(stream=True, stream_options={"include_usage": True}), nobody())
    *others, end = events_of(writer.delta(TextDelta("fine")) + writer.last(outcome_of()))
    assert [chunk["usage"] for chunk in others] == [None] * 3
    last = ChatCompletionChunk.model_validate_json(json.dumps(end), strict=True)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 7


def test_an_error_in_mid_stream_is_an_object_that_the_sdk_raises() -> None:
    error = ProvidersFailed("The connection was lost.")
    data = OpenAIWriter(parse(stream=True), nobody()).error(error_body(error, Dialect.OPENAI, "req-1"))
    assert events_of(data)[0]["error"]["message"] == "The connection was lost."
    assert not data.startswith(b"event:")


def test_prompt_tokens_include_cached_ones() -> None:
    body = usage_body(Usage(input_tokens=10, output_tokens=1, cache_read_tokens=4, cache_write_tokens=2))
    assert body["prompt_tokens"] == 10
