"""Answers of so many numbers a point, written piece by piece in the media type that was asked for."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from service.codecs import arrow, json, npy
from service.codecs.registry import ARROW, NPY

Arrays = Sequence[NDArray[Any]]
"""The fields of some points, (n,) or (n, C) each."""

# Making text holds up every other thread of the process: never for more than a millisecond or so at a time.
_NUMBERS_AT_ONCE = 4_096
_READ_BYTES = 1 << 18


@dataclass(frozen=True)
class Field:
    """One array of an answer.

    Attributes:
        name: Its name in JSON.
        columns: The names of its columns in Arrow.
        is_flat: Whether it is (N,), and not (N, C).
        dtype: `float64` or `int64`. NPY holds the arrays of float64 side by side and no others.
    """

    name: str
    columns: Sequence[str]
    is_flat: bool = False
    dtype: str = "float64"


def flat(name: str, dtype: str = "float64") -> Field:
    """Returns a field of one number a point."""
    return Field(name, (name,), is_flat=True, dtype=dtype)


def indexed(name: str, n_columns: int) -> Field:
    """Returns a field of several numbers a point."""
    return Field(name, [f"{name}_{index}" for index in range(n_columns)])


def written(
    media_type: str,
    fields: Sequence[Field],
    chunks: Iterator[Arrays],
    n_samples: int,
    scratch: Callable[[], BinaryIO],
    rest: Mapping[str, Any],
) -> Iterator[bytes | memoryview]:
    """Yields an answer, holding little of it at a time.

    Args:
        media_type: One of `codecs.registry.WRITABLE`.
        fields: What it has of each point.
        chunks: The fields of some points after others, N in all.
        n_samples: N; only NPY needs it.
        scratch: Opens an empty file, gone when closed.
        rest: What else JSON says.
    """
    if media_type == NPY:
        return _as_npy(fields, chunks, n_samples)
    if media_type == ARROW:
        columns = [name for field in fields for name in field.columns]
        dtypes = [field.dtype for field in fields for _ in field.columns]
        return arrow.write(columns, dtypes, (_columns(arrays) for arrays in chunks))
    return _as_json(fields, chunks, scratch, rest)


def _columns(arrays: Arrays) -> list[NDArray[Any]]:
    return [column for array in arrays for column in ([array] if array.ndim == 1 else array.T)]


def _npy_shape(fields: Sequence[Field], n_samples: int) -> tuple[int, ...]:
    """Returns the shape of an answer in NPY: (N,) of one number a point, else (N, C)."""
    floats = [field for field in fields if field.dtype == "float64"]
    if len(floats) == 1 and floats[0].is_flat:
        return (n_samples,)
    return (n_samples, sum(len(field.columns) for field in floats))


def npy_header(fields: Sequence[Field], n_samples: int) -> bytes:
    """Returns what an answer in NPY begins with."""
    return npy.header(_npy_shape(fields, n_samples))


def npy_bytes(fields: Sequence[Field], n_samples: int) -> int:
    """Returns how long an answer in NPY is."""
    return len(npy_header(fields, n_samples)) + 8 * math.prod(_npy_shape(fields, n_samples))


def _as_npy(
    fields: Sequence[Field], chunks: Iterator[Arrays], n_samples: int
) -> Iterator[bytes | memoryview]:
    shape = _npy_shape(fields, n_samples)
    kept = [index for index, field in enumerate(fields) if field.dtype == "float64"]
    if len(kept) == 1:
        return npy.write(shape, (arrays[kept[0]] for arrays in chunks))
    return npy.write(shape, (np.column_stack([arrays[i] for i in kept]) for arrays in chunks))


def _as_json(
    fields: Sequence[Field],
    chunks: Iterator[Arrays],
    scratch: Callable[[], BinaryIO],
    rest: Mapping[str, Any],
) -> Iterator[bytes]:
    """One field comes after the other in JSON, so the others wait in files while the first one is written."""
    later = [scratch() for _ in fields[1:]]
    try:
        yield b'{"' + fields[0].name.encode() + b'":'
        yield from json.write(_small(_first(chunks, later)))
        for field, file in zip(fields[1:], later, strict=True):
            yield b',"' + field.name.encode() + b'":'
            yield from json.write(_small(_read_back(field, file)))
        yield (b"," + to_json(rest)[1:]) if rest else b"}"
    finally:
        for file in later:
            file.close()


def _first(chunks: Iterator[Arrays], later: Sequence[BinaryIO]) -> Iterator[NDArray[Any]]:
    for first, *others in chunks:
        for array, file in zip(others, later, strict=True):
            file.write(np.ascontiguousarray(array).data)
        yield first


def _read_back(field: Field, file: BinaryIO) -> Iterator[NDArray[Any]]:
    file.seek(0)
    n_columns = len(field.columns)
    size = max(1, _READ_BYTES // (8 * n_columns)) * 8 * n_columns
    while piece := file.read(size):
        values = np.frombuffer(piece, field.dtype)
        yield values if field.is_flat else values.reshape(-1, n_columns)


def _small(arrays: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    for array in arrays:
        n_rows = max(1, _NUMBERS_AT_ONCE // (array.size // len(array) or 1)) if len(array) else 1
        for start in range(0, len(array), n_rows):
            yield array[start : start + n_rows]
