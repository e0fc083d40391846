"""Arrow IPC streams: one column of numbers per feature."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.codecs.points import DecodedPoints, InvalidPoints, Rows, Stream, Wanted, chunk_rows, picked
from service.codecs.spooled import Spooled, spooled
from service.codecs.tables import is_numeric, rows_of

_SPOKEN = "send an Arrow IPC stream (not a file) of uncompressed record batches"
# What each message begins with, and the places of fields in its head (Arrow's Message.fbs).
_CONTINUATION = 0xFFFFFFFF
_HEADER_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_DATA, _COMPRESSION = 1, 3
# That of the first message tells of the columns, which takes more memory once it is read.
_LARGEST_HEAD_BYTES = 4 << 20


def read(stream: Stream, wanted: Wanted) -> DecodedPoints:
    """Returns the points of a stream's columns.

    Raises:
        InvalidPoints: It is no stream, or a column that is asked for holds no numbers.
    """
    whole = spooled(stream, wanted.scratch)
    try:
        _refuse_compressed(whole.buffer)
        schema = pa.ipc.open_stream(pa.py_buffer(whole.buffer)).schema
    except (pa.ArrowException, OSError, struct.error, IndexError) as error:
        raise InvalidPoints(f"the body does not begin as an Arrow stream does; {_SPOKEN}") from error
    chosen = picked(schema.names, [is_numeric(kind) for kind in schema.types], wanted.columns, "the stream")
    columns = [schema.names[index] for index in chosen]
    return DecodedPoints(len(columns), columns, None, _chunks(whole, chosen, columns))


def _chunks(whole: Spooled, chosen: list[int], columns: list[str]) -> Iterator[Rows]:
    # Only the chosen ones are looked at; the reader hands them out in the stream's own order.
    options = pa.ipc.IpcReadOptions(included_fields=sorted(chosen))
    places = [sorted(chosen).index(index) for index in chosen]
    at_once, n_rows = chunk_rows(len(columns)), 0
    try:
        for batch in pa.ipc.open_stream(pa.py_buffer(whole.buffer), options=options):
            batch.validate(full=True)
            for start in range(0, batch.num_rows, at_once):
                part = batch.slice(start, at_once).select(places)
                yield rows_of(part, n_rows, columns)
                n_rows += part.num_rows
                whole.seen(part.nbytes)
    except (pa.ArrowException, OSError) as error:
        raise InvalidPoints(f"the Arrow stream cannot be read after point {n_rows}; {_SPOKEN}") from error


def _refuse_compressed(buffer: Any) -> None:
    """Refuses messages whose buffers are compressed.

    They say themselves how much they grow to, and that much is taken before a byte of it is there.

    Raises:
        InvalidPoints: There is one, or what follows a message is none.
    """
    start = 0
    while start + 8 <= len(buffer):
        mark, length = struct.unpack_from("<Ii", buffer, start)
        if (mark, length) == (_CONTINUATION, 0):
            return
        if mark != _CONTINUATION or length < 0:
            raise IndexError
        if length > _LARGEST_HEAD_BYTES:
            raise InvalidPoints(
                f"the stream has a message with a head of {length} bytes; "
                f"at most {_LARGEST_HEAD_BYTES} are read"
            )
        header = _Table.root(bytes(buffer[start + 8 : start + 8 + length]))
        batch = header.table(_HEADER) if header.number(_HEADER_TYPE, "<B") == _RECORD_BATCH else None
        if header.number(_HEADER_TYPE, "<B") == _DICTIONARY_BATCH:
            batch = header.table(_HEADER).table(_DATA)
        if batch is not None and batch.place(_COMPRESSION):
            raise InvalidPoints(
                "the stream's buffers are compressed; send them as they are, and compress the whole body "
                "with Content-Encoding: zstd instead"
            )
        body_length = header.number(_BODY_LENGTH, "<q")
        if body_length < 0:
            raise IndexError
        start += 8 + length + body_length


@dataclass(frozen=True)
class _Table:
    """A flatbuffers table within bytes."""

    data: bytes
    start: int

    @classmethod
    def root(cls, data: bytes) -> "_Table":
        return cls(data, struct.unpack_from("<I", data)[0])

    def place(self, field: int) -> int | None:
        """Returns where a field is, None where it has its default."""
        vtable = self.start - struct.unpack_from("<i", self.data, self.start)[0]
        if vtable < 0:
            raise IndexError
        entry = 4 + 2 * field
        (size,) = struct.unpack_from("<H", self.data, vtable)
        offset = struct.unpack_from("<H", self.data, vtable + entry)[0] if entry < size else 0
        return self.start + offset if offset else None

    def number(self, field: int, kind: str) -> int:
        place = self.place(field)
        return 0 if place is None else int(struct.unpack_from(kind, self.data, place)[0])

    def table(self, field: int) -> "_Table":
        place = self.place(field)
        if place is None:
            raise IndexError
        return _Table(self.data, place + struct.unpack_from("<I", self.data, place)[0])


def write(
    columns: Sequence[str], dtypes: Sequence[str], chunks: Iterable[Sequence[NDArray[Any]]]
) -> Iterator[bytes]:
    """Yields an Arrow stream, a record batch for each chunk.

    Args:
        columns: The columns' names, C of them.
        dtypes: The columns' types, `float64` or `int64`.
        chunks: The columns' values, C arrays (n,) each.
    """
    schema = pa.schema(
        [
            pa.field(name, pa.from_numpy_dtype(np.dtype(dtype)), nullable=False)
            for name, dtype in zip(columns, dtypes, strict=True)
        ]
    )
    sink = _Sink()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
        yield from sink.written()
        for chunk in chunks:
            arrays = [
                pa.array(np.ascontiguousarray(column, dtype))
                for column, dtype in zip(chunk, dtypes, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            yield from sink.written()
    yield from sink.written()


class _Sink:
    """Takes what a writer writes, until it is fetched."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: Any) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """Nothing is kept back."""

    def written(self) -> Iterator[bytes]:
        whole = b"".join(self._pieces)
        self._pieces.clear()
        if whole:
            yield whole
