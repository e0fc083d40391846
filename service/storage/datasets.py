"""Datasets: rows that refer to files in the dataset store, or to files of others at a URL."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session

from service.codecs.column_file import ColumnFile
from service.errors import Conflict
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore, Draft
from service.storage.owners import everyone
from service.storage.parquet_folder import ParquetFolder
from service.storage.rows import find, newest_first
from service.storage.surveys import Survey, files_of
from service.storage.tables import LIVE, DatasetRow, FitRow


@dataclass(frozen=True)
class NewDataset:
    """What is about to become a dataset: drafts on the disk, and what to say about them."""

    points: Draft
    name: str | None = None
    columns: list[str] | None = None
    gold: dict[str, Any] | None = None
    components: Draft | None = None


def add(database: Database, store: DatasetStore, session: Session, new: NewDataset) -> DatasetRow:
    """Returns the row of a new dataset, its files published in the same transaction."""
    publish(database, store, session, new.points)
    if new.components is not None:
        publish(database, store, session, new.components)
    assert new.points.moments is not None, "a dataset has at least one point"  # noqa: S101
    row = DatasetRow(
        name=new.name,
        source="upload" if new.gold is None else "gold",
        n_samples=new.points.n_rows,
        n_features=new.points.n_columns,
        columns=new.columns,
        sha256=new.points.sha256,
        size_bytes=new.points.n_rows * new.points.n_columns * 8,
        statistics=new.points.moments.summary(),
        gold=new.gold,
        components_sha256=new.components.sha256 if new.components else None,
    )
    session.add(row)
    session.flush()
    return row


def register(session: Session, found: Survey, name: str | None) -> DatasetRow:
    """Returns the row of a new dataset whose points stay where they are."""
    row = DatasetRow(
        name=name,
        source="url",
        n_samples=found.n_samples,
        n_features=len(found.columns),
        columns=found.columns,
        sha256=found.sha256,
        size_bytes=found.size_bytes,
        statistics=None,
        url=found.url,
        files=[asdict(file) for file in found.files],
    )
    session.add(row)
    session.flush()
    return row


def points_of(store: DatasetStore, row: DatasetRow) -> ColumnFile | ParquetFolder:
    """Returns the points of a dataset that was got with its files.

    Raises:
        FileNotFoundError: They are gone from the store.
        ServiceError: They are files of others, and cannot be read.
    """
    if row.url is None:
        return store.open(row.sha256)
    return folder_of(store, row.url, row.files or [], row.columns or [])


def folder_of(
    store: DatasetStore, url: str, files: list[dict[str, Any]], columns: list[str]
) -> ParquetFolder:
    """Returns the points in files of others, from what is kept of them.

    Raises:
        ServiceError: They cannot be read.
    """
    return ParquetFolder(store.foreign(url), files_of(files), columns)


def publish(database: Database, store: DatasetStore, session: Session, draft: Draft) -> None:
    """Puts a draft in its place; the lock keeps a delete of the same content from passing between.

    A file that the session's end leaves without a row is removed again.
    """
    sha256 = draft.sha256
    database.lock(session, sha256)
    database.when_undone(session, lambda: remove_unused(database, store, sha256))
    store.publish(draft)


def get(session: Session, dataset_id: str, *, for_fit: bool = False, with_files: bool = False) -> DatasetRow:
    """Returns a dataset; `for_fit` keeps it from being deleted until the transaction ends.

    Raises:
        NotFound: There is none with this identifier.
    """
    row = find(session, DatasetRow, "dataset", dataset_id, lock={"read": True} if for_fit else None)
    if with_files and row.url is not None:
        session.refresh(row, ["files"])
    return row


def page(session: Session, page_size: int, before: str | None) -> tuple[list[DatasetRow], bool]:
    """Returns datasets, newest first, and whether more follow."""
    return newest_first(session, select(DatasetRow), DatasetRow.id, page_size, before)


def delete(database: Database, store: DatasetStore, dataset_id: str) -> None:
    """Deletes a dataset that no live fit needs, and its files when no other dataset has the same content.

    Files of others at a URL are left alone.

    The row goes first: were the process to die between, a file would stay that nothing refers to, never a
    row without its file.

    Raises:
        NotFound: There is none with this identifier.
        Conflict: A queued or running fit needs it.
    """
    with database.write() as session:
        row = find(session, DatasetRow, "dataset", dataset_id, lock=True)
        live = select(FitRow.id).where(FitRow.dataset_id == dataset_id, FitRow.status.in_(LIVE)).limit(1)
        if (fit_id := session.scalar(live)) is not None:
            raise Conflict(
                "DATASET_IN_USE", f"The fit {fit_id} still needs this dataset; cancel it or let it end."
            )
        contents = [] if row.url is not None else [row.sha256, row.components_sha256]
        session.delete(row)
    for sha256 in contents:
        if sha256 is not None:
            remove_unused(database, store, sha256)


def remove_unused(database: Database, store: DatasetStore, sha256: str) -> bool:
    """Removes a file of the store unless something of anybody's refers to it; returns whether nothing did."""
    with everyone(), database.write() as session:
        database.lock(session, sha256)
        dataset = exists().where(or_(DatasetRow.sha256 == sha256, DatasetRow.components_sha256 == sha256))
        fit = exists().where(FitRow.weights_sha256 == sha256)
        if session.scalar(select(or_(dataset, fit))):
            return False
        store.remove(sha256)
        return True
