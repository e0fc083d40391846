from __future__ import annotations

import pytest
import torch

from service.mixture.families import FAMILIES
from service.mixture.statistics import StatisticsPass
from tests.mixture.test_statistics import plain_points
from tests.oracles import NaiveMixture

SHAPES = [(1, 1), (3, 1), (1, 2), (3, 2), (2, 4)]


def random_rows(covariance_type: str, n_components: int, n_features: int, n_restarts: int = 2):
    form = FAMILIES[covariance_type].unconstrained(n_components, n_features)
    generator = torch.Generator().manual_seed(n_features)
    return form, 0.5 * torch.randn(n_restarts, form.size, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize(("n_components", "n_features"), SHAPES)
@pytest.mark.parametrize("regularization", [0.0, 0.2])
def test_fishers_gradient_equals_autograd_through_the_density(
    covariance_type, n_components, n_features, regularization
):
    form, rows = random_rows(covariance_type, n_components, n_features)
    points = torch.randn(n_features, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    family = FAMILIES[covariance_type]
    passed = StatisticsPass(plain_points(points), diagonal=family.diagonal, regularization=regularization)
    components, pullback = form.at(rows)
    statistics = passed(components)
    gradient = pullback(statistics)
    for r in range(2):
        naive = NaiveMixture(rows[r], n_components, n_features, covariance_type)
        value = naive.mean_log_likelihood(points.T, regularization)
        torch.testing.assert_close(statistics.log_likelihood[r] / 30, value.detach(), rtol=1e-11, atol=1e-11)
        expected = naive.gradient(points.T, regularization)
        torch.testing.assert_close(gradient[r] / 30, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize(("n_components", "n_features"), SHAPES)
def test_unconstrained_numbers_come_back_from_their_components(covariance_type, n_components, n_features):
    form, rows = random_rows(covariance_type, n_components, n_features)
    components, _ = form.at(rows)
    again, _ = form.at(form.rows_of(components))
    torch.testing.assert_close(again.log_weights, components.log_weights, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(again.means, components.means, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        again.precisions_cholesky, components.precisions_cholesky, rtol=1e-11, atol=1e-11
    )


def test_for_two_features_the_correlation_is_the_tanh_of_its_number():
    form, rows = random_rows("full", 3, 2)
    components, _ = form.at(rows)
    covariances = components.covariances()
    scales = covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    correlation = covariances[..., 0, 1] / scales.prod(-1)
    torch.testing.assert_close(correlation, rows[:, -3:].tanh())
    torch.testing.assert_close(scales.flatten(1), rows[:, 9:15].exp())
