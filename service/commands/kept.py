"""`mixserve fits`, `datasets` and `mixtures`: what a service keeps."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, TypeVar

import typer

from service.commands.connection import ApiKey, Url, connected
from service.commands.files import Columns, File, read_points
from service.commands.fit import AsResult, FitFormat, write_components, write_result
from service.commands.output import AsList, ListFormat, write_json, write_list

T = TypeVar("T")
fits = typer.Typer(help="Lists, shows, watches and cancels fits.", no_args_is_help=True)
datasets = typer.Typer(help="Lists, shows, uploads, registers and deletes datasets.", no_args_is_help=True)
mixtures = typer.Typer(help="Lists, shows and deletes mixtures.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID")]
Limit = Annotated[int | None, typer.Option(min=1, help="How many at most; all of them unless given.")]


def _first(items: Iterable[T], limit: int | None) -> Iterator[T]:
    return islice(items, limit)


@fits.command("list")
def list_fits(
    status: Annotated[str | None, typer.Option(help="queued, running, succeeded, failed, cancelled")] = None,
    dataset: Annotated[str | None, typer.Option(help="Of this dataset only.")] = None,
    limit: Limit = 50,
    form: AsList = ListFormat.TABLE,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Lists fits, newest first.

    Example: mixserve fits list --status running
    """
    with connected(url, api_key) as client:
        found = [fit.info for fit in _first(client.fits(status=status, dataset_id=dataset), limit)]
    write_list(found, ["id", "status", "created_at", "finished_at", "dataset_id"], form)


@fits.command("show")
def show_fit(fit_id: Id, url: Url = None, api_key: ApiKey = None) -> None:
    """Prints a fit as it stands, as JSON.

    Example: mixserve fits show fit_0sgehyjtm4pa8261t7jb9t9z5k
    """
    with connected(url, api_key) as client:
        write_json(client.get_fit(fit_id).info.model_dump(mode="json"))


@fits.command("watch")
def watch_fit(fit_id: Id, form: AsResult = FitFormat.JSON, url: Url = None, api_key: ApiKey = None) -> None:
    """Waits for a fit, with a progress bar on a terminal, and prints its result.

    Example: mixserve fits watch fit_0sgehyjtm4pa8261t7jb9t9z5k && echo "it succeeded"
    """
    with connected(url, api_key) as client:
        fit = client.get_fit(fit_id)
        result = fit.wait().model_dump(mode="json")
        write_result(result, fit.mixture().columns if form is FitFormat.CSV else None, form)


@fits.command("cancel")
def cancel_fit(fit_id: Id, url: Url = None, api_key: ApiKey = None) -> None:
    """Cancels a fit: a queued one at once, a running one within 2 s. An ended one stays as it is.

    Example: mixserve fits cancel fit_0sgehyjtm4pa8261t7jb9t9z5k
    """
    with connected(url, api_key) as client:
        typer.echo(f"mixserve: {fit_id} is {client.get_fit(fit_id).cancel().status}", err=True)


@fits.command("delete")
def delete_fit(fit_id: Id, url: Url = None, api_key: ApiKey = None) -> None:
    """Deletes a fit that has ended. Its mixture stays.

    Example: mixserve fits delete fit_0sgehyjtm4pa8261t7jb9t9z5k
    """
    with connected(url, api_key) as client:
        client.get_fit(fit_id).delete()


@datasets.command("list")
def list_datasets(
    limit: Limit = 50, form: AsList = ListFormat.TABLE, url: Url = None, api_key: ApiKey = None
) -> None:
    """Lists datasets, newest first.

    Example: mixserve datasets list --format csv
    """
    with connected(url, api_key) as client:
        found = list(_first(client.datasets(), limit))
    write_list(found, ["id", "name", "source", "n_samples", "n_features", "created_at"], form)


@datasets.command("show")
def show_dataset(dataset_id: Id, url: Url = None, api_key: ApiKey = None) -> None:
    """Prints what is known of a dataset, as JSON.

    Example: mixserve datasets show dat_0sgehyjt5mn2mkbdxddxw16czv
    """
    with connected(url, api_key) as client:
        write_json(client.dataset(dataset_id).model_dump(mode="json"))


@datasets.command("upload")
def upload_dataset(
    file: File,
    name: Annotated[str | None, typer.Option(help="To find it by.")] = None,
    columns: Columns = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Stores points, and prints what is known of them, as JSON.

    Example: mixserve datasets upload points.parquet --name "the first hundred"
    """
    points = read_points(file, columns)
    with connected(url, api_key) as client:
        write_json(client.upload(points, name=name).model_dump(mode="json"))


@datasets.command("register")
def register_dataset(
    location: Annotated[str, typer.Argument(metavar="LOCATION", help="s3://bucket/folder or file:///folder")],
    name: Annotated[str | None, typer.Option(help="To find it by.")] = None,
    columns: Columns = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Has the service read points in Parquet files where they are, and prints what is known of them, as JSON.

    Example: mixserve datasets register s3://measurements/november --columns height,width
    """
    chosen = columns.split(",") if columns else None
    with connected(url, api_key) as client:
        write_json(client.register(location, name=name, columns=chosen).model_dump(mode="json"))


@datasets.command("delete")
def delete_dataset(dataset_id: Id, url: Url = None, api_key: ApiKey = None) -> None:
    """Deletes a dataset that no queued or running fit needs.

    Example: mixserve datasets delete dat_0sgehyjt5mn2mkbdxddxw16czv
    """
    with connected(url, api_key) as client:
        client.delete_dataset(dataset_id)


@mixtures.command("list")
def list_mixtures(
    limit: Limit = 50, form: AsList = ListFormat.TABLE, url: Url = None, api_key: ApiKey = None
) -> None:
    """Lists mixtures, newest first.

    Example: mixserve mixtures list --limit 5
    """
    with connected(url, api_key) as client:
        found = [mixture.info for mixture in _first(client.mixtures(), limit)]
    names = ["id", "name", "n_components", "n_features", "covariance_type", "created_at"]
    write_list(found, names, form)


@mixtures.command("show")
def show_mixture(
    mixture_id: Id, form: AsResult = FitFormat.JSON, url: Url = None, api_key: ApiKey = None
) -> None:
    """Prints a mixture.

    Example: mixserve mixtures show mix_0sgehyjvhf9fy44hdg6p3azpdm --format csv
    """
    with connected(url, api_key) as client:
        mixture = client.mixture(mixture_id)
    shown = mixture.info.model_dump(mode="json")
    if form is FitFormat.JSON:
        write_json(shown)
    else:
        write_components(shown, mixture.columns)


@mixtures.command("delete")
def delete_mixture(mixture_id: Id, url: Url = None, api_key: ApiKey = None) -> None:
    """Deletes a mixture; a fit that made it keeps its result.

    Example: mixserve mixtures delete mix_0sgehyjvhf9fy44hdg6p3azpdm
    """
    with connected(url, api_key) as client:
        client.mixture(mixture_id).delete()
