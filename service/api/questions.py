"""What a mixture can be asked: log-densities, responsibilities, samples."""

import secrets
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from torch import Tensor

from service.api.answers import JsonAnswer, negotiate
from service.api.bodies import documented, require_media_type
from service.api.inflow import inflow
from service.api.json_bodies import json_body
from service.api.many_points import answered
from service.api.outflow import OutflowAnswer
from service.api.per_point import Field, flat, indexed, npy_bytes, written
from service.api.points import POINT_TYPES, ColumnsQuery, binary_content, require_servable, wanted
from service.api.points import documented as documented_points
from service.api.scoring import Question
from service.api.services import Services, Use
from service.codecs.registry import ARROW, JSON, NPY, WRITABLE
from service.mixture import GaussianMixture
from service.schemas.mixture import LogDensityAnswer, ResponsibilitiesAnswer, SamplesAnswer, SamplesRequest

# Drawing so many numbers takes less time than handing them to another thread.
_FEW_NUMBERS = 4_096
_SEED = "X-Seed"
_BYTES_PER_NUMBER = {JSON: 20, NPY: 8, ARROW: 8}


def _log_density(mixture: GaussianMixture, points: Tensor) -> dict[str, Tensor]:
    return {"log_density": mixture.log_density(points)}


def _log_densities(mixture: GaussianMixture, points: Tensor) -> dict[str, Tensor]:
    return _log_density(mixture, points) | {"component_log_density": mixture.component_log_density(points)}


def _responsibilities(mixture: GaussianMixture, points: Tensor) -> dict[str, Tensor]:
    posterior = mixture.responsibilities(points)
    return {"responsibilities": posterior, "labels": posterior.argmax(dim=1)}


QUESTIONS = {"get_log_density": _log_density, "get_responsibilities": _responsibilities}
ENDINGS = ("/log-density", "/responsibilities")
"""How the paths end of questions that need no thread, as long as they are small."""
"""What is asked about points, by the operation's id."""

router = APIRouter(prefix="/v1/mixtures/{mixture_id}", tags=["questions"])


def _binary(description: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": description, "content": binary_content((NPY, ARROW))}}


@router.post(
    "/log-density",
    response_model=LogDensityAnswer,
    responses=_binary(
        "In nats. NPY has the array (N,) alone, per component (N, 1 + K) with the mixture's first; Arrow has "
        "a column log_density, and component_log_density_0 and so on."
    ),
    openapi_extra=documented_points(),
    operation_id="get_log_density",
)
async def log_density(
    mixture_id: str,
    request: Request,
    services: Use,
    columns: ColumnsQuery = None,
    per_component: Annotated[bool, Query(description="adds component_log_density (N, K)")] = False,
) -> Response:
    """Returns the log-density of each point, in nats."""
    question = _log_densities if per_component else _log_density
    return await _about_many(request, services, mixture_id, columns, question)


@router.post(
    "/responsibilities",
    response_model=ResponsibilitiesAnswer,
    responses=_binary(
        "NPY has the responsibilities (N, K) alone; Arrow has columns responsibilities_0 and so on, and "
        "labels."
    ),
    openapi_extra=documented_points(),
    operation_id="get_responsibilities",
)
async def responsibilities(
    mixture_id: str, request: Request, services: Use, columns: ColumnsQuery = None
) -> Response:
    """Returns the posterior probability of each component for each point, and the likeliest component."""
    return await _about_many(request, services, mixture_id, columns, _responsibilities)


@router.post(
    "/samples",
    response_model=SamplesAnswer,
    responses=_binary(
        f"NPY has the points (N, D) alone; Arrow has a column for each feature, and components. The seed is "
        f"in the header {_SEED}."
    ),
    openapi_extra=documented(SamplesRequest),
    operation_id="draw_samples",
)
async def samples(
    mixture_id: str,
    request: Request,
    body: Annotated[SamplesRequest, Depends(json_body(SamplesRequest))],
    services: Use,
) -> Response:
    """Draws points, independent and identically distributed in the order given.

    A seed names the same points however many are drawn.
    """
    media_type = negotiate(request, WRITABLE)
    prepared = await services.prepared.get(mixture_id)
    mixture, n_samples = prepared.mixture, body.n_samples
    n_numbers = n_samples * (mixture.n_features + 1)
    size, limit = n_numbers * _BYTES_PER_NUMBER[media_type], services.settings.max_answer_bytes
    require_servable(size, f"{n_samples} points", limit)
    seed = secrets.randbits(53) if body.seed is None else body.seed
    headers = {_SEED: str(seed), "Vary": "Accept"}
    if media_type == JSON and n_numbers <= _FEW_NUMBERS:
        points, components = mixture.sample(n_samples, seed)
        answer = {"points": points.tolist(), "components": components.tolist(), "seed": seed}
        return JsonAnswer(answer, headers=headers)
    names = prepared.columns or [f"x{index}" for index in range(mixture.n_features)]
    fields = [Field("points", names), flat("components", "int64")]
    if media_type == NPY:
        headers["Content-Length"] = str(npy_bytes(fields, n_samples))
    drawn = services.scoring.samples(mixture, n_samples, seed)
    pieces = written(
        media_type,
        fields,
        ([array.numpy() for array in arrays] for arrays in drawn),
        n_samples,
        services.store.scratch,
        {"seed": seed},
    )
    return StreamingResponse(pieces, headers=headers, media_type=media_type)


def _fields(question: Question, n_components: int) -> list[Field]:
    if question is _responsibilities:
        return [indexed("responsibilities", n_components), flat("labels", "int64")]
    alone = [flat("log_density")]
    return alone if question is _log_density else [*alone, indexed("component_log_density", n_components)]


async def _about_many(
    request: Request, services: Services, mixture_id: str, columns: str | None, question: Question
) -> Response:
    """Reads the points as they come, computes meanwhile, and answers when all is done."""
    media_type = negotiate(request, WRITABLE)
    source = require_media_type(request, POINT_TYPES), wanted(request, services, columns)
    prepared = await services.prepared.get(mixture_id)
    fields = _fields(question, prepared.mixture.n_components)
    async with inflow(request, services.settings.max_body_bytes) as body:
        work = partial(answered, services, body, source, prepared, question, fields, media_type)
        outflow = await services.scoring.readers.run(body, work)
    return OutflowAnswer(outflow, media_type)
