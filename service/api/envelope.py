"""What goes around every request: its id, the headers of every answer, its line in the log, its figures."""

import logging
import time
from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from service.api.counting import Metrics
from service.api.problems import unforeseen
from service.api.request_ids import request_id_from
from service.logs import redacted
from service.tracing import Tracing

logger = logging.getLogger("service.access")

# An answer runs nothing and is framed by nobody. The pages, which run scripts of ours, say more.
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_NOT_KEPT = (b"cache-control", b"no-store")
_API = "/v1/"
_AUDITED_STATUSES = frozenset({401, 403})


class Envelope:
    """ASGI middleware, the outermost: whatever happens within, the request gets an answer and a line.

    Args:
        app: What serves the request.
        metrics: Where to count it.
        tracing: Where to tell its trace.
        any_origin: Whether pages of other origins may read answers.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing, any_origin: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing
        self._headers = tuple(
            pair for pair in _HEADERS if not (any_origin and pair[0] == b"cross-origin-resource-policy")
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_from(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, receive, self._with_headers(scope, request_id))
        begun = time.perf_counter()
        self._metrics.in_progress.inc()
        with bound_contextvars(request_id=request_id), self._tracing.request(scope) as span:
            try:
                await self._app(scope, answer.receive, answer.send)
            except Exception as error:
                logger.exception("a request has failed", extra={"path": scope["path"]})
                if answer.status:
                    raise  # the answer has begun: the server cuts the connection, so that it is seen to fail
                await unforeseen(Request(scope), error)(scope, receive, answer.send)
            finally:
                self._metrics.in_progress.dec()
                self._record(scope, answer, time.perf_counter() - begun)
                span.answered(scope, answer.status)

    def _with_headers(self, scope: Scope, request_id: str) -> list[tuple[bytes, bytes]]:
        own = [(b"x-request-id", request_id.encode()), *self._headers]
        return [*own, _NOT_KEPT] if scope["path"].startswith(_API) else own

    def _record(self, scope: Scope, answer: "_Answer", seconds: float) -> None:
        method, route, status = scope["method"], _route(scope), answer.status
        self._metrics.answered(method, route, status, seconds, answer.n_bytes_in, answer.n_bytes_out)
        fields: dict[str, Any] = {
            "method": method,
            "path": redacted(scope["path"]),
            "route": route,
            "status": status,
            "duration_seconds": round(seconds, 6),
        }
        code = scope["state"].get("problem_code")
        if code is not None:
            fields["code"] = code
            self._metrics.problems.labels(code).inc()
        holder = scope["state"].get("key_holder")
        if holder is not None:
            fields |= {"owner": holder.owner, "key_id": holder.key_id, "key_name": holder.name}
        # Whoever keeps an audit log picks these: keys used or refused, and things deleted.
        fields["audit"] = holder is not None or method == "DELETE" or status in _AUDITED_STATUSES
        logger.info("request", extra=fields)


class _Answer:
    """Sees what comes in and goes out, and adds headers that the answer does not have."""

    def __init__(self, send: Send, receive: Receive, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._receive = receive
        self._headers = headers
        self.status = 0
        self.n_bytes_in = 0
        self.n_bytes_out = 0

    async def receive(self) -> Message:
        """Receives."""
        message = await self._receive()
        self.n_bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Sends."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name for name, _ in message["headers"]}
            message["headers"] = [
                *message["headers"],
                *(pair for pair in self._headers if pair[0] not in own),
            ]
        else:
            self.n_bytes_out += len(message.get("body", b""))
        await self._send(message)


def _route(scope: Scope) -> str:
    """Returns the template of a request's route; all paths that have none are one."""
    path = getattr(scope.get("route"), "path", None)
    if path is not None:
        return str(path)
    return "/static" if scope["path"].startswith("/static/") else "none"
