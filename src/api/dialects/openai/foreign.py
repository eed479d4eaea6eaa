"""What only we put into a client's history, taken out again for the servers of its own format."""

from collections.abc import Mapping
from typing import Any

from src.api.dialects.openai.content import OWN
from src.api.dialects.signatures import opened

_THOUGHTS = frozenset({"reasoning_content", "reasoning", "reasoning_details"})
_SEALS = ("data", "signature")


def without_foreign(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The body, which was read without fault, without thoughts of models of other formats, and the name of those."""
    if not any(map(_has_foreign, body["messages"])):
        return body, ()
    messages = [_without_thoughts(message) if _has_foreign(message) else message for message in body["messages"]]
    return {**body, "messages": messages}, ("thinking",)


def _has_foreign(message: Mapping[str, Any]) -> bool:
    """Whether another format's seal is among its thoughts, which then are all of that model."""
    details = message.get("reasoning_details")
    if message["role"] != "assistant" or not isinstance(details, list):
        return False
    seals = (detail.get(name) for detail in details for name in _SEALS)
    return any(isinstance(seal, str) and opened(seal, OWN)[1] is not OWN for seal in seals)


def _without_thoughts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in message.items() if name not in _THOUGHTS}
