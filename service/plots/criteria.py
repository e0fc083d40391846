"""A criterion by the number of components, with a line for each family of covariances."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from service.plots.style import INK, SOFT, colour, dress, new_figure

_NAMES = {
    "bic": ("bic", "BIC (lower is better)"),
    "aic": ("aic", "AIC (lower is better)"),
    "icl": ("icl", "ICL (lower is better)"),
    "held_out": ("held_out_log_likelihood", "held-out log-likelihood, nats (higher is better)"),
}


def criteria(
    candidates: Sequence[Mapping[str, Any]],
    criterion: str,
    *,
    chosen: tuple[int, str] | None = None,
    title: str | None = None,
) -> Figure:
    """The criterion that a fit chose by, over the candidates; one that collapsed has no point.

    Args:
        candidates: each with n_components, covariance_type and the criteria.
        criterion: bic, aic, icl or held_out.
        chosen: the pair that won, which gets a ring.
        title: over the figure.
    """
    figure, (axes,) = new_figure(title=title, width=8.0)
    field, name = _NAMES[criterion]
    families = list(dict.fromkeys(row["covariance_type"] for row in candidates))
    for place, family in enumerate(families):
        points = sorted(
            (row["n_components"], float(row[field]))
            for row in candidates
            if row["covariance_type"] == family
            and row[field] is not None
            and math.isfinite(float(row[field]))
        )
        axes.plot(*zip(*points, strict=True) if points else ([], []), "o-", color=colour(place), label=family)
        for n_components, value in points:
            if (n_components, family) == chosen:
                ring: dict[str, Any] = {
                    "markerfacecolor": "none",
                    "markeredgecolor": INK,
                    "markeredgewidth": 1.6,
                }
                axes.plot(n_components, value, "o", markersize=13, zorder=4, **ring)
    dress(axes, ("components", name))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.legend(frameon=False, labelcolor=SOFT, fontsize=9)
    return figure
