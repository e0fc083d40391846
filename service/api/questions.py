"""What a mixture can be asked: log-densities, responsibilities, samples."""

import secrets
from typing import Annotated

import torch
from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from torch import Tensor

from service.api.answers import JSON, JsonAnswer, negotiate
from service.api.bodies import documented, json_body
from service.api.points import PointsIn, PostedPoints, in_order, require_servable
from service.api.points import documented as documented_points
from service.api.quick import Question, quick_route
from service.api.services import Services, Use
from service.mixture import GaussianMixture
from service.schemas.mixture import LogDensityAnswer, ResponsibilitiesAnswer, SamplesAnswer, SamplesRequest

_OFFERED = (JSON,)


async def _answerable(request: Request) -> None:
    negotiate(request, _OFFERED)


def _log_density(mixture: GaussianMixture, points: Tensor) -> dict[str, Tensor]:
    return {"log_density": mixture.log_density(points)}


def _responsibilities(mixture: GaussianMixture, points: Tensor) -> dict[str, Tensor]:
    posterior = mixture.responsibilities(points)
    return {"responsibilities": posterior, "labels": posterior.argmax(dim=1)}


def _log_densities(mixture: GaussianMixture, points: Tensor) -> dict[str, Tensor]:
    return _log_density(mixture, points) | {"component_log_density": mixture.component_log_density(points)}


_LOG_DENSITIES = {False: _log_density, True: _log_densities}
_QUICK = {"get_log_density": _log_density, "get_responsibilities": _responsibilities}

router = APIRouter(
    prefix="/v1/mixtures/{mixture_id}",
    tags=["questions"],
    dependencies=[Depends(_answerable)],
    route_class=quick_route(_QUICK),
)


@router.post(
    "/log-density",
    response_model=LogDensityAnswer,
    openapi_extra=documented_points(),
    operation_id="get_log_density",
)
async def log_density(
    mixture_id: str,
    points: PointsIn,
    services: Use,
    per_component: Annotated[bool, Query(description="adds component_log_density (N, K)")] = False,
) -> Response:
    """Returns the log-density of each point, in nats."""
    mixture, asked = await _asked(services, mixture_id, points)
    n_numbers = len(asked) * (1 + per_component * mixture.n_components)
    require_servable(n_numbers, f"log-densities of {len(asked)} points", services.settings.max_answer_bytes)
    return await run_in_threadpool(_rendered, _LOG_DENSITIES[per_component], mixture, asked)


@router.post(
    "/responsibilities",
    response_model=ResponsibilitiesAnswer,
    openapi_extra=documented_points(),
    operation_id="get_responsibilities",
)
async def responsibilities(mixture_id: str, points: PointsIn, services: Use) -> Response:
    """Returns the posterior probability of each component for each point, and the likeliest component."""
    mixture, asked = await _asked(services, mixture_id, points)
    n_numbers = len(asked) * (1 + mixture.n_components)
    require_servable(
        n_numbers, f"responsibilities of {len(asked)} points", services.settings.max_answer_bytes
    )
    return await run_in_threadpool(_rendered, _responsibilities, mixture, asked)


@router.post(
    "/samples",
    response_model=SamplesAnswer,
    openapi_extra=documented(SamplesRequest),
    operation_id="draw_samples",
)
async def samples(
    mixture_id: str, body: Annotated[SamplesRequest, Depends(json_body(SamplesRequest))], services: Use
) -> Response:
    """Draws points, independent and identically distributed in the order given."""
    mixture = (await services.prepared.get(mixture_id)).mixture
    n_numbers = body.n_samples * (mixture.n_features + 1)
    require_servable(n_numbers, f"{body.n_samples} points", services.settings.max_answer_bytes)
    seed = secrets.randbits(53) if body.seed is None else body.seed
    return await run_in_threadpool(_drawn, mixture, body.n_samples, seed)


def _rendered(question: Question, mixture: GaussianMixture, points: Tensor) -> Response:
    return JsonAnswer({name: values.tolist() for name, values in question(mixture, points).items()})


def _drawn(mixture: GaussianMixture, n_samples: int, seed: int) -> Response:
    points, components = mixture.sample(n_samples, seed)
    return JsonAnswer({"points": points.tolist(), "components": components.tolist(), "seed": seed})


async def _asked(services: Services, mixture_id: str, points: PostedPoints) -> tuple[GaussianMixture, Tensor]:
    """Returns the mixture, and the points (N, D) with their columns in its order."""
    asked = await services.prepared.get(mixture_id)
    rows = in_order(points, asked.mixture.n_features, asked.columns)
    return asked.mixture, torch.from_numpy(rows)
