"""The dataset store: content hashes, statistics, and drafts that leave nothing behind."""

import errno
import os
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from service.codecs.column_file import batch_rows
from service.errors import ServiceError
from service.storage import dataset_store
from service.storage.dataset_store import DatasetStore
from service.storage.feature_moments import FeatureMoments
from tests.storage.making import written

POINTS = np.random.default_rng(0).normal([0.0, 1e6, -3.0], [1.0, 1e-3, 1e5], (1000, 3))


def _files(store: DatasetStore, tmp_path: Path) -> list[Path]:
    del store
    return [path for path in (tmp_path / "datasets").rglob("*") if path.is_file()]


def _sha256(store: DatasetStore, *chunks: ArrayLike, dtype: str = "float64") -> str:
    first = np.asarray(chunks[0])
    with store.draft(first.shape[1], dtype) as draft:
        for chunk in chunks:
            draft.append(np.asarray(chunk, dtype=dtype))
        draft.finish()
        return draft.sha256


@pytest.mark.parametrize("sizes", [[1000], [1, 999], [999, 1], [1] * 1000, [333, 0, 667]])
def test_a_hash_does_not_depend_on_the_chunks(store: DatasetStore, sizes: list[int]) -> None:
    chunks = np.split(POINTS, np.cumsum(sizes)[:-1])
    assert _sha256(store, *chunks) == _sha256(store, POINTS)


def test_a_hash_does_not_depend_on_the_layout_in_memory(store: DatasetStore) -> None:
    same = (np.asfortranarray(POINTS), np.repeat(POINTS, 2, axis=0)[::2], POINTS.astype(">f8"))
    for points in same:
        assert _sha256(store, points) == _sha256(store, POINTS)


@pytest.mark.parametrize(
    ("one", "dtype", "other", "other_dtype"),
    [
        ([[1.0, 2.0]], "float64", [[1.0], [2.0]], "float64"),
        ([[1.0, 2.0]], "float64", [[2.0, 1.0]], "float64"),
        ([[0.0]], "float64", [[-0.0]], "float64"),
        ([[1.0]], "float64", [[1.0 + 2**-52]], "float64"),
        # The same bytes: published as one file, one would be read as the other's type.
        ([[0.0], [0.0]], "float64", [[0], [0]], "int64"),
    ],
)
def test_other_contents_have_another_hash(
    store: DatasetStore, one: ArrayLike, dtype: str, other: ArrayLike, other_dtype: str
) -> None:
    assert _sha256(store, one, dtype=dtype) != _sha256(store, other, dtype=other_dtype)


def _statistics(
    store: DatasetStore, points: NDArray[np.float64], n_chunks: int
) -> dict[str, NDArray[np.float64]]:
    with store.draft(points.shape[1]) as draft:
        for chunk in np.array_split(points, n_chunks):
            draft.append(chunk)
        draft.finish()
        assert draft.moments is not None
        return {name: np.array(values) for name, values in draft.moments.summary().items()}


def _merged(points: NDArray[np.float64], n_chunks: int) -> dict[str, NDArray[np.float64]]:
    """The same of batches as small as these chunks."""
    moments = [FeatureMoments.of(chunk.T) for chunk in np.array_split(points, n_chunks)]
    return {
        name: np.array(values) for name, values in reduce(FeatureMoments.merged, moments).summary().items()
    }


@pytest.mark.parametrize("n_chunks", [1, 2, 7, 1000])
def test_statistics_are_numpys(n_chunks: int) -> None:
    found = _merged(POINTS, n_chunks)
    np.testing.assert_allclose(found["mean"], POINTS.mean(axis=0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found["standard_deviation"], POINTS.std(axis=0), rtol=1e-7)
    np.testing.assert_array_equal(found["minimum"], POINTS.min(axis=0))
    np.testing.assert_array_equal(found["maximum"], POINTS.max(axis=0))


@pytest.mark.parametrize("n_chunks", [1, 3])
@pytest.mark.parametrize("exponent", [-1060, -600, 0, 600, 1015])
def test_statistics_hold_at_every_scale(exponent: int, n_chunks: int) -> None:
    """Standard deviations whose squares leave the range of doubles come out all the same."""
    points = np.random.default_rng(1).normal(3.0, 1.0, (100, 2))
    found = _merged(np.ldexp(points, exponent), n_chunks)
    # Near the smallest double there are few digits.
    precision = {"rtol": 1e-12} if exponent > -1000 else {"rtol": 0.1}
    np.testing.assert_allclose(np.ldexp(found["mean"], -exponent), points.mean(axis=0), **precision)
    np.testing.assert_allclose(
        np.ldexp(found["standard_deviation"], -exponent), points.std(axis=0), **precision
    )


@pytest.mark.parametrize("n_chunks", [1, 3])
def test_points_that_are_all_alike_have_no_spread(n_chunks: int) -> None:
    found = _merged(np.full((9, 1), 0.1), n_chunks)
    assert found["standard_deviation"] == pytest.approx([0.0], abs=1e-17)
    assert found["mean"] == pytest.approx([0.1], rel=1e-15)


@pytest.mark.parametrize("n_features", [1, 3, 200])
def test_statistics_of_a_stored_set_are_of_all_its_batches(store: DatasetStore, n_features: int) -> None:
    n_rows = 2 * batch_rows(n_features) + 100
    points = np.random.default_rng(2).normal(5.0, np.arange(1, n_features + 1), (n_rows, n_features))
    points[[0, -1], 0] = -100.0, 100.0
    found, expected = _statistics(store, points, 7), _merged(points, 1)
    np.testing.assert_allclose(found["mean"], points.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["standard_deviation"], points.std(axis=0), rtol=1e-12)
    for name in ("minimum", "maximum"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert (found["minimum"][0], found["maximum"][0]) == (-100.0, 100.0)


def test_the_largest_doubles_have_a_mean() -> None:
    largest = np.finfo(float).max
    found = _merged(np.full((4, 1), largest), 2)
    assert found["mean"] == pytest.approx([largest])
    assert found["standard_deviation"] == pytest.approx([0.0])


def test_what_was_published_is_read_as_it_was_written(store: DatasetStore) -> None:
    with store.draft(3) as draft:
        written(draft, POINTS)
        store.publish(draft)
    np.testing.assert_array_equal(store.open(draft.sha256).columns(), POINTS.T)


def test_a_draft_is_gone_after_its_block(store: DatasetStore, tmp_path: Path) -> None:
    with store.draft(3) as draft:
        written(draft, POINTS)
        assert _files(store, tmp_path) == [draft.path]
    assert _files(store, tmp_path) == []


@pytest.mark.parametrize("finished", [False, True])
def test_a_draft_is_gone_after_an_exception(store: DatasetStore, tmp_path: Path, finished: bool) -> None:
    def fail() -> None:
        with store.draft(1) as draft:
            draft.append(np.ones((5, 1)))
            if finished:
                draft.finish()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert _files(store, tmp_path) == []


def test_a_full_disk_is_said_to_be_full(
    store: DatasetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_store, "new_id", lambda _: "full")
    (tmp_path / "datasets" / "drafts" / "full").symlink_to("/dev/full")
    with pytest.raises(ServiceError) as refused, store.draft(3) as draft:
        written(draft, POINTS)
    assert (refused.value.status, refused.value.code) == (507, "STORAGE_FULL")
    assert not list((tmp_path / "datasets" / "drafts").iterdir())


def test_a_file_goes_to_the_disk_while_it_grows_and_its_errors_are_told(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []

    def flush(path: Path) -> None:
        flushed.append(path)
        if len(flushed) == 1:
            raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(dataset_store, "_FLUSHED_BYTES", 5 << 20)
    monkeypatch.setattr(dataset_store, "_flush_to_disk", flush)
    chunk = np.ones((1 << 17, 3))  # of 3 MB
    with store.draft(3) as draft:
        draft.append(chunk)
        assert flushed == []
        draft.append(chunk)
        draft.flushing.shutdown(wait=True)
        assert flushed == [draft.path]
        with pytest.raises(OSError, match="input"):
            draft.finish()


def test_other_errors_of_the_disk_stay_what_they_are(store: DatasetStore) -> None:
    with pytest.raises(OSError, match="input") as raised, store.draft(1):
        raise OSError(errno.EIO, "input/output error")
    assert not isinstance(raised.value, ServiceError)


def test_only_old_drafts_are_discarded(store: DatasetStore, tmp_path: Path) -> None:
    drafts = tmp_path / "datasets" / "drafts"
    (drafts / "old").write_text("left by a process that was killed")
    os.utime(drafts / "old", (0, 0))
    with store.draft(1) as draft:
        written(draft, [[1.0]])
        store.discard_old_drafts()
        assert _files(store, tmp_path) == [draft.path]


def test_discarding_bears_drafts_that_vanish_meanwhile(store: DatasetStore, tmp_path: Path) -> None:
    # Listed, but gone when it is looked at; those before and after it are seen to all the same.
    drafts = tmp_path / "datasets" / "drafts"
    (drafts / "published meanwhile").symlink_to(tmp_path / "nowhere")
    for name in ("old", "zero"):
        (drafts / name).write_text("left by a process that was killed")
        os.utime(drafts / name, (0, 0))
    store.discard_old_drafts()
    assert [path.name for path in drafts.iterdir()] == ["published meanwhile"]


def test_removing_what_is_not_there_is_nothing(store: DatasetStore, tmp_path: Path) -> None:
    with store.draft(1) as draft:
        store.publish(written(draft, [[1.0]]))
    before = _files(store, tmp_path)
    store.remove("0" * 64)
    assert _files(store, tmp_path) == before
    assert len(before) == 1
