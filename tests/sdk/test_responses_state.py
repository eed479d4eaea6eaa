"""What is kept behind the Responses API, seen through the stock client: it is the same dialogs, by another door."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from tests.sdk.conftest import OPENROUTER_MODEL, Scene, eventually
from tests.support.upstream import Answer, Fail, Mind, ToolCall

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = ["gpt-4o", "claude-sonnet-5", "gemini-2.5-flash", OPENROUTER_MODEL]
EVERY_MODEL = pytest.mark.parametrize("model", MODELS)
TOOL: Any = {
    "type": "function",
    "name": "look",
    "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
    "strict": False,
}


async def client_of(scene: Scene, **options: Any) -> AsyncOpenAI:
    """A strict client of a new person."""
    return await scene.openai(await scene.person(), _strict_response_validation=True, max_retries=0, **options)


async def texts_of(events: AsyncIterator[Any], most: int | None = None) -> tuple[str, int, list[str]]:
    """The text that was streamed, the last sequence number and the types, of so many text events at the most."""
    text, last, types, seen = "", -1, [], 0
    async for event in events:
        assert event.sequence_number > last, "they rise"
        last = event.sequence_number
        types.append(event.type)
        if event.type == "response.output_text.delta":
            text, seen = text + event.delta, seen + 1
            if seen == most:
                break
    return text, last, types


def asked_of(scene: Scene) -> str:
    """Everything that the newest upstream request says."""
    return str(scene.upstream.requests[-1].json)


@EVERY_MODEL
async def test_a_response_is_continued_by_its_id(scene: Scene, model: str) -> None:
    client = await client_of(scene)
    first = await client.responses.create(model=model, input="the first question", instructions="Be brief.")
    assert (first.status, first.store, first.output_text) == ("completed", True, "echo: the first question")
    second = await client.responses.create(model=model, input="the second", previous_response_id=first.id)
    assert second.previous_response_id == first.id != second.id
    said = asked_of(scene)
    assert "the first question" in said
    assert "echo: the first question" in said
    assert "Be brief." not in said, "instructions are not carried over"
    branch = await client.responses.create(model=model, input="instead", previous_response_id=first.id)
    assert "the second" not in asked_of(scene)
    assert {first.id, second.id, branch.id} >= {branch.id}


@EVERY_MODEL
async def test_a_response_is_told_again(scene: Scene, model: str) -> None:
    client = await client_of(scene)
    made = await client.responses.create(
        model=model, input="hello", instructions="Be brief.", metadata={"a": "b"}, max_output_tokens=50
    )
    again = await client.responses.retrieve(made.id)
    told, kept = made.to_dict(), again.to_dict()
    same = {*told, *kept} - {"model", "output", "completed_at", "created_at"}
    if model == "gpt-4o":  # relayed: what only its provider knows of it is not kept
        same = {"id", "status", "usage", "store", "background", "previous_response_id", "tools", "tool_choice", "text"}
    assert {name: told.get(name) for name in same} == {name: kept.get(name) for name in same}
    assert again.output_text == made.output_text
    assert (again.instructions, again.metadata, again.max_output_tokens) == ("Be brief.", {"a": "b"}, 50)
    items = await client.responses.input_items.list(made.id)
    assert [item.to_dict()["content"] for item in items.data] == [[{"type": "input_text", "text": "hello"}]]


@EVERY_MODEL
async def test_a_streamed_response_is_kept_too(scene: Scene, model: str) -> None:
    client = await client_of(scene)
    async with client.responses.stream(model=model, input="one two three") as stream:
        text, _, types = await texts_of(stream)
        final = await stream.get_final_response()
    assert text == final.output_text == "echo: one two three"
    assert (types[0], types[-1]) == ("response.created", "response.completed")
    assert (await client.responses.retrieve(final.id)).output_text == text


@EVERY_MODEL
async def test_a_tools_result_goes_with_the_id_alone(scene: Scene, model: str) -> None:
    scene.upstream.always(Mind())
    client = await client_of(scene)
    first = await client.responses.create(model=model, input="call it", tools=[TOOL])
    calls = [item for item in first.output if item.type == "function_call"]
    assert [(call.name, call.arguments.replace(" ", "")) for call in calls] == [("look", '{"q":"callit"}')]
    output: Any = {"type": "function_call_output", "call_id": calls[0].call_id, "output": "42"}
    second = await client.responses.create(model=model, input=[output], tools=[TOOL], previous_response_id=first.id)
    assert second.output_text == "result: 42"
    kept = await client.responses.retrieve(first.id)
    assert [item.type for item in kept.output] == [item.type for item in first.output]


async def test_a_response_is_continued_natively_and_the_other_way_round(scene: Scene) -> None:
    person = await scene.person()
    client = await scene.openai(person, _strict_response_validation=True)
    first = await client.responses.create(model="claude-sonnet-5", input="from responses", instructions="Be brief.")
    [dialog] = (await person.http.get("/api/v1/dialogs")).json()["data"]
    sent = await person.http.post(f"/api/v1/dialogs/{dialog['id']}/messages", json={"content": "natively"})
    assert sent.status_code == 201, sent.text
    assert "from responses" in asked_of(scene)
    assert "Be brief." in asked_of(scene), "the dialog goes on as it was"
    native = sent.json()["message"]
    last = await client.responses.create(
        model="claude-sonnet-5", input="back again", previous_response_id=f"resp_{native['id'].replace('-', '')}"
    )
    assert "natively" in asked_of(scene)
    messages = (await person.http.get(f"/api/v1/dialogs/{dialog['id']}/messages")).json()["data"]
    assert [each["content"] for each in messages] == [
        *("from responses", "echo: from responses"),
        *("natively", "echo: natively"),
        *("back again", "echo: back again"),
    ]
    assert (await client.responses.retrieve(last.id)).output_text == "echo: back again"
    assert (await client.responses.retrieve(f"resp_{native['id'].replace('-', '')}")).output_text == "echo: natively"
    assert first.id == f"resp_{messages[1]['id'].replace('-', '')}"


@EVERY_MODEL
async def test_a_conversation_is_a_dialog(scene: Scene, model: str) -> None:
    person = await scene.person()
    client = await scene.openai(person, _strict_response_validation=True)
    item: Any = {"type": "message", "role": "user", "content": "my name is Ann"}
    made = await client.conversations.create(items=[item], metadata={"topic": "names"})
    scene.upstream.script(Answer(text="somebody"))
    await client.responses.create(model=model, input="who am I?", conversation=made.id)
    assert "my name is Ann" in asked_of(scene)
    items = await client.conversations.items.list(made.id, order="asc")
    told = [(each.role, each.content[0].text) for each in items.data if each.type == "message"]
    assert told == [("user", "my name is Ann"), ("user", "who am I?"), ("assistant", "somebody")]
    newest = await client.conversations.items.list(made.id, limit=1)
    assert (newest.data[0].id, newest.has_more) == (items.data[-1].id, True)
    second = await client.conversations.items.list(made.id, limit=1, after=newest.data[0].id)
    assert second.data[0].id == items.data[-2].id
    added = await client.conversations.items.create(made.id, items=[{**item, "content": "and Bob"}])
    assert (await client.conversations.items.retrieve(added.data[0].id, conversation_id=made.id)).to_dict()["content"]
    await client.conversations.items.delete(items.data[0].id, conversation_id=made.id)
    await client.responses.create(model=model, input="and now?", conversation={"id": made.id})
    assert "Ann" not in asked_of(scene)
    assert "and Bob" in asked_of(scene)
    changed = await client.conversations.update(made.id, metadata={"topic": "others"})
    assert changed.metadata == {"topic": "others"} == (await client.conversations.retrieve(made.id)).metadata
    [dialog] = (await person.http.get("/api/v1/dialogs")).json()["data"]
    assert made.id == f"conv_{dialog['id'].replace('-', '')}"
    assert (await client.conversations.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.conversations.retrieve(made.id)


@EVERY_MODEL
async def test_a_requests_tokens_are_estimated_with_what_was_said_before(scene: Scene, model: str) -> None:
    client = await client_of(scene)
    first = await client.responses.create(model=model, input="a question " * 20)
    calls = len(scene.upstream.requests)
    counting = client.responses.input_tokens.with_raw_response
    alone = await counting.count(model=model, input="another one")
    after = await counting.count(model=model, input="another one", previous_response_id=first.id)
    assert 0 < alone.parse().input_tokens < after.parse().input_tokens
    assert (after.headers["x-gateway-model"], after.headers["x-gateway-estimated"]) == (model, "true")
    assert len(scene.upstream.requests) == calls, "nobody is asked"


async def test_what_is_not_to_be_stored_is_not(scene: Scene) -> None:
    person = await scene.person()
    client = await scene.openai(person, _strict_response_validation=True)
    made = await client.responses.create(model="claude-sonnet-5", input="a secret", store=False)
    assert not made.store
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)
    assert (await person.http.get("/api/v1/dialogs")).json()["data"] == []
    kept = await client.responses.create(model="claude-sonnet-5", input="kept")
    await client.responses.create(model="claude-sonnet-5", input="x", previous_response_id=kept.id, store=False)
    assert "echo: kept" in asked_of(scene)


async def test_what_is_asked_in_a_conversation_is_kept_in_it_whatever_is_wished(scene: Scene) -> None:
    client = await client_of(scene)
    talk = await client.conversations.create()
    await client.responses.create(model="claude-sonnet-5", input="said", conversation=talk.id, store=False)
    assert len((await client.conversations.items.list(talk.id)).data) == 2


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"store": False}, "store"),
        ({"prompt": {"id": "pmpt_1"}}, "background"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]}, "background"),
    ],
    ids=["unstored", "a stored prompt", "a stored file"],
)
async def test_what_cannot_go_on_in_the_background_is_refused(scene: Scene, fields: Any, named: str) -> None:
    client = await client_of(scene)
    calls = len(scene.upstream.requests)
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(**{"model": "gpt-4o", "input": "hello", "background": True, **fields})
    assert (caught.value.param, len(scene.upstream.requests)) == (named, calls)


async def test_a_deleted_response_is_gone_and_what_follows_it_stays(scene: Scene) -> None:
    person = await scene.person()
    client = await scene.openai(person, _strict_response_validation=True)
    first = await client.responses.create(model="gpt-4o", input="one")
    second = await client.responses.create(model="gpt-4o", input="two", previous_response_id=first.id)
    await client.responses.delete(first.id)
    for gone in (client.responses.retrieve(first.id), client.responses.input_items.list(first.id)):
        with pytest.raises(openai.NotFoundError):
            await gone
    with pytest.raises(openai.NotFoundError) as caught:
        await client.responses.create(model="gpt-4o", input="x", previous_response_id=first.id)
    assert caught.value.code == "previous_response_not_found"
    third = await client.responses.create(model="gpt-4o", input="three", previous_response_id=second.id)
    assert "echo: one" in asked_of(scene), "it is still what the others build upon"
    await client.responses.delete(third.id)
    alone = await client.responses.create(model="gpt-4o", input="alone")
    assert len((await person.http.get("/api/v1/dialogs")).json()["data"]) == 2
    await client.responses.delete(alone.id)
    assert len((await person.http.get("/api/v1/dialogs")).json()["data"]) == 1


async def test_what_is_anothers_is_not_there(scene: Scene) -> None:
    alice, bob = await client_of(scene), await client_of(scene)
    response = await alice.responses.create(model="gpt-4o", input="mine", background=True)
    conversation = await alice.conversations.create(items=[{"type": "message", "role": "user", "content": "mine"}])
    [item] = (await alice.conversations.items.list(conversation.id)).data
    calls = len(scene.upstream.requests)
    for attempt in (
        bob.responses.retrieve(response.id),
        bob.responses.retrieve(response.id, stream=True),
        bob.responses.cancel(response.id),
        bob.responses.delete(response.id),
        bob.responses.input_items.list(response.id),
        bob.responses.create(model="gpt-4o", input="x", previous_response_id=response.id),
        bob.responses.create(model="gpt-4o", input="x", conversation=conversation.id),
        bob.conversations.retrieve(conversation.id),
        bob.conversations.update(conversation.id, metadata={}),
        bob.conversations.items.list(conversation.id),
        bob.conversations.items.create(conversation.id, items=[{"role": "user", "content": "x"}]),
        bob.conversations.items.retrieve(item.id or "", conversation_id=conversation.id),
        bob.conversations.items.delete(item.id or "", conversation_id=conversation.id),
        bob.conversations.delete(conversation.id),
    ):
        with pytest.raises(openai.NotFoundError):
            await attempt
    assert len(scene.upstream.requests) - calls in (0, 1), "alice's own may have begun late"


@EVERY_MODEL
async def test_a_background_response_goes_on_by_itself(scene: Scene, model: str) -> None:
    gate = asyncio.Event()
    scene.upstream.script(Answer(text="done at last", gate=gate))
    client = await client_of(scene)
    made = await client.responses.create(model=model, input="take your time", background=True)
    assert (made.status, made.background, made.output) == ("queued", True, [])
    assert (await client.responses.retrieve(made.id)).status == "in_progress"
    gate.set()
    found: list[Response] = []

    async def has_ended() -> bool:
        found[:] = [await client.responses.retrieve(made.id)]
        return found[0].status != "in_progress"

    await eventually(has_ended)
    assert (found[0].status, found[0].output_text) == ("completed", "done at last")


async def test_a_background_response_is_cancelled(scene: Scene) -> None:
    gate = asyncio.Event()
    scene.upstream.script(Answer(chunks=("never ", "the end"), gate=gate, gate_after=1))
    client = await client_of(scene)
    made = await client.responses.create(model="claude-sonnet-5", input="hello", background=True, stream=True)
    _, _, types = await texts_of(aiter(made), most=1)
    [created] = [await client.responses.retrieve(await newest_of(client, scene))]
    ended = await client.responses.cancel(created.id)
    assert (ended.status, types[0]) == ("cancelled", "response.created")
    assert (await client.responses.cancel(created.id)).status == "cancelled", "twice is once"
    gate.set()
    whole = await client.responses.create(model="gpt-4o", input="hello")
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        await client.responses.cancel(whole.id)


async def test_a_background_response_is_cancelled_before_its_first_word(scene: Scene) -> None:
    person = await scene.person(credit=10_000)
    client = await scene.openai(person, _strict_response_validation=True)
    scene.upstream.script(Answer(text="never", gate=asyncio.Event()))
    made = await client.responses.create(model="claude-sonnet-5", input="hello", background=True)
    for ended in (await client.responses.cancel(made.id), await client.responses.retrieve(made.id)):
        assert (ended.status, ended.error, ended.output) == ("cancelled", None, [])
    assert await scene.standing(person) == (10_000, 0)


async def newest_of(client: AsyncOpenAI, scene: Scene) -> str:
    """The id of the newest response, as the native API tells it."""
    http = scene.gateway.client(client.api_key)
    dialog = (await http.get("/api/v1/dialogs")).json()["data"][0]
    message = (await http.get(f"/api/v1/dialogs/{dialog['id']}/messages")).json()["data"][-1]
    return f"resp_{message['id'].replace('-', '')}"


@EVERY_MODEL
@pytest.mark.parametrize("is_over", [False, True], ids=["while it is given", "afterwards"])
async def test_a_background_stream_is_resumed_where_it_was_left(scene: Scene, model: str, is_over: bool) -> None:
    gate = asyncio.Event()
    words = tuple(f"word{number} " for number in range(8))
    scene.upstream.script(Answer(chunks=words, gate=gate, gate_after=5))
    client = await client_of(scene)
    stream = await client.responses.create(model=model, input="count", background=True, stream=True)
    seen, last, types = await texts_of(aiter(stream), most=3)
    await stream.close()
    name = await newest_of(client, scene)
    if is_over:
        gate.set()

        async def has_ended() -> bool:
            return (await client.responses.retrieve(name)).status == "completed"

        await eventually(has_ended)
    resumed = await client.responses.retrieve(name, stream=True, starting_after=last)
    gate.set()
    rest, _, more = await texts_of(aiter(resumed))
    assert seen + rest == "".join(words)
    assert (types[0], more[-1]) == ("response.created", "response.completed")
    assert "response.created" not in more
    whole, _, types = await texts_of(aiter(await client.responses.retrieve(name, stream=True)))
    assert (whole, types[0]) == ("".join(words), "response.created")


async def test_a_failed_response_costs_nothing_and_says_so(scene: Scene) -> None:
    person = await scene.person(credit=10_000)
    client = await scene.openai(person, _strict_response_validation=True, max_retries=0)
    scene.upstream.always(Fail(status=500))
    with pytest.raises(openai.InternalServerError):
        await client.responses.create(model="claude-sonnet-5", input="hello")
    failed = await client.responses.create(model="claude-sonnet-5", input="hello", background=True)

    async def has_failed() -> bool:
        return (await client.responses.retrieve(failed.id)).status == "failed"

    await eventually(has_failed)
    told = await client.responses.retrieve(failed.id)
    assert told.error is not None
    assert (told.error.code, told.output) == ("server_error", [])
    assert await scene.standing(person) == (10_000, 0)


async def test_a_quota_is_exhausted_once(scene: Scene) -> None:
    person = await scene.person(credit=5)
    client = await scene.openai(person)
    for more in ({}, {"stream": True}, {"background": True}):
        sent = len(scene.sent)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.responses.create(model="gpt-4o", input="hello " * 50, **more)
        assert (caught.value.code, len(scene.sent) - sent) == ("insufficient_quota", 1)
    assert (await person.http.get("/api/v1/dialogs")).json()["data"] == []


async def test_a_repeated_response_is_the_same_one(scene: Scene) -> None:
    client = await client_of(scene)
    headers = {"idempotency-key": "once"}
    first = await client.responses.create(model="gpt-4o", input="hello", extra_headers=headers)
    again = await client.responses.create(model="gpt-4o", input="hello", extra_headers=headers)
    assert first.to_dict() == again.to_dict()
    assert (await client.responses.retrieve(first.id)).output_text == "echo: hello"


async def test_images_and_calls_are_told_natively_with_their_types(scene: Scene) -> None:
    person = await scene.person()
    client = await scene.openai(person, _strict_response_validation=True)
    scene.upstream.script(Answer(tool_calls=(ToolCall(name="look", arguments={"q": "x"}),)))
    image: Any = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"}
    content: Any = [{"type": "input_text", "text": "see"}, image]
    await client.responses.create(model="claude-sonnet-5", input=[{"role": "user", "content": content}], tools=[TOOL])
    [dialog] = (await person.http.get("/api/v1/dialogs")).json()["data"]
    messages = (await person.http.get(f"/api/v1/dialogs/{dialog['id']}/messages")).json()["data"]
    assert [[part["type"] for part in each["parts"]] for each in messages] == [["text", "image"], ["tool_call"]]


@EVERY_MODEL
async def test_a_call_that_nobody_answered_does_not_end_the_dialog(scene: Scene, model: str) -> None:
    scene.upstream.always(Mind())
    person = await scene.person()
    client = await scene.openai(person, _strict_response_validation=True)
    await client.responses.create(model=model, input="call twice", tools=[TOOL])
    [dialog] = (await person.http.get("/api/v1/dialogs")).json()["data"]
    sent = await person.http.post(f"/api/v1/dialogs/{dialog['id']}/messages", json={"content": "never mind"})
    assert sent.status_code == 201, sent.text
    assert "The tool was not called." in asked_of(scene)
    named = {"previous_response_id": sent.json()["message"]["id"]}
    for place in (named, {"conversation": dialog["id"]}):
        await client.responses.create(model=model, input="and now?", **place)
        assert "The tool was not called." in asked_of(scene)


@EVERY_MODEL
async def test_the_result_of_a_call_that_was_deleted_does_not_end_the_dialog(scene: Scene, model: str) -> None:
    scene.upstream.always(Mind())
    person = await scene.person()
    client = await scene.openai(person, _strict_response_validation=True, max_retries=0)
    talk = await client.conversations.create()
    asked: Any = {"model": model, "tools": [TOOL], "conversation": talk.id}
    calls: Any = (await client.responses.create(input="call twice", **asked)).output
    results: Any = [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"found {place}"}
        for place, call in enumerate(calls)
    ]
    await client.responses.create(input=results, **asked)
    await client.conversations.items.delete(calls[0].id, conversation_id=talk.id)
    await client.responses.create(input="and now?", **asked)
    assert calls[0].call_id not in asked_of(scene)
    url = f"/api/v1/dialogs/{talk.id.removeprefix('conv_')}/messages"
    sent = await person.http.post(url, json={"content": "never mind", "model": model})
    assert sent.status_code == 201, sent.text


async def test_what_follows_a_response_of_a_conversation_by_its_id_is_no_part_of_it(scene: Scene) -> None:
    client = await client_of(scene)
    talk = await client.conversations.create()
    asked: Any = {"model": "claude-sonnet-5", "conversation": talk.id}
    first, _ = [await client.responses.create(input=text, **asked) for text in ("one", "two")]
    said = (await client.conversations.items.list(talk.id)).data
    branch = first
    for text in ("instead", "and on"):
        branch = await client.responses.create(model="gpt-4o", input=text, previous_response_id=branch.id)
    assert "instead" in asked_of(scene)
    assert (await client.conversations.items.list(talk.id)).data == said
    await client.responses.create(input="three", **asked)
    assert ("two" in asked_of(scene), "instead" in asked_of(scene)) == (True, False)


@pytest.mark.parametrize("asked", [{"input": []}, {"input": ""}, {"conversation": True}], ids=str)
async def test_nothing_is_not_answered(scene: Scene, asked: Any) -> None:
    client = await client_of(scene)
    calls = len(scene.upstream.requests)
    if "conversation" in asked:
        asked = {"conversation": (await client.conversations.create()).id}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model="claude-sonnet-5", **asked)
    assert (caught.value.param, len(scene.upstream.requests)) == ("input", calls)


async def test_one_that_is_cut_at_its_cap_is_told_again_as_it_was(scene: Scene) -> None:
    client = await client_of(scene)
    scene.upstream.always(Answer(text="word " * 50))
    made = await client.responses.create(model="claude-sonnet-5", input="hi", max_output_tokens=16)
    assert (made.status, made.completed_at, made.output[-1].to_dict()["status"]) == ("incomplete", None, "incomplete")
    assert (await client.responses.retrieve(made.id)).to_dict() == made.to_dict()


async def test_a_history_that_is_too_long_is_cut_where_that_is_wished(scene: Scene) -> None:
    small = {
        "name": "small",
        "provider": "anthropic",
        "upstream": "claude-sonnet-5",
        "price": {"input": 1, "output": 1},
    }
    made = await scene.gateway.http.post(
        "/api/v1/admin/models", json={**small, "context_window": 700, "max_output": 100}
    )
    assert made.status_code in (200, 201), made.text
    client = await client_of(scene)
    scene.upstream.always(Answer(text="fine"))
    last = await client.responses.create(model="small", input="the first " + "word " * 300)
    last = await client.responses.create(
        model="small", input="the second " + "word " * 300, previous_response_id=last.id
    )
    for truncation in ("disabled", "auto"):
        await client.responses.create(
            model="small", input="the third", previous_response_id=last.id, truncation=truncation
        )
        assert "the second" in asked_of(scene)
        assert ("the first" in asked_of(scene)) is (truncation == "disabled")
    items = await client.responses.input_items.list(last.id)
    assert "the second" in str(items.data[0].to_dict())


@EVERY_MODEL
async def test_items_are_named_instead_of_told(scene: Scene, model: str) -> None:
    alice, bob = await client_of(scene), await client_of(scene)
    first = await alice.responses.create(model=model, input="a question of mine")
    [asked] = (await alice.responses.input_items.list(first.id)).data
    named: Any = [{"type": "item_reference", "id": name} for name in (asked.id, first.output[-1].id)]
    await alice.responses.create(model=model, input=[*named, {"role": "user", "content": "and now?"}], store=False)
    assert "a question of mine" in asked_of(scene)
    assert "echo: a question of mine" in asked_of(scene)
    for each in named:
        with pytest.raises(openai.NotFoundError):
            await bob.responses.create(model=model, input=[each])


async def test_instructions_hold_natively_until_others_are_given(scene: Scene) -> None:
    person = await scene.person()
    client = await scene.openai(person, _strict_response_validation=True)
    made = await client.responses.create(model="gpt-4o", input="hi", instructions="Be brief.")
    [dialog] = (await person.http.get("/api/v1/dialogs")).json()["data"]
    path = f"/api/v1/dialogs/{dialog['id']}/messages"
    for content in ("one", "two"):
        assert (await person.http.post(path, json={"content": content})).status_code == 201
        assert "Be brief." in asked_of(scene)
    await client.responses.create(model="gpt-4o", input="three", conversation=dialog["id"])
    assert (await person.http.post(path, json={"content": "four"})).status_code == 201
    assert ("Be brief." in asked_of(scene), "hi" in asked_of(scene)) == (False, True), made.id
