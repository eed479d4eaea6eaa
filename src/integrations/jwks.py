"""An issuer's public keys, fetched without blocking, kept for ten minutes and served on while the issuer is away."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from src.shared.errors import Misconfigured, Unavailable

FETCH_TIMEOUT_S = 5.0
MAX_BODY_BYTES = 1024 * 1024
MAX_KEYS = 100
MIN_RSA_BITS = 2048
FRESH_S = 600.0
RETRY_S = 30.0
"""The least time between two fetches for an unknown `kid`, and between two tries while the endpoint is away."""
PATIENCE_S = 1.0
"""How long a caller waits for fresher keys when there are older ones to serve."""

# The one algorithm that a kind of key may be used with: a key is never tried with another.
_ALGORITHMS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key of the set with the only algorithm it verifies. `key` is what the signature library takes."""

    kid: str | None
    algorithm: str
    key: Any


class FetchFailed(Exception):
    """The endpoint did not answer with a key set; the text says why."""


class KeySet:
    """The keys behind one JWKS address. At most one fetch is under way; whoever needs keys waits for that one."""

    def __init__(self, url: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise Misconfigured("GATEWAY_JWT_JWKS_URL must be an http or https address.")
        self._url = url
        self._monotonic = monotonic
        self._keys: tuple[PublicKey, ...] | None = None
        self._fresh_until = float("-inf")
        self._searched_at = float("-inf")
        self._fetch: asyncio.Task[None] | None = None

    async def key(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """The key for a token's header, or None where the issuer publishes none.

        Without a `kid`, the only key of the algorithm. Raises Unavailable when no keys were ever had.
        """
        await self._freshen()
        found = self._find(kid, algorithm)
        if found is None and self._may_search():
            self._searched_at = self._monotonic()
            await self._fetched()
        elif found is None and self._fetch is not None:
            await self._fetched()
        return found or self._find(kid, algorithm)

    async def close(self) -> None:
        """Give up a fetch that is under way."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.wait({self._fetch})

    def _find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        fitting = [key for key in self._keys or () if key.algorithm == algorithm and kid in (None, key.kid)]
        return fitting[0] if len(fitting) == 1 or (fitting and kid is not None) else None

    def _may_search(self) -> bool:
        return self._monotonic() - self._searched_at >= RETRY_S

    async def _freshen(self) -> None:
        if self._keys is None:
            await self._fetched()
            if self._keys is None:
                raise Unavailable("The keys that tokens are signed with cannot be fetched now; try again in a moment.")
        elif self._monotonic() >= self._fresh_until:
            await self._fetched(patience_s=PATIENCE_S)

    async def _fetched(self, patience_s: float | None = None) -> None:
        """Wait for the fetch under way, or begin one. A caller that goes away does not end it for the others."""
        if self._fetch is None:
            self._fetch = asyncio.create_task(self._refresh())
        await asyncio.wait({self._fetch}, timeout=patience_s)

    async def _refresh(self) -> None:
        try:
            self._keys = await _fetch(self._url)
            self._fresh_until = self._monotonic() + FRESH_S
        except FetchFailed:
            self._fresh_until = self._monotonic() + RETRY_S
        finally:
            self._fetch = None


async def _fetch(url: str) -> tuple[PublicKey, ...]:
    """Raises FetchFailed for whatever goes wrong."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)) as session,
            session.get(url, allow_redirects=False, headers={"accept-encoding": "identity"}) as answer,
        ):
            if answer.status != 200:
                raise FetchFailed(f"status {answer.status}")
            return parse_keys(await _bounded_body(answer))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise FetchFailed(f"{type(error).__name__}: {error}") from None


async def _bounded_body(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_chunked(65536):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise FetchFailed(f"over {MAX_BODY_BYTES} bytes")
    return bytes(body)


def parse_keys(body: bytes) -> tuple[PublicKey, ...]:
    """The keys of a set that verify signatures here; others are passed over. Raises FetchFailed for what is no set."""
    document = orjson.loads(body)
    rows = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise FetchFailed("no key set")
    found = [key for row in rows[:MAX_KEYS] if isinstance(row, dict) and (key := _usable(row)) is not None]
    return tuple(found)


def _usable(row: Mapping[str, Any]) -> PublicKey | None:
    """None for keys of other kinds, for other uses, too short, or broken."""
    kid, kind, curve = row.get("kid"), row.get("kty"), row.get("crv")
    if not (isinstance(kind, str) and isinstance(curve, str | None) and isinstance(kid, str | None)):
        return None
    algorithm = _ALGORITHMS.get((kind, None if kind == "RSA" else curve))
    if algorithm is None or not _is_for_verifying(row, algorithm):
        return None
    try:
        key = jwt.PyJWK({**row, "alg": algorithm}, algorithm=algorithm).key
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, AttributeError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        return None
    # A published private key is everybody's: what it signs proves nothing.
    return PublicKey(kid=kid, algorithm=algorithm, key=key) if "d" not in row else None


def _is_for_verifying(row: Mapping[str, Any], algorithm: str) -> bool:
    operations = row.get("key_ops")
    return (
        row.get("alg") in (None, algorithm)
        and row.get("use") in (None, "sig")
        and (operations is None or (isinstance(operations, list) and "verify" in operations))
    )
