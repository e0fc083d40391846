"""A dataset that stays where it is: the row groups of the Parquet files below a URL."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from service.codecs.points import InvalidPoints, Rows
from service.codecs.row_groups import Footer, read_footer, read_row_group
from service.errors import Conflict, Unprocessable
from service.storage.foreign_files import ForeignFiles, Opened

_KEPT_FOOTERS = 64


@dataclass(frozen=True)
class ForeignFile:
    """A file as it was when its dataset was registered.

    Attributes:
        name: Below the dataset's URL; empty where that is the file's own.
        size_bytes: Its length.
        version: Its ETag, or when it was last written.
        footer_sha256: Of its footer.
        n_rows: Of each of its row groups.
    """

    name: str
    size_bytes: int
    version: str
    footer_sha256: str
    n_rows: list[int]

    @property
    def called(self) -> str:
        """What it is called in an error."""
        return self.name[-200:] or "the file"


class ParquetFolder:
    """The points of such a dataset, read where they are and never stored.

    What is handed out is what was registered: a file is looked at again when a row group of it has been read,
    and one that has changed is refused. Every call that reads may raise `Conflict` (DATASET_CHANGED),
    `Unprocessable` (INVALID_POINTS) or `Unavailable`. Safe to share between threads.

    Attributes:
        n_rows: N.
        n_columns: D.
        starts: (B + 1,), the number of each row group's first point, then N.
    """

    def __init__(self, foreign: ForeignFiles, files: Sequence[ForeignFile], columns: Sequence[str]) -> None:
        self._foreign = foreign
        self._columns = list(columns)
        groups = [(file, group) for file in files for group, n_rows in enumerate(file.n_rows) if n_rows]
        self._groups = groups
        sizes = [file.n_rows[group] for file, group in groups]
        self.starts: NDArray[np.int64] = np.cumsum([0, *sizes], dtype=np.int64)
        self.n_rows, self.n_columns = int(self.starts[-1]), len(columns)
        self._footers: OrderedDict[str, Footer] = OrderedDict()
        self._lock = Lock()

    def row_group(self, number: int) -> NDArray[np.float64]:
        """Returns the points (D, n) of one row group, counted from 0 over all files."""
        whole = np.empty((self.n_columns, int(self.starts[number + 1] - self.starts[number])))
        start = 0
        for rows in self._read(number):
            whole[:, start : start + len(rows)] = rows.T
            start += len(rows)
        return whole

    def at(self, places: NDArray[np.int64]) -> Rows:
        """Returns the points (n, D) at these places, which must rise."""
        group_of = np.searchsorted(self.starts, places, side="right") - 1
        parts = []
        for number in np.unique(group_of).tolist():
            start = int(self.starts[number])
            for rows in self._read(number):
                parts.append(rows[places[(places >= start) & (places < start + len(rows))] - start])
                start += len(rows)
        return np.concatenate(parts)

    def rows(self, offset: int = 0, limit: int | None = None) -> Iterator[Rows]:
        """Returns what yields points (n, D) from `offset` on, `limit` of them; the first are read now."""
        stop = self.n_rows if limit is None else min(self.n_rows, offset + limit)
        pieces = self._run(offset, stop)
        first = next(pieces, None)
        return iter(()) if first is None else chain([first], pieces)

    def _run(self, offset: int, stop: int) -> Iterator[Rows]:
        first = int(np.searchsorted(self.starts, offset, side="right")) - 1
        for number in range(first, len(self._groups)):
            start = int(self.starts[number])
            if start >= stop:
                return
            for rows in self._read(number):
                piece = rows[max(offset - start, 0) : max(stop - start, 0)]
                if len(piece):
                    yield piece
                start += len(rows)

    def _read(self, number: int) -> Iterator[Rows]:
        file, group = self._groups[number]
        with readable(file, group), self._unchanged(file) as opened:
            yield from read_row_group(opened.file, self._footer(file, opened), group, self._columns)
        with self._unchanged(file):  # it was all along, then
            pass

    @contextmanager
    def _unchanged(self, file: ForeignFile) -> Iterator[Opened]:
        try:
            with self._foreign.open(file.name) as opened:
                if (opened.size_bytes, opened.version) != (file.size_bytes, file.version):
                    raise _changed(file)
                yield opened
        except FileNotFoundError:
            raise _changed(file) from None

    def _footer(self, file: ForeignFile, opened: Opened) -> Footer:
        with self._lock:
            footer = self._footers.get(file.name)
        if footer is None:
            footer = read_footer(opened.file, opened.size_bytes)
            if footer.sha256 != file.footer_sha256:
                raise _changed(file)
        with self._lock:
            self._footers[file.name] = footer
            self._footers.move_to_end(file.name)
            if len(self._footers) > _KEPT_FOOTERS:
                self._footers.popitem(last=False)
        return footer


@contextmanager
def readable(file: ForeignFile, group: int | None = None) -> Iterator[None]:
    """Refuses what cannot be points, naming the file and the row group.

    Raises:
        Unprocessable: There is some (INVALID_POINTS).
    """
    try:
        yield
    except InvalidPoints as error:
        place = "" if group is None else f"row group {group} of "
        raise Unprocessable(
            f"The points cannot be taken: in {place}{file.called}: {error}.", code="INVALID_POINTS"
        ) from error


def _changed(file: ForeignFile) -> Conflict:
    return Conflict(
        "DATASET_CHANGED",
        f"{file.called} is not what it was when the dataset was registered; register the URL again.",
    )
