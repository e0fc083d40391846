"""The points of a stored dataset on their way out, piece by piece."""

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray
from pydantic_core import to_json

from service.api.services import Services
from service.codecs import arrow, json, npy
from service.codecs.registry import ARROW, NPY
from service.storage import datasets
from service.storage.tables import DatasetRow


def written(
    services: Services, row: DatasetRow, media_type: str, offset: int, n_rows: int
) -> Iterator[bytes | memoryview]:
    """Returns a run of a dataset's points in one of `WRITABLE`; its file is opened at once."""
    points = datasets.points_of(services.store, row).rows(offset, n_rows)
    if media_type == NPY:
        return npy.write((n_rows, row.n_features), points)
    if media_type == ARROW:
        names = row.columns or [f"x{index}" for index in range(row.n_features)]
        return arrow.write(names, ["float64"] * row.n_features, (list(rows.T) for rows in points))
    components = None
    if row.components_sha256 is not None:
        components = services.store.open(row.components_sha256).rows(offset, n_rows)
    return _as_json(points, components, {"offset": offset, "n_samples": row.n_samples})


def _as_json(
    points: Iterator[NDArray[Any]], components: Iterator[NDArray[Any]] | None, rest: dict[str, int]
) -> Iterator[bytes]:
    yield b'{"points":'
    yield from json.write(points)
    if components is not None:
        yield b',"components":'
        yield from json.write(rows[:, 0] for rows in components)
    yield b"," + to_json(rest)[1:]
