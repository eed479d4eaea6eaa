"""One root secret, one key per purpose."""

import base64

import pytest

from src.integrations.secret_hashing import KeyedHasher, Purpose, derived_key, root_key
from src.shared.errors import Misconfigured

ROOT = "r" * 32


def test_purposes_never_share_a_key() -> None:
    keys = {derived_key(ROOT, purpose) for purpose in Purpose}
    assert len(keys) == len(Purpose)
    assert all(len(key) == 32 for key in keys)


def test_the_same_secret_hashes_the_same_under_the_same_root_only() -> None:
    assert KeyedHasher(ROOT).hmac("sk-gw-a") == KeyedHasher(ROOT, "api-keys").hmac("sk-gw-a")
    assert KeyedHasher(ROOT).hmac("sk-gw-a") != KeyedHasher("s" * 32).hmac("sk-gw-a")
    assert KeyedHasher(ROOT).hmac("sk-gw-a") != KeyedHasher(ROOT, "refresh-tokens").hmac("sk-gw-a")


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padding", [True, False])
def test_base64_of_32_bytes_is_decoded(encode: object, padding: bool) -> None:
    raw = bytes(range(223, 255))
    text = encode(raw).decode()  # type: ignore[operator]
    assert root_key(text if padding else text.rstrip("=")) == raw


def test_any_other_long_text_is_taken_as_it_is() -> None:
    assert root_key("f" * 64) == b"f" * 64
    assert root_key("é" * 16) == ("é" * 16).encode()


@pytest.mark.parametrize("short", ["", "x" * 31, base64.b64encode(b"x" * 16).decode()])
def test_short_roots_stop_the_start_without_being_shown(short: str) -> None:
    with pytest.raises(Misconfigured, match="GATEWAY_ENCRYPTION_KEY") as refused:
        KeyedHasher(short)
    assert not short or short not in str(refused.value)


def test_lone_surrogates_are_hashed_too() -> None:
    assert len(KeyedHasher(ROOT).hmac("\udc80")) == 32
