"""Compressed bodies come out whole, or are refused before they fill the memory."""

import gzip
import io
import os
import tracemalloc
from collections.abc import Callable

import pyarrow as pa
import pytest

from service.api.inflow import Inflow
from service.codecs.compression import ENCODINGS, BadCompression, Decompressed
from service.errors import ServiceError

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": lambda body: pa.compress(body, codec="zstd", asbytes=True),
}
SIZES = [1, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000]


def decompress(packed: bytes, encoding: str) -> bytes:
    stream = Decompressed(io.BytesIO(packed), encoding)
    return b"".join(iter(lambda: stream.read(1 << 18), b""))


def read(packed: bytes, encoding: str, limit: int) -> bytes:
    stream = Inflow(io.BytesIO(packed), encoding, limit)
    return b"".join(iter(lambda: stream.read(1 << 18), b""))


def test_every_encoding_is_tested() -> None:
    assert set(PACK) == set(ENCODINGS)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_comes_out_whole(encoding: str, size: int) -> None:
    for body in (os.urandom(size), b"[[0.5, 1.5]]" * (size // 12 + 1)):
        assert decompress(PACK[encoding](body), encoding) == body


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_several_parts_are_one_body(encoding: str) -> None:
    packed = PACK[encoding](b"[[1], ") + PACK[encoding](b"[2]]")
    assert decompress(packed, encoding) == b"[[1], [2]]"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_empty_body_packed_is_an_empty_body(encoding: str) -> None:
    assert decompress(PACK[encoding](b""), encoding) == b""


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("body", [b"\x00", b"[[1, 2]]", b"\x1f\x8b", b"\xff" * 1000])
def test_what_is_not_packed_is_refused(encoding: str, body: bytes) -> None:
    with pytest.raises(BadCompression, match=encoding):
        decompress(body, encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_other_encoding_is_refused(encoding: str) -> None:
    (other,) = set(ENCODINGS) - {encoding}
    with pytest.raises(BadCompression):
        decompress(PACK[other](b"[[1]]" * 100), encoding)


@pytest.mark.parametrize("keep", [0.5, 0.9, -1, -4, -8])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_truncated_body_is_refused(encoding: str, keep: float) -> None:
    packed = PACK[encoding](bytes(range(256)) * 5000 + bytes(100_000))
    cut = packed[: int(len(packed) * keep)] if keep > 0 else packed[: int(keep)]
    with pytest.raises(BadCompression):
        decompress(cut, encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_garbage_after_the_end_is_refused(encoding: str) -> None:
    with pytest.raises(BadCompression):
        decompress(PACK[encoding](b"[[1]]") + b"garbage", encoding)


def test_a_wrong_checksum_is_refused() -> None:
    packed = bytearray(gzip.compress(b"[[1, 2, 3]]" * 100))
    packed[-6] ^= 1
    with pytest.raises(BadCompression):
        decompress(bytes(packed), "gzip")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_limit_is_exact(encoding: str) -> None:
    body = os.urandom(100_000)
    assert read(PACK[encoding](body), encoding, 100_000) == body
    with pytest.raises(ServiceError, match="larger"):
        read(PACK[encoding](body), encoding, 99_999)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_is_stopped_early(encoding: str) -> None:
    bomb = PACK[encoding](bytes(300 << 20))
    arrow_before = pa.total_allocated_bytes()
    tracemalloc.start()
    with pytest.raises(ServiceError, match="larger"):
        read(bomb, encoding, 4 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
    assert pa.total_allocated_bytes() - arrow_before < 8 << 20
