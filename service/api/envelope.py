"""What goes around every request: its id, the headers of every answer, its line in the log, its figures."""

import logging
import time
from collections.abc import Iterable
from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.admission import Admission
from service.api.counting import Metrics
from service.api.problems import unforeseen
from service.api.request_ids import request_id_from
from service.logs import REQUEST_ID, RequestRecord
from service.tracing import Tracing

logger = logging.getLogger("service.access")

# An answer runs nothing and is framed by nobody. The pages, which run scripts of ours, say more.
SAFE_HEADERS = (
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
        admission: What has let it in.
        any_origin: Whether pages of other origins may read answers.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, tracing: Tracing, admission: Admission, any_origin: bool
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing
        self._admission = admission
        kept = [
            pair for pair in SAFE_HEADERS if not (any_origin and pair[0] == b"cross-origin-resource-policy")
        ]
        self._headers, self._api_headers = _Headers(kept), _Headers([*kept, _NOT_KEPT])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_from(scope["headers"])
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        self._admission.begin(state)
        headers = self._api_headers if scope["path"].startswith(_API) else self._headers
        answer = _Answer(send, receive, headers, request_id)
        begun = time.perf_counter()
        self._metrics.n_in_progress += 1
        token = REQUEST_ID.set(request_id)
        try:
            with self._tracing.request(scope) as span:
                try:
                    await self._app(scope, answer.receive, answer.send)
                except Exception as error:
                    logger.exception("a request has failed", extra={"path": scope["path"]})
                    if answer.status:
                        raise  # the answer has begun: the server cuts the connection, and it is seen to fail
                    await unforeseen(Request(scope), error)(scope, receive, answer.send)
                finally:
                    self._metrics.n_in_progress -= 1
                    self._record(scope, answer, time.perf_counter() - begun)
                    span.answered(scope, answer.status)
        finally:
            REQUEST_ID.reset(token)

    def _record(self, scope: Scope, answer: "_Answer", seconds: float) -> None:
        method, route, status, state = scope["method"], _route(scope), answer.status, scope["state"]
        self._metrics.answered(method, route, status, seconds, answer.n_bytes_in, answer.n_bytes_out)
        code, holder = state.get("problem_code"), state.get("key_holder")
        if code is not None:
            self._metrics.problems.labels(code).inc()
        if not logger.isEnabledFor(logging.INFO):
            return
        fields: dict[str, Any] = {
            "request_id": state["request_id"],
            "method": method,
            "path": scope["path"],
            "route": route,
            "status": status,
            "duration_seconds": round(seconds, 6),
        }
        if code is not None:
            fields["code"] = code
        if holder is not None:
            fields |= {"owner": holder.owner, "key_id": holder.key_id, "key_name": holder.name}
        # Whoever keeps an audit log picks these: keys used or refused, and things deleted.
        fields["audit"] = holder is not None or method == "DELETE" or status in _AUDITED_STATUSES
        logger.handle(RequestRecord(logger, fields))


class _Headers:
    """Headers that every answer gets unless it has its own."""

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._headers = headers
        self._names = frozenset({b"x-request-id", *(name for name, _ in headers)})

    def beside(self, own: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
        """Returns an answer's own headers, and these."""
        names = {name for name, _ in own}
        added = [(b"x-request-id", request_id.encode()), *self._headers]
        if self._names.isdisjoint(names):
            return [*own, *added]
        return [*own, *(pair for pair in added if pair[0] not in names)]


class _Answer:
    """Sees what comes in and goes out, and adds headers that the answer does not have."""

    __slots__ = ("_headers", "_receive", "_request_id", "_send", "n_bytes_in", "n_bytes_out", "status")

    def __init__(self, send: Send, receive: Receive, headers: _Headers, request_id: str) -> None:
        self._send = send
        self._receive = receive
        self._headers = headers
        self._request_id = request_id
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
            message["headers"] = self._headers.beside(message["headers"], self._request_id)
        else:
            self.n_bytes_out += len(message.get("body", b""))
        await self._send(message)


def _route(scope: Scope) -> str:
    """Returns the template of a request's route; all paths that have none are one."""
    path = getattr(scope.get("route"), "path", None)
    if path is not None:
        return str(path)
    return "/static" if scope["path"].startswith("/static/") else "none"
