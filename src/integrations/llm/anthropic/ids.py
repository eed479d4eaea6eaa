"""Ids of tool calls as Anthropic takes them: of few characters, and no two alike in a conversation."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
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
        self._unanswered: dict[str, list[str]] = {}
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
            return {**block, "tool_use_id": waiting.pop(0) if waiting else safe_call_id(answered, LONGEST_ID)}
        return block

    def _new(self, call_id: str) -> str:
        safe = safe_call_id(call_id, LONGEST_ID)
        others = (f"{safe[: LONGEST_ID - 10]}_{number}" for number in count(2))
        name = next(name for name in chain((safe,), others) if name not in self._taken)
        self._taken.add(name)
        self._unanswered.setdefault(call_id, []).append(name)
        return name
