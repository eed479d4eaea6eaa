"""Two gateways on one database are one: for a key, for an answer that is heard again, for one that is stopped."""

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import orjson
import pytest
import pytest_asyncio

from tests.http.answers import WORDS, Asked, asking, text_of
from tests.http.surface import check_error
from tests.http.ways import STREAMS, WHOLES, Way
from tests.http.ways import text_of as words_of
from tests.processes.conftest import client_of, eventually
from tests.support.chaos import Replicas, admit, replicas_of
from tests.support.gateway import GatewayProcess, Person
from tests.support.postgres import PostgresServer
from tests.support.upstream import Answer, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREDIT = 100_000
CALLERS = 16
TEXT = "".join(WORDS)
BEGUN = "".join(WORDS[:2])
SWEPT_WITHIN_S = 30
KEY = {"idempotency-key": "one for both"}
WHOLE, STREAM = ({str(way): way for way in ways} for ways in (WHOLES, STREAMS))
RELAYED_AND_TRANSLATED = [STREAM["openai relayed stream"], STREAM["anthropic translated stream"]]


@dataclass(kw_only=True)
class Town:
    """Alice, as a client of either gateway."""

    replicas: Replicas
    upstream: Upstream
    here: Person
    there: Person

    @property
    def gateway(self) -> GatewayProcess:
        """The one that is called `here`."""
        return self.replicas.gateways[0]

    async def standing(self) -> tuple[int, int]:
        """What is spent and what is held."""
        found = (await self.there.http.get("/api/v1/users/me/tokens")).json()
        return CREDIT - found["balance"], found["held"]

    async def is_noted(self) -> bool:
        """Whether something delivered was noted in a hold that is open."""
        database = await asyncpg.connect(self.replicas.database_url)
        try:
            noted = "SELECT count(*) FROM holds WHERE noted IS NOT NULL AND user_id = $1"
            return bool(await database.fetchval(noted, UUID(self.here.id)))
        finally:
            await database.close()

    async def crash(self) -> None:
        """Kill the gateway here and wait until the other has swept up after it."""
        self.gateway.signal(signal.SIGKILL)
        await self.gateway.wait()

        async def is_swept() -> bool:
            return (await self.standing())[1] == 0

        await eventually(is_swept, timeout_s=SWEPT_WITHIN_S)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def provider() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def replicas(
    postgres_server: PostgresServer, provider: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Replicas]:
    """Afterwards the books are right."""
    home = tmp_path_factory.mktemp("replicas")
    async with postgres_server.database() as url, replicas_of(2, url, provider, home) as started:
        yield started
        assert not await asyncio.to_thread(started.verify)


@pytest_asyncio.fixture(loop_scope="module")
async def town(replicas: Replicas, provider: Upstream) -> AsyncIterator[Town]:
    """With a new user. Afterwards nothing is held and both run."""
    provider.reset()
    provider.always(Answer(chunks=WORDS, usage=Usage(input=7, output=5)))
    alice = await admit(replicas.addresses[1], f"user-{uuid4()}", {"tokens": CREDIT})
    here, there = (
        Person(id=alice.id, secret=alice.secret, http=client_of(gateway, alice.secret)) for gateway in replicas.gateways
    )
    async with here.http, there.http:
        made = Town(replicas=replicas, upstream=provider, here=here, there=there)
        yield made
        assert (await made.standing())[1] == 0
    if not made.gateway.is_running:
        await made.gateway.start()


@pytest.mark.parametrize(
    "way", [WHOLE["native"], WHOLE["openai relayed"], STREAM["anthropic translated stream"]], ids=str
)
async def test_of_one_key_at_both_at_once_one_call_is_made(way: Way, town: Town) -> None:
    gate = asyncio.Event()
    town.upstream.always(Answer(chunks=WORDS, usage=Usage(input=7, output=5), gate=gate))
    send = await way.prepare(town.here)
    senders = [send, replace(send, http=town.there.http)] * (CALLERS // 2)
    sending = [asyncio.create_task(each(KEY)) for each in senders]
    await town.upstream.wait_in_flight(1)
    gate.set()
    answers = await asyncio.gather(*sending)
    given = [answer for answer in answers if answer.status_code == way.status]
    assert {words_of(answer, way) for answer in given} == {TEXT}
    assert sum("idempotent-replayed" not in answer.headers for answer in given) == 1
    for answer in answers:
        if answer not in given:
            assert not way.stream
            check_error(answer, 409)
    assert words_of(await replace(send, http=town.there.http)(KEY), way) == TEXT
    assert len(town.upstream.requests) == 1
    assert await town.standing() == (12, 0)


@pytest.mark.parametrize("way", STREAMS, ids=str)
async def test_a_stream_that_runs_here_is_joined_there(way: Way, town: Town) -> None:
    gate = asyncio.Event()
    town.upstream.always(Answer(chunks=WORDS, usage=Usage(input=7, output=5), gate=gate, gate_after=2))
    send = await way.prepare(town.here)
    await way.hang_up_after(town.here, send.path, KEY, WORDS[1].strip().encode())
    joining = asyncio.create_task(replace(send, http=town.there.http)(KEY))
    await asyncio.sleep(1)
    assert not joining.done()
    gate.set()
    joined = await joining
    assert (words_of(joined, way), joined.headers["idempotent-replayed"]) == (TEXT, "true")
    assert len(town.upstream.requests) == 1
    assert await town.standing() == (12, 0)


@pytest.mark.parametrize("way", RELAYED_AND_TRANSLATED, ids=str)
async def test_who_repeats_what_was_cut_off_by_a_crash_is_told_so_and_not_charged_again(way: Way, town: Town) -> None:
    town.upstream.always(Answer(chunks=WORDS, gate=asyncio.Event(), gate_after=2))
    send = await way.prepare(town.here)
    await way.hang_up_after(town.here, send.path, KEY, WORDS[1].strip().encode())
    await eventually(town.is_noted)
    await town.crash()
    spent, _ = await town.standing()
    assert spent > 0
    refused = await replace(send, http=town.there.http)(KEY)
    assert "was cut off; what it delivered was charged" in check_error(refused, 409)["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert await town.standing() == (spent, 0)
    assert len(town.upstream.requests) == 1


async def test_a_key_whose_call_delivered_nothing_before_a_crash_is_free(town: Town) -> None:
    way = WHOLE["openai relayed"]
    town.upstream.always(Answer(chunks=WORDS, gate=asyncio.Event()))
    send = await way.prepare(town.here)
    cut_off = asyncio.create_task(send(KEY))
    await town.upstream.wait_in_flight(1)
    await town.crash()
    with pytest.raises(httpx2.TransportError):
        await cut_off
    assert await town.standing() == (0, 0)
    town.upstream.always(Answer(chunks=WORDS, usage=Usage(input=7, output=5)))
    again = await replace(send, http=town.there.http)(KEY)
    assert words_of(again, way) == TEXT
    assert "idempotent-replayed" not in again.headers
    assert await town.standing() == (12, 0)


@pytest.mark.parametrize("seen", [None, 0, 4, len(BEGUN)])
async def test_an_answer_that_is_made_here_is_heard_there_from_any_position(seen: int | None, town: Town) -> None:
    async with asking(town.here, town.upstream) as asked:
        hearing = asyncio.create_task(asked.heard(seen, town.there))
        await eventually(town.is_noted)
        asked.gate.set()
        events = await hearing
        assert text_of(events) == TEXT[seen or 0 :]
        ids = [event.id for event in events]
        assert ids == sorted(set(ids))
        stored = await asked.stored()
        assert (events[-1].id, events[-1].name, events[-1].data["message"]) == (
            len(TEXT) + 1,
            "message.completed",
            stored,
        )
    assert len(town.upstream.requests) == 1
    assert await town.standing() == (12, 0)


async def test_an_answer_that_is_made_here_is_stopped_from_there(town: Town) -> None:
    async with asking(town.here, town.upstream) as asked:
        elsewhere = replace(asked, person=town.there)
        stopped = await elsewhere.cancel()
        assert stopped.status_code == 200, stopped.text
        assert (stopped.json()["status"], stopped.json()["content"]) == ("cancelled", BEGUN)
        await town.upstream.requests[-1].wait_disconnected(1)
        assert stopped.json() == await asked.stored()
    spent, held = await town.standing()
    assert (spent, held) == (stopped.json()["usage"]["total_tokens"], 0)


async def test_what_a_crashed_gateway_had_noted_is_kept_charged_and_heard_elsewhere(town: Town) -> None:
    async with asking(town.here, town.upstream) as asked:
        hearing = asyncio.create_task(asked.heard(4, town.there))
        await eventually(town.is_noted)
        await town.crash()
        events = await hearing
        answer = await _stored_there(asked, town)
    assert (answer["status"], answer["content"]) == ("interrupted", BEGUN)
    assert answer["usage"]["total_tokens"] == (await town.standing())[0] > 0
    assert text_of(events) == BEGUN[4:]
    assert (events[-1].name, events[-1].id) == ("message.failed", len(BEGUN) + 1)
    assert events[-1].data["message"] == answer
    again = await replace(asked, person=town.there).heard(0)
    assert text_of(again) == BEGUN


@pytest.mark.parametrize("model", ["gpt-4o", "claude-3-opus"])
async def test_a_response_in_the_background_here_is_resumed_there_by_its_numbers(model: str, town: Town) -> None:
    gate = asyncio.Event()
    town.upstream.always(Answer(chunks=WORDS, usage=Usage(input=7, output=5), gate=gate, gate_after=2))
    asked = {"model": model, "input": "Count to five.", "background": True, "stream": True}
    seen: list[dict[str, Any]] = []
    async with town.here.http.stream("POST", "/v1/responses", json=asked) as response:
        async for line in response.aiter_lines():
            seen += _events_in(line)
            if seen and seen[-1]["type"] == "response.output_text.delta":
                break
    url, last = f"/v1/responses/{seen[0]['response']['id']}", seen[-1]["sequence_number"]
    query = {"stream": "true", "starting_after": str(last)}
    resuming = asyncio.create_task(town.there.http.get(url, params=query))
    await eventually(town.is_noted)
    gate.set()
    rest = _events_in((await resuming).text)
    assert _text_in(seen) + _text_in(rest) == TEXT
    numbers = [event["sequence_number"] for event in (*seen, *rest)]
    assert numbers == sorted(set(numbers))
    again = _events_in((await town.here.http.get(url, params=query)).text)
    assert _text_in(again) == _text_in(rest)
    for ended in (rest[-1], again[-1]):
        assert (ended["type"], ended["sequence_number"]) == ("response.completed", numbers[-1])
    assert len(town.upstream.requests) == 1
    assert await town.standing() == (12, 0)


def _events_in(text: str) -> list[dict[str, Any]]:
    return [orjson.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def _text_in(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


async def _stored_there(asked: Asked, town: Town) -> dict[str, Any]:
    asked.person = town.there
    return await asked.stored()
