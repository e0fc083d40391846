"""How many devices a worker has, and a fit needs

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = ("fits", "workers")


def upgrade() -> None:
    """Applies the change; what the release before this one writes has one device."""
    for table in TABLES:
        op.add_column(table, sa.Column("n_devices", sa.Integer(), server_default="1", nullable=False))


def downgrade() -> None:
    """Undoes the change; a fit that was to have several devices gets one."""
    for table in TABLES:
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("n_devices")
