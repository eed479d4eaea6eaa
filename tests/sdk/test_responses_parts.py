"""Everything that a response is made of, through the stock client, whatever model answers."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.sdk.conftest import OPENROUTER_MODEL, Scene
from tests.support.upstream import Answer, CutAfter, Mind, ToolCall

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPENAI, ANTHROPIC, GOOGLE = "gpt-5.2", "claude-sonnet-5", "gemini-3.1-pro-preview"
MODELS = [OPENAI, ANTHROPIC, GOOGLE, OPENROUTER_MODEL]
EVERY_MODEL = pytest.mark.parametrize("model", MODELS)
TRANSLATED = pytest.mark.parametrize("model", MODELS[1:])
SCHEMA: Any = {
    "type": "object",
    "properties": {"q": {"type": "string"}},
    "required": ["q"],
    "additionalProperties": False,
}
LOOK: Any = {"type": "function", "name": "look", "parameters": SCHEMA, "strict": True}
PATCH: Any = {"type": "custom", "name": "patch", "description": "Applies a patch."}
CRM: Any = {"type": "namespace", "name": "mcp__crm", "description": "CRM", "tools": [{**LOOK, "name": "find"}]}
PNG = "data:image/png;base64,iVBORw0KGgo="
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


async def client_of(scene: Scene, **options: Any) -> AsyncOpenAI:
    """A strict client of a new person."""
    return await scene.openai(await scene.person(), _strict_response_validation=True, max_retries=0, **options)


def asked_of(scene: Scene) -> str:
    """Everything that the newest upstream request says."""
    return json.dumps(scene.upstream.requests[-1].json)


async def streamed(client: AsyncOpenAI, **asked: Any) -> tuple[list[Any], Response]:
    """The events, each of which the SDK takes, and the response at their end."""
    events = [event async for event in await client.responses.create(stream=True, **asked)]
    for event in events:
        EVENT.validate_json(event.to_json(), strict=True)
    return events, events[-1].response


@EVERY_MODEL
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_keeps_everything_itself_goes_through_a_tool_loop(
    scene: Scene, model: str, stream: bool
) -> None:
    scene.upstream.always(Mind())
    client = await client_of(scene)
    said: list[Any] = [{"role": "user", "content": "call it"}]
    asked: Any = {"model": model, "tools": [LOOK], "store": False, "reasoning": {"effort": "low", "summary": "auto"}}
    asked["include"] = ["reasoning.encrypted_content"]
    for _ in range(2):
        if stream:
            _, answered = await streamed(client, input=said, **asked)
        else:
            answered = await client.responses.create(input=said, **asked)
        calls: list[Any] = [item for item in answered.output if item.type == "function_call"]
        said += [item.to_dict() for item in answered.output]
        said += [
            {"type": "function_call_output", "call_id": call.call_id, "output": f"found {call.arguments}"}
            for call in calls
        ]
        if not calls:
            break
    assert answered.output_text.startswith("result: found ")
    assert "llm-gateway" not in asked_of(scene)


@EVERY_MODEL
async def test_a_stream_tells_what_a_whole_response_has(scene: Scene, model: str) -> None:
    scene.upstream.always(Answer(text="I look it up", thinking="hm, hm", tool_calls=(ToolCall(name="look"),)))
    client = await client_of(scene)
    asked: Any = {"model": model, "input": "hi", "tools": [LOOK], "reasoning": {"effort": "low", "summary": "auto"}}
    whole = await client.responses.create(**asked)
    events, ended = await streamed(client, **asked)
    assert [item.type for item in ended.output] == [item.type for item in whole.output]
    assert ended.output_text == whole.output_text == "I look it up"
    added = [event.item.id for event in events if event.type == "response.output_item.added"]
    assert added == [item.id for item in ended.output]
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))


@TRANSLATED
@pytest.mark.parametrize("stream", [False, True])
async def test_a_free_text_tool_is_called_with_free_text(scene: Scene, model: str, stream: bool) -> None:
    call = ToolCall(name="patch", arguments={"input": '*** Begin\n"a" ü'})
    scene.upstream.always(Answer(tool_calls=(call,)))
    client = await client_of(scene)
    asked: Any = {"model": model, "input": "hi", "tools": [PATCH]}
    answered = (await streamed(client, **asked))[1] if stream else await client.responses.create(**asked)
    item: Any = answered.output[0]
    assert item.type == "custom_tool_call"
    assert (item.name, item.input) == ("patch", '*** Begin\n"a" ü')
    result: Any = {"type": "custom_tool_call_output", "call_id": item.call_id, "output": "done"}
    scene.upstream.always(Mind())
    after = await client.responses.create(model=model, input=[result], previous_response_id=answered.id, tools=[PATCH])
    assert after.output_text == "result: done"
    assert "*** Begin" in asked_of(scene)


@TRANSLATED
@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_of_a_namespace_is_called_there(scene: Scene, model: str, stream: bool) -> None:
    scene.upstream.always(Answer(tool_calls=(ToolCall(name="mcp__crm__find", arguments={"q": "a"}),)))
    client = await client_of(scene)
    asked: Any = {"model": model, "input": "hi", "tools": [CRM]}
    answered = (await streamed(client, **asked))[1] if stream else await client.responses.create(**asked)
    assert '"mcp__crm__find"' in asked_of(scene)
    item: Any = answered.output[0]
    assert item.type == "function_call"
    assert (item.name, item.namespace) == ("find", "mcp__crm")
    result: Any = {"type": "function_call_output", "call_id": item.call_id, "output": "found"}
    scene.upstream.always(Mind())
    said: Any = [{"role": "user", "content": "hi"}, item.to_dict(), result]
    after = await client.responses.create(model=model, input=said, tools=[CRM], store=False)
    assert after.output_text == "result: found"


@EVERY_MODEL
async def test_pictures_and_schemas_reach_every_model(scene: Scene, model: str) -> None:
    scene.upstream.always(Mind())
    client = await client_of(scene)
    picture: Any = {"role": "user", "content": [{"type": "input_image", "image_url": PNG, "detail": "auto"}]}
    seen = await client.responses.create(model=model, input=[picture])
    assert seen.output_text.startswith("image: image/png")
    form: Any = {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}}
    told = await client.responses.create(model=model, input="hi", text=form)
    assert isinstance(json.loads(told.output_text)["q"], str)


@TRANSLATED
async def test_what_is_left_out_is_named(scene: Scene, model: str) -> None:
    client = await client_of(scene)
    raw = await client.responses.with_raw_response.create(
        model=model,
        input="hi",
        tools=[{"type": "web_search"}],
        prompt_cache_key="k",
        top_logprobs=2,
        text={"verbosity": "low"},
        extra_body={"client_metadata": {"a": "b"}},
    )
    named = set(raw.headers["x-gateway-dropped-params"].split(","))
    assert named >= {"tools[web_search]", "prompt_cache_key", "client_metadata", "text.verbosity", "top_logprobs"}


async def test_a_relayed_stream_that_breaks_tells_what_there_was(scene: Scene) -> None:
    client = await client_of(scene)
    scene.upstream.always(CutAfter(chunks=2, answer=Answer(text="one two three four five six")))
    stream = await client.responses.create(model=OPENAI, input="hi", stream=True)
    events: list[Any] = [event async for event in stream]
    *before, failed = events
    assert failed.type == "response.failed"
    assert failed.sequence_number == before[-1].sequence_number + 1
    assert (failed.response.status, failed.response.output_text) == ("failed", "one two ")
    assert failed.response.id == before[0].response.id
    assert failed.response.output[0].id == before[2].item.id
    kept = await client.responses.retrieve(failed.response.id)
    assert (kept.status, kept.output_text) == ("failed", "one two ")


@EVERY_MODEL
async def test_fewer_tokens_than_openai_takes_are_refused_by_openai_alone(scene: Scene, model: str) -> None:
    client = await client_of(scene)
    if model == OPENAI:
        with pytest.raises(openai.BadRequestError, match=">= 16"):
            await client.responses.create(model=model, input="hi", max_output_tokens=5)
        return
    scene.upstream.always(Answer(text="word " * 9))
    cut = await client.responses.create(model=model, input="hi", max_output_tokens=5)
    assert (cut.status, cut.output_text) == ("incomplete", "word " * 5)


async def test_a_small_quota_asks_openai_for_no_fewer_tokens_than_it_takes(scene: Scene) -> None:
    for credit in range(40, 80, 8):  # some of which pay for no call at all
        client = await scene.openai(await scene.person(credit=credit), max_retries=0)
        with contextlib.suppress(openai.RateLimitError):
            await client.responses.create(model=OPENAI, input="hi")
    caps = [sent.json["max_output_tokens"] for sent in scene.upstream.requests]
    assert caps
    assert 16 <= min(caps) < 40, caps


async def test_openai_itself_gets_it_all(scene: Scene) -> None:
    client = await client_of(scene)
    raw = await client.responses.with_raw_response.create(
        model=OPENAI, input="hi", tools=[{"type": "web_search"}], extra_body={"client_metadata": {"a": "b"}}
    )
    assert "x-gateway-dropped-params" not in raw.headers
    sent = scene.upstream.requests[-1].json
    assert (sent["tools"], sent["client_metadata"], sent["store"]) == ([{"type": "web_search"}], {"a": "b"}, False)


@TRANSLATED
async def test_files_that_only_openai_has_are_refused(scene: Scene, model: str) -> None:
    client = await client_of(scene)
    said: Any = [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]
    with pytest.raises(openai.BadRequestError, match="input_file"):
        await client.responses.create(model=model, input=said)


async def test_thoughts_go_from_model_to_model_and_each_gets_its_own(scene: Scene) -> None:
    scene.upstream.always(Answer(text="a", thinking="anthropic thinks"))
    client = await client_of(scene)
    asked: Any = {"store": False, "reasoning": {"effort": "low", "summary": "auto"}}
    said: list[Any] = [{"role": "user", "content": "hi"}]
    for model in (ANTHROPIC, OPENAI, ANTHROPIC):
        answered = await client.responses.create(model=model, input=said, **asked)
        said += [item.to_dict() for item in answered.output] + [{"role": "user", "content": "and?"}]
    first, second, third = scene.upstream.requests[-3:]
    assert "anthropic thinks" not in json.dumps(second.json)
    assert json.dumps(third.json).count("anthropic thinks") == 1
    assert "llm-gateway" not in json.dumps([first.json, second.json, third.json])


@EVERY_MODEL
async def test_items_that_are_named_are_told(scene: Scene, model: str) -> None:
    scene.upstream.always(
        Answer(text="I look", thinking="hm", tool_calls=(ToolCall(name="look", arguments={"q": "a"}),))
    )
    client = await client_of(scene)
    asked: Any = {"model": model, "tools": [LOOK], "reasoning": {"effort": "low", "summary": "auto"}}
    _, answered = await streamed(client, input="hi", **asked)
    call: Any = answered.output[-1]
    named: list[Any] = [{"type": "item_reference", "id": item.id} for item in answered.output]
    said: list[Any] = [{"role": "user", "content": "hi"}, *named]
    said.append({"type": "function_call_output", "call_id": call.call_id, "output": "found"})
    scene.upstream.always(Mind())
    after = await client.responses.create(input=said, **asked)
    assert after.output_text == "result: found"
    assert "I look" in asked_of(scene)
    stranger = await client_of(scene)
    with pytest.raises(openai.NotFoundError, match=str(named[0]["id"])):
        await stranger.responses.create(input=said, **asked)


@EVERY_MODEL
async def test_what_is_told_again_has_the_same_items(scene: Scene, model: str) -> None:
    scene.upstream.always(Answer(thinking="hm", text="so", tool_calls=(ToolCall(name="mcp__crm__find"),)))
    client = await client_of(scene)
    asked: Any = {"model": model, "input": "hi", "tools": [CRM], "reasoning": {"effort": "low"}}
    _, answered = await streamed(client, **asked)
    again = await client.responses.retrieve(answered.id)
    assert [item.to_dict().get("id") for item in again.output] == [item.to_dict().get("id") for item in answered.output]
    call: Any = again.output[-1]
    assert (call.name, call.namespace) == ("find", "mcp__crm")
