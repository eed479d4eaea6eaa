"""JSON Web Tokens: HS256 under the gateway's secret, and RS256, ES256 and EdDSA under an issuer's published keys."""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
from jwt.types import Options

from src.domain.identity.model import Role
from src.domain.identity.ports import Claims, TokenIssuer, TokenVerifier
from src.domain.identity.rules import is_storable_name
from src.integrations.jwks import KeySet
from src.shared.clock import Clock, utc_now
from src.shared.errors import Misconfigured, NotAllowed, Unauthenticated
from src.shared.ids import parse_id

MAX_TOKEN = 8192
MIN_SECRET_BYTES = 32
REMEMBER_S = 60.0
REMEMBER_MOST = 10_000

_SHARED = "HS256"
_PUBLISHED = frozenset({"RS256", "ES256", "EdDSA"})
_END_OF_TIME_S = 253402300799

# The claims are checked here, against our clock and with our own words.
_SIGNATURE_ONLY: Options = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSettings:
    """Which tokens count. At least one of `secret` and `jwks_url` is needed; the first claim name that is there counts.

    `default_tenant` is the tenant of tokens that name none.
    """

    secret: str | None = None
    jwks_url: str | None = None
    issuer: str | None = None
    audience: str | None = None
    subject_claims: tuple[str, ...] = ("sub", "user_id")
    tenant_claims: tuple[str, ...] = ("tenant_id",)
    role_claim: str = "role"
    default_tenant: str | None = None
    leeway_s: float = 30
    access_ttl_s: float = 900


class JwtTokens(TokenVerifier, TokenIssuer):
    """Verifies tokens and issues the gateway's own. The algorithm is bound to where the key comes from."""

    def __init__(self, settings: JwtSettings, *, clock: Clock = utc_now, keys: KeySet | None = None) -> None:
        """Raises Misconfigured for a short secret, or with no key source at all."""
        secret = None if settings.secret is None else settings.secret.encode("utf-8", "surrogateescape")
        if secret is not None and len(secret) < MIN_SECRET_BYTES:
            raise Misconfigured(
                f"GATEWAY_JWT_SECRET has {len(secret)} bytes; HS256 needs at least {MIN_SECRET_BYTES} "
                "(openssl rand -hex 32)."
            )
        if secret is None and settings.jwks_url is None and keys is None:
            raise Misconfigured("Set GATEWAY_JWT_SECRET, GATEWAY_JWT_JWKS_URL, or both.")
        self._settings = settings
        self._secret = secret
        self._clock = clock
        self._keys = keys or (KeySet(settings.jwks_url) if settings.jwks_url else None)
        self._remembered: OrderedDict[bytes, tuple[Claims, datetime]] = OrderedDict()

    @property
    def access_ttl_s(self) -> float:
        return self._settings.access_ttl_s

    async def close(self) -> None:
        """Give up what is being fetched."""
        if self._keys is not None:
            await self._keys.close()

    def issue(self, claims: Claims) -> str:
        """An HS256 token. Raises NotAllowed without a secret."""
        if self._secret is None:
            raise NotAllowed("This gateway issues no tokens: GATEWAY_JWT_SECRET is not set.")
        settings = self._settings
        said: dict[str, Any] = {
            settings.subject_claims[0]: claims.subject,
            settings.tenant_claims[0]: claims.tenant,
            settings.role_claim: None if claims.role is None else claims.role.value,
            "sid": None if claims.session_id is None else str(claims.session_id),
            "iss": settings.issuer,
            "aud": settings.audience,
            "iat": int(self._clock().timestamp()),
            "exp": int(claims.expires_at.timestamp()),
            "jti": str(uuid4()),
        }
        return jwt.encode({name: value for name, value in said.items() if value is not None}, self._secret, _SHARED)

    async def verify(self, token: str) -> Claims:
        """The claims of a good token. Raises Unauthenticated, Unavailable (see TokenVerifier)."""
        if len(token) > MAX_TOKEN:
            raise Unauthenticated(f"The token is longer than {MAX_TOKEN} characters.")
        fingerprint = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        now = self._clock()
        known = self._remembered.get(fingerprint)
        if known is not None and now < known[1]:
            self._remembered.move_to_end(fingerprint)
            return known[0]
        algorithm, payload = await self._signed_payload(token)
        claims = self._claims(payload, own=algorithm == _SHARED)
        self._remember(fingerprint, claims)
        return claims

    def _remember(self, fingerprint: bytes, claims: Claims) -> None:
        until = min(claims.expires_at, self._clock() + timedelta(seconds=REMEMBER_S))
        self._remembered[fingerprint] = (claims, until)
        self._remembered.move_to_end(fingerprint)
        if len(self._remembered) > REMEMBER_MOST:
            self._remembered.popitem(last=False)

    async def _signed_payload(self, token: str) -> tuple[str, Mapping[str, Any]]:
        """The algorithm and the claims of a token whose signature is right."""
        header = _header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm == _SHARED:
            key: Any = self._shared_key()
        elif isinstance(algorithm, str) and algorithm in _PUBLISHED:
            key = await self._published_key(algorithm, kid)
        else:
            raise Unauthenticated("The token's algorithm is not accepted; sign with HS256, RS256, ES256 or EdDSA.")
        try:
            payload: Mapping[str, Any] = jwt.decode(token, key, algorithms=[algorithm], options=_SIGNATURE_ONLY)
        except jwt.InvalidSignatureError:
            raise Unauthenticated("The token's signature does not match; it was signed with another key.") from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise _malformed() from None
        return algorithm, payload

    def _shared_key(self) -> bytes:
        if self._secret is None:
            raise Unauthenticated("HS256 tokens are not accepted here; sign with a key of the issuer's JWKS.")
        return self._secret

    async def _published_key(self, algorithm: str, kid: object) -> Any:
        if self._keys is None:
            raise Unauthenticated(f"{algorithm} tokens are not accepted here: no JWKS is configured.")
        if not isinstance(kid, str | None):
            raise _malformed()
        found = await self._keys.key(kid, algorithm)
        if found is None:
            raise Unauthenticated(
                "The token was signed with a key that the issuer does not publish for this algorithm; get a new token."
            )
        return found.key

    def _claims(self, payload: Mapping[str, Any], *, own: bool) -> Claims:
        expires_at = self._checked_times(payload)
        self._check_origin(payload)
        subject = _text_claim(payload, self._settings.subject_claims)
        if subject is None:
            raise Unauthenticated(f"The token names nobody: add the claim {self._settings.subject_claims[0]}.")
        # Identity providers put session ids of their own into `sid`; ours are in tokens signed with our secret.
        sid = payload.get("sid") if own else None
        return Claims(
            subject=subject,
            tenant=_text_claim(payload, self._settings.tenant_claims) or self._settings.default_tenant,
            role=_role(payload, self._settings.role_claim),
            expires_at=expires_at,
            session_id=parse_id(sid) if isinstance(sid, str) else None,
        )

    def _checked_times(self, payload: Mapping[str, Any]) -> datetime:
        """When the token ends, leeway included."""
        now_s, leeway_s = self._clock().timestamp(), self._settings.leeway_s
        expires_s = _time_claim(payload, "exp")
        if expires_s is None:
            raise Unauthenticated("The token never expires; add the claim exp.")
        if now_s >= expires_s + leeway_s:
            raise Unauthenticated("The token has expired; get a new one.")
        for name in ("nbf", "iat"):
            begins_s = _time_claim(payload, name)
            if begins_s is not None and now_s < begins_s - leeway_s:
                raise Unauthenticated(f"The token is not valid yet ({name} lies ahead); check the issuer's clock.")
        return datetime.fromtimestamp(min(expires_s + leeway_s, _END_OF_TIME_S), UTC)

    def _check_origin(self, payload: Mapping[str, Any]) -> None:
        issuer, audience = self._settings.issuer, self._settings.audience
        if issuer is not None and payload.get("iss") != issuer:
            raise Unauthenticated("The token comes from another issuer than this gateway trusts (iss).")
        said = payload.get("aud")
        if audience is not None and audience not in (said if isinstance(said, list) else [said]):
            raise Unauthenticated("The token is meant for another audience than this gateway (aud).")


def _malformed() -> Unauthenticated:
    return Unauthenticated("The token is not a well-formed JWT.")


def _header(token: str) -> Mapping[str, Any]:
    try:
        header: Mapping[str, Any] = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise _malformed() from None
    if "crit" in header or header.get("b64") is False:
        raise Unauthenticated("The token needs extensions (crit) that this gateway does not know.")
    return header


def _time_claim(payload: Mapping[str, Any], name: str) -> float | None:
    value = payload.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise Unauthenticated(f"The token's {name} is not a number of seconds.")
    return float(min(max(value, 0), _END_OF_TIME_S))


def _text_claim(payload: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of the claims that is there, as text."""
    for name in names:
        value = payload.get(name)
        if value is None:
            continue
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(text, str) or not is_storable_name(text):
            raise Unauthenticated(f"The token's {name} must be text of 1 to 200 characters without control characters.")
        return text
    return None


def _role(payload: Mapping[str, Any], name: str) -> Role | None:
    value = payload.get(name)
    if value is None:
        return Role.TENANT_ADMIN if payload.get("is_admin") is True else None
    try:
        return Role(value)
    except ValueError:
        allowed = ", ".join(role.value for role in Role)
        raise Unauthenticated(f"The token's {name} is none of the gateway's roles: {allowed}.") from None
