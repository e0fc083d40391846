"""Mixtures to draw."""

import numpy as np
import pytest

from service.mixture import GaussianMixture
from tests.serving import GOLD


@pytest.fixture
def gold() -> GaussianMixture:
    return GaussianMixture.from_parameters(**GOLD)


@pytest.fixture
def univariate() -> GaussianMixture:
    return GaussianMixture.from_parameters(
        weights=[0.3, 0.7], means=[[0], [4]], covariances=[[[1]], [[0.01]]]
    )


def drawn(mixture: GaussianMixture, n_samples: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points and their components, as arrays."""
    points, components = mixture.sample(n_samples, seed)
    return points.numpy(), components.numpy()
