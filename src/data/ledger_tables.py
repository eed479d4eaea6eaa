"""The tables of the ledger.

Holds, lines, entries and usage have no foreign keys: they outlive dialogs and users, every check would lock a hot
parent row, and they must be free to be partitioned by time (their ids are UUIDv7: a range of ids is a range of time).
One code path writes them, the auditor proves them.
"""

from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from src.data.tables import metadata
from src.data.types import EnumText, Id, JsonValue, UtcDateTime
from src.domain.completion.idempotency import ClaimState
from src.domain.ledger.model import CallStatus, EntryKind, HoldState, Scope, Unit, Window

NO_KEY = UUID(int=0)

# `model` is "" for none, so that uniqueness sees it. `limit_amount` is NULL for a prepaid quota: its account says it.
quotas = Table(
    "quotas",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, ForeignKey("tenants.id"), nullable=False),
    Column("scope", EnumText(Scope), nullable=False),
    Column("scope_id", Id, nullable=False),
    Column("unit", EnumText(Unit), nullable=False),
    Column("window", EnumText(Window), nullable=False),
    Column("model", Text, nullable=False),
    Column("limit_amount", BigInteger),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("removed_at", UtcDateTime),
    Index(
        "uq_quotas_in_force",
        "tenant_id",
        "scope",
        "scope_id",
        "unit",
        "window",
        "model",
        unique=True,
        postgresql_where=text("removed_at IS NULL"),
        sqlite_where=text("removed_at IS NULL"),
    ),
    Index(None, "tenant_id", "id"),
)

# One row for each period of a quota ("" for a prepaid one). The balance stands in the row: no request sums entries.
accounts = Table(
    "accounts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, ForeignKey("tenants.id"), nullable=False),
    Column("quota_id", Id, ForeignKey("quotas.id"), nullable=False),
    Column("period", String(16), nullable=False),
    Column("balance", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    UniqueConstraint("quota_id", "period", name="uq_accounts_quota_id_period"),
    CheckConstraint("held >= 0", name="held_not_negative"),
    CheckConstraint("spent >= 0", name="spent_not_negative"),
)

holds = Table(
    "holds",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("api_key_id", Id),
    Column("model", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("output_cap_tokens", BigInteger),
    Column("state", EnumText(HoldState), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    Column("noted", JsonValue),
    Column("cancel_requested", Boolean, nullable=False),
    Index(
        "ix_holds_open",
        "expires_at",
        postgresql_where=text("state = 'open'"),
        sqlite_where=text("state = 'open'"),
    ),
)

hold_lines = Table(
    "hold_lines",
    metadata,
    Column("hold_id", Id, nullable=False),
    Column("account_id", Id, nullable=False),
    Column("tenant_id", Id, nullable=False),
    Column("unit", EnumText(Unit), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("model", Text, nullable=False),
    PrimaryKeyConstraint("hold_id", "account_id"),
)

entries = Table(
    "entries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, nullable=False),
    Column("scope_id", Id, nullable=False),
    Column("account_id", Id, nullable=False),
    Column("unit", EnumText(Unit), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("kind", EnumText(EntryKind), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("hold_id", Id),
    Column("message_id", Id),
    Column("request_id", Text),
    Column("model", Text),
    Column("reason", Text),
    Column("actor_id", Id),
    Index(None, "account_id", "id"),
    Index(None, "tenant_id", "scope_id", "id"),
)

usage_records = Table(
    "usage_records",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("api_key_id", Id),
    Column("hold_id", Id, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("requested_model", Text, nullable=False),
    Column("model", Text),
    Column("provider", Text),
    Column("status", EnumText(CallStatus), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("cost_micro_usd", BigInteger, nullable=False),
    Column("attempts", JsonValue, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    Column("dialog_id", Id),
    Column("message_id", Id),
    Column("flags", JsonValue, nullable=False),
    Index(None, "tenant_id", "user_id", "id"),
)

# `api_key_id` is the nil UUID where no key was used, so that uniqueness sees it. There is no answer before its state
# is `kept`.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("api_key_id", Id, nullable=False),
    Column("key_hash", String(64), nullable=False),
    Column("body_hash", String(64), nullable=False),
    Column("state", EnumText(ClaimState), nullable=False),
    Column("weak", Boolean, nullable=False),
    Column("hold_id", Id, index=True),
    Column("message_id", Id),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
    Column("status", Integer),
    Column("media_type", Text),
    Column("headers", JsonValue),
    Column("body", LargeBinary),
    UniqueConstraint("tenant_id", "user_id", "api_key_id", "key_hash", name="uq_idempotency_keys_owner"),
)

# Usage summed by day. `api_key_id` is the nil UUID where no key was used.
usage_days = Table(
    "usage_days",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("api_key_id", Id, nullable=False),
    Column("model", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_micro_usd", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant_id", "user_id", "day", "model", "api_key_id"),
)
