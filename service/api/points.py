"""Points in requests: the media types that they may come in, and the arrays that come out."""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, Request
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from service.api.answers import JSON
from service.api.bodies import Raw, parse, require_media_type
from service.errors import FieldError, Unprocessable
from service.schemas.mixture import PointsBody

Rows = NDArray[np.float64]


def _from_json(body: bytes) -> Rows:
    return np.array(parse(PointsBody, body).points, dtype=np.float64)


READERS: dict[str, Callable[[bytes], Rows]] = {JSON: _from_json}
"""What reads points (N, D) out of a body, by media type."""


async def _points(request: Request, body: Raw) -> Rows:
    reader = READERS[require_media_type(request, tuple(READERS))]
    return await run_in_threadpool(reader, body)


PointsIn = Annotated[Rows, Depends(_points)]


def documented() -> dict[str, Any]:
    """Returns the part of an operation's OpenAPI that tells of points in its body."""
    schema = {"$ref": f"#/components/schemas/{PointsBody.__name__}"}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def require_features(points: Rows, n_features: int, columns: list[str] | None) -> None:
    """Refuses points whose number of features is not the mixture's.

    Raises:
        Unprocessable: It is not.
    """
    if points.shape[1] != n_features:
        named = f" ({', '.join(columns)})" if columns else ""
        raise Unprocessable(
            f"The points have {points.shape[1]} features; the mixture has {n_features}{named}.",
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


JSON_BYTES_PER_NUMBER = 20


def require_servable(n_numbers: int, what: str, max_answer_bytes: int) -> None:
    """Refuses what would make an answer too large, before it is computed.

    Raises:
        Unprocessable: It would be.
    """
    estimate = n_numbers * JSON_BYTES_PER_NUMBER
    if estimate > max_answer_bytes:
        raise Unprocessable(
            f"The answer would hold {what}: about {estimate} bytes as JSON, where "
            f"{max_answer_bytes} are served. Ask for it in parts.",
            code="ANSWER_TOO_LARGE",
        )
