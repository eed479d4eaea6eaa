"""Signatures find their way through clients of other formats, and back to the models they belong to."""

import base64

import pytest

from src.api.dialects.signatures import opened, sealed
from src.domain.catalog.model import WireFormat


@pytest.mark.parametrize("own", WireFormat)
@pytest.mark.parametrize("origin", [*WireFormat, None])
def test_a_signature_comes_back_with_its_origin(own: WireFormat, origin: WireFormat | None) -> None:
    told = sealed("EqQB:proof/+==", origin, own)
    assert opened(told, own) == ("EqQB:proof/+==", origin)
    assert (told == "EqQB:proof/+==") is (origin is own)
    assert origin is own or base64.b64decode(told, validate=True)


@pytest.mark.parametrize("text", ["abc", "EqQBCg==", "no base64!", "\u00e9"])
def test_what_bears_no_seal_is_the_clients_own(text: str) -> None:
    assert opened(text, WireFormat.MESSAGES) == (text, WireFormat.MESSAGES)


def test_no_signature_is_none() -> None:
    assert opened(sealed(None, None, WireFormat.MESSAGES), WireFormat.MESSAGES) == (None, None)
    assert opened("", WireFormat.MESSAGES) == (None, WireFormat.MESSAGES)
