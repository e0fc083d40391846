"""What a dataset by URL holds, told by the footers of its files: none of its points are read."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from pydantic_core import to_json

from service.codecs.points import InvalidPoints, picked
from service.codecs.row_groups import Footer, read_footer, require_no_missing
from service.errors import FieldError, Unprocessable
from service.storage.foreign_files import ForeignFiles
from service.storage.parquet_folder import ForeignFile, readable

_SUFFIX = ".parquet"
_MOST_FILES = 10_000
_MOST_ROW_GROUPS = 1_000_000
# A fit holds one of them for each of its threads, decoded.
_LARGEST_ROW_GROUP_BYTES = 1 << 29
_READERS = 16


@dataclass(frozen=True)
class Survey:
    """What was found at a URL.

    Attributes:
        url: Where.
        columns: The names of the features, in order.
        files: All files, by name.
    """

    url: str
    columns: list[str]
    files: list[ForeignFile]

    @property
    def n_samples(self) -> int:
        """N."""
        return sum(sum(file.n_rows) for file in self.files)

    @property
    def size_bytes(self) -> int:
        """Of all files as they are."""
        return sum(file.size_bytes for file in self.files)

    @property
    def sha256(self) -> str:
        """What tells this dataset from another: its URL, its columns, and all that is known of its files.

        It is no hash of points, which have not been read: copies of the same files at another place have
        another one.
        """
        told = {"url": self.url, "columns": self.columns, "files": [asdict(file) for file in self.files]}
        return hashlib.sha256(to_json(told)).hexdigest()


def survey(foreign: ForeignFiles, columns: Sequence[str] | None) -> Survey:
    """Returns what the Parquet files below a URL hold; what is named `_...` or `....` is left out.

    Args:
        foreign: The files below the URL.
        columns: Which columns to take, in this order; all of them unless given.

    Raises:
        Unprocessable: There are no points that could be taken.
    """
    names = _names(foreign)

    def look(name: str) -> tuple[ForeignFile, Footer]:
        return _look(foreign, name)

    first, footer = look(names[0])
    chosen = _chosen(first, footer, columns)
    files = [_checked(first, footer, chosen, only=columns is not None)]
    with ThreadPoolExecutor(min(_READERS, len(names))) as readers:
        try:
            for file, its_footer in readers.map(look, names[1:]):
                files.append(_checked(file, its_footer, chosen, only=columns is not None))
        except BaseException:
            readers.shutdown(cancel_futures=True)
            raise
    found = Survey(foreign.url, chosen, files)
    if found.n_samples == 0:
        raise _refused("its files hold no points", "INVALID_POINTS")
    if sum(len(file.n_rows) for file in files) > _MOST_ROW_GROUPS:
        raise _refused(f"its files have more than {_MOST_ROW_GROUPS} row groups; write larger ones")
    return found


def _names(foreign: ForeignFiles) -> list[str]:
    try:
        found = foreign.names()
    except FileNotFoundError:
        raise _refused("there is nothing at it", "URL_UNREADABLE") from None
    if found == [""]:
        return found
    names = [name for name in found if name.endswith(_SUFFIX) and not _is_hidden(name)]
    if not names:
        raise _refused(f"there is no file below it whose name ends in {_SUFFIX}", "URL_UNREADABLE")
    if len(names) > _MOST_FILES:
        raise _refused(
            f"there are {len(names)} files below it; at most {_MOST_FILES} are taken. Write larger ones"
        )
    return names


def _is_hidden(name: str) -> bool:
    return any(part.startswith(("_", ".")) for part in name.split("/"))


def _look(foreign: ForeignFiles, name: str) -> tuple[ForeignFile, Footer]:
    try:
        with foreign.open(name) as opened, readable(ForeignFile(name, 0, "", "", [])):
            footer = read_footer(opened.file, opened.size_bytes)
            file = ForeignFile(name, opened.size_bytes, opened.version, footer.sha256, footer.n_rows)
            return file, footer
    except FileNotFoundError:
        raise _refused(
            f"{name[-200:]!r} was there a moment ago; register what is no longer written to"
        ) from None


def _chosen(file: ForeignFile, footer: Footer, columns: Sequence[str] | None) -> list[str]:
    with readable(file):
        return [
            footer.columns[index] for index in picked(footer.columns, footer.numeric, columns, "the file")
        ]


def _checked(file: ForeignFile, footer: Footer, columns: list[str], *, only: bool) -> ForeignFile:
    """Returns a file whose columns are those of all, or contain them where only some are taken."""
    with readable(file):
        picked(footer.columns, footer.numeric, columns, "the file")
        extra = [] if only else [name for name in footer.columns if name not in columns]
        if extra:
            raise InvalidPoints(
                f"it has a column {extra[0]!r:.80} that other files have not; name those to take in columns"
            )
        largest = max(footer.n_rows, default=0) * len(columns) * 8
        if largest > _LARGEST_ROW_GROUP_BYTES:
            raise InvalidPoints(
                f"a row group of it takes {largest} bytes as float64; write such of at most "
                f"{_LARGEST_ROW_GROUP_BYTES}, as with row_group_size"
            )
        require_no_missing(footer, columns)
    return file


def _refused(message: str, code: str = "DATASET_TOO_LARGE") -> Unprocessable:
    return Unprocessable(f"The URL cannot be read: {message}.", [FieldError(("url",), message)], code=code)


def files_of(kept: list[dict[str, Any]]) -> list[ForeignFile]:
    """Returns files from what the database keeps of them."""
    return [ForeignFile(**file) for file in kept]
