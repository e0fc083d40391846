"""Large fits: one of several workers of a kind is kept free of them, so that small fits need not wait."""

from functools import lru_cache

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import aliased

from service.storage.columns import now_plus
from service.storage.tables import LIVE_SQL, FitRow, WorkerRow

LARGE_SECONDS = 10.0
"""A fit estimated to take longer is large."""

LOCK = "large fits"
"""One is chosen and taken behind this lock, for others may take some in the same moment."""


@lru_cache(maxsize=8)
def one_to_spare(worker_id: str, lease_seconds: float) -> ColumnElement[bool]:
    """Whether some worker of this one's device type stays free of large fits when this one takes one.

    It does for the only worker of its type, which has to do everything.
    """
    mine = select(WorkerRow.device_type).where(WorkerRow.id == worker_id).scalar_subquery()
    alive = (WorkerRow.device_type == mine, WorkerRow.last_heartbeat_at > now_plus(-lease_seconds))
    fit = aliased(FitRow)
    n_busy = (
        select(func.count())
        .select_from(fit)
        .join(WorkerRow, WorkerRow.id == fit.worker_id)
        .where(LIVE_SQL, fit.status == "running", fit.estimated_seconds > LARGE_SECONDS)
        .where(fit.worker_id != worker_id, *alive)
        .scalar_subquery()
    )
    n_alive = select(func.count()).select_from(WorkerRow).where(*alive).scalar_subquery()
    return or_(n_busy == 0, n_busy < n_alive - 1)
