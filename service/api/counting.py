"""What this process counts of its requests, and what the database knows of fits and workers.

Every API process counts for itself; Prometheus asks each of them. What workers count travels with their
heartbeats through the database, labelled by worker, so that it is the same whichever process is asked.
"""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.api.admission import Admission
from service.api.request_figures import RequestFigures
from service.errors import ServiceError
from service.storage import watching
from service.storage.database import Database
from service.storage.owners import everyone


class Metrics:
    """What one API process counts. Routes are templates, so that ids make no series of their own."""

    def __init__(self, database: Database, lease_seconds: float, admission: Admission) -> None:
        self.registry = CollectorRegistry()
        self.n_in_progress = 0
        in_progress = Gauge(
            "mixserve_http_requests_in_progress", "Requests being answered", registry=self.registry
        )
        in_progress.set_function(lambda: self.n_in_progress)
        self.scored_points = Counter("mixserve_scored_points", "Points asked about", registry=self.registry)
        self.problems = Counter(
            "mixserve_http_problems", "Refusals and failures by their code", ("code",), registry=self.registry
        )
        self.answered = RequestFigures(self.registry).answered
        self.registry.register(_AdmissionCollector(admission))
        self.registry.register(_DatabaseCollector(database, lease_seconds))


class _AdmissionCollector(Collector):
    """Tells whom the process has not let in."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def collect(self) -> Iterator[Metric]:
        refused = CounterMetricFamily(
            "mixserve_http_refused", "Requests refused, by what they would have waited for", labels=["queue"]
        )
        for queue, n_refused in self._admission.n_refused.items():
            refused.add_metric([queue], n_refused)
        yield refused


class _DatabaseCollector(Collector):
    """Reads the database when it is asked: these figures are everybody's, not of one process."""

    def __init__(self, database: Database, lease_seconds: float) -> None:
        self._database = database
        self._lease_seconds = lease_seconds

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("mixserve_database_up", "Whether the database answers")
        try:
            with everyone(), self._database.read() as session:
                queue = watching.queue_figures(session)
                workers = watching.worker_figures(session, self._lease_seconds)
        except ServiceError:
            up.add_metric([], 0.0)
            yield up
            return
        up.add_metric([], 1.0)
        yield up
        fits = GaugeMetricFamily("mixserve_fits", "Fits that have not ended", labels=["status"])
        fits.add_metric(["queued"], queue.n_queued)
        fits.add_metric(["running"], queue.n_running)
        yield fits
        yield GaugeMetricFamily(
            "mixserve_oldest_queued_fit_age_seconds",
            "How long it has been queued; 0: none",
            queue.oldest_seconds,
        )
        yield from _of_workers(workers)

    def describe(self) -> list[Metric]:
        return []  # registering asks nothing of the database


def _of_workers(workers: list[watching.WorkerFigures]) -> Iterator[Metric]:
    alive = GaugeMetricFamily("mixserve_workers", "Workers heard of within a lease", labels=["device"])
    for device in sorted({worker.device for worker in workers}):
        alive.add_metric([device], sum(worker.device == device for worker in workers))
    yield alive
    memory = GaugeMetricFamily("mixserve_device_memory_bytes", "Of the whole device", labels=["worker"])
    for worker in workers:
        memory.add_metric([worker.worker_id], worker.memory_bytes)
    yield memory
    yield _claim_waits(workers)
    for name, (kind, text) in watching.FIGURES.items():
        family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(
            f"mixserve_{name}", text, labels=["worker"]
        )
        for worker in workers:
            family.add_metric([worker.worker_id], worker.figures.get(name, 0.0))
        yield family


def _claim_waits(workers: list[watching.WorkerFigures]) -> Metric:
    text = "From a fit's submission to its first attempt"
    family = HistogramMetricFamily("mixserve_claim_wait_seconds", text, labels=["worker"])
    names = [*map(str, watching.CLAIM_WAIT_SECONDS), "+Inf"]
    for worker in workers:
        # One of the release before has not counted them.
        counts = worker.figures.get("claim_waits", [0] * len(names))
        buckets = list(zip(names, map(float, accumulate(counts)), strict=True))
        family.add_metric([worker.worker_id], buckets, worker.figures.get("claim_wait_seconds", 0.0))
    return family
