"""One feature: bars that integrate to one, and the density itself over them."""

import numpy as np
import pytest
import torch

from service import plots
from tests.plots.conftest import drawn


def test_the_bars_integrate_to_one_and_stack_by_component(univariate):
    points, labels = drawn(univariate)
    (axes,) = plots.scatter(univariate, points, labels).axes
    areas = [sum(bar.get_width() * bar.get_height() for bar in bars) for bars in axes.containers]
    assert areas == pytest.approx(np.bincount(labels) / len(labels))
    assert sum(areas) == pytest.approx(1)


def test_the_curves_are_the_weighted_components_and_their_sum(univariate):
    points, labels = drawn(univariate)
    (axes,) = plots.scatter(univariate, points, labels, columns=["minutes"]).axes
    *components, whole = axes.lines
    for component, line in enumerate(components):
        x, y = line.get_data()
        expected = univariate.component_log_density(torch.tensor(x)[:, None])[:, component].exp()
        assert y == pytest.approx((univariate.weights[component] * expected).numpy(), rel=1e-12)
    x, y = whole.get_data()
    assert y == pytest.approx(univariate.log_density(torch.tensor(x)[:, None]).exp().numpy(), rel=1e-12)
    peak = 0.7 / np.sqrt(2 * np.pi * 0.01) + 0.3 * np.exp(-8) / np.sqrt(2 * np.pi)
    assert max(y) == pytest.approx(peak, rel=1e-9)  # a narrow peak is not missed
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("minutes", "density")


@pytest.mark.parametrize("values", [[[3.0]], [[3.0], [3.0]]])
def test_points_without_a_spread_can_be_drawn(univariate, values):
    (axes,) = plots.scatter(univariate, np.array(values), np.zeros(len(values), dtype=int)).axes
    assert axes.lines
