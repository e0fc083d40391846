"""Brings the schema up to date, from the package or from a checkout."""

from functools import cache
from pathlib import Path

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from alembic import command
from service.storage.database import Database

_PACKAGED = Path(__file__).parent / "alembic"
_CHECKOUT = Path(__file__).parents[2] / "alembic"
_LOCK = 0x6D69_7873_6572_7665  # "mixserve" in ASCII


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_PACKAGED if _PACKAGED.is_dir() else _CHECKOUT))
    config.attributes["connection"] = connection
    return config


@cache  # whoever asks whether the service is ready asks for it, and it is read from files
def head_revision() -> str:
    """Returns the revision that this code is written for."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "there is at least one migration"  # noqa: S101
    return head


def known_revisions() -> set[str]:
    """Returns the revisions that this code can bring up to date."""
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def current_revision(database: Database) -> str | None:
    """Returns the revision that the database is at; None when it has never been migrated."""
    with database.read() as session:
        return MigrationContext.configure(session.connection()).get_current_revision()


def upgrade(database: Database, revision: str = "head") -> None:
    """Applies every missing migration in one transaction; several processes may call it at once."""
    _run(database, command.upgrade, revision)


def downgrade(database: Database, revision: str) -> None:
    """Undoes migrations down to a revision, `base` for all of them."""
    _run(database, command.downgrade, revision)


def _run(database: Database, direction: object, revision: str) -> None:
    with database.rebuild() as connection:
        if not database.is_sqlite:
            # Another's migration may take as long as it needs; the tables' own locks are waited for briefly.
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            connection.execute(text("SET LOCAL lock_timeout TO DEFAULT"))
        direction(_config(connection), revision)  # type: ignore[operator]
