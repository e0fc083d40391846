"""Datasets whose points stay in files of others

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
    """Applies the change."""
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("url", sa.String(length=1024), nullable=True))
        batch_op.add_column(sa.Column("files", sa.JSON(none_as_null=True), nullable=True))
        batch_op.alter_column("statistics", existing_type=sa.JSON(none_as_null=True), nullable=True)


def downgrade() -> None:
    """Undoes the change; such datasets are forgotten, their files left alone."""
    op.execute("DELETE FROM datasets WHERE url IS NOT NULL")
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.alter_column("statistics", existing_type=sa.JSON(none_as_null=True), nullable=False)
        batch_op.drop_column("files")
        batch_op.drop_column("url")
