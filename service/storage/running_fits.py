"""How many fits of one owner may run at a time: those beyond stay in the queue, and others' go first."""

from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Select, exists, func, literal, select
from sqlalchemy.orm import aliased

from service.storage.tables import LIVE_SQL, FitRow, OwnerLimitRow

LOCK = "running fits"
"""They are counted and taken behind this lock: two workers that claim at once would each see room for one."""

_OWN = OwnerLimitRow.name == "running_fits"


def any_limited(limit: int | None) -> ColumnElement[bool]:
    """Whether some owner may have only so many fits run at a time.

    Args:
        limit: What holds for owners that have none of their own; None for no limit.
    """
    return exists().where(_OWN) if limit is None else literal(True)


def owners_at_limit(limit: int | None) -> Select[Any] | CompoundSelect[Any]:
    """Returns the query for the owners of whose fits as many run as may.

    It reads the fits that run, however many are queued.

    Args:
        limit: What holds for owners that have none of their own; None for no limit.
    """
    fit = aliased(FitRow)
    n_running = (
        select(func.count())
        .select_from(fit)
        .where(LIVE_SQL, fit.owner == OwnerLimitRow.owner, fit.status == "running")
        .scalar_subquery()
    )
    at_own = select(OwnerLimitRow.owner).where(_OWN, OwnerLimitRow.value <= n_running)
    if limit is None:
        return at_own
    has_own = exists().where(_OWN, OwnerLimitRow.owner == fit.owner)
    running = select(fit.owner).where(LIVE_SQL, fit.status == "running").group_by(fit.owner)
    return at_own.union_all(running.having(func.count() >= limit, ~has_own))
