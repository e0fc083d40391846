"""Limits that one owner has of its own

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies the change."""
    op.create_table(
        "owner_limits",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "owner", name=op.f("pk_owner_limits")),
    )


def downgrade() -> None:
    """Undoes the change; the settings hold for all owners again."""
    op.drop_table("owner_limits")
