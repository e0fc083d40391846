"""A gold mixture beside the one that was learned from its points."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from service.mixture import GaussianMixture
from service.plots.histogram import draw_density, draw_histogram
from service.plots.scatter import Labels, Points, draw_reference, draw_scatter
from service.plots.style import dress, feature_name, new_figure


def recovery(
    gold: GaussianMixture,
    learned: GaussianMixture,
    gold_points: tuple[Points, Labels],
    learned_points: tuple[Points, Labels],
    *,
    matching: Mapping[int, int],
    features: tuple[int, int] = (0, 1),
    columns: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Two panels: points of the gold mixture, and samples of the learned one with the gold one dashed.

    Args:
        gold: the true mixture.
        learned: the fitted one.
        gold_points: points (N, D) and the gold component (N,) of each.
        learned_points: the same for samples of the learned mixture.
        matching: the gold component that each learned one is matched with; both get its colour.
        features: the two that are drawn.
        columns: names of the D features.
        title: over the figure.
    """
    figure, (left, right) = new_figure(2, title)
    colours = _colours(learned.n_components, gold.n_components, matching)
    for axes, mixture, (points, labels), own_colours, name in (
        (
            left,
            gold,
            gold_points,
            list(range(gold.n_components)),
            "gold: the truth, and the points drawn from it",
        ),
        (right, learned, learned_points, colours, "learned: fresh samples of the fit (gold dashed)"),
    ):
        if gold.n_features == 1:
            draw_histogram(axes, mixture, points[:, 0], labels, own_colours)
            dress(axes, (feature_name(columns, 0), "density"), name)
        else:
            draw_scatter(axes, mixture, points, labels, own_colours, features)
            dress(axes, [feature_name(columns, feature) for feature in features], name)
    right.set_ylabel("")
    if gold.n_features == 1:
        draw_density(right, gold, gold_points[0][:, 0], "dashed")
    else:
        draw_reference(right, gold, features)
    return figure


def _colours(n_learned: int, n_gold: int, matching: Mapping[int, int]) -> list[int]:
    """The colour of each learned component; those without a partner have colours of their own."""
    alone = (component for component in range(n_learned) if component not in matching)
    own = {component: n_gold + place for place, component in enumerate(alone)}
    return [matching.get(component, own.get(component, 0)) for component in range(n_learned)]
