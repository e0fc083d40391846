"""Points as the bytes of every format, written by others' libraries."""

import io
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from service.codecs.points import Wanted
from service.codecs.registry import ARROW, CSV, NPY, PARQUET, read

Matrix = NDArray[Any]


def npy(points: Matrix) -> bytes:
    sink = io.BytesIO()
    np.save(sink, points)
    return sink.getvalue()


def npy_header(descr: str, shape: str, *, fortran_order: bool = False, version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {fortran_order}, 'shape': {shape}, }}"
    header = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + len(header).to_bytes(2 if version[0] == 1 else 4, "little") + header


def table(points: Matrix, names: list[str] | None = None) -> pa.Table:
    names = names or [f"x{index}" for index in range(points.shape[1])]
    return pa.table(
        {name: np.ascontiguousarray(column) for name, column in zip(names, points.T, strict=True)}
    )


def arrow(data: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, data.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(data)
    return sink.getvalue()


def parquet(data: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(data, sink, **options)
    return sink.getvalue()


def csv(data: pa.Table, *, header: bool = True) -> bytes:
    sink = io.BytesIO()
    pa.csv.write_csv(data, sink, pa.csv.WriteOptions(include_header=header))
    return sink.getvalue()


PACKED: dict[str, tuple[str, Callable[[Matrix], bytes]]] = {
    "npy": (NPY, npy),
    "npy 2.0": (
        NPY,
        lambda points: (
            npy_header(repr(points.dtype.str), repr(points.shape), version=b"\x02\x00") + points.tobytes()
        ),
    ),
    "npy, by columns": (NPY, lambda points: npy(np.asfortranarray(points))),
    "npy, other end first": (NPY, lambda points: npy(points.astype(points.dtype.newbyteorder(">")))),
    "arrow": (ARROW, lambda points: arrow(table(points))),
    "arrow, many batches": (
        ARROW,
        lambda points: arrow(pa.concat_tables([table(points[:7]), table(points[7:9]), table(points[9:])])),
    ),
    "parquet": (PARQUET, lambda points: parquet(table(points))),
    "parquet, zstd, small groups": (
        PARQUET,
        lambda points: parquet(table(points), compression="zstd", row_group_size=100, use_dictionary=False),
    ),
    "csv": (CSV, lambda points: csv(table(points))),
    "csv, no header": (CSV, lambda points: csv(table(points), header=False)),
    "csv, by Windows": (
        CSV,
        lambda points: b"\xef\xbb\xbf" + csv(table(points)).replace(b"\n", b"\r\n").removesuffix(b"\r\n"),
    ),
}
"""By name: the media type, and what makes the bytes of points (N, D)."""


def unpacked(media_type: str, body: bytes, **wanted: Any) -> tuple[Matrix, list[str] | None]:
    """Returns the points that are read from the bytes, and the names of their columns."""
    decoded = read(media_type, io.BytesIO(body), Wanted(tempfile.TemporaryFile, **wanted))
    rows = np.concatenate(list(decoded.chunks))
    assert decoded.n_samples in (None, len(rows))
    assert decoded.n_features == rows.shape[1]
    return rows, decoded.columns
