"""/v1/fits/{fit_id}/plot.svg and plot.png."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api import subsample
from service.api.drawing import FORMATS, Draw, Format, documented, picture, require_acceptable
from service.api.mixture_plots import MOST_POINTS, Features, pair_of
from service.api.services import Services, Use
from service.errors import Conflict, NotFound
from service.mixture import GaussianMixture
from service.mixture.traces import joined
from service.schemas.fit import FINAL_STATUSES
from service.storage import datasets, events, fits
from service.storage.tables import DatasetRow, FitRow

router = APIRouter(prefix="/v1/fits/{fit_id}", tags=["plots"])
Kind = Literal["loss", "criteria", "recovery"]


def _serve(image_format: Format) -> None:
    @router.get(
        f"/plot.{image_format}",
        response_class=FORMATS[image_format],
        responses=documented(image_format) | {409: {"description": "The fit has nothing of this kind"}},
        operation_id=f"get_fit_plot_{image_format}",
        name=f"get_fit_plot_{image_format}",
    )
    async def plot(
        fit_id: str,
        request: Request,
        services: Use,
        kind: Annotated[
            Kind,
            Query(description="log-likelihood by step, criterion by K, or the gold mixture beside the fit"),
        ] = "loss",
        features: Features = None,
    ) -> Response:
        """Returns a picture of a fit.

        `loss`: the log-likelihood by step of all restarts, also while it runs. `criteria`: the criterion by
        the number of components, with a line for each family, of a fit that chose. `recovery`: the gold
        mixture with its points beside samples of what was learned. What a fit does not have is a 409.
        """
        require_acceptable(request, image_format)
        draw, version = await run_in_threadpool(_drawing, services, fit_id, kind, features)
        return await picture(request, image_format, draw, version)


for each in FORMATS:
    _serve(each)


def _drawing(services: Services, fit_id: str, kind: Kind, features: str | None) -> tuple[Draw, str | None]:
    """Returns what draws a fit, and what names the picture once the fit has ended."""
    with services.database.read() as session:
        row = fits.get(session, fit_id)
    draw = _DRAWINGS[kind](services, row, features)
    return draw, f"{fit_id}-{kind}-{features or ''}" if row.status in FINAL_STATUSES else None


def _nothing(row: FitRow, why: str) -> Conflict:
    return Conflict("NOTHING_TO_PLOT", f"The fit is {row.status}; {why}")


def _loss(services: Services, row: FitRow, _: str | None) -> Draw:
    parts: list[dict[str, Any]] = []
    with services.database.read() as session:
        for told in events.progress_of(session, row.id):
            parts += told.get("traces", [])
    traces = joined(parts)
    if not traces:
        raise _nothing(row, "it has not told of any step yet.")
    chosen = (row.result["n_components"], row.result["covariance_type"]) if row.result else None
    return lambda plots: plots.loss(traces, chosen=chosen)


def _criteria(_: Services, row: FitRow, __: str | None) -> Draw:
    result = _result(row)
    if result["candidates"] is None:
        raise _nothing(row, "it had one candidate only. Give n_components or covariance_type as a list.")
    criterion = row.request["selection"]["criterion"]
    chosen = (result["n_components"], result["covariance_type"])
    return lambda plots: plots.criteria(result["candidates"], criterion, chosen=chosen)


def _recovery(services: Services, row: FitRow, features: str | None) -> Draw:
    result = _result(row)
    if result["recovery"] is None:
        raise _nothing(
            row, "its dataset was not drawn from a gold mixture, so there is no truth to compare with."
        )
    try:
        with services.database.read() as session:
            dataset = datasets.get(session, row.dataset_id)
    except NotFound:
        raise _nothing(row, "its gold dataset has been deleted.") from None
    pair = pair_of(features, dataset.n_features)

    def draw(plots: Any) -> Any:
        gold, learned = _mixture(dataset.gold or {}), _mixture(result["mixture"])
        drawn = _gold_points(services, dataset)
        points, labels = learned.sample(len(drawn[0]), 0)
        return plots.recovery(
            gold,
            learned,
            drawn,
            (points.numpy(), labels.numpy()),
            matching={p["fitted_component"]: p["gold_component"] for p in result["recovery"]["matching"]},
            features=pair,
            columns=dataset.columns,
        )

    return draw


_DRAWINGS: dict[Kind, Callable[[Services, FitRow, str | None], Draw]] = {
    "loss": _loss,
    "criteria": _criteria,
    "recovery": _recovery,
}


def _result(row: FitRow) -> dict[str, Any]:
    if row.result is None:
        raise _nothing(row, "only a fit that succeeded has a result to draw.")
    return row.result


def _mixture(parameters: dict[str, Any]) -> GaussianMixture:
    names = ("weights", "means", "covariances", "covariance_type")
    return GaussianMixture.from_parameters(**{name: parameters[name] for name in names})


def _gold_points(services: Services, dataset: DatasetRow) -> tuple[Any, Any]:
    """Returns points (n, D) of a gold dataset with their true components (n,)."""
    taken = subsample.drawn(services, dataset, MOST_POINTS, 0)
    return taken.rows, taken.components
