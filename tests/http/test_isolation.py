"""What belongs to another tenant or another user does not exist; what an administrator may is the administrator's."""

from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.http.surface import check_error
from tests.support.gateway import Person, RunningGateway

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, kw_only=True)
class Town:
    """Two tenants: red with an administrator and two users, blue with an administrator and a user who owns things."""

    gateway: RunningGateway
    red: str
    blue: str
    red_admin: Person
    alice: Person
    bob: Person
    blue_admin: Person
    carol: Person
    dialog: str
    message: str
    key: str

    @property
    def outsiders(self) -> list[httpx2.AsyncClient]:
        """Nobody of these has anything to do with Carol of blue."""
        return [self.red_admin.http, self.alice.http, self.bob.http]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def town(any_shared_gateway: RunningGateway) -> Town:
    gateway = any_shared_gateway
    tenants = [
        (await gateway.http.post("/api/v1/admin/tenants", json={"slug": slug, "name": slug})).json()["id"]
        for slug in ("red", "blue")
    ]
    red, blue = tenants
    carol = await gateway.new_user("carol", tenant_id=blue)
    await gateway.http.post(f"/api/v1/admin/users/{carol.id}/tokens", json={"amount": 10_000})
    dialog = (await carol.http.post("/api/v1/dialogs", json={"title": "Secret", "model": "gpt-4o"})).json()["id"]
    sent = await carol.http.post(f"/api/v1/dialogs/{dialog}/messages", json={"content": "a secret of blue"})
    await carol.http.post("/chat", json={"content": "another secret of blue", "model": "gpt-4o"})
    keys = (await carol.http.get("/api/v1/api-keys")).json()["data"]
    return Town(
        gateway=gateway,
        red=red,
        blue=blue,
        red_admin=await gateway.new_user("red-admin", tenant_id=red, role="tenant_admin"),
        alice=await gateway.new_user("alice", tenant_id=red),
        bob=await gateway.new_user("bob", tenant_id=red),
        blue_admin=await gateway.new_user("blue-admin", tenant_id=blue, role="tenant_admin"),
        carol=carol,
        dialog=dialog,
        message=sent.json()["message"]["id"],
        key=keys[0]["id"],
    )


def of_a_dialog(town: Town) -> list[tuple[str, str, Any]]:
    dialog = f"/api/v1/dialogs/{town.dialog}"
    return [
        ("GET", dialog, None),
        ("PATCH", dialog, {"title": "Mine"}),
        ("DELETE", dialog, None),
        ("GET", f"{dialog}/messages", None),
        ("POST", f"{dialog}/messages", {"content": "x", "model": "gpt-4o"}),
        ("POST", f"{dialog}/messages", {"content": "x", "model": "gpt-4o", "stream": True}),
        ("POST", f"{dialog}/messages", {"content": "x", "model": "gpt-4o", "parent_id": town.message}),
        ("GET", f"{dialog}/messages/{town.message}", None),
    ]


def of_a_user(town: Town) -> list[tuple[str, str, Any]]:
    user = f"/api/v1/admin/users/{town.carol.id}"
    return [
        ("GET", user, None),
        ("PATCH", user, {"name": "Mine"}),
        ("PATCH", user, {"password": "a new password"}),
        ("POST", f"{user}/tokens", {"amount": 5}),
        ("GET", f"{user}/tokens", None),
        ("GET", f"{user}/tokens/history", None),
        ("GET", f"{user}/limits", None),
        ("PATCH", f"{user}/limits", {"tokens_per_day": 10**9}),
        ("PATCH", f"{user}/limits", {"parallel": 10**9}),
        ("PUT", "/api/v1/admin/rate-limits", {"scope": "user", "scope_id": town.carol.id, "parallel": 10**9}),
    ]


def of_a_tenant(town: Town) -> list[tuple[str, str, Any]]:
    return [
        ("GET", f"/api/v1/admin/tenants/{town.blue}", None),
        ("GET", f"/api/v1/admin/users?tenant_id={town.blue}", None),
        ("GET", f"/api/v1/admin/api-keys?tenant_id={town.blue}", None),
        ("GET", f"/api/v1/admin/audit?tenant_id={town.blue}", None),
        ("GET", f"/api/v1/admin/stats?tenant_id={town.blue}", None),
        ("POST", "/api/v1/admin/users", {"tenant_id": town.blue, "external_id": "mallory"}),
        ("GET", f"/api/v1/admin/quotas?tenant_id={town.blue}", None),
        ("GET", f"/api/v1/admin/rate-limits?tenant_id={town.blue}", None),
        ("PUT", "/api/v1/admin/rate-limits", {"scope": "tenant", "scope_id": town.blue, "parallel": 10**9}),
    ]


ONLY_PLATFORM_ADMINS: list[tuple[str, str, Any]] = [
    ("POST", "/api/v1/admin/tenants", {"slug": "mine", "name": "Mine"}),
    ("GET", "/api/v1/admin/providers", None),
    ("POST", "/api/v1/admin/providers", {"name": "p", "kind": "openai", "base_url": "http://p"}),
    ("GET", "/api/v1/admin/models", None),
    ("POST", "/api/v1/admin/models", {"name": "m", "provider": "openai", "context_window": 10, "max_output": 10}),
    ("GET", "/api/v1/admin/models/gpt-4o/prices", None),
    ("POST", "/api/v1/admin/models/gpt-4o/prices", {"input": 0, "output": 0}),
    ("GET", "/api/v1/admin/chains", None),
    ("POST", "/api/v1/admin/chains", {"name": "c", "models": ["gpt-4o"]}),
    ("DELETE", "/api/v1/admin/chains/c", None),
    ("PUT", "/api/v1/admin/rate-limits", {"scope": "model", "scope_id": "gpt-4o", "parallel": 10**9}),
]


async def seen_by_carol(town: Town) -> list[Any]:
    """Everything of Carol's that somebody might have changed."""
    paths = (
        f"/api/v1/dialogs/{town.dialog}",
        f"/api/v1/dialogs/{town.dialog}/messages",
        "/api/v1/me",
        "/api/v1/users/me/tokens",
        "/api/v1/users/me/tokens/history",
        "/api/v1/api-keys",
        "/history/carol",
    )
    return [(await town.carol.http.get(path)).json() for path in paths]


async def test_a_foreign_dialog_is_a_404_for_everybody_and_every_method(town: Town) -> None:
    before = await seen_by_carol(town)
    for http in (*town.outsiders, town.blue_admin.http, town.gateway.http):
        for method, path, body in of_a_dialog(town):
            check_error(await http.request(method, path, json=body), 404)
        assert town.dialog not in (await http.get("/api/v1/dialogs")).text
        assert (await http.get("/api/v1/dialogs?q=secret")).json()["data"] == []
    assert await seen_by_carol(town) == before


async def test_a_foreign_message_is_no_parent(town: Town) -> None:
    own = (await town.alice.http.post("/api/v1/dialogs", json={"model": "gpt-4o"})).json()["id"]
    body = {"content": "x", "parent_id": town.message}
    assert check_error(await town.alice.http.post(f"/api/v1/dialogs/{own}/messages", json=body), 404)["param"]
    check_error(await town.alice.http.get(f"/api/v1/dialogs/{own}/messages/{town.message}"), 404)


async def test_a_foreign_key_is_a_404(town: Town) -> None:
    before = await seen_by_carol(town)
    for http in town.outsiders:
        check_error(await http.delete(f"/api/v1/api-keys/{town.key}"), 404)
        check_error(await http.post(f"/api/v1/api-keys/{town.key}/rotate"), 404)
        check_error(await http.post("/api/v1/api-keys", json={"name": "x", "user_id": town.carol.id}), 404)
        assert town.key not in (await http.get("/api/v1/api-keys")).text
    assert await seen_by_carol(town) == before


async def test_another_users_key_of_ones_own_tenant_is_a_404_for_users(town: Town) -> None:
    key = (await town.bob.http.get("/api/v1/api-keys")).json()["data"][0]["id"]
    check_error(await town.alice.http.delete(f"/api/v1/api-keys/{key}"), 404)
    check_error(await town.alice.http.post(f"/api/v1/api-keys/{key}/rotate"), 404)
    check_error(await town.alice.http.post("/api/v1/api-keys", json={"name": "x", "user_id": town.bob.id}), 404)
    assert (await town.bob.http.get("/api/v1/me")).status_code == 200


async def test_a_foreign_user_and_tenant_are_a_404_for_tenant_admins(town: Town) -> None:
    before = await seen_by_carol(town)
    for method, path, body in (*of_a_user(town), *of_a_tenant(town)):
        check_error(await town.red_admin.http.request(method, path, json=body), 404)
    assert await seen_by_carol(town) == before


async def test_users_get_a_403_on_everything_of_administrators(town: Town) -> None:
    before = await seen_by_carol(town)
    own = [("GET", "/api/v1/admin/tenants", None), ("GET", "/api/v1/admin/users", None)]
    for method, path, body in (*of_a_user(town), *of_a_tenant(town), *ONLY_PLATFORM_ADMINS, *own):
        error = check_error(await town.alice.http.request(method, path, json=body), 403)
        assert error["code"] == "forbidden"
    assert await seen_by_carol(town) == before


async def test_the_platform_is_not_a_tenant_admins(town: Town) -> None:
    for method, path, body in ONLY_PLATFORM_ADMINS:
        check_error(await town.red_admin.http.request(method, path, json=body), 403)
    for path in (f"/api/v1/admin/tenants/{town.red}", f"/api/v1/admin/tenants/{town.blue}"):
        check_error(await town.red_admin.http.patch(path, json={"disabled": True}), 403)


async def test_a_tenant_admin_sees_their_own_tenant_and_nothing_else(town: Town) -> None:
    http = town.red_admin.http
    assert [each["id"] for each in (await http.get("/api/v1/admin/tenants")).json()["data"]] == [town.red]
    people = (await http.get("/api/v1/admin/users")).json()["data"]
    assert {each["external_id"] for each in people} == {"red-admin", "alice", "bob"}
    keys = (await http.get("/api/v1/admin/api-keys")).json()["data"]
    assert {each["user_id"] for each in keys} == {each["id"] for each in people}
    assert {each["tenant_id"] for each in (await http.get("/api/v1/admin/audit?limit=100")).json()["data"]} == {
        town.red
    }
    assert (await http.get(f"/api/v1/admin/api-keys?user_id={town.carol.id}")).json()["data"] == []


async def test_a_tenant_admin_runs_their_own_tenant(town: Town) -> None:
    http = town.red_admin.http
    user = await http.post("/api/v1/admin/users", json={"external_id": "dave"})
    assert (user.status_code, user.json()["tenant_id"]) == (201, town.red)
    path = f"/api/v1/admin/users/{user.json()['id']}"
    assert (await http.post(f"{path}/tokens", json={"amount": 5})).json()["balance"] == 5
    key = (await http.post("/api/v1/api-keys", json={"name": "dave's", "user_id": user.json()["id"]})).json()
    assert (await town.gateway.client(key["secret"]).get("/api/v1/me")).json()["user"]["external_id"] == "dave"
    assert (await http.delete(f"/api/v1/api-keys/{key['id']}")).status_code == 204
    assert (await http.patch(path, json={"disabled": True})).status_code == 200


async def test_nobody_rises_above_themselves(town: Town) -> None:
    http = town.red_admin.http
    check_error(await http.post("/api/v1/admin/users", json={"external_id": "root", "role": "platform_admin"}), 403)
    check_error(await http.patch(f"/api/v1/admin/users/{town.alice.id}", json={"role": "platform_admin"}), 403)
    check_error(await http.patch(f"/api/v1/admin/users/{town.red_admin.id}", json={"role": "platform_admin"}), 409)
    root = (await town.gateway.http.get("/api/v1/me")).json()
    for method, path, body in (
        ("PATCH", f"/api/v1/admin/users/{root['user']['id']}", {"password": "a new password"}),
        ("DELETE", f"/api/v1/api-keys/{root['api_key']['id']}", None),
        ("POST", f"/api/v1/api-keys/{root['api_key']['id']}/rotate", None),
        ("POST", "/api/v1/api-keys", {"name": "x", "user_id": root["user"]["id"]}),
    ):
        check_error(await http.request(method, path, json=body), 404)


async def test_histories_are_ones_own_or_ones_tenants(town: Town) -> None:
    for http in town.outsiders:
        check_error(await http.get("/history/carol"), 404)
        check_error(await http.get(f"/history/{town.carol.id}"), 404)
    check_error(await town.alice.http.get("/history/bob"), 404)
    assert (await town.alice.http.get("/history/alice")).json() == []
    for http in (town.carol.http, town.blue_admin.http):
        found = (await http.get("/history/carol")).json()
        assert [(each["user_id"], each["content"]) for each in found] == [("carol", "another secret of blue")]


async def test_users_ask_for_themselves_alone(town: Town) -> None:
    for named in ("bob", "carol", town.bob.id, "somebody-new"):
        body = {"content": "x", "model": "gpt-4o", "user_id": named}
        check_error(await town.alice.http.post("/chat", json=body), 404)
    check_error(await town.red_admin.http.post("/chat", json={"content": "x", "user_id": "x\u0000"}), 400)
    body = {"content": "x", "model": "gpt-4o", "user_id": "carol"}
    asked = await town.red_admin.http.post("/chat", json=body)
    assert asked.status_code == 200
    assert len((await town.carol.http.get("/history/carol")).json()) == 1


async def test_platform_admins_reach_everything_but_what_people_said(town: Town) -> None:
    http = town.gateway.http
    for method, path, body in (*of_a_user(town)[:1], *of_a_user(town)[4:], *of_a_tenant(town)[:5]):
        assert (await http.request(method, path, json=body)).status_code == 200
    slugs = {each["slug"] for each in (await http.get("/api/v1/admin/tenants")).json()["data"]}
    assert slugs == {"default", "red", "blue"}
