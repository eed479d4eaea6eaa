"""Answers as they come: the order of events, and callers who leave before the end."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import accumulate
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.http.surface import CHAT, MESSAGES, books_are_right
from tests.support.gateway import Person, RunningGateway
from tests.support.upstream import Answer, CutAfter, Fail, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREDIT = 1_000_000
WORDS = ("one ", "two ", "three ", "four ", "five ")


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


@pytest_asyncio.fixture(loop_scope="module")
async def alice(any_shared_gateway: RunningGateway, upstream: Upstream) -> AsyncIterator[Person]:
    """A new user with credit; afterwards the books are right."""
    person = await any_shared_gateway.new_user(f"user-{uuid4()}")
    await any_shared_gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": CREDIT})
    yield person
    await books_are_right(any_shared_gateway)


async def opened(person: Person, **fields: Any) -> str:
    """The path of a new dialog's messages."""
    dialog = (await person.http.post("/api/v1/dialogs", json={"model": "gpt-4o", **fields})).json()
    return f"/api/v1/dialogs/{dialog['id']}/messages"


def events_of(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(id, event, data) of a stream."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines["id"], lines["event"], json.loads(lines["data"])))
    return found


async def standing_of(person: Person) -> dict[str, Any]:
    found: dict[str, Any] = (await person.http.get("/api/v1/users/me/tokens")).json()
    return found


async def settled(person: Person, *, used: bool = True) -> dict[str, Any]:
    """The standing once nothing is held any more: a caller who left is not told when that is."""
    async with asyncio.timeout(10):
        while (found := await standing_of(person))["held"] or (used and not found["total_used"]):
            await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize(("model", "dropped"), [("gpt-4o", ["top_k"]), ("claude-3-opus", ["seed"])])
async def test_what_the_model_was_not_told_of_is_named_with_the_whole_answer(
    model: str, dropped: list[str], alice: Person, upstream: Upstream
) -> None:
    upstream.always(Answer(chunks=WORDS))
    path = await opened(alice, model=model)
    question = {"content": "Count.", "params": {"seed": 3, "top_k": 5}}
    whole = await alice.http.post(path, json=question)
    assert whole.headers["x-gateway-dropped-params"] == ",".join(dropped)
    streamed = events_of((await alice.http.post(path, json={**question, "stream": True})).text)
    assert [each[2].get("dropped_params") for each in streamed] == [*[None] * (len(streamed) - 1), dropped]
    silent = events_of((await alice.http.post(path, json={"content": "Count.", "stream": True})).text)
    assert "dropped_params" not in silent[-1][2]
    assert silent[-1][2]["message"]["dropped_params"] == []
    assert whole.json()["message"]["dropped_params"] == streamed[-1][2]["message"]["dropped_params"] == dropped
    assert streamed[0][2]["message"]["dropped_params"] == []


async def test_what_the_model_was_not_told_of_is_named_whenever_the_answer_is_asked_for(
    alice: Person, upstream: Upstream
) -> None:
    upstream.always(Answer(chunks=WORDS))
    path = await opened(alice, model="claude-3-opus")
    question = {"content": "Count.", "params": {"seed": 3}}
    whole = (await alice.http.post(path, json=question)).json()["message"]
    stored = (await alice.http.get(f"{path}/{whole['id']}")).json()
    assert stored == whole
    again = events_of((await alice.http.get(f"{path}/{whole['id']}/events")).text)
    assert (again[-1][2]["dropped_params"], again[-1][2]["message"]) == (["seed"], stored)
    key = {"Idempotency-Key": "once"}
    first, second = [
        events_of((await alice.http.post(path, json={**question, "stream": True}, headers=key)).text) for _ in range(2)
    ]
    assert first[-1] == second[-1]
    assert second[-1][2]["dropped_params"] == ["seed"]
    assert second[0][2]["message"]["dropped_params"] == []


@pytest.mark.parametrize("model", ["gpt-4o", "claude-3-opus", "gemini-2.5-flash"])
async def test_events_are_numbered_and_end_with_what_was_stored(model: str, alice: Person, upstream: Upstream) -> None:
    upstream.always(Answer(chunks=WORDS, usage=Usage(input=7, output=5)))
    path = await opened(alice, model=model)
    response = await alice.http.post(path, json={"content": "Count.", "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    events = events_of(response.text)
    ends = accumulate(len(each[2]["text"]) for each in events[1:-1])
    assert [each[0] for each in events] == ["0", *(str(end) for end in ends), str(len("".join(WORDS)) + 1)]
    names = [each[1] for each in events]
    assert names == ["message.created", *["message.delta"] * (len(events) - 2), "message.completed"]
    assert "".join(each[2]["text"] for each in events[1:-1]) == "".join(WORDS)
    created, completed = events[0][2]["message"], events[-1][2]["message"]
    assert (created["status"], created["content"], created["id"]) == ("in_progress", "", completed["id"])
    assert (completed["status"], completed["content"]) == ("completed", "".join(WORDS))
    assert (completed["usage"]["total_tokens"], completed["model"]) == (12, model)
    assert (await alice.http.get(path)).json()["data"] == [events[0][2]["user_message"], completed]
    assert (await standing_of(alice))["balance"] == CREDIT - 12


async def test_a_refusal_comes_in_pieces_like_any_answer(alice: Person, upstream: Upstream) -> None:
    upstream.always(Answer(refusal="I must not."))
    path = await opened(alice)
    events = events_of((await alice.http.post(path, json={"content": "Hi", "stream": True})).text)
    assert "".join(data["text"] for _, name, data in events if name == "message.delta") == "I must not."
    whole = events[-1][2]["message"]
    assert (whole["content"], events[-1][0]) == ("I must not.", str(len("I must not.") + 1))
    again = await alice.http.get(f"{path}/{whole['id']}/events", headers={"last-event-id": "2"})
    assert [data.get("text") for _, _, data in events_of(again.text.removeprefix(": keepalive\n\n"))] == [
        "must not.",
        None,
    ]


async def test_a_stream_that_never_begins_ends_with_message_failed(alice: Person, upstream: Upstream) -> None:
    upstream.always(Fail(status=503))
    path = await opened(alice)
    response = await alice.http.post(path, json={"content": "x", "stream": True})
    (_, first, _), (number, last, data) = events_of(response.text)
    assert (first, number, last) == ("message.created", "1", "message.failed")
    assert data["error"]["code"] == "provider_failed"
    assert (data["message"]["status"], data["message"]["cost_micro_usd"]) == ("failed", 0)
    assert (await alice.http.get(path)).json()["data"][-1] == data["message"]
    standing = await standing_of(alice)
    assert (standing["balance"], standing["held"]) == (CREDIT, 0)


async def test_a_stream_that_breaks_ends_with_what_came_and_can_be_built_upon(
    alice: Person, upstream: Upstream
) -> None:
    upstream.script(CutAfter(2, Answer(chunks=WORDS)))
    path = await opened(alice)
    events = events_of((await alice.http.post(path, json={"content": "Count.", "stream": True})).text)
    assert [each[1] for each in events] == ["message.created", "message.delta", "message.delta", "message.failed"]
    last = events[-1][2]
    assert (last["message"]["status"], last["message"]["content"]) == ("interrupted", "one two ")
    assert last["message"]["usage"]["estimated"] is True
    assert last["error"]["message"]
    await alice.http.post(path, json={"content": "Go on."})
    heard = [message["content"] for message in upstream.requests[-1].json["messages"]]
    assert heard == ["Count.", "one two ", "Go on."]


async def test_a_dialog_goes_on_when_its_caller_leaves(alice: Person, upstream: Upstream) -> None:
    gate = asyncio.Event()
    upstream.always(Answer(chunks=WORDS, usage=Usage(input=7, output=5), gate=gate, gate_after=2))
    path = await opened(alice)
    async with alice.http.stream("POST", path, json={"content": "Count.", "stream": True}) as response:
        async for line in response.aiter_lines():
            if "two " in line:
                break
    assert (await standing_of(alice))["held"] > 0
    gate.set()
    standing = await settled(alice)
    assert standing["balance"] == CREDIT - 12
    answer = (await alice.http.get(path)).json()["data"][-1]
    assert (answer["status"], answer["content"]) == ("completed", "".join(WORDS))
    assert not upstream.requests[-1].disconnected
    assert upstream.requests[-1].finished.is_set()


async def test_a_whole_answer_is_kept_when_its_caller_leaves(alice: Person, upstream: Upstream) -> None:
    gate = asyncio.Event()
    upstream.always(Answer(text="Kept.", usage=Usage(input=7, output=5), gate=gate))
    path = await opened(alice)
    asking = asyncio.create_task(alice.http.post(path, json={"content": "x"}))
    await upstream.wait_in_flight(1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    gate.set()
    assert (await settled(alice))["balance"] == CREDIT - 12
    assert (await alice.http.get(path)).json()["data"][-1]["content"] == "Kept."


@pytest.mark.parametrize("model", ["gpt-4o", "claude-3-opus", "gemini-2.5-flash"])
@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/messages", MESSAGES)], ids=["openai", "anthropic"]
)
async def test_a_compatible_caller_who_leaves_cancels_the_provider_and_pays_for_what_came(
    path: str, body: dict[str, Any], model: str, alice: Person, upstream: Upstream
) -> None:
    gate = asyncio.Event()
    upstream.always(Answer(chunks=WORDS, gate=gate, gate_after=2))
    async with alice.http.stream("POST", path, json={**body, "model": model, "stream": True}) as response:
        async for line in response.aiter_lines():
            if "two " in line:
                break
    await upstream.requests[-1].wait_disconnected(1)
    standing = await settled(alice)
    assert 0 < CREDIT - standing["balance"] < 30
    assert standing["total_used"] == CREDIT - standing["balance"]
    usage = (await alice.http.get("/api/v1/usage")).json()["data"]
    assert [(row["model"], row["calls"]) for row in usage] == [(model, 1)]


async def test_a_compatible_caller_who_leaves_before_the_first_word_pays_nothing(
    alice: Person, upstream: Upstream
) -> None:
    gate = asyncio.Event()
    upstream.always(Answer(chunks=WORDS, gate=gate))
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/messages", MESSAGES)):
        asking = asyncio.create_task(alice.http.post(path, json={**body, "stream": True}))
        await upstream.wait_in_flight(1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await upstream.requests[-1].wait_disconnected(1)
        standing = await settled(alice, used=False)
        assert standing["balance"] == CREDIT
    gate.set()


async def test_a_stream_whose_first_event_is_an_error_is_an_ordinary_answer(alice: Person, upstream: Upstream) -> None:
    upstream.always(Fail(status=500))
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/messages", MESSAGES)):
        response = await alice.http.post(path, json={**body, "stream": True})
        assert response.status_code == 502
        assert response.headers["content-type"] == "application/json"
