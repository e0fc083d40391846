"""Some of a dataset's points, where all of them are more than anybody can look at."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.api.services import Services
from service.storage import datasets
from service.storage.parquet_folder import ParquetFolder
from service.storage.tables import DatasetRow

# Of points that are elsewhere, so many row groups and so many bytes of them are read at most.
_MOST_ROW_GROUPS, _MOST_BYTES = 8, 1 << 28


@dataclass(frozen=True)
class Drawn:
    """Points of a dataset.

    Attributes:
        places: (n,) which they are, in rising order.
        rows: (n, D).
        components: (n,) the true one of each; None unless the dataset is gold.
    """

    places: NDArray[np.int64]
    rows: NDArray[np.float64]
    components: NDArray[np.int64] | None


def drawn(services: Services, row: DatasetRow, size: int, seed: int) -> Drawn:
    """Returns `size` points of a dataset that was got with its files, drawn without replacement.

    The same dataset, size and seed give the same points; all of them when there are no more.
    """
    points = datasets.points_of(services.store, row)
    if isinstance(points, ParquetFolder):
        taken = _places_within(_some_groups(points, size, seed), size, seed)
    else:
        taken = _places(row.n_samples, size, seed)
    components: Any = None
    if row.components_sha256 is not None:
        components = services.store.open(row.components_sha256).at(taken)[:, 0]
    return Drawn(taken, points.at(taken), components)


def _places(n_samples: int, size: int, seed: int) -> NDArray[np.int64]:
    if size >= n_samples:
        return np.arange(n_samples)
    generator = np.random.Generator(np.random.PCG64(seed))
    return np.sort(generator.choice(n_samples, size, replace=False, shuffle=False))


def _places_within(runs: list[tuple[int, int]], size: int, seed: int) -> NDArray[np.int64]:
    """Returns places of points within runs of them, each from its first to before its last."""
    sizes = np.cumsum([stop - start for start, stop in runs])
    among = _places(int(sizes[-1]), size, seed)
    run = np.searchsorted(sizes, among, side="right")
    before = np.concatenate([[0], sizes[:-1]])
    starts = np.array([start for start, _ in runs], dtype=np.int64)
    places: NDArray[np.int64] = starts[run] + among - before[run]
    return places


def _some_groups(points: ParquetFolder, size: int, seed: int) -> list[tuple[int, int]]:
    """Returns the runs of some row groups, in order: few, unless those have fewer points than are wanted."""
    sizes = np.diff(points.starts)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(sizes))
    read = np.cumsum(sizes[order]) * points.n_columns * 8
    n_few = min(_MOST_ROW_GROUPS, max(1, int(np.searchsorted(read, _MOST_BYTES))))
    n_needed = int(np.searchsorted(np.cumsum(sizes[order]), size)) + 1
    chosen = np.sort(order[: max(n_few, n_needed)])
    return [(int(points.starts[number]), int(points.starts[number + 1])) for number in chosen]
