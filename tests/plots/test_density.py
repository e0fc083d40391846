"""Contours that hold the mass they say."""

import numpy as np
import pytest
import torch
from matplotlib.contour import QuadContourSet

from service import plots
from service.mixture import GaussianMixture
from service.plots.density import marginal, mass_levels


def test_the_regions_of_one_gaussian_are_ellipses_at_the_quantiles_of_chi_squared():
    """Of two features the squared distance is -2 ln(1 - mass), and the log-density falls by half of it."""
    mixture = GaussianMixture.from_parameters(
        weights=[1], means=[[3, -2]], covariances=[[[2.0, 0.6], [0.6, 1.0]]]
    )
    peak = float(mixture.log_density(mixture.means.clone()))
    expected = [peak + np.log(1 - mass) for mass in (0.95, 0.8, 0.6, 0.4, 0.2)]
    assert mass_levels(mixture) == pytest.approx(expected, abs=0.06)


def test_the_contours_lie_where_the_density_has_their_levels(gold):
    (axes,) = plots.density(gold).axes
    lines = next(c for c in axes.collections if isinstance(c, QuadContourSet) and not c.filled)
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        assert len(path.vertices) > 20
        on_line = gold.log_density(torch.from_numpy(np.array(path.vertices)))
        assert on_line.numpy() == pytest.approx(np.full(len(path.vertices), level), abs=0.05)


def test_the_marginal_of_two_features_is_that_of_samples():
    covariance = [[2.0, 0.5, 0.3], [0.5, 1.0, -0.4], [0.3, -0.4, 3.0]]
    mixture = GaussianMixture.from_parameters(
        weights=[0.6, 0.4], means=[[1, 2, 3], [0, 0, -4]], covariances=[covariance, np.eye(3).tolist()]
    )
    pair = marginal(mixture, (2, 0))
    assert pair.means.tolist() == [[3, 1], [-4, 0]]
    assert pair.full_covariances()[0].tolist() == [[3.0, 0.3], [0.3, 2.0]]
    (axes,) = plots.density(mixture, features=(2, 0), columns=["a", "b", "c"]).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("c", "a")


def test_one_feature_is_the_curve(univariate):
    (axes,) = plots.density(univariate).axes
    (line,) = axes.lines
    x, y = line.get_data()
    assert np.trapezoid(y, x) == pytest.approx(1, abs=2e-3)
    assert y == pytest.approx(univariate.log_density(torch.tensor(x)[:, None]).exp().numpy(), rel=1e-12)


def test_components_that_are_hardly_more_than_points_can_be_drawn():
    mixture = GaussianMixture.from_parameters(
        weights=[0.5, 0.5], means=[[0, 0], [1, 1]], covariances=[1e-12, 1e-12], covariance_type="spherical"
    )
    assert plots.render(plots.density(mixture), "svg")
