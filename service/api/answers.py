"""Answers: always valid JSON, in a media type that was asked for."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mimeparse
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic_core import to_json

from service.errors import ServiceError

JSON = "application/json"
_ETAG = {"ETag": {"description": "strong; If-None-Match with it gets 304", "schema": {"type": "string"}}}
UNCHANGING: dict[int | str, dict[str, Any]] = {200: {"headers": _ETAG}, 304: {"headers": _ETAG}}
"""What the OpenAPI of an endpoint that answers with `unchanging` adds to its responses."""


class JsonAnswer(JSONResponse):
    """JSON in which a number that is not finite is written as a string, never as null or a bare NaN."""

    def render(self, content: Any) -> bytes:
        """Returns the content as UTF-8."""
        return to_json(content, inf_nan_mode="strings")


def negotiate(request: Request, offered: Sequence[str]) -> str:
    """Returns the media type to answer in.

    Args:
        request: Its `Accept` is honoured.
        offered: What can be had, the default last.

    Raises:
        ServiceError: Nothing that is offered is acceptable (406).
    """
    accept = ", ".join(request.headers.getlist("accept")) or "*/*"
    try:
        best = mimeparse.best_match(list(offered), accept)
    except mimeparse.MimeTypeParseException:
        best = ""
    if not best:
        raise ServiceError("NOT_ACCEPTABLE", 406, f"Accept must allow one of: {', '.join(offered)}.")
    return str(best)


async def json_only(request: Request) -> None:
    """Refuses, before anything is done, a request whose answer in JSON would not be wanted."""
    negotiate(request, [JSON])


def unchanging(
    request: Request, content: Mapping[str, Any] | Callable[[], Mapping[str, Any]], version: str | None = None
) -> Response:
    """Returns something that never changes, with a strong ETag, or 304 when the client has it.

    Args:
        request: Its `If-None-Match` is honoured.
        content: The answer, or what makes it, called only when it has to be sent.
        version: What names this very representation; the content's own hash if absent.
    """
    body: bytes | None = None
    if version is None:
        body = to_json(content() if callable(content) else content, inf_nan_mode="strings")
        version = hashlib.sha256(body).hexdigest()[:32]
    headers = version_headers(version)
    if is_known(request, version):
        return Response(status_code=304, headers=headers)
    if body is None:
        return JsonAnswer(content() if callable(content) else content, headers=headers)
    return Response(body, media_type=JSON, headers=headers)


def version_headers(version: str) -> dict[str, str]:
    """Returns the headers of a representation that never changes, with this strong ETag."""
    return {"ETag": f'"{version}"', "Cache-Control": "private, no-cache"}


def is_known(request: Request, version: str) -> bool:
    """Returns whether the client has this version, by its `If-None-Match`."""
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return f'"{version}"' in known or "*" in known
