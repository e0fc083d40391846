"""Request bodies: their size, encoding and media type, and the model that they must fit."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, BinaryIO, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect

from service.api.answers import JSON
from service.api.inflow import (
    Inflow,
    disconnected,
    inflow,
    refuse_declared,
    require_encoding,
)
from service.api.problems import field_errors
from service.api.services import Use
from service.codecs.spooled import Spooled, spooled
from service.errors import FieldError, ServiceError, Unprocessable
from service.storage.dataset_store import full_disk_is_said

Model = TypeVar("Model", bound=BaseModel)

INLINE_BYTES = 65_536
"""Parsing more than this would hold up other requests noticeably; it goes to a thread."""


async def raw_body(request: Request, services: Use) -> Spooled:
    """Returns the body, decompressed; in a scratch file where it is not small.

    Raises:
        ServiceError: It is too large (413), or its encoding is not spoken (415) or wrong (400).
    """
    limit = services.settings.max_body_bytes
    refuse_declared(request, limit)
    length = request.headers.get("content-length", "")
    if require_encoding(request) == "identity" and length.isdigit() and int(length) <= INLINE_BYTES:
        try:
            return Spooled(await request.body())
        except ClientDisconnect as error:
            raise disconnected(request.scope) from error
    async with inflow(request, limit) as body:
        spool = partial(spooled_object, body, services.store.scratch)
        return await services.upload_threads.run(body, spool)


Raw = Annotated[Spooled, Depends(raw_body)]


def spooled_object(body: Inflow, scratch: Callable[[], BinaryIO]) -> Spooled:
    """Returns a body; of what cannot be a JSON object, which no model takes, its beginning.

    Raises:
        ServiceError: It is too large, or broken off, or there is no room for it.
    """
    with full_disk_is_said():
        return spooled(_OfObject(body), scratch)


class _OfObject:
    """A body that ends early where it is no JSON object."""

    def __init__(self, body: Inflow) -> None:
        self._body = body
        self._begun = self._ended = False

    def read(self, size: int) -> bytes:
        """Returns up to so many bytes, none at the end."""
        piece = b"" if self._ended else self._body.read(size)
        begin = b"" if self._begun else piece.lstrip(b" \t\r\n")
        if begin:
            self._begun = True
            if not begin.startswith(b"{"):
                self._ended = True
                return piece[:INLINE_BYTES]
        return piece


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
    return refusal_at(field_errors(details[:20]))


def refusal_at(errors: Sequence[FieldError]) -> Unprocessable:
    """Returns the refusal of a body that is wrong at these places."""
    first = f"{errors[0].pointer or 'the body'}: {errors[0].message}"[:300]
    return Unprocessable(f"The body cannot be accepted; first problem at {first}.", errors)


def documented(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the part of an operation's OpenAPI that tells of its JSON body."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}
