"""An object store by URL: where files of points lie when machines share no folder."""

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyarrow import fs

from service.errors import Unavailable

_PIECE_BYTES = 8 << 20


class RemoteFiles:
    """Files below a URL such as `s3://bucket/prefix?region=...&endpoint_override=...`, by name.

    Every call may raise `Unavailable`.

    Args:
        url: As `pyarrow.fs.FileSystem.from_uri` takes it; credentials are those of the environment.
    """

    def __init__(self, url: str) -> None:
        self._files, root = fs.FileSystem.from_uri(url)
        self._root = root.rstrip("/")

    def has(self, name: str) -> bool:
        """Whether a file is there, whole."""
        with _answering():
            return bool(self._files.get_file_info(self._path(name)).type == fs.FileType.File)

    def put(self, source: Path, name: str) -> None:
        """Copies a local file there; it appears when it is whole."""
        with _answering():
            fs.copy_files(
                str(source),
                self._path(name),
                source_filesystem=fs.LocalFileSystem(),
                destination_filesystem=self._files,
                chunk_size=_PIECE_BYTES,
            )

    def get(self, name: str, target: Path) -> None:
        """Copies a file from there to a local one.

        Raises:
            FileNotFoundError: It is not there.
        """
        with _answering():
            fs.copy_files(
                self._path(name),
                str(target),
                source_filesystem=self._files,
                destination_filesystem=fs.LocalFileSystem(),
                chunk_size=_PIECE_BYTES,
            )

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with _answering(), suppress(FileNotFoundError):
            self._files.delete_file(self._path(name))

    def names(self, older_than_seconds: float) -> Iterator[str]:
        """Yields the names of files that were last written longer ago than this."""
        limit = time.time() - older_than_seconds
        with _answering():
            found = self._files.get_file_info(
                fs.FileSelector(self._root, recursive=True, allow_not_found=True)
            )
        for info in found:
            if info.type == fs.FileType.File and info.mtime_ns <= limit * 1e9:
                yield str(info.path).removeprefix(self._root).lstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Unavailable(
            "STORE_UNAVAILABLE", "The object store that holds the points does not answer; try again shortly."
        ) from error
