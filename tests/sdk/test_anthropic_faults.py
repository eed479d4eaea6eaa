"""What the stock Anthropic client sees when something goes wrong, and what that costs."""

import asyncio
from typing import Any

import pytest
from anthropic import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
)

from tests.sdk.conftest import Scene
from tests.support.upstream import Answer, CutAfter, ErrorEvent, Fail, MalformedChunk

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = ("claude-sonnet-5", "gpt-4o", "gemini-2.5-flash")
"""One relayed, one for each SDK that translates."""
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
WHOLE_OR_STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@WHOLE_OR_STREAMED
async def test_an_unknown_key_is_an_authentication_error(scene: Scene, stream: bool) -> None:
    client = await scene.anthropic(api_key="sk-gw-nobody-has-this-key-0123456789abcdef")
    with pytest.raises(AuthenticationError) as refused:
        await client.messages.create(model="claude-sonnet-5", max_tokens=50, messages=HELLO, stream=stream)
    assert refused.value.type == "authentication_error"
    assert refused.value.request_id
    assert len(scene.sent) == 1


@WHOLE_OR_STREAMED
async def test_an_unknown_model_is_not_found(scene: Scene, stream: bool) -> None:
    client = await scene.anthropic()
    with pytest.raises(NotFoundError) as refused:
        await client.messages.create(model="claude-99", max_tokens=50, messages=HELLO, stream=stream)
    assert refused.value.type == "not_found_error"
    assert "claude-99" in refused.value.message


async def test_a_model_outside_the_keys_scope_is_denied(scene: Scene) -> None:
    client = await scene.anthropic(await scene.person(models=["claude-sonnet-5"]))
    with pytest.raises(PermissionDeniedError) as refused:
        await client.messages.create(model="gpt-4o", max_tokens=50, messages=HELLO)
    assert refused.value.type == "permission_error"
    assert [model.id async for model in client.models.list()] == ["claude-sonnet-5"]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("max_tokens", {"max_tokens": -1}),
        ("messages", {"messages": []}),
        ("messages[0].role", {"messages": [{"role": "poet", "content": "x"}]}),
        ("stop_sequences", {"stop_sequences": [1]}),
        ("temperature", {"extra_body": {"temperature": "warm"}}),
    ],
)
async def test_a_wrong_field_is_a_bad_request_that_names_it(scene: Scene, name: str, fields: dict[str, Any]) -> None:
    client = await scene.anthropic()
    body: dict[str, Any] = {"max_tokens": 50, "messages": HELLO, **fields}
    with pytest.raises(BadRequestError) as refused:
        await client.messages.create(model="claude-sonnet-5", **body)
    assert name in refused.value.message
    assert refused.value.type == "invalid_request_error"
    assert len(scene.sent) == 1
    assert scene.upstream.requests == []


@WHOLE_OR_STREAMED
async def test_an_exhausted_quota_asks_for_payment_after_exactly_one_request(scene: Scene, stream: bool) -> None:
    person = await scene.person(credit=20)
    client = await scene.anthropic(person)
    with pytest.raises(PaymentRequiredError) as refused:
        await client.messages.create(model="claude-sonnet-5", max_tokens=50, messages=HELLO, stream=stream)
    assert refused.value.type == "billing_error"
    assert len(scene.sent) == 1
    assert isinstance(refused.value.body, dict)
    told = refused.value.body["error"]["details"]
    assert (told["error_code"], told["scope"], told["limit"]) == ("insufficient_quota", "user", 20)
    assert await scene.standing(person) == (20, 0)
    assert scene.upstream.requests == []


@WHOLE_OR_STREAMED
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("status", "told"), [(529, 502), (504, 504)])
async def test_a_failing_provider_costs_nothing(scene: Scene, model: str, status: int, told: int, stream: bool) -> None:
    scene.upstream.always(Fail(status=status))
    person = await scene.person(credit=50_000)
    client = await scene.anthropic(person, max_retries=0)
    with pytest.raises(APIStatusError) as failed:
        await client.messages.create(model=model, max_tokens=50, messages=HELLO, stream=stream)
    assert failed.value.status_code == told
    assert failed.value.type == ("timeout_error" if told == 504 else "api_error")
    assert await scene.standing(person) == (50_000, 0)


async def test_a_providers_complaint_about_the_body_is_told_to_the_caller(scene: Scene) -> None:
    scene.upstream.always(Fail(status=400, message="thinking.budget_tokens: too small"))
    client = await scene.anthropic()
    with pytest.raises(BadRequestError) as refused:
        await client.messages.create(model="claude-sonnet-5", max_tokens=50, messages=HELLO)
    assert "thinking.budget_tokens: too small" in refused.value.message
    assert len(scene.upstream.requests) == 1


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "behaviour",
    [
        CutAfter(chunks=2, answer=Answer(text="one two three four five six")),
        ErrorEvent(after=2, answer=Answer(text="one two three four five six")),
        MalformedChunk(after=2, answer=Answer(text="one two three four five six")),
    ],
    ids=["cut", "error", "malformed"],
)
async def test_a_stream_that_breaks_is_raised_and_charged_for_what_came(
    scene: Scene, model: str, behaviour: Any
) -> None:
    scene.upstream.always(behaviour)
    person = await scene.person(credit=50_000)
    client = await scene.anthropic(person)
    heard: list[str] = []

    async def listen() -> None:
        async with client.messages.stream(model=model, max_tokens=500, messages=HELLO) as stream:
            async for text in stream.text_stream:
                heard.append(text)

    with pytest.raises(APIStatusError) as broken:
        await listen()
    assert "".join(heard) == "one two "
    assert broken.value.type == "api_error"
    assert len(scene.sent) == 1
    assert 2 <= await scene.settled(person, 50_000) < 40


@pytest.mark.parametrize("model", MODELS)
async def test_hanging_up_stops_the_upstream_and_pays_for_what_came(scene: Scene, model: str) -> None:
    gate = asyncio.Event()
    scene.upstream.always(Answer(text="word " * 400, gate=gate, gate_after=3))
    person = await scene.person(credit=50_000)
    client = await scene.anthropic(person)
    heard: list[str] = []
    async with client.messages.stream(model=model, max_tokens=500, messages=HELLO) as stream:
        async for text in stream.text_stream:
            heard.append(text)
            if "".join(heard).count("word") == 3:
                break
    await scene.upstream.requests[-1].wait_disconnected(1.0)
    assert 3 <= await scene.settled(person, 50_000) < 40
