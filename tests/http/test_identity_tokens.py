"""Tokens of identity providers, and logins with a password."""

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx2
import jwt
import pytest
import pytest_asyncio

from tests.http.surface import CHAT, MESSAGES, check_error
from tests.support.gateway import JWT_SECRET, RunningGateway, gateway_environment, running_gateway, sqlite_url
from tests.support.jwks import JwksServer, make_key
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "correct horse battery"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def issuer() -> AsyncIterator[JwksServer]:
    async with JwksServer() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(
    tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream, issuer: JwksServer
) -> AsyncIterator[RunningGateway]:
    url = sqlite_url(tmp_path_factory.mktemp("gateway"))
    environment = gateway_environment(url, shared_upstream, GATEWAY_JWT_JWKS_URL=issuer.url)
    async with running_gateway(environment) as running:
        yield running


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": f"user-{uuid4()}", "tenant_id": "default", "exp": int(time.time()) + 600, **more}


def hs256(said: dict[str, Any], secret: str | bytes = JWT_SECRET, **headers: Any) -> str:
    return jwt.encode(said, secret, algorithm="HS256", headers=headers or None)


async def me(gateway: RunningGateway, token: str) -> dict[str, Any]:
    response = await gateway.client(token).get("/api/v1/me")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_an_unknown_user_is_made_on_first_sight_and_once(gateway: RunningGateway) -> None:
    said = claims()
    first = await me(gateway, hs256(said))
    assert (first["user"]["external_id"], first["role"]) == (said["sub"], "user")
    assert "api_key" not in first
    again = await me(gateway, hs256({**said, "exp": said["exp"] + 5}))
    assert again["user"]["id"] == first["user"]["id"]
    log = (await gateway.http.get("/api/v1/admin/audit")).json()["data"]
    assert [row["action"] for row in log if row["object_id"] == first["user"]["id"]] == ["user.seen_first"]


async def test_a_tenant_is_named_by_id_or_slug(gateway: RunningGateway) -> None:
    body = {"slug": "by-name", "name": "By name"}
    tenant = (await gateway.http.post("/api/v1/admin/tenants", json=body)).json()
    by_slug = await me(gateway, hs256(claims(sub="zoe", tenant_id="by-name")))
    by_id = await me(gateway, hs256(claims(sub="zoe", tenant_id=tenant["id"])))
    assert by_slug == by_id
    assert by_slug["tenant"]["id"] == tenant["id"]


async def test_the_claims_of_the_seeds_are_understood(gateway: RunningGateway) -> None:
    said = {"user_id": f"seed-{uuid4()}", "is_admin": True, "exp": int(time.time()) + 60}
    found = await me(gateway, hs256(said))
    assert (found["user"]["external_id"], found["role"]) == (said["user_id"], "tenant_admin")
    assert found["tenant"]["slug"] == "default"


async def test_a_role_of_the_token_counts_for_its_calls(gateway: RunningGateway) -> None:
    admin = gateway.client(hs256(claims(role="tenant_admin")))
    assert (await admin.get("/api/v1/admin/users")).status_code == 200
    check_error(await admin.get("/api/v1/admin/providers"), 403)


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
async def test_tokens_under_published_keys_count(alg: str, gateway: RunningGateway, issuer: JwksServer) -> None:
    said = claims()
    assert (await me(gateway, issuer.sign(said, alg)))["user"]["external_id"] == said["sub"]


def _part(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def _bad_tokens(issuer: JwksServer) -> dict[str, str]:
    said, now = claims(), int(time.time())
    public = json.dumps(issuer.key("RS256").public_jwk())
    good_body = _part(said)
    return {
        "no algorithm": f"{_part({'alg': 'none'})}.{good_body}.",
        "None, spelled otherwise": f"{_part({'alg': 'NonE'})}.{good_body}.",
        "another secret": hs256(said, "x" * 64),
        "an empty secret": f"{_part({'alg': 'HS256'})}.{good_body}.{_part('')}",
        "a public key as a secret": _by_hand({"alg": "HS256", "kid": issuer.key("RS256").kid}, said, public.encode()),
        "HS512": jwt.encode(said, JWT_SECRET, algorithm="HS512"),
        "RS256 with an ES256 kid": issuer.sign(said, "RS256", kid=issuer.key("ES256").kid)[:-10] + "AAAAAAAAAA",
        "an unknown kid": issuer.sign(said, "RS256", kid="nobody's"),
        "another issuer's key": make_key("RS256", issuer.key("RS256").kid).sign(said),
        "its own key in the header": make_key("ES256", "mine").sign(said, {"jwk": make_key("ES256", "m").public_jwk()}),
        "expired": hs256({**said, "exp": now - 3600}),
        "never expires": hs256({name: value for name, value in said.items() if name != "exp"}),
        "not yet valid": hs256({**said, "nbf": now + 3600}),
        "exp as text": _signed({**said, "exp": "tomorrow"}),
        "no subject": hs256({name: value for name, value in said.items() if name != "sub"}),
        "an empty subject": _signed({**said, "sub": ""}),
        "a subject with NUL": _signed({**said, "sub": "a\x00b"}),
        "a subject that is a list": _signed({**said, "sub": ["a"]}),
        "an endless subject": _signed({**said, "sub": "x" * 201}),
        "an unknown tenant": hs256({**said, "tenant_id": "nobody"}),
        "a tenant that is an object": _signed({**said, "tenant_id": {}}),
        "an unknown role": hs256({**said, "role": "root"}),
        "a cut signature": hs256(said)[:-2],
        "a body that is no JSON": f"{_part({'alg': 'HS256'})}.AAAA.AAAA",
        "a body that is a list": _signed([1]),
        "crit": hs256(said, crit=["exp"]),
        "oversized": hs256({**said, "padding": "x" * 9000}),
        "nested deep": f"{_part({'alg': 'HS256'})}.{base64.urlsafe_b64encode(b'[' * 3000).decode().rstrip('=')}.AAAA",
    }


def _by_hand(header: Any, content: Any, key: bytes) -> str:
    said = f"{_part(header)}.{_part(content)}"
    mac = hmac.digest(key, said.encode(), "sha256")
    return f"{said}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _signed(content: Any) -> str:
    """Signed as it is: the library would refuse to write it."""
    return jwt.api_jws.encode(json.dumps(content).encode(), JWT_SECRET, algorithm="HS256")


async def test_bad_tokens_are_a_401_in_every_dialect_and_make_nobody(
    gateway: RunningGateway, issuer: JwksServer, shared_upstream: Upstream
) -> None:
    people = (await gateway.http.get("/api/v1/admin/users?limit=100")).json()
    shared_upstream.reset()
    for name, token in _bad_tokens(issuer).items():
        holder = gateway.client(token)
        assert check_error(await holder.get("/api/v1/me"), 401)["type"] == "invalid_api_key", name
        openai = check_error(await holder.post("/v1/chat/completions", json=CHAT), 401)
        assert openai["code"] == "invalid_api_key", name
        anthropic = check_error(await holder.post("/v1/messages", json=MESSAGES), 401)
        assert anthropic["type"] == "authentication_error", name
    assert (await gateway.http.get("/api/v1/admin/users?limit=100")).json() == people
    assert shared_upstream.requests == []


async def test_keys_that_were_rotated_are_fetched_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    """On a gateway of its own: after an unknown key id it does not ask the issuer again for a while."""
    async with JwksServer() as rotating:
        url = sqlite_url(tmp_path_factory.mktemp("rotating"))
        async with running_gateway(gateway_environment(url, GATEWAY_JWT_JWKS_URL=rotating.url)) as running:
            assert await me(running, rotating.sign(claims()))
            rotating.rotate(keep_old=True)
            said = claims()
            assert (await me(running, rotating.sign(said)))["user"]["external_id"] == said["sub"]


async def test_a_disabled_users_token_is_refused(gateway: RunningGateway) -> None:
    token = hs256(claims())
    user = (await me(gateway, token))["user"]
    await gateway.http.patch(f"/api/v1/admin/users/{user['id']}", json={"disabled": True})
    assert "disabled" in check_error(await gateway.client(token).get("/api/v1/me"), 401)["message"]


async def new_login(gateway: RunningGateway) -> tuple[str, dict[str, Any]]:
    """A user's address, and what their login was answered."""
    email = f"{uuid4().hex}@example.org"
    body = {"external_id": email, "email": email, "password": PASSWORD}
    assert (await gateway.http.post("/api/v1/admin/users", json=body)).status_code == 201
    response = await log_in(gateway, email)
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    return email, response.json()


async def log_in(gateway: RunningGateway, email: str, password: str = PASSWORD, **more: str) -> httpx2.Response:
    body = {"email": email, "password": password, **more}
    return await gateway.client(None).post("/api/v1/auth/login", json=body)


async def use(gateway: RunningGateway, refresh_token: str) -> httpx2.Response:
    return await gateway.client(None).post("/api/v1/auth/refresh", json={"refresh_token": refresh_token})


async def test_a_login_is_refreshed_and_ended(gateway: RunningGateway) -> None:
    email, session = await new_login(gateway)
    assert session["token_type"] == "Bearer"
    assert 0 < session["expires_in"] <= 3600
    assert (await me(gateway, session["access_token"]))["user"]["email"] == email
    fresh = (await use(gateway, session["refresh_token"])).json()
    assert fresh["refresh_token"] != session["refresh_token"]
    holder = gateway.client(fresh["access_token"])
    assert (await holder.get("/api/v1/me")).status_code == 200
    assert (await holder.post("/api/v1/auth/logout")).status_code == 204
    check_error(await holder.get("/api/v1/me"), 401)
    check_error(await use(gateway, fresh["refresh_token"]), 401)


async def test_a_refresh_token_that_is_used_twice_ends_the_session(gateway: RunningGateway) -> None:
    _, session = await new_login(gateway)
    fresh = (await use(gateway, session["refresh_token"])).json()
    check_error(await use(gateway, session["refresh_token"]), 401)
    check_error(await use(gateway, fresh["refresh_token"]), 401)
    check_error(await gateway.client(fresh["access_token"]).get("/api/v1/me"), 401)
    log = (await gateway.http.get("/api/v1/admin/audit")).json()["data"]
    assert log[0]["action"] == "session.refresh_reused"


async def test_a_refresh_token_alone_can_log_out(gateway: RunningGateway) -> None:
    _, session = await new_login(gateway)
    body = {"refresh_token": session["refresh_token"]}
    assert (await gateway.client(None).post("/api/v1/auth/logout", json=body)).status_code == 204
    check_error(await gateway.client(session["access_token"]).get("/api/v1/me"), 401)


async def test_refusals_of_logins_do_not_tell_what_was_wrong(gateway: RunningGateway) -> None:
    email, _ = await new_login(gateway)
    refusals = [
        await log_in(gateway, email, "another password"),
        await log_in(gateway, "nobody@example.org"),
        await log_in(gateway, email, tenant="nobody"),
        await log_in(gateway, "' OR 1=1 --@x"),
    ]
    errors = [check_error(response, 401) for response in refusals]
    assert {error["message"] for error in errors} == {errors[0]["message"]}
    assert errors[0]["code"] == "invalid_credentials"


@pytest.mark.parametrize("token", ["x", "rt-gw-", "rt-gw-AAAA", "rt-gw-" + "A" * 1000, "ä", "a\nb", JWT_SECRET])
async def test_made_up_refresh_tokens_are_a_401(token: str, gateway: RunningGateway) -> None:
    check_error(await use(gateway, token), 401)
    check_error(await gateway.client(None).post("/api/v1/auth/logout", json={"refresh_token": token}), 401)


async def test_a_new_password_ends_the_sessions_of_the_old_one(gateway: RunningGateway) -> None:
    email, session = await new_login(gateway)
    change = {"password": "another password"}
    await gateway.http.patch(f"/api/v1/admin/users/{session['user']['id']}", json=change)
    check_error(await gateway.client(session["access_token"]).get("/api/v1/me"), 401)
    check_error(await use(gateway, session["refresh_token"]), 401)
    check_error(await log_in(gateway, email), 401)
    assert (await log_in(gateway, email, "another password")).status_code == 200


async def test_an_api_key_cannot_be_logged_out(gateway: RunningGateway) -> None:
    assert "api-keys" in check_error(await gateway.http.post("/api/v1/auth/logout"), 422)["message"]
