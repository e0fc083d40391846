"""How large the pages of a Parquet file come out, read from their heads before anything is decompressed.

References:
    Apache Parquet, "Thrift definition" (PageHeader); Apache Thrift, "Thrift Compact protocol encoding".
"""

import mmap
from collections.abc import Iterator

import pyarrow.parquet as pq

# No head is longer: the statistics in it are two numbers.
_MOST_HEAD_BYTES = 1 << 14
_UNCOMPRESSED_SIZE, _COMPRESSED_SIZE = 2, 3
_INTEGERS, _FIXED = (4, 5, 6), {1: 0, 2: 0, 3: 1, 7: 8}
_BINARY, _LIST, _SET, _STRUCT = 8, 9, 10, 12
_DEEPEST = 8


class BadPage(ValueError):
    """There is no head of a page where there should be one."""


def page_sizes(text: bytes | mmap.mmap, metadata: pq.FileMetaData) -> Iterator[tuple[int, int]]:
    """Yields the place of each page in the file, and its size in bytes when it is decompressed.

    Args:
        text: The file.
        metadata: Its own; row groups that lie in one place are looked at once.

    Raises:
        BadPage: Something else is where a page should begin.
    """
    seen: set[tuple[int, int]] = set()
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        for column in range(group.num_columns):
            chunk = group.column(column)
            starts = [chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset]
            place = min(starts), min(starts) + chunk.total_compressed_size
            if place not in seen and place[0] > 0:  # a group without rows has no pages, at no place
                seen.add(place)
                yield from _pages(text, *place)


def _pages(text: bytes | mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int]]:
    if not 0 <= at <= end <= len(text):
        raise BadPage(f"pages from byte {at} to {end} are not in the file")
    while at < end:
        head = _Head(text[at : min(end, at + _MOST_HEAD_BYTES)])
        try:
            fields = head.struct()
            uncompressed, compressed = fields[_UNCOMPRESSED_SIZE], fields[_COMPRESSED_SIZE]
        except (IndexError, KeyError) as error:
            raise BadPage(f"no page begins at byte {at}") from error
        if min(uncompressed, compressed) < 0:
            raise BadPage(f"the page at byte {at} has less than no bytes")
        yield at, uncompressed
        at += head.n_read + compressed


class _Head:
    """Reads a structure of Thrift's compact protocol, of which only whole numbers are kept.

    Attributes:
        n_read: So many bytes have been read.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.n_read = 0

    def struct(self, depth: int = 0) -> dict[int, int]:
        """Returns the whole numbers by the number of their field."""
        if depth > _DEEPEST:
            raise IndexError
        fields: dict[int, int] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            value = self._value(head & 15, depth)
            if value is not None:
                fields[number] = value
        return fields

    def _value(self, kind: int, depth: int) -> int | None:
        if kind in _INTEGERS:
            return self._signed()
        if kind in _FIXED:
            self.n_read += _FIXED[kind]
        elif kind == _BINARY:
            size = self._varint()
            self.n_read += size
        elif kind in (_LIST, _SET):
            head = self._byte()
            for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
                self._value(head & 15, depth + 1)
        elif kind == _STRUCT:
            self.struct(depth + 1)
        else:
            raise IndexError
        return None

    def _byte(self) -> int:
        self.n_read += 1
        return self._text[self.n_read - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
        return value | byte << shift

    def _signed(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
