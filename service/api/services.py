"""What every endpoint may use."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.api.admission import Admission
from service.api.counting import Metrics
from service.api.fit_watcher import FitWatcher
from service.api.prepared import PreparedMixtures
from service.api.reader_threads import ReaderThreads
from service.api.scoring import Scoring
from service.api.upkeep import Upkeep
from service.settings import Settings
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.owner_limits import OwnerLimits
from service.tracing import Tracing


@dataclass(frozen=True)
class Services:
    """What one app has one of."""

    settings: Settings
    database: Database
    store: DatasetStore
    watcher: FitWatcher
    upkeep: Upkeep
    limits: OwnerLimits
    prepared: PreparedMixtures
    scoring: Scoring
    upload_threads: ReaderThreads
    metrics: Metrics
    tracing: Tracing
    admission: Admission


async def _services(request: Request) -> Services:  # asynchronous, since FastAPI takes others to a thread
    services: Services = request.app.state.services
    return services


Use = Annotated[Services, Depends(_services)]
