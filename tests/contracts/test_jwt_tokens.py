"""Which tokens count: signed by the secret or by a published key, in time, from and for the right parties."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from src.domain.identity.model import Role
from src.domain.identity.ports import Claims
from src.integrations import jwks as jwks_module
from src.integrations.jwks import KeySet
from src.integrations.jwt_tokens import JwtSettings, JwtTokens
from src.shared.errors import Misconfigured, NotAllowed, Unauthenticated, Unavailable
from tests.support.jwks import JwksServer

SECRET = "a secret that is long enough for HS256"
NOW_S = int(time.time())
GOOD: dict[str, Any] = {"sub": "alice", "tenant_id": "acme", "exp": NOW_S + 600}


def signed(claims: Mapping[str, Any], secret: str = SECRET, **headers: Any) -> str:
    return jwt.encode(dict(claims), secret, "HS256", headers=headers or None)


def raw_token(header: bytes, payload: bytes, signature: bytes = b"x") -> str:
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (header, payload, signature))


def tokens(**settings: Any) -> JwtTokens:
    return JwtTokens(JwtSettings(**{"secret": SECRET, **settings}))


class Ticks:
    """A monotonic clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


# --- what is said ---------------------------------------------------------------------------------------------------


async def test_a_good_token_says_who_is_calling() -> None:
    claims = await tokens().verify(signed({**GOOD, "role": "tenant_admin"}))
    assert (claims.subject, claims.tenant, claims.role) == ("alice", "acme", Role.TENANT_ADMIN)
    assert claims.session_id is None


@pytest.mark.parametrize(
    ("said", "subject", "tenant", "role"),
    [
        ({"sub": 42}, "42", "acme", None),
        ({"sub": None, "user_id": "bob"}, "bob", "acme", None),
        ({"is_admin": True}, "alice", "acme", Role.TENANT_ADMIN),
        ({"is_admin": True, "role": "user"}, "alice", "acme", Role.USER),
        ({"is_admin": "true"}, "alice", "acme", None),
        ({"tenant_id": None}, "alice", "fallback", None),
        ({"sub": "x" * 200}, "x" * 200, "acme", None),
    ],
)
async def test_claims_are_read_as_configured(
    said: dict[str, Any], subject: str, tenant: str, role: Role | None
) -> None:
    given = {name: value for name, value in {**GOOD, **said}.items() if value is not None}
    claims = await tokens(default_tenant="fallback").verify(signed(given))
    assert (claims.subject, claims.tenant, claims.role) == (subject, tenant, role)


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"exp": None}, {}, "never expires"),
    ({"exp": NOW_S - 31}, {}, "has expired"),
    ({"exp": "tomorrow"}, {}, "exp is not a number"),
    ({"exp": True}, {}, "exp is not a number"),
    ({"exp": float("nan")}, {}, "exp is not a number"),
    ({"exp": float("inf")}, {}, "exp is not a number"),
    ({"nbf": NOW_S + 600}, {}, "nbf lies ahead"),
    ({"iat": NOW_S + 600}, {}, "iat lies ahead"),
    ({"sub": None}, {}, "names nobody"),
    ({"sub": ""}, {}, "must be text"),
    ({"sub": "x" * 201}, {}, "must be text"),
    ({"sub": "a\x00b"}, {}, "control characters"),
    ({"sub": "a\nb"}, {}, "control characters"),
    ({"sub": ["alice"]}, {}, "must be text"),
    ({"sub": True}, {}, "must be text"),
    ({"tenant_id": {"id": 1}}, {}, "tenant_id must be text"),
    ({"role": "root"}, {}, "none of the gateway's roles"),
    ({"role": ["platform_admin"]}, {}, "none of the gateway's roles"),
    ({}, {"issuer": "https://us"}, "another issuer"),
    ({"iss": "https://them"}, {"issuer": "https://us"}, "another issuer"),
    ({}, {"audience": "gateway"}, "another audience"),
    ({"aud": "other"}, {"audience": "gateway"}, "another audience"),
    ({"aud": ["other"]}, {"audience": "gateway"}, "another audience"),
]


@pytest.mark.parametrize(("said", "settings", "words"), REFUSED)
async def test_tokens_that_do_not_count_are_refused_with_a_reason(
    said: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    given = {name: value for name, value in {**GOOD, **said}.items() if value is not None}
    with pytest.raises(Unauthenticated, match=words) as refused:
        await tokens(**settings).verify(signed(given))
    assert SECRET not in refused.value.message


async def test_clocks_may_differ_by_the_leeway() -> None:
    verifier = JwtTokens(JwtSettings(secret=SECRET), clock=lambda: datetime.fromtimestamp(NOW_S, UTC))
    for said in ({"exp": NOW_S - 10}, {"nbf": NOW_S + 20}, {"iat": NOW_S + 20}):
        assert (await verifier.verify(signed({**GOOD, **said}))).subject == "alice"


async def test_issuer_and_audience_that_fit_are_welcome() -> None:
    verifier = tokens(issuer="https://us", audience="gateway")
    for audience in ("gateway", ["other", "gateway"]):
        assert await verifier.verify(signed({**GOOD, "iss": "https://us", "aud": audience}))


# --- what is no token -----------------------------------------------------------------------------------------------

DEEP = b"[" * 5000


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "well-formed"),
        ("a.b.c", "well-formed"),
        ("a.b", "well-formed"),
        ("\udc80.\xff.é", "well-formed"),
        (raw_token(b'{"alg":"HS256"}', b"not json"), "signature|well-formed"),
        (raw_token(b'{"alg":"none"}', json.dumps(GOOD).encode(), b""), "algorithm"),
        (raw_token(b'{"alg":"None"}', json.dumps(GOOD).encode(), b""), "algorithm"),
        (raw_token(b'{"alg":"HS384"}', json.dumps(GOOD).encode()), "algorithm"),
        (raw_token(b'{"alg":["HS256"]}', json.dumps(GOOD).encode()), "algorithm"),
        (raw_token(b'{"typ":"JWT"}', json.dumps(GOOD).encode()), "algorithm"),
        (raw_token(DEEP, b"{}"), "well-formed"),
        (raw_token(b'"HS256"', b"{}"), "well-formed"),
        (signed({**GOOD}, "another secret that is long enough!"), "another key"),
        (signed(GOOD, crit=["exp"]), "crit|well-formed"),
        (signed({**GOOD, "pad": "x" * 8192}), "longer than 8192"),
    ],
    ids=lambda value: value[:12],  # the same in every process of a run: tokens hold the time
)
async def test_what_is_no_token_of_ours_is_refused(token: str, words: str) -> None:
    with pytest.raises(Unauthenticated, match=words):
        await tokens().verify(token)


async def test_a_changed_payload_breaks_the_signature() -> None:
    header, _, signature = signed(GOOD).split(".")
    forged = base64.urlsafe_b64encode(json.dumps({**GOOD, "role": "platform_admin"}).encode()).decode().rstrip("=")
    with pytest.raises(Unauthenticated, match="signature"):
        await tokens().verify(f"{header}.{forged}.{signature}")


@pytest.mark.parametrize(
    "settings", [{"secret": "short"}, {"secret": None}, {"secret": None, "jwks_url": "ftp://keys"}, {"secret": ""}]
)
def test_unsafe_settings_stop_the_start(settings: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured) as refused:
        tokens(**settings)
    assert "short" not in str(refused.value)


# --- what the gateway issues ----------------------------------------------------------------------------------------


async def test_an_issued_token_is_understood_again() -> None:
    both = tokens(issuer="https://us", audience="gateway")
    said = Claims(
        subject="alice",
        tenant=str(uuid4()),
        role=Role.USER,
        expires_at=datetime.now(UTC) + timedelta(seconds=both.access_ttl_s),
        session_id=uuid4(),
    )
    token = both.issue(said)
    claims = await both.verify(token)
    assert (claims.subject, claims.tenant, claims.role) == (said.subject, said.tenant, said.role)
    assert claims.session_id == said.session_id
    payload = jwt.decode(token, SECRET, ["HS256"], audience="gateway")
    assert {"sub", "tenant_id", "role", "sid", "iat", "exp", "jti", "iss", "aud"} == payload.keys()
    assert both.issue(said) != token


async def test_without_a_secret_nothing_is_issued(jwks: JwksServer) -> None:
    with pytest.raises(NotAllowed):
        tokens(secret=None, jwks_url=jwks.url).issue(
            Claims(subject="alice", tenant=None, role=None, expires_at=datetime.now(UTC))
        )


async def test_a_verified_token_is_remembered_until_it_expires() -> None:
    now = datetime.fromtimestamp(NOW_S, UTC)
    verifier = JwtTokens(JwtSettings(secret=SECRET, leeway_s=0), clock=lambda: now)
    token = signed({**GOOD, "exp": NOW_S + 5})
    first = await verifier.verify(token)
    assert await verifier.verify(token) is first
    now += timedelta(seconds=5)
    with pytest.raises(Unauthenticated, match="expired"):
        await verifier.verify(token)


async def test_remembered_tokens_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.integrations.jwt_tokens.REMEMBER_MOST", 3)
    verifier = tokens()
    for number in range(5):
        await verifier.verify(signed({**GOOD, "jti": number}))
    assert len(verifier._remembered) == 3


# --- published keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_tokens_of_published_keys_count(jwks: JwksServer, algorithm: str) -> None:
    verifier = tokens(jwks_url=jwks.url)
    claims = await verifier.verify(jwks.sign({**GOOD, "sid": str(uuid4())}, algorithm))
    assert claims.subject == "alice"
    assert claims.session_id is None, "an identity provider's session is none of ours"
    await verifier.verify(jwks.sign({**GOOD, "jti": "2"}, algorithm))
    assert jwks.fetches == 1


async def test_a_public_key_is_no_shared_secret(jwks: JwksServer) -> None:
    public = jwks.key("RS256").private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = json.dumps({"alg": "HS256", "kid": jwks.key("RS256").kid}).encode()
    body = ".".join(raw_token(header, json.dumps(GOOD).encode()).split(".")[:2])
    mac = base64.urlsafe_b64encode(hmac.digest(pem, body.encode(), "sha256")).decode().rstrip("=")
    for settings in ({"secret": None}, {}):
        with pytest.raises(Unauthenticated):
            await tokens(jwks_url=jwks.url, **settings).verify(f"{body}.{mac}")


async def test_a_key_is_never_used_with_another_algorithm(jwks: JwksServer) -> None:
    token = jwt.encode(GOOD, jwks.key("RS256").private, "RS256", headers={"kid": jwks.key("ES256").kid})
    with pytest.raises(Unauthenticated, match="does not publish"):
        await tokens(jwks_url=jwks.url).verify(token)
    pss = jwt.encode(GOOD, jwks.key("RS256").private, "PS256", headers={"kid": jwks.key("RS256").kid})
    with pytest.raises(Unauthenticated, match="algorithm"):
        await tokens(jwks_url=jwks.url).verify(pss)


async def test_asymmetric_tokens_need_a_key_set(jwks: JwksServer) -> None:
    with pytest.raises(Unauthenticated, match="no JWKS"):
        await tokens().verify(jwks.sign(GOOD))
    with pytest.raises(Unauthenticated, match="HS256 tokens are not accepted"):
        await tokens(secret=None, jwks_url=jwks.url).verify(signed(GOOD))


async def test_a_rotated_key_is_looked_up_once_and_unknown_ones_are_refused(jwks: JwksServer) -> None:
    ticks = Ticks()
    verifier = JwtTokens(JwtSettings(jwks_url=jwks.url), keys=KeySet(jwks.url, monotonic=ticks))
    await verifier.verify(jwks.sign(GOOD))
    jwks.rotate()
    assert await asyncio.gather(*(verifier.verify(jwks.sign({**GOOD, "jti": str(n)})) for n in range(5)))
    assert jwks.fetches == 2
    for _ in range(3):
        with pytest.raises(Unauthenticated, match="does not publish"):
            await verifier.verify(jwks.sign(GOOD, kid="made-up"))
    assert jwks.fetches == 2
    ticks.now_s += 30
    with pytest.raises(Unauthenticated, match="does not publish"):
        await verifier.verify(jwks.sign(GOOD, kid="made-up"))
    assert jwks.fetches == 3


async def test_a_withdrawn_key_stops_counting(jwks: JwksServer) -> None:
    ticks = Ticks()
    verifier = JwtTokens(JwtSettings(jwks_url=jwks.url), keys=KeySet(jwks.url, monotonic=ticks))
    old = jwks.key("RS256")
    await verifier.verify(old.sign(GOOD))
    jwks.rotate()
    ticks.now_s += 601
    with pytest.raises(Unauthenticated, match="does not publish"):
        await verifier.verify(old.sign({**GOOD, "jti": "2"}))


@pytest.mark.parametrize("status", [500, 404, 302])
async def test_old_keys_serve_while_the_endpoint_fails(jwks: JwksServer, status: int) -> None:
    ticks = Ticks()
    verifier = JwtTokens(JwtSettings(jwks_url=jwks.url), keys=KeySet(jwks.url, monotonic=ticks))
    await verifier.verify(jwks.sign(GOOD))
    jwks.fail(status)
    ticks.now_s += 3600
    for number in range(3):
        assert await verifier.verify(jwks.sign({**GOOD, "jti": str(number)}))
    assert jwks.fetches == 2


async def test_without_any_keys_the_gateway_says_so_and_recovers(jwks: JwksServer) -> None:
    verifier = tokens(jwks_url=jwks.url)
    jwks.fail()
    with pytest.raises(Unavailable):
        await verifier.verify(jwks.sign(GOOD))
    jwks.recover()
    assert await verifier.verify(jwks.sign(GOOD))


async def test_a_hanging_endpoint_is_waited_for_together_while_the_loop_ticks(
    jwks: JwksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks_module, "FETCH_TIMEOUT_S", 0.3)
    verifier = tokens(jwks_url=jwks.url)
    jwks.hang()
    waiting = asyncio.gather(*(verifier.verify(jwks.sign(GOOD)) for _ in range(20)), return_exceptions=True)
    ticked = 0
    while not waiting.done():
        await asyncio.sleep(0.01)
        ticked += 1
    assert ticked >= 15
    assert all(isinstance(result, Unavailable) for result in await waiting)
    assert jwks.fetches == 1
    assert await verifier.verify(signed(GOOD)), "tokens of the secret need no endpoint"


async def test_old_keys_serve_soon_while_the_endpoint_hangs(jwks: JwksServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks_module, "PATIENCE_S", 0.05)
    ticks = Ticks()
    verifier = JwtTokens(JwtSettings(jwks_url=jwks.url), keys=KeySet(jwks.url, monotonic=ticks))
    await verifier.verify(jwks.sign(GOOD))
    jwks.hang()
    ticks.now_s += 601
    async with asyncio.timeout(4):  # less than the five seconds that a fetch may take
        assert await verifier.verify(jwks.sign({**GOOD, "jti": "2"}))
    await verifier.close()


async def test_a_caller_that_leaves_does_not_end_the_fetch_of_the_others(jwks: JwksServer) -> None:
    verifier = tokens(jwks_url=jwks.url)
    jwks.hang()
    first = asyncio.create_task(verifier.verify(jwks.sign(GOOD)))
    second = asyncio.create_task(verifier.verify(jwks.sign({**GOOD, "jti": "2"})))
    while not jwks.fetches:
        await asyncio.sleep(0.005)
    first.cancel()
    jwks.recover()
    assert (await second).subject == "alice"
    assert jwks.fetches == 1


async def test_a_token_without_kid_takes_the_only_key_of_its_algorithm(jwks: JwksServer) -> None:
    verifier = tokens(jwks_url=jwks.url)
    token = jwt.encode(GOOD, jwks.key("ES256").private, "ES256")
    assert await verifier.verify(token)
    jwks.rotate(keep_old=True)
    with pytest.raises(Unauthenticated, match="does not publish"):
        await tokens(jwks_url=jwks.url).verify(jwt.encode(GOOD, jwks.key("ES256").private, "ES256"))
