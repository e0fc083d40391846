from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from service.mixture import GaussianMixture, recover
from service.mixture.assignment import cheapest_assignment
from service.mixture.recovery import adjusted_rand_index, contingency
from tests.mixture.problems import gold_mixture


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (5, 5), (2, 4), (6, 3)])
def test_the_assignment_is_the_cheapest(shape):
    costs = np.random.default_rng(0).normal(size=(20, *shape))
    for cost in costs:
        pairs = cheapest_assignment(cost.tolist())
        rows, columns = linear_sum_assignment(cost)
        assert sum(cost[i, j] for i, j in pairs) == pytest.approx(cost[rows, columns].sum())
        assert len(pairs) == min(shape)


def test_adjusted_rand_index_equals_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    for n_first, n_second in itertools.product([1, 2, 5], repeat=2):
        first = torch.randint(n_first, (60,), generator=generator)
        second = torch.randint(n_second, (60,), generator=generator)
        expected = adjusted_rand_score(first.numpy(), second.numpy())
        table = contingency(first, second, (n_first, n_second))
        assert adjusted_rand_index(table) == pytest.approx(expected, abs=1e-12)


def test_a_mixture_recovers_itself_whatever_its_order():
    gold = gold_mixture()
    order = torch.tensor([2, 0, 1])
    shuffled = GaussianMixture(gold.weights[order], gold.means[order], gold.covariances[order], "full")
    points, components = gold.sample(2000, 0)
    answer = recover(gold, shuffled, points.T, components)
    assert [(p["gold_component"], p["fitted_component"]) for p in answer["matching"]] == [
        (0, 1),
        (1, 2),
        (2, 0),
    ]
    assert answer["largest_weight_error"] == 0
    assert answer["largest_mean_error"] == 0
    assert answer["largest_covariance_error"] == 0
    assert answer["kl"]["value"] == pytest.approx(0, abs=1e-12)
    assert answer["adjusted_rand_index"] > 0.9


def test_divergence_of_two_gaussians_has_its_closed_form():
    gold = GaussianMixture.from_parameters(
        weights=[1], means=[[0]], covariances=[1], covariance_type="spherical"
    )
    fitted = GaussianMixture.from_parameters(
        weights=[1], means=[[1]], covariances=[4], covariance_type="spherical"
    )
    answer = recover(gold, fitted, torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64))
    expected = np.log(2) + (1 + 1) / 8 - 0.5
    assert answer["kl"]["value"] == pytest.approx(expected, abs=4 * answer["kl"]["standard_error"])
    assert answer["kl"]["standard_error"] < 0.01
    pair = answer["matching"][0]
    assert (pair["weight_error"], pair["mean_error"], pair["covariance_error"]) == (0, 1, 3)


def test_fewer_fitted_components_than_gold_ones():
    gold = gold_mixture()
    fitted = GaussianMixture.from_parameters(
        weights=[0.5, 0.5],
        means=[[-1, 1], [1, 1]],
        covariances=[[0.1, 0.1], [0.2, 0.2]],
        covariance_type="diag",
    )
    points, components = gold.sample(100, 0)
    pairs = recover(gold, fitted, points.T, components)["matching"]
    assert [(p["gold_component"], p["fitted_component"]) for p in pairs] == [(1, 0), (2, 1)]
