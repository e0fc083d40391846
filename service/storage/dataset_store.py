"""The dataset store: points in files named by their content, outside the database."""

import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from service.codecs.column_file import ColumnFile, ColumnFileWriter
from service.errors import ServiceError
from service.storage.identifiers import new_id


@dataclass
class FeatureMoments:
    """Running statistics per feature, each (D,), merged chunk by chunk.

    The spread is kept as a root, since squares leave the range of doubles long before the numbers do.

    References:
        Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance.
    """

    n_samples: int
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray[np.float64]) -> "FeatureMoments":
        """Returns the moments of rows (n, D), n at least 1."""
        minimum, maximum = rows.min(axis=0), rows.max(axis=0)
        # A spread beyond the largest double comes out as infinity, which JSON spells.
        with np.errstate(over="ignore", invalid="ignore"):
            mean = rows.mean(axis=0)
            if not np.isfinite(mean).all():  # the sum overflows before the mean does
                mean = (rows / len(rows)).sum(axis=0)
            mean = np.clip(mean, minimum, maximum)
            reach = np.maximum(maximum - mean, mean - minimum)
            scaled = rows - mean
            scaled /= np.where(reach > 0, reach, 1.0)
            deviation = reach * np.sqrt(np.square(scaled, out=scaled).mean(axis=0))
        return cls(len(rows), mean, np.where(np.isinf(reach), np.inf, deviation), minimum, maximum)

    def merged(self, other: "FeatureMoments") -> "FeatureMoments":
        """Returns the moments of both sets of points together."""
        total = self.n_samples + other.n_samples
        ours, theirs = self.n_samples / total, other.n_samples / total
        minimum, maximum = np.minimum(self.minimum, other.minimum), np.maximum(self.maximum, other.maximum)
        with np.errstate(over="ignore", invalid="ignore"):
            delta = other.mean - self.mean
            mean = np.where(
                np.isfinite(delta), self.mean + delta * theirs, self.mean * ours + other.mean * theirs
            )
            within = np.hypot(self.deviation * np.sqrt(ours), other.deviation * np.sqrt(theirs))
            deviation = np.hypot(within, delta * np.sqrt(ours * theirs))
        return FeatureMoments(total, np.clip(mean, minimum, maximum), deviation, minimum, maximum)

    def summary(self) -> dict[str, list[float]]:
        """Returns lists of length D by name; the standard deviation divides by N."""
        return {
            "mean": self.mean.tolist(),
            "standard_deviation": self.deviation.tolist(),
            "minimum": self.minimum.tolist(),
            "maximum": self.maximum.tolist(),
        }


@dataclass
class Draft:
    """A file being written, not yet in the store: its content hash and statistics grow with it."""

    path: Path
    writer: ColumnFileWriter
    n_columns: int
    dtype: str
    n_rows: int = 0
    moments: FeatureMoments | None = None
    _hash: Any = field(default_factory=hashlib.sha256)

    def append(self, rows: NDArray[Any]) -> None:
        """Adds rows (n, C) of the draft's type."""
        if len(rows) == 0:
            return
        rows = np.ascontiguousarray(rows, dtype=self.dtype)
        self.writer.append(rows)
        self._hash.update(rows.astype(rows.dtype.newbyteorder("<"), copy=False))
        self.n_rows += len(rows)
        if self.dtype == "float64":
            moments = FeatureMoments.of(rows)
            self.moments = moments if self.moments is None else self.moments.merged(moments)

    def finish(self) -> None:
        """Closes the file and waits until it is on the disk."""
        self.writer.close()
        _flush_to_disk(self.path)

    @property
    def sha256(self) -> str:
        """Content hash: the rows, then their shape and type; the same however they were chunked."""
        whole = self._hash.copy()
        whole.update(f"{self.n_rows}x{self.n_columns} {self.dtype}".encode())
        return str(whole.hexdigest())


class DatasetStore:
    """A folder of files named by content. One that is published stays as it is until removed."""

    def __init__(self, folder: Path) -> None:
        self._files = folder / "files"
        self._drafts = folder / "drafts"
        for part in (self._files, self._drafts):
            part.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Returns where the content with this hash lies."""
        return self._files / sha256[:2] / f"{sha256}.arrow"

    def open(self, sha256: str) -> ColumnFile:
        """Returns the columns with this content hash."""
        return ColumnFile(self.path(sha256))

    def scratch(self) -> BinaryIO:
        """Returns an empty file beside the drafts that has no name, and so is gone with its process."""
        return tempfile.TemporaryFile(dir=self._drafts)

    @contextmanager
    def draft(self, n_columns: int, dtype: str = "float64") -> Iterator[Draft]:
        """Yields a draft, which is gone at the end of the block unless it was finished and published.

        Raises:
            ServiceError: The disk is full (STORAGE_FULL).
        """
        path = self._drafts / new_id("drf")
        writer: ColumnFileWriter | None = None
        try:
            with full_disk_is_said():
                writer = ColumnFileWriter(path, n_columns, dtype)
                yield Draft(path, writer, n_columns, dtype)
        finally:
            if writer is not None:
                writer.abandon()
            path.unlink(missing_ok=True)

    def publish(self, draft: Draft) -> None:
        """Puts a finished draft in its place; under a lock on its hash, in the referring transaction."""
        target = self.path(draft.sha256)
        if not target.parent.is_dir():
            target.parent.mkdir(exist_ok=True)
            _flush_to_disk(self._files)
        draft.path.replace(target)
        _flush_to_disk(target.parent)

    def remove(self, sha256: str) -> None:
        """Removes a file. Call it under a lock on its hash, when nothing refers to it."""
        self.path(sha256).unlink(missing_ok=True)

    def contents(self, older_than_seconds: float) -> Iterator[str]:
        """Yields the content hash of every file that was published longer ago than this."""
        limit = time.time() - older_than_seconds
        for path in self._files.glob("*/*.arrow"):
            with suppress(FileNotFoundError):  # removed meanwhile
                if path.stat().st_mtime <= limit:
                    yield path.stem

    def discard_old_drafts(self, older_than_seconds: float = 86_400.0) -> None:
        """Removes drafts that a killed process left behind."""
        limit = time.time() - older_than_seconds
        for path in self._drafts.iterdir():
            with suppress(FileNotFoundError):  # published or given up meanwhile
                if path.stat().st_mtime < limit:
                    path.unlink()


@contextmanager
def full_disk_is_said() -> Iterator[None]:
    """Says so when there is no room for what the block writes.

    Raises:
        ServiceError: The disk is full (STORAGE_FULL).
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ServiceError(
            "STORAGE_FULL", 507, "The service has no room left on its disk for points."
        ) from error


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
