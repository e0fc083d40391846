"""Questions of a few points: answered in the event loop, before FastAPI has a look at them.

Its routing, the resolution of dependencies, a thread or a read of the database would each cost more than the
answer.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from fastapi import Request
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.answers import JSON
from service.api.bodies import parse
from service.api.inflow import disconnected
from service.api.points import PostedPoints, in_order, require_columns
from service.api.problems import render
from service.api.scoring import Question
from service.api.services import Services
from service.errors import ServiceError
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


class Quick:
    """ASGI middleware, within the guard, that answers small questions and leaves all else to the app.

    Args:
        app: What serves everything, small questions that have something out of the ordinary too.
        services: What answers need.
        routes: Those of the questions, all of the form FOLDER/{mixture_id}/NAME.
        questions: What to answer, by the operation_id of its route.
    """

    def __init__(
        self, app: ASGIApp, services: Services, routes: Iterable[BaseRoute], questions: Mapping[str, Question]
    ) -> None:
        self._app = app
        self._services = services
        self._most_bytes = min(_MOST_BYTES, services.settings.max_body_bytes)
        answered = [
            route for route in routes if isinstance(route, APIRoute) and route.operation_id in questions
        ]
        (self._folder,) = {route.path.partition("{")[0] for route in answered}
        self._questions = {
            route.path.rpartition("/")[2]: (route, questions[route.operation_id or ""]) for route in answered
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or not self._is_quick(scope):
            await self._app(scope, receive, send)
            return
        mixture_id, _, name = scope["path"][len(self._folder) :].partition("/")
        scope["route"], question = self._questions[name]  # the figures and the log have its path
        try:
            answer = await self._answer(scope, receive, mixture_id, question)
        except ServiceError as error:
            await render(Request(scope), error)(scope, receive, send)
            return
        headers = [(b"content-length", b"%d" % len(answer)), (b"content-type", JSON.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _is_quick(self, scope: Scope) -> bool:
        """Whether a request is a question, is small, and asks for nothing out of the ordinary."""
        path: str = scope["path"]
        if scope["method"] != "POST" or not path.startswith(self._folder):
            return False
        mixture_id, _, name = path[len(self._folder) :].partition("/")
        if name not in self._questions or not mixture_id or scope["query_string"] or scope.get("root_path"):
            return False
        length = b""
        for header, value in scope["headers"]:
            if header == b"content-length":
                length = value
            elif header in _PLAIN and value not in _PLAIN[header]:
                return False
        return length.isdigit() and int(length) <= self._most_bytes

    async def _answer(self, scope: Scope, receive: Receive, mixture_id: str, question: Question) -> bytes:
        posted = _posted(await _body(scope, receive))
        require_columns(posted.columns, posted.rows.shape[1])
        asked = await self._services.prepared.get(mixture_id)
        rows = in_order(posted, asked.mixture.n_features, asked.columns)
        n_points, points = len(rows), torch.from_numpy(rows)
        self._services.metrics.scored_points.inc(n_points)
        if n_points * asked.n_products > _MOST_PRODUCTS:
            answer = await run_in_threadpool(question, asked.mixture, points)
        else:
            answer = question(asked.mixture, points)
        lists = {name: values.tolist() for name, values in answer.items()}
        return bytes(to_json(lists, inf_nan_mode="strings"))  # as a JsonAnswer has it


def _posted(body: bytes) -> PostedPoints:
    # In a function of its own, which lets the lists go: of all who wait they would be a hundred thousand
    # objects, and the collector would look through them again and again.
    parsed = parse(PointsBody, body)
    return PostedPoints(np.array(parsed.points, dtype=np.float64), parsed.columns)


async def _body(scope: Scope, receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise disconnected(scope)
        body += bytes(message.get("body", b""))
        if not message.get("more_body", False):
            return body
