"""What only OpenAI says of an answer: it is kept, told and heard again, and goes back to OpenAI."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from tests.sdk.conftest import Scene
from tests.support.upstream import Answer

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
MODEL = "gpt-5.2"
LOGPROBS: Any = "message.output_text.logprobs"
LOGPROB = {"token": "one", "logprob": -0.1, "bytes": [111], "top_logprobs": []}
CITED = {"type": "url_citation", "url": "https://x.example", "title": "X", "start_index": 0, "end_index": 3}
LOOK: Any = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}


def output_text(text: str, *annotations: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": [LOGPROB]}


def message(number: int, phase: str, *content: dict[str, Any]) -> dict[str, Any]:
    said = {"type": "message", "id": f"msg_00000000{number}", "role": "assistant", "status": "completed"}
    return {**said, "phase": phase, "content": list(content)}


CALL = {
    "type": "function_call",
    "id": "fc_000000004",
    "call_id": "call_4",
    "name": "look",
    "arguments": "{}",
    "status": "completed",
    "caller": {"type": "program", "caller_id": "prog_1"},
}
ANSWER = Answer(
    text="Hello",
    extra_items=(
        message(1, "commentary", output_text("let me see")),
        message(2, "final_answer", output_text("one", CITED), output_text("two", CITED, CITED)),
        message(3, "final_answer", {"type": "refusal", "refusal": "no"}),
        CALL,
    ),
)


async def client_of(scene: Scene) -> AsyncOpenAI:
    """A strict client of a new person."""
    return await scene.openai(await scene.person(), _strict_response_validation=True, max_retries=0)


async def asked(client: AsyncOpenAI, *, stream: bool, **fields: Any) -> dict[str, Any]:
    """The response as its client was told it."""
    fields = {"model": MODEL, "input": "hi", "tools": [LOOK], **fields}
    if not stream:
        whole: dict[str, Any] = (await client.responses.create(**fields)).to_dict()
        return whole
    told: Any = [event async for event in await client.responses.create(stream=True, **fields)]
    found: dict[str, Any] = told[-1].response.to_dict()
    return found


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("include", [[], [LOGPROBS]], ids=["plain", "with logprobs"])
async def test_is_told_again_wherever_the_answer_is(scene: Scene, stream: bool, include: list[Any]) -> None:
    client = await client_of(scene)
    talk = await client.conversations.create()
    scene.upstream.always(ANSWER)
    made = await asked(client, stream=stream, include=include, conversation=talk.id)
    output = made["output"] if include else without_logprobs(made["output"])
    again = (await client.responses.retrieve(made["id"])).to_dict()
    assert again["output"] == output
    items = (await client.conversations.items.list(talk.id, order="asc")).data
    assert [item.to_dict() for item in items][1:] == output
    heard: Any = [event async for event in await client.responses.retrieve(made["id"], stream=True)]
    for event in heard:
        EVENT.validate_json(event.to_json(), strict=True)
    assert heard[-1].response.to_dict()["output"] == output
    done = [event.item.to_dict() for event in heard if event.type == "response.output_item.done"]
    assert sorted(done, key=output.index) == output
    annotated = [event for event in heard if event.type == "response.output_text.annotation.added"]
    places = [(event.output_index, event.content_index, event.annotation_index) for event in annotated]
    assert places == [(2, 0, 0), (2, 1, 0), (2, 1, 1)]
    middle = heard[len(heard) // 2].sequence_number
    rest: Any = await client.responses.retrieve(made["id"], stream=True, starting_after=middle)
    assert [event.to_dict() async for event in rest] == [
        event.to_dict() for event in heard if event.sequence_number > middle
    ]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("by", ["previous_response_id", "conversation"])
async def test_goes_back_to_openai_and_not_to_others(scene: Scene, stream: bool, by: str) -> None:
    client = await client_of(scene)
    talk = await client.conversations.create()
    scene.upstream.always(ANSWER)
    first = {"conversation": talk.id} if by == "conversation" else {}
    made = await asked(client, stream=stream, include=[LOGPROBS], **first)
    scene.upstream.always(Answer(text="Fine."))
    follows = {by: talk.id if by == "conversation" else made["id"]}
    result: Any = {"type": "function_call_output", "call_id": "call_4", "output": "42"}
    await asked(client, stream=stream, input=[result], **follows)
    sent = scene.upstream.requests[-1].json["input"]
    ours = {"id", "status"}
    expected = [
        {name: value for name, value in item.items() if name not in ours} for item in without_logprobs(made["output"])
    ]
    assert sent[1 : 1 + len(expected)] == expected
    after: Any = {"previous_response_id": made["id"]}
    await asked(client, stream=stream, input=[result], **{**after, "model": "claude-sonnet-5"})
    said = str(scene.upstream.requests[-1].json)
    assert ("let me see" in said, "two" in said, "x.example" in said, "commentary" in said) == (
        True,
        True,
        False,
        False,
    )


@pytest.mark.parametrize("gone", [(1,), (2,), (1, 2, 3), (2, 4)])
async def test_of_what_is_left_stays_where_it_is(scene: Scene, gone: tuple[int, ...]) -> None:
    client = await client_of(scene)
    talk = await client.conversations.create()
    scene.upstream.always(ANSWER)
    made = await asked(client, stream=True, conversation=talk.id)
    whole: Any = [event async for event in await client.responses.retrieve(made["id"], stream=True)]
    for place in gone:
        await client.conversations.items.delete(made["output"][place]["id"], conversation_id=talk.id)
    left: Any = [event async for event in await client.responses.retrieve(made["id"], stream=True)]
    assert [event.to_dict() for event in left[:-1]] == [
        event.to_dict() for event in whole[:-1] if getattr(event, "output_index", None) not in gone
    ]
    assert left[-1].sequence_number == whole[-1].sequence_number
    kept = (await client.responses.retrieve(made["id"])).to_dict()["output"]
    assert kept == [item for place, item in enumerate(without_logprobs(made["output"])) if place not in gone]


async def test_is_shown_natively(scene: Scene) -> None:
    person = await scene.person()
    client = await scene.openai(person, _strict_response_validation=True)
    scene.upstream.always(ANSWER)
    await asked(client, stream=False)
    [dialog] = (await person.http.get("/api/v1/dialogs")).json()["data"]
    messages = (await person.http.get(f"/api/v1/dialogs/{dialog['id']}/messages")).json()["data"]
    particulars = [part.get("particulars") for part in messages[-1]["parts"]]
    assert particulars[1] == {"format": "responses", "item": {"phase": "commentary"}}
    assert particulars[3] == {"format": "responses", "fields": {"annotations": [CITED, CITED]}, "place": 1}
    assert particulars[5] == {"format": "responses", "fields": {"caller": {"type": "program", "caller_id": "prog_1"}}}


async def test_that_a_client_tells_is_kept_as_well(scene: Scene) -> None:
    client = await client_of(scene)
    told: Any = [message(1, "commentary", output_text("one", CITED), output_text("two"))]
    talk = await client.conversations.create(items=told)
    [item] = (await client.conversations.items.list(talk.id)).data
    assert item.to_dict() == {**told[0], "id": item.id}


async def test_a_conversation_keeps_its_metadata_where_a_change_names_none(scene: Scene) -> None:
    client = await client_of(scene)
    talk = await client.conversations.create(metadata={"topic": "names"})
    with pytest.raises(openai.BadRequestError) as caught:
        await client.post(f"/conversations/{talk.id}", cast_to=object, body={})
    assert caught.value.param == "metadata"
    assert (await client.conversations.retrieve(talk.id)).metadata == {"topic": "names"}
    assert (await client.conversations.update(talk.id, metadata=None)).metadata == {}


def without_logprobs(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**item, "content": [{**part, **({"logprobs": []} if "logprobs" in part else {})} for part in item["content"]]}
        if item["type"] == "message"
        else item
        for item in output
    ]
