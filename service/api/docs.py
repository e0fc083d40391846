"""The OpenAPI document."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.api import guard
from service.api.docs_examples import add_examples
from service.api.docs_problems import declare_problems
from service.schemas.dataset import DatasetCreation
from service.schemas.fit import FitRequest
from service.schemas.mixture import MixtureCreation, PointsBody, SamplesRequest
from service.schemas.service import Problem

_BODIES = (DatasetCreation, FitRequest, MixtureCreation, PointsBody, SamplesRequest)
_TAGS = {
    "datasets": "Points, posted or drawn from a gold mixture. A dataset never changes.",
    "fits": "Long-running jobs that end in a mixture, or say why they did not.",
    "mixtures": "The parameters of Gaussian mixtures, fitted or given. A mixture never changes.",
    "questions": "What a mixture can be asked: densities, responsibilities, samples.",
    "plots": "Pictures of mixtures and fits, as SVG and PNG.",
    "service": "Workers, and whether the service can do its work.",
}


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
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
        servers=[{"url": "/", "description": "the service that this document comes from"}],
        contact={"name": "Whoever runs this service"},
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    _, bodies = models_json_schema(
        [*((body, "validation") for body in _BODIES), (Problem, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= bodies["$defs"]
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which no endpoint sends
        schemas.pop(name, None)
    guard.describe(document, app.state.services.settings)
    declare_problems(document)
    add_examples(schemas)
    return document
