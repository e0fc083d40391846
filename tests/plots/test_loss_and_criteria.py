"""What the pictures of a fit show."""

import pytest
from matplotlib.colors import to_rgba

from service import plots
from service.plots.style import colour


def trace(restart: int = 0, n_components: int = 3, covariance_type: str = "full", end: float = -5.0):
    return {
        "n_components": n_components,
        "covariance_type": covariance_type,
        "restart": restart,
        "steps": [1, 2, 5],
        "log_likelihoods": [-30.0, -10.0 - restart, end],
    }


def lines_of(axes):
    return [line for line in axes.lines if len(line.get_xdata()) > 1]


def test_every_restart_is_a_line_and_the_best_lies_on_top():
    traces = [trace(0, end=-6.0), trace(1, end=-5.0), trace(2, end=-9.0)]
    (axes,) = plots.loss(traces).axes
    lines = lines_of(axes)
    for line, told in zip(lines, traces, strict=True):
        assert list(line.get_xdata()) == told["steps"]
        assert list(line.get_ydata()) == told["log_likelihoods"]
        assert line.get_color() == colour(told["restart"])
    assert max(lines, key=lambda line: line.get_zorder()) is lines[1]
    assert axes.get_legend() is None


@pytest.mark.parametrize(
    ("traces", "named"),
    [
        ([trace(0, 2), trace(1, 2), trace(0, 3)], ["2 components", "3 components"]),
        ([trace(0, 2), trace(0, 2, "diag"), trace(0, 3, "diag")], ["full", "diag"]),
    ],
)
def test_candidates_are_told_apart_by_family_or_by_their_number(traces, named):
    (axes,) = plots.loss(traces, chosen=(2, "full")).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == named
    orders = [line.get_zorder() for line in lines_of(axes)]
    assert orders == [3 if (t["n_components"], t["covariance_type"]) == (2, "full") else 2 for t in traces]


def row(n_components: int, covariance_type: str, bic: float | str | None, held_out: float | str | None):
    return {
        "n_components": n_components,
        "covariance_type": covariance_type,
        "bic": bic,
        "held_out_log_likelihood": held_out,
    }


CANDIDATES = [
    row(1, "full", 30.0, -30.0),
    row(1, "diag", 40.0, -40.0),
    row(2, "full", 20.0, -20.0),
    row(2, "diag", None, None),
    row(3, "full", "Infinity", "NaN"),
    row(3, "diag", 25.0, -25.0),
]


@pytest.mark.parametrize(("criterion", "sign"), [("bic", 1), ("held_out", -1)])
def test_a_line_per_family_leaves_out_what_collapsed_and_rings_what_was_chosen(criterion, sign):
    (axes,) = plots.criteria(CANDIDATES, criterion, chosen=(2, "full")).axes
    families = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert [list(xy) for xy in families["full"].get_data()] == [[1, 2], [sign * 30.0, sign * 20.0]]
    assert [list(xy) for xy in families["diag"].get_data()] == [[1, 3], [sign * 40.0, sign * 25.0]]
    (ring,) = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (2, sign * 20.0)
    assert ("lower" in axes.get_ylabel()) is (sign > 0)


def test_a_family_that_collapsed_throughout_is_still_named():
    rows = [row(2, "full", None, None), row(2, "diag", 1.0, None)]
    (axes,) = plots.criteria(rows, "bic").axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["full", "diag"]
    assert to_rgba(axes.lines[1].get_color()) == to_rgba(colour(1))


@pytest.mark.parametrize("image_format", ["svg", "png"])
def test_they_render_the_same_each_time(image_format):
    def drawn() -> bytes:
        both = plots.loss([trace(0), trace(1)]), plots.criteria(CANDIDATES, "bic")
        return b"".join(plots.render(figure, image_format) for figure in both)

    assert drawn() == drawn()
