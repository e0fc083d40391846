"""Points that are fetched while a fit needs them, from a store that may be away for a while."""

import logging
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.errors import Unavailable
from service.mixture import BlockedPoints, FetchedBlocks
from service.storage.parquet_folder import ParquetFolder

logger = logging.getLogger(__name__)

# Two minutes in all: a store that was restarted is back by then. Who wants the fit to end kills this process.
PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)


def fetched(
    folder: ParquetFolder, kept_bytes: int, offset: int = 0, n_rows: int | None = None
) -> BlockedPoints:
    """Returns a run of points (D, n) that are read where they lie when they are looked at, by row groups.

    Looking at them may raise what reading a `ParquetFolder` does.

    Args:
        folder: Where they lie.
        kept_bytes: How much of them may be kept in memory.
        offset: The first of them.
        n_rows: How many; all that follow unless given.
    """
    stop = folder.n_rows if n_rows is None else offset + n_rows
    first = int(np.searchsorted(folder.starts, offset, side="right")) - 1
    last = int(np.searchsorted(folder.starts, stop, side="left"))
    starts = np.clip(folder.starts[first : last + 1], offset, stop) - offset

    def fetch(number: int) -> Tensor:
        before = max(0, offset - int(folder.starts[first + number]))
        size = int(starts[number + 1] - starts[number])
        own = _patiently(folder, first + number)[:, before : before + size]
        return torch.from_numpy(np.ascontiguousarray(own))

    return BlockedPoints(FetchedBlocks(folder.n_columns, torch.from_numpy(starts), fetch, kept_bytes))


def _patiently(folder: ParquetFolder, number: int) -> Any:
    for pause in PAUSES_SECONDS:
        try:
            return folder.row_group(number)
        except Unavailable as error:
            logger.warning("row group %d is asked for again in %.1f s: %s", number, pause, error.detail)
            time.sleep(pause)
    return folder.row_group(number)
