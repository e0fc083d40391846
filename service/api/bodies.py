"""Request bodies: their size, encoding and media type, and the model that they must fit."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from service.api.answers import JSON
from service.api.inflow import disconnected, refuse_declared, require_encoding, too_large
from service.api.problems import field_errors
from service.api.services import Use
from service.codecs.compression import BadCompression, TooLarge, decompress
from service.errors import FieldError, ServiceError, Unprocessable

Model = TypeVar("Model", bound=BaseModel)

# Parsing more than this would hold up other requests noticeably; it goes to a thread.
_INLINE_BYTES = 65_536


async def raw_body(request: Request, services: Use) -> bytes:
    """Returns the body, decompressed.

    Raises:
        ServiceError: It is too large (413), or its encoding is not spoken (415) or wrong (400).
    """
    limit = services.settings.max_body_bytes
    encoding = require_encoding(request)
    body = await _read(request, limit)
    if encoding == "identity":
        return body
    try:
        return await run_in_threadpool(decompress, body, encoding, limit)
    except TooLarge as error:
        raise too_large(limit) from error
    except BadCompression as error:
        raise ServiceError("INVALID_ENCODING", 400, f"The request cannot be read: {error}.") from error


Raw = Annotated[bytes, Depends(raw_body)]


async def _read(request: Request, limit: int) -> bytes:
    refuse_declared(request, limit)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large(limit)
    except ClientDisconnect as error:
        raise disconnected() from error
    return bytes(body)


def json_body(model: type[Model]) -> Callable[..., Coroutine[Any, Any, Model]]:
    """Returns a dependency that reads a JSON body into a model."""

    async def read(request: Request, body: Raw) -> Model:
        require_media_type(request, (JSON,))
        if len(body) <= _INLINE_BYTES:
            return parse(model, body)
        return await run_in_threadpool(parse, model, body)

    return read


def require_media_type(request: Request, spoken: tuple[str, ...]) -> str:
    """Returns the body's media type, the first spoken one when the request does not say.

    Raises:
        ServiceError: It is not spoken here (415).
    """
    media_type = request.headers.get("content-type", spoken[0]).partition(";")[0].strip().lower()
    if media_type not in spoken:
        raise ServiceError(
            "UNSUPPORTED_MEDIA_TYPE", 415, f"Send the body with Content-Type: {' or '.join(spoken)}."
        )
    return media_type


def parse(model: type[Model], body: bytes | bytearray) -> Model:
    """Returns a JSON text as a model.

    Raises:
        Unprocessable: It does not fit, with the places that are wrong.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    raise refusal(details)


def refusal(details: list[ErrorDetails]) -> Unprocessable:
    """Returns the refusal of a body that pydantic found these errors in."""
    return refused(field_errors(details[:20]))


def refused(errors: list[FieldError]) -> Unprocessable:
    """Returns the refusal of a body with these errors, one or more."""
    first = f"{errors[0].pointer or 'the body'}: {errors[0].message}"[:300]
    return Unprocessable(f"The body cannot be accepted; first problem at {first}.", errors)


def documented(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the part of an operation's OpenAPI that tells of its JSON body."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}
