"""Columns of numbers in a file come back as they were, in batches that can be read in part."""

import errno
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from service.codecs.column_file import BATCH_ROWS, ColumnFile, ColumnFileWriter


def _written(path: Path, *chunks: NDArray[np.generic]) -> ColumnFile:
    writer = ColumnFileWriter(path, chunks[0].shape[1], str(chunks[0].dtype))
    for chunk in chunks:
        writer.append(chunk)
    writer.close()
    return ColumnFile(path)


def _numbers(n_rows: int, n_columns: int) -> NDArray[np.float64]:
    return np.arange(n_rows * n_columns, dtype=np.float64).reshape(n_rows, n_columns) / 3


def _gathered(file: ColumnFile, offset: int = 0, limit: int | None = None) -> NDArray[np.generic]:
    parts = list(file.rows(offset, limit))
    assert all(len(part) for part in parts)
    return np.concatenate(parts) if parts else np.empty((0, file.n_columns))


@pytest.mark.parametrize("n_columns", [1, 3])
@pytest.mark.parametrize("n_rows", [1, 65_535, 65_536, 65_537, 131_073])
def test_rows_come_back_across_batches(tmp_path: Path, n_rows: int, n_columns: int) -> None:
    rows = _numbers(n_rows, n_columns)
    file = _written(tmp_path / "points", rows)
    assert (file.n_rows, file.n_columns) == (n_rows, n_columns)
    np.testing.assert_array_equal(file.columns(), rows.T)
    np.testing.assert_array_equal(_gathered(file), rows)
    assert max(len(part) for part in file.rows()) <= BATCH_ROWS


def test_chunks_of_any_size_are_one_after_another(tmp_path: Path) -> None:
    rows = _numbers(70_000, 2)
    file = _written(tmp_path / "points", *np.split(rows, [1, 1, 5, 65_600]))
    np.testing.assert_array_equal(file.columns(), rows.T)
    np.testing.assert_array_equal(_gathered(file), rows)


@pytest.mark.parametrize("number", [0, errno.EOPNOTSUPP, errno.ENOSPC])
def test_room_is_made_ahead_of_a_growing_file_if_there_is_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Nothing of it is left at the end, also where it was made in part."""
    asked: list[tuple[int, int]] = []
    allocate = os.posix_fallocate

    def made(descriptor: int, offset: int, size: int) -> None:
        asked.append((offset, size))
        allocate(descriptor, offset, size)
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", made)
    rows = _numbers(4 * BATCH_ROWS + 1, 2)
    file = _written(tmp_path / "points", rows)
    assert len(asked) == 3  # twice as much each time
    np.testing.assert_array_equal(file.columns(), rows.T)
    assert (tmp_path / "points").stat().st_size < rows.nbytes + (1 << 14)


@pytest.mark.parametrize("places", [[0], [5, 6, 65_535, 65_536, 69_999], [65_536], list(range(70_000))])
def test_rows_at_places_across_batches(tmp_path: Path, places: list[int]) -> None:
    rows = _numbers(70_000, 2)
    file = _written(tmp_path / "points", rows)
    np.testing.assert_array_equal(file.at(np.array(places)), rows[places])


@pytest.mark.parametrize("limit", [None, 0, 1, 7, 65_536, 10**9])
@pytest.mark.parametrize("offset", [0, 1, 65_535, 65_536, 65_540, 69_999, 70_000, 10**9])
def test_a_part_of_the_rows_is_read(tmp_path: Path, offset: int, limit: int | None) -> None:
    rows = _numbers(70_000, 2)
    file = _written(tmp_path / "points", rows[:10], rows[10:])
    stop = None if limit is None else offset + limit
    np.testing.assert_array_equal(_gathered(file, offset, limit), rows[offset:stop])


def test_numbers_come_back_bit_by_bit(tmp_path: Path) -> None:
    largest, smallest = np.finfo(float).max, np.nextafter(0.0, 1.0)
    rows = np.array([[0.0, -0.0], [np.inf, -np.inf], [np.nan, 0.1 + 0.2], [largest, -smallest]])
    file = _written(tmp_path / "points", rows)
    assert file.columns().tobytes() == np.ascontiguousarray(rows.T).tobytes()
    assert _gathered(file).tobytes() == rows.tobytes()


def test_integers_stay_integers(tmp_path: Path) -> None:
    rows = np.array([[2**63 - 1], [-(2**63)], [2**53 + 1]], dtype=np.int64)
    file = _written(tmp_path / "labels", rows)
    assert file.columns().dtype == np.int64
    np.testing.assert_array_equal(file.columns(), rows.T)
    np.testing.assert_array_equal(_gathered(file), rows)


@pytest.mark.parametrize("layout", ["C", "F"])
def test_layouts_in_memory_do_not_matter(tmp_path: Path, layout: str) -> None:
    rows = _numbers(100, 3)
    file = _written(tmp_path / "points", np.array(rows, order=layout), rows[::2], rows[:, ::-1])  # type: ignore[call-overload]
    expected = np.concatenate([rows, rows[::2], rows[:, ::-1]])
    np.testing.assert_array_equal(_gathered(file), expected)


def test_columns_are_one_block_feature_by_feature(tmp_path: Path) -> None:
    columns = _written(tmp_path / "points", _numbers(10, 3)).columns()
    assert columns.shape == (3, 10)
    assert columns.flags.c_contiguous
    columns[0, 0] = 7.0  # a copy: the file stays as it is
    assert ColumnFile(tmp_path / "points").columns()[0, 0] == 0.0


def test_a_file_without_rows_has_its_columns(tmp_path: Path) -> None:
    file = _written(tmp_path / "points", np.empty((0, 3)))
    assert (file.n_rows, file.n_columns) == (0, 3)
    assert file.columns().shape == (3, 0)
    assert list(file.rows()) == []


def test_the_file_is_plain_arrow(tmp_path: Path) -> None:
    rows = _numbers(65_537, 2)
    _written(tmp_path / "points", rows)
    with pa.ipc.open_file(tmp_path / "points") as reader:
        assert reader.num_record_batches == 2
        table = reader.read_all()
    assert table.column_names == ["c0", "c1"]
    np.testing.assert_array_equal(table.column("c1").to_numpy(), rows[:, 1])


def test_an_open_file_outlives_its_removal(tmp_path: Path) -> None:
    rows = _numbers(10, 2)
    file = _written(tmp_path / "points", rows)
    (tmp_path / "points").unlink()
    np.testing.assert_array_equal(file.columns(), rows.T)


def test_what_was_abandoned_is_no_file(tmp_path: Path) -> None:
    writer = ColumnFileWriter(tmp_path / "points", 1, "float64")
    writer.append(_numbers(3, 1))
    writer.abandon()
    writer.abandon()
    with pytest.raises(ValueError, match="empty file"):
        ColumnFile(tmp_path / "points")
