"""One pass over the data against one E+M step of scikit-learn, same run, same dtype, same machine.

    python -m benchmarks.mixture_pass [--dtype float64] [--repeats 5] [--case 1000000,2,5]

Prints one JSON line per case: seconds are medians over the repeats.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as PeerMixture

from benchmarks.mixture_machine import print_line
from service.mixture.components import Components
from service.mixture.families import FAMILIES
from service.mixture.optimizers.em_coordinates import coordinates, from_coordinates
from service.mixture.standardization import standardize
from service.mixture.statistics import StatisticsPass

# N, D, K, covariance type, and how many times as fast as scikit-learn the pass is meant to be.
CASES = [
    (1_000_000, 2, 5, "full", 30),
    (500_000, 16, 16, "full", 12),
    (100_000, 64, 16, "full", 5),
    (1_000_000, 2, 5, "diag", None),
    (500_000, 16, 16, "diag", None),
    (500_000, 16, 16, "spherical", None),
    (500_000, 16, 16, "tied", None),
]


def draw(n_samples: int, n_features: int, n_components: int, dtype: str) -> np.ndarray[Any, Any]:
    """Overlapping clusters, (N, D)."""
    generator = np.random.default_rng(0)
    centres = 2 * generator.normal(size=(n_components, n_features))
    labels = generator.integers(n_components, size=n_samples)
    return (centres[labels] + generator.normal(size=(n_samples, n_features))).astype(dtype)


def peer_step(points: np.ndarray[Any, Any], n_components: int, covariance_type: str) -> Callable[[], object]:
    """One E+M step of scikit-learn from a fixed start."""
    peer = PeerMixture(
        n_components, covariance_type=covariance_type, init_params="random_from_data", max_iter=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer.fit(points[:10_000])

    def step() -> object:
        _, log_responsibilities = peer._e_step(points)  # noqa: SLF001 - there is no public single step
        return peer._m_step(points, log_responsibilities)  # noqa: SLF001

    return step


def our_step(points: np.ndarray[Any, Any], n_components: int, covariance_type: str) -> Callable[[], object]:
    """One pass and the closed-form update, from a fixed start."""
    family = FAMILIES[covariance_type]
    dtype = torch.float32 if points.dtype == np.float32 else torch.float64
    columns = torch.from_numpy(np.ascontiguousarray(points.T))
    data = standardize(columns, None, common_scale=family.common_scale, dtype=dtype, device="cpu")
    n_features = data.n_features
    statistics = StatisticsPass(data, diagonal=family.diagonal, radial=family.radial, regularization=1e-6)
    means = data.points[:, :n_components].T.double()[None]
    ones = torch.ones(1, n_components, n_features, dtype=torch.float64)
    cholesky = ones if family.diagonal else torch.diag_embed(ones)
    weights = torch.full((1, n_components), 1 / n_components, dtype=torch.float64)
    components = Components(weights.log(), means, cholesky)

    def step() -> object:
        image = coordinates(family, statistics(components))
        return from_coordinates(family, image, n_components, n_features)

    return torch.inference_mode()(step)


def median_seconds(step: Callable[[], object], repeats: int) -> float:
    """The median of so many runs after one to warm up."""
    # The two libraries' idle threads spin for a while and would be counted against the other.
    time.sleep(0.3)
    step()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", help="N,D,K alone, full covariances")
    given = parser.parse_args()
    cases: list[tuple[int, int, int, str, int | None]] = list(CASES)
    if given.case:
        n_samples, n_features, n_components = (int(part) for part in given.case.split(","))
        cases = [(n_samples, n_features, n_components, "full", None)]
    for n_samples, n_features, n_components, covariance_type, goal in cases:
        points = draw(n_samples, n_features, n_components, given.dtype)
        ours = our_step(points, n_components, covariance_type)
        peers = peer_step(points, n_components, covariance_type)
        mine = median_seconds(ours, given.repeats)
        other = median_seconds(peers, given.repeats)
        print_line(
            benchmark="pass",
            n_samples=n_samples,
            n_features=n_features,
            n_components=n_components,
            covariance_type=covariance_type,
            dtype=given.dtype,
            seconds=mine,
            peer="scikit-learn E+M step",
            peer_seconds=other,
            ratio=other / mine,
            goal=goal,
        )


if __name__ == "__main__":
    main()
