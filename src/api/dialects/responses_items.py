"""Items of OpenAI's Responses API, to and from messages in our words."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from src.domain.completion.content import Part
from src.domain.completion.model import ChatMessage


def messages_of(items: str | list[Any], where: str = "input") -> tuple[ChatMessage, ...]:
    """What a conversation's items say. Raises InvalidRequest, which names the field by its place in `where`."""
    raise NotImplementedError


def items_of(message: ChatMessage, message_id: UUID | None) -> list[dict[str, Any]]:
    """A message as items of a list, and as input. Their ids come from `message_id`; None: they have none."""
    raise NotImplementedError


def output_items(parts: Sequence[Part], message_id: UUID, *, status: str = "completed") -> list[dict[str, Any]]:
    """An answer's parts as the output of a response."""
    raise NotImplementedError
