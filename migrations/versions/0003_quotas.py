"""Quotas have rows of their own, each of their periods has an account; holds note what was delivered.

Every account of before was a prepaid one, so each becomes a prepaid quota with the same id.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
MOVED = ("scope", "scope_id", "unit", "window", "model")
IN_FORCE = sa.text("removed_at IS NULL")


def upgrade() -> None:
    _create_quotas()
    op.execute(
        'INSERT INTO quotas (id, tenant_id, scope, scope_id, unit, "window", model, created_at, updated_at) '
        'SELECT id, tenant_id, scope, scope_id, unit, "window", model, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP '
        "FROM accounts"
    )
    _scope_of_entries()
    _accounts_of_quotas()
    with op.batch_alter_table("holds") as holds:
        holds.add_column(sa.Column("noted", JSON, nullable=True))
        holds.add_column(sa.Column("cancel_requested", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("hold_lines") as lines:
        lines.add_column(sa.Column("model", sa.Text(), nullable=False, server_default=""))
    with op.batch_alter_table("holds") as holds:
        holds.alter_column("cancel_requested", server_default=None)
    with op.batch_alter_table("hold_lines") as lines:
        lines.alter_column("model", server_default=None)


def _create_quotas() -> None:
    op.create_table(
        "quotas",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.String(32), nullable=False),
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("unit", sa.String(32), nullable=False),
        sa.Column("window", sa.String(32), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("limit_amount", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_quotas"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_quotas_tenant_id"),
    )
    columns = ["tenant_id", "scope", "scope_id", "unit", "window", "model"]
    op.create_index(
        "uq_quotas_in_force", "quotas", columns, unique=True, postgresql_where=IN_FORCE, sqlite_where=IN_FORCE
    )
    op.create_index("ix_quotas_tenant_id_id", "quotas", ["tenant_id", "id"])


def _scope_of_entries() -> None:
    with op.batch_alter_table("entries") as entries:
        entries.add_column(sa.Column("scope_id", sa.Uuid(), nullable=True))
    op.execute("UPDATE entries SET scope_id = (SELECT scope_id FROM accounts WHERE accounts.id = entries.account_id)")
    with op.batch_alter_table("entries") as entries:
        entries.alter_column("scope_id", existing_type=sa.Uuid(), nullable=False)
    op.create_index("ix_entries_tenant_id_scope_id_id", "entries", ["tenant_id", "scope_id", "id"])


def _accounts_of_quotas() -> None:
    with op.batch_alter_table("accounts") as accounts:
        accounts.add_column(sa.Column("quota_id", sa.Uuid(), nullable=True))
        accounts.drop_constraint("uq_accounts_identity", type_="unique")
        accounts.drop_constraint(op.f("ck_accounts_balance_not_negative"), type_="check")
    op.execute("UPDATE accounts SET quota_id = id")
    with op.batch_alter_table("accounts") as accounts:
        accounts.alter_column("quota_id", existing_type=sa.Uuid(), nullable=False)
        accounts.create_foreign_key("fk_accounts_quota_id", "quotas", ["quota_id"], ["id"])
        accounts.create_unique_constraint("uq_accounts_quota_id_period", ["quota_id", "period"])
        accounts.create_check_constraint(op.f("ck_accounts_spent_not_negative"), "spent >= 0")
        for name in MOVED:
            accounts.drop_column(name)


def downgrade() -> None:
    with op.batch_alter_table("hold_lines") as lines:
        lines.drop_column("model")
    with op.batch_alter_table("holds") as holds:
        holds.drop_column("noted")
        holds.drop_column("cancel_requested")
    op.drop_index("ix_entries_tenant_id_scope_id_id", "entries")
    with op.batch_alter_table("entries") as entries:
        entries.drop_column("scope_id")
    _accounts_by_themselves()
    op.drop_index("ix_quotas_tenant_id_id", "quotas")
    op.drop_index("uq_quotas_in_force", "quotas")
    op.drop_table("quotas")


def _accounts_by_themselves() -> None:
    """Only what is in force and not overdrawn can go back: the schema of before knows nothing else."""
    op.execute(
        "DELETE FROM accounts WHERE balance < 0 OR quota_id IN (SELECT id FROM quotas WHERE removed_at IS NOT NULL)"
    )
    with op.batch_alter_table("accounts") as accounts:
        for name in ("scope", "unit", "window"):
            accounts.add_column(sa.Column(name, sa.String(32), nullable=True))
        accounts.add_column(sa.Column("model", sa.Text(), nullable=True))
        accounts.add_column(sa.Column("scope_id", sa.Uuid(), nullable=True))
        accounts.drop_constraint(op.f("ck_accounts_spent_not_negative"), type_="check")
        accounts.drop_constraint("uq_accounts_quota_id_period", type_="unique")
        accounts.drop_constraint("fk_accounts_quota_id", type_="foreignkey")
    for name in MOVED:
        op.execute(
            f'UPDATE accounts SET "{name}" = (SELECT "{name}" FROM quotas WHERE quotas.id = accounts.quota_id)'  # noqa: S608
        )
    with op.batch_alter_table("accounts") as accounts:
        for name in ("scope", "unit", "window"):
            accounts.alter_column(name, existing_type=sa.String(32), nullable=False)
        accounts.alter_column("model", existing_type=sa.Text(), nullable=False)
        accounts.alter_column("scope_id", existing_type=sa.Uuid(), nullable=False)
        accounts.drop_column("quota_id")
        accounts.create_check_constraint(op.f("ck_accounts_balance_not_negative"), "balance >= 0")
        accounts.create_unique_constraint(
            "uq_accounts_identity", ["tenant_id", "scope", "scope_id", "unit", "window", "model", "period"]
        )
