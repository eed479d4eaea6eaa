"""OpenAI's response object."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from src.domain.catalog.model import Usage
from src.domain.completion.model import FinishReason
from src.domain.ledger.model import CallStatus


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
    raise NotImplementedError


def status_of(call_status: CallStatus, reason: FinishReason) -> tuple[str, str | None]:
    """The status of a response, and why it is incomplete where it is."""
    raise NotImplementedError
