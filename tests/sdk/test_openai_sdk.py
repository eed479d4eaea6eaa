"""The stock OpenAI client talks to any model behind the gateway."""

import asyncio
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from tests.sdk.conftest import OPENROUTER_MODEL, Scene
from tests.support.upstream import Answer, ToolCall, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = ("gpt-4o", "claude-sonnet-5", "gemini-2.5-flash", OPENROUTER_MODEL)
TRANSLATED = ("claude-sonnet-5", "gemini-2.5-flash")
HELLO: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
UPLOADED = {"type": "file", "file": {"file_id": "file-123"}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
async def test_an_answer_comes_from_every_model(scene: Scene, model: str, strict: bool) -> None:
    scene.upstream.always(Answer(text="Good day.", usage=Usage(input=11, output=3, cached=4)))
    client = await scene.openai(_strict_response_validation=strict)
    completion = await client.chat.completions.create(model=model, messages=HELLO)
    assert completion.object == "chat.completion"
    assert completion.id.startswith("chatcmpl-")
    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].message.content == "Good day."
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == model
    usage = completion.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (11, 3, 14)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 4
    assert completion._request_id


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
async def test_a_stream_comes_from_every_model_without_usage_that_was_not_asked_for(
    scene: Scene, model: str, strict: bool
) -> None:
    scene.upstream.always(Answer(chunks=("Good ", "day", "."), usage=Usage(input=11, output=3)))
    client = await scene.openai(_strict_response_validation=strict)
    stream = await client.chat.completions.create(model=model, messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(len(chunk.choices) == 1 for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Good day."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {model}


@pytest.mark.parametrize("model", MODELS)
async def test_the_last_chunk_carries_usage_when_it_was_asked_for(scene: Scene, model: str) -> None:
    scene.upstream.always(Answer(chunks=("Good ", "day."), usage=Usage(input=11, output=3)))
    client = await scene.openai(_strict_response_validation=True)
    stream = await client.chat.completions.create(
        model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (11, 3)
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize("model", MODELS)
async def test_the_stream_helper_puts_the_answer_together(scene: Scene, model: str) -> None:
    scene.upstream.always(Answer(chunks=("Good ", "day."), usage=Usage(input=11, output=3)))
    client = await scene.openai()
    async with client.chat.completions.stream(
        model=model, messages=HELLO, stream_options={"include_usage": True}
    ) as stream:
        deltas = [event.delta async for event in stream if event.type == "content.delta"]
        completion = await stream.get_final_completion()
    assert [delta for delta in deltas if delta] == ["Good ", "day."]
    assert completion.choices[0].message.content == "Good day."
    assert completion.usage is not None
    assert completion.usage.total_tokens == 14


@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet-5"])
async def test_the_synchronous_client_talks_and_streams(scene: Scene, model: str) -> None:
    scene.upstream.always(Answer(text="Good day."))
    person = await scene.person()

    def talk() -> tuple[str | None, str]:
        with OpenAI(base_url=f"{scene.gateway.url}/v1", api_key=person.secret) as client:
            whole = client.chat.completions.create(model=model, messages=HELLO)
            with client.chat.completions.create(model=model, messages=HELLO, stream=True) as stream:
                streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            return whole.choices[0].message.content, streamed

    assert await asyncio.to_thread(talk) == ("Good day.", "Good day.")


async def test_a_relayed_body_reaches_openai_with_every_field_it_has(scene: Scene) -> None:
    client = await scene.openai()
    given: dict[str, Any] = {
        "temperature": 0.3,
        "top_p": 0.9,
        "stop": ["END"],
        "n": 2,
        "presence_penalty": 0.1,
        "frequency_penalty": -0.1,
        "seed": 7,
        "logprobs": True,
        "max_completion_tokens": 50,
        "metadata": {"team": "blue"},
        "prompt_cache_key": "abc",
        "service_tier": "auto",
        "response_format": {"type": "json_object"},
    }
    completion = await client.chat.completions.create(
        model="gpt-4o", messages=HELLO, extra_body={"x_tomorrows_field": {"deep": [1, None]}}, **given
    )
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert completion.choices[0].logprobs is not None
    sent = scene.upstream.requests[-1].json
    assert sent == {"model": "gpt-4o", "messages": HELLO, "x_tomorrows_field": {"deep": [1, None]}, **given}


async def test_tools_and_images_are_relayed_unharmed_to_an_openai_upstream(scene: Scene) -> None:
    call = ToolCall(name="weather", arguments={"city": "Malmö"}, id="call_1")
    scene.upstream.always(Answer(tool_calls=(call,)))
    client = await scene.openai(_strict_response_validation=True)
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "Where is this, and how warm?"}, PICTURE]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_0", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "call_0", "content": "which city?"},
    ]
    tools: list[Any] = [WEATHER, {"type": "custom", "custom": {"name": "code", "format": {"type": "text"}}}]
    completion = await client.chat.completions.create(model="gpt-4o", messages=messages, tools=tools)
    made = completion.choices[0].message.tool_calls
    assert made is not None
    assert made[0].type == "function"
    assert (made[0].id, made[0].function.name, made[0].function.arguments) == ("call_1", "weather", '{"city":"Malmö"}')
    assert completion.choices[0].finish_reason == "tool_calls"
    sent = scene.upstream.requests[-1].json
    assert (sent["messages"], sent["tools"]) == (messages, tools)


async def test_streamed_tool_calls_are_put_together_by_the_helper(scene: Scene) -> None:
    scene.upstream.always(Answer(tool_calls=(ToolCall(name="weather", arguments={"city": "Oslo"}),)))
    client = await scene.openai()
    async with client.chat.completions.stream(model="gpt-4o", messages=HELLO, tools=[WEATHER]) as stream:  # type: ignore[list-item]
        completion = await stream.get_final_completion()
    made = completion.choices[0].message.tool_calls
    assert made is not None
    assert (made[0].function.name, made[0].function.arguments) == ("weather", '{"city":"Oslo"}')


@pytest.mark.parametrize("model", TRANSLATED)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("file", {"messages": [{"role": "user", "content": [UPLOADED]}]}),
        ("audio", {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}),
        ("of_the_future", {"messages": [{"role": "user", "content": [{"type": "of_the_future"}]}]}),
    ],
)
async def test_what_cannot_be_translated_is_refused_by_name(
    scene: Scene, model: str, stream: bool, name: str, more: dict[str, Any]
) -> None:
    client = await scene.openai()
    body: dict[str, Any] = {"messages": HELLO, **more}
    with pytest.raises(BadRequestError) as refused:
        await client.chat.completions.create(model=model, stream=stream, **body)
    assert f"cannot be translated for the model {model}: {name};" in refused.value.message
    assert refused.value.type == "invalid_request_error"
    assert len(scene.sent) == 1
    assert scene.upstream.requests == []


@pytest.mark.parametrize("model", TRANSLATED)
async def test_several_answers_at_once_are_refused_where_they_cannot_be_had(scene: Scene, model: str) -> None:
    client = await scene.openai()
    with pytest.raises(BadRequestError, match="one answer at a time"):
        await client.chat.completions.create(model=model, messages=HELLO, n=2)
    assert scene.upstream.requests == []


async def test_sampling_is_translated_for_a_model_that_knows_it(scene: Scene) -> None:
    client = await scene.openai()
    await client.chat.completions.create(
        model="claude-3-opus", messages=HELLO, temperature=0.5, top_p=0.8, stop=["END"], max_tokens=77
    )
    sent = scene.upstream.requests[-1].json
    assert (sent["temperature"], sent["top_p"]) == (0.5, 0.8)
    assert (sent["stop_sequences"], sent["max_tokens"], sent["system"]) == (["END"], 77, "Be brief.")
    await client.chat.completions.create(
        model="gemini-2.5-flash", messages=HELLO, temperature=0.5, stop="END", max_completion_tokens=77, seed=3
    )
    config = scene.upstream.requests[-1].json["generationConfig"]
    assert (config["temperature"], config["maxOutputTokens"], config["seed"]) == (0.5, 77, 3)
    assert config["stopSequences"] == ["END"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_dropped_parameters_are_disclosed_in_a_header(scene: Scene, stream: bool) -> None:
    client = await scene.openai()
    answered = await client.chat.completions.with_raw_response.create(
        model="claude-sonnet-5", messages=HELLO, stream=stream, temperature=0.5, logprobs=True, extra_body={"novel": 1}
    )
    dropped = answered.headers["x-gateway-dropped-params"].split(",")
    assert sorted(dropped) == ["logprobs", "novel", "temperature"]
    assert answered.headers["x-gateway-model"] == "claude-sonnet-5"
    assert answered.headers["x-gateway-attempts"] == "1"
    relayed = await client.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=HELLO, stream=stream, temperature=0.5, logprobs=True
    )
    assert "x-gateway-dropped-params" not in relayed.headers
    for each in (answered, relayed):
        if stream:
            async for _ in each.parse():
                pass


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", MODELS)
async def test_every_answer_is_charged_to_the_token(scene: Scene, model: str, stream: bool) -> None:
    scene.upstream.always(Answer(text="Good day.", usage=Usage(input=11, output=3)))
    person = await scene.person(credit=50_000)
    client = await scene.openai(person)
    answered = await client.chat.completions.create(model=model, messages=HELLO, stream=stream, max_tokens=100)
    if stream:
        async for _ in answered:
            pass
    assert await scene.standing(person) == (50_000 - 14, 0)


async def test_an_answer_is_capped_by_what_is_left(scene: Scene) -> None:
    scene.upstream.always(Answer(text="word " * 500))
    person = await scene.person(credit=200)
    client = await scene.openai(person)
    completion = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert completion.choices[0].finish_reason == "length"
    balance, held = await scene.standing(person)
    assert 0 <= balance < 200
    assert held == 0
    assert scene.upstream.requests[-1].json["max_completion_tokens"] < 200


async def test_models_are_listed_and_retrieved_by_names_with_slashes(scene: Scene) -> None:
    client = await scene.openai(_strict_response_validation=True)
    listed = {model.id async for model in client.models.list()}
    assert {*MODELS, "smollm2-135m"} <= listed
    for name in ("gpt-4o", OPENROUTER_MODEL):
        model = await client.models.retrieve(name)
        assert (model.id, model.object) == (name, "model")
    assert model.owned_by == "openrouter"


async def test_a_scoped_key_lists_its_models_only(scene: Scene) -> None:
    client = await scene.openai(await scene.person(models=["gpt-4o"]))
    assert [model.id async for model in client.models.list()] == ["gpt-4o"]
