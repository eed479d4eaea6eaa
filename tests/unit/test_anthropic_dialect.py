"""Anthropic messages: bodies read, answers written as the stock SDK reads them."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter
from starlette.datastructures import Headers

from src.api.dialects.anthropic.reply import AnthropicWriter, usage_body
from src.api.dialects.anthropic.request import parse_messages
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
EVENTS: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
ABSURD_NUMBERS = ["1", True, [], {}, float("nan"), float("inf"), -0.5, pytest.param(10**400, id="huge")]


def parse(headers: Mapping[str, str] | None = None, **given: Any) -> ParsedRequest:
    body = {"model": "fast", "max_tokens": 50, "messages": [HELLO], **given}
    return parse_messages({name: value for name, value in body.items() if value is not ...}, headers or {})


def refusal_of(**given: Any) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**given)
    return caught.value.param


def names_of(**given: Any) -> tuple[str, ...]:
    wire = parse(**given).chat.wire
    assert wire is not None
    return wire.untranslatable


def test_the_least_body_is_a_request() -> None:
    parsed = parse()
    assert (parsed.model, parsed.untranslated, parsed.chat.stream) == ("fast", (), False)
    assert parsed.chat.parameters == Parameters(max_output_tokens=50)
    assert parsed.chat.wire is not None
    assert parsed.chat.wire.format is WireFormat.MESSAGES
    assert parsed.chat.wire.untranslatable == ()


def test_unknown_fields_are_tolerated_and_named() -> None:
    body = {"model": "fast", "max_tokens": 5, "messages": [HELLO], "context_management": {"edits": []}, "thinking": {}}
    parsed = parse_messages(body, {})
    assert parsed.chat.wire is not None
    assert parsed.chat.wire.body is body
    assert parsed.untranslated == ("context_management", "thinking")


def test_a_thread_is_refused_in_the_words_that_make_clients_do_without() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(thread={"type": "create"})
    assert (caught.value.param, caught.value.specific_code) == ("thread", "thread_unsupported_request")
    assert parse(thread=None).untranslated == ()


def test_other_models_are_not_the_clients_to_choose() -> None:
    parsed = parse(fallbacks=[{"model": "dear"}])
    assert parsed.chat.wire is not None
    assert parsed.chat.wire.body == {"model": "fast", "max_tokens": 50, "messages": [HELLO]}
    assert parsed.untranslated == ("fallbacks",)


def test_version_and_betas_go_along_and_credentials_do_not() -> None:
    forwarded = {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b", "anthropic-future": "c"}
    kept = {"x-api-key": "sk-gw-1", "anthropic-dangerous-direct-browser-access": "true", "anthropic-workspace-id": "w"}
    wire = parse({**forwarded, **kept}).chat.wire
    assert wire is not None
    assert wire.headers == forwarded


def test_betas_of_several_lines_are_one_list() -> None:
    lines = [(b"anthropic-beta", b"a,b"), (b"anthropic-beta", b"c"), (b"anthropic-version", b"v")] * 2
    wire = parse(Headers(raw=lines)).chat.wire
    assert wire is not None
    assert wire.headers == {"anthropic-beta": "a,b,c", "anthropic-version": "v"}


@pytest.mark.parametrize(
    ("system", "heard"),
    [
        (..., []),
        (None, []),
        ("", []),
        ([], []),
        ("Be kind.", ["Be kind."]),
        ([{"type": "text", "text": "Be", "cache_control": {}}, {"type": "text", "text": "kind."}], ["Be\nkind."]),
    ],
)
def test_the_system_prompt_is_text_or_blocks(system: Any, heard: list[str]) -> None:
    messages = parse(system=system).chat.messages
    assert [message.text for message in messages if message.role is ChatRole.SYSTEM] == heard


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_every_role_is_heard(role: str) -> None:
    (message,) = parse(messages=[{"role": role, "content": "hello"}]).chat.messages
    assert (message.role.value, message.text) == (role, "hello")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "one\ntwo"),
        ([{"type": "image", "source": {}}], ""),
        ([{"type": "of_the_future", "text": 5}], ""),
        ([], ""),
    ],
)
def test_content_is_text_or_blocks(content: Any, text: str) -> None:
    assert parse(messages=[{"role": "user", "content": content}]).chat.messages[0].text == text


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"model": ...}, "model"),
        ({"model": 5}, "model"),
        ({"messages": ...}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [5]}, "messages[0]"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": {}, "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {"type": "text"}}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["hello"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": 5}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"system": 5}, "system"),
        ({"system": [5]}, "system[0]"),
        ({"max_tokens": ...}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"stream": "true"}, "stream"),
        ({"stop_sequences": [None]}, "stop_sequences"),
        ({"stop_sequences": 5}, "stop_sequences"),
        ({"top_k": 1.5}, "top_k"),
    ],
)
def test_what_is_wrong_is_refused_by_name(given: dict[str, Any], param: str) -> None:
    assert refusal_of(**given) == param


@pytest.mark.parametrize("name", ["max_tokens", "top_k", "temperature", "top_p"])
@pytest.mark.parametrize("value", ABSURD_NUMBERS)
def test_absurd_numbers_are_refused(name: str, value: Any) -> None:
    assert refusal_of(**{name: value}) == name


def test_no_output_at_all_may_be_asked_for() -> None:
    assert parse(max_tokens=0).chat.parameters.max_output_tokens == 0


def test_parameters_are_read() -> None:
    parsed = parse(temperature=0, top_p=1, top_k=5, stop_sequences=["a"], stream=True)
    expected = Parameters(max_output_tokens=50, temperature=0.0, top_p=1.0, top_k=5, stop=("a",))
    assert (parsed.chat.parameters, parsed.chat.stream) == (expected, True)


def outcome_of(**given: Any) -> Outcome:
    base = {"status": CallStatus.COMPLETED, "text": "fine", "finish_reason": FinishReason.STOP, "model": None}
    base |= {"usage": Usage(input_tokens=10, output_tokens=2, cache_read_tokens=3, cache_write_tokens=4)}
    base |= {"cost_micro_usd": MicroDollars(9), "upstream_model": None, "attempts": (), "ended_at": NOW}
    return Outcome(**{"id": nobody(), **base, **given})


@pytest.mark.parametrize("reason", FinishReason)
def test_a_message_is_what_the_sdk_expects(reason: FinishReason) -> None:
    body = AnthropicWriter(parse(), nobody()).whole(outcome_of(finish_reason=reason), "fast-2026")
    read = Message.model_validate_json(dumps(body), strict=True)
    assert (read.model, read.content[0].type, read.content[0].text) == ("fast-2026", "text", "fine")
    assert read.stop_reason is not None
    assert (read.usage.input_tokens, read.usage.output_tokens) == (3, 2)


def test_input_tokens_leave_out_what_the_cache_read_and_wrote() -> None:
    body = usage_body(outcome_of().usage)
    parts = (body["input_tokens"], body["cache_read_input_tokens"], body["cache_creation_input_tokens"])
    assert parts == (3, 3, 4)


@pytest.mark.parametrize("reason", FinishReason)
def test_a_stream_is_what_the_sdk_expects(reason: FinishReason) -> None:
    writer = AnthropicWriter(parse(stream=True), nobody())
    first = writer.first("fast-2026", 7)
    data = (
        first
        + writer.delta(TextDelta("fi"))
        + writer.delta(TextDelta("ne\n\n"))
        + writer.last(outcome_of(finish_reason=reason))
    )
    events = []
    for block in data.decode().removesuffix("\n\n").split("\n\n"):
        name, payload = block.split("\n")
        body = json.loads(payload.removeprefix("data: "))
        assert name == f"event: {body['type']}"
        if body["type"] != "ping":
            events.append(EVENTS.validate_json(json.dumps(body), strict=True))
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert "".join(event.delta.text for event in events[2:4]) == "fine\n\n"
    assert events[0].message.usage.input_tokens == 7
    assert events[5].usage.output_tokens == 2


def test_an_error_in_mid_stream_has_the_name_that_the_sdk_raises_on() -> None:
    error = ProvidersFailed("The connection was lost.")
    data = AnthropicWriter(parse(stream=True), nobody()).error(error_body(error, Dialect.ANTHROPIC, "req-1"))
    assert data.startswith(b"event: error\ndata: ")
    assert json.loads(data.split(b"data: ")[1])["error"]["type"] == "api_error"
