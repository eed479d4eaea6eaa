"""Items of messages that are kept here: they have ids that tell their places, and leave holes."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from src.api.dialects.responses.items import Namespaces, grouped, item_id, prefix_of, role_name, written
from src.api.dialects.responses.reply import status_of
from src.api.dialects.responses.tools import namespaces_of
from src.domain.completion.model import ChatRole, FinishReason
from src.domain.dialogs.model import DEVELOPERS, Message, MessageStatus
from src.domain.dialogs.removing import Entry, Removed, entries_of, without
from src.domain.dialogs.storing import call_status
from src.shared.errors import NotFound


def items_in(message: Message) -> list[dict[str, Any]]:
    """What is left of a message, as items."""
    return _ending([item for _, item in _placed_in(message)], item_status(message))


def output_items(
    entries: Sequence[Entry], message_id: UUID, *, status: str = "completed", namespaces: Namespaces | None = None
) -> list[dict[str, Any]]:
    """An answer as the output of a response; the last item has its `status`."""
    return _ending([item for _, item in _placed(entries, message_id, ChatRole.ASSISTANT, namespaces or {})], status)


def _ending(items: list[dict[str, Any]], status: str) -> list[dict[str, Any]]:
    ends = items and "status" in items[-1]
    return [*items[:-1], {**items[-1], "status": status}] if ends else items


def item_status(message: Message) -> str:
    """The status of a message's last item."""
    if message.status is MessageStatus.IN_PROGRESS:
        return "in_progress"
    reason = FinishReason(message.finish_reason) if message.finish_reason else FinishReason.STOP
    return "completed" if status_of(call_status(message.status), reason)[0] == "completed" else "incomplete"


def without_item(message: Message, name: str) -> Message:
    """The message without one of its items. Raises NotFound."""
    for place, item in _placed_in(message):
        if item["id"] == name:
            return without(message, place)
    raise NotFound(f"Item with id {name[:100]!r} not found.")


def asked_tools(answer: Message) -> Namespaces:
    """The tools in namespaces that an answer was asked for with."""
    return namespaces_of((answer.settings or {}).get("response", {}).get("tools") or ())


def _placed_in(message: Message) -> Iterator[tuple[slice, dict[str, Any]]]:
    role = role_name(ChatRole(message.role.value), by_developer=bool((message.settings or {}).get(DEVELOPERS)))
    return _placed(entries_of(message), message.id, role, asked_tools(message))


def _placed(
    entries: Sequence[Entry], message_id: UUID, role: str, namespaces: Namespaces
) -> Iterator[tuple[slice, dict[str, Any]]]:
    """Each item, with the entries that it is made of."""
    place, start = 0, 0
    side = ChatRole.ASSISTANT if role == ChatRole.ASSISTANT else ChatRole.USER
    for group in grouped(entries, side):
        here, start = slice(start, start + len(group)), start + len(group)
        parts = [each for each in group if not isinstance(each, Removed)]
        items = written(parts, role, namespaces) if parts else []
        for item in items:
            yield here, {**item, "id": item_id(prefix_of(item), message_id, place)}
        place += len(items) if parts else 1
