"""Points coloured by component, with the ellipses of the components over them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from service.mixture import GaussianMixture
from service.plots.histogram import draw_histogram
from service.plots.style import INK, colour, dress, feature_name, new_figure

Points = NDArray[np.float64]
Labels = NDArray[np.int64]

_MOST_PATHS = 5_000  # more points than this go into an SVG as one picture, or it would take megabytes


def scatter(
    mixture: GaussianMixture,
    points: Points,
    labels: Labels,
    *,
    features: tuple[int, int] = (0, 1),
    columns: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """A scatter of two features with ellipses at 1 and 2 standard deviations; D = 1: histogram and curve.

    Args:
        mixture: whose components are drawn.
        points: (N, D), in data units.
        labels: (N,), the component that colours each point.
        features: the two that are drawn; D = 1 has only the one.
        columns: names of the D features.
        title: over the figure.
    """
    figure, (axes,) = new_figure(title=title)
    colours = list(range(mixture.n_components))
    if mixture.n_features == 1:
        draw_histogram(axes, mixture, points[:, 0], labels, colours)
        dress(axes, (feature_name(columns, 0), "density"))
    else:
        draw_scatter(axes, mixture, points, labels, colours, features)
        dress(axes, [feature_name(columns, feature) for feature in features])
    return figure


def draw_scatter(
    axes: Axes,
    mixture: GaussianMixture,
    points: Points,
    labels: Labels,
    colours: Sequence[int],
    features: tuple[int, int] = (0, 1),
) -> None:
    """Draws points and ellipses; `colours` (K,) gives the colour of each component."""
    size = 14 * min(1.0, math.sqrt(1000 / len(points))) + 2
    for component in range(mixture.n_components):
        own = points[labels == component][:, list(features)]
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=size,
            color=colour(colours[component]),
            alpha=0.45,
            linewidths=0,
            rasterized=len(points) > _MOST_PATHS,
        )
    for component, k in enumerate(colours):
        draw_ellipses(axes, mixture, component, features, facecolor=colour(k), edgecolor=colour(k))
        mean = mixture.means[component, list(features)].numpy()
        axes.plot(*mean, marker="o", markersize=6, color=colour(k), markeredgecolor="white", zorder=4)


def draw_ellipses(
    axes: Axes, mixture: GaussianMixture, component: int, features: tuple[int, int], **look: Any
) -> None:
    """Draws where a component's density has fallen to that of 1 and of 2 standard deviations."""
    pair = list(features)
    center = mixture.means[component, pair].numpy()
    covariance = mixture.full_covariances()[component][pair][:, pair].numpy()
    for n_deviations in (2, 1):
        width, height, angle = ellipse_of(covariance, n_deviations)
        for filled in (True, False):
            if filled and "facecolor" not in look:
                continue
            axes.add_patch(
                Ellipse(
                    (center[0], center[1]),
                    width,
                    height,
                    angle=angle,
                    fill=filled,
                    alpha=0.08 if filled else 0.95,
                    zorder=3,
                    **{"linewidth": 0 if filled else 3.0 - n_deviations, **look},
                )
            )


def ellipse_of(covariance: Points, n_deviations: float) -> tuple[float, float, float]:
    """Width, height and angle (degrees, of the width) of {x : x^T covariance^-1 x = n_deviations^2}."""
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    height, width = 2 * n_deviations * np.sqrt(np.maximum(eigenvalues, 0))
    x, y = eigenvectors[:, 1]
    return float(width), float(height), math.degrees(math.atan2(y, x))


def draw_reference(axes: Axes, mixture: GaussianMixture, features: tuple[int, int] = (0, 1)) -> None:
    """Draws another mixture's ellipses, dashed, to compare with."""
    for component in range(mixture.n_components):
        draw_ellipses(axes, mixture, component, features, edgecolor=INK, linestyle=(0, (4, 3)), linewidth=1.0)
