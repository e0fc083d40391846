"""`mixserve backup` and `mixserve restore`, for what one machine keeps: an SQLite file and points."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.command_line import DataDir, fail, said_plainly, settings_from

if TYPE_CHECKING:
    from service.settings import Settings


def backup(
    archive: Annotated[
        Path, typer.Argument(help="The file to write, such as mixserve.tar.zst; not there yet.")
    ],
    data_dir: DataDir = None,
) -> None:
    """Writes all that the service keeps into one file, as of one moment; the service may go on meanwhile.

    Example: mixserve backup /backups/mixserve-monday.tar.zst --data-dir ./mixserve-data
    """
    from service.storage import backups
    from service.storage.dataset_store import DatasetStore

    settings = settings_from(data_dir)
    database_file = _database_file(settings, "backup")
    with said_plainly():
        if not database_file.is_file():
            fail(f"there is no database at {database_file}; choose another --data-dir")
        about = backups.back_up(database_file, DatasetStore(settings.dataset_store_folder), archive)
    size = archive.stat().st_size
    typer.echo(f"{archive}: {size} bytes, the database and {about['n_files']} files of points", err=True)


def restore(
    archive: Annotated[Path, typer.Argument(help="A file that `mixserve backup` wrote.")],
    data_dir: DataDir = None,
) -> None:
    """Brings back what a backup holds, into a folder that is empty or not there; an older release's too.

    Example: mixserve restore /backups/mixserve-monday.tar.zst --data-dir ./mixserve-data
    """
    from service.storage import backups

    settings = settings_from(data_dir)
    database_file = _database_file(settings, "restore")
    for place in (settings.data_dir, database_file, settings.dataset_store_folder):
        if place.is_file() or (place.is_dir() and any(place.iterdir())):
            fail(f"{place} is not empty; nothing is overwritten: move it away, or choose another --data-dir")
    if not archive.is_file():
        fail(f"there is no file {archive}")
    with said_plainly():
        about = backups.restore(archive, database_file, settings.dataset_store_folder)
    typer.echo(
        f"restored what was kept at {about['created_at']}: {about['n_files']} files of points", err=True
    )


def _database_file(settings: "Settings", command: str) -> Path:
    if not settings.resolved_database_url.startswith("sqlite"):
        fail(
            f"mixserve {command} is for the SQLite file of one machine. On PostgreSQL take pg_dump, and a "
            "copy of the dataset store: see docs/postgresql.md"
        )
    if settings.remote_store_url:
        fail(f"the points are at {settings.remote_store_url}: mixserve {command} is for those in a folder")
    return Path(settings.resolved_database_url.partition(":///")[2])
