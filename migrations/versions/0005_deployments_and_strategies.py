"""Models are called at several places, within deadlines, and may be cached; chains have a strategy.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("models") as models:
        models.add_column(sa.Column("weight", sa.Integer(), nullable=False, server_default="1"))
        models.add_column(sa.Column("deployments", JSON, nullable=False, server_default="[]"))
        models.add_column(sa.Column("deadlines", JSON, nullable=False, server_default="{}"))
        models.add_column(sa.Column("cache", JSON, nullable=True))
    with op.batch_alter_table("chains") as chains:
        chains.add_column(sa.Column("strategy", sa.String(32), nullable=False, server_default="ordered"))
        chains.add_column(sa.Column("weights", JSON, nullable=False, server_default="[]"))
        chains.add_column(sa.Column("sticky", sa.Boolean(), nullable=False, server_default=sa.true()))


def downgrade() -> None:
    with op.batch_alter_table("chains") as chains:
        chains.drop_column("sticky")
        chains.drop_column("weights")
        chains.drop_column("strategy")
    with op.batch_alter_table("models") as models:
        models.drop_column("cache")
        models.drop_column("deadlines")
        models.drop_column("deployments")
        models.drop_column("weight")
