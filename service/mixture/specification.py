"""Reading a mixture specification: every number checked, every complaint with a cure."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.mixture.invalid import InvalidMixture
from service.mixture.storage_types import STORAGE_TYPES

WEIGHT_SUM_TOLERANCE = 1e-6
LEAST_VARIANCE, LARGEST_VARIANCE = 1e-150, 1e150
SYMMETRY_TOLERANCE = 1e-8  # relative to the geometric mean of the two variances


def read(
    weights: Any,
    means: Any,
    covariances: Any,
    covariance_type: str,
    standard_deviations: Any,
    correlations: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Checked float64 weights (K,), means (K, D) and covariances in the shape of their type.

    Raises:
        InvalidMixture: for the first value found wrong.
    """
    if covariance_type not in STORAGE_TYPES:
        known = ", ".join(STORAGE_TYPES)
        raise InvalidMixture(
            f"covariance_type {covariance_type!r} is not one of {known}", ("covariance_type",)
        )
    checked_weights = _weights(weights)
    n_components = checked_weights.shape[0]
    checked_means = _tensor(means, "means")
    if checked_means.ndim != 2 or checked_means.shape[0] != n_components or checked_means.shape[1] < 1:
        raise InvalidMixture(
            f"means has shape {_shape(checked_means)}; with {n_components} weights it must be"
            f" ({n_components}, D), one row of D >= 1 numbers per component",
            ("means",),
        )
    n_features = checked_means.shape[1]
    if (covariances is None) == (standard_deviations is None):
        raise InvalidMixture("give either covariances or standard_deviations", ("covariances",))
    if covariances is None:
        built = _from_standard_deviations(
            standard_deviations, correlations, covariance_type, n_components, n_features
        )
    else:
        if correlations is not None:
            raise InvalidMixture(
                "correlations go with standard_deviations, not with covariances", ("correlations",)
            )
        built = _tensor(covariances, "covariances")
        _check_shape(
            built,
            "covariances",
            STORAGE_TYPES[covariance_type].shape(n_components, n_features),
            covariance_type,
        )
    _check_range(built, covariance_type)
    _check_positive_definite(built, covariance_type)
    if built.ndim >= 2 and covariance_type in ("full", "tied"):
        built = 0.5 * (built + built.mT)
    return checked_weights, checked_means, built


def _tensor(values: Any, name: str) -> Tensor:
    """Float64 numbers in a regular array, all finite."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InvalidMixture(f"{name} is ragged: its rows have different lengths", (name,)) from error
    if array.dtype.kind not in "fiu" or array.size == 0:
        raise InvalidMixture(f"{name} must be a regular, non-empty array of numbers", (name,))
    numbers = torch.from_numpy(np.array(array, dtype=np.float64))
    if not bool(torch.isfinite(numbers).all()):
        where = tuple(int(i) for i in (~torch.isfinite(numbers)).nonzero()[0])
        raise InvalidMixture(f"{name} must be finite numbers; there is a NaN or an infinity", (name, *where))
    return numbers


def _weights(weights: Any) -> Tensor:
    checked = _tensor(weights, "weights")
    if checked.ndim != 1:
        raise InvalidMixture(f"weights has shape {_shape(checked)}; it must be (K,)", ("weights",))
    if bool((checked < 0).any()):
        k = int(checked.argmin())
        raise InvalidMixture(
            f"weight {k} is {float(checked[k])}; weights must not be negative", ("weights", k)
        )
    total = float(checked.sum())
    if abs(total - 1.0) > WEIGHT_SUM_TOLERANCE:
        raise InvalidMixture(f"weights sum to {total:.9g}; they must sum to 1 within 1e-6", ("weights",))
    return checked / checked.sum()


def _from_standard_deviations(
    standard_deviations: Any, correlations: Any, covariance_type: str, n_components: int, n_features: int
) -> Tensor:
    if covariance_type not in ("full", "diag"):
        raise InvalidMixture(
            f"standard_deviations are for full and diag covariances; give covariances for {covariance_type}",
            ("standard_deviations",),
        )
    scales = _tensor(standard_deviations, "standard_deviations")
    _check_shape(scales, "standard_deviations", (n_components, n_features), covariance_type)
    if bool((scales <= 0).any()):
        k, d = (int(i) for i in (scales <= 0).nonzero()[0])
        raise InvalidMixture(
            f"standard deviation {d} of component {k} is {float(scales[k, d])}; it must be positive",
            ("standard_deviations", k, d),
        )
    if covariance_type == "diag":
        if correlations is not None:
            raise InvalidMixture("diag covariances have no correlations; use full", ("correlations",))
        return scales.square()
    if correlations is None:
        return torch.diag_embed(scales.square())
    matrices = _tensor(correlations, "correlations")
    _check_shape(matrices, "correlations", (n_components, n_features, n_features), covariance_type)
    off_one = (matrices.diagonal(dim1=-2, dim2=-1) - 1).abs().amax(dim=1)
    if bool((off_one > SYMMETRY_TOLERANCE).any()):
        k = int(off_one.argmax())
        raise InvalidMixture(
            f"the correlations of component {k} must have ones on the diagonal", ("correlations", k)
        )
    return matrices * scales.unsqueeze(-1) * scales.unsqueeze(-2)


def _check_shape(values: Tensor, name: str, expected: tuple[int, ...], covariance_type: str) -> None:
    if tuple(values.shape) != expected:
        raise InvalidMixture(
            f"{name} has shape {_shape(values)}; for covariance_type {covariance_type} and these means"
            f" it must be {_shape(torch.empty(expected, device='meta'))}",
            (name,),
        )


def _check_range(covariances: Tensor, covariance_type: str) -> None:
    """Refuses variances whose inverses, squares of which are summed, or scales would be infinite or zero."""
    is_matrix = covariance_type in ("full", "tied")
    variances = covariances.diagonal(dim1=-2, dim2=-1) if is_matrix else covariances
    usable = (variances <= 0) | ((variances >= LEAST_VARIANCE) & (variances <= LARGEST_VARIANCE))
    if not bool(usable.all()):
        place = tuple(int(i) for i in (~usable).nonzero()[0])
        raise InvalidMixture(
            f"a variance is {float(variances[place]):.6g}; variances must be from {LEAST_VARIANCE:g} to"
            f" {LARGEST_VARIANCE:g}, so choose other units",
            ("covariances", *place),
        )


def _check_positive_definite(covariances: Tensor, covariance_type: str) -> None:
    """Refuses what has no Cholesky factor to rounding; names the component and its smallest eigenvalue."""
    if covariance_type in ("diag", "spherical"):
        if bool((covariances <= 0).any()):
            k = int((covariances <= 0).nonzero()[0][0])
            smallest = float(covariances[k].min())
            raise _not_positive_definite(f"component {k}", smallest, ("covariances", k))
        return
    for k, covariance in enumerate(covariances.reshape(-1, *covariances.shape[-2:])):
        tied = covariance_type == "tied"
        name = "every component (tied)" if tied else f"component {k}"
        path: tuple[str | int, ...] = ("covariances",) if tied else ("covariances", k)
        variances = covariance.diagonal()
        if bool((variances > 0).all()):
            scales = variances.sqrt()
            correlation = covariance / scales / scales[:, None]
            if bool(((correlation - correlation.T).abs() > SYMMETRY_TOLERANCE).any()):
                raise InvalidMixture(f"the covariance of {name} is not symmetric", path)
            # In correlation units a feature's scale does not matter, so rounding has one measure.
            rounding = len(scales) * 4 * torch.finfo(torch.float64).eps
            if float(torch.linalg.eigvalsh(0.5 * (correlation + correlation.T))[0]) > rounding:
                continue
        smallest = float(torch.linalg.eigvalsh(0.5 * (covariance + covariance.T))[0])
        raise _not_positive_definite(name, smallest, path)


def _not_positive_definite(name: str, smallest: float, path: tuple[str | int, ...]) -> InvalidMixture:
    return InvalidMixture(
        f"the covariance of {name} is not positive definite: its smallest eigenvalue is {smallest:.6g};"
        " all eigenvalues must be positive",
        path,
    )


def _shape(values: Tensor) -> str:
    return "(" + ", ".join(str(size) for size in values.shape) + ("," if values.ndim == 1 else "") + ")"
