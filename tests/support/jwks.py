"""An identity provider's JWKS endpoint with RSA, EC and Ed25519 keys that can rotate, fail and hang."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
ALGORITHMS = ("RS256", "ES256", "EdDSA")


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    kid: str
    alg: str
    private: PrivateKey

    def public_jwk(self) -> dict[str, Any]:
        return {**_jwk(self.private), "kid": self.kid, "alg": self.alg, "use": "sig"}

    def sign(self, claims: Mapping[str, Any], headers: Mapping[str, Any] | None = None) -> str:
        return jwt.encode(dict(claims), self.private, algorithm=self.alg, headers={"kid": self.kid, **(headers or {})})


def make_key(alg: str, kid: str) -> SigningKey:
    return SigningKey(kid=kid, alg=alg, private=_private_key(alg))


class JwksServer:
    """Publishes at `url`; `fetches` counts the requests, failed and hanging ones included."""

    def __init__(self) -> None:
        self.fetches = 0
        self.port = 0
        self._numbers = itertools.count(1)
        self._published: list[SigningKey] = []
        self._current: dict[str, SigningKey] = {}
        self._fail_status: int | None = None
        self._may_answer = asyncio.Event()
        self._may_answer.set()
        self._runner: web.AppRunner | None = None
        self.rotate()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes(
            [
                web.get("/.well-known/jwks.json", self._serve),
                web.get("/.well-known/openid-configuration", self._serve_discovery),
            ]
        )
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.issuer}/.well-known/jwks.json"

    def document(self) -> dict[str, Any]:
        return {"keys": [key.public_jwk() for key in self._published]}

    def key(self, alg: str = "RS256") -> SigningKey:
        return self._current[alg]

    def rotate(self, *, keep_old: bool = False) -> None:
        """New keys for every algorithm; the old ones are withdrawn unless kept published."""
        number = next(self._numbers)
        self._current = {alg: make_key(alg, f"{alg.lower()}-{number}") for alg in ALGORITHMS}
        self._published = [*(self._published if keep_old else []), *self._current.values()]

    def sign(self, claims: Mapping[str, Any], alg: str = "RS256", kid: str | None = None) -> str:
        """Sign with the current key of `alg`, or with the published key `kid`; an unknown `kid` is only claimed."""
        for key in self._published:
            if key.kid == kid:
                return key.sign(claims)
        return self.key(alg).sign(claims, {} if kid is None else {"kid": kid})

    def hang(self) -> None:
        """Answer nothing until `recover`."""
        self._may_answer.clear()

    def fail(self, status: int = 503) -> None:
        self._fail_status = status

    def recover(self) -> None:
        self._fail_status = None
        self._may_answer.set()

    async def _serve(self, request: web.Request) -> web.Response:
        self.fetches += 1
        await self._may_answer.wait()
        if self._fail_status is not None:
            return web.Response(status=self._fail_status)
        return web.json_response(self.document(), headers={"cache-control": "max-age=300"})

    async def _serve_discovery(self, request: web.Request) -> web.Response:
        return web.json_response({"issuer": self.issuer, "jwks_uri": self.url})


def _private_key(alg: str) -> PrivateKey:
    match alg:
        case "RS256":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            raise ValueError(f"no key for {alg}; one of {', '.join(ALGORITHMS)}")


def _jwk(private: PrivateKey) -> dict[str, Any]:
    match private:
        case rsa.RSAPrivateKey():
            text = RSAAlgorithm.to_jwk(private.public_key())
        case ec.EllipticCurvePrivateKey():
            text = ECAlgorithm.to_jwk(private.public_key())
        case ed25519.Ed25519PrivateKey():
            text = OKPAlgorithm.to_jwk(private.public_key())
    parsed: dict[str, Any] = json.loads(text)
    return parsed
