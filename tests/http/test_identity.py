"""Tenants, users and keys as their administrators meet them, and every change in the audit log."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from src.shared.ids import parse_id
from tests.http.surface import CHAT, MESSAGES, check_error
from tests.support.gateway import ADMIN_KEY, RunningGateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

USER_FIELDS = {"id", "tenant_id", "external_id", "role", "name", "email", "disabled", "created_at"}
KEY_FIELDS = {"id", "user_id", "name", "prefix", "models", "expires_at", "revoked_at", "created_at"}


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared_gateway: RunningGateway) -> AsyncIterator[RunningGateway]:
    yield shared_gateway


async def made(gateway: RunningGateway, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await gateway.http.post(f"/api/v1{path}", json=body)
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


async def new_tenant(gateway: RunningGateway) -> dict[str, Any]:
    return await made(gateway, "/admin/tenants", {"slug": f"t-{uuid4().hex[:12]}", "name": "A tenant"})


async def audited(gateway: RunningGateway, tenant_id: str | None = None) -> list[tuple[str, str]]:
    """(action, object id), newest first."""
    query = f"?tenant_id={tenant_id}&limit=100" if tenant_id else "?limit=100"
    rows = (await gateway.http.get(f"/api/v1/admin/audit{query}")).json()["data"]
    return [(row["action"], row["object_id"]) for row in rows]


def is_a_time(text: str) -> bool:
    return text.endswith("Z") and abs(datetime.fromisoformat(text) - datetime.now(UTC)) < timedelta(minutes=5)


async def test_the_bootstrap_key_is_a_platform_admin_of_the_default_tenant(gateway: RunningGateway) -> None:
    me = (await gateway.http.get("/api/v1/me")).json()
    assert me["role"] == me["user"]["role"] == "platform_admin"
    assert me["tenant"]["slug"] == "default"
    assert me["user"].keys() == USER_FIELDS
    assert me["api_key"].keys() == KEY_FIELDS
    assert ADMIN_KEY.startswith(me["api_key"]["prefix"])
    assert len(me["api_key"]["prefix"]) <= len(ADMIN_KEY) // 3


async def test_a_tenant_is_made_renamed_disabled_and_audited(gateway: RunningGateway) -> None:
    tenant = await new_tenant(gateway)
    assert tenant.keys() == {"id", "slug", "name", "time_zone", "disabled", "created_at"}
    found = parse_id(tenant["id"])
    assert found is not None
    assert found.version == 7
    assert is_a_time(tenant["created_at"])
    path = f"/api/v1/admin/tenants/{tenant['id']}"
    assert (await gateway.http.get(path)).json() == tenant
    renamed = await gateway.http.patch(path, json={"name": "Another name"})
    assert renamed.json() == {**tenant, "name": "Another name"}
    disabled = await gateway.http.patch(path, json={"disabled": True})
    assert disabled.json()["disabled"] is True
    assert await audited(gateway, tenant["id"]) == [
        ("tenant.updated", tenant["id"]),
        ("tenant.updated", tenant["id"]),
        ("tenant.created", tenant["id"]),
    ]


async def test_a_tenant_lives_in_a_time_zone(gateway: RunningGateway) -> None:
    assert (await new_tenant(gateway))["time_zone"] == "UTC"
    body = {"slug": f"t-{uuid4().hex[:12]}", "name": "A tenant", "time_zone": "Asia/Tokyo"}
    tenant = await made(gateway, "/admin/tenants", body)
    assert tenant["time_zone"] == "Asia/Tokyo"
    person = await gateway.new_user("someone", tenant_id=tenant["id"])
    assert (await person.http.get("/api/v1/me")).json()["tenant"] == tenant
    path = f"/api/v1/admin/tenants/{tenant['id']}"
    moved = await gateway.http.patch(path, json={"time_zone": "America/New_York"})
    assert moved.json() == {**tenant, "time_zone": "America/New_York"}
    assert (await gateway.http.get(path)).json() == moved.json()
    assert (await person.http.get("/api/v1/me")).json()["tenant"] == moved.json()
    log = (await gateway.http.get(f"/api/v1/admin/audit?tenant_id={tenant['id']}")).json()["data"]
    zones = [row["details"]["time_zone"] for row in log if row["object_kind"] == "tenant"]
    assert zones == ["America/New_York", "Asia/Tokyo"]


async def test_a_user_is_made_changed_and_audited_without_the_password(gateway: RunningGateway) -> None:
    tenant = await new_tenant(gateway)
    body = {
        "tenant_id": tenant["id"], "external_id": "alice@idp", "role": "user", "name": "Alice",
        "email": "Alice@Example.org", "password": "correct horse",
    }  # fmt: skip
    user = await made(gateway, "/admin/users", body)
    assert user.keys() == USER_FIELDS
    assert (user["external_id"], user["role"], user["name"]) == ("alice@idp", "user", "Alice")
    assert (user["email"], user["disabled"]) == ("alice@example.org", False)
    path = f"/api/v1/admin/users/{user['id']}"
    changed = await gateway.http.patch(path, json={"role": "tenant_admin", "name": None, "password": "battery staple"})
    assert changed.json() == {**user, "role": "tenant_admin", "name": None}
    assert (await gateway.http.get(path)).json() == changed.json()
    listed = (await gateway.http.get(f"/api/v1/admin/users?tenant_id={tenant['id']}")).json()
    assert listed == {"data": [changed.json()], "first_id": user["id"], "last_id": user["id"], "has_more": False}
    log = (await gateway.http.get(f"/api/v1/admin/audit?tenant_id={tenant['id']}")).json()["data"]
    assert [row["action"] for row in log] == ["user.updated", "user.created", "tenant.created"]
    assert log[0]["details"] == {"role": "tenant_admin", "name": None, "password": "changed"}
    assert "battery" not in str(log)
    assert "horse" not in str(log)


async def test_the_same_external_id_lives_in_two_tenants(gateway: RunningGateway) -> None:
    one, other = await new_tenant(gateway), await new_tenant(gateway)
    body = {"external_id": "same", "email": "same@example.org"}
    first = await made(gateway, "/admin/users", {**body, "tenant_id": one["id"]})
    second = await made(gateway, "/admin/users", {**body, "tenant_id": other["id"]})
    assert first["id"] != second["id"]
    again = await gateway.http.post("/api/v1/admin/users", json={**body, "tenant_id": one["id"]})
    assert check_error(again, 409)["param"] == "external_id"


async def test_a_secret_is_shown_once(gateway: RunningGateway) -> None:
    key = await made(gateway, "/api-keys", {"name": "once"})
    secret = key.pop("secret")
    assert key.keys() == KEY_FIELDS
    assert secret.startswith(key["prefix"])
    assert secret.startswith("sk-gw-")
    assert len(secret) > 40
    for path in ("/api/v1/api-keys", "/api/v1/admin/api-keys", "/api/v1/admin/audit"):
        listed = await gateway.http.get(path)
        assert key["id"] in listed.text
        assert secret not in listed.text
    assert (await gateway.client(secret).get("/api/v1/me")).json()["api_key"] == key


async def test_a_revoked_key_dies_at_once_in_every_dialect(gateway: RunningGateway) -> None:
    key = await made(gateway, "/api-keys", {"name": "short-lived"})
    holder = gateway.client(key["secret"])
    assert (await holder.get("/api/v1/me")).status_code == 200
    assert (await gateway.http.delete(f"/api/v1/api-keys/{key['id']}")).status_code == 204
    assert "revoked" in check_error(await holder.get("/api/v1/me"), 401)["message"]
    assert check_error(await holder.post("/v1/chat/completions", json=CHAT), 401)["code"] == "invalid_api_key"
    assert check_error(await holder.post("/v1/messages", json=MESSAGES), 401)["type"] == "authentication_error"
    assert (await gateway.http.delete(f"/api/v1/api-keys/{key['id']}")).status_code == 204
    rotated = await gateway.http.post(f"/api/v1/api-keys/{key['id']}/rotate")
    check_error(rotated, 409)
    log = await audited(gateway)
    assert log.count(("api_key.revoked", key["id"])) == 1
    assert ("api_key.created", key["id"]) in log


async def test_a_rotated_key_keeps_its_id_and_its_old_secret_dies_at_once(gateway: RunningGateway) -> None:
    key = await made(gateway, "/api-keys", {"name": "rotating", "models": ["gpt-4o"]})
    old = gateway.client(key["secret"])
    assert (await old.get("/api/v1/me")).status_code == 200
    fresh = (await gateway.http.post(f"/api/v1/api-keys/{key['id']}/rotate")).json()
    assert fresh["secret"] != key["secret"]
    assert (fresh["id"], fresh["models"]) == (key["id"], ["gpt-4o"])
    check_error(await old.get("/api/v1/me"), 401)
    assert (await gateway.client(fresh["secret"]).get("/api/v1/me")).json()["api_key"]["id"] == key["id"]
    assert ("api_key.rotated", key["id"]) in await audited(gateway)


async def test_a_key_expires(gateway: RunningGateway) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.4)
    key = await made(gateway, "/api-keys", {"name": "mayfly", "expires_at": soon.isoformat()})
    assert datetime.fromisoformat(key["expires_at"]) == soon
    holder = gateway.client(key["secret"])
    assert (await holder.get("/api/v1/me")).status_code == 200
    while datetime.now(UTC) < soon:
        await holder.get("/health/live")
    assert "expired" in check_error(await holder.get("/api/v1/me"), 401)["message"]


async def test_a_key_of_some_models_is_a_403_for_others_in_every_dialect(gateway: RunningGateway) -> None:
    key = await made(gateway, "/api-keys", {"name": "scoped", "models": ["claude-3-opus"]})
    holder = gateway.client(key["secret"])
    assert check_error(await holder.post("/v1/chat/completions", json=CHAT), 403)["type"] == "permission_error"
    anthropic = await holder.post("/v1/messages", json={**MESSAGES, "model": "gpt-4o"})
    assert check_error(anthropic, 403)["type"] == "permission_error"
    assert check_error(await holder.post("/chat", json={"content": "x", "model": "gpt-4o"}), 403)["code"] == "forbidden"
    check_error(await holder.post("/api/v1/dialogs", json={"model": "gpt-4o"}), 403)
    check_error(await holder.get("/v1/models/gpt-4o"), 403)
    assert [each["id"] for each in (await holder.get("/v1/models")).json()["data"]] == ["claude-3-opus"]
    assert (await holder.post("/v1/messages", json=MESSAGES)).status_code == 200


async def test_a_key_of_some_models_makes_no_broader_keys_and_no_users(gateway: RunningGateway) -> None:
    key = await made(gateway, "/api-keys", {"name": "scoped", "models": ["claude-3-opus"]})
    holder = gateway.client(key["secret"])
    check_error(await holder.post("/api/v1/api-keys", json={"name": "broader"}), 403)
    check_error(await holder.post("/api/v1/api-keys", json={"name": "other", "models": ["gpt-4o"]}), 403)
    check_error(await holder.post("/api/v1/admin/users", json={"external_id": "accomplice"}), 403)
    check_error(await holder.post("/api/v1/admin/tenants", json={"slug": "accomplices", "name": "x"}), 403)
    assert (await holder.post("/api/v1/api-keys", json={"name": "n", "models": ["claude-3-opus"]})).status_code == 201


@pytest.mark.parametrize("header", ["x-api-key", "x-goog-api-key"])
async def test_other_headers_carry_credentials_too(header: str, gateway: RunningGateway) -> None:
    stranger = gateway.client(None)
    headers = {header: ADMIN_KEY}
    assert (await stranger.get("/api/v1/me", headers=headers)).status_code == 200
    assert (await stranger.post("/v1/chat/completions", json=CHAT, headers=headers)).status_code == 200
    assert (await stranger.post("/v1/messages", json=MESSAGES, headers=headers)).status_code == 200
    basic = {**headers, "authorization": "Basic dXNlcjpwYXNz"}
    assert (await stranger.get("/api/v1/me", headers=basic)).status_code == 200
    check_error(await stranger.get("/api/v1/me", headers={header: ADMIN_KEY[:-1]}), 401)


async def test_a_disabled_user_is_out_at_once_and_back_at_once(gateway: RunningGateway) -> None:
    person = await gateway.new_user(f"user-{uuid4()}")
    path = f"/api/v1/admin/users/{person.id}"
    assert (await person.http.get("/api/v1/me")).status_code == 200
    assert (await gateway.http.patch(path, json={"disabled": True})).status_code == 200
    assert "disabled" in check_error(await person.http.get("/api/v1/me"), 401)["message"]
    check_error(await person.http.post("/v1/messages", json=MESSAGES), 401)
    assert (await gateway.http.patch(path, json={"disabled": False})).status_code == 200
    assert (await person.http.get("/api/v1/me")).status_code == 200


async def test_a_disabled_tenant_is_out_at_once(gateway: RunningGateway) -> None:
    tenant = await new_tenant(gateway)
    person = await gateway.new_user("someone", tenant_id=tenant["id"])
    assert (await person.http.get("/api/v1/me")).json()["tenant"]["id"] == tenant["id"]
    await gateway.http.patch(f"/api/v1/admin/tenants/{tenant['id']}", json={"disabled": True})
    check_error(await person.http.get("/api/v1/me"), 401)
    check_error(await person.http.post("/v1/chat/completions", json=CHAT), 401)


async def test_administrators_do_not_lock_themselves_out(gateway: RunningGateway) -> None:
    me = (await gateway.http.get("/api/v1/me")).json()
    own = f"/api/v1/admin/users/{me['user']['id']}"
    check_error(await gateway.http.patch(own, json={"disabled": True}), 409)
    check_error(await gateway.http.patch(own, json={"role": "user"}), 409)
    check_error(await gateway.http.patch(f"/api/v1/admin/tenants/{me['tenant']['id']}", json={"disabled": True}), 409)
    assert (await gateway.http.get("/api/v1/me")).json() == me


async def test_credit_is_given_and_taken_and_audited(gateway: RunningGateway) -> None:
    person = await gateway.new_user(f"user-{uuid4()}")
    path = f"/api/v1/admin/users/{person.id}/tokens"
    given = (await gateway.http.post(path, json={"amount": 1000, "reason": "welcome"})).json()
    assert (given["unit"], given["balance"], given["held"]) == ("tokens", 1000, 0)
    taken = (await gateway.http.post(path, json={"amount": -300})).json()
    assert (taken["balance"], taken["limit"]) == (700, 700)
    too_much = await gateway.http.post(path, json={"amount": -701})
    assert check_error(too_much, 409)["code"] == "conflict"
    money = (await gateway.http.post(path, json={"amount": 5, "unit": "micro_usd"})).json()
    assert (money["unit"], money["balance"]) == ("micro_usd", 5)
    standing = (await person.http.get("/api/v1/users/me/tokens")).json()
    assert (standing["balance"], standing["total_used"], standing["limit"], standing["held"]) == (700, 0, 700, 0)
    assert {quota["unit"] for quota in standing["quotas"]} == {"tokens", "micro_usd"}
    assert (await gateway.http.get(path)).json()["balance"] == 700
    history = (await person.http.get("/api/v1/users/me/tokens/history")).json()["data"]
    assert [(line["unit"], line["amount"]) for line in history] == [
        ("micro_usd", 5),
        ("tokens", -300),
        ("tokens", 1000),
    ]
    assert history[2]["reason"] == "welcome"
    assert [each for each in await audited(gateway) if each == ("account.adjusted", person.id)] == [
        ("account.adjusted", person.id)
    ] * 3


async def test_an_unlimited_user_has_no_balance(gateway: RunningGateway) -> None:
    person = await gateway.new_user(f"user-{uuid4()}")
    standing = (await person.http.get("/api/v1/users/me/tokens")).json()
    assert standing == {"balance": None, "total_used": 0, "limit": None, "held": 0, "quotas": []}
    assert (await person.http.post("/v1/chat/completions", json=CHAT)).status_code == 200
