"""Whole fits at default settings against scikit-learn and pomegranate, quality included.

    python -m benchmarks.mixture_peers [names ...] [--n-init 8] [--seed 0] [--without pomegranate tight]

Prints one JSON line per data set and a last one with the geometric means of the ratios. Every timing is a
median of up to five runs, fewer where a run is long. A set on which we end worse by more than 1e-4 nats per
point is counted as such, and so is a failure; nothing is dropped. ``ratio`` is of the time on the clock,
``cpu_ratio`` of the processor time, which other programs disturb less (set OMP_WAIT_POLICY=PASSIVE, or idle
threads count as work).

scikit-learn's default tolerance ends its fits early. To compare like with like, ``tight_ratio`` is the time
of scikit-learn with a tolerance of 1e-7 and up to 1000 steps over ours, and ``tight_difference`` how
much higher our optimum then is. Large sets are left out there, and of pomegranate's, which has no tied
covariances (``pip install -e .[bench]`` installs it); the lines of those sets lack the fields.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.mixture import GaussianMixture as PeerMixture

from benchmarks.mixture_machine import print_line
from benchmarks.mixture_problems import Problem, problems
from service.mixture import FitOptions, FitReport, fit

Answer = TypeVar("Answer")

WORSE = 1e-4  # nats per point
FLOOR = 10  # times the regularisation: an eigenvalue below owes more to it than to the points
REGULARIZATION = 1e-6
RUNS, LONGEST = 5, 1.0  # no further run once these have taken so many seconds
TIGHT, TIGHT_STEPS = 1e-7, 1000
SMALL = 12_500  # only sets with fewer numbers are fitted so, and by pomegranate, or all would take too long


def timed(run: Callable[[], Answer]) -> tuple[Answer, float, float]:
    """The answer of a run, and the median seconds of some on the clock and of the processor."""
    time.sleep(0.1)  # the other library's idle threads spin for a while and would be counted against this one
    clock: list[float] = []
    work: list[float] = []
    while True:
        began, before = time.perf_counter(), time.process_time()
        answer = run()
        clock.append(time.perf_counter() - began)
        work.append(time.process_time() - before)
        if len(clock) == RUNS or sum(clock) > LONGEST:
            return answer, median(clock), median(work)


def ours(problem: Problem, n_init: int, seed: int) -> FitReport:
    """The report, from an (N, D) array in memory."""
    columns = torch.from_numpy(np.ascontiguousarray(problem.points.T))
    options = FitOptions((problem.n_components,), (problem.covariance_type,), n_init=n_init, seed=seed)
    return fit(columns, options)


def scikit_learn(problem: Problem, n_init: int, seed: int, **settings: Any) -> tuple[float | None, bool]:
    """Mean log-likelihood or None for a failure, and whether a component is at the floor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            peer = PeerMixture(
                problem.n_components,
                covariance_type=problem.covariance_type,
                n_init=n_init,
                random_state=seed,
                **settings,
            ).fit(problem.points)
        except ValueError:
            return None, False
    variances = problem.points.var(axis=0)
    covariances = peer.covariances_ / variances if problem.covariance_type == "diag" else peer.covariances_
    if problem.covariance_type in ("full", "tied"):
        covariances = np.linalg.eigvalsh(covariances / np.sqrt(np.outer(variances, variances)))
    return float(peer.score(problem.points)), bool(covariances.min() < FLOOR * REGULARIZATION)


def pomegranate(problem: Problem, n_init: int, seed: int) -> float | None:
    """The best mean log-likelihood of so many fits, or None when one fails: it has no restarts of its own."""
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    points = torch.from_numpy(problem.points)
    best = -np.inf
    for restart in range(n_init):
        kinds = [
            Normal(covariance_type="diag" if problem.covariance_type == "diag" else "full")
            for _ in range(problem.n_components)
        ]
        try:
            peer = GeneralMixtureModel(kinds, random_state=seed + restart).double()
            peer.fit(points)
            best = max(best, float(peer.log_probability(points).mean()))
        except (RuntimeError, ValueError):
            return None
    return best if np.isfinite(best) else None


def compare(problem: Problem, n_init: int, seed: int, without: list[str]) -> dict[str, Any]:
    """One line's fields."""
    report, mine, my_work = timed(lambda: ours(problem, n_init, seed))
    (peer_mean, peer_spurious), other, peer_work = timed(lambda: scikit_learn(problem, n_init, seed))
    mean = report.result.get("mean_log_likelihood")
    worse = mean is None or (peer_mean is not None and mean < peer_mean - WORSE and not peer_spurious)
    line = {
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
    size = problem.points.size
    if size < SMALL and "tight" not in without:
        settings = {"tol": TIGHT, "max_iter": TIGHT_STEPS}
        (tight_mean, _), seconds, _ = timed(lambda: scikit_learn(problem, n_init, seed, **settings))
        line["tight_ratio"] = seconds / mine
        line["tight_difference"] = None if mean is None or tight_mean is None else mean - tight_mean
    known = problem.covariance_type != "tied"
    if known and size < SMALL and "pomegranate" not in without:
        found, seconds, _ = timed(lambda: pomegranate(problem, n_init, seed))
        line["pomegranate_ratio"] = seconds / mine
        line["pomegranate_difference"] = None if mean is None or found is None else mean - found
        line["pomegranate_failed"] = found is None
    return line


def geometric_mean(lines: list[dict[str, Any]], name: str) -> float | None:
    """Of those lines that have it."""
    values = [line[name] for line in lines if line.get(name) is not None]
    return float(np.exp(np.mean(np.log(values)))) if values else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--n-init", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", nargs="*", default=[], choices=["pomegranate", "tight"])
    given = parser.parse_args()
    without = list(given.without)
    if importlib.util.find_spec("pomegranate") is None:
        without.append("pomegranate")
    fit(torch.randn(2, 100, dtype=torch.float64), FitOptions((2,)))  # torch loads its libraries on first use
    lines = []
    for problem in problems(given.names):
        lines.append(compare(problem, given.n_init, given.seed, without))
        print_line(**lines[-1])
    print_line(
        benchmark="fit summary",
        problems=len(lines),
        geometric_mean_ratio=geometric_mean(lines, "ratio"),
        geometric_mean_cpu_ratio=geometric_mean(lines, "cpu_ratio"),
        geometric_mean_tight_ratio=geometric_mean(lines, "tight_ratio"),
        geometric_mean_pomegranate_ratio=geometric_mean(lines, "pomegranate_ratio"),
        worse_than_peer=sum(line["worse_than_peer"] for line in lines),
        failures=sum(line["mean_log_likelihood"] is None for line in lines),
        peer_failures=sum(line["peer_failed"] for line in lines),
        pomegranate_failures=sum(line.get("pomegranate_failed", False) for line in lines),
        pomegranate="not installed" if "pomegranate" in without else "installed",
    )


if __name__ == "__main__":
    main()
