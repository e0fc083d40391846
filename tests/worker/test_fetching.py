"""Fits over points that stay in files of others: the same numbers, in bounded memory, and why they end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from service.errors import Unavailable
from service.mixture.blocked_points import in_memory
from service.storage.dataset_store import DatasetStore
from service.storage.parquet_folder import ParquetFolder
from service.storage.queue import Claim
from service.storage.surveys import survey
from service.worker import fetching
from service.worker.messages import Ended, Failed, Succeeded
from tests.worker.test_fitting import _claim, _run
from tests.worker.test_mapped_fits import _Highest

GROUP_ROWS = 500
POINTS = np.concatenate(
    [np.random.default_rng(place).normal(place, 1.0, (1000 + place, 3)) for place in (0, 7, 20)]
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "shared"
    made.mkdir()
    return made


@pytest.fixture
def near(tmp_path: Path, folder: Path) -> DatasetStore:
    """A store that may read the folder, and keep three row groups of it."""
    return DatasetStore(tmp_path / "datasets", "", 1, f"file://{folder}", 3 * GROUP_ROWS * 3 * 8)


@pytest.fixture(autouse=True)
def _every_dataset_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.mixture.memory.LARGEST_COPIED_BYTES", 1)


def write(folder: Path, points: Any = POINTS, n_files: int = 2, group_rows: int = GROUP_ROWS) -> None:
    for number, part in enumerate(np.array_split(points, n_files)):
        columns = {f"x{index}": column for index, column in enumerate(part.T)}
        pq.write_table(pa.table(columns), folder / f"{number}.parquet", row_group_size=group_rows)


def claim_of(store: DatasetStore, folder: Path, **fields: Any) -> Claim:
    found = survey(store.foreign(f"file://{folder}"), None)
    claim = _claim(store, POINTS, n_components=3, n_init=2, **fields)
    files = [vars(file) for file in found.files]
    return replace(claim, url=found.url, files=files, columns=found.columns, dataset_sha256=found.sha256)


def failure(ended: Ended) -> tuple[str, str]:
    assert isinstance(ended, Failed), ended
    return ended.code, ended.message


@pytest.mark.parametrize("weighted", [False, True])
def test_a_fit_comes_to_the_numbers_of_stored_points(
    near: DatasetStore, folder: Path, weighted: bool
) -> None:
    write(folder)
    weights = np.arange(len(POINTS)) % 3.0 if weighted else None
    stored = _claim(near, POINTS, weights, n_components=3, n_init=2)
    expected = _run(stored, near)
    by_url = replace(claim_of(near, folder), weights_sha256=stored.weights_sha256)
    found = _run(by_url, near)
    assert isinstance(expected, Succeeded)
    assert isinstance(found, Succeeded)
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(found.parameters[name], expected.parameters[name], rtol=1e-12, atol=1e-12)


def test_a_rank_reads_its_own_row_groups(near: DatasetStore, folder: Path) -> None:
    write(folder)
    claim = claim_of(near, folder)
    points = ParquetFolder(
        near.foreign(claim.url or ""), survey(near.foreign(claim.url or ""), None).files, claim.columns or []
    )
    read: list[int] = []
    whole = points.row_group
    points.row_group = lambda number: (read.append(number), whole(number))[1]  # type: ignore[method-assign]
    for offset, n_rows in ((0, 1200), (1200, 800), (2000, len(POINTS) - 2000), (499, 2), (500, 1)):
        read.clear()
        share = fetching.fetched(points, 1 << 30, offset, n_rows)
        assert torch.equal(in_memory(share), torch.from_numpy(POINTS[offset : offset + n_rows].T))
        touched = np.flatnonzero((points.starts[:-1] < offset + n_rows) & (points.starts[1:] > offset))
        assert read == touched.tolist()


def test_numbers_that_are_none_fail_the_fit_where_they_are(near: DatasetStore, folder: Path) -> None:
    points = POINTS.copy()
    points[-1, 2] = np.inf
    write(folder, points)
    code, message = failure(_run(claim_of(near, folder), near))
    assert code == "INVALID_POINTS"
    assert "row group 3 of 1.parquet: column 'x2' of point" in message


def test_files_that_change_under_a_fit_end_it(near: DatasetStore, folder: Path) -> None:
    write(folder)

    def change(_: Any) -> None:
        write(folder, POINTS * 1.5)

    code, message = failure(_run(claim_of(near, folder, tolerance=0, max_steps=50), near, change))
    assert (code, "register the URL again" in message) == ("DATASET_CHANGED", True)


def test_a_prefix_that_is_no_longer_allowed_ends_the_fit(near: DatasetStore, folder: Path) -> None:
    write(folder)
    claim = claim_of(near, folder)
    code, _ = failure(_run(claim, DatasetStore(folder.parent / "datasets", "", 1, "s3://elsewhere")))
    assert code == "URL_NOT_ALLOWED"


def test_a_store_that_is_away_is_asked_again(
    near: DatasetStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder)
    claim = claim_of(near, folder, max_steps=3)
    away = Unavailable("STORE_UNAVAILABLE", "The store does not answer.")
    outages = [away, away]
    original = ParquetFolder.row_group

    def row_group(self: ParquetFolder, number: int) -> Any:
        if outages:
            raise outages.pop()
        return original(self, number)

    monkeypatch.setattr(ParquetFolder, "row_group", row_group)
    monkeypatch.setattr(fetching, "PAUSES_SECONDS", (0.0, 0.0))
    assert isinstance(_run(claim, near), Succeeded)
    outages += [away] * 3
    assert failure(_run(claim, near))[0] == "STORE_UNAVAILABLE"


def test_memory_does_not_grow_with_the_folder(tmp_path: Path, folder: Path) -> None:
    n_features, n_rows = 16, 40_000
    rows = np.random.default_rng(1).standard_normal((n_rows, n_features))
    rows[: n_rows // 2] += 9
    write(folder, rows, n_files=1, group_rows=n_rows)
    store = DatasetStore(tmp_path / "datasets", "", 1, f"file://{folder}", 2 * rows.nbytes)
    claim = claim_of(store, folder, max_steps=1, tolerance=0)
    claim.request.update(n_components=2, n_init=1)

    def highest(n_files: int) -> int:
        """The most memory during a fit over so many files, which are one and the same."""
        sizes = {"n_samples": n_files * n_rows, "n_features": n_features}
        with _Highest() as memory:
            ended = _run(replace(claim, files=(claim.files or []) * n_files, **sizes), store)
        assert isinstance(ended, Succeeded)
        return memory.bytes

    few = highest(8)  # as many as are kept, with those in hand
    assert highest(36) - few < 28 * rows.nbytes / 2
