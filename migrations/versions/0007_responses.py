"""Whether a provider has the Responses API, and the settings that an answer was asked with.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("providers") as table:
        table.add_column(sa.Column("responses", sa.Boolean(), nullable=True))
    with op.batch_alter_table("messages") as table:
        table.add_column(sa.Column("settings", JSON, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("messages") as table:
        table.drop_column("settings")
    with op.batch_alter_table("providers") as table:
        table.drop_column("responses")
