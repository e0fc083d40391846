"""The same numbers come out of every format, and what is no points is refused with its reason and place."""

import io
import itertools
import tempfile
import tracemalloc
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.codecs import arrow, json, npy
from service.codecs.csv import BLOCK_BYTES
from service.codecs.parquet_pages import page_sizes
from service.codecs.points import CHUNK_NUMBERS, InvalidPoints, Wanted
from service.codecs.registry import ARROW, CSV, NPY, PARQUET
from tests.codecs import packing
from tests.codecs.packing import PACKED, unpacked

POINTS = np.random.default_rng(0).standard_normal((1000, 3)) * [1e-300, 1.0, 1e300]
TABLES = {
    ARROW: packing.arrow,
    PARQUET: packing.parquet,
    CSV: packing.csv,
}
NAMES = ["x0", "x1", "x2"]


def large_page() -> bytes:
    """A file whose only page says that it comes out as 2 GiB."""
    body = packing.parquet(packing.table(POINTS[:, :1]), use_dictionary=False, compression="gzip")
    assert body[4:7] == b"\x15\x00\x15"  # a page of data, and then its size: 8007, in two bytes
    return body[:7] + b"\xfe\xff\xff\xff\x0f" + body[9:]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dictionary": False},
        {"data_page_version": "2.0", "compression": "zstd"},
        {"row_group_size": 100, "write_page_checksum": True},
        {"write_statistics": False, "compression": "none"},
    ],
)
def test_the_pages_of_a_parquet_file_are_found(options: dict[str, Any]) -> None:
    body = packing.parquet(packing.table(np.repeat(POINTS, 100, axis=0)), **options)
    metadata = pa.parquet.read_metadata(io.BytesIO(body))
    chunks = [
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(3)
    ]
    pages = list(page_sizes(body, metadata))
    total = sum(chunk.total_uncompressed_size for chunk in chunks)  # heads included
    assert total - 100 * len(pages) < sum(size for _, size in pages) < total
    assert len(pages) >= len(chunks)


@pytest.mark.parametrize("name", PACKED)
def test_every_bit_comes_out(name: str) -> None:
    media_type, pack = PACKED[name]
    rows, columns = unpacked(media_type, pack(POINTS))
    np.testing.assert_array_equal(rows, POINTS)
    assert rows.dtype == np.float64
    assert columns == (None if "npy" in name or "no header" in name else NAMES)


@pytest.mark.parametrize("name", PACKED)
def test_single_precision_is_widened(name: str) -> None:
    media_type, pack = PACKED[name]
    points = POINTS[:, 1:2].astype(np.float32)
    # A text has the shortest digits of a single, which as a double is another number.
    expected = points.astype(str).astype(np.float64) if media_type == CSV else points
    np.testing.assert_array_equal(unpacked(media_type, pack(points))[0], expected)


@pytest.mark.parametrize("name", ["npy", "npy, by columns", "arrow", "parquet", "csv"])
def test_more_than_a_chunk_comes_out(name: str) -> None:
    points = np.arange(CHUNK_NUMBERS * 2.5).reshape(-1, 10)
    media_type, pack = PACKED[name]
    np.testing.assert_array_equal(unpacked(media_type, pack(points))[0], points)


@pytest.mark.parametrize("media_type", TABLES)
def test_whole_numbers_are_numbers(media_type: str) -> None:
    data = pa.table({"a": pa.array([1, -2, 2**53 + 1]), "b": pa.array([0, 255, 7], pa.uint8())})
    rows, _ = unpacked(media_type, TABLES[media_type](data))
    assert rows.tolist() == [[1.0, 0.0], [-2.0, 255.0], [2.0**53, 7.0]]


@pytest.mark.parametrize("media_type", TABLES)
def test_columns_are_picked_by_name_in_the_order_asked_for(media_type: str) -> None:
    data = packing.table(POINTS, NAMES).append_column("label", [["text"] * 1000])
    rows, columns = unpacked(media_type, TABLES[media_type](data), columns=["x2", "x0"])
    np.testing.assert_array_equal(rows, POINTS[:, [2, 0]])
    assert columns == ["x2", "x0"]
    with pytest.raises(InvalidPoints, match=r"do not hold numbers: label; .* columns=x0,x1,x2$"):
        unpacked(media_type, TABLES[media_type](data))
    with pytest.raises(InvalidPoints, match="no column 'z'; its columns are x0,x1,x2,label"):
        unpacked(media_type, TABLES[media_type](data), columns=["x0", "z"])


@pytest.mark.parametrize("name", ["npy", "csv, no header"])
def test_columns_without_names_are_given_some(name: str) -> None:
    media_type, pack = PACKED[name]
    rows, columns = unpacked(media_type, pack(POINTS), columns=["a", "b", "c"])
    np.testing.assert_array_equal(rows, POINTS)
    assert columns == ["a", "b", "c"]
    with pytest.raises(InvalidPoints, match="2 names for 3 features"):
        unpacked(media_type, pack(POINTS), columns=["a", "b"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", PACKED)
def test_what_is_not_finite_is_refused_with_its_place(name: str, bad: float) -> None:
    media_type, pack = PACKED[name]
    points = POINTS.copy()
    points[717, 1] = points[800, 0] = bad
    with pytest.raises(InvalidPoints, match="of point 717 is ") as refused:
        unpacked(media_type, pack(points))
    assert refused.value.path == (717, 1)


@pytest.mark.parametrize("media_type", TABLES)
def test_a_missing_value_is_refused_with_its_place(media_type: str) -> None:
    data = pa.table({"a": pa.array([1.0, 2.0, 3.0]), "b": pa.array([1.0, 2.0, None])})
    with pytest.raises(InvalidPoints, match="column 'b' of point 2 is missing") as refused:
        unpacked(media_type, TABLES[media_type](data))
    assert refused.value.path == (2, 1)


def test_a_header_is_told_from_numbers_or_by_the_client() -> None:
    assert unpacked(CSV, b"1,2\n3,4\n")[1] is None
    rows, columns = unpacked(CSV, b"1,2\n3,4\n", header=True)
    assert (rows.tolist(), columns) == ([[3.0, 4.0]], ["1", "2"])
    rows, columns = unpacked(CSV, b'"a b","c"\n" 1",2\n\n3,4')
    assert (rows.tolist(), columns) == ([[1.0, 2.0], [3.0, 4.0]], ["a b", "c"])


def test_a_text_of_many_blocks_names_the_right_line() -> None:
    line = b"0.5,1.5\n"
    many = BLOCK_BYTES // len(line) + 10
    rows, _ = unpacked(CSV, line * many)
    assert rows.shape == (many, 2)
    with pytest.raises(InvalidPoints, match=f"column 1 of point {many} is not a number"):
        unpacked(CSV, line * many + b"0.5,x\n")
    with pytest.raises(InvalidPoints, match=f"point {many} has 1 fields"):
        unpacked(CSV, line * many + b"0.5\n")
    with pytest.raises(InvalidPoints, match=f"point {many} of the CSV is not UTF-8"):
        unpacked(CSV, line * many + b"0.5,\xff\n")


REFUSED: list[tuple[str, bytes, str]] = [
    (NPY, b"", "ends within the array's header"),
    (NPY, b"PK\x03\x04" + bytes(50), "NPZ"),
    (NPY, b"not an array at all", "does not begin as an NPY"),
    (NPY, packing.npy(POINTS)[:-1], "promises 1000 points of 3 features; the body ends after 999"),
    (NPY, packing.npy(np.asfortranarray(POINTS))[:-1], "the body ends after 999"),
    (NPY, packing.npy(POINTS) + b"\0", "goes on after"),
    (NPY, packing.npy(np.asfortranarray(POINTS)) + b"\0", "goes on after"),
    (NPY, packing.npy(POINTS[0]), r"one axis|has 1 axes.*reshape\(-1, 1\)"),
    (NPY, packing.npy(POINTS[None]), "has 3 axes"),
    (NPY, packing.npy(POINTS[:0]), r"shape \(0, 3\)"),
    (NPY, packing.npy(POINTS[:, :0]), r"shape \(1000, 0\)"),
    (NPY, packing.npy_header("'<f8'", "(0, 100000000000)"), "at least one row"),
    (NPY, packing.npy_header("'<f8'", "(-1, 2)"), "whole numbers at least 0"),
    (NPY, packing.npy_header("'|O'", "(1, 1)") + b"cos\nsystem\n", "dtype is object"),
    (NPY, packing.npy_header("'<i8'", "(1, 1)") + bytes(8), r"dtype is int64; .*astype\('float64'\)"),
    (NPY, packing.npy_header("'<c16'", "(1, 1)") + bytes(16), "dtype is complex128"),
    (NPY, packing.npy_header("'<f8'", "(" * 40), "header cannot be read"),
    (NPY, packing.npy_header("'<f8'", "(1, 1)", version=b"\x03\x00"), "NPY 3.0"),
    (NPY, b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(1000), "4294967295 bytes long"),
    (ARROW, b"", "does not begin as an Arrow stream"),
    (ARROW, b"ARROW1\0\0" + bytes(100), "does not begin as an Arrow stream"),
    (ARROW, packing.arrow(packing.table(POINTS))[:-5000], "cannot be read after point 0"),
    (ARROW, packing.arrow(packing.table(POINTS), compression="zstd"), "buffers are compressed"),
    (ARROW, packing.arrow(packing.table(POINTS), compression="lz4"), "buffers are compressed"),
    (ARROW, packing.arrow(packing.table(POINTS[:0])), "no points in the body"),
    (ARROW, packing.arrow(pa.table({})), "no columns"),
    (ARROW, packing.arrow(pa.table([[1.0], [2.0]], names=["a", "a"])), "several columns named 'a'"),
    (ARROW, packing.arrow(pa.table({"a": [True, False]})), "do not hold numbers: a; there are no others"),
    (PARQUET, b"", "not a Parquet file"),
    (PARQUET, b"PAR1" + bytes(100) + b"PAR1", "not a Parquet file"),
    (PARQUET, packing.parquet(packing.table(POINTS))[:-10], "not a Parquet file"),
    (PARQUET, packing.parquet(packing.table(POINTS))[500:], "cannot be read: no page begins at byte 4"),
    (PARQUET, large_page(), "a page of 2147483647 bytes, decompressed, at byte 4; write it with"),
    (PARQUET, packing.parquet(packing.table(POINTS[:0])), "no points in the body"),
    (CSV, b"", "empty line"),
    (CSV, b"\n1,2\n", "empty line"),
    (CSV, b"a,b\n", "no points in the body"),
    (CSV, b"a,b\n1,true\n", "do not hold numbers: b"),
    (CSV, b"a,b\n1,2026-01-01\n", "do not hold numbers: b"),
    (CSV, b"a;b\n1;2\n", "do not hold numbers: a;b"),
    (CSV, b"\xff\xfea\0,\0b\0", "not comma-separated UTF-8"),
    (CSV, b"1" * (BLOCK_BYTES + 1), "is longer than"),
    (CSV, b"1,1e999\n", "is inf"),
]


@pytest.mark.parametrize(("media_type", "body", "reason"), REFUSED)
def test_what_is_no_points_is_refused(media_type: str, body: bytes, reason: str) -> None:
    with pytest.raises(InvalidPoints, match=reason):
        unpacked(media_type, body)


@pytest.mark.parametrize("media_type", [NPY, ARROW, PARQUET, CSV])
def test_bytes_that_were_damaged_are_points_or_refused(media_type: str) -> None:
    """Never anything else: whatever is wrong inside comes out as a refusal."""
    generator = np.random.default_rng(5)
    name = {NPY: "npy", ARROW: "arrow", PARQUET: "parquet", CSV: "csv"}[media_type]
    good = PACKED[name][1](POINTS[:50])
    n_read = 0
    for _ in range(300):
        body = bytearray(good)
        for place in generator.integers(len(good), size=3):
            body[place] = generator.integers(256)
        with suppress(InvalidPoints):
            unpacked(media_type, bytes(body))
            n_read += 1
    assert n_read < 300  # some of the damage did come to what a format looks at


class Pieces(io.BytesIO):
    """A stream that comes in pieces of these sizes, again and again."""

    def __init__(self, body: bytes, *sizes: int) -> None:
        super().__init__(body)
        self._sizes = itertools.cycle(sizes)

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(next(self._sizes), size or 0))


@pytest.mark.parametrize("sizes", [(1_013,), (70_001,), (1 << 20, 3)])
def test_pieces_of_an_array_are_put_together(sizes: tuple[int, ...]) -> None:
    points = np.arange(300_000.0).reshape(-1, 3)
    decoded = npy.read(Pieces(packing.npy(points), *sizes), Wanted(tempfile.TemporaryFile))
    np.testing.assert_array_equal(np.concatenate(list(decoded.chunks)), points)


def test_tiny_pieces_of_an_array_take_little_more_than_their_bytes() -> None:
    body = packing.npy(np.arange(5_000.0).reshape(-1, 2))
    tracemalloc.start()
    try:
        decoded = npy.read(Pieces(body, 1), Wanted(tempfile.TemporaryFile))
        assert sum(len(rows) for rows in decoded.chunks) == 2_500
        assert tracemalloc.get_traced_memory()[1] < 600_000
    finally:
        tracemalloc.stop()


def test_what_is_written_is_read() -> None:
    chunks = [POINTS[:600], POINTS[600:]]
    for written in (
        (NPY, b"".join(npy.write(POINTS.shape, chunks))),
        (ARROW, b"".join(arrow.write(NAMES, ["float64"] * 3, [list(chunk.T) for chunk in chunks]))),
    ):
        np.testing.assert_array_equal(unpacked(*written)[0], POINTS)
    with pa.ipc.open_stream(b"".join(arrow.write(["k"], ["int64"], []))) as reader:
        assert reader.schema == pa.schema([pa.field("k", pa.int64(), nullable=False)])
        assert reader.read_all().num_rows == 0


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([], b"[]"),
        ([np.array([1.0, np.inf]), np.array([]), np.array([-0.5])], b'[1.0,"Infinity",-0.5]'),
        ([np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])], b"[[1.0,2.0],[3.0,4.0]]"),
    ],
)
def test_json_is_one_list(chunks: Any, text: bytes) -> None:
    assert b"".join(json.write(chunks)) == text
