"""Which published keys prove anything, and how much is read to learn of them."""

import json
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

from src.integrations.jwks import KeySet, parse_keys
from src.shared.errors import Unavailable


async def test_bodies_over_a_mebibyte_are_not_read() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(40):
            await answer.write(b" " * 65536)
        return answer

    app = web.Application()
    app.router.add_get("/", endless)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    keys = KeySet(f"http://127.0.0.1:{runner.addresses[0][1]}/")
    with pytest.raises(Unavailable):
        await keys.key("a", "RS256")
    await runner.cleanup()


def _jwk(bits: int = 2048, **given: Any) -> dict[str, Any]:
    private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    public: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return {**public, "kid": "k", **given}


@pytest.mark.parametrize(
    "row",
    [
        _jwk(bits=1024),
        _jwk(use="enc"),
        _jwk(alg="RS512"),
        _jwk(key_ops=["encrypt"]),
        _jwk(kid=7),
        _jwk(d="AQAB"),
        {"kty": "oct", "kid": "k", "k": "c2VjcmV0"},
        {"kty": "RSA", "kid": "k", "n": "!", "e": "AQAB"},
        {"kty": "RSA", "kid": "k"},
        {"kty": "EC", "kid": "k", "crv": "P-384"},
        {"kty": "EC", "kid": "k", "crv": "P-256", "x": "AQ", "y": "AQ"},
        {"kty": ["RSA"], "kid": "k"},
        "not a key",
    ],
)
def test_keys_that_prove_nothing_are_passed_over(row: object) -> None:
    good = _jwk(kid="good")
    assert [key.kid for key in parse_keys(json.dumps({"keys": [row, good]}).encode())] == ["good"]
