"""Gold beside learned, partners in one colour."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from service import plots
from service.mixture import GaussianMixture
from service.plots.style import INK, colour
from tests.plots.conftest import drawn
from tests.serving import GOLD


def cloud_colours(axes):
    return [tuple(cloud.get_facecolor()[0][:3]) for cloud in axes.collections]


def test_partners_have_one_colour_and_a_component_too_many_its_own(gold):
    learned = GaussianMixture.from_parameters(
        weights=[0.3, 0.3, 0.2, 0.2],
        means=[[1, 1], [-1, -1], [-1, 1], [0, 0]],
        covariances=[[[0.1, 0], [0, 0.1]]] * 4,
    )
    figure = plots.recovery(
        gold, learned, drawn(gold), drawn(learned), matching={0: 2, 1: 0, 2: 1}, columns=["x", "y"]
    )
    left, right = figure.axes
    assert cloud_colours(left) == [to_rgba(colour(k))[:3] for k in (0, 1, 2)]
    assert cloud_colours(right) == [to_rgba(colour(k))[:3] for k in (2, 0, 1, 3)]
    dashed = [patch for patch in right.patches if patch.get_edgecolor()[:3] == to_rgba(INK)[:3]]
    assert [patch.center for patch in dashed] == [
        pytest.approx(tuple(mean)) for mean in np.repeat(GOLD["means"], 2, axis=0)
    ]
    assert left.get_xlim() == right.get_xlim()


def test_one_feature_has_the_gold_curve_dashed_over_the_learned_one(univariate):
    figure = plots.recovery(
        univariate, univariate, drawn(univariate), drawn(univariate, seed=1), matching={0: 0, 1: 1}
    )
    left, right = figure.axes
    assert [line.get_linestyle() for line in left.lines] == ["-"] * 3
    assert [line.get_linestyle() for line in right.lines] == ["-"] * 3 + ["--"]
    assert right.lines[-1].get_ydata() == pytest.approx(left.lines[-1].get_ydata())
