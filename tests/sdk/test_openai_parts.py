"""The stock OpenAI client has tools, files, thoughts and formats of any model, whole and streamed."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessage, ChatCompletionMessageFunctionToolCall, ParsedChatCompletion
from pydantic import BaseModel

from tests.sdk.conftest import OPENROUTER_MODEL, Scene
from tests.support.upstream import Answer, Mind, ToolCall

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = ("gpt-4o", "claude-sonnet-5", "gemini-2.5-flash", "gemini-3-pro-preview", OPENROUTER_MODEL)
THINKERS = ("claude-sonnet-5", "gemini-2.5-flash")
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "How warm it is.",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
    },
}
TIME: Any = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\nrest").decode()
PDF = base64.b64encode(b"%PDF-1.4 rest").decode()


class City(BaseModel):
    name: str
    warm: bool


@pytest_asyncio.fixture(loop_scope="module")
async def client(scene: Scene) -> AsyncIterator[AsyncOpenAI]:
    scene.upstream.always(Mind())
    yield await scene.openai(_strict_response_validation=True)


def question(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def asked(client: AsyncOpenAI, *, stream: bool, **given: Any) -> ParsedChatCompletion[None]:
    """The same whole and streamed, as the SDK puts it together."""
    if not stream:
        return await client.chat.completions.parse(**given)
    async with client.chat.completions.stream(**given) as events:
        async for _ in events:
            pass
        return await events.get_final_completion()


def strict(tool: Any) -> Any:
    """As the helpers of the SDK demand it."""
    schema = {**tool["function"]["parameters"], "additionalProperties": False}
    return {**tool, "function": {**tool["function"], "parameters": schema, "strict": True}}


def calls_of(message: ChatCompletionMessage) -> list[ChatCompletionMessageFunctionToolCall]:
    assert message.tool_calls is not None
    return [call for call in message.tool_calls if isinstance(call, ChatCompletionMessageFunctionToolCall)]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", MODELS)
async def test_a_tool_is_called_and_its_result_is_answered(client: AsyncOpenAI, model: str, stream: bool) -> None:
    messages = question("call it")
    completion = await asked(client, stream=stream, model=model, messages=messages, tools=[strict(WEATHER)])
    choice = completion.choices[0]
    (call,) = calls_of(choice.message)
    assert (choice.finish_reason, choice.message.content or None) == ("tool_calls", None)
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"q": "call it"})
    answer = choice.message.model_dump(exclude_none=True, exclude={"parsed"})
    for made in answer["tool_calls"]:
        made["function"].pop("parsed_arguments", None)
    messages += [answer, {"role": "tool", "tool_call_id": call.id, "content": "cold"}]
    completion = await asked(client, stream=stream, model=model, messages=messages, tools=[strict(WEATHER)])
    assert completion.choices[0].message.content == "result: cold"
    assert completion.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", MODELS)
async def test_two_tools_are_called_at_once_and_both_results_are_heard(
    client: AsyncOpenAI, model: str, stream: bool
) -> None:
    messages = question("call twice")
    completion = await asked(client, stream=stream, model=model, messages=messages, tools=[strict(WEATHER)])
    calls = calls_of(completion.choices[0].message)
    assert [json.loads(call.function.arguments) for call in calls] == [{"q": "call twice"}] * 2
    assert len({call.id for call in calls}) == 2
    made = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
            **(call.model_extra or {}),
        }
        for call in calls
    ]
    messages += [{"role": "assistant", "content": None, "tool_calls": made}]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": f"{n}"} for n, call in enumerate(calls)]
    completion = await asked(client, stream=stream, model=model, messages=messages, tools=[strict(WEATHER)])
    assert completion.choices[0].message.content == "result: 0 1"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ("none", None),
        ("required", "weather"),
        ({"type": "function", "function": {"name": "time"}}, "time"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "time"}}]},
            },
            "time",
        ),
    ],
    ids=["none", "required", "named", "allowed"],
)
async def test_which_tool_is_called_can_be_chosen(
    client: AsyncOpenAI, model: str, choice: Any, name: str | None
) -> None:
    text = "say it" if name else "call it"
    completion = await client.chat.completions.create(
        model=model, messages=question(text), tools=[WEATHER, TIME], tool_choice=choice
    )
    message = completion.choices[0].message
    assert [call.function.name for call in calls_of(message)] == [name] if name else message.content == "echo: call it"


@pytest.mark.parametrize("model", [model for model in MODELS if model != "gpt-4o"])
async def test_tools_take_free_text_with_every_model(scene: Scene, client: AsyncOpenAI, model: str) -> None:
    tools: Any = [{"type": "custom", "custom": {"name": "shell", "description": "Runs it."}}]
    scene.upstream.script(Answer(tool_calls=(ToolCall(name="shell", arguments={"input": "ls -l"}),)))
    completion = await client.chat.completions.create(model=model, messages=question("run"), tools=tools)
    calls = completion.choices[0].message.tool_calls or []
    assert [call.to_dict()["custom"] for call in calls] == [{"name": "shell", "input": "ls -l"}]
    assert '"custom"' not in json.dumps(scene.upstream.requests[-1].json["tools"])


@pytest.mark.parametrize("model", [model for model in MODELS if not model.startswith("gemini")])
async def test_one_call_at_a_time_can_be_wished(client: AsyncOpenAI, model: str) -> None:
    completion = await client.chat.completions.create(
        model=model, messages=question("call twice"), tools=[WEATHER], parallel_tool_calls=False
    )
    assert len(calls_of(completion.choices[0].message)) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", ["claude-sonnet-5", "gemini-2.5-flash"])
async def test_a_client_of_the_time_before_tools_is_answered_in_its_words(
    client: AsyncOpenAI, model: str, stream: bool
) -> None:
    functions = [WEATHER["function"]]
    given: dict[str, Any] = {"model": model, "messages": question("call it"), "functions": functions}
    if stream:
        chunks = [chunk async for chunk in await client.chat.completions.create(**given, stream=True)]
        pieces = [call for chunk in chunks if (call := chunk.choices[0].delta.function_call)]
        name, arguments = pieces[0].name, "".join(piece.arguments or "" for piece in pieces)
        reason = chunks[-1].choices[0].finish_reason
    else:
        choice = (await client.chat.completions.create(**given)).choices[0]
        assert choice.message.function_call is not None
        name, arguments = choice.message.function_call.name, choice.message.function_call.arguments
        reason = choice.finish_reason
    assert (name, json.loads(arguments), reason) == ("weather", {"q": "call it"}, "function_call")
    given["messages"] += [
        {"role": "assistant", "content": None, "function_call": {"name": name, "arguments": arguments}},
        {"role": "function", "name": name, "content": "cold"},
    ]
    completion = await client.chat.completions.create(**given)
    assert completion.choices[0].message.content == "result: cold"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", MODELS)
async def test_an_answer_of_a_wished_shape_is_parsed(client: AsyncOpenAI, model: str, stream: bool) -> None:
    given: Any = {"model": model, "messages": question("Which city?"), "response_format": City}
    if stream:
        async with client.chat.completions.stream(**given) as events:
            completion = await events.get_final_completion()
    else:
        completion = await client.chat.completions.parse(**given)
    assert completion.choices[0].message.parsed == City(name="x", warm=True)


@pytest.mark.parametrize("model", ["gpt-4o", "gemini-2.5-flash", OPENROUTER_MODEL])
async def test_json_without_a_schema_can_be_wished(client: AsyncOpenAI, model: str) -> None:
    completion = await client.chat.completions.create(
        model=model, messages=question("JSON, please"), response_format={"type": "json_object"}
    )
    assert json.loads(completion.choices[0].message.content or "") == {"text": "JSON, please"}


@pytest.mark.parametrize("model", MODELS)
async def test_pictures_and_documents_are_shown(client: AsyncOpenAI, model: str) -> None:
    content: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
    ]
    messages: Any = [{"role": "user", "content": content}]
    answered = await client.chat.completions.with_raw_response.create(model=model, messages=messages)
    assert answered.parse().choices[0].message.content == "image: image/png 12 bytes document: application/pdf 13 bytes"
    translated = model.startswith(("claude", "gemini"))
    assert answered.headers.get("x-gateway-dropped-params") == ("detail" if translated else None)


@pytest.mark.parametrize("model", ["claude-sonnet-5", "gpt-4o"])
async def test_pictures_are_shown_by_their_address(client: AsyncOpenAI, model: str) -> None:
    content: Any = [{"type": "image_url", "image_url": {"url": "https://host/cat.png"}}]
    completion = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])
    assert completion.choices[0].message.content == "image: https://host/cat.png"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", THINKERS)
async def test_thoughts_are_shown_and_given_back_with_what_proves_them(
    scene: Scene, client: AsyncOpenAI, model: str, stream: bool
) -> None:
    given: Any = {"model": model, "tools": [strict(WEATHER)], "reasoning_effort": "high"}
    messages = question("call it")
    completion = await asked(client, stream=stream, messages=messages, **given)
    message = completion.choices[0].message
    assert (message.model_extra or {})["reasoning_content"] == "thinking about call it"
    assert completion.usage is None or completion.usage.completion_tokens_details is not None
    (call,) = calls_of(message)
    answer = json.loads(message.model_dump_json(exclude_none=True, exclude={"parsed"}))
    for made in answer["tool_calls"]:
        made["function"].pop("parsed_arguments", None)
    messages += [answer, {"role": "tool", "tool_call_id": call.id, "content": "cold"}]
    answered = await client.chat.completions.with_raw_response.create(**given, messages=messages)
    assert "reasoning" not in answered.headers.get("x-gateway-dropped-params", "")
    assert answered.parse().choices[0].message.content == "result: cold"
    sent = json.dumps(scene.upstream.requests[-1].json)
    assert "sig-" in sent or "c2ln" in sent  # as it is, or in base64


async def test_thoughts_of_one_model_are_not_told_to_another_and_that_is_said(client: AsyncOpenAI) -> None:
    thought = await client.chat.completions.create(
        model="claude-sonnet-5", messages=question("hello"), reasoning_effort="high"
    )
    answer: Any = json.loads(thought.choices[0].message.model_dump_json(exclude_none=True))
    messages = [*question("hello"), answer, *question("and now?")]
    answered = await client.chat.completions.with_raw_response.create(model="gemini-2.5-flash", messages=messages)
    assert answered.headers["x-gateway-dropped-params"] == "reasoning_content"
    assert answered.parse().choices[0].message.content == "echo: and now?"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("after", ["gpt-4o", OPENROUTER_MODEL])
@pytest.mark.parametrize("model", [*THINKERS, "gemini-3-pro-preview"])
async def test_a_talk_goes_on_with_servers_that_never_heard_of_what_was_thought(
    scene: Scene, client: AsyncOpenAI, model: str, after: str, stream: bool
) -> None:
    given: Any = {"tools": [strict(WEATHER)], "reasoning_effort": "high"}
    messages = question("call it")
    completion = await asked(client, stream=stream, model=model, messages=messages, **given)
    answer: Any = json.loads(completion.choices[0].message.model_dump_json(exclude_none=True, exclude={"parsed"}))
    assert "reasoning_details" in answer
    call = answer["tool_calls"][0]
    call["function"].pop("parsed_arguments", None)
    call.pop("index", None)  # which the SDK leaves in what it puts together
    messages += [answer, {"role": "tool", "tool_call_id": call["id"], "content": "cold"}]
    answered = await client.chat.completions.with_raw_response.create(model=after, messages=messages, **given)
    assert answered.headers["x-gateway-dropped-params"] == "reasoning_content"
    sent = scene.upstream.requests[-1].json["messages"][1]
    assert set(sent) <= {"role", "content", "annotations", "tool_calls"}
    assert set(sent["tool_calls"][0]) <= {"id", "type", "function"}


@pytest.mark.parametrize(
    ("after", "dropped"), [("gpt-4o", "reasoning_content"), (OPENROUTER_MODEL, None)], ids=["openai", "openrouter"]
)
async def test_thoughts_that_nothing_proves_are_told_to_servers_that_have_a_field_for_them(
    scene: Scene, client: AsyncOpenAI, after: str, dropped: str | None
) -> None:
    thought: Any = {"role": "assistant", "content": "Hm!", "reasoning_content": "Hm?"}
    messages = [*question("hello"), thought, *question("and now?")]
    answered = await client.chat.completions.with_raw_response.create(model=after, messages=messages)
    assert answered.headers.get("x-gateway-dropped-params") == dropped
    assert ("reasoning_content" in scene.upstream.requests[-1].json["messages"][1]) is (dropped is None)


@pytest.mark.parametrize("model", THINKERS)
async def test_tokens_of_thoughts_are_counted_where_the_provider_tells_them(client: AsyncOpenAI, model: str) -> None:
    completion = await client.chat.completions.create(model=model, messages=question("hello"), reasoning_effort="high")
    assert completion.usage is not None
    assert completion.usage.completion_tokens_details is not None
    assert completion.usage.completion_tokens_details.reasoning_tokens == 3


@pytest.mark.parametrize("model", ["gpt-4o", OPENROUTER_MODEL])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_refusal_is_a_refusal(scene: Scene, client: AsyncOpenAI, model: str, stream: bool) -> None:
    scene.upstream.always(Answer(refusal="I must not."))
    completion = await asked(client, stream=stream, model=model, messages=question("Do it!"))
    message = completion.choices[0].message
    assert (message.refusal, message.content or None) == ("I must not.", None)


@pytest.mark.parametrize("model", MODELS)
async def test_the_synchronous_client_calls_tools_and_parses(scene: Scene, client: AsyncOpenAI, model: str) -> None:
    person = await scene.person()

    def talk() -> tuple[str, City | None]:
        with OpenAI(
            base_url=f"{scene.gateway.url}/v1", api_key=person.secret, _strict_response_validation=True
        ) as sync:
            with sync.chat.completions.stream(
                model=model, messages=question("call it"), tools=[strict(WEATHER)]
            ) as events:
                called = calls_of(events.get_final_completion().choices[0].message)
            parsed = sync.chat.completions.parse(model=model, messages=question("Which city?"), response_format=City)
            return called[0].function.name, parsed.choices[0].message.parsed

    assert await asyncio.to_thread(talk) == ("weather", City(name="x", warm=True))


@pytest.mark.parametrize("model", ["gpt-4o", OPENROUTER_MODEL])
async def test_what_nobody_knows_yet_passes_both_ways(scene: Scene, client: AsyncOpenAI, model: str) -> None:
    news = {"x_news": {"deep": [1]}}
    scene.upstream.always(
        Answer(
            text="so",
            thinking="hm hm",
            shows_reasoning=True,
            tool_calls=(ToolCall(name="weather", arguments={"q": "a"}),),
            extra_fields=news,
            extra_events=({"id": "c", "object": "x_of_the_future", "choices": [], **news},),
        )
    )
    given: Any = {"model": model, "messages": question("hi"), "tools": [WEATHER], "logprobs": True, "n": 2}
    whole = await client.chat.completions.create(**given, extra_body={"x_wish": news})
    assert (whole.model_extra or {})["x_news"] == {"deep": [1]}
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.choices[1].logprobs is not None
    assert (whole.choices[1].message.model_extra or {})["reasoning_content"] == "hm hm"
    sent = scene.upstream.requests[-1].json
    assert sent["x_wish"] == news
    lenient = await scene.openai()
    chunks = [chunk async for chunk in await lenient.chat.completions.create(**given, stream=True)]
    assert "x_of_the_future" in [chunk.object for chunk in chunks]
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1}
    thoughts = [(choice.delta.model_extra or {}).get("reasoning_content", "") for c in chunks for choice in c.choices]
    assert "".join(thoughts).replace(" ", "") == "hmhm" * 2
    assert any(choice.delta.tool_calls for chunk in chunks for choice in chunk.choices)
    assert any(choice.logprobs for chunk in chunks for choice in chunk.choices)
