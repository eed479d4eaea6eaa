"""The same thing wanted by several callers at once: one gets it, the others are told, and nothing breaks."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from typing import Any
from uuid import uuid4

import httpx2
import jwt
import pytest
import pytest_asyncio

from tests.http.surface import CHAT, books_are_right, check_answer
from tests.support.gateway import JWT_SECRET, Person, RunningGateway
from tests.support.upstream import Answer, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLERS = 8
CREDIT = 1_000_000


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(any_shared_gateway: RunningGateway, upstream: Upstream) -> AsyncIterator[RunningGateway]:
    yield any_shared_gateway
    await books_are_right(any_shared_gateway)


async def statuses(*asking: Awaitable[httpx2.Response]) -> Counter[int]:
    """How often each status was answered."""
    answers = await asyncio.gather(*asking)
    for answer in answers:
        check_answer(answer)
    return Counter(answer.status_code for answer in answers)


async def rich(gateway: RunningGateway) -> Person:
    person = await gateway.new_user(f"user-{uuid4()}")
    await gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": CREDIT})
    return person


async def test_of_equal_names_one_is_made(gateway: RunningGateway) -> None:
    slug, external_id = f"t-{uuid4().hex[:8]}", f"user-{uuid4()}"
    for path, body in (
        ("/api/v1/admin/tenants", {"slug": slug, "name": "x"}),
        ("/api/v1/admin/users", {"external_id": external_id}),
    ):
        found = await statuses(*(gateway.http.post(path, json=body) for _ in range(CALLERS)))
        assert found == {201: 1, 409: CALLERS - 1}


async def test_a_new_subject_becomes_one_user(gateway: RunningGateway) -> None:
    subject = f"user-{uuid4()}"
    clients = [
        gateway.client(jwt.encode({"sub": subject, "exp": int(time.time()) + 600 + each}, JWT_SECRET))
        for each in range(CALLERS)
    ]
    answers = await asyncio.gather(*(client.get("/api/v1/me") for client in clients))
    assert len({answer.json()["user"]["id"] for answer in answers}) == 1


async def test_a_new_user_gets_one_history(gateway: RunningGateway) -> None:
    person = await rich(gateway)
    questions = [{"content": f"{uuid4()}", "model": "gpt-4o"} for _ in range(CALLERS)]
    assert await statuses(*(person.http.post("/chat", json=body) for body in questions)) == {200: CALLERS}
    assert len((await person.http.get(f"/history/{person.id}")).json()) == CALLERS


async def test_top_ups_and_deductions_add_up(gateway: RunningGateway) -> None:
    person = await gateway.new_user(f"user-{uuid4()}")
    path = f"/api/v1/admin/users/{person.id}/tokens"
    assert await statuses(*(gateway.http.post(path, json={"amount": 10}) for _ in range(CALLERS))) == {200: CALLERS}
    found = await statuses(*(gateway.http.post(path, json={"amount": -30}) for _ in range(CALLERS)))
    assert found == {200: 2, 409: CALLERS - 2}
    assert (await gateway.http.get(path)).json()["balance"] == 10 * CALLERS - 60


async def test_a_refresh_token_is_exchanged_once(gateway: RunningGateway) -> None:
    email = f"{uuid4().hex}@example.org"
    body = {"external_id": email, "email": email, "password": "correct horse"}
    await gateway.http.post("/api/v1/admin/users", json=body)
    login = await gateway.http.post("/api/v1/auth/login", json={"email": email, "password": "correct horse"})
    refresh = {"refresh_token": login.json()["refresh_token"]}
    found = await statuses(*(gateway.http.post("/api/v1/auth/refresh", json=refresh) for _ in range(CALLERS)))
    assert found == {200: 1, 401: CALLERS - 1}


async def test_a_key_that_is_rotated_and_revoked_at_once_ends_dead(gateway: RunningGateway) -> None:
    key = (await gateway.http.post("/api/v1/api-keys", json={"name": "x"})).json()
    path = f"/api/v1/api-keys/{key['id']}"
    found = await statuses(*(gateway.http.post(f"{path}/rotate") for _ in range(4)), gateway.http.delete(path))
    assert set(found) <= {200, 204, 409}
    assert found[204] == 1
    assert (await gateway.client(key["secret"]).get("/api/v1/me")).status_code == 401


async def test_chains_and_models_are_put_at_once(gateway: RunningGateway) -> None:
    name = f"m-{uuid4().hex[:8]}"
    model = {"name": name, "provider": "openai", "context_window": 1000, "max_output": 100}
    priced = [{**model, "price": {"input": number, "output": number}} for number in range(CALLERS)]
    assert await statuses(*(gateway.http.post("/api/v1/admin/models", json=each) for each in priced)) == {201: CALLERS}
    prices = (await gateway.http.get(f"/api/v1/admin/models/{name}/prices")).json()["data"]
    assert len(prices) == 1
    day = {"input": 1, "output": 1, "from": "2020-01-01"}
    path = f"/api/v1/admin/models/{name}/prices"
    assert await statuses(*(gateway.http.post(path, json=day) for _ in range(CALLERS))) == {201: CALLERS}
    assert len((await gateway.http.get(path)).json()["data"]) == 2
    chain = {"name": f"c-{uuid4().hex[:8]}", "models": [name]}
    assert await statuses(*(gateway.http.post("/api/v1/admin/chains", json=chain) for _ in range(4))) == {201: 4}
    gone = await statuses(*(gateway.http.delete(f"/api/v1/admin/chains/{chain['name']}") for _ in range(4)))
    assert gone == {204: 1, 404: 3}


async def test_a_dialog_takes_questions_at_once(gateway: RunningGateway) -> None:
    person = await rich(gateway)
    dialog = (await person.http.post("/api/v1/dialogs", json={"model": "gpt-4o"})).json()["id"]
    path = f"/api/v1/dialogs/{dialog}/messages"
    body: dict[str, Any] = {"content": "x"}
    assert await statuses(*(person.http.post(path, json=body) for _ in range(CALLERS))) == {201: CALLERS}
    kept = (await person.http.get(f"{path}?limit=100")).json()["data"]
    assert len(kept) == 2 * CALLERS
    assert {message["status"] for message in kept} == {"completed"}
    assert (await person.http.post(path, json=body)).status_code == 201


@pytest.mark.parametrize("stream", [False, True])
async def test_a_dialog_deleted_while_it_is_answered_is_charged_all_the_same(
    stream: bool, gateway: RunningGateway, upstream: Upstream
) -> None:
    person, gate = await rich(gateway), asyncio.Event()
    upstream.always(Answer(text="Fine.", usage=Usage(input=7, output=5), gate=gate))
    dialog = (await person.http.post("/api/v1/dialogs", json={"model": "gpt-4o"})).json()["id"]
    body = {"content": "x", "stream": stream}
    asking = asyncio.create_task(person.http.post(f"/api/v1/dialogs/{dialog}/messages", json=body))
    await upstream.wait_in_flight(1)
    assert (await person.http.delete(f"/api/v1/dialogs/{dialog}")).status_code == 204
    gate.set()
    answer = await asking
    check_answer(answer)
    assert answer.status_code in (200, 201)
    standing = (await person.http.get("/api/v1/users/me/tokens")).json()
    assert (standing["balance"], standing["held"]) == (CREDIT - 12, 0)
    assert (await person.http.get(f"/api/v1/dialogs/{dialog}")).status_code == 404


async def test_a_key_revoked_while_it_asks_pays_for_its_answer(gateway: RunningGateway, upstream: Upstream) -> None:
    person, gate = await rich(gateway), asyncio.Event()
    upstream.always(Answer(text="Fine.", usage=Usage(input=7, output=5), gate=gate))
    asking = asyncio.create_task(person.http.post("/v1/chat/completions", json=CHAT))
    await upstream.wait_in_flight(1)
    await gateway.http.patch(f"/api/v1/admin/users/{person.id}", json={"disabled": True})
    await gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": -10})
    gate.set()
    assert (await asking).status_code == 200
    standing = (await gateway.http.get(f"/api/v1/admin/users/{person.id}/tokens")).json()
    assert (standing["balance"], standing["held"]) == (CREDIT - 10 - 12, 0)
    assert (await person.http.post("/v1/chat/completions", json=CHAT)).status_code == 401


async def test_credit_that_is_held_cannot_be_deducted(gateway: RunningGateway, upstream: Upstream) -> None:
    person = await gateway.new_user(f"user-{uuid4()}")
    credit = f"/api/v1/admin/users/{person.id}/tokens"
    await gateway.http.post(credit, json={"amount": 1000})
    gate = asyncio.Event()
    upstream.always(Answer(text="Fine.", usage=Usage(input=7, output=5), gate=gate))
    asking = asyncio.create_task(person.http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 500}))
    await upstream.wait_in_flight(1)
    held = (await gateway.http.get(credit)).json()["held"]
    assert held > 500
    assert (await gateway.http.post(credit, json={"amount": -1000 + held - 1})).status_code == 409
    assert (await gateway.http.post(credit, json={"amount": -1000 + held})).status_code == 200
    gate.set()
    assert (await asking).status_code == 200
    assert (await gateway.http.get(credit)).json()["balance"] == held - 12
