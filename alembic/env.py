"""Runs the migrations: on the connection that the service hands over, or on MIXSERVE_DATABASE_URL by hand."""

from typing import Any, Literal

from sqlalchemy import Connection

from alembic import context
from service.settings import Settings
from service.storage.columns import Array, Timestamp
from service.storage.database import Database
from service.storage.tables import Table


def _render(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """Writes our types as plain ones, so that an old migration does not change with the code."""
    if kind == "type" and isinstance(item, Timestamp):
        return 'sa.DateTime(timezone=True).with_variant(sa.Float(53), "sqlite")'
    if kind == "type" and isinstance(item, Array):
        return "sa.LargeBinary()"
    return False


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        render_item=_render,
        # SQLite alters a table by copying it.
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
    )
    context.run_migrations()


handed_over: Connection | None = context.config.attributes.get("connection")
if handed_over is not None:
    _migrate(handed_over)
else:
    with Database(Settings().resolved_database_url).rebuild() as connection:
        _migrate(connection)
