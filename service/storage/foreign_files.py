"""Files that belong to others: looked at where they are, below a folder that may be read, never written."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pyarrow import fs

from service.codecs.points import InvalidPoints
from service.errors import FieldError, Unavailable, Unprocessable
from service.storage.allowed_urls import AllowedUrl

_AWS_ERROR = re.compile(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))?")
_PASSING = frozenset(
    {
        "NETWORK_CONNECTION",
        "INTERNAL_FAILURE",
        "SERVICE_UNAVAILABLE",
        "SLOW_DOWN",
        "THROTTLING",
        "REQUEST_TIMEOUT",
    }
)
_SERVER_ERRORS = 500
_PASSING_ERRNOS = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE})


@dataclass(frozen=True)
class Opened:
    """A file that is open, and what tells it from another under its name.

    Attributes:
        file: What the library reads from.
        size_bytes: Its length.
        version: Its ETag where it has one, else when it was last written, in nanoseconds since 1970.
    """

    file: Any
    size_bytes: int
    version: str


class ForeignFiles:
    """The files below an allowed URL, by name.

    Every call may raise `Unavailable` where nobody answers, `Unprocessable` (URL_UNREADABLE) where the answer
    is a refusal, and `InvalidPoints` where what was read cannot be decoded.

    Attributes:
        url: The URL, without a slash at its end.
    """

    def __init__(self, allowed: AllowedUrl) -> None:
        self.url = allowed.url
        with _answering():
            self._files, root = fs.FileSystem.from_uri(allowed.prefix)
        self._allowed_root = root.rstrip("/")
        self._root = "/".join(filter(None, (self._allowed_root, allowed.rest))) or "/"
        self._is_local = isinstance(self._files, fs.LocalFileSystem)

    def names(self) -> list[str]:
        """Returns the names of all files below the URL, in order; a single empty one where it is a file.

        Raises:
            FileNotFoundError: There is nothing at the URL.
        """
        with _answering():
            self._require_inside(self._root)
            kind = self._files.get_file_info(self._root).type
            if kind == fs.FileType.File:
                return [""]
            found = self._files.get_file_info(fs.FileSelector(self._root, recursive=True))
        files = (str(info.path) for info in found if info.type == fs.FileType.File)
        return sorted(path.removeprefix(self._root).lstrip("/") for path in files)

    @contextmanager
    def open(self, name: str) -> Iterator[Opened]:
        """Yields a file, open for reading.

        Raises:
            FileNotFoundError: It is not there.
        """
        path = f"{self._root}/{name}" if name else self._root
        with _answering():
            self._require_inside(path)
            with self._files.open_input_file(path) as file:
                tag = (file.metadata() or {}).get("ETag")
                if tag is None:
                    version = str(self._files.get_file_info(path).mtime_ns)
                else:
                    version = tag.decode() if isinstance(tag, bytes) else str(tag)
                yield Opened(file, file.size(), version)

    def _require_inside(self, path: str) -> None:
        """Refuses a path on this machine that symbolic links lead out of what may be read."""
        if not self._is_local:
            return
        allowed, real = os.path.realpath(self._allowed_root or "/"), os.path.realpath(path)
        if os.path.commonpath([allowed, real]) != allowed:
            message = "a symbolic link leads out of what may be read"
            raise Unprocessable(
                f"The URL cannot be read: {message}.", [FieldError(("url",), message)], code="URL_NOT_ALLOWED"
            )


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno is None and not _AWS_ERROR.search(str(error)):  # of the library, not of the system
            raise InvalidPoints("its contents cannot be decoded") from error
        reason = _reason(error)
        if reason is None:
            raise Unavailable(
                "STORE_UNAVAILABLE",
                "The store that holds the files of the URL does not answer; try again shortly.",
            ) from error
        message = f"its store refuses the service ({reason})"
        raise Unprocessable(
            f"The URL cannot be read: {message}; see that it exists and that the service may read it.",
            [FieldError(("url",), message)],
            code="URL_UNREADABLE",
        ) from error


def _reason(error: OSError) -> str | None:
    """Returns why a store has refused, or None when it may have failed for a while only."""
    told = _AWS_ERROR.search(str(error))
    if told is not None:
        failed = told[1] in _PASSING or int(told[2] or 0) >= _SERVER_ERRORS
        return None if failed else told[1]
    return None if error.errno in _PASSING_ERRNOS else os.strerror(error.errno or 0)
