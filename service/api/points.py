"""Points in requests: the media types that they may come in, and the arrays that come out."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import Query, Request
from numpy.typing import NDArray
from pydantic import BaseModel, TypeAdapter, ValidationError

from service.api.services import Services
from service.codecs.points import InvalidPoints, Wanted
from service.codecs.registry import CSV, JSON, READERS
from service.errors import FieldError, ServiceError, Unprocessable
from service.schemas.mixture import PointsBody
from service.schemas.numbers import Columns

Rows = NDArray[np.float64]

_CSV = "height,width\r\n0.0,0.5\r\n1.0,1.25\r\n"

POINT_TYPES = (JSON, *READERS)
"""The media types that points may come in, the one taken for a body that does not say first."""

ColumnsQuery = Annotated[
    str | None,
    Query(
        max_length=20_000,
        description="not for JSON. Names separated by commas: of the columns to take, in this order; or, "
        "where the format names none (NPY, a CSV without a header row), the names to give all of them",
    ),
]


@dataclass(frozen=True)
class PostedPoints:
    """Points (N, D) of one request, and the names of their columns if they came with any."""

    rows: Rows
    columns: list[str] | None


def wanted(request: Request, services: Services, columns: str | None) -> Wanted:
    """Returns what a body's reader is to know of the request.

    Raises:
        ServiceError: `columns` names one twice, or the media type's `header` parameter is not one (RFC 4180).
    """
    names = None if columns is None else [name.strip() for name in columns.split(",")]
    if names is not None and (not all(names) or len(set(names)) < len(names)):
        message = "must be names separated by commas, none of them empty or twice"
        raise Unprocessable(f"columns {message}.", [FieldError(("columns",), message)])
    header = _media_parameters(request).get("header")
    if header not in (None, "present", "absent"):
        raise ServiceError(
            "UNSUPPORTED_MEDIA_TYPE", 415, "The header parameter of text/csv is either present or absent."
        )
    return Wanted(services.store.scratch, names, None if header is None else header == "present")


def _media_parameters(request: Request) -> dict[str, str]:
    parts = request.headers.get("content-type", "").split(";")[1:]
    pairs = (part.partition("=") for part in parts)
    return {name.strip().lower(): value.strip().strip('"').lower() for name, _, value in pairs}


@contextmanager
def readable() -> Iterator[None]:
    """Refuses, with their place, points that cannot be taken.

    Raises:
        Unprocessable: There are some.
    """
    try:
        yield
    except InvalidPoints as error:
        errors = [FieldError(("points", *error.path), str(error))]
        raise Unprocessable(f"The points cannot be taken: {error}.", errors, code="INVALID_POINTS") from error


_NAMES: TypeAdapter[list[str] | None] = TypeAdapter(Columns | None)


def require_names(columns: list[str] | None) -> None:
    """Refuses names of columns that JSON would not be let have.

    Raises:
        Unprocessable: There are some.
    """
    try:
        _NAMES.validate_python(columns)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "".join(f" {part}" for part in first["loc"][:1] if isinstance(part, int))
        message = f"the name of column{place} cannot be kept: {first['msg'].removeprefix('Value error, ')}"
        raise Unprocessable(f"In the points, {message}.", [FieldError(("columns",), message)]) from error


def refuse_beside_json(**parameters: str | None) -> None:
    """Refuses query parameters that a JSON body has fields for.

    Raises:
        Unprocessable: One is there.
    """
    for parameter, value in parameters.items():
        if value is not None:
            message = "goes with other formats; in JSON it is a field of the body"
            raise Unprocessable(f"{parameter} {message}.", [FieldError((parameter,), message)])


def documented(model: type[BaseModel] = PointsBody) -> dict[str, Any]:
    """Returns the part of an operation's OpenAPI that tells of points in its body, which is this as JSON."""
    json_schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": point_content(json_schema)}}


def point_content(json_schema: dict[str, Any]) -> dict[str, Any]:
    """Returns OpenAPI's media types of a body of points, which is this as JSON."""
    text = {CSV: {"schema": {"type": "string"}, "example": _CSV}}
    return {JSON: {"schema": json_schema}} | binary_content(READERS) | text


def binary_content(media_types: Iterable[str]) -> dict[str, Any]:
    """Returns OpenAPI's media types of bodies that are not text."""
    return {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}


def column_order(given: Sequence[str] | None, expected: Sequence[str] | None) -> list[int] | None:
    """Returns where the expected columns are among those given, None when they are already in order.

    Columns without names on either side are taken as they stand.

    Raises:
        Unprocessable: One is missing, or there is one too many.
    """
    if given is None or expected is None or list(given) == list(expected):
        return None
    places = {name: place for place, name in enumerate(given)}
    missing = next((name for name in expected if name not in places), None)
    if missing is not None:
        raise Unprocessable(
            f"The points lack the column {missing!r}; the mixture has {', '.join(expected)}.",
            [FieldError(("columns",), f"{missing!r} is missing")],
            code="COLUMNS_MISMATCH",
        )
    known = set(expected)
    extra = next((name for name in given if name not in known), None)
    if extra is not None:
        raise Unprocessable(
            f"The points have a column {extra!r}, which the mixture has not; its columns are "
            f"{', '.join(expected)}. Leave it out, or take only these with ?columns=.",
            [FieldError(("columns",), f"{extra!r} is not a column of the mixture")],
            code="COLUMNS_MISMATCH",
        )
    return [places[name] for name in expected]


def in_order(points: PostedPoints, n_features: int, columns: list[str] | None) -> Rows:
    """Returns points (N, D) with their columns in a mixture's order.

    Raises:
        Unprocessable: They are not the mixture's.
    """
    order = column_order(points.columns, columns)
    require_features(points.rows.shape[1], n_features, columns)
    return points.rows if order is None else np.ascontiguousarray(points.rows[:, order])


def require_features(given: int, n_features: int, columns: list[str] | None) -> None:
    """Refuses points of another number of features than the mixture's.

    Raises:
        Unprocessable: It is not.
    """
    if given != n_features:
        named = f" ({', '.join(columns)})" if columns else ""
        raise Unprocessable(
            f"The points have {given} features; the mixture has {n_features}{named}.",
            code="FEATURES_MISMATCH",
        )


def require_columns(columns: list[str] | None, n_features: int) -> None:
    """Refuses names of features that are not as many as the features.

    Raises:
        Unprocessable: They are not.
    """
    if columns is not None and len(columns) != n_features:
        message = f"there are {len(columns)} names for {n_features} features"
        raise Unprocessable(f"The columns do not fit: {message}.", [FieldError(("columns",), message)])


def require_servable(n_bytes: int, what: str, max_answer_bytes: int) -> None:
    """Refuses what would make an answer too large, before it is computed.

    Raises:
        Unprocessable: It would be.
    """
    if n_bytes > max_answer_bytes:
        raise Unprocessable(
            f"The answer would hold {what}: about {n_bytes} bytes, where {max_answer_bytes} are served. "
            "Ask for it in parts.",
            code="ANSWER_TOO_LARGE",
        )
