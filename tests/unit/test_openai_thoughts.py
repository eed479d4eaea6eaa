"""Thoughts that come back through OpenAI's dialect, whole or in the pieces of a stream."""

from typing import Any

import pytest

from src.api.dialects.openai.request import parse_chat_completion
from src.api.dialects.signatures import sealed
from src.domain.catalog.model import WireFormat
from src.domain.completion.content import Part, Thinking

OWN, GOOGLE, ANTHROPIC = WireFormat.CHAT_COMPLETIONS, WireFormat.GENERATE_CONTENT, WireFormat.MESSAGES
SEAL = sealed("proof", ANTHROPIC, OWN)
NOBODYS = sealed(None, GOOGLE, OWN)


def text(words: str, index: int | None = 0, **more: Any) -> dict[str, Any]:
    """A piece of a thought."""
    place = {} if index is None else {"index": index}
    return {"type": "reasoning.text", "text": words, **place, **more}


@pytest.mark.parametrize("index", [0, None])
@pytest.mark.parametrize(
    ("details", "thoughts"),
    [
        (
            [("a ", {}), ("b", {}), ("", {"signature": SEAL})],
            [Thinking(text="a b", signature="proof", origin=ANTHROPIC)],
        ),
        ([("a b", {"signature": SEAL})], [Thinking(text="a b", signature="proof", origin=ANTHROPIC)]),
        ([("a ", {}), ("b", {"signature": NOBODYS})], [Thinking(text="a b", origin=GOOGLE)]),
        ([("a ", {}), ("b", {})], [Thinking(text="a b", origin=OWN)]),
    ],
)
def test_pieces_are_one_thought(
    index: int | None, details: list[tuple[str, dict[str, Any]]], thoughts: list[Part]
) -> None:
    pieces = [text(words, index, **more) for words, more in details]
    assert thoughts_in(reasoning_details=pieces, reasoning_content="not read besides") == thoughts


def test_thoughts_stay_apart() -> None:
    secret = {"type": "reasoning.encrypted", "data": sealed("secret", ANTHROPIC, OWN), "index": 1}
    pieces = [text("a", 0), text("", 0, signature=SEAL), secret, text("b", 2)]
    assert thoughts_in(reasoning_details=pieces) == [
        Thinking(text="a", signature="proof", origin=ANTHROPIC),
        Thinking(signature="secret", redacted=True, origin=ANTHROPIC),
        Thinking(text="b", origin=OWN),
    ]


def thoughts_in(**fields: Any) -> list[Part]:
    """Of an assistant's message with these fields."""
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "x", **fields}]
    parts = parse_chat_completion({"model": "m", "messages": messages}, {}).chat.messages[1].parts
    return [part for part in parts if isinstance(part, Thinking)]
