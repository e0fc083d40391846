"""Points as JSON, some rows at a time where they are many: a parser at work lets no other thread run."""

import re
from collections.abc import Iterator

import numpy as np
from pydantic import TypeAdapter, ValidationError

from service.api.bodies import parse, refusal, refused
from service.api.points import PostedPoints, Rows, require_columns
from service.errors import FieldError
from service.schemas.mixture import PointsBody
from service.schemas.numbers import Rows as JsonRows
from service.schemas.numbers import first_ragged

# Parsing so much takes a millisecond or so.
_PIECE_BYTES = 65_536
_START = re.compile(rb'\s*\{\s*"points"\s*:\s*\[')
_END = re.compile(rb"\]\s*\}\s*\Z")
_BETWEEN = re.compile(rb"\s*,")
_ROWS: TypeAdapter[list[list[float]]] = TypeAdapter(JsonRows)


def points_of_json(body: bytes | bytearray) -> PostedPoints:
    """Returns the points of a JSON body.

    Raises:
        Unprocessable: It does not fit `PointsBody`.
    """
    if len(body) > _PIECE_BYTES:
        pieces = _pieces(body)
        rows = None if pieces is None else _read(body, pieces)
        if rows is not None:
            return PostedPoints(rows, None)
    parsed = parse(PointsBody, body)
    points = np.array(parsed.points, dtype=np.float64)
    require_columns(parsed.columns, points.shape[1])
    return PostedPoints(points, parsed.columns)


def _pieces(body: bytes | bytearray) -> Iterator[bytes] | None:
    """Returns lists of some rows each, or None for a body that holds more than points.

    A body is its pieces with commas in between, so it is right when all of them are lists of rows.
    """
    start, end = _START.match(body), _END.search(body, max(0, len(body) - 1000))
    return None if start is None or end is None else _cut(body, start.end(), end.start())


def _cut(body: bytes | bytearray, position: int, end: int) -> Iterator[bytes]:
    while True:
        close = body.find(b"]", min(position + _PIECE_BYTES, end), end) + 1 or end
        yield b"[" + body[position:close] + b"]"
        comma = _BETWEEN.match(body, close, end)
        if comma is None:
            if body[close:end].strip(b" \t\r\n"):
                yield b"nothing but a comma goes between rows"
            return
        position = comma.end()


def _read(body: bytes | bytearray, pieces: Iterator[bytes]) -> Rows | None:
    """Returns all rows, or None where the whole body is to be looked at, to say what is wrong with it."""
    arrays: list[Rows] = []
    n_rows = 0
    ragged = ""
    for piece in pieces:
        try:
            rows = _ROWS.validate_json(piece)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            if any(detail["type"] == "json_invalid" for detail in details):
                return None
            for detail in details:
                row, *rest = detail["loc"]
                detail["loc"] = ("points", n_rows + int(row), *rest)
            raise refusal(details) from error
        if not rows:
            return None
        n_features = arrays[0].shape[1] if arrays else len(rows[0])
        ragged = ragged or first_ragged(rows, n_features, n_rows)
        if not ragged:  # otherwise only a mistake that is worse is looked for
            arrays.append(np.array(rows, dtype=np.float64))
        n_rows += len(rows)
    if ragged:
        raise refused([FieldError(("points",), ragged)])
    return np.concatenate(arrays)
