"""What those who watch the service want to know of its queue and its workers."""

from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.storage.columns import now_plus, seconds_since
from service.storage.tables import LIVE_SQL, FitRow, WorkerRow

FIGURES = {
    "claims": ("counter", "Fits begun, each attempt counted"),
    "lost_leases": ("counter", "Fits that were taken over while they were worked on"),
    "lost_processes": ("counter", "Processes that died at a fit"),
    "fits_succeeded": ("counter", "Fits that ended with a mixture"),
    "fits_failed": ("counter", "Fits that ended with an error"),
    "fits_stopped": ("counter", "Fits that were cancelled, timed out or given back"),
    "fitted_points": ("counter", "Points passed over by fits that succeeded, each pass counted"),
    "device_busy_seconds": ("counter", "Time that fits held the device"),
    "device_memory_used_bytes": ("gauge", "The most that the process of the last fit has had"),
}
"""What a worker counts, by name: kind and meaning."""

CLAIM_WAIT_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
"""Bounds of how long fits wait for their first attempt, which a worker counts in `claim_waits`, beside their
sum in `claim_wait_seconds`: so many above the bound before and not above this, and at the end above all."""


class QueueFigures(NamedTuple):
    """The queue at one moment."""

    n_queued: int
    n_running: int
    oldest_seconds: float


class WorkerFigures(NamedTuple):
    """What a worker has counted since it began, as of its last heartbeat."""

    worker_id: str
    device: str
    memory_bytes: int
    figures: dict[str, Any]


def queue_figures(session: Session) -> QueueFigures:
    """Returns how many fits are queued and running, and how long the oldest has been queued."""
    live = select(FitRow.status, func.count(), func.max(seconds_since(FitRow.created_at)))
    rows = session.execute(live.where(LIVE_SQL).group_by(FitRow.status)).all()
    n_by_status = {status: n for status, n, _ in rows}
    oldest = (seconds for status, _, seconds in rows if status == "queued")
    return QueueFigures(
        n_queued=n_by_status.get("queued", 0),
        n_running=n_by_status.get("running", 0),
        oldest_seconds=max(0.0, *oldest, 0.0),
    )


def worker_figures(session: Session, lease_seconds: float) -> list[WorkerFigures]:
    """Returns what the workers heard of within a lease have counted."""
    columns = (WorkerRow.id, WorkerRow.device, WorkerRow.memory_bytes, WorkerRow.figures)
    query = select(*columns).where(WorkerRow.last_heartbeat_at > now_plus(-lease_seconds))
    rows = session.execute(query.order_by(WorkerRow.id))
    return [WorkerFigures(row[0], row[1], row[2], row[3] or {}) for row in rows]
