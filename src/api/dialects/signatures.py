"""Signatures of thoughts, carried through clients of other dialects: sealed with the format that they belong to.

A thought is proof to the model that had it and to no other. A client hands it back as it came, wherever the next call
goes: whoever reads it must know whose it is.
"""

import base64
import binascii

from src.domain.catalog.model import WireFormat

_MARK = "llm-gateway:"


def sealed(signature: str | None, origin: WireFormat | None, own: WireFormat) -> str:
    """The signature as a client of the format `own` gets it: its own ones as they are, others as base64 text."""
    if origin is own:
        return signature or ""
    words = f"{_MARK}{origin.value if origin else ''}:{signature or ''}"
    return base64.b64encode(words.encode()).decode()


def opened(text: str, own: WireFormat) -> tuple[str | None, WireFormat | None]:
    """The signature and the format that it belongs to; what bears no seal is the client's own format's."""
    try:
        words = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        words = ""
    if not words.startswith(_MARK):
        return text or None, own
    origin, _, signature = words.removeprefix(_MARK).partition(":")
    return signature or None, WireFormat(origin) if origin in set(WireFormat) else None
