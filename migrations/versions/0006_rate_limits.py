"""Rate limits of tenants, users, API keys and models.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rate_limits",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.String(32), nullable=False),
        sa.Column("scope_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("requests_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("tokens_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("parallel", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rate_limits"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_rate_limits_tenant_id"),
        sa.UniqueConstraint("scope", "scope_id", name="uq_rate_limits_scope_scope_id"),
    )
    op.create_index("ix_rate_limits_tenant_id_id", "rate_limits", ["tenant_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_rate_limits_tenant_id_id", "rate_limits")
    op.drop_table("rate_limits")
    op.execute("DELETE FROM catalog_version WHERE id = 2")
