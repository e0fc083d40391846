"""Mixture specifications: from what a client writes to a mixture, and back."""

from typing import Any

import torch

from service.errors import FieldError, Unprocessable
from service.mixture import GaussianMixture, InvalidMixture
from service.schemas.mixture import MixtureSpecification
from service.storage.tables import MixtureRow

# What a mixture takes, whatever its type, for each of its K * D * D numbers: written out in an answer, where
# they are objects of Python, and JSON; and ready for questions, with covariances and their factors.
_BYTES_WRITTEN = 100
_BYTES_PREPARED = 32
_MOST_BYTES = 2 << 30


def size_bytes(n_components: int, n_features: int) -> int:
    """Returns how much memory an answer takes that holds a mixture."""
    return _BYTES_WRITTEN * n_components * n_features**2


def mixture_of(specification: MixtureSpecification, place: tuple[str, ...] = ()) -> GaussianMixture:
    """Returns a specification as a mixture.

    Raises:
        Unprocessable: It is not one; the error points at the place in the body.
    """
    try:
        _require_size(len(specification.weights), len(specification.means[0]))
        return GaussianMixture.from_parameters(
            weights=specification.weights,
            means=specification.means,
            covariances=specification.covariances,
            covariance_type=specification.covariance_type,
            standard_deviations=specification.standard_deviations,
            correlations=specification.correlations,
        )
    except InvalidMixture as error:
        errors = [FieldError((*place, *error.path), str(error))]
        raise Unprocessable(f"The mixture is not valid: {error}.", errors, code="INVALID_MIXTURE") from error


def mixture_of_row(row: MixtureRow) -> GaussianMixture:
    """Returns a stored mixture as one that answers questions.

    Raises:
        Unprocessable: Its matrices are too large; those of 1024 components of 256 features are not.
    """
    _require_servable(row, _BYTES_PREPARED)
    return GaussianMixture(
        weights=torch.from_numpy(row.weights),
        means=torch.from_numpy(row.means),
        covariances=torch.from_numpy(row.covariances),
        covariance_type=row.covariance_type,
    )


def require_servable_mixture(row: MixtureRow) -> None:
    """Refuses to write out the matrices of a stored mixture that is too large, as that of a fit may be.

    Raises:
        Unprocessable: It is.
    """
    _require_servable(row, _BYTES_WRITTEN)


def _require_servable(row: MixtureRow, bytes_per_number: int) -> None:
    n_components, n_features = row.means.shape
    size = bytes_per_number * n_components * n_features**2
    if size > _MOST_BYTES:
        raise Unprocessable(
            f"The matrices of {row.id}, {n_components} of {n_features} features, take about {size} bytes; "
            f"at most {_MOST_BYTES} are served.",
            code="ANSWER_TOO_LARGE",
        )


def _require_size(n_components: int, n_features: int) -> None:
    size = size_bytes(n_components, n_features)
    if size > _MOST_BYTES:
        raise InvalidMixture(
            f"{n_components} components of {n_features} features take about {size} bytes; "
            f"at most {_MOST_BYTES} are taken",
            ("means",),
        )


def parameters_answer(mixture: GaussianMixture) -> dict[str, Any]:
    """Returns a mixture's parameters as `MixtureParameters`."""
    return {
        "weights": mixture.weights.tolist(),
        "means": mixture.means.tolist(),
        "covariances": mixture.covariances.tolist(),
        "covariance_type": mixture.covariance_type,
    }
