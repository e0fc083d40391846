"""Workers: who is there to do fits, and on what."""

import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session

from service.storage.columns import now_plus
from service.storage.database import Database
from service.storage.tables import LIVE_SQL, FitRow, WorkerRow

_FORGOTTEN_AFTER_SECONDS = 86_400.0


@dataclass(frozen=True)
class Device:
    """What a worker computes on.

    Attributes:
        device: Torch's name for it, such as `cpu` or `cuda:0`; of several the first.
        name: For people.
        memory_bytes: Of one of them.
        n_devices: How many a fit may have: GPUs, or cores of a CPU.
    """

    device: str
    name: str
    memory_bytes: int
    n_devices: int = 1

    @property
    def type(self) -> str:
        """`cpu` or `cuda`."""
        return self.device.partition(":")[0]

    @property
    def serves(self) -> tuple[str, ...]:
        """The `device` values of requests that this one can serve."""
        return tuple(dict.fromkeys(("auto", "cpu", self.type, self.device)))


def register(database: Database, device: Device) -> str:
    """Returns the identifier of a new worker, this process."""
    with database.write() as session:
        session.execute(
            delete(WorkerRow).where(WorkerRow.last_heartbeat_at < now_plus(-_FORGOTTEN_AFTER_SECONDS))
        )
        row = WorkerRow(
            hostname=socket.gethostname(),
            process_id=os.getpid(),
            device_type=device.type,
            device=device.device,
            device_name=device.name,
            memory_bytes=device.memory_bytes,
            n_devices=device.n_devices,
        )
        session.add(row)
        session.flush()
        return row.id


def heartbeat(database: Database, worker_id: str, figures: dict[str, Any] | None = None) -> bool:
    """Says that a worker is alive, and what it has counted; False when it was forgotten and must register."""
    said = {} if figures is None else {"figures": figures}
    statement = update(WorkerRow).where(WorkerRow.id == worker_id)
    statement = statement.values(last_heartbeat_at=now_plus(), **said)
    with database.write() as session:
        known = session.scalar(statement.returning(WorkerRow.id).execution_options(synchronize_session=False))
        return known is not None


def unregister(database: Database, worker_id: str) -> None:
    """Removes a worker that ends."""
    with database.write() as session:
        session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))


def devices(session: Session, lease_seconds: float) -> list[Device]:
    """Returns what the workers heard of within a lease compute on, each once."""
    return [Device(*row) for row in session.execute(_devices(lease_seconds))]


@lru_cache(maxsize=8)
def _devices(lease_seconds: float) -> Select[Any]:
    """Returns the query of `devices`; of the table, and built once, since it is asked with every fit."""
    column = WorkerRow.__table__.c
    query = select(column.device, column.device_name, column.memory_bytes, column.n_devices)
    return query.where(column.last_heartbeat_at > now_plus(-lease_seconds)).distinct()


def alive(session: Session, lease_seconds: float) -> list[tuple[WorkerRow, list[str]]]:
    """Returns the workers heard of within a lease, each with the fits it is running."""
    rows = session.scalars(
        select(WorkerRow).where(WorkerRow.last_heartbeat_at > now_plus(-lease_seconds)).order_by(WorkerRow.id)
    ).all()
    running: dict[str, list[str]] = {row.id: [] for row in rows}
    claimed = select(FitRow.id, FitRow.worker_id).where(
        LIVE_SQL, FitRow.worker_id.in_(running), FitRow.status == "running"
    )
    for fit_id, worker_id in session.execute(claimed):
        if worker_id is not None:
            running[worker_id].append(fit_id)
    return [(row, running[row.id]) for row in rows]
