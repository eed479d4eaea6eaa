"""Listening to an answer again, from wherever one was, and stopping it."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.http.answers import WORDS, Asked, Event, asking, dialog_of, events_in, finished, text_of
from tests.http.surface import books_are_right, check_error
from tests.support.gateway import Person, RunningGateway
from tests.support.upstream import Answer, CutAfter, Fail, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREDIT = 1_000_000
TEXT = "".join(WORDS)
CALLED_OFF = ("cancelled", "one zwei ")


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


@pytest_asyncio.fixture(loop_scope="module")
async def alice(any_shared_gateway: RunningGateway, upstream: Upstream) -> AsyncIterator[Person]:
    """A new user with credit; afterwards the books are right and nothing is held."""
    person = await any_shared_gateway.new_user(f"user-{uuid4()}")
    await any_shared_gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": CREDIT})
    yield person
    assert (await person.http.get("/api/v1/users/me/tokens")).json()["held"] == 0
    await books_are_right(any_shared_gateway)


async def spent(person: Person) -> int:
    return CREDIT - int((await person.http.get("/api/v1/users/me/tokens")).json()["balance"])


@pytest.mark.parametrize("seen", [None, 0, 1, 4, 6, *range(9, 16), *range(len(TEXT) - 1, len(TEXT) + 2), 10**11])
async def test_a_finished_answer_is_heard_from_any_position(
    seen: int | None, alice: Person, upstream: Upstream, any_shared_gateway: RunningGateway
) -> None:
    asked = await finished(alice, upstream)
    events = await asked.heard(seen)
    if seen is None:
        created = events.pop(0)
        assert (created.id, created.name, created.data["message"]["content"]) == (0, "message.created", "")
        assert created.data["user_message"]["content"] == "Count."
        assert created.data["message"]["status"] == "in_progress"
    last = events.pop()
    assert (last.id, last.name, last.data["message"]) == (len(TEXT) + 1, "message.completed", await asked.stored())
    assert text_of(events) == TEXT[seen or 0 :]
    assert [each.id for each in events] == ([len(TEXT)] if (seen or 0) < len(TEXT) else [])
    assert await spent(alice) == 12


@pytest.mark.parametrize("seen", ["-1", "1.5", "abc", "0x1", "१", "1 2", "1" * 13])
async def test_an_id_that_is_no_position_is_refused(seen: str, alice: Person, upstream: Upstream) -> None:
    asked = await finished(alice, upstream)
    for response in (
        await alice.http.get(f"{asked.url}/events", headers={b"last-event-id": seen.encode()}),
        await alice.http.get(f"{asked.url}/events", params={"last_event_id": seen}),
    ):
        assert check_error(response, 422)["param"] == "last-event-id"


async def test_many_listen_to_a_running_answer_each_from_where_they_were(alice: Person, upstream: Upstream) -> None:
    async with asking(alice, upstream) as asked:
        places = (None, 0, 1, 4, 6, len("one zwei "), len(TEXT), len(TEXT) + 9)
        listening = [asyncio.create_task(asked.heard(place)) for place in places]
        early = await alice.http.send(
            alice.http.build_request("GET", f"{asked.url}/events", headers={"last-event-id": "4"}), stream=True
        )
        assert early.status_code == 200
        heard = [event async for event in _first(events_in(early), 1)]
        await early.aclose()
        asked.gate.set()
        found = await asyncio.gather(*listening)
    assert heard == [Event(len("one zwei "), "message.delta", {"text": "zwei "})]
    stored = await asked.stored()
    assert (stored["status"], stored["content"]) == ("completed", TEXT)
    for place, events in zip(places, found, strict=True):
        assert text_of(events) == TEXT[place or 0 :]
        ids = [each.id for each in events]
        assert ids == sorted(set(ids))
        assert (events[-1].id, events[-1].data["message"]) == (len(TEXT) + 1, stored)
    assert await spent(alice) == 12


async def _first(events: AsyncIterator[Event], count: int) -> AsyncIterator[Event]:
    async for event in events:
        yield event
        count -= 1
        if not count:
            return


async def test_who_listens_again_is_answered_before_there_is_more(alice: Person, upstream: Upstream) -> None:
    seen = {"last-event-id": str(len("one zwei "))}
    async with (
        asking(alice, upstream) as asked,
        asyncio.timeout(10),
        alice.http.stream("GET", f"{asked.url}/events", headers=seen) as response,
    ):
        assert response.status_code == 200
        asked.gate.set()
        assert text_of([event async for event in events_in(response)]) == TEXT[len("one zwei ") :]


async def test_an_answer_that_broke_is_heard_to_where_it_broke(alice: Person, upstream: Upstream) -> None:
    asked = await finished(alice, upstream, behaviour=lambda words: CutAfter(2, Answer(chunks=words.chunks)))
    events = await asked.heard(3)
    assert text_of(events) == " zwei "
    assert (events[-1].name, events[-1].id) == ("message.failed", len("one zwei ") + 1)
    assert events[-1].data["message"]["status"] == "interrupted"
    assert events[-1].data["error"] == events[-1].data["message"]["error"]


async def test_an_answer_that_never_began_says_so_again(alice: Person, upstream: Upstream) -> None:
    upstream.always(Fail(status=503))
    path = await dialog_of(alice)
    await alice.http.post(path, json={"content": "Count.", "stream": True})
    answer = (await alice.http.get(path)).json()["data"][-1]
    asked = Asked(person=alice, path=path, answer_id=answer["id"], gate=asyncio.Event())
    (event,) = await asked.heard(0)
    assert (event.name, event.id, event.data["error"]["code"]) == ("message.failed", 1, "provider_failed")
    assert (await asked.cancel()).json() == await asked.stored()
    assert await spent(alice) == 0


async def test_only_ones_own_answers_are_there(
    alice: Person, upstream: Upstream, any_shared_gateway: RunningGateway
) -> None:
    asked = await finished(alice, upstream)
    question = (await asked.stored())["parent_id"]
    stranger = await any_shared_gateway.new_user(f"stranger-{uuid4()}")
    other = await dialog_of(alice)
    for method, end in (("GET", "events"), ("POST", "cancel")):
        for person, url in (
            (stranger, asked.url),
            (alice, f"{asked.path}/{question}"),
            (alice, f"{asked.path}/{uuid4()}"),
            (alice, f"{asked.path}/nonsense"),
            (alice, f"{other}/{asked.answer_id}"),
        ):
            check_error(await person.http.request(method, f"{url}/{end}"), 404)


async def test_a_dialog_deleted_meanwhile_ends_the_stream_and_the_call_is_charged(
    alice: Person, upstream: Upstream
) -> None:
    gate = asyncio.Event()
    upstream.always(Answer(chunks=WORDS, usage=Usage(input=7, output=5), gate=gate, gate_after=2))
    path = await dialog_of(alice)
    async with alice.http.stream("POST", path, json={"content": "Count.", "stream": True}) as response:
        created = await anext(events_in(response))
        url = f"{path}/{created.data['message']['id']}"
        async with alice.http.stream("GET", f"{url}/events") as listening:
            await upstream.wait_in_flight(1)
            assert (await alice.http.delete(path.removesuffix("/messages"))).status_code == 204
            gate.set()
            events = [event async for event in events_in(listening)]
    assert (events[-1].name, events[-1].data["error"]["code"]) == ("message.failed", "not_found")
    check_error(await alice.http.get(f"{url}/events"), 404)
    check_error(await alice.http.post(f"{url}/cancel"), 404)
    async with asyncio.timeout(10):
        while await spent(alice) != 12:
            await asyncio.sleep(0.01)


async def test_cancelling_stops_the_provider_and_keeps_and_charges_what_came(alice: Person, upstream: Upstream) -> None:
    async with asking(alice, upstream) as asked:
        listening = asyncio.create_task(asked.heard(0))
        await asyncio.sleep(0)
        response = await asked.cancel()
        await upstream.requests[-1].wait_disconnected()
        events = await listening
    stored = await asked.stored()
    assert (response.status_code, response.json()) == (200, stored)
    assert (stored["status"], stored["content"], stored["finish_reason"]) == (*CALLED_OFF, "cancelled")
    assert stored["error"] is None
    assert (events[-1].name, events[-1].data["message"]) == ("message.completed", stored)
    assert text_of(events) == "one zwei "
    cost = stored["usage"]["total_tokens"]
    assert stored["usage"]["estimated"] is True
    assert 0 < cost == await spent(alice) < 30
    again = await asked.cancel()
    assert (again.status_code, again.json(), await spent(alice)) == (200, stored, cost)
    assert text_of(await asked.heard(4)) == "zwei "


async def test_cancelling_twice_at_once_is_once(alice: Person, upstream: Upstream) -> None:
    async with asking(alice, upstream) as asked:
        first, second = await asyncio.gather(asked.cancel(), asked.cancel())
    assert first.json() == second.json() == await asked.stored()
    assert (first.json()["status"], first.json()["content"]) == CALLED_OFF
    entries = (await alice.http.get("/api/v1/users/me/tokens/history")).json()["data"]
    assert [entry["kind"] for entry in entries] == ["charge", "top_up"]


async def test_a_finished_answer_is_not_cancelled_any_more(alice: Person, upstream: Upstream) -> None:
    asked = await finished(alice, upstream)
    stored = await asked.stored()
    response = await asked.cancel()
    assert (response.status_code, response.json(), stored["status"]) == (200, stored, "completed")
    assert await spent(alice) == 12


async def test_an_answer_cancelled_before_its_first_word_costs_nothing(alice: Person, upstream: Upstream) -> None:
    async with asking(alice, upstream, first_words=0) as asked:
        await upstream.wait_in_flight(1)
        response = await asked.cancel()
        await upstream.requests[-1].wait_disconnected()
    stored = await asked.stored()
    assert (response.status_code, response.json()) == (200, stored)
    assert (stored["status"], stored["content"], stored["finish_reason"]) == ("failed", "", "cancelled")
    assert await spent(alice) == 0


async def test_a_cancelled_answer_can_be_built_upon(alice: Person, upstream: Upstream) -> None:
    async with asking(alice, upstream) as asked:
        await asked.cancel()
        upstream.always(Answer(text="Fine."))
        assert (await alice.http.post(asked.path, json={"content": "Go on."})).status_code == 201
    heard = [message["content"] for message in upstream.requests[-1].json["messages"]]
    assert heard == ["Count.", "one zwei ", "Go on."]


async def test_a_whole_answer_is_cancelled_too(alice: Person, upstream: Upstream) -> None:
    gate = asyncio.Event()
    upstream.always(Answer(text="Never said.", gate=gate))
    path = await dialog_of(alice)
    waiting = asyncio.create_task(alice.http.post(path, json={"content": "Count."}))
    await upstream.wait_in_flight(1)
    answer = (await alice.http.get(path)).json()["data"][-1]
    assert answer["status"] == "in_progress"
    cancelled = await alice.http.post(f"{path}/{answer['id']}/cancel")
    assert cancelled.json()["status"] == "failed"
    await upstream.requests[-1].wait_disconnected()
    check_error(await waiting, 502)
    assert await spent(alice) == 0
