"""Points in the colour of their component, ellipses where the covariance says."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.patches import Ellipse

from service import plots
from service.mixture import GaussianMixture
from service.plots.scatter import ellipse_of
from service.plots.style import colour
from tests.plots.conftest import drawn


def outline(patch: Ellipse) -> np.ndarray:
    """Points on an ellipse that was drawn, (n, 2), in data units."""
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return patch.get_patch_transform().transform(circle)


@pytest.mark.parametrize(
    "covariance", [[[0.16, 0.16], [0.16, 0.25]], [[1, 0], [0, 4]], [[3, -1.7], [-1.7, 1]], [[2, 0], [0, 2]]]
)
@pytest.mark.parametrize("n_deviations", [1, 2])
def test_an_ellipse_lies_at_its_mahalanobis_distance(covariance, n_deviations):
    width, height, angle = ellipse_of(np.array(covariance), n_deviations)
    edge = outline(Ellipse((0, 0), width, height, angle=angle))
    distances = np.sqrt(np.einsum("na,ab,nb->n", edge, np.linalg.inv(covariance), edge))
    assert distances == pytest.approx(np.full(60, n_deviations), rel=1e-9)


def test_every_component_has_its_points_and_its_two_ellipses_in_its_colour(gold):
    points, labels = drawn(gold)
    (axes,) = plots.scatter(gold, points, labels, columns=["x", "y"]).axes
    for component, cloud in enumerate(axes.collections):
        assert np.asarray(cloud.get_offsets()) == pytest.approx(points[labels == component])
        assert tuple(cloud.get_facecolor()[0][:3]) == to_rgba(colour(component))[:3]
    lines = [patch for patch in axes.patches if not patch.get_fill()]
    assert len(lines) == 6
    for place, patch in enumerate(lines):
        component, n_deviations = place // 2, 2 - place % 2
        away = outline(patch) - gold.means[component].numpy()
        precision = gold.precisions()[component].numpy()
        distances = np.sqrt(np.einsum("na,ab,nb->n", away, precision, away))
        assert distances == pytest.approx(np.full(60, n_deviations), rel=1e-9)
        assert patch.get_edgecolor()[:3] == to_rgba(colour(component))[:3]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")


def test_two_of_three_features_are_drawn_with_the_marginal_covariance():
    covariance = torch.tensor([[2.0, 0.5, 0.3], [0.5, 1.0, -0.4], [0.3, -0.4, 3.0]])
    mixture = GaussianMixture.from_parameters(
        weights=[1], means=[[1, 2, 3]], covariances=covariance[None].tolist()
    )
    points, labels = drawn(mixture)
    (axes,) = plots.scatter(mixture, points, labels, features=(2, 0)).axes
    assert np.asarray(axes.collections[0].get_offsets()) == pytest.approx(points[:, [2, 0]])
    away = outline(axes.patches[-1]) - [3, 1]
    marginal = np.array([[3.0, 0.3], [0.3, 2.0]])
    distances = np.einsum("na,ab,nb->n", away, np.linalg.inv(marginal), away)
    assert distances == pytest.approx(np.ones(60), rel=1e-6)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("feature 3", "feature 1")


def test_a_component_without_points_is_drawn_all_the_same(gold):
    points = np.array([[-1.0, 1.0]])
    (axes,) = plots.scatter(gold, points, np.array([1])).axes
    assert len([patch for patch in axes.patches if not patch.get_fill()]) == 6


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_every_family_can_be_drawn(covariance_type):
    covariances = {
        "full": [[[1, 0], [0, 1]]] * 2,
        "tied": [[1, 0], [0, 1]],
        "diag": [[1, 1]] * 2,
        "spherical": [1, 1],
    }[covariance_type]
    mixture = GaussianMixture.from_parameters(
        weights=[0.5, 0.5], means=[[0, 0], [4, 4]], covariances=covariances, covariance_type=covariance_type
    )
    (axes,) = plots.scatter(mixture, *drawn(mixture)).axes
    sizes = np.array([(patch.width, patch.height) for patch in axes.patches if not patch.get_fill()])
    assert sizes == pytest.approx(np.array([(4, 4), (2, 2)] * 2))
