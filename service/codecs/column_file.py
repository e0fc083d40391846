"""Columns of numbers in a file: uncompressed Arrow IPC, whose record batches are read as they lie."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BATCH_ROWS = 65_536


class ColumnFileWriter:
    """Writes rows, column by column within each record batch.

    Args:
        path: The file to make.
        n_columns: C.
        dtype: `float64` or `int64`, the type of every column.
    """

    def __init__(self, path: Path, n_columns: int, dtype: str) -> None:
        self._dtype = np.dtype(dtype)
        self._schema = pa.schema([(f"c{i}", pa.from_numpy_dtype(self._dtype)) for i in range(n_columns)])
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, self._schema)

    def append(self, rows: NDArray[Any]) -> None:
        """Adds rows (n, C)."""
        for start in range(0, len(rows), BATCH_ROWS):
            columns = np.ascontiguousarray(rows[start : start + BATCH_ROWS].T, dtype=self._dtype)
            self._writer.write_batch(
                pa.record_batch([pa.array(column) for column in columns], schema=self._schema)
            )

    def close(self) -> None:
        """Writes the footer and closes the file."""
        self._writer.close()
        self._sink.close()

    def abandon(self) -> None:
        """Closes the file as it is, without writing more; after `close` it does nothing."""
        self._sink.close()


class ColumnFile:
    """A memory-mapped file of columns.

    Attributes:
        n_rows: N.
        n_columns: C.
    """

    def __init__(self, path: Path) -> None:
        self._reader = pa.ipc.open_file(pa.memory_map(str(path), "r"))
        self.n_columns = len(self._reader.schema)
        self._lengths = [self._reader.get_batch(i).num_rows for i in range(self._reader.num_record_batches)]
        self.n_rows = sum(self._lengths)

    def columns(self) -> NDArray[Any]:
        """Returns all values (C, N), copied feature by feature from the mapped pages."""
        dtype = self._reader.schema.field(0).type.to_pandas_dtype()
        whole = np.empty((self.n_columns, self.n_rows), dtype=dtype)
        start = 0
        for index, length in enumerate(self._lengths):
            for column, values in enumerate(self._reader.get_batch(index).columns):
                whole[column, start : start + length] = values.to_numpy()
            start += length
        return whole

    def rows(self, offset: int = 0, limit: int | None = None) -> Iterator[NDArray[Any]]:
        """Yields rows (n, C) from `offset` on, batch by batch, `limit` of them in all."""
        stop = self.n_rows if limit is None else min(self.n_rows, offset + limit)
        start = 0
        for index, length in enumerate(self._lengths):
            first, last = max(offset - start, 0), min(stop - start, length)
            if first < last:
                batch = self._reader.get_batch(index).slice(first, last - first)
                yield np.stack([column.to_numpy() for column in batch.columns], axis=1)
            start += length
