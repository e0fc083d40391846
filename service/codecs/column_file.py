"""Columns of numbers in a file: uncompressed Arrow IPC, whose record batches are read as they lie."""

import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BATCH_ROWS = 65_536
_BATCH_NUMBERS = 1 << 20
# A file is given room for as much again as it has, up to so much: had at once, it costs less.
_MOST_AHEAD_BYTES = 64 << 20
# Torch wants memory that may be written to, and a write must not reach the file. Without MAP_NORESERVE, which
# not every Python has a name for, the kernel would refuse to map so what is larger than its memory.
_PRIVATE = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000)


def batch_rows(n_columns: int) -> int:
    """Returns how many rows a full batch of so many columns has."""
    return max(1, min(BATCH_ROWS, _BATCH_NUMBERS // n_columns))


class ColumnFileWriter:
    """Writes rows, column by column within each record batch; all batches but the last are full.

    Args:
        path: The file to make.
        n_columns: C.
        dtype: `float64` or `int64`, the type of every column.

    Attributes:
        saw: Is shown the values (C, n) of every batch before it is written; they are not to be kept.
    """

    def __init__(self, path: Path, n_columns: int, dtype: str) -> None:
        self.saw: Callable[[NDArray[Any]], None] | None = None
        kind = np.dtype(dtype)
        self._schema = pa.schema([(f"c{i}", pa.from_numpy_dtype(kind)) for i in range(n_columns)])
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, self._schema)
        self._batch = np.empty((n_columns, batch_rows(n_columns)), dtype=kind)
        self._filled = 0
        self._n_allocated = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Adds rows (n, C)."""
        start = 0
        while start < len(rows):
            stop = min(len(rows), start + self._batch.shape[1] - self._filled)
            self._batch[:, self._filled : self._filled + stop - start] = rows[start:stop].T
            self._filled += stop - start
            start = stop
            if self._filled == self._batch.shape[1]:
                self._write()

    def _write(self) -> None:
        values = self._batch[:, : self._filled]
        if self.saw is not None:
            self.saw(values)
        self._make_room()
        columns = [pa.array(column) for column in values]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._filled = 0

    def _make_room(self) -> None:
        """Has the file system find room ahead; where it cannot, writing finds it, or says why not."""
        written = self._sink.tell()
        ahead = min(written, _MOST_AHEAD_BYTES)
        if ahead < self._batch.nbytes or written + self._batch.nbytes <= self._n_allocated:
            return
        if not hasattr(os, "posix_fallocate"):  # macOS has none
            return
        self._n_allocated = written + ahead  # where it fails, too: it is not asked again for every batch
        try:
            os.posix_fallocate(self._sink.fileno(), written, ahead)
        except OSError:
            os.ftruncate(self._sink.fileno(), written)  # or it would keep from others the little that is left

    def close(self) -> None:
        """Writes the footer and closes the file."""
        if self._filled:
            self._write()
        self._writer.close()
        if self._n_allocated:
            os.ftruncate(self._sink.fileno(), self._sink.tell())
        self._sink.close()

    def abandon(self) -> None:
        """Closes the file as it is, without writing more; after `close` it does nothing."""
        self._sink.close()


@dataclass(frozen=True)
class Layout:
    """Where the numbers of a mapped file of doubles are.

    Number c of row n, in batch b with starts[b] <= n < starts[b + 1], is
    `numbers[offsets[b] + c * strides[b] + n - starts[b]]`.

    Attributes:
        numbers: The whole file as doubles, heads of batches and all; writing to it changes no file.
        starts: (B + 1,) int64, the number of each batch's first row, then of all rows.
        offsets: (B,) int64.
        strides: (B,) int64.
    """

    numbers: NDArray[np.float64]
    starts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    strides: NDArray[np.int64]


class ColumnFile:
    """A memory-mapped file of columns.

    Attributes:
        n_rows: N.
        n_columns: C.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, _PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        self._buffer = pa.py_buffer(self._map)
        self._reader = pa.ipc.open_file(self._buffer)
        self.n_columns = len(self._reader.schema)
        self._lengths = [self._reader.get_batch(i).num_rows for i in range(self._reader.num_record_batches)]
        self.n_rows = sum(self._lengths)

    def columns(self, offset: int = 0, limit: int | None = None) -> NDArray[Any]:
        """Returns the values (C, n) from row `offset` on, copied feature by feature from the mapped pages."""
        dtype = self._reader.schema.field(0).type.to_pandas_dtype()
        runs = list(self._runs(offset, limit))
        whole = np.empty((self.n_columns, sum(last - first for _, first, last in runs)), dtype=dtype)
        start = 0
        for index, first, last in runs:
            for column, values in enumerate(self._reader.get_batch(index).columns):
                whole[column, start : start + last - first] = values.to_numpy()[first:last]
            start += last - first
        return whole

    def layout(self, offset: int = 0, limit: int | None = None) -> Layout:
        """Returns where the values from row `offset` on are, to be looked at without a copy."""
        numbers = np.frombuffer(self._map, np.float64, len(self._map) // 8)
        places, lengths = [], []
        for index, first, last in self._runs(offset, limit):
            batch = self._reader.get_batch(index)
            addresses = [batch.column(c).buffers()[1].address for c in range(min(2, self.n_columns))]
            places.append([(address - self._buffer.address) // 8 + first for address in addresses])
            lengths.append(last - first)
        offsets = np.array([place[0] for place in places], np.int64)
        strides = np.array([place[-1] - place[0] for place in places], np.int64)
        return Layout(numbers, np.cumsum([0, *lengths], dtype=np.int64), offsets, strides)

    def at(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Returns the rows (n, C) at these places, which must rise."""
        parts = []
        start = 0
        for index, length in enumerate(self._lengths):
            own = places[(places >= start) & (places < start + length)] - start
            if len(own):
                batch = self._reader.get_batch(index)
                parts.append(np.stack([column.to_numpy()[own] for column in batch.columns], axis=1))
            start += length
        return np.concatenate(parts)

    def rows(self, offset: int = 0, limit: int | None = None) -> Iterator[NDArray[Any]]:
        """Yields rows (n, C) from `offset` on, batch by batch, `limit` of them in all."""
        for index, first, last in self._runs(offset, limit):
            batch = self._reader.get_batch(index).slice(first, last - first)
            yield np.stack([column.to_numpy() for column in batch.columns], axis=1)

    def _runs(self, offset: int, limit: int | None) -> Iterator[tuple[int, int, int]]:
        """Yields batches with the first of their rows that is meant, and the one behind the last."""
        stop = self.n_rows if limit is None else min(self.n_rows, offset + limit)
        start = 0
        for index, length in enumerate(self._lengths):
            first, last = max(offset - start, 0), min(stop - start, length)
            if first < last:
                yield index, first, last
            start += length
