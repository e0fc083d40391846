"""Some of a dataset's points, where all of them are more than anybody can look at."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.api.services import Services


def places(n_samples: int, size: int, seed: int) -> NDArray[np.int64]:
    """Returns which points to take, in rising order: `size` of `n_samples`, drawn without replacement.

    The same three give the same places; all of them when there are no more than `size`.
    """
    if size >= n_samples:
        return np.arange(n_samples)
    generator = np.random.Generator(np.random.PCG64(seed))
    return np.sort(generator.choice(n_samples, size, replace=False, shuffle=False))


def rows_at(services: Services, sha256: str, taken: NDArray[np.int64]) -> NDArray[Any]:
    """Returns the rows (n, C) of a stored file at these places."""
    return services.store.open(sha256).at(taken)
