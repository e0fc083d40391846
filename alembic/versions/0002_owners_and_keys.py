"""Owners, keys, allowances, and what watching the service needs

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LIVE = sa.text("status IN ('queued', 'running')")
OWNED = ("datasets", "fits", "mixtures")


def _timestamp() -> sa.DateTime:
    return sa.DateTime(timezone=True).with_variant(sa.Float(53), "sqlite")


def _owner() -> sa.Column[str]:
    # A default in the database: what the release before this one writes belongs to the only owner it knew.
    return sa.Column("owner", sa.String(length=64), server_default="local", nullable=False)


def upgrade() -> None:
    """Applies the change."""
    for table in OWNED:
        op.add_column(table, _owner())
        op.create_index(f"ix_{table}_owner_id", table, ["owner", "id"], unique=False)
    op.create_index(
        "ix_fits_owner_status", "fits", ["owner", "status"], sqlite_where=LIVE, postgresql_where=LIVE
    )
    op.add_column("fits", sa.Column("claimed_at", _timestamp(), nullable=True))
    op.add_column("fits", sa.Column("traceparent", sa.String(length=55), nullable=True))
    op.add_column("workers", sa.Column("figures", sa.JSON(none_as_null=True), nullable=True))
    with op.batch_alter_table("idempotency_keys", schema=None) as batch_op:
        batch_op.add_column(_owner())
        batch_op.drop_constraint("pk_idempotency_keys", type_="primary")
        batch_op.create_primary_key("pk_idempotency_keys", ["owner", "key"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", _timestamp(), nullable=False),
        sa.Column("expires_at", _timestamp(), nullable=True),
        sa.Column("revoked_at", _timestamp(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_keys_sha256")),
    )
    op.create_table(
        "request_allowances",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("tokens", sa.Double(), nullable=False),
        sa.Column("filled_at", _timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_request_allowances")),
    )
    op.create_table(
        "device_use",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "day", name=op.f("pk_device_use")),
    )


def downgrade() -> None:
    """Undoes the change; keys, allowances and the record of device use are lost, owners are forgotten."""
    for table in ("device_use", "request_allowances", "api_keys"):
        op.drop_table(table)
    # The same key of two owners would be one again; of such only the oldest can stay.
    op.execute(
        "DELETE FROM idempotency_keys WHERE EXISTS (SELECT 1 FROM idempotency_keys AS older WHERE "
        "older.key = idempotency_keys.key AND (older.created_at, older.owner) "
        "< (idempotency_keys.created_at, idempotency_keys.owner))"
    )
    with op.batch_alter_table("idempotency_keys", schema=None) as batch_op:
        batch_op.drop_constraint("pk_idempotency_keys", type_="primary")
        batch_op.drop_column("owner")
        batch_op.create_primary_key("pk_idempotency_keys", ["key"])
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.drop_column("figures")
    op.drop_index("ix_fits_owner_status", table_name="fits")
    for table in OWNED:
        op.drop_index(f"ix_{table}_owner_id", table_name=table)
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("owner")
            if table == "fits":
                batch_op.drop_column("traceparent")
                batch_op.drop_column("claimed_at")
