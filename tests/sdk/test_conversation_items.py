"""Items of conversations and responses: whatever happens to one, the others stay what they are."""

from typing import Any

import openai
import pytest

from tests.sdk.conftest import Scene
from tests.support.upstream import Answer, ToolCall

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOOK: Any = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}
ANSWER = Answer(text="I look", thinking="hm", tool_calls=(ToolCall(name="look"), ToolCall(name="look")))


@pytest.mark.parametrize("model", ["gpt-5.2", "claude-haiku-4-5"])
@pytest.mark.parametrize("gone", [0, 1, 2])
async def test_an_item_that_is_deleted_leaves_a_hole(scene: Scene, model: str, gone: int) -> None:
    client = await scene.openai(await scene.person(), _strict_response_validation=True)
    conversation = await client.conversations.create()
    scene.upstream.always(ANSWER)
    asked: Any = {"model": model, "input": "hi", "tools": [LOOK], "reasoning": {"effort": "low", "summary": "auto"}}
    made = await client.responses.create(conversation=conversation.id, **asked)
    ids = [item.id for item in made.output]
    assert [item.type for item in made.output] == ["reasoning", "message", "function_call", "function_call"]
    items = await client.conversations.items.list(conversation.id, order="asc")
    assert [item.id for item in items.data][1:] == ids
    await client.conversations.items.delete(str(ids[gone]), conversation_id=conversation.id)
    left = [item_id for place, item_id in enumerate(ids) if place != gone]
    items = await client.conversations.items.list(conversation.id, order="asc")
    assert [item.id for item in items.data][1:] == left
    assert [item.id for item in (await client.responses.retrieve(made.id)).output] == left
    with pytest.raises(openai.NotFoundError):
        await client.conversations.items.retrieve(str(ids[gone]), conversation_id=conversation.id)
    await client.conversations.items.delete(str(left[0]), conversation_id=conversation.id)
    items = await client.conversations.items.list(conversation.id, order="asc")
    assert [item.id for item in items.data][1:] == left[1:]
    found = await client.conversations.items.retrieve(str(left[1]), conversation_id=conversation.id)
    assert found.id == left[1]


async def test_neighbours_of_what_is_deleted_stay_two(scene: Scene) -> None:
    client = await scene.openai(await scene.person(), _strict_response_validation=True)
    texts: Any = [{"role": "assistant", "content": text} for text in ("one", "two", "three")]
    conversation = await client.conversations.create(items=texts)
    first, second, third = [item.id for item in (await client.conversations.items.list(conversation.id)).data][::-1]
    await client.conversations.items.delete(str(second), conversation_id=conversation.id)
    items: Any = (await client.conversations.items.list(conversation.id, order="asc")).data
    assert [(item.id, item.content[0].text) for item in items] == [(first, "one"), (third, "three")]


@pytest.mark.parametrize("model", ["gpt-5.2", "claude-haiku-4-5"])
async def test_what_a_developer_said_stays_a_developers(scene: Scene, model: str) -> None:
    client = await scene.openai(await scene.person(), _strict_response_validation=True)
    said: Any = [{"role": role, "content": f"by {role}"} for role in ("developer", "system", "user")]
    made = await client.responses.create(model=model, input=said)
    items: Any = (await client.responses.input_items.list(made.id, order="asc")).data
    assert [(item.role, item.content[0].text) for item in items] == [
        ("developer", "by developer"),
        ("system", "by system"),
        ("user", "by user"),
    ]
    await client.responses.create(model=model, input="and now?", previous_response_id=made.id)
    if model == "gpt-5.2":
        sent = scene.upstream.requests[-1].json["input"]
        assert [item.get("role") for item in sent] == ["developer", "system", "user", "assistant", "user"]
    else:
        assert "by developer" in str(scene.upstream.requests[-1].json["system"])


async def test_a_response_is_asked_for_with_everything_that_stock_clients_ask(scene: Scene) -> None:
    client = await scene.openai(await scene.person(), _strict_response_validation=True)
    made = await client.responses.create(model="claude-haiku-4-5", input="hi")
    again = await client.responses.retrieve(
        made.id, include=["message.output_text.logprobs", "file_search_call.results"]
    )
    assert again.output_text == made.output_text
    stream = await client.responses.retrieve(made.id, stream=True, include_obfuscation=False, starting_after=1)
    events: Any = [event async for event in stream]
    assert events[0].sequence_number == 2
    assert events[-1].response.output_text == made.output_text


@pytest.mark.parametrize("gone", [(0,), (1, 2), (3,), (0, 1, 2, 3)])
async def test_what_is_left_is_heard_again_at_its_numbers(scene: Scene, gone: tuple[int, ...]) -> None:
    client = await scene.openai(await scene.person(), _strict_response_validation=True)
    conversation = await client.conversations.create()
    scene.upstream.always(ANSWER)
    stream: Any = await client.responses.create(
        model="claude-haiku-4-5",
        input="hi",
        tools=[LOOK],
        reasoning={"effort": "low", "summary": "auto"},
        conversation=conversation.id,
        background=True,
        stream=True,
    )
    first = [event.to_dict() async for event in stream]
    made = first[-1]["response"]
    for place in gone:
        await client.conversations.items.delete(made["output"][place]["id"], conversation_id=conversation.id)
    again: Any = await client.responses.retrieve(made["id"], stream=True)
    heard = [event.to_dict() async for event in again]
    places = [(event["sequence_number"], event["type"], event.get("output_index")) for event in heard]
    rest = [event for event in first if event.get("output_index") not in gone]
    told: dict[int, Any] = {event["sequence_number"]: event for event in rest}
    assert [each for each in places if not each[1].endswith(".delta")] == [
        (number, event["type"], event.get("output_index"))
        for number, event in told.items()
        if not event["type"].endswith(".delta")
    ]
    assert [item["id"] for item in heard[-1]["response"]["output"]] == [
        item["id"] for place, item in enumerate(made["output"]) if place not in gone
    ]


async def test_a_response_whose_items_are_gone_is_deleted_alone(scene: Scene) -> None:
    client = await scene.openai(await scene.person(), _strict_response_validation=True)
    conversation = await client.conversations.create()
    first, second = [
        await client.responses.create(model="gpt-5.2", input=text, conversation=conversation.id)
        for text in ("one", "two")
    ]
    items = (await client.conversations.items.list(conversation.id, order="asc")).data
    for item in items[2:]:
        await client.conversations.items.delete(str(item.id), conversation_id=conversation.id)
    assert (await client.responses.input_items.list(second.id)).data == []
    assert (await client.responses.retrieve(second.id)).output == []
    await client.responses.delete(second.id)
    left = (await client.conversations.items.list(conversation.id, order="asc")).data
    assert [item.id for item in left] == [item.id for item in items[:2]]
    assert (await client.responses.retrieve(first.id)).output_text == "echo: one"
    await client.responses.create(model="gpt-5.2", input="three", conversation=conversation.id)
    assert "two" not in str(scene.upstream.requests[-1].json)


async def test_items_are_named_when_others_are_put_in(scene: Scene) -> None:
    alice, bob = [
        await scene.openai(await scene.person(), _strict_response_validation=True, max_retries=0) for _ in range(2)
    ]
    first: Any = await alice.conversations.create(items=[{"role": "user", "content": "said before"}])
    [said] = (await alice.conversations.items.list(first.id)).data
    named: Any = [{"type": "item_reference", "id": said.id}]
    second = await alice.conversations.create(items=named)
    await alice.conversations.items.create(second.id, items=named)
    items: Any = (await alice.conversations.items.list(second.id)).data
    assert [item.content[0].text for item in items] == ["said before"] * 2
    with pytest.raises(openai.NotFoundError):
        await bob.conversations.create(items=named)
