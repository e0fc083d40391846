"""What is removed because it is old, or because a process was killed before it could do so itself.

Each of these works in small transactions, may be stopped or killed between any two, and may run in several
processes at once.
"""

from collections.abc import Iterator
from itertools import islice

from sqlalchemy import delete, select

from service.storage import datasets
from service.storage.columns import now_plus
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.tables import DatasetRow, FitRow, IdempotencyKeyRow

_BATCH = 200


def remove_ended_fits(database: Database, store: DatasetStore, older_than_seconds: float) -> int:
    """Returns how many fits it removed that ended longer ago than this, with their events and weights.

    Their mixtures and datasets stay.
    """
    n_removed = 0
    old = select(FitRow.id).where(FitRow.finished_at < now_plus(-older_than_seconds)).limit(_BATCH)
    while True:
        with database.write() as session:
            ids = list(session.scalars(old.with_for_update(skip_locked=True)))
            weights = session.scalars(
                select(FitRow.weights_sha256).where(FitRow.id.in_(ids), FitRow.weights_sha256.is_not(None))
            ).all()
            session.execute(delete(FitRow).where(FitRow.id.in_(ids)))
        for sha256 in weights:
            datasets.remove_unused(database, store, sha256 or "")
        n_removed += len(ids)
        if len(ids) < _BATCH:
            return n_removed


def remove_old_keys(database: Database, kept_seconds: float) -> int:
    """Returns how many idempotency keys it removed that were first used longer ago than this."""
    n_removed = 0
    old = select(IdempotencyKeyRow.key).where(IdempotencyKeyRow.created_at < now_plus(-kept_seconds))
    while True:
        with database.write() as session:
            keys = list(session.scalars(old.limit(_BATCH).with_for_update(skip_locked=True)))
            session.execute(delete(IdempotencyKeyRow).where(IdempotencyKeyRow.key.in_(keys)))
        n_removed += len(keys)
        if len(keys) < _BATCH:
            return n_removed


def sweep(database: Database, store: DatasetStore, older_than_seconds: float) -> int:
    """Returns how many files it removed that nothing refers to, and that nobody has written to for a while.

    Killed processes leave them: between a file's publication and its row's commit, between a row's deletion
    and that of its file, or with a draft in hand.
    """
    store.discard_old_drafts(older_than_seconds)
    n_removed = 0
    files = store.contents(older_than_seconds)
    while batch := list(islice(files, _BATCH)):
        for sha256 in _unreferred(database, batch):
            # Asked again under the content's lock: it may be in use by now.
            n_removed += datasets.remove_unused(database, store, sha256)
    return n_removed


def _unreferred(database: Database, contents: list[str]) -> Iterator[str]:
    with database.read() as session:
        referred = {
            sha256
            for column in (DatasetRow.sha256, DatasetRow.components_sha256, FitRow.weights_sha256)
            for sha256 in session.scalars(select(column).where(column.in_(contents)))
        }
    return (sha256 for sha256 in contents if sha256 not in referred)
