"""What was noted of a call under way, as JSON in its hold's row: the usage record it would have if it ended there."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from src.domain.catalog.model import Usage
from src.domain.identity.model import ApiKeyId, TenantId, UserId
from src.domain.ledger.model import Attempt, CallStatus, HoldId, UsageRecord
from src.shared.money import MicroDollars


def noted_json(record: UsageRecord | None) -> Any:
    """The record as plain values; None where nothing was noted."""
    return None if record is None else orjson.loads(orjson.dumps(record))


def noted_from(value: Any) -> UsageRecord | None:
    """The record, from JSON as the driver returns it (text, or read already)."""
    if value is None:
        return None
    found: Mapping[str, Any] = orjson.loads(value) if isinstance(value, str | bytes) else value
    return UsageRecord(
        **{
            **found,
            "id": UUID(found["id"]),
            "tenant_id": TenantId(UUID(found["tenant_id"])),
            "user_id": UserId(UUID(found["user_id"])),
            "api_key_id": None if found["api_key_id"] is None else ApiKeyId(UUID(found["api_key_id"])),
            "hold_id": HoldId(UUID(found["hold_id"])),
            "status": CallStatus(found["status"]),
            "usage": Usage(**found["usage"]),
            "cost_micro_usd": MicroDollars(found["cost_micro_usd"]),
            "attempts": tuple(Attempt(**attempt) for attempt in found["attempts"]),
            "created_at": datetime.fromisoformat(found["created_at"]),
            "dialog_id": None if found["dialog_id"] is None else UUID(found["dialog_id"]),
            "message_id": None if found["message_id"] is None else UUID(found["message_id"]),
            "flags": tuple(found["flags"]),
        }
    )
