"""How every figure looks."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#1b2333"
SOFT = "#59647a"
LINE = "#dde2ec"

# Told apart in print and by colour-blind eyes; the web page has the same in service/web/styles/theme.css.
_COLOURS = ("#2f6fde", "#e2622c", "#1f9e75", "#a855c7", "#b98a10", "#2d9db8", "#d1487a", "#6b7280")


def colour(component: int) -> str:
    """The colour of a component; they come round again after the eighth."""
    return _COLOURS[component % len(_COLOURS)]


def new_figure(
    n_panels: int = 1, title: str | None = None, *, width: float = 5.6
) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side that share their axes, each `width` inches wide."""
    figure = Figure(figsize=(width * n_panels, 5.4), dpi=120, layout="constrained", facecolor="white")
    panels = figure.subplots(1, n_panels, sharex=True, sharey=True, squeeze=False)
    if title:
        figure.suptitle(title, color=INK, fontsize=13, fontweight="bold", x=0.02, ha="left")
    return figure, list(panels[0])


def dress(axes: Axes, names: Sequence[str], title: str | None = None) -> None:
    """Gives axes their names (of x, then of y), a quiet grid and a title."""
    axes.set_axisbelow(True)
    axes.grid(color=LINE, linewidth=0.8)
    axes.tick_params(colors=SOFT, length=0, labelsize=9)
    for side in axes.spines.values():
        side.set_color(LINE)
    # Names of columns are anybody's; a $ in them begins no formula.
    axes.set_xlabel(names[0], color=SOFT, parse_math=False)
    axes.set_ylabel(names[1], color=SOFT, parse_math=False)
    if title:
        axes.set_title(title, color=INK, fontsize=11, loc="left")


def feature_name(columns: Sequence[str] | None, feature: int) -> str:
    """What a feature is called on an axis, counted from one where it has no name."""
    return columns[feature] if columns else f"feature {feature + 1}"
