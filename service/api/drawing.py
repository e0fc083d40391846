"""How pictures are made and sent: a few at a time, in threads of their own, if matplotlib is there."""

import importlib.metadata
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import Request, Response

from service.api.answers import UNCHANGING, is_known, negotiate, version_headers
from service.errors import ServiceError, Unavailable

Format = Literal["svg", "png"]
Draw = Callable[[ModuleType], Any]
"""Makes a figure with the room `plots`, which is handed to it."""

# Matplotlib holds the interpreter while it draws: more at once would only slow everything else down.
_DRAWING = CapacityLimiter(2)
_MOST_WAITING = 32


class Svg(Response):
    """A picture as SVG.

    Opened by itself it is a page: it may load nothing and run nothing, but needs its own styles and images.
    """

    media_type = "image/svg+xml"
    policy: ClassVar = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Png(Response):
    """A picture as PNG."""

    media_type = "image/png"
    policy: ClassVar = "default-src 'none'"


FORMATS: dict[Format, type[Svg | Png]] = {"svg": Svg, "png": Png}


def documented(image_format: Format) -> dict[int | str, dict[str, Any]]:
    """Returns what OpenAPI says of the answers of an operation that draws."""
    contents = {
        "svg": {
            "schema": {"type": "string"},
            "example": '<svg xmlns="http://www.w3.org/2000/svg"> ... </svg>',
        },
        "png": {"schema": {"type": "string", "contentMediaType": "image/png", "contentEncoding": "binary"}},
    }
    media_type = str(FORMATS[image_format].media_type)
    return {
        200: UNCHANGING[200] | {"content": {media_type: contents[image_format]}},
        304: UNCHANGING[304],
        501: {"description": "matplotlib is not installed beside the service"},
    }


async def picture(request: Request, image_format: Format, draw: Draw, version: str | None) -> Response:
    """Returns a figure as a file.

    Args:
        request: Its `If-None-Match` is honoured.
        image_format: Of the file.
        draw: Makes the figure; it runs in a thread.
        version: What names this very picture, software apart; None when it may still change.

    Raises:
        ServiceError: There is no matplotlib (501).
        Unavailable: Too many pictures are being waited for.
    """
    answer = FORMATS[image_format]
    headers = {"Content-Security-Policy": answer.policy, "X-Content-Type-Options": "nosniff"}
    plots = plots_room()
    if version is None:
        headers["Cache-Control"] = "no-store"
    else:
        software = "-".join(importlib.metadata.version(name) for name in ("mixserve", "matplotlib"))
        version = f"{version}-{image_format}-{software}"
        headers |= version_headers(version)
        if is_known(request, version):
            return Response(status_code=304, headers=headers)
    if _DRAWING.statistics().tasks_waiting >= _MOST_WAITING:
        raise Unavailable("TOO_MANY_PICTURES", "Too many pictures are being drawn; ask again in a moment.")
    content = await to_thread.run_sync(lambda: plots.render(draw(plots), image_format), limiter=_DRAWING)
    return answer(content, headers=headers)


def require_acceptable(request: Request, image_format: Format) -> None:
    """Refuses, before anything is done, a request that does not want this kind of file.

    Raises:
        ServiceError: It does not (406).
    """
    negotiate(request, [str(FORMATS[image_format].media_type)])


def plots_room() -> ModuleType:
    """Returns the room `plots`.

    Raises:
        ServiceError: There is no matplotlib (501).
    """
    try:
        from service import plots  # an extra, and half a second to import
    except ModuleNotFoundError as error:
        raise ServiceError(
            "PLOTS_NOT_INSTALLED",
            501,
            "This service has no matplotlib to draw with; install it with: pip install 'mixserve[plots]'.",
        ) from error
    return plots
