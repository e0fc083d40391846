"""/v1/mixtures/{mixture_id}/plot.svg and plot.png."""

import re
from typing import Annotated, Any, Literal

import torch
from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator
from starlette.concurrency import run_in_threadpool

from service.api import subsample
from service.api.drawing import FORMATS, Draw, Format, documented, picture, require_acceptable
from service.api.mixtures import stored
from service.api.services import Services, Use
from service.api.specifications import mixture_of_row
from service.errors import FieldError, NotFound, Unprocessable
from service.mixture import GaussianMixture
from service.storage import datasets, fits
from service.storage.tables import DatasetRow, MixtureRow

MOST_POINTS = 3_000
"""More points than this are drawn as a sample of so many."""

_FORM = r"^(0|[1-9][0-9]{0,5})(,(0|[1-9][0-9]{0,5}))?$"


def _well_formed(features: str | None) -> str | None:
    if features is not None and not re.fullmatch(_FORM, features):
        raise ValueError("must be the numbers of two features with a comma between, as in 0,1")
    return features


Features = Annotated[
    str | None,
    AfterValidator(_well_formed),
    Query(
        json_schema_extra={"pattern": _FORM},
        description="the two features to draw, counted from 0; the first two unless given",
        openapi_examples={"first two": {"value": "0,1"}, "third against first": {"value": "2,0"}},
    ),
]
router = APIRouter(prefix="/v1/mixtures/{mixture_id}", tags=["plots"])


def _serve(image_format: Format) -> None:
    @router.get(
        f"/plot.{image_format}",
        response_class=FORMATS[image_format],
        responses=documented(image_format)
        | {409: {"description": "Its dataset is in files elsewhere, and they have changed"}},
        operation_id=f"get_mixture_plot_{image_format}",
        name=f"get_mixture_plot_{image_format}",
    )
    async def plot(
        mixture_id: str,
        request: Request,
        services: Use,
        kind: Annotated[
            Literal["scatter", "density"],
            Query(description="points with ellipses, or contours of the density"),
        ] = "scatter",
        features: Features = None,
    ) -> Response:
        """Returns a picture of a mixture.

        `scatter`: the points of the dataset that it was fitted to (a sample of them, where there are many),
        or samples where there is no dataset, coloured by component, with ellipses at one and two standard
        deviations. `density`: contours around 20, 40, 60, 80 and 95 percent of the mass. With a single
        feature it is a histogram with the curve, or the curve alone. The same request gives the same bytes.
        """
        require_acceptable(request, image_format)
        draw, version = await run_in_threadpool(_drawing, services, mixture_id, kind, features)
        return await picture(request, image_format, draw, version)


for each in FORMATS:
    _serve(each)


def pair_of(features: str | None, n_features: int) -> tuple[int, int]:
    """Returns which two features to draw, from `Features`; (0, 0) where there is only one.

    Raises:
        Unprocessable: They are not two different ones that there are.
    """
    wanted = min(2, n_features)
    if features is None:
        return 0, wanted - 1
    places = [int(place) for place in features.split(",")]
    if len(places) == wanted == len(set(places)) and max(places) < n_features:
        return places[0], places[-1]
    rule = (
        "must be 0: there is only one feature"
        if wanted == 1
        else f"must be two different numbers from 0 to {n_features - 1} with a comma between, as in 0,1"
    )
    raise Unprocessable(f"features {rule}.", [FieldError(("features",), rule)])


def _drawing(services: Services, mixture_id: str, kind: str, features: str | None) -> tuple[Draw, str]:
    """Returns what draws a mixture, and what names the picture."""
    row = stored(services, mixture_id)
    mixture = mixture_of_row(row)
    pair = pair_of(features, mixture.n_features)
    version = f"{mixture_id}-{kind}-{pair[0]}-{pair[1]}"
    if kind == "density":
        return lambda plots: plots.density(mixture, features=pair, columns=row.columns), version
    dataset = _dataset_of(services, row)

    def draw(plots: Any) -> Any:
        points, labels = _points(services, mixture, dataset)
        return plots.scatter(mixture, points, labels, features=pair, columns=row.columns)

    return draw, f"{version}-{'samples' if dataset is None else dataset.sha256[:32]}"


def _dataset_of(services: Services, row: MixtureRow) -> DatasetRow | None:
    """Returns the dataset that a mixture was fitted to, if the fit and the dataset are still there."""
    if row.fit_id is None:
        return None
    try:
        with services.database.read() as session:
            dataset_id = fits.get(session, row.fit_id).dataset_id
            return datasets.get(session, dataset_id, with_files=True)
    except NotFound:
        return None


def _points(services: Services, mixture: GaussianMixture, dataset: DatasetRow | None) -> tuple[Any, Any]:
    """Returns points (n, D) with the component of each (n,): the likeliest, or the one it was drawn from."""
    if dataset is None:
        points, labels = mixture.sample(MOST_POINTS, 0)
        return points.numpy(), labels.numpy()
    rows = subsample.drawn(services, dataset, MOST_POINTS, 0).rows
    return rows, mixture.responsibilities(torch.from_numpy(rows)).argmax(1).numpy()
