"""The stock Google client talks to any model behind the gateway."""

import asyncio
from enum import Enum
from typing import Any

import pytest
from google.genai import types
from google.genai.errors import ClientError, ServerError
from pydantic import BaseModel

from src.api import sse
from tests.sdk.conftest import OPENROUTER_MODEL, Scene
from tests.sdk.test_forced_ends import model_in_steps, was_charged
from tests.support.upstream import Answer, ErrorEvent, Fail, Mind, ToolCall, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = ("gemini-2.5-flash", "gpt-4o", "claude-sonnet-5", OPENROUTER_MODEL)
TRANSLATED = MODELS[1:]
EVERY_MODEL = pytest.mark.parametrize("model", MODELS)


def weather(city: str) -> str:
    """How warm it is in a city."""
    return f"7 degrees in {city}"


def now() -> str:
    """What time it is."""
    return "noon"


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Person(BaseModel):
    name: str
    age: int


@EVERY_MODEL
async def test_an_answer_comes_from_every_model(scene: Scene, model: str) -> None:
    scene.upstream.always(Answer(text="Good day.", usage=Usage(input=11, output=3, cached=4)))
    client = await scene.google()
    response = await client.models.generate_content(
        model=model, contents="Hello there", config={"max_output_tokens": 100, "temperature": 0.5}
    )
    assert response.text == "Good day."
    assert (response.model_version, bool(response.response_id)) == (model, True)
    assert response.candidates
    assert response.candidates[0].finish_reason is types.FinishReason.STOP
    usage = response.usage_metadata
    assert usage
    assert (usage.prompt_token_count, usage.candidates_token_count, usage.total_token_count) == (11, 3, 14)
    assert usage.cached_content_token_count == 4


@EVERY_MODEL
async def test_a_stream_comes_from_every_model(scene: Scene, model: str) -> None:
    scene.upstream.always(Answer(chunks=("Good ", "day", "."), usage=Usage(input=11, output=3)))
    client = await scene.google()
    stream = await client.models.generate_content_stream(model=model, contents="Hello there")
    chunks = [chunk async for chunk in stream]
    assert [chunk.text for chunk in chunks if chunk.text] == ["Good ", "day", "."]
    last = chunks[-1]
    assert last.candidates
    assert last.usage_metadata
    assert last.candidates[0].finish_reason is types.FinishReason.STOP
    assert (last.usage_metadata.prompt_token_count, last.usage_metadata.candidates_token_count) == (11, 3)


@EVERY_MODEL
async def test_the_synchronous_client_talks_and_streams(scene: Scene, model: str) -> None:
    scene.upstream.always(Answer(text="Good day."))
    person = await scene.person()

    def talk() -> tuple[str | None, str]:
        client = scene.google_sync(person)
        whole = client.models.generate_content(model=model, contents="Hello")
        streamed = client.models.generate_content_stream(model=model, contents="Hello")
        return whole.text, "".join(chunk.text or "" for chunk in streamed)

    assert await asyncio.to_thread(talk) == ("Good day.", "Good day.")


@EVERY_MODEL
async def test_functions_are_called_by_themselves_and_their_results_come_back(scene: Scene, model: str) -> None:
    scene.upstream.script(Answer(tool_calls=(ToolCall(name="weather", arguments={"city": "Malmö"}),)))
    scene.upstream.always(Mind())
    client = await scene.google()
    response = await client.models.generate_content(
        model=model, contents="How warm is it?", config={"tools": [weather, now]}
    )
    assert response.text is not None
    assert "7 degrees in Malmö" in response.text
    assert len(scene.upstream.requests) == 2


@EVERY_MODEL
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_calls_of_functions_come_whole(scene: Scene, model: str, stream: bool) -> None:
    calls = (
        ToolCall(name="weather", arguments={"city": "Malmö"}),
        ToolCall(name="weather", arguments={"city": "Riga"}),
    )
    scene.upstream.always(Answer(text="Let me see. ", tool_calls=calls))
    client = await scene.google()
    config: Any = {"tools": [weather], "automatic_function_calling": {"disable": True}}
    if stream:
        chunks = [
            c async for c in await client.models.generate_content_stream(model=model, contents="?", config=config)
        ]
    else:
        chunks = [await client.models.generate_content(model=model, contents="?", config=config)]
    found = [call for chunk in chunks for call in chunk.function_calls or ()]
    assert [(call.name, call.args, bool(call.id)) for call in found] == [
        ("weather", {"city": "Malmö"}, True),
        ("weather", {"city": "Riga"}, True),
    ]


@EVERY_MODEL
@pytest.mark.parametrize("name", ["geo.weather", "geo:weather", "w" * 100])
async def test_functions_may_have_names_that_only_google_takes(scene: Scene, model: str, name: str) -> None:
    scene.upstream.always(Mind())
    client = await scene.google()
    declared: Any = {"name": name, "description": "How warm it is.", "parameters": {"type": "OBJECT"}}
    forced: Any = {"function_calling_config": {"mode": "ANY", "allowed_function_names": [name]}}
    config: Any = {"tools": [{"function_declarations": [declared]}], "tool_config": forced}
    chat = client.chats.create(model=model)
    called = (await chat.send_message("please call", config=config)).function_calls
    assert [call.name for call in called or ()] == [name]
    answer = types.Part.from_function_response(name=name, response={"result": "7 degrees"})
    assert "7 degrees" in str((await chat.send_message(answer)).text)


@EVERY_MODEL
async def test_an_answer_has_the_shape_that_was_asked_for(scene: Scene, model: str) -> None:
    scene.upstream.always(Mind())
    client = await scene.google()
    response = await client.models.generate_content(
        model=model,
        contents="Somebody",
        config={"response_mime_type": "application/json", "response_schema": Person},
    )
    assert response.parsed == Person(name="x", age=1)
    asked = await client.models.generate_content(
        model=model,
        contents="Somebody",
        config={"response_mime_type": "application/json", "response_json_schema": Person.model_json_schema()},
    )
    assert asked.parsed == {"name": "x", "age": 1}
    listed = await client.models.generate_content_stream(
        model=model,
        contents="Everybody",
        config={"response_mime_type": "application/json", "response_schema": list[Person]},
    )
    assert "".join([chunk.text or "" async for chunk in listed]) == "[]"
    chosen = await client.models.generate_content(
        model=model, contents="?", config={"response_mime_type": "application/json", "response_schema": Color}
    )
    assert chosen.parsed is Color.RED


@pytest.mark.parametrize("model", TRANSLATED)
async def test_an_answer_may_be_one_of_some_words(scene: Scene, model: str) -> None:
    scene.upstream.always(Mind())
    client = await scene.google()
    config: Any = {"response_mime_type": "text/x.enum", "response_schema": Color}
    chosen = await client.models.generate_content(model=model, contents="?", config=config)
    assert (chosen.text, chosen.parsed) == ("red", Color.RED)
    chunks = await client.models.generate_content_stream(model=model, contents="?", config=config)
    assert "".join([chunk.text or "" async for chunk in chunks]) == "red"


@EVERY_MODEL
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_chat_goes_on_with_thoughts_and_calls(scene: Scene, model: str, stream: bool) -> None:
    scene.upstream.always(Mind())
    client = await scene.google()
    config: Any = {
        "thinking_config": {"thinking_budget": 2048, "include_thoughts": True},
        "tools": [weather],
        "automatic_function_calling": {"disable": True},
        "max_output_tokens": 4000,
    }
    chat = client.chats.create(model=model, config=config)

    async def say(message: Any) -> list[types.GenerateContentResponse]:
        if stream:
            return [chunk async for chunk in await chat.send_message_stream(message)]
        return [await chat.send_message(message)]

    called = [call for chunk in await say("please call") for call in chunk.function_calls or ()]
    assert [call.name for call in called] == ["weather"]
    answer = types.Part.from_function_response(name="weather", response={"result": "7 degrees"})
    told = "".join(chunk.text or "" for chunk in await say(answer))
    assert "7 degrees" in told
    assert "".join(chunk.text or "" for chunk in await say("and then?")) == "echo: and then?"


@pytest.mark.parametrize("model", TRANSLATED)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_newer_model_of_googles_takes_over_in_the_middle_of_a_turn(
    scene: Scene, model: str, stream: bool
) -> None:
    """It refuses calls that nobody signed, and other models sign none."""
    calls = (ToolCall(name="weather", arguments={"city": "Riga"}), ToolCall(name="weather", arguments={"city": "Bern"}))
    scene.upstream.script(Answer(text="Let me see. ", tool_calls=calls))
    scene.upstream.always(Mind())
    client = await scene.google()
    config: Any = {"tools": [weather], "automatic_function_calling": {"disable": True}}
    chat = client.chats.create(model=model, config=config)
    if stream:
        chunks = [chunk async for chunk in await chat.send_message_stream("How warm is it?")]
    else:
        chunks = [await chat.send_message("How warm is it?")]
    called = [call for chunk in chunks for call in chunk.function_calls or ()]
    assert len(called) == 2
    results: Any = [
        types.Part(
            function_response=types.FunctionResponse(id=each.id, name="weather", response={"result": "7 degrees"})
        )
        for each in called
    ]
    history: Any = chat.get_history()
    newer = client.chats.create(model="gemini-3-pro-preview", config=config, history=history)
    assert "7 degrees" in str((await newer.send_message(results)).text)


@EVERY_MODEL
async def test_a_picture_reaches_every_model(scene: Scene, model: str) -> None:
    scene.upstream.always(Mind())
    client = await scene.google()
    picture = types.Part.from_bytes(data=b"\xfb\xff\xfe" * 10, mime_type="image/png")
    response = await client.models.generate_content(model=model, contents=[picture, "What is this?"])
    assert response.text == "image: image/png 30 bytes"


@EVERY_MODEL
async def test_tokens_are_counted(scene: Scene, model: str) -> None:
    client = await scene.google()
    counted = await client.models.count_tokens(model=model, contents="one two three")
    assert counted.total_tokens is not None
    assert counted.total_tokens >= 3


async def test_models_are_listed_in_pages(scene: Scene) -> None:
    client = await scene.google()
    names = [model.name async for model in await client.models.list(config={"page_size": 2})]
    assert {"models/gpt-4o", "models/gemini-2.5-flash", f"models/{OPENROUTER_MODEL}"} <= set(names)
    assert len(names) == len(set(names))
    one = await client.models.get(model=OPENROUTER_MODEL)
    assert (one.name, one.input_token_limit) == (f"models/{OPENROUTER_MODEL}", 100_000)
    assert "generateContent" in (one.supported_actions or ())


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gpt-4o"])
async def test_errors_are_raised_as_google_raises_them(scene: Scene, model: str) -> None:
    client = await scene.google()
    with pytest.raises(ClientError) as refused:
        await client.models.generate_content(model="nobody", contents="Hello")
    assert (refused.value.code, refused.value.status) == (404, "NOT_FOUND")
    bad: Any = {"max_output_tokens": -1}
    with pytest.raises(ClientError) as refused:
        await client.models.generate_content(model=model, contents="Hello", config=bad)
    assert (refused.value.code, refused.value.status) == (400, "INVALID_ARGUMENT")
    assert "generationConfig.maxOutputTokens" in (refused.value.message or "")
    scene.upstream.always(Fail(status=503))
    with pytest.raises(ServerError) as failed:
        await client.models.generate_content(model=model, contents="Hello")
    assert failed.value.status == "UNAVAILABLE"


@EVERY_MODEL
async def test_an_error_in_the_middle_of_a_stream_is_raised(scene: Scene, model: str) -> None:
    scene.upstream.always(ErrorEvent(1, status=503, answer=Answer(chunks=("one ", "two ", "three"))))
    client = await scene.google()
    said: list[str | None] = []

    async def listen() -> None:
        async for chunk in await client.models.generate_content_stream(model=model, contents="Hello"):
            said.append(chunk.text)

    with pytest.raises(ServerError):
        await listen()
    assert said == ["one "]


async def test_who_has_no_tokens_left_is_told_that_the_resource_is_exhausted(scene: Scene) -> None:
    client = await scene.google(await scene.person(credit=1))
    with pytest.raises(ClientError) as refused:
        await client.models.generate_content(model="gpt-4o", contents="Hello")
    assert (refused.value.code, refused.value.status) == (429, "RESOURCE_EXHAUSTED")


async def test_a_relayed_body_reaches_google_with_every_field_it_has(scene: Scene) -> None:
    client = await scene.google(headers={"x-goog-user-project": "mine", "x-goog-of-the-future": "1"})
    await client.models.generate_content(
        model="gemini-2.5-flash",
        contents="Hello",
        config=types.GenerateContentConfig(
            safety_settings=[types.SafetySetting(category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_NONE")],
            tools=[types.Tool(google_search=types.GoogleSearch())],
            http_options=types.HttpOptions(extra_body={"xUnknown": {"a": [1, None]}}),
        ),
    )
    sent = scene.upstream.requests[-1]
    assert sent.path == "/v1beta/models/gemini-2.5-flash:generateContent"
    assert sent.json["safetySettings"] == [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    assert sent.json["tools"] == [{"googleSearch": {}}]
    assert sent.json["xUnknown"] == {"a": [1, None]}
    assert (sent.headers["x-goog-of-the-future"], sent.headers.get("x-goog-user-project")) == ("1", None)
    assert "sk-gw-" not in str(sent.headers)


@pytest.mark.parametrize("model", TRANSLATED)
async def test_what_a_translation_leaves_out_is_told(scene: Scene, model: str) -> None:
    client = await scene.google()
    ran = [
        types.Part.from_executable_code(code="1", language=types.Language.PYTHON),
        types.Part.from_code_execution_result(outcome=types.Outcome.OUTCOME_OK, output="1"),
        types.Part(text="It is 1."),
    ]
    response = await client.models.generate_content(
        model=model,
        contents=[types.UserContent("Hello"), types.ModelContent(ran), types.UserContent("Really?")],
        config=types.GenerateContentConfig(
            safety_settings=[types.SafetySetting(category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_NONE")],
            tools=[types.Tool(google_search=types.GoogleSearch())],
        ),
    )
    assert response.sdk_http_response
    headers = response.sdk_http_response.headers or {}
    assert headers["x-gateway-dropped-params"] == (
        "safetySettings,tools[googleSearch],items[executableCode],items[codeExecutionResult]"
    )


@pytest.mark.parametrize("model", MODELS[:2])
async def test_signs_of_life_do_not_disturb_a_slow_stream(
    scene: Scene, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEPALIVE_S", 0.01)
    scene.upstream.always(Answer(chunks=("Good ", "day"), chunk_delay_s=0.2))
    client = await scene.google()
    stream = await client.models.generate_content_stream(model=model, contents="Hello there")
    assert [chunk.text async for chunk in stream if chunk.text] == ["Good ", "day"]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
async def test_a_stream_ends_where_the_quota_does(scene: Scene, provider: str) -> None:
    model = await model_in_steps(scene, provider)
    person = await scene.person(credit=200)
    client = await scene.google(person)
    scene.upstream.always(Answer(text="word " * 300, chunk_delay_s=0.0005))
    chunks = [chunk async for chunk in await client.models.generate_content_stream(model=model, contents="Hello there")]
    assert ("word " * 300).startswith("".join(chunk.text or "" for chunk in chunks))
    reasons = [each.finish_reason for chunk in chunks for each in chunk.candidates or () if each.finish_reason]
    assert reasons == [types.FinishReason.MAX_TOKENS]
    usage = chunks[-1].usage_metadata
    assert usage
    assert await was_charged(scene, person) == min(200, usage.total_token_count or 0)
