"""The stock Anthropic client talks to any model behind the gateway."""

import asyncio
from typing import Any

import pytest
from anthropic import Anthropic, BadRequestError

from tests.sdk.conftest import OPENROUTER_MODEL, Scene
from tests.support.upstream import Answer, ToolCall, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = ("claude-sonnet-5", "gpt-4o", "gemini-2.5-flash", OPENROUTER_MODEL)
TRANSLATED = ("gpt-4o", "gemini-2.5-flash")
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
WEATHER: dict[str, Any] = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
STRICT_OR_NOT = pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])


@pytest.mark.parametrize("model", MODELS)
@STRICT_OR_NOT
async def test_a_message_comes_from_every_model(scene: Scene, model: str, strict: bool) -> None:
    scene.upstream.always(Answer(text="Good day.", usage=Usage(input=11, output=3, cached=4)))
    client = await scene.anthropic(_strict_response_validation=strict)
    message = await client.messages.create(model=model, max_tokens=100, messages=HELLO)
    assert (message.type, message.role, message.model) == ("message", "assistant", model)
    assert message.id.startswith("msg_")
    assert [(block.type, getattr(block, "text", None)) for block in message.content] == [("text", "Good day.")]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (7, 4, 3)
    assert message._request_id


@pytest.mark.parametrize("model", MODELS)
@STRICT_OR_NOT
async def test_a_stream_of_events_comes_from_every_model(scene: Scene, model: str, strict: bool) -> None:
    scene.upstream.always(Answer(chunks=("Good ", "day", "."), usage=Usage(input=11, output=3)))
    client = await scene.anthropic(_strict_response_validation=strict)
    stream = await client.messages.create(model=model, max_tokens=100, messages=HELLO, stream=True)
    events = [event async for event in stream]
    deltas = [event.delta.text for event in events if event.type == "content_block_delta"]  # type: ignore[union-attr]
    assert deltas == ["Good ", "day", "."]
    kinds = [event.type for event in events if event.type != "content_block_delta"]
    assert kinds == ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]
    last = events[-2]
    assert last.type == "message_delta"
    assert (last.delta.stop_reason, last.usage.input_tokens, last.usage.output_tokens) == ("end_turn", 11, 3)


@pytest.mark.parametrize("model", MODELS)
@STRICT_OR_NOT
async def test_the_stream_helper_puts_the_message_together(scene: Scene, model: str, strict: bool) -> None:
    scene.upstream.always(Answer(chunks=("Good ", "day."), usage=Usage(input=11, output=3)))
    client = await scene.anthropic(_strict_response_validation=strict)
    async with client.messages.stream(model=model, max_tokens=100, messages=HELLO) as stream:
        texts = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    assert texts == ["Good ", "day."]
    assert message.content[0].type == "text"
    assert message.content[0].text == "Good day."
    assert (message.usage.input_tokens, message.usage.output_tokens) == (11, 3)
    assert (message.stop_reason, message.model) == ("end_turn", model)


@pytest.mark.parametrize("model", ["claude-sonnet-5", "gpt-4o"])
async def test_the_synchronous_client_talks_and_streams(scene: Scene, model: str) -> None:
    scene.upstream.always(Answer(text="Good day."))
    person = await scene.person()

    def talk() -> tuple[str, str]:
        with Anthropic(base_url=scene.gateway.url, api_key=person.secret) as client:
            whole = client.messages.create(model=model, max_tokens=100, messages=HELLO)
            with client.messages.stream(model=model, max_tokens=100, messages=HELLO) as stream:
                streamed = "".join(stream.text_stream)
            assert whole.content[0].type == "text"
            return whole.content[0].text, streamed

    assert await asyncio.to_thread(talk) == ("Good day.", "Good day.")


async def test_a_relayed_body_reaches_anthropic_with_every_field_and_header_it_has(scene: Scene) -> None:
    client = await scene.anthropic(default_headers={"anthropic-beta": "context-management-2025-06-27"})
    given: dict[str, Any] = {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "stop_sequences": ["END"],
        "max_tokens": 50,
        "metadata": {"user_id": "u1"},
        "output_config": {"effort": "low"},
        "thinking": {"type": "disabled"},
        "service_tier": "auto",
    }
    await client.messages.create(
        model="claude-sonnet-5", messages=HELLO, extra_body={"context_management": {"edits": []}}, **given
    )
    sent = scene.upstream.requests[-1]
    assert sent.json == {
        "model": "claude-sonnet-5",
        "messages": HELLO,
        "context_management": {"edits": []},
        **given,
    }
    assert sent.headers["anthropic-beta"] == "context-management-2025-06-27"
    assert sent.headers["anthropic-version"] == scene.sent[-1].headers["anthropic-version"]
    assert "sk-gw-" not in str(sent.headers)


async def test_tools_and_images_are_relayed_unharmed_to_anthropic(scene: Scene) -> None:
    scene.upstream.always(Answer(tool_calls=(ToolCall(name="weather", arguments={"city": "Malmö"}, id="toolu_1"),)))
    client = await scene.anthropic(_strict_response_validation=True)
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "Where is this, and how warm?"}, PICTURE]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_0", "name": "weather", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_0", "content": "which city?"}]},
    ]
    tools: list[Any] = [WEATHER, {"type": "web_search_20250305", "name": "web_search"}]
    message = await client.messages.create(model="claude-sonnet-5", max_tokens=99, messages=messages, tools=tools)
    block = message.content[0]
    assert block.type == "tool_use"
    assert (block.id, block.name, block.input) == ("toolu_1", "weather", {"city": "Malmö"})
    assert message.stop_reason == "tool_use"
    sent = scene.upstream.requests[-1].json
    assert (sent["messages"], sent["tools"]) == (messages, tools)
    async with client.messages.stream(model="claude-sonnet-5", max_tokens=99, messages=messages, tools=tools) as stream:
        streamed = (await stream.get_final_message()).content[0]
    assert streamed.type == "tool_use"
    assert streamed.input == {"city": "Malmö"}


@pytest.mark.parametrize("model", TRANSLATED)
@pytest.mark.parametrize(
    "block",
    [
        {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}]},
        {"type": "container_upload", "file_id": "f1"},
        {"type": "of_the_future"},
    ],
    ids=lambda block: block["type"],
)
async def test_what_cannot_be_translated_is_refused_by_name(scene: Scene, model: str, block: dict[str, Any]) -> None:
    client = await scene.anthropic()
    messages: list[Any] = [{"role": "user", "content": [block]}]
    for stream in (False, True):
        with pytest.raises(BadRequestError) as refused:
            await client.messages.create(model=model, max_tokens=50, stream=stream, messages=messages)
        assert f"cannot be translated for the model {model}: {block['type']};" in refused.value.message
        assert refused.value.type == "invalid_request_error"
    assert len(scene.sent) == 2
    assert scene.upstream.requests == []


async def test_system_and_stops_are_translated(scene: Scene) -> None:
    client = await scene.anthropic()
    asked: dict[str, Any] = {
        "max_tokens": 77,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        "stop_sequences": ["END"],
    }
    await client.messages.create(model="gpt-4o", system="Be brief.", **asked)
    sent = scene.upstream.requests[-1].json
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert (sent["stop"], sent["max_completion_tokens"]) == (["END"], 77)
    await client.messages.create(
        model="gemini-2.5-flash", system=[{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}], **asked
    )
    sent = scene.upstream.requests[-1].json
    assert sent["systemInstruction"]["parts"] == [{"text": "Be \nbrief."}]
    assert (sent["generationConfig"]["stopSequences"], sent["generationConfig"]["maxOutputTokens"]) == (["END"], 77)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_dropped_parameters_are_disclosed_in_a_header(scene: Scene, stream: bool) -> None:
    client = await scene.anthropic()
    answered = await client.messages.with_raw_response.create(
        model="gpt-4o",
        max_tokens=50,
        messages=HELLO,
        stream=stream,
        thinking={"type": "disabled"},
        metadata={"user_id": "u1"},
        extra_body={"context_management": {"edits": []}},
    )
    dropped = answered.headers["x-gateway-dropped-params"].split(",")
    assert sorted(dropped) == ["context_management", "metadata", "thinking"]
    assert answered.headers["x-gateway-model"] == "gpt-4o"
    if stream:
        async for _ in await answered.parse():
            pass


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", MODELS)
async def test_every_answer_is_charged_to_the_token(scene: Scene, model: str, stream: bool) -> None:
    scene.upstream.always(Answer(text="Good day.", usage=Usage(input=11, output=3, cached=5)))
    person = await scene.person(credit=50_000)
    client = await scene.anthropic(person)
    answered = await client.messages.create(model=model, messages=HELLO, stream=stream, max_tokens=100)
    if stream:
        async for _ in answered:
            pass
    assert await scene.standing(person) == (50_000 - 14, 0)


async def test_an_answer_that_reaches_its_maximum_says_so(scene: Scene) -> None:
    scene.upstream.always(Answer(text="word " * 50))
    client = await scene.anthropic()
    for model in MODELS:
        message = await client.messages.create(model=model, max_tokens=5, messages=HELLO)
        assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 5)


async def test_models_are_listed_and_retrieved_in_anthropics_shape(scene: Scene) -> None:
    client = await scene.anthropic(_strict_response_validation=True)
    listed = {model.id: model async for model in client.models.list()}
    assert {*MODELS, "smollm2-135m"} <= set(listed)
    assert listed["claude-sonnet-5"].type == "model"
    assert listed["claude-sonnet-5"].lifecycle == "active"
    assert listed["gpt-4o"].lifecycle == "deprecated"
    for name in ("claude-sonnet-5", OPENROUTER_MODEL):
        assert (await client.models.retrieve(name)).id == name
    with pytest.raises(Exception, match="gpt-99") as refused:
        await client.models.retrieve("gpt-99")
    assert type(refused.value).__name__ == "NotFoundError"
