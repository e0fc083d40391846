"""Parquet files that stay where they are: their footers, and their row groups one at a time."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.codecs.points import InvalidPoints, Rows, chunk_rows
from service.codecs.tables import is_numeric, rows_of

_TAIL_BYTES = 1 << 16
_LARGEST_FOOTER_BYTES = 64 << 20
_MAGIC = b"PAR1"
_MARK_BYTES = 8


@dataclass(frozen=True)
class Footer:
    """What stands at the end of a Parquet file, read without anything before it.

    Attributes:
        sha256: Of its bytes.
        columns: The names of all columns.
        numeric: Which of them hold numbers.
        n_rows: Of each row group.
        metadata: As the library has it.
    """

    sha256: str
    columns: list[str]
    numeric: list[bool]
    n_rows: list[int]
    metadata: pq.FileMetaData


def read_footer(file: Any, size_bytes: int) -> Footer:
    """Returns the footer of an open file.

    Args:
        file: A file of the library's that can be read from any place.
        size_bytes: How long it is.

    Raises:
        InvalidPoints: It is no Parquet file, or not all of one.
    """
    tail = _tail(file, size_bytes, _TAIL_BYTES)
    length = int.from_bytes(tail[-_MARK_BYTES:-4], "little") + _MARK_BYTES
    if tail[-4:] != _MAGIC or length > min(size_bytes, _LARGEST_FOOTER_BYTES):
        raise InvalidPoints("it is not a Parquet file, or not all of it")
    if length > len(tail):
        tail = _tail(file, size_bytes, length)
    try:
        metadata = pq.read_metadata(pa.BufferReader(tail))
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise InvalidPoints("it is not a Parquet file, or not all of it") from error
    groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    numeric = [is_numeric(kind) for kind in schema.types]
    return Footer(hashlib.sha256(tail[-length:]).hexdigest(), list(schema.names), numeric, groups, metadata)


def _tail(file: Any, size_bytes: int, wanted: int) -> bytes:
    start = max(0, size_bytes - wanted)
    return bytes(file.read_at(size_bytes - start, start))


def require_no_missing(footer: Footer, columns: Sequence[str]) -> None:
    """Refuses missing values, as far as the footer tells of them.

    Raises:
        InvalidPoints: There are some, naming row group and column.
    """
    for group in range(footer.metadata.num_row_groups):
        chunks = footer.metadata.row_group(group)
        for index in range(chunks.num_columns):
            chunk = chunks.column(index)
            told = chunk.statistics if chunk.path_in_schema in columns else None
            if told is not None and told.has_null_count and told.null_count:
                raise InvalidPoints(
                    f"row group {group} lacks {told.null_count} values of column "
                    f"{chunk.path_in_schema!r:.80}, and points have no missing values"
                )


def read_row_group(file: Any, footer: Footer, group: int, columns: Sequence[str]) -> Iterator[Rows]:
    """Yields the points (n, D) of one row group of an open file, finite, piece by piece.

    Raises:
        InvalidPoints: A value is missing or not finite, naming its row in the group and its column; or the
            file holds something else than its footer says.
    """
    n_rows = 0
    try:
        opened = pq.ParquetFile(file, metadata=footer.metadata, pre_buffer=True)
        names = list(columns)
        for batch in opened.iter_batches(chunk_rows(len(names)), row_groups=[group], columns=names):
            yield rows_of(batch.select(names), n_rows, names)
            n_rows += batch.num_rows
    except pa.ArrowException as error:
        raise InvalidPoints(f"it cannot be read after point {n_rows}") from error
    if n_rows != footer.n_rows[group]:
        raise InvalidPoints(f"it has {n_rows} points, and its footer says {footer.n_rows[group]}")
