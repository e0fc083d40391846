"""Every format of points, by its media type."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from service.codecs import arrow, csv, npy, parquet
from service.codecs.points import DecodedPoints, InvalidPoints, Reader, Rows, Stream, Wanted

JSON = "application/json"
NPY = "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
CSV = "text/csv"

READERS: Mapping[str, Reader] = MappingProxyType(
    {NPY: npy.read, ARROW: arrow.read, PARQUET: parquet.read, CSV: csv.read}
)
"""What reads points as they stream in. JSON is read by what holds its other fields, too."""

WRITABLE = (NPY, ARROW, JSON)
"""What points and per-point answers are written in, the default last."""


def read(media_type: str, stream: Stream, wanted: Wanted) -> DecodedPoints:
    """Returns the points in a stream of one of `READERS`.

    Raises:
        InvalidPoints: They are not points, at once or as the chunks are read.
    """
    decoded = READERS[media_type](stream, wanted)
    return replace(decoded, chunks=_some(decoded.chunks))


def _some(chunks: Iterator[Rows]) -> Iterator[Rows]:
    n_rows = 0
    for rows in chunks:
        n_rows += len(rows)
        yield rows
    if n_rows == 0:
        raise InvalidPoints("there are no points in the body; send at least one")
