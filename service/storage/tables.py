"""The tables. Times are the database's; every constraint has a name that migrations can use."""

from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, deferred, mapped_column

from service.storage.columns import Array, Timestamp, now_plus
from service.storage.identifiers import new_id

ID_LENGTH = 32
LIVE = ("queued", "running")
LIVE_SQL = text("status IN ('queued', 'running')")
ENDED_SQL = text("finished_at IS NOT NULL")


def _id(prefix: str) -> Mapped[str]:
    return mapped_column(String(ID_LENGTH), primary_key=True, default=lambda: new_id(prefix))


class Table(DeclarativeBase):
    """What all tables share: how constraints are named, and which column type a Python type gets."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: Timestamp(),
        # None is SQL's NULL, so that IS NULL means what it says.
        dict[str, Any]: JSON(none_as_null=True),
        list[str]: JSON(none_as_null=True),
        NDArray[np.float64]: Array(),
    }


class DatasetRow(Table):
    """A dataset; its points lie in the dataset store under `sha256`."""

    __tablename__ = "datasets"

    id: Mapped[str] = _id("dat")
    name: Mapped[str | None] = mapped_column(String(200))
    source: Mapped[str] = mapped_column(String(16))
    n_samples: Mapped[int] = mapped_column(BigInteger)
    n_features: Mapped[int]
    columns: Mapped[list[str] | None]
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    statistics: Mapped[dict[str, Any]]
    gold: Mapped[dict[str, Any] | None]
    components_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    created_at: Mapped[datetime] = mapped_column(default=now_plus())


class FitRow(Table):
    """A fit, its claim and its result in one row, so that one transaction decides everything.

    `token` is the claim's: whoever writes for a worker must name it. `dataset_id` is no foreign key: a fit
    outlives its dataset and still says which one it was.
    """

    __tablename__ = "fits"
    __table_args__ = (
        CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="status"),
        CheckConstraint("(status = 'running') = (token IS NOT NULL)", name="token"),
        CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name="lease"),
        # The claim reads this one only, however many fits have ended.
        Index(
            "ix_fits_live",
            text("priority DESC"),
            "id",
            sqlite_where=LIVE_SQL,
            postgresql_where=LIVE_SQL,
        ),
        Index("ix_fits_status_id", "status", "id"),
        Index("ix_fits_dataset_id_id", "dataset_id", "id"),
        # For what is removed by age.
        Index(
            "ix_fits_finished_at",
            "finished_at",
            sqlite_where=ENDED_SQL,
            postgresql_where=ENDED_SQL,
        ),
    )

    id: Mapped[str] = _id("fit")
    status: Mapped[str] = mapped_column(String(16), default="queued")
    created_at: Mapped[datetime] = mapped_column(default=now_plus())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    attempt: Mapped[int] = mapped_column(default=0)
    n_workers_lost: Mapped[int] = mapped_column(default=0)
    priority: Mapped[int] = mapped_column(default=0)
    device: Mapped[str] = mapped_column(String(16))
    timeout_seconds: Mapped[float | None]
    estimated_seconds: Mapped[float] = mapped_column(default=0.0)
    fit_metadata: Mapped[dict[str, Any]] = mapped_column("metadata")
    dataset_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    weights_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    request: Mapped[dict[str, Any]]
    progress: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    n_events: Mapped[int] = mapped_column(default=0)
    worker_id: Mapped[str | None] = mapped_column(String(ID_LENGTH), index=True)
    token: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    lease_expires_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    checkpoint: Mapped[bytes | None] = deferred(mapped_column(LargeBinary))


class FitEventRow(Table):
    """Something that happened to a fit; `number` grows by one from 1."""

    __tablename__ = "fit_events"

    fit_id: Mapped[str] = mapped_column(ForeignKey("fits.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[str] = mapped_column(String(16))
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now_plus())


class MixtureRow(Table):
    """A mixture in canonical order. `fit_id` is unique: a fit ends in one mixture at most."""

    __tablename__ = "mixtures"

    id: Mapped[str] = _id("mix")
    name: Mapped[str | None] = mapped_column(String(200))
    columns: Mapped[list[str] | None]
    covariance_type: Mapped[str] = mapped_column(String(16))
    weights: Mapped[NDArray[np.float64]]
    means: Mapped[NDArray[np.float64]]
    covariances: Mapped[NDArray[np.float64]]
    fit_id: Mapped[str | None] = mapped_column(String(ID_LENGTH), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now_plus())


class WorkerRow(Table):
    """A worker process that serves one device slot."""

    __tablename__ = "workers"

    id: Mapped[str] = _id("wrk")
    hostname: Mapped[str] = mapped_column(String(255))
    process_id: Mapped[int]
    device_type: Mapped[str] = mapped_column(String(16))
    device: Mapped[str] = mapped_column(String(16))
    device_name: Mapped[str] = mapped_column(String(255))
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[datetime] = mapped_column(default=now_plus())
    last_heartbeat_at: Mapped[datetime] = mapped_column(default=now_plus())


class IdempotencyKeyRow(Table):
    """A key, what it was first used for, and the answer; no `status` while the first call is being served."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    holder: Mapped[str] = mapped_column(String(ID_LENGTH))
    status: Mapped[int | None]
    headers: Mapped[dict[str, Any] | None]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(default=now_plus(), index=True)
