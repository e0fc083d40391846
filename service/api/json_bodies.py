"""JSON bodies as parameters of endpoints."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from service.api.answers import JSON
from service.api.bodies import INLINE_BYTES, Model, Raw, require_media_type
from service.api.json_outline import Path
from service.api.json_points import Posted, posted


def json_body(model: type[Model]) -> Callable[..., Coroutine[Any, Any, Model]]:
    """Returns a dependency that reads a JSON body into a model."""
    read = posted_body(model, {})

    async def read_fields(request: Request, body: Raw) -> Model:
        return (await read(request, body)).fields

    return read_fields


def posted_body(
    model: type[Model], short: Mapping[Path, bytes]
) -> Callable[..., Coroutine[Any, Any, Posted[Model]]]:
    """Returns a dependency that reads a JSON body with long lists at these places, as `posted` does."""

    async def read(request: Request, body: Raw) -> Posted[Model]:
        require_media_type(request, (JSON,))
        if len(body.buffer) <= INLINE_BYTES:
            return posted(model, body, short)
        return await run_in_threadpool(posted, model, body, short)

    return read
