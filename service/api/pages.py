"""The pages that people look at: the first one at `/`, and the API's documentation at `/docs`."""

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

WEB = Path(__file__).parents[1] / "web"

# Everything comes from this server, scripts and styles from files of their own. Swagger UI's icons are data.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)


def install(app: FastAPI, with_docs: bool) -> None:
    """Serves the pages' files."""
    app.mount("/static", StaticFiles(directory=WEB), name="static")
    if with_docs:
        app.add_api_route("/docs", docs, include_in_schema=False)


@router.get("/")
async def first_page() -> FileResponse:
    """Returns the first page."""
    return FileResponse(WEB / "index.html", headers=_HEADERS)


async def docs() -> FileResponse:
    """Returns the page that reads the OpenAPI document, with no other host involved."""
    return FileResponse(WEB / "docs.html", headers=_HEADERS)
