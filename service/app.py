"""Builds the HTTP app. No other place does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from service.api import (
    creation,
    datasets,
    docs,
    fit_events,
    fit_plots,
    fits,
    health,
    metrics,
    mixture_plots,
    mixtures,
    pages,
    problems,
    questions,
)
from service.api.admission import Admission
from service.api.answers import JsonAnswer
from service.api.counting import Metrics
from service.api.envelope import Envelope
from service.api.fit_watcher import FitWatcher
from service.api.guard import Guard
from service.api.heads import Heads
from service.api.prepared import PreparedMixtures
from service.api.query import refuse_unknown
from service.api.quick import Quick
from service.api.reader_threads import ReaderThreads
from service.api.scoring import Scoring
from service.api.services import Services
from service.api.upkeep import Upkeep
from service.settings import Settings
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.owner_limits import OwnerLimits
from service.tracing import start_tracing

# More wait for one of these to end; each holds some chunks of points.
_MOST_UPLOADS = 32
_DESCRIPTION = """\
Fits Gaussian mixture models by gradient descent, and answers questions about them.

Post a **dataset**, or a gold mixture to draw one from; post a **fit** and wait for it, or follow its events;
ask the **mixture** it ends in for log-densities, responsibilities and samples. Errors are
`application/problem+json`. A number that is not finite is written as `"Infinity"`, `"-Infinity"` or `"NaN"`.
"""

# FastAPI's own looks at every request whether somebody wants it; we tell of requests in the envelope.
_NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False}
_CORS: dict[str, Any] = {
    "allow_methods": ["GET", "HEAD", "POST", "DELETE"],
    "allow_headers": [
        "Authorization", "Content-Type", "Content-Encoding", "Idempotency-Key", "If-None-Match",
        "Last-Event-ID", "Prefer", "X-Request-Id",
    ],
    "expose_headers": [
        "ETag", "Idempotent-Replayed", "Location", "Preference-Applied", "RateLimit", "RateLimit-Policy",
        "Retry-After", "X-Request-Id",
    ],
    "max_age": 600,
}  # fmt: skip


def create_app(settings: Settings | None = None) -> FastAPI:
    """Returns the app, on a database that has been migrated.

    Args:
        settings: From the environment if absent.
    """
    settings = settings or Settings()
    services = _services(settings)
    app = FastAPI(
        title="mixserve",
        version=version("mixserve"),
        summary="Gaussian mixtures over HTTP",
        description=_DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
        redoc_url=None,
        redirect_slashes=False,
        default_response_class=JsonAnswer,
        telemetry=_NO_TELEMETRY,
        dependencies=[Depends(refuse_unknown)],
    )
    app.state.services = services
    # Questions come first, being asked the most often; events come before fits, which answer JSON only.
    rooms = (
        questions, datasets, fit_events, fits, mixtures, mixture_plots, fit_plots, health, metrics, pages,
    )  # fmt: skip
    routers = [room.router for room in rooms]
    # The one added last is the first to see a request.
    routes = [route for router in routers for route in router.routes]
    app.add_middleware(Heads)
    app.add_middleware(
        Quick, services=services, routes=questions.router.routes, questions=questions.QUESTIONS
    )
    app.add_middleware(Guard, settings=settings, database=services.database, routes=routes)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins.split(), **_CORS)
    any_origin = bool(settings.cors_origins)
    app.add_middleware(
        Envelope,
        metrics=services.metrics,
        tracing=services.tracing,
        admission=services.admission,
        any_origin=any_origin,
    )
    problems.install(app)
    app.add_exception_handler(creation.Replayed, creation.replay)
    for router in routers:
        app.include_router(router)
    docs.install(app)
    pages.install(app, settings.docs)
    return app


def _services(settings: Settings) -> Services:
    """Returns what the endpoints of one app use."""
    database = Database(settings.resolved_database_url, lease_seconds=settings.lease_seconds)
    store = DatasetStore(*settings.store_place)
    # Of a key the database is asked; without, what is answered in the event loop needs no thread.
    threadless = () if settings.auth == "keys" else questions.ENDINGS
    admission = Admission(settings.max_queueing_seconds, settings.request_threads, threadless)
    return Services(
        settings=settings,
        database=database,
        store=store,
        watcher=FitWatcher(database),
        upkeep=Upkeep(settings, database, store),
        limits=OwnerLimits(
            settings.owner_max_queued_fits, settings.owner_max_stored_bytes, settings.owner_max_device_seconds
        ),
        prepared=PreparedMixtures(database),
        scoring=Scoring(settings.scoring_threads),
        upload_threads=ReaderThreads(_MOST_UPLOADS),
        metrics=Metrics(database, settings.lease_seconds, admission),
        tracing=start_tracing(settings, "mixserve-api"),
        admission=admission,
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    services.admission.start()
    services.watcher.start()
    services.upkeep.start()
    yield
    services.upkeep.close()
    services.watcher.close()
    services.scoring.close()
    await services.prepared.close()
    services.database.close()
    services.tracing.close()
