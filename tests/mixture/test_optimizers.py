"""What the optimisers promise beside the right optimum: passes, dtypes, threads, stopping."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from service.mixture import FitOptions, fit
from service.mixture.families import FAMILIES
from service.mixture.optimizers import Objective, make_optimizer
from service.mixture.optimizers.em_coordinates import coordinates, from_coordinates
from service.mixture.restarts import Plateau
from service.mixture.standardization import standardize
from service.mixture.starts import clustered_start, restart_generator
from service.mixture.statistics import StatisticsPass
from tests.mixture.problems import gold_points, random_mixture

WITHIN = 1e-6


def draws(n_components: int, n_features: int, spread: float, seed: int, n_samples: int = 600) -> Tensor:
    """Points (D, N) of a random mixture whose means are so many times as far apart as usual."""
    mixture = random_mixture(n_components, n_features, seed)
    points, components = mixture.sample(n_samples, seed)
    return (points + (spread - 1) * mixture.means[components]).T.contiguous()


@torch.inference_mode()
def passes(points: Tensor, n_components: int, n_restarts: int = 4) -> tuple[list[int], list[int]]:
    """Passes that plain EM and auto need, from each of some starts, to within 1e-6 nats of EM's optimum."""
    family = FAMILIES["full"]
    data = standardize(points, None, common_scale=False, dtype=torch.float64, device="cpu")
    statistics = StatisticsPass(data, diagonal=False, regularization=1e-6)
    objective = Objective(statistics, family, n_components)
    seeds = [restart_generator(0, restart) for restart in range(n_restarts)]
    start = clustered_start(data, family, n_components, seeds, (0,)).components
    plain, components = [], start
    for _ in range(800):
        sums = statistics(components)
        plain.append(sums.log_likelihood / data.n_samples)
        image = coordinates(family, sums)
        components, _ = from_coordinates(family, image, n_components, data.n_features)
    optimum = torch.stack(plain)[-1]
    optimizer = make_optimizer({"name": "auto"}, family, data.n_samples)
    state, quick = optimizer.start(objective, start, seeds), []
    for _ in range(300):
        state = optimizer.step(objective, state)
        quick.append(state["log_likelihood"])
    counts = []
    for values in (torch.stack(plain), torch.stack(quick)):
        reached = values >= optimum - WITHIN
        assert bool(reached.any(dim=0).all())
        counts.append((reached.int().argmax(dim=0) + 1).tolist())
    return counts[0], counts[1]


def test_auto_needs_no_more_than_a_fifth_more_passes_than_em_where_components_are_separated():
    plain, quick = 0, 0
    for seed in range(5):
        counts = passes(draws(4, 2, 3.0, seed), 4)
        plain, quick = plain + sum(counts[0]), quick + sum(counts[1])
    assert quick <= 1.2 * plain


def test_auto_needs_at_most_a_quarter_of_ems_passes_where_components_overlap():
    ratios = []
    for seed in range(4):
        plain, quick = passes(draws(2, 2, 0.4, seed), 2)
        ratios.append(sum(quick) / sum(plain))
    assert math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios)) <= 0.25


@pytest.mark.parametrize("optimizer", ["em", "lbfgs"])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_float32_finds_the_optimum_of_float64(optimizer, covariance_type):
    points = gold_points()
    options = {"optimizer": {"name": optimizer}, "n_init": 4}
    wide = fit(points, FitOptions((3,), (covariance_type,), **options))
    narrow = fit(points.float(), FitOptions((3,), (covariance_type,), dtype="float32", **options))
    assert narrow.outcome == "converged"
    assert narrow.result["mean_log_likelihood"] == pytest.approx(wide.result["mean_log_likelihood"], abs=1e-5)
    assert narrow.mixture.means.dtype == torch.float64


def test_float32_points_far_from_the_origin_fit_as_well():
    points = (gold_points() * 0.5 + 1000).float()
    report = fit(points, FitOptions((3,), dtype="float32"))
    expected = fit(points.double(), FitOptions((3,)))
    assert report.outcome == "converged"
    assert report.result["mean_log_likelihood"] == pytest.approx(
        expected.result["mean_log_likelihood"], abs=1e-4
    )


@pytest.mark.parametrize("optimizer", ["em", "lbfgs", "sgd"])
def test_another_number_of_threads_changes_no_more_than_rounding(optimizer):
    points = draws(4, 5, 1.0, seed=0, n_samples=20_000)
    options = FitOptions((4,), n_init=2, optimizer={"name": optimizer}, max_steps=30)
    before = torch.get_num_threads()
    reached = []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            reached.append(fit(points, options).result["mean_log_likelihood"])
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    assert reached[0] == pytest.approx(reached[1], abs=1e-9)


@pytest.mark.parametrize("optimizer", ["em", "lbfgs", "sgd", "adam"])
def test_a_tolerance_of_zero_runs_every_step(optimizer):
    report = fit(
        gold_points(100), FitOptions((2,), optimizer={"name": optimizer}, tolerance=0, max_steps=37, n_init=2)
    )
    assert report.outcome == "max_steps_reached"
    assert report.result["n_steps"] == 37


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_minibatches_converge_by_means_over_their_passes(name):
    request = {"name": name, "learning_rate": 0.02, "batch_size": 50}
    report = fit(
        gold_points(), FitOptions((3,), optimizer=request, n_init=1, max_steps=20_000, tolerance=1e-4)
    )
    best = fit(gold_points(), FitOptions((3,))).result["log_likelihood"]
    assert report.outcome == "converged"
    assert report.result["n_steps"] < 20_000
    assert report.result["n_passes"] == pytest.approx(report.result["n_steps"] / 20)
    assert report.result["log_likelihood"] > best - 5


def test_the_stopping_rule_compares_windows_relative_to_their_size():
    rule = Plateau(1e-3, 2)
    values: list[float] = []
    answers = []
    for value in [-200.0, -150.0, -100.0, -99.9, -99.95, -99.9]:
        values.append(value)
        answers.append(rule.reached(values, 0.0))
    assert answers == [False, False, False, False, False, True]
    assert not Plateau(1e-3, 1).reached([-1.0, -1.0], 1.0)
    assert Plateau(1e-3, 1).reached([-1.0, -1.0], 1e-4)
    assert not Plateau(0.0, 1).reached([-1.0, -1.0], 0.0)


def test_many_points_are_fitted_with_few_full_passes():
    points = draws(3, 2, 1.0, seed=3, n_samples=200_000)
    report = fit(points, FitOptions((3,), n_init=6))
    assert report.outcome == "converged"
    assert report.result["n_passes"] < 15
    assert sum(optimum["hits"] for optimum in report.result["optima"]) == 6
    whole = fit(
        points, FitOptions((3,), n_init=1, initialization={"method": "mixture", "mixture": report.mixture})
    )
    assert report.result["mean_log_likelihood"] >= whole.result["mean_log_likelihood"] - 2e-6
