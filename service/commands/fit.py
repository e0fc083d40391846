"""`mixserve fit`: from a file to a mixture, at a service or in this process."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands import ranges
from service.commands.connection import EXIT_CODES, USAGE, ApiKey, Url, connected, end
from service.commands.files import Columns, read_points
from service.commands.output import write_csv, write_json

if TYPE_CHECKING:
    from service.client import Client
    from service.client.points import Points


class FitFormat(StrEnum):
    """What a result is written in."""

    JSON = "json"
    CSV = "csv"


AsResult = Annotated[
    FitFormat, typer.Option("--format", help="json: the whole result; csv: a row per component.")
]


class Criterion(StrEnum):
    """By what a list of candidates is judged."""

    BIC = "bic"
    AIC = "aic"
    ICL = "icl"
    HELD_OUT = "held_out"


def fit(
    file: Annotated[
        str | None, typer.Argument(help="Points: .csv, .npy, .parquet, .arrow; - reads CSV from stdin.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="The id of a stored dataset, in place of FILE.")] = None,
    components: Annotated[str, typer.Option(help="One number, or some to choose from: 3, 1:8, 2,4.")] = "1:8",
    family: Annotated[
        str, typer.Option(help="full, tied, diag, spherical or mclust's, or some: full,diag.")
    ] = "full",
    criterion: Annotated[Criterion, typer.Option(help="By what to choose.")] = Criterion.BIC,
    optimizer: Annotated[str, typer.Option(help="auto, em, lbfgs, adam or sgd.")] = "auto",
    n_init: Annotated[int, typer.Option(help="Restarts, the best of which is kept.")] = 8,
    tolerance: Annotated[float, typer.Option(help="On the mean log-likelihood; 0 runs every step.")] = 1e-6,
    max_steps: Annotated[int, typer.Option(help="Updates of the parameters at most.")] = 1000,
    regularization: Annotated[
        float, typer.Option(help="Added to covariances, in units of variances.")
    ] = 1e-6,
    seed: Annotated[int, typer.Option(help="The same seed gives the same result.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    columns: Columns = None,
    local: Annotated[bool, typer.Option("--local", help="Fit in this process, without a service.")] = False,
    form: AsResult = FitFormat.JSON,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Fits a mixture to points, with a progress bar on a terminal, and prints the result.

    Example: mixserve fit points.csv --components 1:8 --family full,diag > result.json
    """
    if (file is None) == (dataset is None):
        end(USAGE, "give either a FILE of points or --dataset ID")
    request: dict[str, Any] = {
        "n_components": ranges.components(components),
        "covariance_type": ranges.families(family),
        "selection": {"criterion": criterion.value},
        "optimizer": {"name": optimizer},
        "n_init": n_init,
        "tolerance": tolerance,
        "max_steps": max_steps,
        "regularization": regularization,
        "seed": seed,
        "device": device,
    }
    points = None if file is None else read_points(file, columns)
    if local:
        from service.commands.local import fit_here

        if points is None:
            end(USAGE, "--local fits a FILE; a stored dataset is at a service")
        write_result(fit_here(points, request), points.columns, form)
        return
    with connected(url, api_key) as client:
        _fit_there(client, points, dataset, request, form)


def _fit_there(
    client: "Client",
    points: "Points | None",
    dataset_id: str | None,
    request: dict[str, Any],
    form: FitFormat,
) -> None:
    if points is not None:
        dataset_id = client.upload(points).id
    asked = client.fit(dataset_id=dataset_id, **request)
    typer.echo(f"mixserve: {asked.id}", err=True)
    try:
        result = asked.wait()
    except KeyboardInterrupt:
        typer.echo(f"mixserve: {asked.id} goes on; `mixserve fits watch {asked.id}` follows it", err=True)
        raise
    names = points.columns if points is not None else client.dataset(asked.info.dataset_id).columns
    write_result(result.model_dump(mode="json"), names, form)


def write_result(result: dict[str, Any], columns: list[str] | None, form: FitFormat) -> None:
    """Writes what a fit ended in."""
    if form is FitFormat.JSON:
        write_json(result)
        return
    write_components(result["mixture"], columns)


def write_components(mixture: dict[str, Any], columns: list[str] | None) -> None:
    """Writes a mixture as CSV: a row per component, with its weight, means and standard deviations."""
    from service.commands.components import standard_deviations

    means = mixture["means"]
    names = columns or [f"x{i}" for i in range(len(means[0]))]
    deviations = standard_deviations(mixture)
    header = ["weight", *(f"mean_{name}" for name in names), *(f"sd_{name}" for name in names)]
    rows = zip(mixture["weights"], means, deviations, strict=True)
    write_csv(header, [[weight, *mean, *deviation] for weight, mean, deviation in rows])


fit.__doc__ = f"{fit.__doc__}\n    {EXIT_CODES}\n"
