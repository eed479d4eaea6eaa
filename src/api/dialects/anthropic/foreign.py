"""What only we put into a client's history, taken out again for Anthropic itself, which would refuse it."""

from collections.abc import Mapping
from typing import Any

from src.api.dialects.signatures import opened
from src.domain.catalog.model import WireFormat

_SIGNATURES = {"thinking": "signature", "redacted_thinking": "data"}


def without_foreign(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The body, which was read without fault, without thoughts of other models and what other providers signed.

    And names of what is missed: thoughts, or thinking at all: who used tools without a thought of its own cannot begin
    to think before they are done with.
    """
    messages = [told for message in body["messages"] if (told := _message(message)) is not None]
    told = {**body, "messages": messages}
    missed = any(is_foreign(block) for message in body["messages"] for block in _blocks(message))
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled" and _lacks_a_thought(messages):
        del told["thinking"]
        missed = True
    return told, ("thinking",) if missed else ()


def is_foreign(block: Mapping[str, Any]) -> bool:
    """Whether it is a thought of another model."""
    name = _SIGNATURES.get(block["type"])
    signature = block.get(name) if name else None
    return isinstance(signature, str) and opened(signature, WireFormat.MESSAGES)[1] is not WireFormat.MESSAGES


def _blocks(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _message(message: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """None where nothing is left of it."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    blocks = [_block(block) for block in content if not is_foreign(block)]
    return {**message, "content": blocks} if blocks or not content else None


def _block(block: Mapping[str, Any]) -> Mapping[str, Any]:
    if "extra_content" not in block:
        return block
    return {name: value for name, value in block.items() if name != "extra_content"}


def _lacks_a_thought(messages: list[Mapping[str, Any]]) -> bool:
    """Whether tools are being used, and what began that was no thought."""
    begun: list[Any] = []
    for message in (each for each in messages if each["role"] != "system"):
        content = message["content"]
        blocks = content if isinstance(content, list) else [{"type": "text"}]
        if message["role"] == "assistant":
            begun = begun or blocks
        elif not any(block["type"] == "tool_result" for block in blocks):
            begun = []
    return bool(begun) and begun[0]["type"] not in _SIGNATURES
