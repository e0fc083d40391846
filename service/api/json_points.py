"""JSON with many numbers, read some rows at a time.

A parser at work lets no other thread run, and what it makes of a text takes many times as much memory.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from service.api.bodies import Model, parse, refusal, refusal_at
from service.api.json_outline import Path, Span, outline, refused
from service.codecs.points import Rows
from service.codecs.spooled import Spooled
from service.errors import FieldError, Unprocessable
from service.schemas.dataset import ALL_ZERO
from service.schemas.numbers import Rows as JsonRows
from service.schemas.numbers import Weight, first_ragged

Item = TypeVar("Item")

POINTS: Mapping[Path, bytes] = {("points",): b"[[0]]"}
"""The long list of a body of points, and what stands for it while the rest is parsed."""

WEIGHTS: Mapping[Path, bytes] = {("weights",): b"[1]"}
"""The same for weights."""

# Parsing so much takes a millisecond or so.
_PIECE_BYTES = 65_536
_WHOLE_BYTES = _PIECE_BYTES
_LONGEST_ROW_BYTES = 1 << 20
_EMPTY = "List should have at least 1 item after validation, not 0"
_BETWEEN = re.compile(rb"\s*,")
_ROWS: TypeAdapter[list[list[float]]] = TypeAdapter(JsonRows)
_WEIGHTS: TypeAdapter[list[float]] = TypeAdapter(list[Weight])


@dataclass(frozen=True)
class Posted(Generic[Model]):
    """A JSON body whose long lists are read when they are asked for.

    Attributes:
        fields: The body as a model, with something short in place of its long lists.
    """

    fields: Model
    _body: Spooled
    _spans: Mapping[Path, Span]

    def points(self, path: Path) -> Iterator[Rows] | None:
        """Returns the points at a place, (n, D) at a time, or None where there are none.

        Raises:
            Unprocessable: As they are read: they are not rows of numbers, or not all of one length.
        """
        if path in self._spans:
            return _points(self._body, path, self._spans[path])
        value = _at(self.fields, path)
        return None if value is None else iter([np.array(value, dtype=np.float64)])

    def weights(self, path: Path) -> Iterator[Rows] | None:
        """Returns the weights at a place, (n, 1) at a time, or None where there are none.

        Raises:
            Unprocessable: As they are read: they are not numbers of at least 0, or all of them are 0.
        """
        if path in self._spans:
            return _weights(self._body, path, self._spans[path])
        value = _at(self.fields, path)
        return None if value is None else iter([np.array(value, dtype=np.float64)[:, None]])


def posted(model: type[Model], body: Spooled, short: Mapping[Path, bytes]) -> Posted[Model]:
    """Returns a JSON body.

    Args:
        model: What it must fit.
        body: The text.
        short: Where long lists may be, and what stands for each while the rest is parsed.

    Raises:
        Unprocessable: What is not in the lists does not fit.
    """
    if len(body.buffer) <= _WHOLE_BYTES:
        return Posted(parse(model, body.buffer[:]), body, {})
    outlined = outline(body, short)
    return Posted(parse(model, outlined.rest), body, outlined.spans)


def _at(fields: BaseModel, path: Path) -> Any:
    value: Any = fields
    for name in path:
        value = None if value is None else getattr(value, name)
    return value


def _points(body: Spooled, path: Path, span: Span) -> Iterator[Rows]:
    n_rows = n_features = 0
    ragged = ""
    for piece in _pieces(body, path, span, b"]"):
        rows = _parsed(_ROWS, piece, path, n_rows)
        if not rows:
            raise _not_a_list(path, n_rows) if n_rows else refusal_at([FieldError(path, _EMPTY)])
        n_features = n_features or len(rows[0])
        ragged = ragged or first_ragged(rows, n_features, n_rows)
        if not ragged:  # otherwise only a mistake that is worse is looked for
            yield np.array(rows, dtype=np.float64)
        n_rows += len(rows)
    if ragged:
        raise refusal_at([FieldError(path, ragged)])


def _weights(body: Spooled, path: Path, span: Span) -> Iterator[Rows]:
    n_rows, any_counts = 0, False
    for piece in _pieces(body, path, span, b","):
        numbers = np.array(_parsed(_WEIGHTS, piece, path, n_rows), dtype=np.float64)
        any_counts = any_counts or bool(numbers.any())
        yield numbers[:, None]
        n_rows += len(numbers)
    if not any_counts:
        raise refusal_at([FieldError(path[:-1], ALL_ZERO)])


def _pieces(body: Spooled, path: Path, span: Span, end_mark: bytes) -> Iterator[bytes]:
    """Yields lists of some items each; an item may end where this mark is.

    A list is its pieces with commas in between, so it is right when all of them are.
    """
    text, (at, end) = body.buffer, (span[0] + 1, span[1] - 1)
    while True:
        last = min(end, at + _PIECE_BYTES + _LONGEST_ROW_BYTES)
        close = text.find(end_mark, min(at + _PIECE_BYTES, end), last)
        if close < 0 and last < end:
            raise refused(f"one item of {'.'.join(path)} takes more than {_LONGEST_ROW_BYTES} bytes")
        close = end if close < 0 else close + (end_mark == b"]")
        yield b"[" + text[at:close] + b"]"
        body.seen(close - at)
        comma = _BETWEEN.match(text, close, min(end, close + _PIECE_BYTES))
        if comma is None:
            if close + _PIECE_BYTES < end or text[close:end].strip(b" \t\r\n"):
                yield b"nothing but a comma goes between items"
            return
        at = comma.end()


def _parsed(kind: TypeAdapter[list[Item]], piece: bytes, path: Path, n_before: int) -> list[Item]:
    """Returns the items of a piece, of which so many come before it."""
    try:
        return kind.validate_json(piece)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    for detail in details:
        if detail["type"] == "json_invalid":
            raise _not_a_list(path, n_before)
        item, *rest = detail["loc"]
        detail["loc"] = (*path, n_before + int(item), *rest)
    raise refusal(details)


def _not_a_list(path: Path, item: int) -> Unprocessable:
    return refusal_at([FieldError(path, f"from item {item} on this is not JSON, or not what it should be")])
