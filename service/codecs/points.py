"""Points on their way out of bytes: what every format's reader is given, hands back, and refuses."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]

CHUNK_NUMBERS = 1 << 20
"""About so many numbers are decoded at a time."""

MOST_COLUMNS = 20_000
"""Of a table; each takes some kilobytes while a library reads it."""


class InvalidPoints(ValueError):
    """The bytes are no points, or not ones that can be taken; says which and what to do.

    Attributes:
        path: Where in the points: row, or row and column; empty for the whole.
    """

    def __init__(self, message: str, path: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


class Stream(Protocol):
    """Bytes that come one after another."""

    def read(self, size: int, /) -> bytes:
        """Returns up to so many bytes, none at the end."""


@dataclass(frozen=True)
class Wanted:
    """What a reader is asked for beside the bytes.

    Attributes:
        scratch: Opens an empty file, gone when closed, for formats that are not read from front to back.
        columns: Where the format names its columns, the ones to take, in this order; else the names to give
            them. None takes all as they are.
        header: Whether a CSV's first line names the columns; None looks.
    """

    scratch: Callable[[], BinaryIO]
    columns: Sequence[str] | None = None
    header: bool | None = None


@dataclass(frozen=True)
class DecodedPoints:
    """Points as they come out of bytes.

    Attributes:
        n_features: D.
        columns: Names of the features, if they have any.
        n_samples: N, if the format says it in advance; otherwise what the chunks add up to.
        chunks: The points (n, D) float64, finite, piece by piece, in either memory order; reading on may
            raise `InvalidPoints`.
    """

    n_features: int
    columns: list[str] | None
    n_samples: int | None
    chunks: Iterator[Rows]


Reader = Callable[[Stream, Wanted], DecodedPoints]


def chunk_rows(n_features: int) -> int:
    """Returns how many rows of so many features a chunk has."""
    return max(1, CHUNK_NUMBERS // n_features)


def require_finite(rows: Rows, first: int, columns: Sequence[str] | None) -> Rows:
    """Returns the rows (n, D), of which `first` is the number of the first one.

    Raises:
        InvalidPoints: One is not finite, naming row and column.
    """
    finite = np.isfinite(rows)
    if not finite.all():
        row, column = (int(place) for place in np.argwhere(~finite)[0])
        raise at(first + row, column, columns, f"is {rows[row, column]}, and points must be finite numbers")
    return rows


def at(row: int, column: int, columns: Sequence[str] | None, what: str) -> InvalidPoints:
    """Returns the refusal of one number, which `what` goes on to say something of."""
    name = f"column {columns[column]!r:.80}" if columns else f"column {column}"
    return InvalidPoints(f"{name} of point {row} {what}", (row, column))


def named(columns: Sequence[str] | None, n_features: int) -> list[str] | None:
    """Returns the names asked for, for points of a format that has none.

    Raises:
        InvalidPoints: They are not as many as the features.
    """
    if columns is not None and len(columns) != n_features:
        raise InvalidPoints(f"there are {len(columns)} names for {n_features} features")
    return None if columns is None else list(columns)


def require_width(n_columns: int, what: str) -> None:
    """Refuses a table so wide that a few bytes of each column would take much memory.

    Args:
        n_columns: How many it has.
        what: The format, for the refusal.

    Raises:
        InvalidPoints: They are too many.
    """
    if n_columns > MOST_COLUMNS:
        raise InvalidPoints(f"{what} has {n_columns} columns; at most {MOST_COLUMNS} are read")


def picked(
    names: Sequence[str], numeric: Sequence[bool], wanted: Sequence[str] | None, what: str
) -> list[int]:
    """Returns which columns of a table to take.

    Args:
        names: Of all columns.
        numeric: Which of them hold numbers.
        wanted: The names of those to take, None for all.
        what: The format, for the refusal.

    Raises:
        InvalidPoints: One is not there, is there twice, or holds no numbers; or there are too many.
    """
    require_width(len(names), what)
    if wanted is None:
        chosen = list(range(len(names)))
    else:
        places = {name: place for place, name in reversed(list(enumerate(names)))}
        missing = next((name for name in wanted if name not in places), None)
        if missing is not None:
            raise InvalidPoints(f"{what} has no column {missing!r:.80}; its columns are {_listed(names)}")
        chosen = [places[name] for name in wanted]
    if not chosen:
        raise InvalidPoints(f"{what} has no columns; points have at least one")
    taken = [names[index] for index in chosen]
    n_each = Counter(names)  # of a table as wide as a client likes: never look through all for each
    twice = next((name for name in taken if n_each[name] > 1), None)
    if twice is not None:
        raise InvalidPoints(f"{what} has several columns named {twice!r:.80}; names must differ")
    text = [names[index] for index in chosen if not numeric[index]]
    if text:
        others = [name for name, number in zip(names, numeric, strict=True) if number]
        hint = f"take only others with columns={_listed(others)}" if others else "there are no others"
        raise InvalidPoints(f"these columns do not hold numbers: {_listed(text)}; {hint}")
    return chosen


def _listed(names: Sequence[str]) -> str:
    listed = ",".join(name[:80] for name in names[:20])
    return listed + (f" and {len(names) - 20} more" if len(names) > 20 else "")
