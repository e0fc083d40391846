"""What one owner may have at a time and use in a day; who asks holds the owner's lock until its commit."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import ceil
from typing import Any, cast

from sqlalchemy import Date, Executable, Select, Table, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.errors import LimitReached
from service.storage import own_limits
from service.storage.columns import seconds_since
from service.storage.database import Database
from service.storage.owners import acting_owner
from service.storage.tables import LIVE_SQL, DatasetRow, DeviceUseRow, FitRow

_QUEUE_RETRY_SECONDS = 10
_STORAGE_RETRY_SECONDS = 60


@dataclass(frozen=True)
class OwnerLimits:
    """Limits of owners; None where there is none. Sizes in bytes, durations in seconds."""

    queued_fits: int | None = None
    stored_bytes: int | None = None
    device_seconds: float | None = None

    def of(self, session: Session, owner: str) -> "OwnerLimits":
        """Returns the limits of one owner, its own in place of these."""
        own = own_limits.of_owner(session, owner)
        limited = {name: _limit(own[name]) for name in own.keys() & vars(self).keys()}
        return replace(self, **limited)


def require_room_for_fit(database: Database, session: Session, limits: OwnerLimits) -> None:
    """Refuses a fit beyond what its owner may have in the queue, or use of devices today.

    Raises:
        LimitReached: It is beyond.
    """
    owner = acting_owner()
    limits = limits.of(session, owner)
    if limits.queued_fits is None and limits.device_seconds is None:
        return
    database.lock(session, _lock(owner))
    if limits.queued_fits is not None:
        n_queued = session.scalar(_of(owner, func.count(), FitRow, LIVE_SQL, FitRow.status == "queued")) or 0
        if n_queued >= limits.queued_fits:
            raise LimitReached(
                "QUEUED_FITS_LIMIT",
                f"{n_queued} fits of {owner} are queued already, as many as may be; wait, or cancel some.",
                "queued-fits",
                limits.queued_fits,
                _QUEUE_RETRY_SECONDS,
            )
    if limits.device_seconds is not None:
        used = device_seconds_today(session, owner)
        if used >= limits.device_seconds:
            raise LimitReached(
                "DEVICE_SECONDS_LIMIT",
                f"The fits of {owner} have held devices for {used:.0f} s today (UTC), of "
                f"{limits.device_seconds:g} that they may; come back tomorrow.",
                "device-seconds",
                limits.device_seconds,
                _seconds_to_midnight(),
            )


def require_room_for_points(
    database: Database, session: Session, limits: OwnerLimits, size_bytes: int
) -> None:
    """Refuses points beyond what their owner may store; equal points of several datasets count for each.

    Raises:
        LimitReached: They are beyond.
    """
    owner = acting_owner()
    limits = limits.of(session, owner)
    if limits.stored_bytes is None:
        return
    database.lock(session, _lock(owner))
    size = func.coalesce(func.sum(DatasetRow.size_bytes), 0)
    stored = session.scalar(_of(owner, size, DatasetRow, DatasetRow.url.is_(None))) or 0
    if stored + size_bytes > limits.stored_bytes:
        raise LimitReached(
            "STORED_BYTES_LIMIT",
            f"{owner} stores {stored} bytes of points; with {size_bytes} more they would be beyond the "
            f"{limits.stored_bytes} that it may store. Delete datasets that are no longer needed.",
            "stored-bytes",
            limits.stored_bytes,
            _STORAGE_RETRY_SECONDS,
        )


def device_seconds_today(session: Session, owner: str) -> float:
    """Returns how long an owner's fits have held devices today (UTC), those that still do included."""
    today = _today()
    ended = select(DeviceUseRow.seconds).where(DeviceUseRow.owner == owner, DeviceUseRow.day == today)
    held = func.coalesce(func.sum(seconds_since(FitRow.claimed_at)), 0.0)
    running = session.scalar(_of(owner, held, FitRow, LIVE_SQL, FitRow.status == "running"))
    return float(session.scalar(ended) or 0.0) + float(running or 0.0)


def record_device_use(session: Session, fit_id: str) -> None:
    """Adds how long a fit's last claim has held its device to what its owner has used."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    session.execute(_adding_use(is_sqlite), {"today": _today(), "fit": fit_id})


@lru_cache(maxsize=2)
def _adding_use(is_sqlite: bool) -> Executable:
    """Returns the statement of `record_device_use`; built once, since that takes longer than running it."""
    table = cast(Table, DeviceUseRow.__table__)  # an ORM insert would take the parameters for rows
    use = (sqlite.insert if is_sqlite else postgresql.insert)(table).from_select(
        ["owner", "day", "seconds"],
        select(FitRow.owner, bindparam("today", type_=Date), seconds_since(FitRow.claimed_at)).where(
            FitRow.id == bindparam("fit"), FitRow.claimed_at.is_not(None)
        ),
    )
    return use.on_conflict_do_update(
        index_elements=["owner", "day"], set_={"seconds": DeviceUseRow.seconds + use.excluded.seconds}
    )


def _lock(owner: str) -> str:
    return f"limits of {owner}"


def _limit(own: float) -> Any:
    if own == own_limits.UNLIMITED:
        return None
    return int(own) if own.is_integer() else own


def _of(owner: str, wanted: Any, table: Any, *conditions: Any) -> Select[Any]:
    return select(wanted).select_from(table).where(table.owner == owner, *conditions)


def _today() -> Any:
    return datetime.now(UTC).date()


def _seconds_to_midnight() -> int:
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return ceil((midnight - now).total_seconds())
