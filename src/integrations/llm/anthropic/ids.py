"""Ids of tool calls as Anthropic takes them: of few characters, and no two alike in a conversation."""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from src.integrations.llm.translation import safe_call_id

LONGEST_ID = 128

Message = Mapping[str, Any]


def with_own_ids(messages: Sequence[Message]) -> Sequence[Message]:
    """The same messages with other ids where calls of other models have ids that Anthropic refuses: results keep to
    their calls. What all the ids are fine in is left alone.
    """
    renamed = _Renamed()
    return [renamed.message(message) for message in messages] if _are_strange(messages) else messages


def _are_strange(messages: Sequence[Message]) -> bool:
    ids = [block["id"] for message in messages for block in _blocks(message) if _is_call(block)]
    return len(set(ids)) < len(ids) or any(safe_call_id(each, LONGEST_ID) != each for each in ids)


def _is_call(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "tool_use" and isinstance(block.get("id"), str)


def _blocks(message: Message) -> Iterator[dict[str, Any]]:
    content = message.get("content") if isinstance(message, dict) else None
    return (block for block in content if isinstance(block, dict)) if isinstance(content, list) else iter(())


class _Renamed:
    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: count(2))
        """What else to call ids that are alike, by what they have in common: there may be very many of them."""
        self._unanswered: defaultdict[str, deque[str]] = defaultdict(deque)
        """New ids, by those that they had."""

    def message(self, message: Message) -> Message:
        content = message.get("content") if isinstance(message, dict) else None
        return {**message, "content": [*map(self._block, content)]} if isinstance(content, list) else message

    def _block(self, block: Any) -> Any:
        if not isinstance(block, dict):
            return block
        if _is_call(block):
            return {**block, "id": self._new(block["id"])}
        answered = block.get("tool_use_id")
        if block.get("type") == "tool_result" and isinstance(answered, str):
            waiting = self._unanswered.get(answered)
            return {**block, "tool_use_id": waiting.popleft() if waiting else safe_call_id(answered, LONGEST_ID)}
        return block

    def _new(self, call_id: str) -> str:
        name = safe_call_id(call_id, LONGEST_ID)
        beginning = name[: LONGEST_ID - 10]
        while name in self._taken:
            name = f"{beginning}_{next(self._numbers[beginning])}"
        self._taken.add(name)
        self._unanswered[call_id].append(name)
        return name
