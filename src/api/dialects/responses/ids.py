"""Ids that clients of OpenAI's stateful endpoints know things by: our own with their prefixes."""

from uuid import UUID

from src.shared.ids import parse_id


def response_id(answer_id: UUID) -> str:
    """Of an answer."""
    return f"resp_{answer_id.hex}"


def conversation_id(dialog_id: UUID) -> str:
    """Of a dialog."""
    return f"conv_{dialog_id.hex}"


def id_in(text: str) -> UUID | None:
    """Our own id in such an id, or in one of an item; a native id as it is. None where there is none."""
    _, _, rest = text.partition("_")
    return parse_id((rest or text).partition("_")[0])
