"""Bytes to be read in another order than they come in: kept in a scratch file, seen through a map."""

import mmap
from collections.abc import Callable
from typing import BinaryIO

from service.codecs.points import Stream

_PIECE_BYTES = 1 << 20
_FORGET_BYTES = 32 << 20


class Spooled:
    """All bytes of a stream, mapped from a file that has no name.

    Attributes:
        buffer: The bytes.
    """

    def __init__(self, buffer: mmap.mmap | bytes) -> None:
        self.buffer = buffer
        self._seen = 0

    def seen(self, n_bytes: int) -> None:
        """Says that so many more bytes have been read; pages are let go of, so that they do not add up."""
        self._seen += n_bytes
        if self._seen >= _FORGET_BYTES and isinstance(self.buffer, mmap.mmap):
            self._seen = 0
            self.buffer.madvise(mmap.MADV_DONTNEED)


def spooled(stream: Stream, scratch: Callable[[], BinaryIO]) -> Spooled:
    """Returns what a stream holds.

    Raises:
        OSError: There is no room for it.
    """
    first = bytearray()
    while len(first) < _PIECE_BYTES and (piece := stream.read(_PIECE_BYTES - len(first))):
        first += piece
    following = stream.read(_PIECE_BYTES)
    if not following:
        return Spooled(bytes(first))
    with scratch() as file:
        file.write(first)
        while following:
            file.write(following)
            following = stream.read(_PIECE_BYTES)
        file.flush()
        # The map keeps the file until nothing looks at it any more.
        return Spooled(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
