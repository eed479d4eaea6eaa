"""One root secret, one key per purpose, and the keyed hash that API keys and refresh tokens are stored under."""

import base64
import binascii
import hmac
from enum import StrEnum

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from src.domain.identity.ports import SecretHasher
from src.shared.errors import Misconfigured

MIN_ROOT_BYTES = 32
_CONTEXT = "llm-gateway/v1/"


class Purpose(StrEnum):
    """What a derived key is for. A purpose never sees another's key."""

    API_KEYS = "api-keys"
    REFRESH_TOKENS = "refresh-tokens"
    PROVIDER_KEYS = "provider-keys"


def root_key(encryption_key: str) -> bytes:
    """The bytes of GATEWAY_ENCRYPTION_KEY: base64 of 32 bytes is decoded, anything else is taken as it is.

    Raises Misconfigured under 32 bytes.
    """
    raw = encryption_key.encode("utf-8", "surrogateescape")
    if len(decoded := _decoded(raw)) == MIN_ROOT_BYTES:
        return decoded
    if len(raw) < MIN_ROOT_BYTES:
        raise Misconfigured(
            f"GATEWAY_ENCRYPTION_KEY has {len(raw)} bytes; it needs at least {MIN_ROOT_BYTES} (openssl rand -hex 32)."
        )
    return raw


def derived_key(encryption_key: str, purpose: Purpose | str) -> bytes:
    """32 bytes for one purpose, by HKDF-SHA256. Raises Misconfigured (see root_key)."""
    info = f"{_CONTEXT}{Purpose(purpose).value}".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(root_key(encryption_key))


class KeyedHasher(SecretHasher):
    """HMAC-SHA256. Fast on purpose: what it hashes is random already."""

    def __init__(self, encryption_key: str, purpose: Purpose | str = Purpose.API_KEYS) -> None:
        """Raises Misconfigured (see root_key)."""
        self._key = derived_key(encryption_key, purpose)

    def hmac(self, secret: str) -> bytes:
        """32 bytes."""
        return hmac.digest(self._key, secret.encode("utf-8", "surrogatepass"), "sha256")


def _decoded(raw: bytes) -> bytes:
    padded = raw.rstrip(b"=") + b"=" * (-len(raw.rstrip(b"=")) % 4)
    try:
        return base64.b64decode(padded.translate(bytes.maketrans(b"-_", b"+/")), validate=True)
    except (binascii.Error, ValueError):
        return b""
