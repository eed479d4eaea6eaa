"""What a call would hold, cost and be told, against what a real call then holds, sends, costs and is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text

from src.data.engine import make_engine, reading
from tests.http.surface import books_are_right, check_error
from tests.support.gateway import Person, RunningGateway
from tests.support.upstream import Answer, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCOPES, UNITS, WINDOWS = ("tenant", "user", "api_key"), ("tokens", "micro_usd", "requests"), ("none", "day", "month")
PLENTY = 10**9
QUESTION = {"content": "What is a quota?", "model": "gpt-4o"}
ASKED = {"messages": [{"role": "user", "content": QUESTION["content"]}], "model": "gpt-4o"}
TOLD = ("scope", "unit", "window", "model")
WRITTEN = ("quotas", "accounts", "holds", "hold_lines", "entries", "usage_records", "messages", "dialogs")


@dataclass(frozen=True, kw_only=True)
class Customer:
    """A user, alone in a tenant, and whoever sets their quotas."""

    gateway: RunningGateway
    upstream: Upstream
    person: Person
    scopes: dict[str, str]

    async def put_quota(self, limit: int, scope: str = "user", **given: Any) -> None:
        body = {"unit": "tokens", "window": "none", **given, "scope": scope, "limit": limit}
        response = await self.gateway.http.put("/api/v1/admin/quotas", json={**body, "scope_id": self.scopes[scope]})
        assert response.status_code == 200, response.text

    async def estimated(self, **body: Any) -> dict[str, Any]:
        response = await self.person.http.post("/api/v1/estimates", json=body)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def quotas(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.person.http.get("/api/v1/users/me/tokens")).json()["quotas"]
        return found

    @asynccontextmanager
    async def asking(self, path: str, body: dict[str, Any]) -> AsyncIterator[None]:
        """A real call, while its provider has not answered yet."""
        gate = asyncio.Event()
        self.upstream.always(Answer(text="Fine.", usage=Usage(input=7, output=5), gate=gate))
        call = asyncio.create_task(self.person.http.post(path, json=body))
        await self.upstream.wait_in_flight(1)
        try:
            yield
        finally:
            gate.set()
            answer = await call
        assert answer.is_success, answer.text

    async def held(self, path: str = "/chat", body: dict[str, Any] = QUESTION) -> dict[tuple[Any, ...], int]:
        """What each quota holds while a real call waits for its provider."""
        async with self.asking(path, body):
            return {key_of(quota): quota["held"] for quota in await self.quotas()}

    @property
    def sent_cap(self) -> int | None:
        """The output limit that the provider was sent last."""
        body = self.upstream.requests[-1].json
        found: int | None = body.get("max_completion_tokens", body.get("max_tokens"))
        return found


def key_of(quota: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(quota[name] for name in TOLD)


def would_hold(found: dict[str, Any]) -> dict[tuple[Any, ...], int]:
    return {key_of(account): account["would_hold"] for account in found["accounts"]}


@pytest_asyncio.fixture(loop_scope="module")
async def customer(any_shared_gateway: RunningGateway, shared_upstream: Upstream) -> AsyncIterator[Customer]:
    gateway, slug = any_shared_gateway, f"t-{uuid4().hex[:8]}"
    shared_upstream.reset()
    tenant = (await gateway.http.post("/api/v1/admin/tenants", json={"slug": slug, "name": slug})).json()["id"]
    person = await gateway.new_user("alice", tenant_id=tenant)
    key = (await person.http.get("/api/v1/api-keys")).json()["data"][0]["id"]
    scopes = {"tenant": tenant, "user": person.id, "api_key": key}
    yield Customer(gateway=gateway, upstream=shared_upstream, person=person, scopes=scopes)
    await books_are_right(gateway)


async def rows(gateway: RunningGateway) -> dict[str, int]:
    """How many rows the tables have that a call writes to, on either database."""
    engine = make_engine(gateway.settings.database_url)
    try:
        async with reading(engine) as connection:
            found = [(name, await connection.execute(text(f"SELECT count(*) FROM {name}"))) for name in WRITTEN]
            return {name: int(count.scalar_one()) for name, count in found}
    finally:
        await engine.dispose()


async def model_of(gateway: RunningGateway, price: int, **given: Any) -> str:
    """A new model at that price."""
    body = {
        "name": f"m-{uuid4().hex[:8]}", "provider": "openai", "upstream": "gpt-4o", "context_window": 10_000,
        "max_output": 1000, "price": {"input": price, "output": price}, **given,
    }  # fmt: skip
    response = await gateway.http.post("/api/v1/admin/models", json=body)
    assert response.status_code == 201, response.text
    return str(body["name"])


async def chain_of(gateway: RunningGateway, *prices: int) -> tuple[str, list[str]]:
    """A chain of new models, each as dear as it is said."""
    names = [await model_of(gateway, price) for price in prices]
    chain = f"c-{uuid4().hex[:8]}"
    made = await gateway.http.post("/api/v1/admin/chains", json={"name": chain, "models": names})
    assert made.status_code == 201
    return chain, names


async def test_where_nothing_limits_nothing_refuses(customer: Customer) -> None:
    found = await customer.estimated(**ASKED)
    assert (found["admitted"], found["shrunk"], found["refusals"], found["accounts"]) == (True, False, [], [])
    assert (found["model"], found["output_tokens_cap"]) == ("gpt-4o", None)
    assert 0 < found["input_tokens"] < found["input_tokens_bound"]
    assert 0 < found["cost_micro_usd"]["least"] < found["cost_micro_usd"]["most"] == found["cost_micro_usd"]["worst"]
    [model] = found["models"]
    assert (model["name"], model["provider"], model["available"], model["left_out"]) == (
        "gpt-4o",
        "openai",
        True,
        False,
    )
    price = (await customer.person.http.get("/api/v1/models/gpt-4o")).json()["price"]
    for name in ("input_micro_usd_per_million", "output_micro_usd_per_million"):
        assert model[name] == price[name]
    assert "omitted_turns" not in found


async def test_each_account_holds_what_was_said(customer: Customer) -> None:
    for scope, unit, window in product(SCOPES, UNITS, WINDOWS):
        await customer.put_quota(PLENTY, scope, unit=unit, window=window)
    found = await customer.estimated(**ASKED)
    assert (found["admitted"], len(found["accounts"])) == (True, 27)
    assert would_hold(found) == await customer.held()
    assert {account["would_hold"] for account in found["accounts"]} == set(found["hold"].values())
    assert customer.sent_cap == found["output_tokens_cap"]
    again = await customer.estimated(**ASKED)
    assert {(account["used"], account["held"]) for account in again["accounts"] if account["unit"] == "tokens"} == {
        (12, 0)
    }


async def test_what_another_call_holds_is_no_longer_there(customer: Customer) -> None:
    await customer.put_quota(PLENTY)
    async with customer.asking("/chat", QUESTION):
        [account] = (await customer.estimated(**ASKED))["accounts"]
        assert account["held"] == account["would_hold"] == PLENTY - account["remaining"] > 0


async def test_all_who_would_refuse_are_told_and_a_call_is_told_the_same_of_one(customer: Customer) -> None:
    for scope, unit, window in product(SCOPES, UNITS, WINDOWS):
        await customer.put_quota(0 if window != "none" else PLENTY, scope, unit=unit, window=window)
    before = await customer.quotas()
    found = await customer.estimated(**ASKED)
    assert (found["admitted"], found["shrunk"], len(found["refusals"]), len(found["accounts"])) == (
        False,
        False,
        18,
        27,
    )
    assert set(would_hold(found).values()) == {0}
    assert {(each["unit"], each["needed"]) for each in found["refusals"]} == set(found["hold"].items())
    refused = check_error(await customer.person.http.post("/chat", json=QUESTION), 402)
    told = {**refused["details"], "remaining": 0, "message": refused["message"]}
    assert told in found["refusals"]
    assert await customer.quotas() == before


@pytest.mark.parametrize("unit", ["tokens", "micro_usd"])
async def test_a_cap_is_shrunk_as_it_then_is(customer: Customer, unit: str) -> None:
    bound = (await customer.estimated(**ASKED))["input_tokens_bound"]
    await customer.put_quota(bound + 500, unit=unit, window="day")
    found = await customer.estimated(**ASKED)
    assert (found["admitted"], found["shrunk"]) == (True, True)
    assert would_hold(found) == await customer.held()
    assert customer.sent_cap == found["output_tokens_cap"] < 501


async def test_what_cannot_be_paid_by_one_token_is_refused_and_by_none_admitted(customer: Customer) -> None:
    least = (await customer.estimated(**ASKED))["input_tokens_bound"] + customer.gateway.settings.least_output_tokens
    await customer.put_quota(PLENTY)
    await customer.held()
    spent = (await customer.quotas())[0]["used"]
    await customer.put_quota(spent + least - 1)
    short = await customer.estimated(**ASKED)
    assert [(each["needed"], each["remaining"]) for each in short["refusals"]] == [(least, least - 1)]
    await customer.put_quota(spent + least)
    enough = await customer.estimated(**ASKED)
    assert (enough["admitted"], enough["accounts"][0]["would_hold"]) == (True, least)


async def test_a_chain_is_estimated_model_by_model(customer: Customer) -> None:
    chain, (cheap, dear) = await chain_of(customer.gateway, 1, 10)
    await customer.put_quota(PLENTY, unit="micro_usd", window="month")
    found = await customer.estimated(**{**ASKED, "model": chain})
    assert (found["model"], [each["name"] for each in found["models"]]) == (chain, [cheap, dear])
    costs = [each["cost_micro_usd"]["most"] for each in found["models"]]
    assert costs == [costs[0], 10 * costs[0]] == [found["cost_micro_usd"]["most"], found["cost_micro_usd"]["worst"]]
    assert would_hold(found) == await customer.held("/chat", {**QUESTION, "model": chain})
    assert found["hold"]["micro_usd"] == costs[1]


async def test_a_member_that_cannot_pay_is_left_out_and_refuses_only_with_all_others(customer: Customer) -> None:
    chain, (cheap, dear) = await chain_of(customer.gateway, 1, 10)
    body = {**QUESTION, "model": chain}
    await customer.put_quota(0, model=cheap)
    await customer.put_quota(PLENTY)
    found = await customer.estimated(**{**ASKED, "model": chain})
    assert (found["admitted"], [each["left_out"] for each in found["models"]]) == (True, [True, False])
    assert would_hold(found) == await customer.held("/chat", body)
    assert found["cost_micro_usd"]["most"] == found["models"][1]["cost_micro_usd"]["most"]
    await customer.put_quota(0, model=dear, window="day")
    refused = await customer.estimated(**{**ASKED, "model": chain})
    assert {each["model"] for each in refused["refusals"]} == {cheap, dear}
    told = check_error(await customer.person.http.post("/chat", json={**body, "content": "Another."}), 402)
    assert told["details"]["model"] in (cheap, dear)


async def test_nothing_is_written_and_nobody_called(customer: Customer) -> None:
    dialog = (await customer.person.http.post("/api/v1/dialogs", json={"model": "gpt-4o"})).json()["id"]
    await customer.put_quota(PLENTY, window="day")
    await customer.put_quota(0, unit="requests", window="month")
    before, called = await rows(customer.gateway), len(customer.upstream.requests)
    assert not (await customer.estimated(**ASKED))["admitted"]
    assert not (await customer.estimated(dialog_id=dialog, content="Hello?"))["admitted"]
    assert (await customer.estimated(**ASKED))["accounts"][0]["used"] == 0
    assert (await rows(customer.gateway), len(customer.upstream.requests)) == (before, called)


async def test_a_question_to_a_dialog_is_estimated_with_what_it_would_be_sent_with(customer: Customer) -> None:
    fields = {"model": "gpt-4o", "system_prompt": "Be brief.", "params": {"max_output_tokens": 300}}
    dialog = (await customer.person.http.post("/api/v1/dialogs", json=fields)).json()["id"]
    path = f"/api/v1/dialogs/{dialog}/messages"
    await customer.put_quota(PLENTY)
    first = await customer.estimated(dialog_id=dialog, content="Hello?")
    assert would_hold(first) == await customer.held(path, {"content": "Hello?"})
    second = await customer.estimated(dialog_id=dialog, content="Hello?")
    assert second["input_tokens"] > first["input_tokens"]
    assert (second["omitted_turns"], second["output_tokens_cap"]) == (0, 300)
    assert would_hold(second) == await customer.held(path, {"content": "Hello?"})
    changed = {"content": "Hello?", "model": "claude-3-opus", "params": {"max_output_tokens": 20}, "stream": True}
    found = await customer.estimated(dialog_id=dialog, **changed)
    assert (found["model"], found["output_tokens_cap"]) == ("claude-3-opus", 20)
    assert would_hold(found) == await customer.held(path, changed)


async def test_a_stream_holds_a_reserve_at_first_and_a_whole_answer_ends_there(customer: Customer) -> None:
    model = await model_of(customer.gateway, 1, output_reserve=100)
    dialog = (await customer.person.http.post("/api/v1/dialogs", json={"model": model})).json()["id"]
    path, body = f"/api/v1/dialogs/{dialog}/messages", {"content": QUESTION["content"]}
    await customer.put_quota(PLENTY)
    for stream, cap in ((True, 1000), (False, 100)):
        asked = await customer.estimated(**{**ASKED, "model": model, "stream": stream})
        found = await customer.estimated(dialog_id=dialog, **body, stream=stream)
        assert asked["output_tokens_cap"] == found["output_tokens_cap"] == cap
        assert found["hold"]["tokens"] == found["input_tokens_bound"] + 100
        assert would_hold(found) == await customer.held(path, {**body, "stream": stream})
        assert customer.sent_cap == cap


async def test_a_branch_is_estimated_with_its_own_history(customer: Customer) -> None:
    dialog = (await customer.person.http.post("/api/v1/dialogs", json={"model": "gpt-4o"})).json()["id"]
    path = f"/api/v1/dialogs/{dialog}/messages"
    first = (await customer.person.http.post(path, json={"content": "One."})).json()["message"]["id"]
    there = await customer.estimated(dialog_id=dialog, content="Hello?")
    await customer.person.http.post(path, json={"content": "A second question, rather longer than the first."})
    assert (await customer.estimated(dialog_id=dialog, content="Hello?"))["input_tokens"] > there["input_tokens"]
    branch = await customer.estimated(dialog_id=dialog, content="Hello?", parent_id=first)
    assert branch["input_tokens"] == there["input_tokens"]
    unknown = {"dialog_id": dialog, "content": "Hello?", "parent_id": str(uuid4())}
    check_error(await customer.person.http.post("/api/v1/estimates", json=unknown), 404)


async def test_a_maximum_is_named_beside_or_within_the_params(customer: Customer) -> None:
    for body in ({"max_output_tokens": 40}, {"params": {"max_tokens": 40}}, {"max_output_tokens": 40, "params": {}}):
        assert (await customer.estimated(**ASKED, **body))["output_tokens_cap"] == 40


MESSAGES = ASKED["messages"]
FORMS = {
    "nothing": ({}, "messages"),
    "both forms": ({"messages": MESSAGES, "dialog_id": str(uuid4()), "content": "x"}, "messages"),
    "a dialog without a question": ({"dialog_id": str(uuid4())}, "content"),
    "a question without a dialog": ({"content": "x"}, "messages"),
    "messages and a question": ({"messages": MESSAGES, "content": "x"}, "content"),
    "messages and a parent": ({"messages": MESSAGES, "parent_id": str(uuid4())}, "parent_id"),
    "two maxima": (
        {"messages": MESSAGES, "max_output_tokens": 5, "params": {"max_output_tokens": 5}},
        "max_output_tokens",
    ),
}


@pytest.mark.parametrize(("body", "param"), FORMS.values(), ids=FORMS.keys())
async def test_a_body_in_neither_form_is_a_422_that_says_why(
    customer: Customer, body: dict[str, Any], param: str
) -> None:
    error = check_error(await customer.person.http.post("/api/v1/estimates", json=body), 422)
    assert error["param"] == param


async def test_foreign_dialogs_and_unknown_models_do_not_exist(customer: Customer) -> None:
    foreign = (await customer.gateway.http.post("/api/v1/dialogs", json={"model": "gpt-4o"})).json()["id"]
    for dialog in (foreign, str(uuid4()), "no-id"):
        body = {"dialog_id": dialog, "content": "x"}
        check_error(await customer.person.http.post("/api/v1/estimates", json=body), 404)
    error = check_error(await customer.person.http.post("/api/v1/estimates", json={**ASKED, "model": "nobody"}), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


async def test_a_key_estimates_the_models_it_may_use(customer: Customer) -> None:
    body = {"name": "narrow", "models": ["gpt-4o"]}
    secret = (await customer.person.http.post("/api/v1/api-keys", json=body)).json()["secret"]
    narrow = customer.gateway.client(secret)
    assert (await narrow.post("/api/v1/estimates", json=ASKED)).status_code == 200
    check_error(await narrow.post("/api/v1/estimates", json={**ASKED, "model": "claude-3-opus"}), 403)
