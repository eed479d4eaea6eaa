"""The stateful Responses API where several things happen to the same response or conversation at once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import orjson
import pytest
import pytest_asyncio

from tests.http.surface import books_are_right, check_answer, check_error
from tests.support.gateway import Person, RunningGateway
from tests.support.upstream import Answer, Fail, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREDIT = 1_000_000
CALLERS = 8
USAGE = Usage(input=7, output=5)
COST = 12
WORDS = ("one ", "two ", "three ", "four ", "five")
TEXT = "".join(WORDS)
EVERY_MODEL = pytest.mark.parametrize("model", ["gpt-4o", "claude-3-opus"], ids=["relayed", "translated"])
URL = "/v1/responses"
ENDED = ("completed", "cancelled", "failed", "incomplete")


@dataclass(kw_only=True)
class Scene:
    """Alice, whose answers wait for the gate, if there is one."""

    alice: Person
    upstream: Upstream

    def gated(self, after: int | None = None) -> asyncio.Event:
        """From now on answers wait for the gate that is returned, after so many words."""
        gate = asyncio.Event()
        self.upstream.always(Answer(chunks=WORDS, usage=USAGE, gate=gate, gate_after=after))
        return gate

    async def ask(self, headers: dict[str, str] | None = None, **more: Any) -> httpx2.Response:
        body = {"model": "claude-3-opus", "input": f"question {uuid4().hex}", **more}
        return await self.alice.http.post(URL, json=body, headers=headers or {})

    async def asked(self, **more: Any) -> dict[str, Any]:
        response = await self.ask(**more)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def conversation(self) -> str:
        return str((await self.alice.http.post("/v1/conversations", json={})).json()["id"])

    async def told(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.alice.http.get(f"{URL}/{name}")).json()
        return found

    async def ended(self, name: str) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while (found := await self.told(name))["status"] not in ENDED:
                await asyncio.sleep(0.01)
        return found

    async def said(self, conversation: str) -> list[str]:
        """The texts of a conversation, oldest first."""
        url = f"/v1/conversations/{conversation}/items?order=asc&limit=100"
        items = (await self.alice.http.get(url)).json()["data"]
        return ["".join(part["text"] for part in item["content"]) for item in items]

    async def add(self, conversation: str, text: str) -> httpx2.Response:
        items = [{"type": "message", "role": "user", "content": text}]
        return await self.alice.http.post(f"/v1/conversations/{conversation}/items", json={"items": items})

    async def spent(self) -> int:
        """Once nothing is held."""
        async with asyncio.timeout(10):
            while (found := (await self.alice.http.get("/api/v1/users/me/tokens")).json())["held"]:
                await asyncio.sleep(0.01)
        return CREDIT - int(found["balance"])


@pytest_asyncio.fixture(loop_scope="module")
async def scene(any_shared_gateway: RunningGateway, shared_upstream: Upstream) -> AsyncIterator[Scene]:
    shared_upstream.reset()
    shared_upstream.always(Answer(chunks=WORDS, usage=USAGE))
    alice = await any_shared_gateway.new_user(f"user-{uuid4()}")
    await any_shared_gateway.http.post(f"/api/v1/admin/users/{alice.id}/tokens", json={"amount": CREDIT})
    yield Scene(alice=alice, upstream=shared_upstream)
    await books_are_right(any_shared_gateway)


def events_of(text: str) -> list[dict[str, Any]]:
    return [orjson.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def text_of(response: dict[str, Any]) -> str:
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in messages for part in item["content"])


@EVERY_MODEL
async def test_answers_in_one_conversation_at_once_are_all_in_it(scene: Scene, model: str) -> None:
    name = await scene.conversation()
    gate = scene.gated()
    asking = [
        asyncio.create_task(scene.asked(model=model, conversation=name, input=f"no. {number}"))
        for number in range(CALLERS)
    ]
    await scene.upstream.wait_in_flight(CALLERS)
    gate.set()
    assert [text_of(each) for each in await asyncio.gather(*asking)] == [TEXT] * CALLERS
    said = await scene.said(name)
    assert sorted(said[::2]) == [f"no. {number}" for number in range(CALLERS)]
    assert said[1::2] == [TEXT] * CALLERS
    assert await scene.spent() == CALLERS * COST


@EVERY_MODEL
async def test_what_is_added_while_an_answer_is_given_stays(scene: Scene, model: str) -> None:
    name = await scene.conversation()
    assert (await scene.add(name, "first")).status_code == 200
    gate = scene.gated()
    asking = asyncio.create_task(scene.asked(model=model, conversation=name, input="asked"))
    await scene.upstream.wait_in_flight(1)
    added = await asyncio.gather(*(scene.add(name, f"no. {number}") for number in range(CALLERS)))
    assert {each.status_code for each in added} == {200}
    gate.set()
    await asking
    said = await scene.said(name)
    assert (said[0], said[-2:]) == ("first", ["asked", TEXT])
    assert sorted(said[1:-2]) == [f"no. {number}" for number in range(CALLERS)]


@EVERY_MODEL
async def test_an_answer_that_is_continued_twice_at_once_has_two_branches(scene: Scene, model: str) -> None:
    ground = await scene.asked(model=model, input="the ground")
    gate = scene.gated()
    asking = [
        asyncio.create_task(scene.asked(model=model, previous_response_id=ground["id"], input=f"no. {number}"))
        for number in range(2)
    ]
    await scene.upstream.wait_in_flight(2)
    gate.set()
    for number, branch in enumerate(await asyncio.gather(*asking)):
        await scene.asked(model=model, previous_response_id=branch["id"], input="on")
        heard = str(scene.upstream.requests[-1].json)
        assert "the ground" in heard
        assert [f"no. {each}" in heard for each in range(2)] == [each == number for each in range(2)]
    assert await scene.spent() == 5 * COST


async def test_cancelling_races_with_the_end(scene: Scene) -> None:
    cost = 0
    for _ in range(CALLERS):
        gate = scene.gated(after=4)
        made = await scene.asked(background=True)
        await scene.upstream.wait_in_flight(1)
        gate.set()
        answers = await asyncio.gather(*(scene.alice.http.post(f"{URL}/{made['id']}/cancel") for _ in range(3)))
        for each in answers:
            check_answer(each)
            assert each.status_code == 200, each.text
        ended = await scene.ended(made["id"])
        assert {orjson.dumps(each.json()) for each in answers} == {orjson.dumps(ended)}
        assert ended["status"] in ("completed", "cancelled", "failed")
        cost += 0 if ended["usage"] is None else ended["usage"]["total_tokens"]
        assert await scene.spent() == cost
        assert TEXT.startswith(text_of(ended))


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_of_one_key_in_the_background_one_answer_is_begun(scene: Scene, is_stream: bool) -> None:
    gate = scene.gated(after=2)
    key = {"idempotency-key": uuid4().hex}
    body = {"input": "the same", "background": True, "stream": is_stream}
    asking = [asyncio.create_task(scene.ask(key, **body)) for _ in range(CALLERS)]
    await scene.upstream.wait_in_flight(1)
    if is_stream:
        gate.set()
    answers = await asyncio.gather(*asking)
    for each in answers:
        assert each.status_code == 200, each.text
    assert sum("idempotent-replayed" not in each.headers for each in answers) == 1
    told = [events_of(each.text)[0]["response"] if is_stream else each.json() for each in answers]
    assert len({each["id"] for each in told}) == 1
    assert {each["status"] for each in told} <= {"queued", "in_progress"}
    gate.set()
    ended = await scene.ended(told[0]["id"])
    assert text_of(ended) == TEXT
    again = await scene.ask(key, **body)
    last = events_of(again.text)[-1]["response"] if is_stream else again.json()
    assert (last["id"], last["status"], text_of(last)) == (ended["id"], "completed", TEXT)
    assert (len(scene.upstream.requests), await scene.spent()) == (1, COST)


async def test_a_key_whose_background_answer_failed_is_free(scene: Scene) -> None:
    key = {"idempotency-key": uuid4().hex}
    scene.upstream.always(Fail(status=500))
    first = (await scene.ask(key, input="the same", background=True)).json()
    assert (await scene.ended(first["id"]))["status"] == "failed"
    scene.upstream.always(Answer(chunks=WORDS, usage=USAGE))
    second = (await scene.ask(key, input="the same", background=True)).json()
    assert second["id"] != first["id"]
    assert (await scene.ended(second["id"]))["status"] == "completed"
    assert await scene.spent() == COST


async def test_what_is_deleted_while_it_is_told_is_whole_or_gone(scene: Scene) -> None:
    for _ in range(CALLERS):
        made = await scene.asked()
        url = f"{URL}/{made['id']}"
        deleting = [scene.alice.http.delete(url) for _ in range(2)]
        telling = [scene.alice.http.get(url), scene.alice.http.get(url, params={"stream": "true"})]
        *deleted, told, streamed = await asyncio.gather(*deleting, *telling)
        assert sorted(each.status_code for each in deleted) in ([200, 200], [200, 404])
        for each in (told, streamed):
            check_answer(each)
            assert each.status_code in (200, 404)
        if told.status_code == 200:
            assert text_of(told.json()) == TEXT
        if streamed.status_code == 200:
            assert events_of(streamed.text)[-1]["type"] in ("response.completed", "response.failed")
        check_error(await scene.alice.http.get(url), 404)
    assert (await scene.alice.http.get("/api/v1/dialogs")).json()["data"] == []
    assert await scene.spent() == CALLERS * COST


@EVERY_MODEL
async def test_an_answer_is_deleted_while_it_is_continued(scene: Scene, model: str) -> None:
    ground = await scene.asked(model=model, input="the ground")
    gate = scene.gated()
    asking = asyncio.create_task(scene.asked(model=model, previous_response_id=ground["id"]))
    await scene.upstream.wait_in_flight(1)
    assert (await scene.alice.http.delete(f"{URL}/{ground['id']}")).status_code == 200
    gate.set()
    above = await asking
    check_error(await scene.alice.http.get(f"{URL}/{ground['id']}"), 404)
    await scene.asked(model=model, previous_response_id=above["id"])
    assert "the ground" in str(scene.upstream.requests[-1].json)
    assert await scene.spent() == 3 * COST


async def test_what_was_forgotten_goes_with_the_last_that_built_upon_it(scene: Scene) -> None:
    first = await scene.asked()
    second = await scene.asked(previous_response_id=first["id"])
    third = await scene.asked(previous_response_id=second["id"])
    branch = await scene.asked(previous_response_id=first["id"])
    for each in (first, second, third):
        assert (await scene.alice.http.delete(f"{URL}/{each['id']}")).status_code == 200
    [dialog] = (await scene.alice.http.get("/api/v1/dialogs")).json()["data"]
    left = (await scene.alice.http.get(f"/api/v1/dialogs/{dialog['id']}/messages")).json()["data"]
    assert [f"resp_{each['id'].replace('-', '')}" for each in left[1::2]] == [first["id"], branch["id"]]
    assert (await scene.alice.http.delete(f"{URL}/{branch['id']}")).status_code == 200
    assert (await scene.alice.http.get("/api/v1/dialogs")).json()["data"] == []


@EVERY_MODEL
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_a_conversation_deleted_meanwhile_leaves_the_answer_charged(
    scene: Scene, model: str, is_stream: bool
) -> None:
    name = await scene.conversation()
    gate = scene.gated()
    asking = asyncio.create_task(scene.ask(model=model, conversation=name, stream=is_stream))
    await scene.upstream.wait_in_flight(1)
    assert (await scene.alice.http.delete(f"/v1/conversations/{name}")).status_code == 200
    gate.set()
    answered = await asking
    assert answered.status_code == 200, answered.text
    response = events_of(answered.text)[-1]["response"] if is_stream else answered.json()
    assert (response["status"], text_of(response)) == ("completed", TEXT)
    check_error(await scene.alice.http.get(f"{URL}/{response['id']}"), 404)
    assert await scene.spent() == COST


async def test_a_background_answer_whose_conversation_is_deleted_is_gone_and_charged(scene: Scene) -> None:
    name = await scene.conversation()
    gate = scene.gated(after=2)
    made = await scene.asked(conversation=name, background=True)
    await scene.upstream.wait_in_flight(1)
    listening = asyncio.create_task(scene.alice.http.get(f"{URL}/{made['id']}", params={"stream": "true"}))
    assert (await scene.alice.http.delete(f"/v1/conversations/{name}")).status_code == 200
    check_error(await scene.alice.http.post(f"{URL}/{made['id']}/cancel"), 404)
    gate.set()
    heard = await listening
    assert heard.status_code in (200, 404)
    if heard.status_code == 200:
        assert events_of(heard.text)[-1]["type"] in ("response.completed", "response.failed")
    assert await scene.spent() == COST


async def test_a_conversation_is_deleted_as_it_is_asked(scene: Scene) -> None:
    answered = 0
    for _ in range(CALLERS):
        name = await scene.conversation()
        asked, added, deleted = await asyncio.gather(
            scene.ask(conversation=name), scene.add(name, "more"), scene.alice.http.delete(f"/v1/conversations/{name}")
        )
        assert deleted.status_code == 200
        for each in (asked, added):
            check_answer(each)
            assert each.status_code in (200, 404), each.text
        answered += asked.status_code == 200
    assert await scene.spent() == answered * COST


async def test_who_resumes_what_says_nothing_more_yet_is_answered_at_once(scene: Scene) -> None:
    gate = scene.gated(after=2)
    made = await scene.asked(background=True)
    url = f"{URL}/{made['id']}"
    seen: list[dict[str, Any]] = []
    async with scene.alice.http.stream("GET", url, params={"stream": "true"}) as first:
        async for line in first.aiter_lines():
            seen += events_of(line)
            if "".join(each["delta"] for each in seen if "delta" in each) == "one two ":
                break
    query = {"stream": "true", "starting_after": str(seen[-1]["sequence_number"])}
    async with asyncio.timeout(10), scene.alice.http.stream("GET", url, params=query) as resumed:
        assert resumed.status_code == 200
        gate.set()
        rest = [event async for line in resumed.aiter_lines() for event in events_of(line)]
    assert "".join(each["delta"] for each in rest if "delta" in each) == "three four five"
    assert rest[-1]["type"] == "response.completed"


async def test_a_cancelled_stream_in_the_background_says_so_to_all_who_listen(scene: Scene) -> None:
    scene.gated(after=2)
    async with scene.alice.http.stream(
        "POST", URL, json={"model": "claude-3-opus", "input": "x", "background": True, "stream": True}
    ) as stream:
        lines = stream.aiter_lines()
        heard: list[dict[str, Any]] = []
        while not heard or "delta" not in heard[-1]:
            heard += events_of(await anext(lines))
        url = f"{URL}/{heard[0]['response']['id']}"
        listening = asyncio.create_task(scene.alice.http.get(url, params={"stream": "true"}))
        cancelled = (await scene.alice.http.post(f"{url}/cancel")).json()
        heard += [event async for line in lines for event in events_of(line)]
    again = events_of((await scene.alice.http.get(url, params={"stream": "true"})).text)
    for events in (heard, events_of((await listening).text), again):
        assert (events[-1]["type"], events[-1]["response"]["status"]) == ("response.incomplete", "cancelled")
        assert text_of(events[-1]["response"]) == text_of(cancelled)
        assert events[-1]["sequence_number"] == again[-1]["sequence_number"]
    assert await scene.spent() == cancelled["usage"]["total_tokens"]


async def test_who_listens_to_a_whole_answer_does_not_stop_it_by_leaving(scene: Scene) -> None:
    gate = scene.gated()
    asking = asyncio.create_task(scene.asked())
    await scene.upstream.wait_in_flight(1)
    [dialog] = (await scene.alice.http.get("/api/v1/dialogs")).json()["data"]
    answer = (await scene.alice.http.get(f"/api/v1/dialogs/{dialog['id']}/messages")).json()["data"][-1]
    url = f"{URL}/resp_{answer['id'].replace('-', '')}"
    async with scene.alice.http.stream("GET", url, params={"stream": "true"}) as listening:
        await anext(listening.aiter_lines())
    gate.set()
    assert text_of(await asking) == TEXT


async def test_items_of_one_answer_that_are_deleted_at_once_are_all_gone(scene: Scene) -> None:
    calls = [
        {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": "{}"} for number in range(CALLERS)
    ]
    name = str((await scene.alice.http.post("/v1/conversations", json={"items": calls})).json()["id"])
    url = f"/v1/conversations/{name}/items"
    ids = [item["id"] for item in (await scene.alice.http.get(f"{url}?order=asc")).json()["data"]]
    deleted = await asyncio.gather(*(scene.alice.http.delete(f"{url}/{each}") for each in ids[:-1] * 2))
    assert sorted(each.status_code for each in deleted) == [200] * (CALLERS - 1) + [404] * (CALLERS - 1)
    left = (await scene.alice.http.get(url)).json()["data"]
    assert [(item["id"], item["call_id"]) for item in left] == [(ids[-1], f"c{CALLERS - 1}")]
