"""Backups of the embedded default, an SQLite file and a folder of points, taken while the service goes on.

The database is copied as of one moment. Every file that it refers to then has a second name by that time or
gets one right after, so that what is deleted meanwhile is in the backup all the same; files never change.
"""

import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from service.errors import ServiceError
from service.storage import archives, events, migrations
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore, full_disk_is_said
from service.storage.tables import FitRow, WorkerRow

_FORMAT = 1
_DATABASE = "mixserve.sqlite3"
_POINTS = re.compile(r"points/([0-9a-f]{64})\.arrow")
_TRIES = 10
# Points of others, at a URL, stay where they are.
_REFERRED = (
    "SELECT sha256 FROM datasets WHERE source <> 'url' "
    "UNION SELECT components_sha256 FROM datasets WHERE components_sha256 IS NOT NULL "
    "UNION SELECT weights_sha256 FROM fits WHERE weights_sha256 IS NOT NULL"
)


def back_up(database_file: Path, store: DatasetStore, target: Path) -> dict[str, Any]:
    """Writes an archive of a database and its points, and returns what it says of itself.

    Raises:
        FileNotFoundError: There is no database.
        FileExistsError: There is something where the archive is to be.
        ServiceError: There is no room, or points are missing (BACKUP_INCOMPLETE).
    """
    if not database_file.is_file():
        raise FileNotFoundError(2, "there is no database", str(database_file))
    with full_disk_is_said(), tempfile.TemporaryDirectory(prefix="backup-", dir=store.drafts) as folder:
        copy = Path(folder, _DATABASE)
        points = _consistent(database_file, store, Path(folder), copy)
        about = {
            "format": _FORMAT,
            "version": version("mixserve"),
            "revision": _asked(copy, "SELECT version_num FROM alembic_version")[0],
            "created_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        files = [(_DATABASE, copy), *((f"points/{path.name}", path) for path in points)]
        archives.write(target, files, about)
    return about | {"n_files": len(points)}


def _consistent(database_file: Path, store: DatasetStore, folder: Path, copy: Path) -> list[Path]:
    """Copies the database, and returns second names of all the files that the copy refers to."""
    missing: list[str] = []
    for _ in range(_TRIES):
        for sha256 in store.contents(0.0):
            _give_second_name(store.path(sha256), folder)
        copy.unlink(missing_ok=True)
        # In one step: others may write when it has ended, or it would begin again with each write of theirs.
        with closing(sqlite3.connect(database_file)) as source, closing(sqlite3.connect(copy)) as copied:
            source.backup(copied)
        referred = _asked(copy, _REFERRED)
        missing = [sha256 for sha256 in referred if not _give_second_name(store.path(sha256), folder)]
        if not missing:
            return [folder / store.path(sha256).name for sha256 in sorted(referred)]
    # Stored and deleted between the two looks each time, or lost.
    detail = f"The database refers to points that are not in the dataset store: {missing[0]}.arrow"
    raise ServiceError("BACKUP_INCOMPLETE", 500, detail)


def _give_second_name(path: Path, folder: Path) -> bool:
    """Returns whether there is a second name of a file in a folder, by now at the latest."""
    target = folder / path.name
    try:
        os.link(path, target)
    except FileExistsError:
        return True
    except FileNotFoundError:
        return False
    except OSError:  # a file system without second names
        shutil.copyfile(path, target)
    return True


def restore(source: Path, database_file: Path, store_folder: Path) -> dict[str, Any]:
    """Brings back what an archive has, at today's schema, and returns what it says of itself.

    All is written and looked at beside where it is to be, and put in place at the very end. Fits that ran are
    queued again, and go on from their checkpoints.

    Raises:
        Damaged: The archive is none, or not as it was written.
        ValueError: It is of a later release.
    """
    with _beside(database_file) as folder, _beside(store_folder) as points, full_disk_is_said():
        files = points / "files"
        files.mkdir()

        def place(name: str) -> Path | None:
            if name == _DATABASE:
                return folder / name
            match = _POINTS.fullmatch(name)
            return None if match is None else files / match[1][:2] / f"{match[1]}.arrow"

        about = archives.read(source, place)
        copy = folder / _DATABASE
        _require_known(source, about, copy)
        missing = [sha for sha in _asked(copy, _REFERRED) if not (files / sha[:2] / f"{sha}.arrow").is_file()]
        if missing:
            raise archives.Damaged(f"{source} is damaged: it lacks points/{missing[0]}.arrow")
        with closing(Database(f"sqlite:///{copy}")) as database:
            migrations.upgrade(database)
            with database.write() as session:
                _forget_workers(session)
        store_folder.mkdir(parents=True, exist_ok=True)
        files.rename(store_folder / "files")
        copy.rename(database_file)
        os.sync()
    return about | {"n_files": len(about["sha256"]) - 1}


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".restoring-", dir=path.parent) as folder:
        yield Path(folder)


def _require_known(source: Path, about: dict[str, Any], copy: Path) -> None:
    if about.get("format") != _FORMAT or about.get("revision") not in migrations.known_revisions():
        raise ValueError(
            f"{source} is of mixserve {about.get('version')}, a later release than this; install that one"
        )
    if not copy.is_file() or _asked(copy, "PRAGMA quick_check") != ["ok"]:
        raise archives.Damaged(f"{source} is damaged: its database is none")


def _forget_workers(session: Session) -> None:
    """Queues again what ran: those who did it are no more, and have lost nothing by their fault."""
    session.execute(delete(WorkerRow))
    freed = {"token": None, "worker_id": None, "lease_expires_at": None, "claimed_at": None}
    statement = update(FitRow).where(FitRow.status == "running")
    statement = statement.values(status="queued", n_events=FitRow.n_events + 1, **freed)
    rows = session.execute(
        statement.returning(FitRow.id, FitRow.n_events).execution_options(synchronize_session=False)
    ).all()
    for fit_id, n_events in rows:
        events.record(session, fit_id, n_events, "status", {"status": "queued"})


def _asked(database_file: Path, query: str) -> list[Any]:
    """Returns the first column of what a query finds."""
    try:
        with closing(sqlite3.connect(database_file)) as connection:
            return [row[0] for row in connection.execute(query)]
    except sqlite3.DatabaseError as error:
        raise archives.Damaged(f"{database_file.name} is no database of mixserve: {error}") from error
