"""A conversation as Anthropic demands it: turns of user and assistant by turns, results right after their calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from src.domain.completion.content import Media, Thinking
from src.domain.completion.model import ChatMessage, ChatRole
from src.integrations.llm.anthropic.blocks import block_of, is_own
from src.integrations.llm.anthropic.ids import with_own_ids
from src.integrations.llm.translation import OPENING

Turn = dict[str, Any]
Block = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """`turns` have lists of blocks. `left_out` names what is not said of the messages."""

    turns: list[Turn]
    left_out: tuple[str, ...]

    def as_messages(self) -> list[Turn]:
        """For the SDK; a turn of one text is that text."""
        return [{**turn, "content": _content(turn["content"])} for turn in self.turns]

    @property
    def called(self) -> list[str]:
        """Names of the tools that were called."""
        blocks = (block for turn in self.turns for block in turn["content"] if block["type"] == "tool_use")
        return list(dict.fromkeys(block["name"] for block in blocks))

    @property
    def lacks_a_thought(self) -> bool:
        """Whether a model that must think, and must have thought, cannot go on: it is in the middle of using tools,
        and did not begin that with a thought; or its answer was begun for it.
        """
        begun: list[Block] = []
        for turn in self.turns:
            if turn["role"] == "assistant":
                begun = begun or turn["content"]
            elif not any(block["type"] == "tool_result" for block in turn["content"]):
                begun = []
        return bool(begun) and (self.is_prefilled or begun[0]["type"] not in ("thinking", "redacted_thinking"))

    @property
    def is_prefilled(self) -> bool:
        """Whether the answer is begun already."""
        return str(self.turns[-1]["role"]) == "assistant"


def turns_of(messages: Sequence[ChatMessage]) -> Turns:
    """All but the system's messages. Raises UpstreamFailed (unsupported) for files that cannot be said."""
    turns: list[Turn] = []
    left_out: dict[str, None] = {}
    for message in messages:
        if message.role is not ChatRole.SYSTEM:
            blocks = _blocks(message, left_out)
            if turns and turns[-1]["role"] == message.role.value:
                turns[-1]["content"] += blocks
            elif blocks:
                turns.append({"role": message.role.value, "content": blocks})
    if not turns or turns[0]["role"] != ChatRole.USER.value:
        turns.insert(0, {"role": ChatRole.USER.value, "content": [{"type": "text", "text": OPENING}]})
    for turn in turns:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    _strip_end(turns[-1])
    return Turns(turns=[*map(dict, with_own_ids(turns))], left_out=tuple(left_out))


def _blocks(message: ChatMessage, left_out: dict[str, None]) -> list[Block]:
    by_user = message.role is ChatRole.USER
    found: list[Block] = []
    for part in message.all_parts:
        if isinstance(part, Thinking) and not is_own(part):
            left_out["thinking"] = None
        if isinstance(part, Media) and part.detail not in (None, "auto"):
            left_out["detail"] = None
        block = block_of(part, by_user=by_user)
        if block is not None:
            found.append(block)
    return found


def _strip_end(turn: Turn) -> None:
    """Spaces at the end of an answer to be continued are refused."""
    last = turn["content"][-1]
    if turn["role"] == ChatRole.ASSISTANT.value and last["type"] == "text":
        last["text"] = last["text"].rstrip()


def _content(blocks: list[Block]) -> str | list[Block]:
    text: str | None = blocks[0]["text"] if len(blocks) == 1 and blocks[0]["type"] == "text" else None
    return blocks if text is None else text
