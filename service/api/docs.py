"""The OpenAPI document."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.schemas.dataset import DatasetCreation
from service.schemas.fit import FitRequest
from service.schemas.mixture import MixtureCreation, PointsBody, SamplesRequest
from service.schemas.service import Problem

_BODIES = (DatasetCreation, FitRequest, MixtureCreation, PointsBody, SamplesRequest)


def install(app: FastAPI) -> None:
    """Serves the document with the bodies that endpoints read by themselves."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
    )
    _, bodies = models_json_schema(
        [*((body, "validation") for body in _BODIES), (Problem, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= bodies["$defs"]
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which no endpoint sends
        schemas.pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    return document
