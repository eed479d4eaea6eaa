"""Two gateways with one Redis have one response cache: identical questions at both are one call, whoever dies."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio

from tests.http.ways import STREAMS, WHOLES, Way, text_of
from tests.processes.conftest import client_of
from tests.support.chaos import Replicas, admit, replicas_of
from tests.support.gateway import Person
from tests.support.postgres import PostgresServer
from tests.support.redis_server import RedisServer
from tests.support.upstream import Answer, Fail, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREDIT = 100_000
CALLERS = 12
WORDS = ("one ", "two ", "three")
TEXT = "".join(WORDS)
ANSWER = Answer(chunks=WORDS, usage=Usage(input=7, output=5))
ON = {"x-gateway-cache": "on"}
WHOLE, STREAM = ({str(way): way for way in ways} for ways in (WHOLES, STREAMS))
WAYS = [WHOLE["native"], WHOLE["chat"], WHOLE["openai relayed"], STREAM["anthropic translated stream"]]
WAYS += [STREAM["openai relayed stream"]]


@dataclass(kw_only=True)
class Town:
    """Alice here and Bob there, of one tenant."""

    replicas: Replicas
    upstream: Upstream
    redis: RedisServer
    alice: Person
    bob: Person

    async def ask(self, person: Person, way: Way, question: str) -> httpx2.Response:
        path = (await way.prepare(person)).path
        return await person.http.post(path, json=way.body(question), headers=ON)

    async def spent(self) -> int:
        """By both; nothing is held."""
        found = [(await each.http.get("/api/v1/users/me/tokens")).json() for each in (self.alice, self.bob)]
        assert [each["held"] for each in found] == [0, 0]
        return 2 * CREDIT - sum(each["balance"] for each in found)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def provider() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    server = RedisServer.start_own()
    yield server
    server.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def replicas(
    postgres_server: PostgresServer, provider: Upstream, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Replicas]:
    """Afterwards the books are right."""
    home = tmp_path_factory.mktemp("replicas")
    async with (
        postgres_server.database() as url,
        replicas_of(2, url, provider, home, REDIS_URL=redis.url, GATEWAY_REDIS_TIMEOUT_S=5) as started,
    ):
        yield started
        assert not await asyncio.to_thread(started.verify)


@pytest_asyncio.fixture(loop_scope="module")
async def town(replicas: Replicas, provider: Upstream, redis: RedisServer) -> AsyncIterator[Town]:
    """Afterwards both gateways run."""
    provider.reset()
    provider.always(ANSWER)
    people = []
    for gateway in replicas.gateways:
        found = await admit(gateway.url, f"user-{uuid4()}", {"tokens": CREDIT})
        people.append(Person(id=found.id, secret=found.secret, http=client_of(gateway, found.secret)))
    alice, bob = people
    async with alice.http, bob.http:
        yield Town(replicas=replicas, upstream=provider, redis=redis, alice=alice, bob=bob)
    for gateway in replicas.gateways:
        if not gateway.is_running:
            await gateway.start()


def question() -> str:
    return f"Count to three, {uuid4()}."


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_identical_questions_at_both_are_one_call(way: Way, town: Town) -> None:
    gate, asked = asyncio.Event(), question()
    town.upstream.always(replace(ANSWER, gate=gate))
    asking = [asyncio.create_task(town.ask(person, way, asked)) for person in (town.alice, town.bob) * (CALLERS // 2)]
    await town.upstream.wait_in_flight(1)
    await asyncio.sleep(0.3)  # whoever would make a second call has made it by now
    assert len(town.upstream.requests) == 1
    gate.set()
    answers = await asyncio.gather(*asking)
    assert {text_of(answer, way) for answer in answers} == {TEXT}
    assert sorted(answer.headers["x-gateway-cache"] for answer in answers) == ["hit"] * (CALLERS - 1) + ["miss"]
    assert len(town.upstream.requests) == 1
    assert await town.spent() == 12


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_what_one_has_kept_the_other_gives(way: Way, town: Town) -> None:
    asked = question()
    answers = [await town.ask(person, way, asked) for person in (town.alice, town.bob)]
    assert [text_of(answer, way) for answer in answers] == [TEXT, TEXT]
    assert [answer.headers["x-gateway-cache"] for answer in answers] == ["miss", "hit"]
    if "relayed" in way.name:
        assert answers[0].content == answers[1].content
    assert len(town.upstream.requests) == 1


async def test_what_failed_here_is_tried_there(town: Town) -> None:
    way, gate, asked = WHOLE["openai relayed"], asyncio.Event(), question()
    town.upstream.script(Fail(status=500), replace(ANSWER, gate=gate))
    gate.set()
    first, second = await asyncio.gather(*(town.ask(person, way, asked) for person in (town.alice, town.bob)))
    assert sorted(each.status_code for each in (first, second)) == [200, 502]
    assert len(town.upstream.requests) == 2
    assert await town.spent() == 12


async def test_who_dies_while_it_makes_an_answer_is_waited_for_a_moment_only(town: Town) -> None:
    way, asked = WHOLE["openai relayed"], question()
    town.upstream.script(replace(ANSWER, gate=asyncio.Event()))
    lost = asyncio.create_task(town.ask(town.alice, way, asked))
    await town.upstream.wait_in_flight(1)
    waiting = asyncio.create_task(town.ask(town.bob, way, asked))
    town.replicas.gateways[0].signal(signal.SIGKILL)
    with pytest.raises(httpx2.TransportError):
        await lost
    answer = await waiting
    assert (text_of(answer, way), answer.headers["x-gateway-cache"]) == (TEXT, "miss")


async def test_without_redis_each_has_a_cache_of_its_own_and_with_it_they_share_again(town: Town) -> None:
    way, before, during = WHOLE["anthropic translated"], question(), question()
    await town.ask(town.alice, way, before)
    town.redis.kill()
    uses = [
        (await town.ask(person, way, during)).headers["x-gateway-cache"]
        for person in (town.alice, town.bob, town.alice, town.bob)
    ]
    assert uses == ["miss", "miss", "hit", "hit"]
    town.redis.restart()
    async with asyncio.timeout(20):
        for person in (town.alice, town.bob):
            while (await person.http.get("/health")).json()["services"]["cache"] != "redis":
                await asyncio.sleep(0.05)
    asked = question()
    answers = [await town.ask(person, way, asked) for person in (town.alice, town.bob)]
    assert [answer.headers["x-gateway-cache"] for answer in answers] == ["miss", "hit"]
