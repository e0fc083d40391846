"""JSON lists of numbers, written piece by piece."""

from collections.abc import Iterable, Iterator
from typing import Any

from numpy.typing import NDArray
from pydantic_core import to_json


def write(chunks: Iterable[NDArray[Any]]) -> Iterator[bytes]:
    """Yields one JSON list of all rows, (n,) or (n, C) a chunk; what is not finite is a string."""
    separator = b"["
    for chunk in chunks:
        if len(chunk):
            yield separator + to_json(chunk.tolist(), inf_nan_mode="strings")[1:-1]
            separator = b","
    yield b"[]" if separator == b"[" else b"]"
