"""Whole fits at default settings against scikit-learn, quality included.

    python -m benchmarks.mixture_peers [names ...] [--n-init 8] [--seed 0]

Prints one JSON line per data set and a last one with the geometric mean of the ratios. A set on which we
end worse by more than 1e-4 nats per point is counted as such, and so is a failure; nothing is dropped.
``ratio`` is of the time on the clock, ``cpu_ratio`` of the processor time, which other programs disturb less
(set OMP_WAIT_POLICY=passive, or idle threads count as work).
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.mixture import GaussianMixture as PeerMixture

from benchmarks.mixture_machine import print_line
from benchmarks.mixture_problems import Problem, problems
from service.mixture import FitOptions, FitReport, fit

WORSE = 1e-4  # nats per point
FLOOR = 10  # times the regularisation: an eigenvalue below owes more to it than to the points
REGULARIZATION = 1e-6


def ours(problem: Problem, n_init: int, seed: int) -> tuple[float, FitReport]:
    """Seconds and the report, from an (N, D) array in memory to the end."""
    started = time.perf_counter()
    columns = torch.from_numpy(np.ascontiguousarray(problem.points.T))
    options = FitOptions((problem.n_components,), (problem.covariance_type,), n_init=n_init, seed=seed)
    report = fit(columns, options)
    return time.perf_counter() - started, report


def scikit_learn(problem: Problem, n_init: int, seed: int) -> tuple[float, float | None, bool]:
    """Seconds, mean log-likelihood or None for a failure, and whether a component is at the floor."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            peer = PeerMixture(
                problem.n_components,
                covariance_type=problem.covariance_type,
                n_init=n_init,
                random_state=seed,
            ).fit(problem.points)
        except ValueError:
            return time.perf_counter() - started, None, False
    seconds = time.perf_counter() - started
    variances = problem.points.var(axis=0)
    covariances = peer.covariances_ / variances if problem.covariance_type == "diag" else peer.covariances_
    if problem.covariance_type in ("full", "tied"):
        covariances = np.linalg.eigvalsh(covariances / np.sqrt(np.outer(variances, variances)))
    return seconds, float(peer.score(problem.points)), bool(covariances.min() < FLOOR * REGULARIZATION)


def compare(problem: Problem, n_init: int, seed: int) -> dict[str, Any]:
    """One line's fields."""
    before = time.process_time()
    mine, report = ours(problem, n_init, seed)
    my_work = time.process_time() - before
    time.sleep(0.1)  # the other library's idle threads spin for a while and would be counted against us
    before = time.process_time()
    other, peer_mean, peer_spurious = scikit_learn(problem, n_init, seed)
    peer_work = time.process_time() - before
    time.sleep(0.1)
    mean = report.result.get("mean_log_likelihood")
    worse = mean is None or (peer_mean is not None and mean < peer_mean - WORSE and not peer_spurious)
    return {
        "benchmark": "fit",
        "problem": problem.name,
        "n_samples": problem.points.shape[0],
        "n_features": problem.points.shape[1],
        "n_components": problem.n_components,
        "covariance_type": problem.covariance_type,
        "dtype": "float64",
        "n_init": n_init,
        "seconds": mine,
        "mean_log_likelihood": mean,
        "outcome": report.outcome,
        "n_passes": report.result.get("n_passes"),
        "spurious": bool(report.result["optima"][0]["spurious"]),
        "peer": "scikit-learn",
        "peer_seconds": other,
        "peer_mean_log_likelihood": peer_mean,
        "peer_failed": peer_mean is None,
        "peer_spurious": peer_spurious,
        "ratio": other / mine,
        "cpu_seconds": my_work,
        "peer_cpu_seconds": peer_work,
        "cpu_ratio": peer_work / my_work,
        "worse_than_peer": worse,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--n-init", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    fit(torch.randn(2, 100, dtype=torch.float64), FitOptions((2,)))  # torch loads its libraries on first use
    lines = []
    for problem in problems(given.names):
        lines.append(compare(problem, given.n_init, given.seed))
        print_line(**lines[-1])
    print_line(
        benchmark="fit summary",
        problems=len(lines),
        geometric_mean_ratio=float(np.exp(np.mean([np.log(line["ratio"]) for line in lines]))),
        geometric_mean_cpu_ratio=float(np.exp(np.mean([np.log(line["cpu_ratio"]) for line in lines]))),
        worse_than_peer=sum(line["worse_than_peer"] for line in lines),
        failures=sum(line["mean_log_likelihood"] is None for line in lines),
        peer_failures=sum(line["peer_failed"] for line in lines),
        pomegranate="installed" if importlib.util.find_spec("pomegranate") else "not installed",
    )


if __name__ == "__main__":
    main()
