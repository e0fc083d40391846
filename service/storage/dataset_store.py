"""The dataset store: points in files named by their content, outside the database."""

import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from service.codecs.column_file import ColumnFile, ColumnFileWriter
from service.errors import ServiceError
from service.storage.allowed_urls import AllowedUrls
from service.storage.feature_moments import FeatureMoments
from service.storage.foreign_files import ForeignFiles
from service.storage.identifiers import new_id
from service.storage.remote_files import RemoteFiles

# A file is sent to the disk whenever it has grown by so much: at its end little is left to wait for.
_FLUSHED_BYTES = 8 << 20
# Writing takes long now and then, when a batch is full; so many chunks may wait to be hashed meanwhile.
_MOST_UNHASHED = 4


@dataclass
class Draft:
    """A file being written, not yet in the store: its content hash and statistics grow with it.

    Attributes:
        hashing: The one thread that hashes rows, while they are written.
        flushing: The one that has what is written reach the disk.
        moments: Of all points, once the draft is finished; None of whole numbers.
    """

    path: Path
    writer: ColumnFileWriter
    hashing: Executor
    flushing: Executor
    n_columns: int
    dtype: str
    n_rows: int = 0
    moments: FeatureMoments | None = None
    when_finished: Callable[["Draft"], None] | None = None
    _hash: Any = field(default_factory=hashlib.sha256)
    _hashes: deque[Future[None]] = field(default_factory=deque)
    _flushed: Future[None] | None = None
    _n_unflushed: int = 0

    def __post_init__(self) -> None:
        if self.dtype == "float64":
            self.writer.saw = self._add_moments

    def _add_moments(self, columns: NDArray[Any]) -> None:
        moments = FeatureMoments.of(columns)
        self.moments = moments if self.moments is None else self.moments.merged(moments)

    def append(self, rows: NDArray[Any]) -> None:
        """Adds rows (n, C) of the draft's type, which must stay as they are until the draft is finished."""
        if len(rows) == 0:
            return
        rows = np.ascontiguousarray(rows, dtype=self.dtype)
        little_endian = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
        self._hashes.append(self.hashing.submit(self._hash.update, little_endian))
        self._wait_for_hashes(_MOST_UNHASHED)
        self.writer.append(rows)
        self.n_rows += len(rows)
        self._n_unflushed += rows.nbytes
        if self._n_unflushed >= _FLUSHED_BYTES and (self._flushed is None or self._flushed.done()):
            self._wait_for_flush()
            self._flushed, self._n_unflushed = self.flushing.submit(_flush_to_disk, self.path), 0

    def _wait_for_hashes(self, most_left: int) -> None:
        while len(self._hashes) > most_left:
            self._hashes.popleft().result()

    def _wait_for_flush(self) -> None:
        if self._flushed is not None:
            self._flushed.result()  # an error is told to whoever sees it first, and to nobody else

    def finish(self) -> None:
        """Closes the file and waits until it is on the disk, or in the object store."""
        self.writer.close()
        self._wait_for_flush()
        _flush_to_disk(self.path)
        if self.when_finished is not None:
            self.when_finished(self)

    @property
    def sha256(self) -> str:
        """Content hash: the rows, then their shape and type; the same however they were chunked."""
        self._wait_for_hashes(0)
        whole = self._hash.copy()
        whole.update(f"{self.n_rows}x{self.n_columns} {self.dtype}".encode())
        return str(whole.hexdigest())


StorePlace = tuple[Path, str, int, str, int]
"""What a store is made from, in the order of its arguments."""


class DatasetStore:
    """Files named by content. One that is published stays as it is until removed.

    Args:
        folder: Where they are; beside an object store, where drafts are, and copies of them.
        remote_url: The object store's, if they are in one.
        cache_bytes: How much of an object store is kept in the folder.
        prefixes: Below which URLs files of others may be read, as `AllowedUrls` takes them.
        row_group_cache_bytes: How much of such files a fit may keep in memory, decoded.
    """

    def __init__(
        self,
        folder: Path,
        remote_url: str = "",
        cache_bytes: int = 1 << 34,
        prefixes: str = "",
        row_group_cache_bytes: int = 1 << 31,
    ) -> None:
        self._remote = RemoteFiles(remote_url) if remote_url else None
        self._cache_bytes = cache_bytes
        self._allowed = AllowedUrls(prefixes)
        self.row_group_cache_bytes = row_group_cache_bytes
        self._files = folder / "files"
        self._drafts = folder / "drafts"
        for part in (self._files, self._drafts):
            part.mkdir(parents=True, exist_ok=True)

    @property
    def drafts(self) -> Path:
        """The folder of what is not, or not for long, in the store; what is old there is removed."""
        return self._drafts

    def path(self, sha256: str) -> Path:
        """Returns where the content with this hash lies."""
        return self._files / sha256[:2] / f"{sha256}.arrow"

    def open(self, sha256: str) -> ColumnFile:
        """Returns the columns with this content hash; an open file outlives its removal.

        Raises:
            FileNotFoundError: There are none.
        """
        path = self.path(sha256)
        while self._remote is not None:
            with suppress(FileNotFoundError):  # another process may make room by removing it
                os.utime(path)
                return ColumnFile(path)
            self._fetch(self._remote, sha256)
        return ColumnFile(path)

    def foreign(self, url: str) -> ForeignFiles:
        """Returns the files of others at a URL.

        Raises:
            Unprocessable: It may not be read.
            Unavailable: Its store does not answer.
        """
        return ForeignFiles(self._allowed.find(url))

    def _fetch(self, remote: RemoteFiles, sha256: str) -> None:
        draft = self._drafts / new_id("drf")
        try:
            with full_disk_is_said():
                remote.get(_name(sha256), draft)
                self._place(draft, sha256)
        finally:
            draft.unlink(missing_ok=True)
        self._make_room(sha256)

    def _make_room(self, kept: str) -> None:
        """Removes the copies that were not used for the longest, until there are few enough."""
        copies = []
        for path in self._files.glob("*/*.arrow"):
            with suppress(FileNotFoundError):  # removed meanwhile
                status = path.stat()
                copies.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in copies)
        for _, size, path in sorted(copies):
            if total <= self._cache_bytes:
                return
            if path.stem != kept:
                path.unlink(missing_ok=True)
                total -= size

    def scratch(self) -> BinaryIO:
        """Returns an empty file beside the drafts that has no name, and so is gone with its process."""
        return tempfile.TemporaryFile(dir=self._drafts)

    def scratch_path(self) -> Path:
        """Returns where no file is yet; one that is made there and left behind goes with the old drafts."""
        return self._drafts / new_id("drf")

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
                with (
                    ThreadPoolExecutor(1, "hashing") as hashing,
                    ThreadPoolExecutor(1, "flushing") as flushing,
                ):
                    yield Draft(path, writer, hashing, flushing, n_columns, dtype, when_finished=self._send)
        finally:
            if writer is not None:
                writer.abandon()
            path.unlink(missing_ok=True)

    def publish(self, draft: Draft) -> None:
        """Puts a finished draft in its place; under a lock on its hash, in the referring transaction."""
        # Sent before the transaction began; looked at again, since a delete may have come between.
        self._send(draft)
        self._place(draft.path, draft.sha256)
        if self._remote is not None:
            self._make_room(draft.sha256)

    def _send(self, draft: Draft) -> None:
        if self._remote is not None and not self._remote.has(_name(draft.sha256)):
            self._remote.put(draft.path, _name(draft.sha256))

    def _place(self, draft: Path, sha256: str) -> None:
        target = self.path(sha256)
        if not target.parent.is_dir():
            target.parent.mkdir(exist_ok=True)
            _flush_to_disk(self._files)
        draft.replace(target)
        _flush_to_disk(target.parent)

    def remove(self, sha256: str) -> None:
        """Removes a file. Call it under a lock on its hash, when nothing refers to it."""
        if self._remote is not None:
            self._remote.remove(_name(sha256))
        self.path(sha256).unlink(missing_ok=True)

    def contents(self, older_than_seconds: float) -> Iterator[str]:
        """Yields the content hash of every file that was published longer ago than this."""
        if self._remote is not None:
            yield from (Path(name).stem for name in self._remote.names(older_than_seconds))
            return
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
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _name(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}.arrow"


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
