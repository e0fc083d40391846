"""What a mixture can be asked: log-densities, responsibilities, samples."""

import secrets
from typing import Annotated, Any

import numpy as np
import torch
from fastapi import APIRouter, Depends, Query, Request, Response

from service.api.answers import JSON, JsonAnswer, negotiate
from service.api.bodies import documented, json_body
from service.api.mixtures import prepared, stored
from service.api.points import PointsIn, PostedPoints, column_order, require_features, require_servable
from service.api.points import documented as documented_points
from service.api.services import Services, Use
from service.mixture import GaussianMixture
from service.schemas.mixture import LogDensityAnswer, ResponsibilitiesAnswer, SamplesAnswer, SamplesRequest

_OFFERED = (JSON,)


def _answerable(request: Request) -> None:
    negotiate(request, _OFFERED)


router = APIRouter(
    prefix="/v1/mixtures/{mixture_id}", tags=["questions"], dependencies=[Depends(_answerable)]
)


@router.post(
    "/log-density",
    response_model=LogDensityAnswer,
    openapi_extra=documented_points(),
    operation_id="get_log_density",
)
def log_density(
    mixture_id: str,
    points: PointsIn,
    services: Use,
    per_component: Annotated[bool, Query(description="adds component_log_density (N, K)")] = False,
) -> Response:
    """Returns the log-density of each point, in nats."""
    mixture, asked = _asked(services, mixture_id, points)
    n_numbers = len(asked) * (1 + per_component * mixture.n_components)
    require_servable(n_numbers, f"log-densities of {len(asked)} points", services.settings.max_answer_bytes)
    answer: dict[str, Any] = {"log_density": mixture.log_density(asked).tolist()}
    if per_component:
        answer["component_log_density"] = mixture.component_log_density(asked).tolist()
    return JsonAnswer(answer)


@router.post(
    "/responsibilities",
    response_model=ResponsibilitiesAnswer,
    openapi_extra=documented_points(),
    operation_id="get_responsibilities",
)
def responsibilities(mixture_id: str, points: PointsIn, services: Use) -> Response:
    """Returns the posterior probability of each component for each point, and the likeliest component."""
    mixture, asked = _asked(services, mixture_id, points)
    n_numbers = len(asked) * (1 + mixture.n_components)
    require_servable(
        n_numbers, f"responsibilities of {len(asked)} points", services.settings.max_answer_bytes
    )
    posterior = mixture.responsibilities(asked)
    return JsonAnswer({"responsibilities": posterior.tolist(), "labels": posterior.argmax(dim=1).tolist()})


@router.post(
    "/samples",
    response_model=SamplesAnswer,
    openapi_extra=documented(SamplesRequest),
    operation_id="draw_samples",
)
def samples(
    mixture_id: str, body: Annotated[SamplesRequest, Depends(json_body(SamplesRequest))], services: Use
) -> Response:
    """Draws points, independent and identically distributed in the order given."""
    mixture = prepared(stored(services, mixture_id))
    n_numbers = body.n_samples * (mixture.n_features + 1)
    require_servable(n_numbers, f"{body.n_samples} points", services.settings.max_answer_bytes)
    seed = secrets.randbits(53) if body.seed is None else body.seed
    points, components = mixture.sample(body.n_samples, seed)
    return JsonAnswer({"points": points.tolist(), "components": components.tolist(), "seed": seed})


def _asked(services: Services, mixture_id: str, points: PostedPoints) -> tuple[GaussianMixture, torch.Tensor]:
    """Returns the mixture, and the points (N, D) with their columns in its order."""
    row = stored(services, mixture_id)
    order = column_order(points.columns, row.columns)
    rows = points.rows if order is None else np.ascontiguousarray(points.rows[:, order])
    require_features(rows, row.means.shape[1], row.columns)
    return prepared(row), torch.from_numpy(rows)
