"""The exercise that the service grew from: each part against naive autograd and its aim."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from service.mixture import FitOptions, FitReport, fit
from service.mixture.families import FAMILIES
from service.mixture.optimizers import make_optimizer
from service.mixture.standardization import standardize
from service.mixture.starts import random_start, restart_generator
from tests.mixture.problems import gold_points
from tests.oracles import NaiveMixture, train

RANDOM = {"method": "random"}
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda numbers, rate: torch.optim.SGD([numbers], lr=rate, momentum=0.9),
    "adam": lambda numbers, rate: torch.optim.Adam([numbers], lr=rate),
}


def univariate_points() -> Tensor:
    """1000 draws of N(5, 2^2), (1, N)."""
    return 5 + 2 * torch.randn(1, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def naive_log_likelihood(points: Tensor, options: FitOptions, batches: list[Tensor | None]) -> float:
    """What naive autograd makes of restart 0 of these options, total, in data units."""
    (n_components,), (covariance_type,) = options.n_components, options.covariance_type
    family = FAMILIES[covariance_type]
    data = standardize(points, None, common_scale=family.common_scale, dtype=torch.float64, device="cpu")
    start = random_start(data, family, n_components, [restart_generator(options.seed, 0)])
    rows = family.unconstrained(n_components, data.n_features).rows_of(start)
    model = NaiveMixture(rows[0], n_components, data.n_features, covariance_type)
    rate = options.optimizer["learning_rate"]
    optimizer = OPTIMIZERS[options.optimizer["name"]](model.numbers, rate)
    standard = data.points.T.contiguous()
    if batches[0] is None:
        train(model, standard, optimizer, batches)
    else:
        n_passes = sum(len(batch) for batch in batches if batch is not None) // points.shape[1]
        per_pass, means = len(batches) // n_passes, []
        for i in range(n_passes):
            walked = []
            for batch in batches[i * per_pass : (i + 1) * per_pass]:
                train(model, standard, optimizer, [batch])
                walked.append(model.numbers.detach().clone())
            means.append(torch.stack(walked).mean(0))
        # The service hands back the mean of the last tenth of the passes, ten at most.
        model.numbers = torch.stack(means[-min(max(n_passes // 10, 1), 10) :]).mean(0)
    mean = float(model.mean_log_likelihood(standard).detach())
    return (mean + data.log_jacobian()) * points.shape[1]


def run(
    points: Tensor, n_components: int, covariance_type: str, optimizer: dict[str, Any], **more: Any
) -> FitReport:
    options = FitOptions(
        (n_components,),
        (covariance_type,),
        optimizer=optimizer,
        **{"initialization": RANDOM, "tolerance": 0.0, "n_init": 1, **more},
    )
    return fit(points, options)


@pytest.mark.parametrize(
    ("n_components", "covariance_type", "optimizer"),
    [
        (3, "diag", {"name": "sgd", "learning_rate": 0.1}),
        (6, "diag", {"name": "sgd", "learning_rate": 0.1}),
        (3, "full", {"name": "sgd", "learning_rate": 0.01}),
        (3, "full", {"name": "adam", "learning_rate": 0.01}),
        (3, "tied", {"name": "sgd", "learning_rate": 0.05}),
        (3, "spherical", {"name": "adam", "learning_rate": 0.05}),
    ],
)
def test_the_same_log_likelihood_as_naive_autograd(n_components, covariance_type, optimizer):
    points = gold_points(300)
    options = FitOptions(
        (n_components,),
        (covariance_type,),
        optimizer=optimizer,
        initialization=RANDOM,
        n_init=3,
        tolerance=0,
        regularization=0,
        max_steps=300,
    )
    expected = naive_log_likelihood(points, options, [None] * 300)
    alone = fit(points, FitOptions(**{**vars(options), "n_init": 1})).result["log_likelihood"]
    assert alone == pytest.approx(expected, abs=1e-6)
    beside = [optimum["mean_log_likelihood"] for optimum in fit(points, options).result["optima"]]
    assert min(abs(value * 300 - expected) for value in beside) < 1e-6


def test_a_thousand_steps_of_univariate_sgd_equal_naive_autograd():
    points = univariate_points()
    options = FitOptions(
        (1,), optimizer={"name": "sgd"}, initialization=RANDOM, n_init=1, tolerance=0, regularization=0
    )
    options = FitOptions(**{**vars(options), "optimizer": {"name": "sgd", "learning_rate": 0.01}})
    expected = naive_log_likelihood(points, options, [None] * 1000)
    assert fit(points, options).result["log_likelihood"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_minibatches_equal_naive_autograd_over_the_same_batches(name):
    points = univariate_points()
    options = FitOptions(
        (1,),
        optimizer={"name": name, "learning_rate": 0.01, "batch_size": 30},
        initialization=RANDOM,
        n_init=1,
        tolerance=0,
        regularization=0,
        max_steps=20 * 34,
    )
    generator = restart_generator(0, 0)
    data = standardize(points, None, common_scale=False, dtype=torch.float64, device="cpu")
    random_start(data, FAMILIES["full"], 1, [generator])
    batches: list[Tensor | None] = []
    for _ in range(20):
        batches.extend(torch.randperm(1000, generator=generator).split(30))
    assert {len(batch) for batch in batches if batch is not None} == {30, 10}
    expected = naive_log_likelihood(points, options, batches)
    assert fit(points, options).result["log_likelihood"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("more", [{}, {"batch_size": 10}])
def test_a_univariate_gaussian_agrees_with_its_closed_form(more):
    points = univariate_points()
    report = run(points, 1, "full", {"name": "sgd", **more}, max_steps=10_000 if more else 1000)
    assert report.mixture is not None
    assert report.result["n_steps"] == (10_000 if more else 1000)
    assert report.result["n_passes"] == pytest.approx(100 if more else 1000)
    assert float(report.mixture.means[0, 0]) == pytest.approx(float(points.mean()), abs=0.05)
    deviation = float(points.std(correction=0))
    assert float(report.mixture.standard_deviations()[0, 0]) == pytest.approx(deviation, abs=0.05)
    closed = report.result["closed_form"]
    assert closed["mixture"]["means"] == [[pytest.approx(float(points.mean()), rel=1e-12)]]
    assert closed["mixture"]["covariances"] == [[[pytest.approx(deviation**2, rel=1e-12)]]]
    assert report.result["log_likelihood"] <= closed["log_likelihood"] + 1e-9


def test_six_diagonal_components_reach_a_higher_likelihood_than_three():
    reached = {
        k: run(gold_points(), k, "diag", {"name": "sgd", "learning_rate": 0.1}, n_init=8).result[
            "log_likelihood"
        ]
        for k in (3, 6)
    }
    assert reached[6] > reached[3] + 10


@pytest.mark.parametrize(("name", "gap"), [("sgd", 0.1), ("adam", 1.0)])
def test_the_full_mixture_is_learned_from_random_starts(name, gap):
    points = gold_points()
    learned = run(points, 3, "full", {"name": name, "learning_rate": 0.01}, n_init=8)
    best = fit(points, FitOptions((3,))).result["log_likelihood"]
    assert best - gap < learned.result["log_likelihood"] <= best + 1e-3
    assert sum(optimum["hits"] for optimum in learned.result["optima"]) == 8


def test_every_minibatch_pass_visits_every_point_once_in_fresh_order():
    points = univariate_points()[:, :20]
    data = standardize(points, None, common_scale=False, dtype=torch.float64, device="cpu")
    optimizer = make_optimizer({"name": "sgd", "batch_size": 6}, FAMILIES["full"], 20)
    state = {
        "next_generator": torch.stack([restart_generator(0, r).get_state() for r in range(2)]),
        "position": torch.full((2,), data.n_samples),  # at the end of a pass
    }
    orders = []
    for _ in range(3):
        batches = []
        for _ in range(4):
            state, indices = optimizer._next_batch(state, data.n_samples)
            batches.append(indices)
        order = torch.cat(batches, dim=1)
        assert order.sort(dim=1).values.tolist() == [list(range(20))] * 2
        orders.extend(order.tolist())
    assert len({tuple(order) for order in orders}) == 6
