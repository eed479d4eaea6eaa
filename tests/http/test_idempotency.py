"""A request that is repeated under its Idempotency-Key is answered once: one upstream call, one charge, one answer."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx2
import jwt
import pytest
import pytest_asyncio

from src.domain.completion import idempotency
from tests.http.surface import NATIVE, OPENAI, books_are_right, check_error
from tests.http.ways import EVERY_WAY, STREAMS, WHOLES, Way, code_of, error_of, events_in, text_of
from tests.support.gateway import JWT_SECRET, Person, RunningGateway
from tests.support.upstream import Answer, CutAfter, Fail, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREDIT = 1_000_000
AT_ONCE = 32
WORDS = ("one ", "two ", "three ", "four ", "five ")
TEXT = "".join(WORDS)
KEY = {"idempotency-key": "a key of the client's"}
PER_REQUEST = {"date", "x-request-id", "request-id", "content-length", "transfer-encoding", "idempotent-replayed"}


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    shared_upstream.always(Answer(chunks=WORDS, usage=Usage(input=7, output=5)))
    return shared_upstream


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(any_shared_gateway: RunningGateway, upstream: Upstream) -> AsyncIterator[RunningGateway]:
    yield any_shared_gateway
    await books_are_right(any_shared_gateway)


@pytest_asyncio.fixture(loop_scope="module")
async def alice(gateway: RunningGateway) -> Person:
    return await person_with(gateway, CREDIT)


async def person_with(gateway: RunningGateway, credit: int, **fields: Any) -> Person:
    person = await gateway.new_user(f"user-{uuid4()}", **fields)
    await top_up(gateway, person, credit)
    return person


async def top_up(gateway: RunningGateway, person: Person, amount: int) -> None:
    given = await gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": amount})
    assert given.status_code == 200, given.text


async def standing_of(person: Person) -> tuple[int, int]:
    """Balance and held."""
    found = (await person.http.get("/api/v1/users/me/tokens")).json()
    return found["balance"], found["held"]


async def is_settled(person: Person) -> None:
    """Wait until nothing is held."""
    async with asyncio.timeout(10):
        while (await standing_of(person))[1]:
            await asyncio.sleep(0.01)


async def charges_of(person: Person) -> list[int]:
    history = (await person.http.get("/api/v1/users/me/tokens/history")).json()["data"]
    return [entry["amount"] for entry in history if entry["kind"] in ("charge", "late_charge")]


async def cost_once(person: Person, upstream: Upstream) -> None:
    """One upstream call, one charge, one pair of messages where messages are kept."""
    assert len(upstream.requests) == 1
    assert await charges_of(person) == [-12]
    assert await standing_of(person) == (CREDIT - 12, 0)
    dialogs = (await person.http.get("/api/v1/dialogs")).json()["data"]
    for dialog in dialogs:
        messages = (await person.http.get(f"/api/v1/dialogs/{dialog['id']}/messages")).json()["data"]
        assert [message["role"] for message in messages] == ["user", "assistant"]
    assert len((await person.http.get(f"/history/{person.id}")).json()) <= 1


def same_headers(first: httpx2.Response, again: httpx2.Response) -> None:
    told = [{name: text for name, text in each.headers.items() if name not in PER_REQUEST} for each in (first, again)]
    assert told[0] == told[1]


def is_replay(first: httpx2.Response, again: httpx2.Response, way: Way) -> None:
    assert again.status_code == first.status_code == way.status
    assert again.headers["idempotent-replayed"] == "true"
    if way.dialect == NATIVE and way.stream:  # read from the stored message: its text comes in one piece
        assert text_of(again, way) == text_of(first, way)
        assert events_in(again)[-1] == events_in(first)[-1]
        assert events_in(again)[0]["message"] == events_in(first)[0]["message"]
    else:
        assert again.content == first.content
    same_headers(first, again)


@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_a_repetition_gets_the_first_answer_and_costs_nothing(
    way: Way, alice: Person, upstream: Upstream
) -> None:
    send = await way.prepare(alice)
    first = await send(KEY)
    assert "idempotent-replayed" not in first.headers
    assert text_of(first, way) == TEXT
    for _ in range(2):
        is_replay(first, await send(KEY), way)
    await cost_once(alice, upstream)


@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_without_a_key_every_request_is_a_call(way: Way, alice: Person, upstream: Upstream) -> None:
    send = await way.prepare(alice)
    for _ in range(2):
        assert "idempotent-replayed" not in (await send({})).headers
    assert len(upstream.requests) == (1 if way.is_cached else 2)


async def test_an_answer_from_the_cache_is_given_once_too(alice: Person, upstream: Upstream) -> None:
    (way,) = [way for way in EVERY_WAY if way.is_cached]
    send = await way.prepare(alice)
    assert (await send({})).headers["x-gateway-cache"] == "miss"
    answers = await asyncio.gather(*(send(KEY) for _ in range(AT_ONCE)))
    assert {answer.headers["x-gateway-cache"] for answer in answers} == {"hit"}
    assert len({answer.content for answer in answers}) == 1
    assert Counter("idempotent-replayed" in answer.headers for answer in answers) == {True: AT_ONCE - 1, False: 1}
    assert len((await alice.http.get(f"/history/{alice.id}")).json()) == 2
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_of_many_at_once_one_is_made_and_all_others_get_its_answer_or_are_told_to_wait(
    way: Way, alice: Person, upstream: Upstream
) -> None:
    gate = asyncio.Event()
    upstream.always(Answer(chunks=WORDS, usage=Usage(input=7, output=5), gate=gate))
    send = await way.prepare(alice)
    sending = [asyncio.create_task(send(KEY)) for _ in range(AT_ONCE)]
    await upstream.wait_in_flight(1)
    gate.set()
    answers = await asyncio.gather(*sending)
    given = [answer for answer in answers if answer.status_code == way.status]
    for answer in answers:
        if answer.status_code != way.status:
            assert not way.stream
            assert answer.headers["x-should-retry"] == "false"
            check_error(answer, 409)
    assert {text_of(answer, way) for answer in given} == {TEXT}
    assert sum("idempotent-replayed" not in answer.headers for answer in given) == 1
    await cost_once(alice, upstream)


@pytest.mark.parametrize("way", WHOLES, ids=str)
async def test_while_a_whole_answer_is_made_its_repetitions_are_refused_and_not_to_be_retried(
    way: Way, alice: Person, upstream: Upstream
) -> None:
    gate = asyncio.Event()
    upstream.always(Answer(chunks=WORDS, usage=Usage(input=7, output=5), gate=gate))
    send = await way.prepare(alice)
    first = asyncio.create_task(send(KEY))
    await upstream.wait_in_flight(1)
    for _ in range(2):
        refused = await send(KEY)
        assert "still running" in check_error(refused, 409)["message"]
        assert refused.headers["x-should-retry"] == "false"
    gate.set()
    is_replay(await first, await send(KEY), way)
    await cost_once(alice, upstream)


@pytest.mark.parametrize("way", STREAMS, ids=str)
async def test_a_repetition_of_a_running_stream_joins_it_from_the_start(
    way: Way, alice: Person, upstream: Upstream
) -> None:
    gate = asyncio.Event()
    upstream.always(Answer(chunks=WORDS, usage=Usage(input=7, output=5), gate=gate, gate_after=2))
    send = await way.prepare(alice)
    first = asyncio.create_task(send(KEY))
    await upstream.wait_until(lambda up: bool(up.requests) and up.requests[-1].chunks_sent == 2)
    async with way.streamed(alice, send.path, KEY) as joined:
        seen = b""
        async for data in joined.aiter_bytes():  # before the gate opens: it hears what was said already
            seen += data
            if b"two " in seen:
                gate.set()
    assert joined.headers["idempotent-replayed"] == "true"
    whole = await first
    if way.dialect != NATIVE:
        assert seen == whole.content
        same_headers(whole, joined)
    assert text_of(whole, way) == TEXT
    await cost_once(alice, upstream)


@pytest.mark.parametrize("way", STREAMS, ids=str)
async def test_a_stream_with_a_key_goes_on_when_its_client_hangs_up(
    way: Way, alice: Person, upstream: Upstream
) -> None:
    gate = asyncio.Event()
    upstream.always(Answer(chunks=WORDS, usage=Usage(input=7, output=5), gate=gate, gate_after=2))
    send = await way.prepare(alice)
    await way.hang_up_after(alice, send.path, KEY, b"two ")
    joining = asyncio.create_task(send(KEY))
    gate.set()
    assert text_of(await joining, way) == TEXT
    assert not upstream.requests[-1].disconnected
    again = await send(KEY)
    assert (text_of(again, way), again.headers["idempotent-replayed"]) == (TEXT, "true")
    await cost_once(alice, upstream)


@pytest.mark.parametrize("way", [way for way in STREAMS if way.dialect != NATIVE], ids=str)
async def test_a_stream_without_a_key_is_cancelled_when_its_client_hangs_up(
    way: Way, alice: Person, upstream: Upstream
) -> None:
    upstream.always(Answer(chunks=WORDS, gate=asyncio.Event(), gate_after=2))
    send = await way.prepare(alice)
    await way.hang_up_after(alice, send.path, {}, b"two ")
    await upstream.requests[-1].wait_disconnected(1)
    await is_settled(alice)


@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_a_key_for_another_body_is_refused_by_name(way: Way, alice: Person, upstream: Upstream) -> None:
    send = await way.prepare(alice)
    first = await send(KEY)
    error = check_error(await send(KEY, question="Something else?"), 422)
    assert "Idempotency-Key" in error["message"]
    assert code_of(error, way) == "idempotency_key_reused"
    if way.dialect in (NATIVE, OPENAI):
        assert error["param"] == "idempotency-key"
    is_replay(first, await send(KEY), way)
    await cost_once(alice, upstream)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_belongs_to_one_path(stream: bool, alice: Person, upstream: Upstream) -> None:
    body = {"model": "gpt-4o", "max_tokens": 50, "messages": [{"role": "user", "content": "Count."}], "stream": stream}
    for _ in range(2):
        for path in ("/v1/chat/completions", "/v1/messages"):
            assert (await alice.http.post(path, json=body, headers=KEY)).status_code == 200
    assert len(upstream.requests) == 2
    dialogs = [await way.prepare(alice) for way in WHOLES if way.dialect == NATIVE and not way.is_cached for _ in "ab"]
    for send in dialogs:
        assert "idempotent-replayed" not in (await send(KEY)).headers
    assert len(upstream.requests) == 4


async def test_a_key_belongs_to_one_user_and_one_credential(
    gateway: RunningGateway, alice: Person, upstream: Upstream
) -> None:
    tenant = (
        await gateway.http.post("/api/v1/admin/tenants", json={"slug": f"t-{uuid4().hex[:8]}", "name": "x"})
    ).json()
    foreign = await person_with(gateway, CREDIT, tenant_id=tenant["id"])
    colleague = await person_with(gateway, CREDIT)
    second_key = await gateway.http.post("/api/v1/api-keys", json={"name": "second", "user_id": alice.id})
    me = (await alice.http.get("/api/v1/me")).json()
    claims = {"sub": me["user"]["external_id"], "tenant_id": me["tenant"]["id"], "exp": 4_000_000_000}
    clients = [
        alice.http,
        colleague.http,
        foreign.http,
        gateway.client(second_key.json()["secret"]),
        gateway.client(jwt.encode(claims, JWT_SECRET)),
    ]
    way = WHOLES[-1]
    answers = [await client.post(way.url, json=way.body(), headers=KEY) for client in clients for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200] * 10
    assert ["idempotent-replayed" in answer.headers for answer in answers] == [False, True] * 5
    assert len(upstream.requests) == 5
    assert [len(await charges_of(each)) for each in (alice, colleague, foreign)] == [3, 1, 1]


@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_a_repetition_needs_no_quota(
    way: Way, gateway: RunningGateway, alice: Person, upstream: Upstream
) -> None:
    send = await way.prepare(alice)
    first = await send(KEY)
    await top_up(gateway, alice, 12 - CREDIT)
    refused = await send({}, question="Something else?")
    check_error(refused, way.exhausted)
    is_replay(first, await send(KEY), way)
    assert await standing_of(alice) == (0, 0)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_a_refused_call_frees_its_key(way: Way, gateway: RunningGateway, upstream: Upstream) -> None:
    poor = await person_with(gateway, 1)
    send = await way.prepare(poor)
    check_error(await send(KEY), way.exhausted)
    await top_up(gateway, poor, CREDIT)
    answer = await send(KEY)
    assert text_of(answer, way) == TEXT
    assert "idempotent-replayed" not in answer.headers
    assert await charges_of(poor) == [-12]


@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_a_failed_call_frees_its_key(way: Way, alice: Person, upstream: Upstream) -> None:
    upstream.always(Fail(status=500))
    send = await way.prepare(alice)
    failed = await send(KEY)
    if way.dialect == NATIVE and way.stream:
        assert b"message.failed" in failed.content
    else:
        check_error(failed, 502)
    failures = len(upstream.requests)
    upstream.always(Answer(chunks=WORDS, usage=Usage(input=7, output=5)))
    answer = await send(KEY)
    assert text_of(answer, way) == TEXT
    is_replay(answer, await send(KEY), way)
    assert len(upstream.requests) == failures + 1
    assert await charges_of(alice) == [-12]


@pytest.mark.parametrize("way", STREAMS, ids=str)
async def test_a_stream_that_broke_is_repeated_with_its_error_and_charged_once(
    way: Way, alice: Person, upstream: Upstream
) -> None:
    upstream.script(CutAfter(2, Answer(chunks=WORDS)))
    send = await way.prepare(alice)
    first = await send(KEY)
    assert text_of(first, way) == "one two "
    assert error_of(events_in(first)[-1])
    is_replay(first, await send(KEY), way)
    assert len(upstream.requests) == 1
    assert len(await charges_of(alice)) == 1


@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
@pytest.mark.parametrize("key", ["x" * 256, "a\tb"], ids=["long", "odd"])
async def test_what_is_no_key_is_refused(key: str, way: Way, alice: Person, upstream: Upstream) -> None:
    send = await way.prepare(alice)
    error = check_error(await send({"idempotency-key": key}), 422 if way.dialect == NATIVE else 400)
    assert "Idempotency-Key" in error["message"]
    assert not upstream.requests
    assert await charges_of(alice) == []


async def test_the_longest_key_is_one(alice: Person, upstream: Upstream) -> None:
    send = await WHOLES[-1].prepare(alice)
    is_replay(await send({"idempotency-key": "é" * 127}), await send({"idempotency-key": "é" * 127}), WHOLES[-1])
    is_replay(await send({"idempotency-key": "x" * 255}), await send({"idempotency-key": "x" * 255}), WHOLES[-1])
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_an_answer_too_large_to_be_kept_is_not_charged_again(
    way: Way, alice: Person, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "MAX_KEPT_BYTES", 20)
    send = await way.prepare(alice)
    first = await send(KEY)
    again = await send(KEY)
    if way.dialect == NATIVE and way.stream:  # its message is there anyway
        is_replay(first, again, way)
    else:
        assert "too large" in check_error(again, 409)["message"]
        assert again.headers["x-should-retry"] == "false"
    await cost_once(alice, upstream)


@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_a_client_request_id_is_a_key_for_the_same_body_only(way: Way, alice: Person, upstream: Upstream) -> None:
    send = await way.prepare(alice)
    name = {"x-client-request-id": "one session of an agent"}
    first = await send(name)
    is_replay(first, await send(name), way)
    assert len(upstream.requests) == 1
    other = await send(name, question="Something else?")
    assert text_of(other, way) == TEXT
    assert "idempotent-replayed" not in other.headers
    assert "idempotent-replayed" not in (await send({**name, **KEY}, question="A third?")).headers
    check_error(await send({**name, **KEY}), 422)  # the stronger one counts
    assert len(upstream.requests) == 3


async def test_an_odd_client_request_id_is_none(alice: Person, upstream: Upstream) -> None:
    send = await WHOLES[-1].prepare(alice)
    for _ in range(2):
        assert "idempotent-replayed" not in (await send({"x-client-request-id": "x" * 256})).headers
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("way", [way for way in STREAMS if way.dialect != NATIVE], ids=str)
async def test_a_stream_with_a_client_request_id_alone_is_cancelled_and_its_repetition_is_a_new_call(
    way: Way, gateway: RunningGateway, alice: Person, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repetition comes while the first is being given up: it must not hear its end as if it were the answer's."""
    ledger = gateway.app.state.gateway.completions.answers.ledger
    close, may_close, closing = ledger.close, asyncio.Event(), asyncio.Event()

    async def slow_close(*given: Any) -> Any:
        closing.set()
        await may_close.wait()
        return await close(*given)

    upstream.script(Answer(chunks=WORDS, gate=asyncio.Event(), gate_after=2))
    send = await way.prepare(alice)
    name = {"x-client-request-id": "a session"}
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "close", slow_close)
        await way.hang_up_after(alice, send.path, name, b"two ")
        await upstream.requests[-1].wait_disconnected(1)
        await asyncio.wait_for(closing.wait(), 5)
        repeating = asyncio.create_task(send(name))
        for _ in range(20):  # it looks the key up, and waits for what will come of the first
            await asyncio.sleep(0.01)
        may_close.set()
        again = await repeating
    assert text_of(again, way) == TEXT
    assert "error" not in events_in(again)[-1]
    assert len(upstream.requests) == 2
