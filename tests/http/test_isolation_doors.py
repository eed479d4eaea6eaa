"""What stock clients keep here is its user's alone, by whatever id it is named; scoped keys reach no other model."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.http.surface import (
    ANTHROPIC,
    CONTENTS,
    GEMINI,
    MESSAGES,
    OPENAI,
    VERBS,
    books_are_right,
    check_error,
    dialect_of,
)
from tests.http.ways import EVERY_WAY, Way
from tests.support.gateway import Person, RunningGateway
from tests.support.upstream import Answer, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESPONSES, CONVERSATIONS = "/v1/responses", "/v1/conversations"
SECRET = "a secret of blue"
Call = tuple[str, str, Any]


@dataclass(frozen=True, kw_only=True)
class Town:
    """Carol of blue, who keeps things here; a neighbour of her tenant and its administrator; somebody of red."""

    gateway: RunningGateway
    carol: Person
    others: tuple[Person, ...]
    stranger: Person
    relayed: str
    translated: str
    background: str
    conversation: str
    native: str
    items: tuple[str, ...]
    answered: tuple[str, ...]

    @property
    def responses(self) -> tuple[str, ...]:
        return self.relayed, self.translated, self.background

    @property
    def everybody_else(self) -> list[httpx2.AsyncClient]:
        """Administrators among them."""
        return [*(each.http for each in self.others), self.stranger.http, self.gateway.http]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def town(any_shared_gateway: RunningGateway, shared_upstream: Upstream) -> AsyncIterator[Town]:
    gateway = any_shared_gateway
    red, blue = [
        (await gateway.http.post("/api/v1/admin/tenants", json={"slug": slug, "name": slug})).json()["id"]
        for slug in ("red", "blue")
    ]
    carol = await gateway.new_user("carol", tenant_id=blue)
    shared_upstream.always(Answer(text=SECRET))
    said = [{"role": "user", "content": SECRET}]
    conversation = await created(carol, CONVERSATIONS, {"items": said, "metadata": {"a": SECRET}})
    dialog = (await carol.http.post("/api/v1/dialogs", json={"title": SECRET, "model": "gpt-4o"})).json()["id"]
    await carol.http.post(f"/api/v1/dialogs/{dialog}/messages", json={"content": SECRET})
    relayed = await created(carol, RESPONSES, {"model": "gpt-4o", "input": said})
    asked = {"model": "claude-3-opus", "input": SECRET, "conversation": conversation["id"]}
    translated = await created(carol, RESPONSES, asked)
    background = await created(carol, RESPONSES, {"model": "gpt-4o", "input": SECRET, "background": True})
    await until_it_has_ended(carol, background["id"])
    listed = (await carol.http.get(f"{CONVERSATIONS}/{conversation['id']}/items")).json()["data"]
    answered = tuple(item["id"] for each in (relayed, translated) for item in each["output"])
    made = Town(
        gateway=gateway,
        carol=carol,
        others=(
            await gateway.new_user("dave", tenant_id=blue),
            await gateway.new_user("blue-admin", tenant_id=blue, role="tenant_admin"),
            await gateway.new_user("red-admin", tenant_id=red, role="tenant_admin"),
        ),
        stranger=await gateway.new_user("alice", tenant_id=red),
        relayed=relayed["id"],
        translated=translated["id"],
        background=background["id"],
        conversation=conversation["id"],
        native=f"conv_{dialog.replace('-', '')}",
        items=tuple(dict.fromkeys((*(item["id"] for item in listed), *answered))),
        answered=answered,
    )
    yield made
    await books_are_right(gateway)


async def created(person: Person, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await person.http.post(path, json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def until_it_has_ended(person: Person, name: str) -> None:
    """A listener hears it to its end."""
    heard = await person.http.get(f"{RESPONSES}/{name}?stream=true")
    assert "event: response.completed" in heard.text


def of_responses(town: Town) -> list[Call]:
    calls: list[Call] = []
    for name in town.responses:
        path = f"{RESPONSES}/{name}"
        calls += [
            ("GET", path, None),
            ("GET", f"{path}?stream=true", None),
            ("GET", f"{path}?stream=true&starting_after=0", None),
            ("GET", f"{path}/input_items", None),
            ("POST", f"{path}/cancel", None),
            ("DELETE", path, None),
        ]
    return calls


def of_conversations(town: Town) -> list[Call]:
    calls: list[Call] = []
    for name in (town.conversation, town.native):
        path = f"{CONVERSATIONS}/{name}"
        calls += [
            ("GET", path, None),
            ("POST", path, {"metadata": {"a": "mine"}}),
            ("GET", f"{path}/items", None),
            ("GET", f"{path}/items?after={town.items[0]}", None),
            ("POST", f"{path}/items", {"items": [{"role": "user", "content": "mine"}]}),
            *(("GET", f"{path}/items/{item}", None) for item in town.items),
            *(("DELETE", f"{path}/items/{item}", None) for item in town.items),
            ("DELETE", path, None),
        ]
    return calls


def that_build_upon_it(town: Town) -> list[Call]:
    """New questions of others that name what is Carol's, by every form of its ids."""
    answers = [form for name in town.responses for form in (name, name.removeprefix("resp_"), f"x_{name[5:]}")]
    dialogs = [form for name in (town.conversation, town.native) for form in (name, name[5:])]
    named: list[dict[str, Any]] = [
        *({"previous_response_id": each} for each in answers),
        *({"conversation": each} for each in dialogs),
        *({"conversation": {"id": each}} for each in dialogs),
        *({"input": [{"type": "item_reference", "id": each}]} for each in town.items),
        *({"input": [{"id": each}]} for each in town.items),
    ]
    body = {"model": "gpt-4o", "input": "x"}
    calls: list[Call] = [("POST", f"{RESPONSES}/input_tokens", {**body, **each}) for each in named]
    for model in ("gpt-4o", "claude-3-opus"):
        for more in ({}, {"stream": True}, {"background": True}, {"store": False}):
            calls += [("POST", RESPONSES, {**body, "model": model, **more, **each}) for each in named]
    return calls


async def seen_by_carol(town: Town) -> list[Any]:
    """Everything of hers that somebody might have changed."""
    paths = (
        *(f"{RESPONSES}/{name}" for name in town.responses),
        *(f"{RESPONSES}/{name}/input_items" for name in town.responses),
        *(f"{CONVERSATIONS}/{name}" for name in (town.conversation, town.native)),
        *(f"{CONVERSATIONS}/{name}/items" for name in (town.conversation, town.native)),
        "/api/v1/dialogs",
        "/api/v1/users/me/tokens",
    )
    return [(await town.carol.http.get(path)).json() for path in paths]


@pytest.mark.parametrize("calls", [of_responses, of_conversations, that_build_upon_it])
async def test_what_is_anothers_is_a_404_for_everybody_and_every_method(
    town: Town, shared_upstream: Upstream, calls: Any
) -> None:
    before, called = await seen_by_carol(town), len(shared_upstream.requests)
    for http in town.everybody_else:
        for method, path, body in calls(town):
            response = await http.request(method, path, json=body)
            error = check_error(response, 404, OPENAI)
            assert SECRET not in str(error)
    assert len(shared_upstream.requests) == called
    assert await seen_by_carol(town) == before


async def test_a_foreign_item_is_none_of_ones_own_conversation(town: Town) -> None:
    for http in town.everybody_else:
        own = (await http.post(CONVERSATIONS, json={"items": [{"role": "user", "content": "mine"}]})).json()
        path = f"{CONVERSATIONS}/{own['id']}/items"
        for item in town.items:
            check_error(await http.get(f"{path}/{item}"), 404)
            check_error(await http.delete(f"{path}/{item}"), 404)
            check_error(await http.get(f"{path}?after={item}"), 400)
        assert SECRET not in (await http.get(path)).text


async def test_what_is_ones_own_is_there_by_all_of_these_names(town: Town) -> None:
    """The questions above are right but for who asks them. (Of items, those of answers can be named.)"""
    for _, path, body in that_build_upon_it(town):
        items = body["input"] if isinstance(body["input"], list) else []
        if path != RESPONSES and all(item["id"] in town.answered for item in items):
            response = await town.carol.http.post(path, json=body)
            assert response.status_code == 200, f"{body}: {response.text}"
    for method, path, _ in (*of_responses(town), *of_conversations(town)):
        if method == "GET" and "after" not in path and "/items/" not in path:
            assert (await town.carol.http.get(path)).status_code == 200, path


ALLOWED, FORBIDDEN = "gpt-4o-mini", ("gpt-4o", "claude-3-opus", "gemini-2.5-flash", "text-embedding-3-small")


@pytest_asyncio.fixture(loop_scope="module")
async def scoped(town: Town) -> httpx2.AsyncClient:
    """A key of Carol's for one model."""
    made = await town.carol.http.post("/api/v1/api-keys", json={"name": "narrow", "models": [ALLOWED]})
    assert made.status_code == 201, made.text
    return town.gateway.client(made.json()["secret"])


def check_forbidden(response: httpx2.Response) -> None:
    error = check_error(response, 403)
    match dialect_of(response.url.path):
        case "gemini":
            assert error["status"] == "PERMISSION_DENIED"
        case "openai" | "anthropic":
            assert error["type"] == "permission_error"


@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_a_key_for_one_model_answers_with_no_other(town: Town, scoped: httpx2.AsyncClient, way: Way) -> None:
    narrow = replace(town.carol, http=scoped)
    check_error(await (await way.prepare(narrow))({}), 403, way.dialect)


async def test_a_key_for_one_model_counts_and_embeds_with_no_other(scoped: httpx2.AsyncClient) -> None:
    content = {"content": {"parts": [{"text": "x"}]}}
    for model in FORBIDDEN:
        for path, body in (
            (f"{RESPONSES}/input_tokens", {"model": model, "input": "x"}),
            ("/v1/messages/count_tokens", {**MESSAGES, "model": model}),
            ("/v1/embeddings", {"model": model, "input": "x"}),
            *((f"/v1/models/{model}:{verb}", {**CONTENTS, **content, "requests": [content]}) for verb in VERBS),
            *((f"/v1beta/models/{model}:{verb}", {**CONTENTS, **content, "requests": [content]}) for verb in VERBS),
        ):
            check_forbidden(await scoped.post(path, json=body))


async def test_a_key_for_one_model_sees_no_other(scoped: httpx2.AsyncClient) -> None:
    version = {"anthropic-version": "2023-06-01"}
    google = {"x-goog-api-key": scoped.headers["authorization"].removeprefix("Bearer ")}
    for path, headers, dialect in (
        ("/v1/models", {}, OPENAI),
        ("/v1/models", version, ANTHROPIC),
        ("/v1/models", google, GEMINI),
        ("/v1beta/models", {}, GEMINI),
    ):
        listed = (await scoped.get(path, headers=headers)).json()
        if dialect == GEMINI:
            assert [each["name"] for each in listed["models"]] == [f"models/{ALLOWED}"]
        else:
            assert [each["id"] for each in listed["data"]] == [ALLOWED]
        assert (await scoped.get(f"{path}/{ALLOWED}", headers=headers)).status_code == 200
        for model in FORBIDDEN:
            check_error(await scoped.get(f"{path}/{model}", headers=headers), 403, dialect)
