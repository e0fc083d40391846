"""One feature: a histogram of the points, and the density of a mixture over it."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from service.mixture import GaussianMixture
from service.plots.style import INK, colour

Values = NDArray[np.float64]
_CURVE_POINTS = 400
_MOST_BINS = 120


def draw_histogram(
    axes: Axes, mixture: GaussianMixture, values: Values, labels: NDArray[np.int64], colours: Sequence[int]
) -> None:
    """Draws values (N,) stacked by component, each component's weighted density, and their sum."""
    edges = np.histogram_bin_edges(values, bins=min(max(round(2 * len(values) ** 0.5), 10), _MOST_BINS))
    share = 1.0 / (len(values) * (edges[1] - edges[0]))
    axes.hist(
        [values[labels == component] for component in range(mixture.n_components)],
        bins=list(edges),
        weights=[
            np.full(int((labels == component).sum()), share) for component in range(mixture.n_components)
        ],
        stacked=True,
        color=[colour(k) for k in colours],
        alpha=0.35,
        linewidth=0,
    )
    grid = _grid(values, mixture)
    log_densities = mixture.component_log_density(torch.from_numpy(grid[:, None])).numpy()
    for component, k in enumerate(colours):
        weighted = float(mixture.weights[component]) * np.exp(log_densities[:, component])
        axes.plot(grid, weighted, color=colour(k), linewidth=2.2)
    if mixture.n_components > 1:
        draw_density(axes, mixture, values, "solid")


def draw_density(axes: Axes, mixture: GaussianMixture, values: Values, style: str) -> None:
    """Draws the mixture's density over the range of the values (N,)."""
    grid = _grid(values, mixture)
    density = np.exp(mixture.log_density(torch.from_numpy(grid[:, None])).numpy())
    axes.plot(grid, density, color=INK, linewidth=1.0, linestyle=style)


def _grid(values: Values, mixture: GaussianMixture) -> Values:
    """Where the curve is drawn: evenly over the range, and closely at each component, however narrow."""
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 1.0
    places = [np.linspace(low - margin, high + margin, _CURVE_POINTS)]
    for mean, deviation in zip(mixture.means[:, 0], mixture.standard_deviations()[:, 0], strict=True):
        places.append(float(mean) + float(deviation) * np.linspace(-4, 4, 81))
    grid = np.sort(np.concatenate(places))
    return np.asarray(grid[(grid >= low - margin) & (grid <= high + margin)])
