"""Thoughts as Google's clients carry them: parts marked as thoughts, whose signatures are base64 to them."""

import base64
from typing import Any

from src.api.dialects.signatures import opened, sealed
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import Thinking
from src.domain.completion.deltas import ThinkingDelta

_OWN = WireFormat.GENERATE_CONTENT
_REDACTED = "redacted "
"""What a sealed signature begins with that is the thought itself."""
_SKIPPED = "skip_thought_signature_validator"
STAND_IN = base64.b64encode(_SKIPPED.encode()).decode()
"""What Google takes for the signature of a call that another model made; its newer models refuse calls without any."""


def call_signature(signature: str | None) -> str | None:
    """The signature of a call that came back; None where it only stands in for one."""
    return None if not signature or signature.rstrip("=") in (STAND_IN.rstrip("="), _SKIPPED) else signature


def thought_part(thought: Thinking | ThinkingDelta) -> dict[str, Any]:
    """A thought, or a piece of one: whose it is stands beside each, for the last one may never come."""
    part: dict[str, Any] = {"text": thought.text, "thought": True}
    signature = _REDACTED + (thought.signature or "") if thought.redacted else thought.signature
    if signature or thought.origin not in (None, _OWN):
        part["thoughtSignature"] = sealed(signature, thought.origin, _OWN)
    return part


def thought_from(text: str, signature: str | None) -> Thinking:
    """The thought of a part that came back. Clients decode signatures, and may write base64's other alphabet."""
    if not signature:
        return Thinking(text=text)
    standard = signature.replace("-", "+").replace("_", "/")
    found, origin = opened(standard + "=" * (-len(standard) % 4), _OWN)
    if origin is _OWN:
        return Thinking(text=text, signature=signature, origin=_OWN)
    redacted = found is not None and found.startswith(_REDACTED)
    if found is not None and redacted:
        found = found.removeprefix(_REDACTED)
    return Thinking(text=text, signature=found, redacted=redacted, origin=origin)
