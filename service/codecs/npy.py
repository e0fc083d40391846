"""NumPy's NPY format, 1.0 and 2.0, float32 or float64, C or Fortran order; never pickled, never NPZ."""

import io
import struct
from collections.abc import Iterable, Iterator
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from service.codecs.points import (
    DecodedPoints,
    InvalidPoints,
    Rows,
    Stream,
    Wanted,
    chunk_rows,
    named,
    require_finite,
)
from service.codecs.spooled import spooled

_LARGEST_HEADER = 10_000
# Rows are handed on as soon as there are so many numbers, so that others come while these are worked on, and
# these are still in a core's cache.
_ROWS_NUMBERS = 1 << 17
_PIECE_BYTES = 1 << 20
# More pieces than this are joined at once: tiny ones would take far more memory than their bytes.
_MOST_PARTS = 1 << 10
_SPOKEN = "send an array of float32 or float64 as numpy.save writes it"


def read(stream: Stream, wanted: Wanted) -> DecodedPoints:
    """Returns the points of an NPY array (N, D).

    Raises:
        InvalidPoints: It is not one, or its header promises what is not taken.
    """
    shape, fortran_order, dtype = _header(stream)
    if dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise InvalidPoints(
            f"the array's dtype is {dtype}; points are float32 or float64: points.astype('float64')"
        )
    if len(shape) != 2:
        hint = ": points.reshape(-1, 1)" if len(shape) == 1 else ""
        raise InvalidPoints(f"the array has {len(shape)} axes; points have two, (N, D){hint}")
    n_samples, n_features = shape
    if n_samples < 1 or n_features < 1:
        raise InvalidPoints(
            f"the array has shape ({n_samples}, {n_features}); points have at least one row and one column"
        )
    columns = named(wanted.columns, n_features)
    blocks = _by_columns if fortran_order and n_features > 1 else _by_rows
    chunks = _checked(blocks(stream, wanted, n_samples, n_features, dtype), columns)
    return DecodedPoints(n_features, columns, n_samples, chunks)


def _header(stream: Stream) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    start = _exactly(stream, 10)
    if start[:4] == b"PK\x03\x04":
        raise InvalidPoints(f"the body is an NPZ archive, which is not taken; {_SPOKEN}")
    if start[:6] != npy.MAGIC_PREFIX:
        raise InvalidPoints(f"the body does not begin as an NPY array does; {_SPOKEN}")
    version = (start[6], start[7])
    if version not in ((1, 0), (2, 0)):
        raise InvalidPoints(f"the array is NPY {version[0]}.{version[1]}; versions 1.0 and 2.0 are taken")
    if version == (2, 0):
        start += _exactly(stream, 2)
    length = struct.unpack("<H" if version == (1, 0) else "<I", start[8:])[0]
    if length > _LARGEST_HEADER:
        raise InvalidPoints(f"the array's header is {length} bytes long; at most {_LARGEST_HEADER} are read")
    header = io.BytesIO(start[8:] + _exactly(stream, length))
    parse = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        shape, fortran_order, dtype = parse(header, max_header_size=_LARGEST_HEADER)
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise InvalidPoints(f"the array's header cannot be read; {_SPOKEN}") from error
    if any(isinstance(size, bool) or size < 0 for size in shape):
        raise InvalidPoints("the array's shape is not made of whole numbers at least 0")
    return shape, fortran_order, dtype


def _exactly(stream: Stream, size: int) -> bytes:
    whole = bytearray()
    while len(whole) < size:
        piece = stream.read(size - len(whole))
        if not piece:
            raise InvalidPoints(f"the body ends within the array's header; {_SPOKEN}")
        whole += piece
    return bytes(whole)


def _by_rows(
    stream: Stream, wanted: Wanted, n_samples: int, n_features: int, dtype: np.dtype[Any]
) -> Iterator[Rows]:
    del wanted
    row_bytes, at_once = n_features * dtype.itemsize, max(1, _ROWS_NUMBERS // n_features)
    blocks = _Blocks(stream)
    for start in range(0, n_samples, at_once):
        n_rows = min(at_once, n_samples - start)
        block = blocks.next(n_rows * row_bytes)
        if len(block) < n_rows * row_bytes:
            raise _cut_short(n_samples, n_features, start + len(block) // row_bytes)
        yield block.view(dtype).reshape(n_rows, n_features).astype(np.float64, copy=False)
    if len(blocks.next(1)):
        raise _too_long(n_samples, n_features)


class _Blocks:
    """The bytes of a stream in blocks, made of its pieces by one copy, during which other threads run.

    Args:
        stream: It is asked for pieces as large as it has them, so that it need not cut or join any.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = np.empty(0, np.uint8)

    def next(self, size: int) -> NDArray[np.uint8]:
        """Returns so many bytes, or what there is; takes memory for what has come, not for promises."""
        parts = [self._left[:size]]
        size -= len(parts[0])
        self._left = self._left[len(parts[0]) :]
        while size and (piece := self._stream.read(_PIECE_BYTES)):
            whole = np.frombuffer(piece, np.uint8)
            parts.append(whole[:size])
            self._left = whole[size:]
            size -= len(parts[-1])
            if len(parts) >= _MOST_PARTS:
                parts = [np.concatenate(parts)]
        return np.concatenate(parts)


def _by_columns(
    stream: Stream, wanted: Wanted, n_samples: int, n_features: int, dtype: np.dtype[Any]
) -> Iterator[Rows]:
    whole = spooled(stream, wanted.scratch)
    size = n_samples * n_features * dtype.itemsize
    if len(whole.buffer) < size:
        raise _cut_short(n_samples, n_features, len(whole.buffer) // (n_features * dtype.itemsize))
    if len(whole.buffer) > size:
        raise _too_long(n_samples, n_features)
    matrix = np.frombuffer(whole.buffer, dtype).reshape(n_features, n_samples)
    at_once = chunk_rows(n_features)
    for start in range(0, n_samples, at_once):
        part = matrix[:, start : start + at_once]
        yield np.array(part, dtype=np.float64, order="C").T
        whole.seen(part.size * dtype.itemsize)


def _cut_short(n_samples: int, n_features: int, n_there: int) -> InvalidPoints:
    return InvalidPoints(
        f"the array's header promises {n_samples} points of {n_features} features; "
        f"the body ends after {n_there}"
    )


def _too_long(n_samples: int, n_features: int) -> InvalidPoints:
    return InvalidPoints(
        f"the body goes on after the {n_samples} points of {n_features} features that its header promises"
    )


def _checked(blocks: Iterator[Rows], columns: list[str] | None) -> Iterator[Rows]:
    n_rows = 0
    for rows in blocks:
        yield require_finite(rows, n_rows, columns)
        n_rows += len(rows)


def write(shape: tuple[int, ...], chunks: Iterable[NDArray[np.float64]]) -> Iterator[bytes | memoryview]:
    """Yields an NPY 1.0 array of float64, in C order, without a copy of chunks that have it.

    Args:
        shape: Of the whole, (N,) or (N, C).
        chunks: Its rows one after another, (n,) or (n, C), which must stay as they are.
    """
    yield header(shape)
    for chunk in chunks:
        yield np.ascontiguousarray(chunk, dtype="<f8").reshape(-1).view(np.uint8).data


def header(shape: tuple[int, ...]) -> bytes:
    """Returns what an NPY 1.0 array of float64, in C order and of this shape, begins with."""
    written = io.BytesIO()
    npy.write_array_header_1_0(written, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return written.getvalue()
