"""What is printed of a mixture's components."""

from typing import Any

import numpy as np


def standard_deviations(mixture: dict[str, Any]) -> list[list[float]]:
    """Returns the standard deviations (K, D) of parameters in any covariance type, in data units."""
    covariances = np.array(mixture["covariances"], dtype=np.float64)
    shape = np.shape(mixture["means"])
    kind = mixture["covariance_type"]
    if kind == "spherical":
        covariances = covariances[:, None]
    elif kind != "diag":
        covariances = np.diagonal(covariances, axis1=-2, axis2=-1)
    rows: list[list[float]] = np.sqrt(np.broadcast_to(covariances, shape)).tolist()
    return rows
