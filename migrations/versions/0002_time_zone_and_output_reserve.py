"""Tenants have a time zone, models an output reserve.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("tenants") as tenants:
        tenants.add_column(sa.Column("time_zone", sa.Text(), nullable=False, server_default="UTC"))
    with op.batch_alter_table("models") as models:
        models.add_column(sa.Column("output_reserve", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("models") as models:
        models.drop_column("output_reserve")
    with op.batch_alter_table("tenants") as tenants:
        tenants.drop_column("time_zone")
