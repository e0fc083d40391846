"""One pass over the data against one E+M step of scikit-learn, same run, same dtype, same machine.

    python -m benchmarks.mixture_pass [--dtype float64] [--repeats 5] [--case 1000000,2,5] [--device cuda]

Prints one JSON line per case; seconds are medians over repeats in which the two take turns. ``ratio`` is of
the time on the clock, ``cpu_ratio`` of the processor time, which other programs disturb less.
``share_of_roof`` compares the pass with what the machine could do at most, measured in the same run: its
quickest matrix product for the pass's multiplications, or a copy for reading the points once, whichever takes
longer. With ``--device cuda`` scikit-learn computes on the same card through its array API; where there is no
card, the one line says so.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as PeerMixture
from torch import Tensor

from benchmarks.mixture_machine import print_line
from service.mixture.components import Components
from service.mixture.families import FAMILIES
from service.mixture.optimizers.em_coordinates import coordinates, from_coordinates
from service.mixture.standardization import standardize
from service.mixture.statistics import StatisticsPass

Step = Callable[[], object]
Case = tuple[int, int, int, str, int | None]
# N, D, K, covariance type, and how many times as fast as scikit-learn the pass is meant to be.
CASES: list[Case] = [
    (1_000_000, 2, 5, "full", 30),
    (500_000, 16, 16, "full", 12),
    (100_000, 64, 16, "full", 5),
    (1_000_000, 2, 5, "diag", None),
    (500_000, 16, 16, "diag", None),
    (500_000, 16, 16, "spherical", None),
    (500_000, 16, 16, "tied", None),
]
GPU_CASES: list[Case] = [
    (10_000_000, 2, 5, "full", 50),
    (4_000_000, 16, 64, "full", 50),
    (1_000_000, 64, 16, "full", 50),
]
# Idle threads must not spin while the other library works; an import looks whether the array API is wanted.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "SCIPY_ARRAY_API": "1"}
PEAK_SIZE = {"cpu": 1500, "cuda": 8192}


def draw(n_samples: int, n_features: int, n_components: int, dtype: str) -> np.ndarray[Any, Any]:
    """Clusters four deviations apart in every feature, (N, D)."""
    generator = np.random.default_rng(0)
    centres = 2 * generator.normal(size=(n_components, n_features))
    labels = generator.integers(n_components, size=n_samples)
    return (centres[labels] + generator.normal(size=(n_samples, n_features))).astype(dtype)


def peer_step(points: Any, n_components: int, covariance_type: str) -> Step:
    """One E+M step of scikit-learn from a fixed start, on the device where the points (N, D) are."""
    peer = PeerMixture(
        n_components,
        covariance_type=covariance_type,
        init_params="random_from_data",
        max_iter=1,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer.fit(points[:10_000])

    def step() -> object:
        _, log_responsibilities = peer._e_step(points)  # noqa: SLF001 - there is no public single step
        return peer._m_step(points, log_responsibilities)  # noqa: SLF001

    return step


def our_step(
    points: np.ndarray[Any, Any], n_components: int, covariance_type: str, device: str = "cpu"
) -> Step:
    """One pass and the closed-form update, from a fixed start."""
    family = FAMILIES[covariance_type]
    dtype = torch.float32 if points.dtype == np.float32 else torch.float64
    columns = torch.from_numpy(np.ascontiguousarray(points.T))
    data = standardize(columns, None, common_scale=family.common_scale, dtype=dtype, device=device)
    n_features = data.n_features
    statistics = StatisticsPass(data, diagonal=family.diagonal, radial=family.radial, regularization=1e-6)
    means = data.points[:, :n_components].T.double()[None]
    ones = torch.ones(1, n_components, n_features, dtype=torch.float64, device=device)
    cholesky = ones if family.diagonal else torch.diag_embed(ones)
    weights = torch.full((1, n_components), 1 / n_components, dtype=torch.float64, device=device)
    components = Components(weights.log(), means, cholesky)

    def step() -> object:
        image = coordinates(family, statistics(components))
        return from_coordinates(family, image, n_components, n_features)

    return torch.inference_mode()(step)


def n_multiplications(n_samples: int, n_features: int, n_components: int, covariance_type: str) -> int:
    """In the two matrix products of a pass, N K F each."""
    family = FAMILIES[covariance_type]
    n_quadratic = n_features * (n_features + 1) // 2
    if family.diagonal:
        n_quadratic = 1 if family.radial else n_features
    return 2 * n_samples * n_components * (1 + n_quadratic + n_features)


def timed(steps: dict[str, Step], repeats: int, device: str) -> dict[str, tuple[float, float]]:
    """Median seconds on the clock and of the processor of each step; they take turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            time.sleep(0.05)  # numpy's idle threads spin that long, whatever the environment says
            step()  # within a fit a step follows another: threads are awake, and the cache is its own
            started, worked = time.perf_counter(), time.process_time()
            step()
            if device != "cpu":
                torch.cuda.synchronize()
            if repeat > 0:
                times[name].append((time.perf_counter() - started, time.process_time() - worked))
    return {name: (median(t[0] for t in each), median(t[1] for t in each)) for name, each in times.items()}


def measured(case: Case, dtype: str, repeats: int, device: str) -> dict[str, Any]:
    """The fields of one case."""
    n_samples, n_features, n_components, covariance_type, goal = case
    points = draw(n_samples, n_features, n_components, dtype)
    theirs: Any = points if device == "cpu" else torch.from_numpy(points).to(device)
    size = PEAK_SIZE[torch.device(device).type]
    square = torch.ones(size, size, dtype=getattr(torch, dtype), device=device)
    flat = torch.from_numpy(points).to(device)
    copy: Tensor = torch.empty_like(flat)
    with sklearn.config_context(array_api_dispatch=device != "cpu"):
        steps: dict[str, Step] = {
            "ours": our_step(points, n_components, covariance_type, device),
            "peer": peer_step(theirs, n_components, covariance_type),
            "product": lambda: square @ square,
            "copy": lambda: copy.copy_(flat),
        }
        times = timed(steps, repeats, device)
    multiplications = n_multiplications(n_samples, n_features, n_components, covariance_type)
    # A copy reads and writes, a pass only reads.
    roof = max(multiplications * times["product"][0] / size**3, 0.5 * times["copy"][0])
    ours, peer = times["ours"], times["peer"]
    return {
        "n_samples": n_samples,
        "n_features": n_features,
        "n_components": n_components,
        "covariance_type": covariance_type,
        "dtype": dtype,
        "device": device,
        "seconds": ours[0],
        "cpu_seconds": ours[1],
        "gflops": 2e-9 * multiplications / ours[0],
        "peak_gflops": 2e-9 * size**3 / times["product"][0],
        "share_of_roof": roof / ours[0],
        "peer": "scikit-learn E+M step",
        "peer_seconds": peer[0],
        "peer_cpu_seconds": peer[1],
        "ratio": peer[0] / ours[0],
        "cpu_ratio": peer[1] / ours[1],
        "goal": goal,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dtype", default="float64", choices=["float64", "float32"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--case", help="N,D,K alone, full covariances")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print_line(benchmark="pass", device="cuda", skipped="torch finds no GPU here; nothing was measured")
        return
    cases = CASES if given.device == "cpu" else GPU_CASES
    if given.case:
        n_samples, n_features, n_components = (int(part) for part in given.case.split(","))
        cases = [(n_samples, n_features, n_components, "full", None)]
    for case in cases:
        print_line(benchmark="pass", **measured(case, given.dtype, given.repeats, given.device))


if __name__ == "__main__":
    if any(name not in os.environ for name in ENVIRONMENT):
        os.execve(sys.executable, sys.orig_argv, {**ENVIRONMENT, **os.environ})
    main()
