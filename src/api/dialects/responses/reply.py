"""OpenAI's response object."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from src.domain.catalog.model import Usage
from src.domain.completion.model import FinishReason
from src.domain.ledger.model import CallStatus

_INCOMPLETE = {FinishReason.LENGTH: "max_output_tokens", FinishReason.CONTENT_FILTER: "content_filter"}


def response_body(
    *,
    response_id: str,
    created_at: datetime,
    model: str,
    echo: Mapping[str, Any],
    status: str,
    output: list[dict[str, Any]],
    usage: Usage | None = None,
    error: Mapping[str, str] | None = None,
    incomplete_reason: str | None = None,
    completed_at: datetime | None = None,
) -> dict[str, Any]:
    """A response with every field it has. `error` is {code, message}."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(created_at.timestamp()),
        "status": status,
        "completed_at": None if completed_at is None else int(completed_at.timestamp()),
        "error": None if error is None else dict(error),
        "incomplete_details": None if incomplete_reason is None else {"reason": incomplete_reason},
        **echo,
        "model": model,
        "output": output,
        "usage": None if usage is None else usage_body(usage),
    }


def usage_body(usage: Usage) -> dict[str, Any]:
    """Usage in the words of responses: input_tokens include cached ones."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def status_of(call_status: CallStatus, reason: FinishReason) -> tuple[str, str | None]:
    """The status of a response, and why it is incomplete where it is."""
    match call_status:
        case CallStatus.COMPLETED:
            incomplete = _INCOMPLETE.get(reason)
            return ("completed", None) if incomplete is None else ("incomplete", incomplete)
        case CallStatus.CANCELLED:
            return "cancelled", None
        case CallStatus.FAILED if reason is FinishReason.CANCELLED:  # before its first word
            return "cancelled", None
        case CallStatus.FAILED | CallStatus.INTERRUPTED:
            return "failed", None
