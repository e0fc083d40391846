"""Questions of a few points: answered in the event loop, before FastAPI looks up what endpoints depend on.

A thread, a read of the database or the resolution of dependencies would each cost more than the answer.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import numpy as np
import torch
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from service.api.answers import JSON, JsonAnswer
from service.api.bodies import parse
from service.api.inflow import disconnected
from service.api.points import PostedPoints, in_order, require_columns
from service.api.scoring import Question
from service.api.services import Services
from service.schemas.mixture import PointsBody

# What takes longer than a small part of a millisecond would hold up all other clients.
_MOST_BYTES = 16_384
_MOST_PRODUCTS = 1 << 18

_PLAIN = {
    b"content-type": frozenset({JSON.encode(), b"application/json; charset=utf-8"}),
    b"accept": frozenset(
        {b"*/*", JSON.encode(), b"application/json, */*", b"application/json, text/plain, */*"}
    ),
    b"content-encoding": frozenset[bytes](),
    b"transfer-encoding": frozenset[bytes](),
}


def quick_route(questions: Mapping[str, Question]) -> type[APIRoute]:
    """Returns a kind of route that answers small questions by itself and leaves all else to its endpoint.

    Args:
        questions: What to answer, by the endpoint's operation_id.
    """

    class QuickRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            thorough = super().get_route_handler()
            question = questions.get(self.operation_id or "")
            if question is None:
                return thorough

            async def handle(request: Request) -> Response:
                services: Services = request.app.state.services
                if not _is_quick(request, services.settings.max_body_bytes):
                    return await thorough(request)
                return await _answer(request, services, question)

            return handle

    return QuickRoute


def _is_quick(request: Request, max_body_bytes: int) -> bool:
    """Whether a request is small and asks for nothing out of the ordinary."""
    length = b""
    for name, value in request.scope["headers"]:
        if name == b"content-length":
            length = value
        elif name in _PLAIN and value not in _PLAIN[name]:
            return False
    most = min(_MOST_BYTES, max_body_bytes)
    return length.isdigit() and int(length) <= most and not request.scope["query_string"]


async def _answer(request: Request, services: Services, question: Question) -> Response:
    try:
        body = await request.body()
    except ClientDisconnect as error:
        raise disconnected() from error
    parsed = parse(PointsBody, body)
    posted = PostedPoints(np.array(parsed.points, dtype=np.float64), parsed.columns)
    require_columns(posted.columns, posted.rows.shape[1])
    asked = await services.prepared.get(request.path_params["mixture_id"])
    points = torch.from_numpy(in_order(posted, asked.mixture.n_features, asked.columns))
    services.metrics.scored_points.inc(len(points))
    if len(points) * asked.mixture.covariances_cholesky.numel() > _MOST_PRODUCTS:
        answer = await run_in_threadpool(question, asked.mixture, points)
    else:
        answer = question(asked.mixture, points)
    return JsonAnswer({name: values.tolist() for name, values in answer.items()})
