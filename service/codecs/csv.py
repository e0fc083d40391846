"""Comma-separated values: a line per point, with or without a first line that names the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, read_csv

from service.codecs.points import (
    DecodedPoints,
    InvalidPoints,
    Rows,
    Stream,
    Wanted,
    at,
    named,
    picked,
    require_width,
)
from service.codecs.tables import is_numeric, rows_of

BLOCK_BYTES = 4 << 20
"""How much is parsed at a time, and the longest line there may be."""

_MISSING = ("", "NA", "N/A", "null", "NULL", "None")


def read(stream: Stream, wanted: Wanted) -> DecodedPoints:
    """Returns the points of a text's columns.

    Raises:
        InvalidPoints: It is no such text, or a column that is asked for holds no numbers.
    """
    blocks = _blocks(stream)
    first = next(blocks, b"").removeprefix(b"\xef\xbb\xbf")
    fields = _first_line(first)
    require_width(len(fields), "the CSV")
    header = wanted.header if wanted.header is not None else not all(map(_is_number, fields))
    if header:
        first = first[first.find(b"\n") + 1 or len(first) :]
    names = fields if header else [f"c{index}" for index in range(len(fields))]
    unnamed = [str(index) for index in range(len(fields))]
    numeric = _numeric(first, unnamed) if first.strip() else [True] * len(fields)
    chosen = picked(names, numeric, wanted.columns if header else None, "the CSV")
    columns = [names[index] for index in chosen] if header else named(wanted.columns, len(chosen))
    chunks = _chunks(first, blocks, unnamed, chosen, columns)
    return DecodedPoints(len(chosen), columns, None, chunks)


def _blocks(stream: Stream) -> Iterator[bytes]:
    """Yields whole lines, about `BLOCK_BYTES` at a time."""
    rest = bytearray()
    while piece := stream.read(BLOCK_BYTES - len(rest) or 1):
        rest += piece
        if len(rest) < BLOCK_BYTES:
            continue
        end = rest.rfind(b"\n") + 1
        if not end:
            raise InvalidPoints(f"a line of the CSV is longer than the {BLOCK_BYTES} bytes that are read")
        yield bytes(rest[:end])
        del rest[:end]
    if rest:
        yield bytes(rest)


def _first_line(block: bytes) -> list[str]:
    line = block.partition(b"\n")[0].removesuffix(b"\r")
    try:
        fields = next(csv.reader(io.StringIO(line.decode()), strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidPoints("the first line of the CSV is not comma-separated UTF-8 text") from error
    if not fields:
        raise InvalidPoints("the CSV begins with an empty line; a line holds the numbers of a point")
    return [field.strip() for field in fields]


def _numeric(block: bytes, names: list[str]) -> list[bool]:
    """Returns which columns hold numbers: all of the block, or what it begins with."""
    kinds = [column.type for column in _parsed(block, names, None, 0).columns]
    begin = _first_line(block)
    return [is_numeric(kind) or _is_number(field) for kind, field in zip(kinds, begin, strict=True)]


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return field in _MISSING
    return True


def _parsed(block: bytes, names: list[str], chosen: list[int] | None, first: int) -> pa.Table:
    """Returns a block's columns: those chosen as doubles, or all of them as what they look like."""
    columns = names if chosen is None else [names[index] for index in chosen]
    convert = ConvertOptions(
        column_types=None if chosen is None else dict.fromkeys(columns, pa.float64()),
        include_columns=columns,
        null_values=_MISSING,
        true_values=[],
        false_values=[],
        timestamp_parsers=[],
    )
    # One block of its own: the reader's own blocks would each guess, and name rows from their own start.
    reading = ReadOptions(
        column_names=names, block_size=max(len(block), 1) + 1, use_threads=chosen is not None
    )
    try:
        return read_csv(pa.py_buffer(block), reading, ParseOptions(), convert)
    except pa.ArrowInvalid as error:
        raise _explained(block, names, chosen, first) from error


def _chunks(
    block: bytes, blocks: Iterator[bytes], names: list[str], chosen: list[int], columns: Sequence[str] | None
) -> Iterator[Rows]:
    n_rows = 0
    while True:
        if block.strip():
            for batch in _parsed(block, names, chosen, n_rows).combine_chunks().to_batches():
                yield rows_of(batch, n_rows, columns)
                n_rows += batch.num_rows
        following = next(blocks, None)
        if following is None:
            return
        block = following


def _explained(block: bytes, names: list[str], chosen: list[int] | None, first: int) -> InvalidPoints:
    """Returns what is wrong with a block that could not be parsed, by reading it line by line."""
    try:
        text = block.decode()
    except UnicodeDecodeError as error:
        row = first + block.count(b"\n", 0, error.start)
        return InvalidPoints(f"point {row} of the CSV is not UTF-8 text", (row,))
    lines = (line for line in csv.reader(io.StringIO(text, newline="")) if line)
    try:
        for row, line in enumerate(lines, first):
            if len(line) != len(names):
                return InvalidPoints(
                    f"point {row} has {len(line)} fields where the first line has {len(names)}", (row,)
                )
            for place, index in enumerate(chosen or ()):
                if not _is_number(line[index]):
                    return at(row, place, None, "is not a number")
    except csv.Error:
        pass  # said in general
    return InvalidPoints(f"the CSV cannot be read somewhere after point {first}")
