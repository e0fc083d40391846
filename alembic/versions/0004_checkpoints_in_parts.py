"""Checkpoints in parts, in a table of their own

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies the change; the release before goes on to use the column that it knows."""
    op.add_column("fits", sa.Column("n_checkpoints", sa.Integer(), server_default="0", nullable=False))
    op.create_table(
        "fit_checkpoint_parts",
        sa.Column("fit_id", sa.String(length=32), nullable=False),
        sa.Column("checkpoint", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("part", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last", sa.Boolean(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["fit_id"], ["fits.id"], name=op.f("fk_fit_checkpoint_parts_fit_id_fits"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("fit_id", "checkpoint", "part", name=op.f("pk_fit_checkpoint_parts")),
    )
    if op.get_bind().dialect.name == "postgresql":
        # Numbers hardly shrink: to try takes longer than to write them.
        op.execute("ALTER TABLE fit_checkpoint_parts ALTER COLUMN data SET STORAGE EXTERNAL")


def downgrade() -> None:
    """Undoes the change; fits that run begin anew should their worker be lost."""
    op.drop_table("fit_checkpoint_parts")
    with op.batch_alter_table("fits", schema=None) as batch_op:
        batch_op.drop_column("n_checkpoints")
