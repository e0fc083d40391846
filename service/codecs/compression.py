"""Compressed bodies, read as they come in."""

import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, Literal

from backports import zstd
from backports.zstd import ZstdError as ZstdError

from service.codecs.points import Stream

_PIECE_BYTES = 1 << 18
# The largest window that a body may need (RFC 9659, Window Sizing for Zstandard Content Encoding).
_ZSTD_WINDOW_LOG = 23


class BadCompression(ValueError):
    """The bytes are not what their encoding says."""


class _Gzip:
    """One gzip member, with the interface of the standard library's other decompressors."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


def _zstd() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


def zstd_file(file: BinaryIO, mode: Literal["rb", "wb"]) -> zstd.ZstdFile:
    """Returns a file whose bytes lie in zstd in another; reading raises `ZstdError` where they do not."""
    return zstd.ZstdFile(file, mode)


_DECOMPRESSORS: Mapping[str, Callable[[], Any]] = MappingProxyType({"gzip": _Gzip, "zstd": _zstd})
ENCODINGS = tuple(_DECOMPRESSORS)


class Decompressed:
    """What comes out of a compressed stream of one or several members; never holds more than is asked for.

    Args:
        stream: The compressed bytes.
        encoding: One of `ENCODINGS`.
    """

    def __init__(self, stream: Stream, encoding: str) -> None:
        self._stream = stream
        self._encoding = encoding
        self._member = _DECOMPRESSORS[encoding]()

    def read(self, size: int) -> bytes:
        """Returns up to so many bytes, none at the end.

        Raises:
            BadCompression: The bytes are not what their encoding says.
        """
        while True:
            data = b""
            if self._member.eof:
                data = self._member.unused_data or self._stream.read(_PIECE_BYTES)
                if not data:
                    return b""
                self._member = _DECOMPRESSORS[self._encoding]()
            elif self._member.needs_input:
                data = self._stream.read(_PIECE_BYTES)
                if not data:
                    raise BadCompression(f"the body is not valid {self._encoding}: it ends too early")
            piece = self._decompress(data, size)
            if piece:
                return piece

    def _decompress(self, data: bytes, size: int) -> bytes:
        try:
            return bytes(self._member.decompress(data, size))
        except (zlib.error, zstd.ZstdError) as error:
            raise BadCompression(
                f"the body is not valid {self._encoding}, or needs too large a window"
            ) from error
