"""The tables of tenants, catalog and dialogs. Units stand last in a column's name."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
    true,
)

from src.data.types import EnumText, Id, JsonValue, UtcDateTime
from src.domain.catalog.model import ChainStrategy, Lifecycle, ProviderKind
from src.domain.dialogs.model import DialogKind, MessageRole, MessageStatus
from src.domain.identity.model import Role
from src.domain.limits.model import LimitScope

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

tenants = Table(
    "tenants",
    metadata,
    Column("id", Id, primary_key=True),
    Column("slug", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("time_zone", Text, nullable=False, server_default="UTC"),
)

users = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, ForeignKey("tenants.id"), nullable=False),
    Column("external_id", Text, nullable=False),
    Column("role", EnumText(Role), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("name", Text),
    Column("email", Text, index=True),
    Column("password_hash", Text),
    Column("disabled", Boolean, nullable=False),
    UniqueConstraint("tenant_id", "external_id"),
    UniqueConstraint("tenant_id", "email"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, ForeignKey("tenants.id"), nullable=False),
    Column("user_id", Id, ForeignKey("users.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("secret_hmac", LargeBinary, nullable=False, unique=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("models", JsonValue),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Index(None, "tenant_id", "user_id", "id"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, ForeignKey("tenants.id"), nullable=False),
    Column("user_id", Id, ForeignKey("users.id"), nullable=False, index=True),
    Column("refresh_hmac", LargeBinary, nullable=False, unique=True),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
)

audit_events = Table(
    "audit_events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, nullable=False),
    Column("actor_user_id", Id),
    Column("actor_key_id", Id),
    Column("action", Text, nullable=False),
    Column("object_kind", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("details", JsonValue, nullable=False),
    Column("request_id", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "tenant_id", "id"),
)

providers = Table(
    "providers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("kind", EnumText(ProviderKind), nullable=False),
    Column("base_url", Text),
    Column("api_key_env", Text),
    Column("enabled", Boolean, nullable=False),
    Column("responses", Boolean),
    Column("source", String(16), nullable=False),
)

# No foreign key to providers: a model of the file may come before the provider that a key switches on.
models = Table(
    "models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("upstream", Text, nullable=False),
    Column("context_window", BigInteger, nullable=False),
    Column("max_output", BigInteger, nullable=False),
    Column("output_reserve", BigInteger),
    Column("capabilities", JsonValue, nullable=False),
    Column("lifecycle", EnumText(Lifecycle), nullable=False),
    Column("replacement", Text),
    Column("enabled", Boolean, nullable=False),
    Column("weight", Integer, nullable=False, server_default="1"),
    Column("deployments", JsonValue, nullable=False, server_default="[]"),
    Column("deadlines", JsonValue, nullable=False, server_default="{}"),
    Column("cache", JsonValue),
    Column("source", String(16), nullable=False),
)

# Rates are micro-USD per million tokens.
prices = Table(
    "prices",
    metadata,
    Column("id", Id, primary_key=True),
    Column("model", Text, ForeignKey("models.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("effective_from", UtcDateTime),
    Column("input_rate", BigInteger, nullable=False),
    Column("output_rate", BigInteger, nullable=False),
    Column("cache_read_rate", BigInteger),
    Column("cache_write_rate", BigInteger),
    Column("tiers", JsonValue, nullable=False),
    Column("source", String(16), nullable=False),
)

chains = Table(
    "chains",
    metadata,
    Column("name", Text, primary_key=True),
    Column("models", JsonValue, nullable=False),
    Column("strategy", EnumText(ChainStrategy), nullable=False, server_default="ordered"),
    Column("weights", JsonValue, nullable=False, server_default="[]"),
    Column("sticky", Boolean, nullable=False, server_default=true()),
    Column("source", String(16), nullable=False),
)

# A version for each thing that replicas keep a snapshot of (data/repositories/versions.py).
catalog_version = Table(
    "catalog_version",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)

# `scope_id` is an id, of a model its name; a model's limits belong to no tenant.
rate_limits = Table(
    "rate_limits",
    metadata,
    Column("id", Id, primary_key=True),
    Column("scope", EnumText(LimitScope), nullable=False),
    Column("scope_id", Text, nullable=False),
    Column("tenant_id", Id, ForeignKey("tenants.id")),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("parallel", BigInteger),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("scope", "scope_id"),
    Index(None, "tenant_id", "id"),
)

# The head is no foreign key: messages point here already, and a circle helps nobody.
dialogs = Table(
    "dialogs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, ForeignKey("tenants.id"), nullable=False),
    Column("user_id", Id, ForeignKey("users.id"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("kind", EnumText(DialogKind), nullable=False),
    Column("title", Text),
    Column("model", Text),
    Column("agent", Text),
    Column("system_prompt", Text),
    Column("params", JsonValue, nullable=False),
    Column("metadata", JsonValue, nullable=False),
    Column("head_id", Id),
    UniqueConstraint("tenant_id", "id"),
    Index(None, "tenant_id", "user_id", "id"),
    Index(
        "uq_dialogs_chat",
        "tenant_id",
        "user_id",
        unique=True,
        postgresql_where=text("kind = 'chat'"),
        sqlite_where=text("kind = 'chat'"),
    ),
)

# `hold_id` is the hold an answer was begun with, so that the sweep can end what a crash left in progress.
messages = Table(
    "messages",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, nullable=False),
    Column("dialog_id", Id, nullable=False),
    Column("parent_id", Id, index=True),
    Column("role", EnumText(MessageRole), nullable=False),
    Column("content", Text, nullable=False),
    Column("parts", JsonValue),
    Column("status", EnumText(MessageStatus), nullable=False),
    Column("finish_reason", Text),
    Column("model", Text),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cache_read_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("estimated", Boolean, nullable=False),
    Column("cost_micro_usd", BigInteger, nullable=False),
    Column("cached", Boolean, nullable=False),
    Column("error", JsonValue),
    Column("request_id", Text),
    Column("hold_id", Id),
    Column("settings", JsonValue),
    Column("created_at", UtcDateTime, nullable=False),
    Column("completed_at", UtcDateTime),
    ForeignKeyConstraint(["tenant_id", "dialog_id"], ["dialogs.tenant_id", "dialogs.id"], ondelete="CASCADE"),
    Index(None, "tenant_id", "dialog_id", "id"),
    Index(
        "ix_messages_in_progress",
        "hold_id",
        postgresql_where=text("status = 'in_progress'"),
        sqlite_where=text("status = 'in_progress'"),
    ),
)
