"""What the demo prints: parameters side by side, figures, candidates."""

from typing import Any

from rich import box
from rich.table import Table

from service.mixture import GaussianMixture


def table(title: str, *columns: str) -> Table:
    """An empty table; a column whose name begins with > holds numbers."""
    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return made


def side_by_side(
    one: GaussianMixture, other: GaussianMixture, pairs: list[tuple[int, int]], names: tuple[str, str]
) -> Table:
    """A table of both mixtures' parameters, a row for each of the paired components' numbers."""
    made = table(f"{names[0]} and {names[1]}", "component", "", f">{names[0]}", f">{names[1]}", ">difference")
    for i, j in pairs:
        rows = zip(_parameters(one, i), _parameters(other, j), strict=True)
        for place, ((name, first), (_, second)) in enumerate(rows):
            made.add_row(
                str(i + 1) if place == 0 else "",
                name,
                f"{first:.4f}",
                f"{second:.4f}",
                f"{second - first:+.4f}",
                end_section=name == "correlation",
            )
    return made


def _parameters(mixture: GaussianMixture, component: int) -> list[tuple[str, float]]:
    """Name and value of what describes a component in one or two dimensions."""
    axes = ["x", "y"][: mixture.n_features] if mixture.n_features > 1 else [""]
    means, deviations = mixture.means[component], mixture.standard_deviations()[component]
    named = [("weight", float(mixture.weights[component]))] if mixture.n_components > 1 else []
    named += [(f"mean {axis}".strip(), float(mean)) for axis, mean in zip(axes, means, strict=True)]
    named += [
        (f"deviation {axis}".strip(), float(value)) for axis, value in zip(axes, deviations, strict=True)
    ]
    if mixture.n_features > 1:
        named.append(("correlation", float(mixture.correlations()[component, 0, 1])))
    return named


def recovery(result: dict[str, Any]) -> Table:
    """A table of how well the truth was found."""
    found, kl = result["recovery"], result["recovery"]["kl"]
    made = table("how well it was found", "figure", ">value", "meaning")
    made.add_row("log-likelihood", f"{result['log_likelihood']:.3f}", "of the 1000 points, in nats")
    made.add_row("largest weight error", f"{found['largest_weight_error']:.4f}", "absolute")
    made.add_row("largest mean error", f"{found['largest_mean_error']:.4f}", "distance, in data units")
    made.add_row("largest covariance error", f"{found['largest_covariance_error']:.4f}", "Frobenius norm")
    made.add_row(
        "KL(gold || learned)", f"{kl['value']:.5f}", f"nats, ± {kl['standard_error']:.5f}; 0 is perfect"
    )
    made.add_row("adjusted Rand index", f"{found['adjusted_rand_index']:.4f}", "of the labels; 1 is perfect")
    hits = [optimum["hits"] for optimum in result["optima"]]
    made.add_row("restarts", str(sum(hits)), f"{hits[0]} ended in the best optimum, of {len(hits)} distinct")
    made.add_row(
        "time of the fit",
        f"{result['elapsed_seconds']:.3f} s",
        f"{result['n_steps']} steps on {result['device']}",
    )
    return made


def candidates(result: dict[str, Any], n_best: int) -> Table:
    """A table of the best candidates by BIC."""
    rows = sorted(result["candidates"], key=lambda row: (row["bic"] is None, row["bic"]))
    made = table(
        f"the best {n_best} of {len(rows)} candidates, by BIC (lower is better)",
        ">components", "covariances", ">parameters", ">log-likelihood", ">BIC", ">behind",
    )  # fmt: skip
    for row in rows[:n_best]:
        made.add_row(
            str(row["n_components"]),
            row["covariance_type"],
            str(row["n_parameters"]),
            f"{row['log_likelihood']:.2f}",
            f"{row['bic']:.2f}",
            f"{row['bic'] - rows[0]['bic']:.2f}",
            style="bold" if row is rows[0] else "",
        )
    return made


def log_densities(points: list[list[float]], gold: list[float], learned: list[float]) -> Table:
    """A table of log-densities under both mixtures."""
    made = table("log-density in nats", ">point", ">gold", ">learned")
    for point, first, second in zip(points, gold, learned, strict=True):
        made.add_row(", ".join(f"{value:g}" for value in point), f"{first:.4f}", f"{second:.4f}")
    return made


def components(mixture: GaussianMixture, columns: list[str]) -> Table:
    """A table of a mixture's components in its own units."""
    heads = [f">{what} {name}" for what in ("mean", "deviation") for name in columns]
    made = table("its components", "component", ">weight", *heads)
    for k in range(mixture.n_components):
        numbers = [*mixture.means[k].tolist(), *mixture.standard_deviations()[k].tolist()]
        made.add_row(str(k + 1), f"{float(mixture.weights[k]):.4f}", *(f"{number:.3f}" for number in numbers))
    return made
