"""The stock Anthropic client has tools, files, thoughts and formats of any model, whole and streamed."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from anthropic import Anthropic, AsyncAnthropic, BadRequestError, beta_async_tool
from anthropic.types import Message
from pydantic import BaseModel

from src.api import sse
from tests.sdk.conftest import OPENROUTER_MODEL, Scene
from tests.support.upstream import Answer, Garbage, Mind, ToolCall

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = ("claude-sonnet-5", "gpt-4o", "gemini-2.5-flash", "gemini-3-pro-preview", OPENROUTER_MODEL)
THINKERS = ("claude-haiku-4-5", "gemini-2.5-flash")
WEATHER: Any = {
    "name": "weather",
    "description": "How warm it is.",
    "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
}
TIME: Any = {"type": "custom", "name": "time", "input_schema": {"type": "object", "properties": {}}}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\nrest").decode()
PDF = base64.b64encode(b"%PDF-1.4 rest").decode()
WAYS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
EVERY_MODEL = pytest.mark.parametrize("model", MODELS)


class City(BaseModel):
    name: str
    warm: bool


@pytest_asyncio.fixture(loop_scope="module")
async def client(scene: Scene) -> AsyncIterator[AsyncAnthropic]:
    scene.upstream.always(Mind())
    yield await scene.anthropic(_strict_response_validation=True)


def question(*content: Any) -> list[Any]:
    return [{"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}]


async def asked(client: AsyncAnthropic, *, stream: bool, **given: Any) -> Message:
    """The same whole and streamed, as the SDK puts it together."""
    given = {"max_tokens": 4000, **given}
    if not stream:
        return await client.messages.create(**given)
    async with client.messages.stream(**given) as events:
        async for _ in events:
            pass
        return await events.get_final_message()


def blocks(message: Message) -> list[tuple[str, Any]]:
    """Kinds, and what they say."""
    fields = {"text": "text", "thinking": "thinking", "redacted_thinking": "data", "tool_use": "input"}
    return [(block.type, getattr(block, fields[block.type])) for block in message.content]


@WAYS
@EVERY_MODEL
async def test_a_tool_is_called_and_its_result_is_answered(client: AsyncAnthropic, model: str, stream: bool) -> None:
    messages = question("call it")
    message = await asked(client, stream=stream, model=model, messages=messages, tools=[WEATHER, TIME])
    (block,) = message.content
    assert block.type == "tool_use"
    assert (block.name, block.input, message.stop_reason) == ("weather", {"q": "call it"}, "tool_use")
    results = [{"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "cold"}]}]
    messages += [message.to_param(), {"role": "user", "content": results}]
    message = await asked(client, stream=stream, model=model, messages=messages, tools=[WEATHER, TIME])
    assert blocks(message) == [("text", "result: cold")]
    assert message.stop_reason == "end_turn"


@WAYS
@EVERY_MODEL
async def test_two_tools_are_called_at_once_and_both_results_are_heard(
    client: AsyncAnthropic, model: str, stream: bool
) -> None:
    messages = question("call twice")
    message = await asked(client, stream=stream, model=model, messages=messages, tools=[WEATHER])
    assert blocks(message) == [("tool_use", {"q": "call twice"})] * 2
    ids = [block.id for block in message.content if block.type == "tool_use"]
    assert len(set(ids)) == 2
    results = [{"type": "tool_result", "tool_use_id": each, "content": f"{n}"} for n, each in enumerate(ids)]
    messages += [message.to_param(), {"role": "user", "content": [*results, {"type": "text", "text": "so?"}]}]
    message = await asked(client, stream=stream, model=model, messages=messages, tools=[WEATHER])
    assert blocks(message) == [("text", "result: 0 1")]


@EVERY_MODEL
@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"type": "none"}, None),
        ({"type": "any"}, "weather"),
        ({"type": "tool", "name": "time"}, "time"),
        ({"type": "auto", "disable_parallel_tool_use": True}, None),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
async def test_a_choice_of_tools_is_kept_to(
    client: AsyncAnthropic, model: str, choice: dict[str, Any], name: str | None
) -> None:
    message = await asked(
        client, stream=False, model=model, messages=question("hello"), tools=[WEATHER, TIME], tool_choice=choice
    )
    assert [block.name for block in message.content if block.type == "tool_use"] == ([name] if name else [])


@WAYS
@EVERY_MODEL
async def test_pictures_and_documents_are_seen(client: AsyncAnthropic, model: str, stream: bool) -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    paper = {"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf"}}
    paper["source"]["data"] = PDF  # type: ignore[index]
    messages = question({"type": "text", "text": "what is this?"}, picture, paper)
    message = await asked(client, stream=stream, model=model, messages=messages)
    assert blocks(message) == [("text", "image: image/png 12 bytes document: application/pdf 13 bytes")]


@EVERY_MODEL
async def test_a_document_of_text_and_a_picture_that_a_tool_made_are_heard(client: AsyncAnthropic, model: str) -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    law = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "the law"}}
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"q": "a"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "see"}, picture]}
    messages = [
        *question(law, {"type": "text", "text": "draw"}),
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    message = await asked(client, stream=False, model=model, messages=messages, tools=[WEATHER])
    ((kind, words),) = blocks(message)
    assert kind == "text"
    assert "see" in words


@WAYS
@EVERY_MODEL
async def test_an_answer_has_the_form_that_was_asked_for(client: AsyncAnthropic, model: str, stream: bool) -> None:
    schema = {**City.model_json_schema(), "additionalProperties": False}
    message = await asked(
        client,
        stream=stream,
        model=model,
        messages=question("a city"),
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    ((_, words),) = blocks(message)
    assert City.model_validate_json(words) == City(name="x", warm=True)


@EVERY_MODEL
async def test_the_helper_for_formats_parses_the_answer(client: AsyncAnthropic, model: str) -> None:
    parsed = await client.messages.parse(model=model, max_tokens=4000, messages=question("a city"), output_format=City)
    assert parsed.parsed_output == City(name="x", warm=True)


@WAYS
@pytest.mark.parametrize("model", THINKERS)
async def test_thoughts_are_shown_and_come_back_to_the_model_that_had_them(
    client: AsyncAnthropic, model: str, stream: bool
) -> None:
    given: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 2000}, "tools": [WEATHER]}
    messages = question("call it")
    message = await asked(client, stream=stream, model=model, messages=messages, **given)
    assert blocks(message) == [("thinking", "thinking about call it"), ("tool_use", {"q": "call it"})]
    thought, call = message.content
    assert thought.type == "thinking"
    assert thought.signature
    assert call.type == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "cold"}
    messages += [message.to_param(), {"role": "user", "content": [result]}]
    message = await asked(client, stream=stream, model=model, messages=messages, **given)
    assert blocks(message)[-1] == ("text", "result: cold")
    details = message.usage.output_tokens_details
    assert details is not None


@WAYS
@pytest.mark.parametrize(
    ("before", "after"),
    [(before, after) for before in THINKERS for after in MODELS],
)
async def test_a_conversation_goes_on_with_any_other_model(
    client: AsyncAnthropic, before: str, after: str, stream: bool
) -> None:
    given: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 2000}, "tools": [WEATHER]}
    messages = question("call it")
    message = await asked(client, stream=stream, model=before, messages=messages, **given)
    call = message.content[-1]
    assert call.type == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "cold"}
    messages += [message.to_param(), {"role": "user", "content": [result]}]
    given["thinking"] = {"type": "adaptive"} if after == "claude-sonnet-5" else given["thinking"]
    message = await asked(client, stream=stream, model=after, messages=messages, **given)
    assert blocks(message)[-1] == ("text", "result: cold")


async def test_who_changes_to_claude_while_tools_are_used_is_answered_without_a_thought(
    client: AsyncAnthropic, scene: Scene
) -> None:
    given: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 2000}, "tools": [WEATHER]}
    messages = question("call it")
    message = await asked(client, stream=False, model="gemini-2.5-flash", messages=messages, **given)
    call = message.content[-1]
    assert call.type == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "cold"}
    messages += [message.to_param(), {"role": "user", "content": [result]}]
    message = await asked(client, stream=False, model="claude-haiku-4-5", messages=messages, **given)
    assert blocks(message) == [("text", "result: cold")]
    assert "thinking" not in scene.upstream.requests[-1].json


@WAYS
@pytest.mark.parametrize("model", ["claude-sonnet-5", "gpt-4o"])
async def test_calls_with_ids_and_blanks_as_some_servers_write_them_can_be_taken_over(
    client: AsyncAnthropic, scene: Scene, model: str, stream: bool
) -> None:
    given: dict[str, Any] = {"messages": question("hello"), "tools": [WEATHER], "stream": stream}
    for number in ("one", "two"):
        call = ToolCall(name="weather", arguments={"q": number}, id="functions.weather:0")  # the same in each turn
        scene.upstream.always(Answer(chunks=("\n\n",), tool_calls=(call,)))
        message = await asked(client, model=OPENROUTER_MODEL, **given)
        assert blocks(message) == [("tool_use", {"q": number})]
        result = {"type": "tool_result", "tool_use_id": message.content[0].to_dict()["id"], "content": number}
        given["messages"] += [message.to_param(), {"role": "user", "content": [result]}]
    scene.upstream.always(Mind())
    message = await asked(client, model=model, **given)
    assert blocks(message) == [("text", "result: two")]


@WAYS
@EVERY_MODEL
async def test_a_stop_sequence_is_named_where_the_provider_says_it(
    client: AsyncAnthropic, model: str, stream: bool
) -> None:
    message = await asked(
        client, stream=stream, model=model, messages=question("one two three"), stop_sequences=["two"]
    )
    assert blocks(message) == [("text", "echo: one ")]
    said = (message.stop_reason, message.stop_sequence)
    assert said == (("stop_sequence", "two") if model == "claude-sonnet-5" else ("end_turn", None))


@WAYS
@EVERY_MODEL
async def test_a_refusal_is_text_and_the_reason(client: AsyncAnthropic, scene: Scene, model: str, stream: bool) -> None:
    if model.startswith("gemini"):
        scene.upstream.always(Answer(text="", finish="content_filter"))
    else:
        scene.upstream.always(Answer(refusal="I won't."))
    message = await asked(client, stream=stream, model=model, messages=question("harm"))
    assert message.stop_reason == "refusal"
    words = [said for kind, said in blocks(message)]
    assert words == ([] if model.startswith(("gemini", "claude")) else ["I won't."])


@EVERY_MODEL
async def test_system_messages_stand_where_they_are(client: AsyncAnthropic, model: str) -> None:
    messages = [*question("a"), {"role": "system", "content": "In French."}, *question("b")]
    message = await asked(
        client, stream=False, model=model, messages=messages, system=[{"type": "text", "text": "Be brief."}]
    )
    assert blocks(message)[0][0] == "text"


@EVERY_MODEL
async def test_the_beta_client_is_answered_too(client: AsyncAnthropic, scene: Scene, model: str) -> None:
    message = await client.beta.messages.create(
        model=model,
        max_tokens=100,
        messages=question("hello"),
        betas=["context-management-2025-06-27"],
        context_management={"edits": []},
    )
    assert [getattr(block, "text", None) for block in message.content] == ["echo: hello"]
    async with client.beta.messages.stream(
        model=model, max_tokens=100, messages=question("hello"), betas=["x"]
    ) as events:
        assert "".join([text async for text in events.text_stream]) == "echo: hello"


@EVERY_MODEL
async def test_the_tool_runner_runs_tools_to_the_end(client: AsyncAnthropic, scene: Scene, model: str) -> None:
    @beta_async_tool
    async def weather(q: str) -> str:
        """How warm it is."""
        return f"cold in {q}"

    runner = client.beta.messages.tool_runner(
        model=model, max_tokens=1000, messages=question("call for the runner"), tools=[weather]
    )
    message = await runner.until_done()
    assert [getattr(block, "text", None) for block in message.content] == ["result: cold in call for the runner"]
    assert not any("thread" in sent.json for sent in scene.upstream.requests)


@EVERY_MODEL
async def test_the_synchronous_client_calls_tools(scene: Scene, model: str) -> None:
    scene.upstream.always(Mind())
    person = await scene.person()

    def talk() -> list[Any]:
        with Anthropic(base_url=scene.gateway.url, api_key=person.secret, _strict_response_validation=True) as client:
            given: Any = {"model": model, "max_tokens": 500, "messages": question("call it"), "tools": [WEATHER]}
            whole = client.messages.create(**given)
            with client.messages.stream(**given) as stream:
                return [whole.content[0], stream.get_final_message().content[0]]

    for block in await asyncio.to_thread(talk):
        assert (block.type, block.input) == ("tool_use", {"q": "call it"})


@WAYS
@pytest.mark.parametrize("model", ["gpt-4o", "gemini-2.5-flash", OPENROUTER_MODEL])
async def test_what_is_left_out_is_named_in_the_clients_words(client: AsyncAnthropic, model: str, stream: bool) -> None:
    answered = await client.messages.with_raw_response.create(
        model=model,
        max_tokens=50,
        stream=stream,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=question("hello"),
        tools=[WEATHER, {"type": "web_search_20250305", "name": "web_search"}],
        metadata={"user_id": "u1"},
        service_tier="auto",
        extra_body={"context_management": {"edits": []}},
    )
    named = set(answered.headers["x-gateway-dropped-params"].split(","))
    assert {"cache_control", "context_management", "metadata", "service_tier", "tools[web_search_20250305]"} <= named
    if stream:
        async for _ in await answered.parse():
            pass


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
@EVERY_MODEL
async def test_clients_of_every_version_are_answered(scene: Scene, model: str, version: str) -> None:
    """As Claude Code and LangChain ask."""
    scene.upstream.always(Mind())
    person = await scene.person()
    answered = await scene.gateway.client(None).post(
        "/v1/messages?beta=true",
        headers={"x-api-key": person.secret, "anthropic-version": version, "anthropic-beta": "a,b"},
        json={"model": model, "max_tokens": 50, "messages": question("hello"), "tools": [WEATHER]},
    )
    assert answered.status_code == 200, answered.text
    assert answered.json()["content"][0]["text"] == "echo: hello"
    assert answered.headers["request-id"]


async def test_a_relayed_signature_and_a_call_of_anthropics_own_pass_both_ways(
    client: AsyncAnthropic, scene: Scene
) -> None:
    own = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    scene.upstream.always(Answer(text="so", extra_items=(own,), extra_fields={"x_new": {"a": 1}}))
    message = await asked(client, stream=False, model="claude-sonnet-5", messages=question("hello"))
    assert message.content[-1].to_dict() == own
    assert message.to_dict()["x_new"] == {"a": 1}


async def test_an_invalid_tool_is_refused_by_the_gateway_before_anybody_is_asked(scene: Scene) -> None:
    client = await scene.anthropic()
    with pytest.raises(BadRequestError) as refused:
        await client.messages.create(
            model="gpt-4o",
            max_tokens=5,
            messages=question("hello"),
            tools=[{"name": "weather"}],  # type: ignore[list-item]
        )
    assert "tools[0].input_schema" in refused.value.message
    assert scene.upstream.requests == []


async def test_arguments_that_are_no_json_reach_the_client_as_they_are(scene: Scene) -> None:
    """A model behind a compatible server may write what it likes."""
    person = await scene.person()
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{q: 1"}}
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {"role": "assistant", "content": None, "tool_calls": [call]},
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
    scene.upstream.script(Garbage(json.dumps(body).encode(), "application/json"))
    client = await scene.anthropic(person, _strict_response_validation=True)
    message = await asked(client, stream=False, model=OPENROUTER_MODEL, messages=question("a"), tools=[WEATHER])
    assert blocks(message) == [("tool_use", {"_raw": "{q: 1"})]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_model_behind_a_compatible_server_shows_its_thoughts(
    client: AsyncAnthropic, scene: Scene, stream: bool
) -> None:
    scene.upstream.always(Answer(thinking="hm hm", text="so", shows_reasoning=True))
    message = await asked(client, stream=stream, model=OPENROUTER_MODEL, messages=question("a"))
    assert blocks(message) == [("thinking", "hm hm"), ("text", "so")]
    again = await asked(
        client,
        stream=stream,
        model="claude-sonnet-5",
        messages=[*question("a"), message.to_param(), *question("b")],
    )
    assert again.stop_reason == "end_turn"
    (block,) = scene.upstream.requests[-1].json["messages"][1]["content"]
    assert (block["type"], block["text"]) == ("text", "so")


async def test_a_silent_stream_is_kept_alive_with_pings(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEPALIVE_S", 0.01)
    gate = asyncio.Event()
    scene.upstream.script(Answer(chunks=("so ", "it is"), gate=gate, gate_after=1))
    body = {"model": "gpt-4o", "max_tokens": 50, "messages": question("a"), "stream": True}
    names: list[str] = []
    async with scene.gateway.http.stream("POST", "/v1/messages", json=body) as answered:
        async for line in answered.aiter_lines():
            assert not line.startswith(":")
            names += [line.removeprefix("event: ")] if line.startswith("event: ") else []
            if names.count("ping") == 3:
                gate.set()
    assert names[:2] == ["message_start", "ping"]
    assert names.count("ping") >= 3
    assert [name for name in names if name != "ping"][-2:] == ["message_delta", "message_stop"]


async def test_tool_calls_keep_their_ids(client: AsyncAnthropic, scene: Scene) -> None:
    scene.upstream.always(Answer(tool_calls=(ToolCall(name="weather", arguments={"q": "a"}, id="call_abc"),)))
    message = await asked(client, stream=True, model="gpt-4o", messages=question("a"), tools=[WEATHER])
    assert [block.id for block in message.content if block.type == "tool_use"] == ["call_abc"]
