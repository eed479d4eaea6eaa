"""What the stock OpenAI client sees when something goes wrong, and what that costs."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)

from tests.sdk.conftest import Scene, eventually
from tests.support.upstream import (
    Answer,
    CutAfter,
    ErrorEvent,
    Fail,
    Garbage,
    Hang,
    MalformedChunk,
    ResetBeforeAnswer,
    Usage,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = ("gpt-4o", "claude-sonnet-5", "gemini-2.5-flash")
"""One relayed, one for each SDK that translates."""
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
WHOLE_OR_STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


async def text_of(stream: AsyncIterator[Any], heard: list[str]) -> None:
    """Listen to the end, remembering what came."""
    async for chunk in stream:
        heard.append(chunk.choices[0].delta.content or "")


@WHOLE_OR_STREAMED
async def test_an_unknown_key_is_an_authentication_error(scene: Scene, stream: bool) -> None:
    client = await scene.openai(api_key="sk-gw-nobody-has-this-key-0123456789abcdef")
    with pytest.raises(AuthenticationError) as refused:
        await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=stream)
    assert refused.value.code == "invalid_api_key"
    assert refused.value.request_id
    assert len(scene.sent) == 1


@WHOLE_OR_STREAMED
async def test_an_unknown_model_is_not_found(scene: Scene, stream: bool) -> None:
    client = await scene.openai()
    with pytest.raises(NotFoundError) as refused:
        await client.chat.completions.create(model="gpt-99", messages=HELLO, stream=stream)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert "gpt-99" in refused.value.message
    with pytest.raises(NotFoundError):
        await client.models.retrieve("gpt-99")


async def test_a_model_outside_the_keys_scope_is_denied(scene: Scene) -> None:
    client = await scene.openai(await scene.person(models=["gpt-4o"]))
    with pytest.raises(PermissionDeniedError) as refused:
        await client.chat.completions.create(model="claude-sonnet-5", messages=HELLO)
    assert refused.value.param == "model"
    assert len(scene.sent) == 1


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("temperature", {"temperature": 3}),
        ("max_tokens", {"max_tokens": 0}),
        ("n", {"n": 0}),
        ("messages", {"messages": []}),
        ("messages[0].role", {"messages": [{"role": "poet", "content": "x"}]}),
        ("messages[0].content", {"messages": [{"role": "user"}]}),
        ("stop", {"stop": 5}),
    ],
)
async def test_a_wrong_field_is_a_bad_request_that_names_it(scene: Scene, param: str, fields: dict[str, Any]) -> None:
    client = await scene.openai()
    body: dict[str, Any] = {"messages": HELLO, **fields}
    with pytest.raises(BadRequestError) as refused:
        await client.chat.completions.create(model="gpt-4o", **body)
    assert (refused.value.param, refused.value.type) == (param, "invalid_request_error")
    assert len(scene.sent) == 1
    assert scene.upstream.requests == []


@WHOLE_OR_STREAMED
async def test_an_exhausted_quota_is_a_rate_limit_error_after_exactly_one_request(scene: Scene, stream: bool) -> None:
    person = await scene.person(credit=20)
    client = await scene.openai(person)
    with pytest.raises(RateLimitError) as refused:
        await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=stream)
    assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
    assert len(scene.sent) == 1
    told = refused.value.body["details"]
    assert (told["scope"], told["unit"], told["limit"], told["used"], told["held"]) == ("user", "tokens", 20, 0, 0)
    assert await scene.standing(person) == (20, 0)
    assert scene.upstream.requests == []


@WHOLE_OR_STREAMED
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("behaviour", [Fail(status=500), Fail(status=401), Garbage()], ids=["500", "401", "garbage"])
async def test_a_failing_provider_is_a_502_that_costs_nothing(
    scene: Scene, model: str, behaviour: Any, stream: bool
) -> None:
    scene.upstream.always(behaviour)
    person = await scene.person(credit=50_000)
    client = await scene.openai(person, max_retries=0)
    with pytest.raises(InternalServerError) as failed:
        await client.chat.completions.create(model=model, messages=HELLO, stream=stream, max_tokens=50)
    assert failed.value.status_code == 502
    assert failed.value.type == "api_error"
    assert "secret" not in str(failed.value.body)
    assert await scene.standing(person) == (50_000, 0)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [True])
async def test_a_provider_that_times_out_is_a_504(scene: Scene, model: str, stream: bool) -> None:
    scene.upstream.always(Fail(status=504))
    client = await scene.openai(max_retries=0)
    with pytest.raises(APIStatusError) as failed:
        await client.chat.completions.create(model=model, messages=HELLO, stream=stream)
    assert (failed.value.status_code, failed.value.code) == (504, "provider_timeout")


@pytest.mark.parametrize("model", MODELS)
async def test_a_connection_dropped_before_the_answer_is_tried_again(scene: Scene, model: str) -> None:
    scene.upstream.script(ResetBeforeAnswer())
    client = await scene.openai()
    answered = await client.chat.completions.with_raw_response.create(model=model, messages=HELLO)
    assert answered.parse().choices[0].message.content == "echo: Hello there"
    assert answered.headers["x-gateway-attempts"] == "2"
    assert (len(scene.sent), len(scene.upstream.requests)) == (1, 2)


async def test_the_clients_own_retry_gets_the_answer(scene: Scene) -> None:
    scene.upstream.script(Fail(status=503))
    client = await scene.openai(max_retries=1)
    completion = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert completion.choices[0].message.content == "echo: Hello there"
    assert len(scene.sent) == 2


async def test_a_providers_complaint_about_the_body_is_told_to_the_caller(scene: Scene) -> None:
    scene.upstream.always(Fail(status=400, message="logit_bias is not for this model"))
    client = await scene.openai()
    with pytest.raises(BadRequestError) as refused:
        await client.chat.completions.create(model="gpt-4o", messages=HELLO, logit_bias={"1": 2})
    assert "logit_bias is not for this model" in refused.value.message
    assert len(scene.upstream.requests) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_openais_own_name_of_a_fault_and_its_field_are_told_to_its_caller(scene: Scene, stream: bool) -> None:
    error = {"message": "Invalid schema.", "param": "response_format", "code": "invalid_json_schema", "type": "x"}
    scene.upstream.script(Fail(status=400, body={"error": error}))
    client = await scene.openai()
    with pytest.raises(BadRequestError) as refused:
        await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=stream)
    assert (refused.value.code, refused.value.param) == ("invalid_json_schema", "response_format")
    scene.upstream.script(Fail(status=400, body={"error": {**error, "code": 400, "param": "https://10.0.0.1/v1"}}))
    with pytest.raises(BadRequestError) as refused:
        await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=stream)
    assert (refused.value.code, refused.value.param) == ("invalid_request", None)


@pytest.mark.parametrize("model", MODELS)
async def test_a_prompt_too_long_is_known_by_its_code_whoever_says_so(scene: Scene, model: str) -> None:
    scene.upstream.always(Fail(status=400, message="prompt is too long: 9 tokens > 8 maximum"))
    client = await scene.openai()
    with pytest.raises(BadRequestError) as refused:
        await client.chat.completions.create(model=model, messages=HELLO)
    assert refused.value.code == "context_length_exceeded"


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
    client = await scene.openai(person)
    heard: list[str] = []
    stream = await client.chat.completions.create(model=model, messages=HELLO, stream=True, max_tokens=500)
    with pytest.raises(APIError) as broken:
        await text_of(stream, heard)
    assert "".join(heard) == "one two "
    assert broken.value.type == "api_error"
    assert len(scene.sent) == 1
    spent = await scene.settled(person, 50_000)
    assert 2 <= spent < 20


@pytest.mark.parametrize("model", MODELS)
async def test_hanging_up_stops_the_upstream_and_pays_for_what_came(scene: Scene, model: str) -> None:
    gate = asyncio.Event()
    scene.upstream.always(Answer(text="word " * 400, gate=gate, gate_after=3))
    person = await scene.person(credit=50_000)
    client = await scene.openai(person)
    stream = await client.chat.completions.create(model=model, messages=HELLO, stream=True, max_tokens=500)
    heard = []
    async for chunk in stream:
        heard.append(chunk.choices[0].delta.content or "")
        if "".join(heard).count("word") == 3:
            break
    await stream.close()
    await scene.upstream.requests[-1].wait_disconnected(1.0)
    spent = await scene.settled(person, 50_000)
    assert 3 <= spent < 30
    entries = (await person.http.get("/api/v1/users/me/tokens/history")).json()["data"]
    assert [(entry["kind"], entry["amount"]) for entry in entries] == [("charge", -spent), ("top_up", 50_000)]


@pytest.mark.parametrize("model", MODELS)
async def test_hanging_up_before_the_first_word_costs_nothing(scene: Scene, model: str) -> None:
    scene.upstream.always(Hang(30))
    person = await scene.person(credit=50_000)
    client = await scene.openai(person)
    asking = asyncio.create_task(
        client.chat.completions.create(model=model, messages=HELLO, stream=True, max_tokens=500)
    )
    await scene.upstream.wait_in_flight(1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await scene.upstream.requests[-1].wait_disconnected(1.0)

    async def is_released() -> bool:
        return await scene.standing(person) == (50_000, 0)

    await eventually(is_released)


@pytest.mark.parametrize("model", MODELS)
async def test_hanging_up_on_a_whole_answer_is_no_way_round_paying_for_it(scene: Scene, model: str) -> None:
    gate = asyncio.Event()
    scene.upstream.always(Answer(text="Good day.", usage=Usage(input=10, output=3), gate=gate))
    person = await scene.person(credit=50_000)
    client = await scene.openai(person)
    asking = asyncio.create_task(client.chat.completions.create(model=model, messages=HELLO, max_tokens=500))
    await scene.upstream.wait_in_flight(1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    gate.set()

    async def is_paid() -> bool:
        return await scene.standing(person) == (50_000 - 13, 0)

    await eventually(is_paid)


async def test_many_clients_at_once_never_overspend(scene: Scene) -> None:
    scene.upstream.always(Answer(text="ok", delay_s=0.05))
    person = await scene.person(credit=1_000)
    client: AsyncOpenAI = await scene.openai(person)

    async def spend() -> int:
        try:
            done = await client.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=100)
        except RateLimitError:
            return 0
        assert done.usage is not None
        return done.usage.total_tokens

    spent = await asyncio.gather(*(spend() for _ in range(30)))
    assert 0 in spent
    assert any(spent)
    assert await scene.standing(person) == (1_000 - sum(spent), 0)
    assert len(scene.sent) == 30
