"""Data sets of different kind for comparing whole fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets

Array = np.ndarray[Any, Any]
REFERENCE = Path(__file__).parent.parent / "tests" / "reference"


@dataclass(frozen=True)
class Problem:
    """Points (N, D) and what to fit to them."""

    name: str
    points: Array
    n_components: int
    covariance_type: str = "full"


def _clusters(
    seed: int, n_samples: int, n_features: int, n_components: int, *, spread: float, stretch: float = 1.0
) -> Array:
    """Gaussian clusters; spread is the distance of centres, stretch the ratio of their axes."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(n_components, n_samples, p=generator.dirichlet(np.full(n_components, 5.0)))
    centres = spread * generator.normal(size=(n_components, n_features))
    points = np.empty((n_samples, n_features))
    for k in range(n_components):
        rotation = np.linalg.qr(generator.normal(size=(n_features, n_features)))[0]
        scales = np.geomspace(1, stretch, n_features)
        rows = labels == k
        points[rows] = centres[k] + (generator.normal(size=(rows.sum(), n_features)) * scales) @ rotation
    return points


def _gold(n_samples: int) -> Array:
    generator = np.random.default_rng(0)
    labels = generator.choice(3, n_samples, p=[0.2, 0.4, 0.4])
    means = np.array([[-1, -1], [-1, 1], [1, 1]])
    covariances = np.array([[[0.25, 0], [0, 0.04]], [[0.09, 0], [0, 0.09]], [[0.16, 0.16], [0.16, 0.25]]])
    factors = np.linalg.cholesky(covariances)
    points: Array = means[labels] + np.einsum(
        "nij,nj->ni", factors[labels], generator.normal(size=(n_samples, 2))
    )
    return points


def _parallel(n_samples: int) -> Array:
    """Four long thin clusters side by side, which Euclidean k-means cuts across."""
    generator = np.random.default_rng(1)
    labels = generator.integers(4, size=n_samples)
    along, across = 10 * generator.normal(size=n_samples), 0.3 * generator.normal(size=n_samples)
    answer: Array = np.column_stack([along, 2 * labels + across]) @ np.array([[0.8, 0.6], [-0.6, 0.8]])
    return answer


def _mixed_scales(n_samples: int) -> Array:
    points = _clusters(2, n_samples, 4, 4, spread=3)
    answer: Array = points * np.array([1e-6, 1.0, 1e3, 1e6])
    return answer


def _background(n_samples: int) -> Array:
    """Three tight clusters in uniform noise."""
    generator = np.random.default_rng(3)
    noise = generator.uniform(-5, 5, size=(n_samples // 2, 2))
    return np.vstack([noise, 0.3 * generator.normal(size=(n_samples // 2, 2)) + [[-2, 0]]])


def _heavy_tails(n_samples: int) -> Array:
    generator = np.random.default_rng(4)
    answer: Array = generator.standard_t(4, size=(n_samples, 2)) + 3 * generator.integers(
        2, size=(n_samples, 1)
    )
    return answer


def _columns(name: str) -> Array:
    answer: Array = np.loadtxt(REFERENCE / f"{name}.csv", delimiter=",", skiprows=1)
    return answer


def _digits() -> Array:
    pixels = datasets.load_digits().data
    answer: Array = pixels[:, pixels.std(axis=0) > 0]
    return answer


MAKERS: list[Callable[[], Problem]] = [
    lambda: Problem("gold", _gold(1000), 3),
    lambda: Problem("separated", _clusters(5, 2000, 2, 5, spread=10), 5),
    lambda: Problem("overlapping", _clusters(6, 5000, 2, 3, spread=1), 3),
    lambda: Problem("overlapping-6d", _clusters(7, 5000, 6, 4, spread=0.8), 4),
    lambda: Problem("anisotropic", _clusters(8, 3000, 3, 4, spread=6, stretch=20), 4),
    lambda: Problem("parallel", _parallel(3000), 4),
    lambda: Problem("mixed-scales", _mixed_scales(3000), 4),
    lambda: Problem("background", _background(4000), 4),
    lambda: Problem("heavy-tails", _heavy_tails(5000), 3),
    lambda: Problem("univariate", _clusters(9, 10_000, 1, 3, spread=1.5), 3),
    lambda: Problem("high-d", _clusters(10, 5000, 32, 8, spread=1.5), 8),
    lambda: Problem("many-components", _clusters(11, 10_000, 2, 20, spread=8), 20),
    lambda: Problem("large-n", _clusters(12, 1_000_000, 2, 5, spread=3), 5),
    lambda: Problem("large-n-16d", _clusters(13, 200_000, 16, 8, spread=1.5), 8),
    lambda: Problem("diag-16d", _clusters(14, 20_000, 16, 8, spread=1.5), 8, "diag"),
    lambda: Problem("tied-8d", _clusters(15, 10_000, 8, 5, spread=1.5), 5, "tied"),
    lambda: Problem("faithful", _columns("faithful"), 2),
    lambda: Problem("iris", _columns("iris"), 3),
    lambda: Problem("wine", datasets.load_wine().data, 3),
    lambda: Problem("breast-cancer", datasets.load_breast_cancer().data, 2),
    lambda: Problem("digits", _digits(), 10, "diag"),
]


def problems(names: list[str]) -> Iterator[Problem]:
    """Those named, or all, made one by one."""
    for make in MAKERS:
        problem = make()
        if not names or problem.name in names:
            yield problem
