"""The density of a mixture over two features, as contours around the parts of its mass."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from service.mixture import GaussianMixture
from service.plots.histogram import draw_density
from service.plots.style import INK, colour, dress, feature_name, new_figure

_MASSES = (0.95, 0.8, 0.6, 0.4, 0.2)
_SIDE = 200
_DEVIATIONS = 3.2
_SAMPLES = 20_000
_SHADES = LinearSegmentedColormap.from_list("mass", ("#eaf0fc", colour(0)))


def density(
    mixture: GaussianMixture,
    *,
    features: tuple[int, int] = (0, 1),
    columns: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Contours that hold so many percent of the mass each; D = 1: the density as a curve.

    Args:
        mixture: of any number of features; those not drawn are integrated out.
        features: the two that are drawn; D = 1 has only the one.
        columns: names of the D features.
        title: over the figure.
    """
    figure, (axes,) = new_figure(title=title)
    if mixture.n_features == 1:
        reach = _DEVIATIONS * mixture.standard_deviations()[:, 0]
        ends = torch.cat([mixture.means[:, 0] - reach, mixture.means[:, 0] + reach]).numpy()
        draw_density(axes, mixture, ends, "solid")
        axes.set_ylim(bottom=0)
        dress(axes, (feature_name(columns, 0), "density"))
    else:
        draw_contours(axes, marginal(mixture, features))
        dress(axes, [feature_name(columns, feature) for feature in features])
    return figure


def marginal(mixture: GaussianMixture, features: tuple[int, int]) -> GaussianMixture:
    """The mixture of two features alone, the others integrated out."""
    pair = list(features)
    covariances = mixture.full_covariances()[:, pair][:, :, pair]
    return GaussianMixture(mixture.weights, mixture.means[:, pair], covariances, "full")


def draw_contours(axes: Axes, mixture: GaussianMixture) -> None:
    """Draws the smallest regions that hold parts of the mass of a mixture of two features."""
    reach = _DEVIATIONS * mixture.standard_deviations()
    lows, highs = (mixture.means - reach).amin(0), (mixture.means + reach).amax(0)
    x, y = (np.linspace(float(low), float(high), _SIDE) for low, high in zip(lows, highs, strict=True))
    grid = torch.from_numpy(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))
    heights = mixture.log_density(grid).reshape(_SIDE, _SIDE).numpy()
    levels = mass_levels(mixture)
    shades = [_SHADES(share) for share in np.linspace(0, 1, len(levels))]
    axes.contourf(x, y, heights, levels=[*levels, max(heights.max(), levels[-1]) + 1], colors=shades)
    lines = axes.contour(
        x, y, heights, levels=levels, colors=INK, linewidths=0.7, linestyles="solid", alpha=0.8
    )
    names = {level: f"{100 * mass:.0f} %" for level, mass in zip(levels, _MASSES, strict=True)}
    axes.clabel(lines, fmt=names, fontsize=8)
    for component, mean in enumerate(mixture.means.numpy()):
        axes.plot(*mean, marker="o", markersize=6, color=colour(component), markeredgecolor="white", zorder=4)


def mass_levels(mixture: GaussianMixture) -> NDArray[np.float64]:
    """Log-densities above which lie 95, 80, 60, 40 and 20 percent of the mass, rising, by Monte Carlo."""
    points, _ = mixture.sample(_SAMPLES, 0)
    levels = np.quantile(mixture.log_density(points).numpy(), [1 - mass for mass in _MASSES])
    # Contours need levels that rise; they do, unless the mixture is a handful of points.
    return np.maximum.accumulate(levels + 1e-12 * np.arange(len(levels)))
