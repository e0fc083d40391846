"""Point arrays on their way out, per-point answers on their way in: only this file knows their formats."""

import io
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx
import numpy as np
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray

NPY = "application/x-npy"
JSON = "application/json"
Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

PointsLike: TypeAlias = Any
"""(N, D) numbers: an array, nested sequences, or a table with named columns (pandas, polars, Arrow)."""


@dataclass(frozen=True)
class Points:
    """Points (N, D) in float64 or float32, and the names of their columns if they came with any."""

    rows: NDArray[Any]
    columns: list[str] | None

    def body(self, **fields: str | None) -> dict[str, Any]:
        """Returns what a `Call` sends the points with: NPY, names and fields beside it in the query."""
        if self.columns is not None and any("," in name or name != name.strip() for name in self.columns):
            # Such names cannot be told from one another in a query.
            given = {name: value for name, value in fields.items() if value is not None}
            return {"json": {"points": self.rows.tolist(), "columns": self.columns} | given}
        named = None if self.columns is None else ",".join(self.columns)
        return {"content": as_npy(self.rows), "params": {"columns": named} | fields}


def points_of(given: PointsLike) -> Points:
    """Returns what a caller gave as points.

    Raises:
        ValueError: They are not a table of numbers.
    """
    if isinstance(given, Points):
        return given
    columns = getattr(given, "column_names", None)  # an Arrow table
    if columns is not None:
        rows = np.column_stack([np.asarray(column) for column in given.columns])
    else:
        names = getattr(given, "columns", None)  # a data frame
        columns = None if names is None else list(names)
        rows = np.asarray(given)
    if columns is not None and not all(isinstance(name, str) for name in columns):
        columns = None  # a data frame made from an array numbers its columns; those are no names
    return Points(numbers(rows, "points"), None if columns is None else list(columns))


def numbers(given: ArrayLike, what: str) -> NDArray[Any]:
    """Returns an array of float64, or of float32 if it is that already.

    Raises:
        ValueError: It does not hold real numbers, or is not two-dimensional.
    """
    array = np.asarray(given)
    if array.dtype != np.float32:
        if array.dtype.kind not in "biufO":
            raise ValueError(f"{what} must hold real numbers, not {array.dtype}")
        array = array.astype(np.float64)
    if array.ndim != 2:
        raise ValueError(f"{what} must have shape (N, D), not {array.shape}")
    return array


def as_npy(array: NDArray[Any]) -> bytes:
    """Returns an array as an NPY file."""
    buffer = io.BytesIO()
    npy.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def accepting_arrays() -> dict[str, str]:
    """Returns the header of a request whose answer is one array."""
    return {"Accept": f"{NPY}, {JSON};q=0.5"}


def array_of(response: httpx.Response, field: str) -> Floats:
    """Returns the array that an answer holds: all of it, or one field of its JSON."""
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if media_type == NPY:
        array = npy.read_array(io.BytesIO(response.content), allow_pickle=False)
        return np.asarray(array, dtype=np.float64)
    return np.asarray(response.json()[field], dtype=np.float64)  # "-Infinity" and its like are read, too
