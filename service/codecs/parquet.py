"""Parquet files: one column of numbers per feature."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from service.codecs.parquet_pages import BadPage, page_sizes
from service.codecs.points import DecodedPoints, InvalidPoints, Rows, Stream, Wanted, chunk_rows, picked
from service.codecs.spooled import Spooled, spooled
from service.codecs.tables import is_numeric, rows_of

# A page is taken apart as a whole. Libraries write pages of a megabyte or so.
_LARGEST_PAGE_BYTES = 32 << 20
# What a footer tells takes twenty times as much memory once it is read.
_LARGEST_FOOTER_BYTES = 4 << 20
# So much of a mapped file becomes resident around a byte that is looked at, or a little more.
_AROUND_BYTES = 1 << 17


def read(stream: Stream, wanted: Wanted) -> DecodedPoints:
    """Returns the points of a file's columns.

    Raises:
        InvalidPoints: It is no Parquet file, or a column that is asked for holds no numbers.
    """
    whole = spooled(stream, wanted.scratch)
    _require_small_footer(whole.buffer[-8:])
    try:
        file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(whole.buffer)))
        schema, n_samples = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise InvalidPoints("the body is not a Parquet file, or not all of it") from error
    chosen = picked(schema.names, [is_numeric(kind) for kind in schema.types], wanted.columns, "the file")
    columns = [schema.names[index] for index in chosen]
    return DecodedPoints(len(columns), columns, n_samples, _chunks(whole, file, columns))


def _chunks(whole: Spooled, file: pq.ParquetFile, columns: list[str]) -> Iterator[Rows]:
    n_rows = 0
    _require_small_pages(whole, file.metadata)
    try:
        for batch in file.iter_batches(chunk_rows(len(columns)), columns=columns):
            yield rows_of(batch.select(columns), n_rows, columns)
            n_rows += batch.num_rows
            whole.seen(batch.nbytes)
    except (pa.ArrowException, OSError) as error:
        raise InvalidPoints(f"the Parquet file cannot be read after point {n_rows}") from error


def _require_small_footer(tail: bytes) -> None:
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] == b"PAR1" and length > _LARGEST_FOOTER_BYTES:
        raise InvalidPoints(
            f"the Parquet file has a footer of {length} bytes; at most {_LARGEST_FOOTER_BYTES} are read: "
            "write it with fewer groups of rows, or fewer columns"
        )


def _require_small_pages(whole: Spooled, metadata: pq.FileMetaData) -> None:
    try:
        for place, size in page_sizes(whole.buffer, metadata):
            whole.seen(_AROUND_BYTES)
            if size > _LARGEST_PAGE_BYTES:
                raise InvalidPoints(
                    f"the Parquet file has a page of {size} bytes, decompressed, at byte {place}; "
                    f"write it with pages of at most {_LARGEST_PAGE_BYTES} bytes"
                )
    except BadPage as error:
        raise InvalidPoints(f"the Parquet file cannot be read: {error}") from error
