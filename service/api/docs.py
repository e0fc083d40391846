"""The OpenAPI document, and a page to read it that works with no network."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles
from pydantic.json_schema import models_json_schema

from service.schemas.dataset import DatasetCreation
from service.schemas.fit import FitRequest
from service.schemas.mixture import MixtureCreation, PointsBody, SamplesRequest
from service.schemas.service import Problem

WEB = Path(__file__).parents[1] / "web"
_BODIES = (DatasetCreation, FitRequest, MixtureCreation, PointsBody, SamplesRequest)

router = APIRouter(include_in_schema=False)


def install(app: FastAPI) -> None:
    """Serves the page's files, and the document with the bodies that endpoints read by themselves."""
    app.mount("/static", StaticFiles(directory=WEB), name="static")

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


@router.get("/docs")
async def docs() -> Response:
    """Returns the documentation page."""
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="mixserve",
        swagger_js_url="/static/vendor/swagger-ui/swagger-ui-bundle.js",
        swagger_css_url="/static/vendor/swagger-ui/swagger-ui.css",
        swagger_favicon_url="/static/icon.svg",
    )


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
