"""Bodies of stock clients that are wrong: what we read is a 400 in their dialect, what we do not know is tolerated."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.http.surface import (
    CHAT,
    MESSAGES,
    books_are_right,
    check_answer,
    check_error,
    nothing_changes,
    open_holds,
    send,
)
from tests.support.gateway import RunningGateway
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMPLETIONS_PATH, MESSAGES_PATH = "/v1/chat/completions", "/v1/messages"

NO_COUNT: tuple[Any, ...] = ("5", 1.5, True, [], {}, -1, 10**30, 1e308, 2**64)
NO_NUMBER: tuple[Any, ...] = ("0.5", True, [], {}, -3, 10**30, 1e308, 2**64)
NO_FLAG: tuple[Any, ...] = ("true", 1, 0, [], {})
NO_MODEL: tuple[Any, ...] = (None, 5, True, [], {}, "", "x" * 201)
NO_MESSAGES: tuple[Any, ...] = (
    None,
    [],
    {},
    5,
    "hello",
    [5],
    [None],
    [[]],
    [{}],
    [{"role": "user"}],
    [{"content": "x"}],
    [{"role": "wizard", "content": "x"}],
    [{"role": 5, "content": "x"}],
    [{"role": ["user"], "content": "x"}],
    [{"role": "user", "content": 5}],
    [{"role": "user", "content": {}}],
    [{"role": "user", "content": [5]}],
    [{"role": "user", "content": ["x"]}],
    [{"role": "user", "content": [{}]}],
    [{"role": "user", "content": [{"type": 5}]}],
    [{"role": "user", "content": [{"type": ["text"]}]}],
    [{"role": "user", "content": [{"type": "text"}]}],
    [{"role": "user", "content": [{"type": "text", "text": 5}]}],
    [{"role": "user", "content": "fine"}, {"role": "user", "content": [{"type": "text", "text": ["x"]}]}],
)

OPENAI_FIELDS: dict[str, tuple[Any, ...]] = {
    "model": NO_MODEL,
    "messages": (*NO_MESSAGES, [{"role": "user", "content": None}], [{"role": "user", "content": []}]),
    "stream": NO_FLAG,
    "max_tokens": (*NO_COUNT, 0),
    "max_completion_tokens": (*NO_COUNT, 0),
    "temperature": (*NO_NUMBER, 2.1),
    "top_p": (*NO_NUMBER, 1.1),
    "presence_penalty": NO_NUMBER,
    "frequency_penalty": NO_NUMBER,
    "n": (*NO_COUNT, 0, 129),
    "seed": ("5", 1.5, True, [], 10**30, 2**64),
    "stop": (5, True, {}, [5], ["x"] * 65, [["x"]]),
}
ANTHROPIC_FIELDS: dict[str, tuple[Any, ...]] = {
    "model": NO_MODEL,
    "messages": (*NO_MESSAGES, [{"role": "user", "content": None}]),
    "max_tokens": (*NO_COUNT, None),
    "system": (5, True, {}, [5], ["x"], [{}], [{"type": "text", "text": 5}]),
    "stream": NO_FLAG,
    "temperature": (*NO_NUMBER, 2.1),
    "top_p": (*NO_NUMBER, 1.1),
    "top_k": ("5", 1.5, True, [], -1, 10**30),
    "stop_sequences": (5, True, {}, [5], ["x"] * 65),
}
CASES = [
    pytest.param(path, valid, field, values, id=f"{path} {field}")
    for path, valid, fields in ((COMPLETIONS_PATH, CHAT, OPENAI_FIELDS), (MESSAGES_PATH, MESSAGES, ANTHROPIC_FIELDS))
    for field, values in fields.items()
]


@pytest_asyncio.fixture(loop_scope="module")
async def untouched(shared_gateway: RunningGateway, shared_upstream: Upstream) -> AsyncIterator[RunningGateway]:
    async with nothing_changes(shared_gateway, shared_upstream):
        yield shared_gateway


@pytest.mark.parametrize(("path", "valid", "field", "values"), CASES)
async def test_a_wrong_value_of_a_known_field_is_a_400_that_names_it(
    path: str, valid: dict[str, Any], field: str, values: tuple[Any, ...], untouched: RunningGateway
) -> None:
    for value in values:
        response = await send(untouched.http, "POST", path, {**valid, field: value})
        error = check_error(response, 400)
        assert error["type"] == "invalid_request_error", value
        assert field in error["message"], value
        if path == COMPLETIONS_PATH:
            assert error["param"].startswith(field), value


@pytest.mark.parametrize("name", ["nobody", "gpt-4o ", "GPT-4O", "../x", "a\nb", "x" * 200, "модель"])
async def test_an_unknown_model_is_a_404_as_the_clients_know_it(name: str, untouched: RunningGateway) -> None:
    for stream in (False, True):
        openai = await send(untouched.http, "POST", COMPLETIONS_PATH, {**CHAT, "model": name, "stream": stream})
        error = check_error(openai, 404)
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "model_not_found", "model")
        anthropic = await send(untouched.http, "POST", MESSAGES_PATH, {**MESSAGES, "model": name, "stream": stream})
        assert check_error(anthropic, 404)["type"] == "not_found_error"


ODD_VALUES: tuple[Any, ...] = (5, "x", True, [], [5], {}, {"a": [None]}, 10**30, None)
UNREAD_OPENAI = (
    "stream_options", "metadata", "user", "store", "tools", "tool_choice", "functions", "response_format", "logit_bias",
    "logprobs", "top_logprobs", "modalities", "audio", "prediction", "reasoning_effort", "service_tier", "verbosity",
    "web_search_options", "x_something_new", "", "\u2028",
)  # fmt: skip
UNREAD_ANTHROPIC = (
    "metadata", "tools", "tool_choice", "thinking", "context_management", "container", "mcp_servers", "service_tier",
    "cache_control", "output_config", "speed", "x_something_new", "", "\u2028",
)  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "valid", "names"),
    [(COMPLETIONS_PATH, CHAT, UNREAD_OPENAI), (MESSAGES_PATH, MESSAGES, UNREAD_ANTHROPIC)],
    ids=["openai", "anthropic"],
)
async def test_fields_that_are_the_providers_business_never_break_the_gateway(
    path: str, valid: dict[str, Any], names: tuple[str, ...], stream: bool, shared_gateway: RunningGateway
) -> None:
    """To the provider of the dialect they are forwarded; it may refuse them, or the gateway may with a reason."""
    for name in names:
        for value in ODD_VALUES:
            response = await send(shared_gateway.http, "POST", path, {**valid, "stream": stream, name: value})
            check_answer(response)
            assert response.status_code in (200, 400), f"{name}: {value}: {response.text[:300]}"
            if response.status_code == 400:
                check_error(response, 400)
    assert open_holds(shared_gateway) == 0


@pytest.mark.parametrize("model", ["claude-3-opus", "gemini-2.5-flash"])
async def test_fields_nobody_upstream_understands_are_dropped_and_named(
    model: str, shared_gateway: RunningGateway
) -> None:
    body = {**CHAT, "model": model, "something_new": 1, "another": {"a": 1}, "ü": 1, "a\nb": 1}
    response = await send(shared_gateway.http, "POST", COMPLETIONS_PATH, body)
    assert response.status_code == 200, response.text
    assert response.headers["x-gateway-dropped-params"] == "another,something_new"


async def test_fields_the_gateway_does_not_know_reach_a_provider_that_may(
    shared_gateway: RunningGateway, shared_upstream: Upstream
) -> None:
    response = await send(shared_gateway.http, "POST", COMPLETIONS_PATH, {**CHAT, "x_something_new": {"a": [1]}})
    assert response.status_code == 200
    assert "x-gateway-dropped-params" not in response.headers
    assert shared_upstream.requests[-1].json["x_something_new"] == {"a": [1]}
    response = await send(shared_gateway.http, "POST", MESSAGES_PATH, {**MESSAGES, "x_something_new": 1})
    assert response.status_code == 200
    assert shared_upstream.requests[-1].json["x_something_new"] == 1


ODD_MESSAGES: dict[str, Any] = {
    "empty text": [{"role": "user", "content": ""}],
    "blank text": [{"role": "user", "content": " \n\t "}],
    "only an assistant": [{"role": "assistant", "content": "x"}],
    "two questions": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "unknown fields": [{"role": "user", "content": "x", "mood": {"a": 1}}],
    "emoji and right-to-left": [{"role": "user", "content": "👩‍👩‍👧‍👦 שלום \u202e \ufffe"}],
    "control characters": [{"role": "user", "content": "a\u0001\u001b[31mb\u007f"}],
    "special tokens": [{"role": "user", "content": "<|endoftext|><|im_start|>system"}],
    "empty part": [{"role": "user", "content": [{"type": "text", "text": ""}]}],
    "a thousand messages": [{"role": "user", "content": "x"}] * 1000,
}


@pytest.mark.parametrize("messages", ODD_MESSAGES.values(), ids=ODD_MESSAGES.keys())
@pytest.mark.parametrize("model", ["gpt-4o", "claude-3-opus", "gemini-2.5-flash"])
async def test_odd_messages_are_answered_or_refused_in_every_dialect(
    messages: list[Any], model: str, shared_gateway: RunningGateway
) -> None:
    for path, valid in ((COMPLETIONS_PATH, CHAT), (MESSAGES_PATH, MESSAGES)):
        response = await send(shared_gateway.http, "POST", path, {**valid, "model": model, "messages": messages})
        check_answer(response)
        assert response.status_code in (200, 400), response.text
    assert open_holds(shared_gateway) == 0


async def test_content_types_of_compatible_endpoints_do_not_matter(shared_gateway: RunningGateway) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "x"):
        for path, body in ((COMPLETIONS_PATH, CHAT), (MESSAGES_PATH, MESSAGES)):
            headers = {"content-type": content_type}
            assert (await send(shared_gateway.http, "POST", path, body, **headers)).status_code == 200


async def test_after_all_of_this_the_books_are_right(shared_gateway: RunningGateway) -> None:
    await books_are_right(shared_gateway)
