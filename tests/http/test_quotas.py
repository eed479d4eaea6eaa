"""Quotas over HTTP: made, changed, read, adjusted, removed; who may, and what a refused call is told."""

import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import jwt
import pytest
import pytest_asyncio

from tests.http.surface import CHAT, MESSAGES, books_are_right, check_answer, check_error
from tests.support.gateway import JWT_SECRET, Person, RunningGateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUOTAS = "/api/v1/admin/quotas"
SHAPE = {
    "id", "tenant_id", "scope", "scope_id", "unit", "window", "model", "limit", "used", "held", "remaining",
    "resets_at", "created_at", "updated_at",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Town:
    """Red in Tokyo with an administrator and Alice; Carol is an administrator of blue."""

    gateway: RunningGateway
    red: str
    blue: str
    admin: Person
    alice: Person
    carol: Person

    @property
    def root(self) -> httpx2.AsyncClient:
        return self.gateway.http


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def town(any_shared_gateway: RunningGateway) -> Town:
    gateway = any_shared_gateway
    red, blue = [
        (await gateway.http.post("/api/v1/admin/tenants", json={"slug": slug, "name": slug, "time_zone": zone})).json()
        for slug, zone in (("red", "Asia/Tokyo"), ("blue", "UTC"))
    ]
    return Town(
        gateway=gateway,
        red=red["id"],
        blue=blue["id"],
        admin=await gateway.new_user("red-admin", tenant_id=red["id"], role="tenant_admin"),
        alice=await gateway.new_user("alice", tenant_id=red["id"]),
        carol=await gateway.new_user("carol", tenant_id=blue["id"], role="tenant_admin"),
    )


async def somebody(town: Town) -> Person:
    """A new user of red."""
    return await town.gateway.new_user(f"user-{uuid4()}", tenant_id=town.red)


def order(scope: str, scope_id: str, limit: int = 1000, **given: Any) -> dict[str, Any]:
    return {"scope": scope, "scope_id": scope_id, "unit": "tokens", "window": "day", "limit": limit, **given}


async def put(http: httpx2.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    response = await http.put(QUOTAS, json=body)
    check_answer(response)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    assert found.keys() == SHAPE
    return found


async def got(http: httpx2.AsyncClient, path: str) -> Any:
    response = await http.get(path)
    assert response.status_code == 200, response.text
    return response.json()


async def key_of(person: Person) -> str:
    found: str = (await got(person.http, "/api/v1/me"))["api_key"]["id"]
    return found


async def test_a_quota_lives_from_put_to_delete(town: Town) -> None:
    user = await somebody(town)
    made = await put(town.admin.http, order("user", user.id))
    path = f"{QUOTAS}/{made['id']}"
    assert (made["scope"], made["scope_id"], made["tenant_id"]) == ("user", user.id, town.red)
    assert (made["limit"], made["used"], made["held"], made["remaining"], made["model"]) == (1000, 0, 0, 1000, None)
    assert made["resets_at"].endswith("T15:00:00.000000Z"), "midnight in Tokyo"
    again = await put(town.admin.http, order("user", user.id, 5000))
    assert (again["id"], again["limit"]) == (made["id"], 5000)
    adjusted = await town.admin.http.post(f"{path}/adjustments", json={"amount": 50, "reason": "a busy day"})
    assert (adjusted.status_code, adjusted.json()["limit"]) == (200, 5050)
    assert await got(town.admin.http, path) == adjusted.json()
    check_error(await town.admin.http.post(f"{path}/adjustments", json={"amount": -5051}), 409)
    answer = await user.http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 20})
    spent = answer.json()["usage"]["total_tokens"]
    assert (await got(town.admin.http, path))["used"] == spent
    lines = (await got(town.admin.http, f"{path}/entries"))["data"]
    assert [(line["kind"], line["amount"], line["reason"]) for line in lines] == [
        ("charge", -spent, None),
        ("top_up", 50, "a busy day"),
        ("limit", 4000, None),
        ("limit", 1000, None),
    ]
    assert (await town.admin.http.delete(path)).status_code == 204
    for method, gone in (("DELETE", path), ("GET", path), ("GET", f"{path}/entries")):
        check_error(await town.admin.http.request(method, gone), 404)
    anew = await put(town.admin.http, order("user", user.id))
    assert anew["id"] != made["id"]
    assert anew["used"] == 0
    log = (await got(town.admin.http, "/api/v1/admin/audit?limit=100"))["data"]
    assert [row["action"] for row in log if row["object_id"] == made["id"]] == [
        "quota.removed",
        "quota.adjusted",
        "quota.put",
        "quota.put",
    ]


async def test_a_prepaid_quota_counts_all_that_was_ever_given(town: Town) -> None:
    user = await somebody(town)
    tokens = f"/api/v1/admin/users/{user.id}/tokens"
    assert (await town.admin.http.post(tokens, json={"amount": 400})).json()["balance"] == 400
    answer = await user.http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 20})
    spent = answer.json()["usage"]["total_tokens"]
    put_again = await put(town.admin.http, order("user", user.id, 300, window="none"))
    assert (put_again["limit"], put_again["used"], put_again["remaining"]) == (300, spent, 300 - spent)
    assert put_again["resets_at"] is None
    standing = await got(user.http, "/api/v1/users/me/tokens")
    assert (standing["balance"], standing["limit"], standing["total_used"]) == (300 - spent, 300, spent)
    assert await got(town.admin.http, tokens) == standing


async def test_lists_are_keyset_pages_with_filters(town: Town) -> None:
    user = await somebody(town)
    made = [
        await put(town.admin.http, order("user", user.id, unit=unit)) for unit in ("tokens", "micro_usd", "requests")
    ]
    mine = f"{QUOTAS}?scope=user&scope_id={user.id}"
    first = await got(town.admin.http, f"{mine}&limit=2")
    assert (first["data"], first["has_more"]) == (made[:2], True)
    rest = await got(town.admin.http, f"{mine}&limit=2&after={first['last_id']}")
    assert (rest["data"], rest["has_more"]) == (made[2:], False)
    back = await got(town.root, f"{mine}&tenant_id={town.red}&before={rest['first_id']}")
    assert back["data"] == made[:2]
    assert (await got(town.admin.http, f"{QUOTAS}?scope=api_key&scope_id={user.id}"))["data"] == []
    entries = f"{QUOTAS}/{made[0]['id']}/entries"
    await town.admin.http.post(f"{QUOTAS}/{made[0]['id']}/adjustments", json={"amount": 1})
    newest = await got(town.admin.http, f"{entries}?limit=1")
    assert ([line["kind"] for line in newest["data"]], newest["has_more"]) == (["top_up"], True)
    oldest = await got(town.admin.http, f"{entries}?after={newest['last_id']}")
    assert [line["kind"] for line in oldest["data"]] == ["limit"]


async def test_who_may_change_which_quotas(town: Town) -> None:
    alices_key, carols_key = await key_of(town.alice), await key_of(town.carol)
    for body, of_admin, of_carol in (
        (order("tenant", town.red, 10**9), 403, 404),
        (order("tenant", town.blue, 10**9), 404, 403),
        (order("new_user", town.red, 10**9, unit="requests"), 200, 404),
        (order("user", town.alice.id, 10**9), 200, 404),
        (order("user", town.carol.id, 10**9), 404, 200),
        (order("api_key", alices_key, 10**9), 200, 404),
        (order("api_key", carols_key, 10**9), 404, 403),
    ):
        check_error(await town.alice.http.put(QUOTAS, json=body), 403)
        check_error(await town.gateway.client(None).put(QUOTAS, json=body), 401)
        for person, status in ((town.admin, of_admin), (town.carol, of_carol)):
            response = await person.http.put(QUOTAS, json=body)
            if status == 200:
                assert response.status_code == 200, response.text
            else:
                check_error(response, status)
        quota = await put(town.root, body)
        await check_reach(town, f"{QUOTAS}/{quota['id']}", quota)
        assert (await town.root.delete(f"{QUOTAS}/{quota['id']}")).status_code == 204


async def check_reach(town: Town, path: str, quota: dict[str, Any]) -> None:
    """Its tenant's administrators and the platform's see it; nobody else may do anything with it."""
    outsider = town.carol if quota["tenant_id"] == town.red else town.admin
    for method, tail, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "/adjustments", {"amount": 5}),
        ("GET", "/entries", None),
    ):
        check_error(await town.alice.http.request(method, path + tail, json=body), 403)
        check_error(await outsider.http.request(method, path + tail, json=body), 404)
    insider = town.admin if outsider is town.carol else town.carol
    for http in (insider.http, town.root):
        assert await got(http, path) == quota
        assert (await got(http, f"{path}/entries"))["data"][0]["kind"] == "limit"
    if quota["scope"] == "tenant":
        check_error(await insider.http.delete(path), 403)
        check_error(await insider.http.post(f"{path}/adjustments", json={"amount": 5}), 403)


async def test_what_is_not_there_or_has_ended_gets_no_quota(town: Town) -> None:
    for scope in ("tenant", "user", "api_key", "new_user"):
        check_error(await town.root.put(QUOTAS, json=order(scope, str(uuid4()))), 404)
    key = (await town.alice.http.post("/api/v1/api-keys", json={"name": "short-lived"})).json()["id"]
    await town.alice.http.delete(f"/api/v1/api-keys/{key}")
    check_error(await town.admin.http.put(QUOTAS, json=order("api_key", key)), 409)


async def test_a_key_does_not_lift_its_own_quota(town: Town) -> None:
    key = await key_of(town.admin)
    quota = await put(town.root, order("api_key", key, 10**9))
    check_error(await town.admin.http.put(QUOTAS, json=order("api_key", key)), 403)
    check_error(await town.admin.http.delete(f"{QUOTAS}/{quota['id']}"), 403)
    assert (await town.root.delete(f"{QUOTAS}/{quota['id']}")).status_code == 204


async def test_a_users_limits_are_set_and_removed_by_name(town: Town) -> None:
    user = await somebody(town)
    path = f"/api/v1/admin/users/{user.id}/limits"
    names = [f"{unit}_per_{window}" for unit in ("tokens", "micro_usd", "requests") for window in ("day", "month")]
    nothing = dict.fromkeys([*names, "requests_per_minute", "tokens_per_minute", "parallel"])
    assert await got(town.admin.http, path) == nothing
    changed = await town.admin.http.patch(path, json={"tokens_per_day": 500, "requests_per_month": 3})
    assert changed.json() == {**nothing, "tokens_per_day": 500, "requests_per_month": 3}
    changed = await town.admin.http.patch(path, json={"tokens_per_day": None, "micro_usd_per_day": 0})
    assert changed.json() == {**nothing, "requests_per_month": 3, "micro_usd_per_day": 0}
    assert await got(town.root, path) == changed.json()
    error = check_error(await town.admin.http.patch(path, json={"requests_per_hour": 5}), 422)
    assert error["param"] == "requests_per_hour"
    check_error(await user.http.patch(path, json={}), 403)
    units = [(row["unit"], row["window"]) for row in (await got(user.http, "/api/v1/users/me/tokens"))["quotas"]]
    assert units == [("requests", "month"), ("micro_usd", "day")]


async def test_new_users_get_what_their_tenant_gives_to_new_users(town: Town) -> None:
    prepaid = await put(town.admin.http, order("new_user", town.red, 700, window="none"))
    daily = await put(town.admin.http, order("new_user", town.red, 70, unit="requests"))
    posted = await somebody(town)
    body = {"content": "x", "model": "gpt-4o", "user_id": f"spoken-for-{uuid4()}"}
    assert (await town.admin.http.post("/chat", json=body)).status_code == 200
    said = {"sub": f"seen-first-{uuid4()}", "tenant_id": "red", "exp": int(time.time()) + 600}
    seen_first = (await got(town.gateway.client(jwt.encode(said, JWT_SECRET, "HS256")), "/api/v1/me"))["user"]["id"]
    people = (await got(town.admin.http, "/api/v1/admin/users?limit=100"))["data"]
    spoken_for = next(each["id"] for each in people if each["external_id"] == body["user_id"])
    for user_id in (posted.id, spoken_for, seen_first):
        standing = await got(town.admin.http, f"/api/v1/admin/users/{user_id}/tokens")
        assert standing["limit"] == 700
        assert {(row["unit"], row["window"], row["limit"]) for row in standing["quotas"]} == {
            ("tokens", "none", 700),
            ("requests", "day", 70),
        }
    check_error(await town.admin.http.post(f"{QUOTAS}/{prepaid['id']}/adjustments", json={"amount": 5}), 409)
    for template in (prepaid, daily):
        assert (await town.admin.http.delete(f"{QUOTAS}/{template['id']}")).status_code == 204
    assert (await got((await somebody(town)).http, "/api/v1/users/me/tokens"))["quotas"] == []


@pytest.mark.parametrize(
    ("scope", "unit", "window", "model"),
    [
        ("tenant", "tokens", "day", None),
        ("tenant", "micro_usd", "none", None),
        ("user", "requests", "month", None),
        ("user", "tokens", "day", "gpt-4o"),
        ("api_key", "tokens", "none", None),
        ("api_key", "micro_usd", "month", None),
    ],
)
async def test_a_refused_call_is_told_which_quota_and_when_it_resets(
    town: Town, scope: str, unit: str, window: str, model: str | None
) -> None:
    user = await somebody(town)
    scope_id = {"tenant": town.red, "user": user.id, "api_key": await key_of(user)}[scope]
    quota = await put(town.root, order(scope, scope_id, 0, unit=unit, window=window, model=model))
    body = {"content": "hello", "model": "gpt-4o"}
    error = check_error(await user.http.post("/chat", json=body), 402)
    details = error["details"]
    assert {name: details[name] for name in ("scope", "unit", "window", "model", "limit", "used", "held")} == {
        "scope": scope, "unit": unit, "window": window, "model": model, "limit": 0, "used": 0, "held": 0,
    }  # fmt: skip
    assert details["needed"] > 0
    assert details["resets_at"] == quota["resets_at"]
    assert (window == "none") == (quota["resets_at"] is None)
    openai = await user.http.post("/v1/chat/completions", json=CHAT)
    assert check_error(openai, 429)["details"]["resets_at"] == quota["resets_at"]
    if model is None:
        check_error(await user.http.post("/v1/messages", json=MESSAGES), 402)
    else:
        assert (await user.http.post("/v1/messages", json=MESSAGES)).status_code == 200
    seen = (await got(user.http, "/api/v1/users/me/tokens"))["quotas"]
    assert [(row["scope"], row["remaining"]) for row in seen] == [(scope, 0)], "a plain user sees what limits them"
    assert (await town.root.delete(f"{QUOTAS}/{quota['id']}")).status_code == 204
    assert (await user.http.post("/v1/chat/completions", json=CHAT)).status_code == 200
    await books_are_right(town.gateway)
