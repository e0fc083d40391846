"""Compressed bodies."""

import io

import pyarrow as pa

ENCODINGS = ("gzip", "zstd")
_PIECE_BYTES = 1 << 20


class BadCompression(ValueError):
    """The bytes are not what their encoding says."""


class TooLarge(ValueError):
    """More comes out than is allowed."""


def decompress(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Returns what was compressed, never holding much more than the limit.

    Args:
        body: The compressed bytes.
        encoding: One of `ENCODINGS`.
        limit_bytes: How much may come out.

    Raises:
        BadCompression: The bytes are not what their encoding says.
        TooLarge: More comes out than is allowed.
    """
    whole = io.BytesIO()  # hands over its buffer without a copy
    try:
        with pa.input_stream(pa.py_buffer(body), compression=encoding) as stream:
            while piece := stream.read(_PIECE_BYTES):
                if whole.tell() + len(piece) > limit_bytes:
                    raise TooLarge
                whole.write(piece)
    except OSError as error:
        raise BadCompression(f"the body is not valid {encoding}") from error
    return whole.getvalue()
