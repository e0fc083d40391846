"""Large uploads and bodies made to hurt: memory stays where it was, and others are answered meanwhile."""

import io
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from backports import zstd

from service.codecs.registry import ARROW, CSV, JSON, NPY, PARQUET
from tests.codecs import packing
from tests.serving import GOLD, Server, serving
from tests.watched import Watched

MEGABYTE = 1 << 20
LIMIT = 160 * MEGABYTE
N_SAMPLES, N_FEATURES = 800_000, 16
MOST_GROWTH = 100 * MEGABYTE  # less than an upload has, and than a bomb would take if it could


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("data"), workers=0, max_body_bytes=LIMIT) as running:
        for media_type, pack in packing.PACKED.values():  # whatever is loaded once is loaded
            body = pack(np.ones((1000, 3)))
            httpx.post(
                f"{running.url}/v1/datasets",
                content=body,
                headers={"Content-Type": media_type},
                trust_env=False,
            ).raise_for_status()
        yield running


@pytest.fixture(scope="module")
def mixture_id(server: Server) -> str:
    with server.client() as http:
        return str(http.post("/v1/mixtures", json=GOLD).raise_for_status().json()["id"])


@pytest.fixture
def watched(server: Server, mixture_id: str) -> Callable[..., Watched]:
    return partial(Watched, server, mixture_id)


Watch = Callable[..., Watched]


def _rows(first: int, n_rows: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rows of which all have few digits, so that they are quickly written as text."""
    return ((np.arange(first * N_FEATURES, (first + n_rows) * N_FEATURES) % 9973) / 4).reshape(
        n_rows, N_FEATURES
    )


def _npy() -> Iterator[bytes]:
    yield packing.npy_header("'<f8'", f"({N_SAMPLES}, {N_FEATURES})")
    for first in range(0, N_SAMPLES, 100_000):
        yield _rows(first, 100_000).tobytes()


def _npy_by_columns() -> Iterator[bytes]:
    yield packing.npy_header("'<f8'", f"({N_SAMPLES}, {N_FEATURES})", fortran_order=True)
    for column in _rows(0, N_SAMPLES).T:
        yield column.tobytes()


def _arrow() -> Iterator[bytes]:
    yield packing.arrow(packing.table(_rows(0, N_SAMPLES)))  # one batch of it all


def _parquet() -> Iterator[bytes]:
    yield packing.parquet(packing.table(_rows(0, N_SAMPLES)), row_group_size=N_SAMPLES, use_dictionary=False)


def _csv() -> Iterator[bytes]:
    for first in range(0, N_SAMPLES // 2, 50_000):
        yield packing.csv(packing.table(_rows(first, 50_000)), header=first == 0)


@pytest.mark.parametrize(
    ("media_type", "pieces"),
    [(NPY, _npy), (NPY, _npy_by_columns), (ARROW, _arrow), (PARQUET, _parquet), (CSV, _csv)],
    ids=["npy", "npy by columns", "arrow", "parquet", "csv"],
)
def test_an_upload_passes_through_little_memory(
    server: Server, watched: Watch, media_type: str, pieces: Callable[[], Iterator[bytes]]
) -> None:
    with server.client() as http, watched() as upload:
        answer = http.post("/v1/datasets", content=pieces(), headers={"Content-Type": media_type})
    assert answer.status_code == 201, answer.text
    size = answer.json()["size_bytes"]
    assert size >= 51_200_000
    assert upload.growth < MOST_GROWTH
    with server.client() as http:
        path = f"/v1/datasets/{answer.json()['id']}"
        with (
            watched("RssAnon") as download,
            http.stream("GET", f"{path}/points", headers={"Accept": NPY}) as answer,
        ):
            n_bytes = sum(len(piece) for piece in answer.iter_raw())
        assert n_bytes == size + 128
        assert download.growth < MOST_GROWTH
        http.delete(path).raise_for_status()


def _gzip(head: bytes, part: bytes, n_parts: int, tail: bytes) -> bytes:
    compressor = zlib.compressobj(level=1, wbits=31)
    pieces = [compressor.compress(head)]
    pieces += [compressor.compress(part * 1000) for _ in range(n_parts // 1000)]
    return b"".join([*pieces, compressor.compress(tail), compressor.flush()])


def _zeros(compressor: Any, head: bytes, n_bytes: int) -> bytes:
    pieces = [compressor.compress(head)]
    pieces += [compressor.compress(bytes(MEGABYTE)) for _ in range(n_bytes // MEGABYTE)]
    return b"".join([*pieces, compressor.flush()])


def _gzip_bomb(head: bytes) -> bytes:
    return _zeros(zlib.compressobj(wbits=31), head, LIMIT + MEGABYTE)


def _zstd_bomb(head: bytes, window_log: int = 21) -> bytes:
    options = {zstd.CompressionParameter.window_log: window_log}
    return _zeros(zstd.ZstdCompressor(options=options), head, LIMIT + MEGABYTE)


def _parquet_bomb() -> bytes:
    """One constant column and 10^10 rows: a footer that names one small group of rows again and again."""
    good = packing.parquet(pa.table({"x": np.zeros(10_000_000)}))
    metadata = pa.parquet.read_metadata(io.BytesIO(good))
    for _ in range(10):
        again = pa.parquet.read_metadata(io.BytesIO(_footer(metadata)))
        metadata.append_row_groups(again)
    assert metadata.num_rows > 10**10
    return good + _footer(metadata)[4:]


def _footer(metadata: pa.parquet.FileMetaData) -> bytes:
    sink = io.BytesIO()
    metadata.write_metadata_file(sink)
    return sink.getvalue()


def _wide(n_columns: int) -> pa.Table:
    return pa.table([pa.array([0.0])] * n_columns, [f"{place:_>60}" for place in range(n_columns)])


HEADED = packing.npy_header("'<f8'", "(8000000, 16)")
BOMBS: dict[str, tuple[str, Callable[[], bytes], str, int]] = {
    "npy of 64 GiB": (NPY, lambda: packing.npy_header("'<f8'", "(8589934592, 1)")[:128], "", 422),
    "npy without rows": (NPY, lambda: packing.npy_header("'<f8'", "(0, 100000000000)"), "", 422),
    "npy without columns": (NPY, lambda: packing.npy_header("'<f8'", "(100000000000, 0)"), "", 422),
    "npy, one wide row": (NPY, lambda: packing.npy_header("'<f8'", "(1, 1000000000)"), "", 422),
    "gzip of zeros": (NPY, lambda: _gzip_bomb(HEADED), "gzip", 413),
    "zstd of zeros": (NPY, lambda: _zstd_bomb(HEADED), "zstd", 413),
    "zstd of zeros, large window": (NPY, lambda: _zstd_bomb(HEADED, 27), "zstd", 400),
    "gzip of zeros as JSON": (JSON, lambda: _gzip_bomb(b""), "gzip", 422),
    "zstd of zeros as JSON": (JSON, lambda: _zstd_bomb(b""), "zstd", 422),
    "gzip of zeros as CSV": (CSV, lambda: _gzip_bomb(b"1,2\n"), "gzip", 422),
    "parquet of 10^10 rows": (PARQUET, _parquet_bomb, "", 422),
    "parquet of many columns": (PARQUET, lambda: packing.parquet(_wide(40_000)), "", 422),
    "arrow of many columns": (ARROW, lambda: packing.arrow(_wide(60_000)), "", 422),
    "CSV of many columns": (CSV, lambda: b",".join([b"1"] * 2_000_000) + b"\n", "", 422),
    "deep JSON": (JSON, lambda: b'{"points": ' + b"[" * 5_000_000, "", 422),
    "long number": (JSON, lambda: b'{"points": [[' + b"9" * 5000 + b"]]}", "", 422),
    "long number in CSV": (CSV, lambda: b"9" * 5000 + b"\n", "", 422),
    "many points and a wrong field": (
        JSON,
        lambda: _gzip(b'{"points": [', b"[0],", 2_000_000, b'[0]], "x": 1}'),
        "gzip",
        422,
    ),
    "many empty points": (JSON, lambda: _gzip(b'{"points": [', b"[],", 5_000_000, b"[]]}"), "gzip", 422),
    "points of many lists": (JSON, lambda: _gzip(b'{"points": [[', b"[],", 5_000_000, b"[]]]}"), "gzip", 422),
    "a long string": (JSON, lambda: _gzip(b'{"name": "', b"a" * 100, 1_500_000, b'"}'), "gzip", 422),
    "a long list": (JSON, lambda: _gzip(b'{"columns": [', b"1,", 5_000_000, b"1]}"), "gzip", 422),
    "many keys": (JSON, lambda: _gzip(b'{"points": [[1]]', b',"a":{}', 5_000_000, b"}"), "gzip", 422),
    "bad UTF-8": (JSON, lambda: b'{"points": [[1]], "name": "\xff\xfe"}', "", 422),
    "bad UTF-8 in CSV": (CSV, lambda: b"a,b\n1,\xff\n", "", 422),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_little_memory(server: Server, watched: Watch, name: str) -> None:
    media_type, make, encoding, status = BOMBS[name]
    _refused(server, watched, "/v1/datasets", make(), media_type, encoding, status)
    assert not list((server.data_dir / "datasets" / "drafts").iterdir())


@pytest.mark.parametrize(
    ("path", "head", "part"),
    [
        ("/v1/fits", b'{"n_components": 1, "x": 1, "dataset": {"points": [', b"[0],"),
        ("/v1/fits", b'{"dataset": {"id": "a"}, "n_components": [', b"1,"),
        ("/v1/fits", b'{"n_components": 0, "dataset": {"id": "a", "weights": [', b"1,"),
        ("/v1/mixtures", b'{"means": [', b"[0],"),
        ("/v1/mixtures/{id}/log-density", b'{"x": 1, "points": [', b"[0,0],"),
        ("/v1/mixtures/{id}/log-density", b'{"points": [', b"[0,0,0],"),
        ("/v1/mixtures/{id}/samples", b'{"n_samples": [', b"[],"),
    ],
)
def test_a_bomb_is_refused_wherever_it_is_sent(
    server: Server, watched: Watch, mixture_id: str, path: str, head: bytes, part: bytes
) -> None:
    body = _gzip(head, part, 2_000_000, b"")
    _refused(server, watched, path.format(id=mixture_id), body, JSON, "gzip", 422)


def _refused(
    server: Server, watched: Watch, path: str, body: bytes, media_type: str, encoding: str, status: int
) -> None:
    headers = {"Content-Type": media_type} | ({"Content-Encoding": encoding} if encoding else {})
    with server.client() as http, watched() as meanwhile:
        answer = http.post(path, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.json()["code"]
    assert meanwhile.growth < MOST_GROWTH


def test_a_body_of_single_bytes_is_refused_in_little_memory(server: Server, watched: Watch) -> None:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    head = (
        f"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Type: {NPY}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    header = packing.npy_header("'<f8'", "(1000000, 1)")
    with socket.create_connection((host, int(port)), timeout=60) as connection, watched() as meanwhile:
        connection.sendall(head.encode())
        connection.sendall(b"".join(b"1\r\n" + struct.pack("B", byte) + b"\r\n" for byte in header))
        connection.sendall(b"1\r\n\0\r\n" * 200_000 + b"0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 422 ")
    assert meanwhile.growth < MOST_GROWTH
