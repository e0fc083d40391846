"""`mixserve score`, `responsibilities`, `sample` and `plot`: what a mixture is asked."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from service.commands.connection import ApiKey, Url, connected
from service.commands.files import Columns, File, read_points
from service.commands.output import ArrayFormat, AsArray, write_array

Id = Annotated[str, typer.Argument(help="The mixture's id.")]


class Noun(StrEnum):
    """What there are pictures of."""

    MIXTURE = "mixture"
    FIT = "fit"


def score(
    mixture_id: Id,
    file: File,
    columns: Columns = None,
    form: AsArray = ArrayFormat.CSV,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Prints the log-density of each point, in nats.

    Example: mixserve score mix_0sgehyjvhf9fy44hdg6p3azpdm points.csv --format npy > scores.npy
    """
    points = read_points(file, columns)
    with connected(url, api_key) as client:
        answer = client.mixture(mixture_id).log_density(points)
        write_array(answer, "log_density", ["log_density"], form)


def responsibilities(
    mixture_id: Id,
    file: File,
    columns: Columns = None,
    form: AsArray = ArrayFormat.CSV,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Prints the posterior probability of each component for each point.

    Example: mixserve responsibilities mix_0sgehyjvhf9fy44hdg6p3azpdm points.csv
    """
    points = read_points(file, columns)
    with connected(url, api_key) as client:
        answer = client.mixture(mixture_id).responsibilities(points)
        names = [f"component_{k}" for k in range(answer.shape[1])]
        write_array(answer, "responsibilities", names, form)


def sample(
    mixture_id: Id,
    n_samples: Annotated[int, typer.Option("--n-samples", "-n", min=1, help="How many points.")] = 1000,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: fresh points each time.")] = None,
    form: AsArray = ArrayFormat.CSV,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Prints points drawn from a mixture.

    Example: mixserve sample mix_0sgehyjvhf9fy44hdg6p3azpdm -n 100 --seed 0 > samples.csv
    """
    with connected(url, api_key) as client:
        mixture = client.mixture(mixture_id)
        names = mixture.columns or [f"x{i}" for i in range(mixture.n_features)]
        write_array(mixture.sample(n_samples, seed=seed), "points", names, form)


def plot(
    noun: Annotated[Noun, typer.Argument(help="What the id is of.")],
    identifier: Annotated[str, typer.Argument(metavar="ID")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="An .svg or .png file; - writes SVG to stdout.")
    ],
    kind: Annotated[
        str | None, typer.Option(help="mixture: scatter, density; fit: loss, criteria, recovery.")
    ] = None,
    features: Annotated[str | None, typer.Option(help="Which two features, as in 0,1.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Saves a picture of a mixture or of a fit.

    Example: mixserve plot mixture mix_0sgehyjvhf9fy44hdg6p3azpdm --kind density --output density.svg
    """
    standard = str(output) == "-"
    suffix = "svg" if standard else output.suffix.lower().removeprefix(".")
    if suffix not in ("svg", "png"):
        raise typer.BadParameter(f"{output} ends in neither .svg nor .png")
    with connected(url, api_key) as client:
        picture = client.plot(f"{noun.value}s", identifier, file_format=suffix, kind=kind, features=features)
    if standard:
        sys.stdout.buffer.write(picture)
    else:
        output.write_bytes(picture)
