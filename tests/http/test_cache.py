"""The response cache, whichever way a question comes in: what is kept, for whom, and that it costs nothing."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio

from tests.http.surface import ANTHROPIC, GEMINI, NATIVE, OPENAI, books_are_right, check_error
from tests.http.ways import EVERY_WAY, STREAMS, WHOLES, Way, details_of, events_in, text_of
from tests.support.gateway import Person, RunningGateway
from tests.support.upstream import Answer, CutAfter, ErrorEvent, Fail, Garbage, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREDIT = 1_000_000
CALLERS = 8
LEAST_OUTPUT = 16
WORDS = ("one ", "two ", "three ", "four ", "five ")
TEXT = "".join(WORDS)
ANSWER = Answer(chunks=WORDS, usage=Usage(input=7, output=5))
ON, OFF, REFRESH = ({"x-gateway-cache": wish} for wish in ("on", "off", "refresh"))
WAYS = [way for way in EVERY_WAY if not way.is_stateful]
RELAYED = [way for way in WAYS if "relayed" in way.name]
COMPATIBLE = [way for way in WAYS if way.dialect != NATIVE]


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    shared_upstream.always(ANSWER)
    return shared_upstream


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared_gateway: RunningGateway, upstream: Upstream) -> AsyncIterator[RunningGateway]:
    """Afterwards the books are right. (Two gateways on PostgreSQL: tests/processes/test_cache_replicas.py.)"""
    yield shared_gateway
    await books_are_right(shared_gateway)


@pytest_asyncio.fixture(loop_scope="module")
async def alice(gateway: RunningGateway) -> Person:
    return await person_of(gateway)


async def person_of(gateway: RunningGateway, credit: int = CREDIT, **fields: Any) -> Person:
    person = await gateway.new_user(f"user-{uuid4()}", **fields)
    given = await gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": credit})
    assert given.status_code == 200, given.text
    return person


async def stranger_of(gateway: RunningGateway) -> Person:
    """Somebody of another tenant."""
    tenant = await gateway.http.post("/api/v1/admin/tenants", json={"slug": f"t-{uuid4().hex[:12]}", "name": "x"})
    return await person_of(gateway, tenant_id=tenant.json()["id"])


async def cached_model(gateway: RunningGateway, way: Way, **policy: Any) -> Way:
    """The way to a model of its own whose answers are cached by its policy."""
    name = f"model-{uuid4().hex[:12]}"
    provider = "openai" if way.model == "gpt-4o" else "anthropic"
    body = {"name": name, "provider": provider, "upstream": way.model, "context_window": 9000, "max_output": 1000}
    made = await gateway.http.post("/api/v1/admin/models", json={**body, "cache": {"ttl_s": 60, **policy}})
    assert made.status_code < 300, made.text
    return replace(way, model=name)


@dataclass(frozen=True)
class Question:
    """One that nobody has asked, to be asked in any way."""

    way: Way
    text: str

    async def ask(self, person: Person, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        """In a dialog of its own, where it is one: what was said before is part of what is asked."""
        path = (await self.way.prepare(person)).path
        return await person.http.post(
            path, json=self.way.body(self.text), headers=dict(ON if headers is None else headers)
        )

    async def use(self, person: Person, headers: Mapping[str, str] | None = None) -> str | None:
        """What the cache had for it; the answer is what it should be."""
        answer = await self.ask(person, headers)
        assert text_of(answer, self.way) == TEXT
        return answer.headers.get("x-gateway-cache")


def question(way: Way) -> Question:
    return Question(way, f"Count to five, {uuid4()}.")


async def spent(person: Person, credit: int = CREDIT) -> int:
    found = (await person.http.get("/api/v1/users/me/tokens")).json()
    assert found["held"] == 0
    return credit - int(found["balance"])


async def somebody_waits(gateway: RunningGateway) -> None:
    """Until a call that is under way is waited for by another."""
    flights = gateway.app.state.gateway.completions.cache._inner._under_way
    async with asyncio.timeout(10):
        while not any(flight.is_joined for flight in flights.values()):
            await asyncio.sleep(0.005)


async def calls_of(person: Person) -> int:
    rows = (await person.http.get("/api/v1/usage")).json()["data"]
    return sum(row["calls"] for row in rows)


@pytest.mark.parametrize("way", WAYS, ids=str)
class TestEveryWay:
    async def test_an_answer_is_given_again_and_costs_nothing(
        self, way: Way, alice: Person, upstream: Upstream
    ) -> None:
        asked = question(way)
        first, again = await asked.ask(alice), await asked.ask(alice)
        assert text_of(again, way) == text_of(first, way) == TEXT
        assert [each.headers["x-gateway-cache"] for each in (first, again)] == ["miss", "hit"]
        assert again.headers["content-type"] == first.headers["content-type"]
        if not way.stream:
            assert again.headers["x-gateway-cost-micro-usd"] == "0"
        if way.dialect != NATIVE:
            assert again.headers["x-gateway-attempts"] == "0"
            assert again.headers["x-gateway-model"] == first.headers["x-gateway-model"] == way.model
        assert len(upstream.requests) == 1
        assert await spent(alice) == 12

    async def test_it_has_no_usage_of_its_own(self, way: Way, alice: Person) -> None:
        asked = question(way)
        for _ in range(3):
            await asked.ask(alice)
        assert await calls_of(alice) == 1

    async def test_another_tenant_gets_nothing_of_it(
        self, way: Way, alice: Person, gateway: RunningGateway, upstream: Upstream
    ) -> None:
        asked, stranger = question(way), await stranger_of(gateway)
        assert [await asked.use(each) for each in (alice, stranger, stranger)] == ["miss", "miss", "hit"]
        assert len(upstream.requests) == 2

    async def test_users_of_a_tenant_share_it_unless_the_model_keeps_them_apart(
        self, way: Way, alice: Person, gateway: RunningGateway
    ) -> None:
        bob = await person_of(gateway)
        shared = question(await cached_model(gateway, way))
        assert [await shared.use(each, {}) for each in (alice, bob)] == ["miss", "hit"]
        apart = question(await cached_model(gateway, way, per_user=True))
        assert [await apart.use(each, {}) for each in (alice, bob, bob)] == ["miss", "miss", "hit"]
        assert await spent(bob) == 12

    async def test_a_request_may_do_without_it(self, way: Way, alice: Person, gateway: RunningGateway) -> None:
        asked = question(await cached_model(gateway, way))
        for headers in (OFF, {"cache-control": "no-store"}, {"cache-control": "max-age=0, No-Store"}):
            assert [await asked.use(alice, headers) for _ in range(2)] == [None, None]
        assert await asked.use(alice, {}) == "miss"

    @pytest.mark.parametrize("headers", [REFRESH, {"cache-control": "no-cache"}], ids=["refresh", "no-cache"])
    async def test_a_request_may_have_it_made_anew(
        self, way: Way, headers: dict[str, str], alice: Person, gateway: RunningGateway, upstream: Upstream
    ) -> None:
        asked = question(await cached_model(gateway, way))
        upstream.script(Answer(text="old"))
        await asked.ask(alice, {})
        assert await asked.use(alice, headers) == "miss"
        assert await asked.use(alice, {}) == "hit"
        assert len(upstream.requests) == 2

    async def test_a_wish_that_is_none_is_refused(self, way: Way, alice: Person, upstream: Upstream) -> None:
        refused = await question(way).ask(alice, {"x-gateway-cache": "perhaps"})
        error = check_error(refused, 422 if way.dialect == NATIVE else 400, way.dialect)
        assert "on, off or refresh" in error["message"]
        assert upstream.requests == []

    async def test_identical_questions_at_once_are_one_call(
        self, way: Way, alice: Person, gateway: RunningGateway, upstream: Upstream
    ) -> None:
        gate, asked, bob = asyncio.Event(), question(way), await person_of(gateway)
        upstream.always(replace(ANSWER, gate=gate))
        asking = [asyncio.create_task(asked.ask(each)) for each in (alice, bob) * (CALLERS // 2)]
        await upstream.wait_in_flight(1)
        gate.set()
        answers = await asyncio.gather(*asking)
        assert {text_of(answer, way) for answer in answers} == {TEXT}
        uses = sorted(answer.headers["x-gateway-cache"] for answer in answers)
        assert uses == ["hit"] * (CALLERS - 1) + ["miss"]
        assert len(upstream.requests) == 1
        assert await spent(alice) + await spent(bob) == 12

    async def test_a_key_is_kept_for_what_the_cache_gave(self, way: Way, alice: Person, upstream: Upstream) -> None:
        send = await way.prepare(alice)
        asked = question(way)
        await asked.ask(alice)
        headers = {**ON, "idempotency-key": f"key {uuid4()}"}
        body = way.body(asked.text)
        first, again = [await alice.http.post(send.path, json=body, headers=headers) for _ in range(2)]
        assert first.headers["x-gateway-cache"] == "hit"
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        assert text_of(again, way) == text_of(first, way) == TEXT
        if way.dialect == NATIVE and way.stream:  # read from what is stored
            assert events_in(again)[-1] == events_in(first)[-1]
            assert events_in(again)[0]["message"] == events_in(first)[0]["message"]
        else:
            assert again.content == first.content
            assert again.headers["x-gateway-cache"] == "hit"
        assert len(upstream.requests) == 1
        assert await spent(alice) == 12

    async def test_of_one_key_at_once_one_call_is_made_and_all_get_its_answer(
        self, way: Way, alice: Person, upstream: Upstream
    ) -> None:
        gate, send, body = asyncio.Event(), await way.prepare(alice), way.body(question(way).text)
        upstream.always(replace(ANSWER, gate=gate))
        headers = {**ON, "idempotency-key": f"key {uuid4()}"}
        asking = [asyncio.create_task(alice.http.post(send.path, json=body, headers=headers)) for _ in range(CALLERS)]
        await upstream.wait_in_flight(1)
        gate.set()
        answers = await asyncio.gather(*asking)
        given = [answer for answer in answers if answer.status_code == way.status]
        assert {text_of(answer, way) for answer in given} == {TEXT}
        assert sum("idempotent-replayed" not in answer.headers for answer in given) == 1
        assert {answer.status_code for answer in answers if answer not in given} <= {409}
        assert len(upstream.requests) == 1
        assert await spent(alice) == 12

    async def test_who_has_nothing_left_still_gets_what_is_there(
        self, way: Way, alice: Person, gateway: RunningGateway
    ) -> None:
        asked, poor = question(way), await person_of(gateway, credit=1)
        check_error(await asked.ask(poor), way.exhausted, way.dialect)
        await asked.ask(alice)
        assert await asked.use(poor) == "hit"
        assert await spent(poor, credit=1) == 0

    @pytest.mark.parametrize(
        "bad",
        [
            Fail(status=500),
            Garbage(),
            CutAfter(2, ANSWER),
            ErrorEvent(after=2, answer=ANSWER),
            replace(ANSWER, finish="content_filter"),
        ],
        ids=["refused", "garbage", "cut", "error", "filtered"],
    )
    async def test_nothing_bad_is_kept(self, way: Way, bad: Any, alice: Person, upstream: Upstream) -> None:
        asked = question(way)
        upstream.always(bad)
        await asked.ask(alice)
        upstream.always(ANSWER)
        assert await asked.use(alice) == "miss"
        assert await asked.use(alice) == "hit"

    async def test_an_answer_that_a_quota_cut_is_nobody_elses(
        self, way: Way, alice: Person, gateway: RunningGateway, upstream: Upstream
    ) -> None:
        asked, poor = question(way), await person_of(gateway, credit=1)
        refused = check_error(await asked.ask(poor), way.exhausted, way.dialect)
        given = {"amount": int(details_of(refused, way)["needed"]) + 3}
        await gateway.http.post(f"/api/v1/admin/users/{poor.id}/tokens", json=given)
        upstream.script(replace(ANSWER, chunks=tuple(f"{number} " for number in range(90)), usage=None))
        short = await asked.ask(poor)
        assert text_of(short, way) == "".join(f"{number} " for number in range(LEAST_OUTPUT + 4))
        assert await asked.use(alice) == "miss"


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_it_is_off_where_nobody_wants_it(way: Way, alice: Person, upstream: Upstream) -> None:
    asked = question(way)
    uses = [await asked.use(alice, {}) for _ in range(2)]
    assert uses == (["miss", "hit"] if way.path == "/chat" else [None, None])
    assert len(upstream.requests) == (1 if way.path == "/chat" else 2)


@pytest.mark.parametrize("way", COMPATIBLE, ids=str)
async def test_no_cache_alone_switches_nothing_on(way: Way, alice: Person) -> None:
    asked = question(way)
    assert [await asked.use(alice, {"cache-control": "no-cache"}) for _ in range(2)] == [None, None]


@pytest.mark.parametrize("way", RELAYED, ids=str)
async def test_what_was_relayed_is_given_again_byte_for_byte(way: Way, alice: Person) -> None:
    asked = question(way)
    first, again = await asked.ask(alice), await asked.ask(alice)
    assert again.content == first.content
    assert again.headers["x-gateway-cache"] == "hit"


@pytest.mark.parametrize("way", COMPATIBLE, ids=str)
async def test_requests_with_tools_are_never_cached(way: Way, alice: Person, upstream: Upstream) -> None:
    if "translated" in way.name:
        way = replace(way, model={OPENAI: "claude-3-opus"}.get(way.dialect, "gpt-4o"))
    function = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    tools = {
        OPENAI: {"type": "function", "function": function},
        ANTHROPIC: {"name": "f", "input_schema": {}},
        GEMINI: {"functionDeclarations": [function]},
    }
    body = {**way.body(question(way).text), "tools": [tools[way.dialect]]}
    for _ in range(2):
        answer = await alice.http.post(way.url, json=body, headers=ON)
        assert text_of(answer, way) == TEXT
        assert "x-gateway-cache" not in answer.headers
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("way", COMPATIBLE, ids=str)
async def test_who_asks_is_no_part_of_the_question_and_any_other_field_is(
    way: Way, alice: Person, upstream: Upstream
) -> None:
    body = way.body(question(way).text)
    variants: list[dict[str, Any]] = [{}, {"metadata": {"user_id": "me"}}, {"user": "me"}, {"temperature": 0.25}]
    if way.dialect == GEMINI:
        variants = [{}, {"labels": {"a": "b"}}, {"labels": {}}, {"generationConfig": {"temperature": 0.25}}]
    uses = []
    for more in variants:
        answer = await alice.http.post(way.url, json={**body, **more}, headers=ON)
        assert text_of(answer, way) == TEXT
        uses.append(answer.headers["x-gateway-cache"])
    assert uses == ["miss", "hit", "hit", "miss"]


async def test_streams_and_whole_answers_of_dialogs_are_the_same_to_it(alice: Person, upstream: Upstream) -> None:
    whole, stream = (next(way for way in ways if way.name == "native") for ways in (WHOLES, STREAMS))
    asked = question(whole)
    assert await asked.use(alice) == "miss"
    assert await replace(asked, way=stream).use(alice) == "hit"
    assert len(upstream.requests) == 1


async def test_a_dialog_goes_on_below_an_answer_from_the_cache(alice: Person, upstream: Upstream) -> None:
    way = WHOLES[0]
    asked = question(way)
    await asked.ask(alice)
    dialog = (await alice.http.post("/api/v1/dialogs", json={"model": way.model})).json()["id"]
    path = f"/api/v1/dialogs/{dialog}/messages"
    hit = (await alice.http.post(path, json={"content": asked.text}, headers=ON)).json()["message"]
    assert (hit["cached"], hit["status"], hit["finish_reason"], hit["model"]) == (True, "completed", "stop", "gpt-4o")
    assert (hit["usage"]["total_tokens"], hit["cost_micro_usd"]) == (0, 0)
    assert (await alice.http.get(f"{path}/{hit['id']}")).json() == hit
    next_one = (await alice.http.post(path, json={"content": "And then?"}, headers=ON)).json()
    assert next_one["user_message"]["parent_id"] == hit["id"]
    assert not next_one["message"]["cached"]
    said = [message["content"] for message in upstream.requests[-1].json["messages"]]
    assert said == [asked.text, TEXT, "And then?"]
    heard = await alice.http.get(f"{path}/{hit['id']}/events")
    assert "".join(str(event.get("text", "")) for event in events_in(heard)) == TEXT


@pytest.mark.parametrize("way", [way for way in COMPATIBLE if way.stream], ids=str)
async def test_a_stream_whose_client_leaves_goes_on_for_whoever_waits_for_it(
    way: Way, alice: Person, gateway: RunningGateway, upstream: Upstream
) -> None:
    gate, asked = asyncio.Event(), question(way)
    upstream.always(replace(ANSWER, gate=gate, gate_after=2))
    async with alice.http.stream("POST", way.url, json=way.body(asked.text), headers=ON) as leading:
        stream, seen = leading.aiter_bytes(), b""  # its end would hang up
        while WORDS[1].strip().encode() not in seen:
            seen += await anext(stream)
        following = asyncio.create_task(asked.ask(alice))
        await somebody_waits(gateway)
    gate.set()
    answer = await following
    assert (text_of(answer, way), answer.headers["x-gateway-cache"]) == (TEXT, "hit")
    assert len(upstream.requests) == 1
    assert await spent(alice) == 12


@pytest.mark.parametrize("way", [way for way in COMPATIBLE if way.stream], ids=str)
async def test_a_stream_that_nobody_else_waits_for_ends_with_its_client(
    way: Way, alice: Person, upstream: Upstream
) -> None:
    asked = question(way)
    upstream.script(replace(ANSWER, gate=asyncio.Event(), gate_after=2))
    async with alice.http.stream("POST", way.url, json=way.body(asked.text), headers=ON) as leading:
        stream, seen = leading.aiter_bytes(), b""
        while WORDS[1].strip().encode() not in seen:
            seen += await anext(stream)
    await upstream.requests[-1].wait_disconnected(5)
    assert await asked.use(alice) == "miss"


async def test_what_the_cache_did_is_counted(gateway: RunningGateway, alice: Person, upstream: Upstream) -> None:
    async def counts() -> dict[str, float]:
        lines = (await gateway.http.get("/metrics")).text.splitlines()
        told = [line.removeprefix('gateway_cache_total{result="').split('"} ') for line in lines]
        return {name: float(count) for name, count in (each for each in told if len(each) == 2 and "{" not in each[0])}

    before, asked, gate = await counts(), question(WHOLES[2]), asyncio.Event()
    upstream.script(replace(ANSWER, gate=gate))
    asking = [asyncio.create_task(asked.ask(alice)) for _ in range(2)]
    await somebody_waits(gateway)
    gate.set()
    await asyncio.gather(*asking)
    await asked.ask(alice)
    after = await counts()
    found = {name: after[name] - before.get(name, 0) for name in after}
    assert found == {"miss": 1, "joined": 1, "hit": 1, "stored": 1}
