"""Dialogs over HTTP: kept, changed, found, paged, branched and trimmed to what a model can read."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.http.surface import books_are_right, check_error
from tests.support.gateway import Person, RunningGateway
from tests.support.upstream import Answer, Fail, Upstream, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

DIALOG_FIELDS = {
    "id", "title", "model", "agent", "system_prompt", "params", "metadata", "created_at", "updated_at",
}  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


@pytest_asyncio.fixture(loop_scope="module")
async def alice(any_shared_gateway: RunningGateway, upstream: Upstream) -> AsyncIterator[Person]:
    """A new user with credit; afterwards nothing is held and the books are right."""
    person = await any_shared_gateway.new_user(f"user-{uuid4()}")
    await any_shared_gateway.http.post(f"/api/v1/admin/users/{person.id}/tokens", json={"amount": 1_000_000})
    yield person
    assert (await person.http.get("/api/v1/users/me/tokens")).json()["held"] == 0
    await books_are_right(any_shared_gateway)


async def opened(person: Person, **fields: Any) -> dict[str, Any]:
    response = await person.http.post("/api/v1/dialogs", json={"model": "gpt-4o", **fields})
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


async def asked(person: Person, dialog: dict[str, Any], content: str, **fields: Any) -> dict[str, Any]:
    response = await person.http.post(f"/api/v1/dialogs/{dialog['id']}/messages", json={"content": content, **fields})
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


async def kept(person: Person, dialog: dict[str, Any]) -> list[dict[str, Any]]:
    listed = (await person.http.get(f"/api/v1/dialogs/{dialog['id']}/messages?limit=100")).json()
    found: list[dict[str, Any]] = listed["data"]
    return found


def told(upstream: Upstream) -> list[str]:
    """What the provider was told in the newest request."""
    return [message["content"] for message in upstream.requests[-1].json["messages"]]


async def test_a_dialog_is_opened_changed_cleared_and_deleted(alice: Person) -> None:
    fields = {
        "title": "Trip", "model": "gpt-4o", "system_prompt": "Be brief.", "params": {"temperature": 0.5, "stop": "END"},
        "metadata": {"ünï": {"code": [1, 2.5, True, None, "\U0001f600"]}},
    }  # fmt: skip
    dialog = await opened(alice, **fields)
    assert dialog.keys() == DIALOG_FIELDS
    assert {name: dialog[name] for name in fields} == {**fields, "params": {"temperature": 0.5, "stop": ["END"]}}
    path = f"/api/v1/dialogs/{dialog['id']}"
    assert (await alice.http.get(path)).json() == dialog
    renamed = (await alice.http.patch(path, json={"title": "Journey"})).json()
    assert renamed == {**dialog, "title": "Journey", "updated_at": renamed["updated_at"]}
    assert renamed["updated_at"] > dialog["updated_at"]
    nothing = dict.fromkeys(fields)
    cleared = (await alice.http.patch(path, json=nothing)).json()
    assert {name: cleared[name] for name in fields} == {**nothing, "params": {}, "metadata": {}}
    assert (await alice.http.patch(path, json={})).status_code == 200
    assert (await alice.http.delete(path)).status_code == 204
    for method in ("GET", "DELETE"):
        check_error(await alice.http.request(method, path), 404)
    check_error(await alice.http.patch(path, json={"title": "x"}), 404)


async def test_lists_are_paged_in_both_directions(alice: Person) -> None:
    made = [(await opened(alice, title=f"dialog {number}"))["id"] for number in range(7)]
    newest_first = made[::-1]

    async def page(query: str) -> tuple[list[str], bool]:
        found = (await alice.http.get(f"/api/v1/dialogs?{query}")).json()
        ids = [each["id"] for each in found["data"]]
        assert (found["first_id"], found["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        return ids, found["has_more"]

    assert await page("limit=3") == (newest_first[:3], True)
    assert await page(f"limit=3&after={newest_first[2]}") == (newest_first[3:6], True)
    assert await page(f"limit=3&after={newest_first[5]}") == (newest_first[6:], False)
    assert await page(f"limit=3&after={newest_first[6]}") == ([], False)
    assert await page(f"limit=3&before={newest_first[6]}") == (newest_first[3:6], True)
    assert await page(f"limit=3&before={newest_first[3]}") == (newest_first[:3], False)
    assert await page(f"after={newest_first[0]}&before={newest_first[4]}") == (newest_first[1:4], False)
    assert await page("limit=7") == (newest_first, False)


async def test_messages_are_paged_oldest_first(alice: Person) -> None:
    dialog = await opened(alice)
    for number in range(3):
        await asked(alice, dialog, f"question {number}")
    ids = [message["id"] for message in await kept(alice, dialog)]
    assert len(ids) == 6
    path = f"/api/v1/dialogs/{dialog['id']}/messages"
    first = (await alice.http.get(f"{path}?limit=4")).json()
    assert ([each["id"] for each in first["data"]], first["has_more"]) == (ids[:4], True)
    rest = (await alice.http.get(f"{path}?limit=4&after={first['last_id']}")).json()
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (ids[4:], False)
    one = (await alice.http.get(f"{path}/{ids[3]}")).json()
    assert one == first["data"][3]


async def test_a_search_finds_titles_and_what_was_said(alice: Person) -> None:
    by_title = (await opened(alice, title="Quarterly Report_100%"))["id"]
    said = await opened(alice, title="Other")
    await asked(alice, said, "Where did I see the Quarterly numbers?")
    await opened(alice, title="Nothing of it")

    async def found(query: str) -> list[str]:
        data = (await alice.http.get("/api/v1/dialogs", params={"q": query})).json()["data"]
        return [each["id"] for each in data]

    assert await found("quarterly") == [said["id"], by_title]
    assert await found("report_100%") == [by_title]
    for wildcard in ("reportx100", "%%", "Q_arterly", "\\", "*", "'", '"', "x' OR '1'='1"):
        assert await found(wildcard) == [], wildcard
    assert len(await found("")) == 3


async def test_parameters_of_the_dialog_and_the_question_reach_the_provider(alice: Person, upstream: Upstream) -> None:
    params = {"temperature": 0.5, "max_output_tokens": 50, "stop": ["END"], "seed": 7}
    dialog = await opened(alice, params=params, system_prompt="Be brief.")
    await asked(alice, dialog, "x", params={"temperature": 1, "top_p": 0.9})
    sent = upstream.requests[-1].json
    assert (sent["temperature"], sent["top_p"], sent["stop"], sent["seed"]) == (1, 0.9, ["END"], 7)
    assert sent["max_completion_tokens"] == 50
    assert told(upstream) == ["Be brief.", "x"]
    await asked(alice, dialog, "y", model="claude-3-opus")
    assert upstream.requests[-1].provider == "anthropic"
    assert upstream.requests[-1].json["system"] == "Be brief."
    await asked(alice, dialog, "z")
    assert upstream.requests[-1].provider == "openai"


async def test_a_question_may_hang_below_any_answer(alice: Person, upstream: Upstream) -> None:
    dialog = await opened(alice)
    first = await asked(alice, dialog, "one")
    second = await asked(alice, dialog, "two")
    branch = await asked(alice, dialog, "three", parent_id=first["message"]["id"])
    assert branch["user_message"]["parent_id"] == first["message"]["id"]
    assert told(upstream) == ["one", "echo: one", "three"]
    await asked(alice, dialog, "four")
    assert told(upstream) == ["one", "echo: one", "three", "echo: three", "four"]
    await asked(alice, dialog, "five", parent_id=second["message"]["id"])
    assert told(upstream) == ["one", "echo: one", "two", "echo: two", "five"]
    path = f"/api/v1/dialogs/{dialog['id']}/messages"
    wrong = await alice.http.post(path, json={"content": "x", "parent_id": first["user_message"]["id"]})
    assert check_error(wrong, 422)["param"] == "parent_id"


async def tiny_model(gateway: RunningGateway, **fields: Any) -> str:
    name = f"tiny-{uuid4().hex[:8]}"
    body = {
        "name": name, "provider": "openai", "upstream": "gpt-4o", "context_window": 120, "max_output": 20,
        "price": {"input": 0, "output": 0}, **fields,
    }  # fmt: skip
    made = await gateway.http.post("/api/v1/admin/models", json=body)
    assert made.status_code == 201, made.text
    return name


async def test_history_is_trimmed_to_the_window_from_its_start(
    alice: Person, any_shared_gateway: RunningGateway, upstream: Upstream
) -> None:
    dialog = await opened(alice, model=await tiny_model(any_shared_gateway), system_prompt="Be brief.")
    upstream.always(Answer(text="fine", usage=Usage(input=5, output=5)))
    omitted = [(await asked(alice, dialog, f"question number {number}"))["omitted_turns"] for number in range(8)]
    assert omitted[:2] == [0, 0]
    assert omitted == sorted(omitted)
    assert omitted[-1] > 0
    heard = told(upstream)
    assert heard[0] == "Be brief."
    assert heard[-1] == "question number 7"
    assert (
        heard[1:] == [text for number in range(omitted[-1], 8) for text in (f"question number {number}", "fine")][:-1]
    )
    assert len(await kept(alice, dialog)) == 16


async def test_the_newest_question_is_always_sent(
    alice: Person, any_shared_gateway: RunningGateway, upstream: Upstream
) -> None:
    dialog = await opened(alice, model=await tiny_model(any_shared_gateway))
    await asked(alice, dialog, "short")
    almost = " ".join(["word"] * 95)
    answer = await asked(alice, dialog, almost)
    assert answer["omitted_turns"] == 1
    assert told(upstream) == [almost]


async def test_a_question_beyond_the_window_is_a_422_that_says_so(
    alice: Person, any_shared_gateway: RunningGateway, upstream: Upstream
) -> None:
    dialog = await opened(alice, model=await tiny_model(any_shared_gateway))
    body = {"content": "word " * 500}
    for stream in (False, True):
        response = await alice.http.post(f"/api/v1/dialogs/{dialog['id']}/messages", json={**body, "stream": stream})
        error = check_error(response, 422)
        assert (error["code"], error["param"]) == ("context_length_exceeded", "content")
    assert upstream.requests == []
    assert await kept(alice, dialog) == []


async def test_a_failed_answer_is_kept_and_the_next_question_does_not_hang_below_it(
    alice: Person, upstream: Upstream
) -> None:
    dialog = await opened(alice)
    first = await asked(alice, dialog, "one")
    upstream.script(Fail(status=500))
    failed = await alice.http.post(f"/api/v1/dialogs/{dialog['id']}/messages", json={"content": "two"})
    check_error(failed, 502)
    question, answer = (await kept(alice, dialog))[2:]
    assert (question["content"], question["status"]) == ("two", "completed")
    assert (answer["status"], answer["content"], answer["cost_micro_usd"]) == ("failed", "", 0)
    assert answer["error"]["code"] == "provider_failed"
    upstream.reset()
    third = await asked(alice, dialog, "three")
    assert third["user_message"]["parent_id"] == first["message"]["id"]
    assert told(upstream) == ["one", "echo: one", "three"]


async def test_the_ledger_outlives_the_dialog(alice: Person, upstream: Upstream) -> None:
    upstream.always(Answer(text="fine", usage=Usage(input=30, output=10)))
    dialog = await opened(alice)
    message = (await asked(alice, dialog, "x"))["message"]
    before = (await alice.http.get("/api/v1/users/me/tokens/history")).json()
    assert (before["data"][0]["amount"], before["data"][0]["message_id"]) == (-40, message["id"])
    assert (await alice.http.delete(f"/api/v1/dialogs/{dialog['id']}")).status_code == 204
    assert (await alice.http.get("/api/v1/users/me/tokens/history")).json() == before
    assert (await alice.http.get("/api/v1/users/me/tokens")).json()["balance"] == 1_000_000 - 40
    usage = (await alice.http.get("/api/v1/usage")).json()["data"]
    assert [(row["model"], row["calls"], row["total_tokens"]) for row in usage] == [("gpt-4o", 1, 40)]
    assert usage[0]["cost_micro_usd"] == message["cost_micro_usd"] == 175


async def test_a_question_that_cannot_be_paid_is_a_402_and_leaves_nothing(
    any_shared_gateway: RunningGateway, upstream: Upstream
) -> None:
    poor = await any_shared_gateway.new_user(f"user-{uuid4()}")
    await any_shared_gateway.http.post(f"/api/v1/admin/users/{poor.id}/tokens", json={"amount": 3})
    dialog = await opened(poor)
    for body in ({"content": "one two three"}, {"content": "one two three", "stream": True}):
        response = await poor.http.post(f"/api/v1/dialogs/{dialog['id']}/messages", json=body)
        error = check_error(response, 402)
        assert response.headers["x-should-retry"] == "false"
        assert error["code"] == error["type"] == "insufficient_quota"
        assert error["details"].keys() >= {"scope", "unit", "window", "limit", "used", "held", "needed", "resets_at"}
        assert (error["details"]["scope"], error["details"]["limit"]) == ("user", 3)
    assert upstream.requests == []
    assert await kept(poor, dialog) == []
    assert (await poor.http.get("/api/v1/users/me/tokens")).json()["held"] == 0
