"""A request id for every request: taken when well-formed, else made; echoed, logged, and put in problems."""

import logging
import re
import secrets
import time

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("service.access")
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestIds:
    """ASGI middleware that gives requests their id and writes a line for each when it is done."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wanted = next(
            (value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), ""
        )
        request_id = wanted if _WELL_FORMED.fullmatch(wanted) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        begun = time.perf_counter()
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [header for header in message["headers"] if header[0] != b"x-request-id"]
                message["headers"] = [*headers, (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            milliseconds = 1000 * (time.perf_counter() - begun)
            logger.info(
                "%s %r %d %.1f ms %s", scope["method"], scope["path"], status, milliseconds, request_id
            )


def request_id_of(request: Request) -> str:
    """Returns the request's id."""
    return str(request.state.request_id)
