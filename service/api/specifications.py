"""Mixture specifications: from what a client writes to a mixture, and back."""

from typing import Any

import torch

from service.errors import FieldError, Unprocessable
from service.mixture import GaussianMixture, InvalidMixture
from service.schemas.mixture import MixtureSpecification
from service.storage.tables import MixtureRow


def mixture_of(specification: MixtureSpecification, place: tuple[str, ...] = ()) -> GaussianMixture:
    """Returns a specification as a mixture.

    Raises:
        Unprocessable: It is not one; the error points at the place in the body.
    """
    try:
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
    """Returns a stored mixture as one that answers questions."""
    return GaussianMixture(
        weights=torch.from_numpy(row.weights),
        means=torch.from_numpy(row.means),
        covariances=torch.from_numpy(row.covariances),
        covariance_type=row.covariance_type,
    )


def parameters_answer(mixture: GaussianMixture) -> dict[str, Any]:
    """Returns a mixture's parameters as `MixtureParameters`."""
    return {
        "weights": mixture.weights.tolist(),
        "means": mixture.means.tolist(),
        "covariances": mixture.covariances.tolist(),
        "covariance_type": mixture.covariance_type,
    }
