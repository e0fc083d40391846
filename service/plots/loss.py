"""The log-likelihood of every restart by step."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from service.plots.style import INK, SOFT, colour, dress, new_figure

Trace = Mapping[str, Any]
Candidate = tuple[int, str]


def loss(traces: Sequence[Trace], *, chosen: Candidate | None = None, title: str | None = None) -> Figure:
    """A line per restart, which one candidate gives a colour each, and several share by family or by K.

    Args:
        traces: each with n_components, covariance_type, restart, steps and log_likelihoods.
        chosen: the candidate that won, whose lines are drawn over the others'; without it, the best line is.
        title: over the figure.
    """
    figure, (axes,) = new_figure(title=title, width=8.0)
    names = _names(traces)
    groups = list(dict.fromkeys(names))
    best = max(traces, key=lambda trace: float(trace["log_likelihoods"][-1]))
    for trace, name in zip(traces, names, strict=True):
        candidate = trace["n_components"], trace["covariance_type"]
        front = candidate == chosen if len(groups) > 1 and chosen else trace is best
        _draw(axes, trace, colour(groups.index(name) if len(groups) > 1 else trace["restart"]), front)
    dress(axes, ("step", "log-likelihood, nats"))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(8))
    axes.ticklabel_format(axis="y", useOffset=False)
    if len(groups) > 1:
        handles = [Line2D([], [], color=colour(place), label=name) for place, name in enumerate(groups)]
        axes.legend(handles=handles, loc="lower right", frameon=False, labelcolor=SOFT, fontsize=9)
    return figure


def _names(traces: Sequence[Trace]) -> list[str]:
    """What each line is called: its family where there are several, else its number of components."""
    families = {trace["covariance_type"] for trace in traces}
    if len(families) > 1:
        return [trace["covariance_type"] for trace in traces]
    return [f"{trace['n_components']} components" for trace in traces]


def _draw(axes: Axes, trace: Trace, line_colour: str, front: bool) -> None:
    order = 3 if front else 2
    axes.plot(
        trace["steps"],
        trace["log_likelihoods"],
        color=line_colour,
        linewidth=2.2 if front else 1.1,
        alpha=1.0 if front else 0.65,
        zorder=order,
    )
    axes.plot(
        trace["steps"][-1],
        trace["log_likelihoods"][-1],
        marker="o",
        markersize=5 if front else 3.5,
        color=line_colour,
        markeredgecolor=INK if front else line_colour,
        markeredgewidth=0.8,
        zorder=order,
    )
