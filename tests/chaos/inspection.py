"""What is left after the killing, held against what was promised."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select

from service.storage import upkeep
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.tables import DatasetRow, FitEventRow, FitRow, MixtureRow
from tests.chaos.crowd import FINAL, Crowd

# What a fit is a function of; not the identifier of its mixture, nor how long it took.
DETERMINED = ("mixture", "outcome", "log_likelihood", "bic", "n_steps", "n_passes", "optima")


def of_rows(database: Database, crowd: Crowd, undisturbed: list[dict[str, Any]]) -> Iterator[str]:
    """Yields what is wrong with the fits, their events and their mixtures."""
    with database.read() as session:
        rows = {row.id: row for row in session.scalars(select(FitRow))}
        mixtures = {row.id: row.fit_id for row in session.scalars(select(MixtureRow))}
        events: dict[str, list[FitEventRow]] = {fit_id: [] for fit_id in rows}
        for event in session.scalars(select(FitEventRow).order_by(FitEventRow.fit_id, FitEventRow.number)):
            events[event.fit_id].append(event)
    for fit in crowd.promised:
        row = rows.get(fit.fit_id)
        if row is None:
            yield f"{fit.fit_id} was acknowledged, and is lost"
        elif row.status != "succeeded" and not (fit.cancelled and row.status == "cancelled"):
            yield f"{fit.fit_id} is {row.status}: {row.error}"
        elif row.status == "succeeded":
            found, wanted = row.result or {}, undisturbed[fit.kind]
            yield from (
                f"{fit.fit_id} (attempt {row.attempt}): {name} is {found[name]}, undisturbed {wanted[name]}"
                for name in DETERMINED
                if found[name] != wanted[name]
            )
    for row in rows.values():
        yield from _of_events(row, events[row.id])
    for key, n in Counter(row.fit_metadata.get("key") for row in rows.values()).items():
        if key is not None and n > 1:
            yield f"the key {key} made {n} fits"
    succeeded = {row.result["mixture_id"]: row.id for row in rows.values() if row.result is not None}
    if mixtures != succeeded:
        yield f"mixtures and successes differ: {set(mixtures.items()) ^ set(succeeded.items())}"


def _of_events(row: FitRow, events: list[FitEventRow]) -> Iterator[str]:
    numbers = [event.number for event in events]
    if numbers != list(range(1, row.n_events + 1)):
        yield f"{row.id} has {row.n_events} events, numbered {numbers}"
    statuses = [event.data["status"] for event in events if event.type == "status"]
    if statuses.count("running") != row.attempt:
        yield f"{row.id} says attempt {row.attempt}, and ran as {statuses}"
    if sum(status in FINAL for status in statuses) != (row.status in FINAL) or statuses[-1] != row.status:
        yield f"{row.id} is {row.status}, after {statuses}"


def of_files(database: Database, folder: Path) -> Iterator[str]:
    """Yields what is wrong with the dataset store, before and after what killed processes left is swept."""
    store = DatasetStore(folder)
    with database.read() as session:
        columns = (DatasetRow.sha256, DatasetRow.components_sha256, FitRow.weights_sha256)
        referred = {sha256 for column in columns for sha256 in session.scalars(select(column)) if sha256}
    for missing in referred - _names(folder / "files"):
        yield f"a row refers to {missing}, which is not there"
    upkeep.sweep(database, store, older_than_seconds=0.0)
    for extra in _names(folder / "files") - referred:
        yield f"nothing refers to {extra}, and the sweep left it"
    for draft in _names(folder / "drafts"):
        yield f"the draft {draft} was left over by the sweep"


def _names(folder: Path) -> set[str]:
    return {path.stem for path in folder.rglob("*") if path.is_file()}
