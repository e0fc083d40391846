"""The tables. Times are the database's; every constraint has a name that migrations can use."""

from datetime import date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    exists,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, deferred, mapped_column

from service.storage.columns import Array, Timestamp, now_plus
from service.storage.identifiers import new_id
from service.storage.owners import LOCAL, OWNER_LENGTH, Owned, acting_owner, filtered

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


@filtered
class DatasetRow(Owned, Table):
    """A dataset; its points lie in the dataset store under `sha256`, or in `files` of others at `url`."""

    __tablename__ = "datasets"
    __table_args__ = (Index("ix_datasets_owner_id", "owner", "id"),)

    id: Mapped[str] = _id("dat")
    name: Mapped[str | None] = mapped_column(String(200))
    source: Mapped[str] = mapped_column(String(16))
    n_samples: Mapped[int] = mapped_column(BigInteger)
    n_features: Mapped[int]
    columns: Mapped[list[str] | None]
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    statistics: Mapped[dict[str, Any] | None]
    gold: Mapped[dict[str, Any] | None]
    components_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    url: Mapped[str | None] = mapped_column(String(1024))
    files: Mapped[list[dict[str, Any]] | None] = deferred(mapped_column(JSON(none_as_null=True)))
    created_at: Mapped[datetime] = mapped_column(default=now_plus())


@filtered
class FitRow(Owned, Table):
    """A fit, its claim and its result in one row, so that one transaction decides everything.

    `token` is the claim's: whoever writes for a worker must name it. `dataset_id` is no foreign key: a fit
    outlives its dataset and still says which one it was. `claimed_at` is when the last claim was made;
    `traceparent` (W3C Trace Context) is the span of the request that made the fit; `n_checkpoints`, how many
    were begun. `checkpoint` is where the release before this one keeps the last.
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
        Index("ix_fits_owner_id", "owner", "id"),
        # For what one owner has in the queue.
        Index(
            "ix_fits_owner_status",
            "owner",
            "status",
            sqlite_where=LIVE_SQL,
            postgresql_where=LIVE_SQL,
        ),
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
    n_devices: Mapped[int] = mapped_column(default=1, server_default="1")
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
    claimed_at: Mapped[datetime | None]
    traceparent: Mapped[str | None] = mapped_column(String(55))
    checkpoint: Mapped[bytes | None] = deferred(mapped_column(LargeBinary))
    n_checkpoints: Mapped[int] = mapped_column(default=0, server_default="0")


@filtered
class FitEventRow(Table):
    """Something that happened to a fit; `number` grows by one from 1."""

    __tablename__ = "fit_events"

    fit_id: Mapped[str] = mapped_column(ForeignKey("fits.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[str] = mapped_column(String(16))
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now_plus())

    @classmethod
    def belongs_to(cls, owner: str) -> ColumnElement[bool]:
        """Whether an event's fit is of an owner."""
        return exists().where(FitRow.id == cls.fit_id, FitRow.owner == owner)


class CheckpointPartRow(Table):
    """A part of a checkpoint of a fit. A checkpoint is whole once its `last` part is there."""

    __tablename__ = "fit_checkpoint_parts"

    fit_id: Mapped[str] = mapped_column(ForeignKey("fits.id", ondelete="CASCADE"), primary_key=True)
    checkpoint: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    part: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last: Mapped[bool]
    data: Mapped[bytes] = mapped_column(LargeBinary)


@filtered
class MixtureRow(Owned, Table):
    """A mixture in canonical order. `fit_id` is unique: a fit ends in one mixture at most."""

    __tablename__ = "mixtures"
    __table_args__ = (Index("ix_mixtures_owner_id", "owner", "id"),)

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
    """A worker process that serves one device slot; `figures` is what it has counted since it began."""

    __tablename__ = "workers"

    id: Mapped[str] = _id("wrk")
    hostname: Mapped[str] = mapped_column(String(255))
    process_id: Mapped[int]
    device_type: Mapped[str] = mapped_column(String(16))
    device: Mapped[str] = mapped_column(String(16))
    device_name: Mapped[str] = mapped_column(String(255))
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    n_devices: Mapped[int] = mapped_column(default=1, server_default="1")
    started_at: Mapped[datetime] = mapped_column(default=now_plus())
    last_heartbeat_at: Mapped[datetime] = mapped_column(default=now_plus())
    figures: Mapped[dict[str, Any] | None]


@filtered
class IdempotencyKeyRow(Owned, Table):
    """A key, what it was first used for, and the answer; no `status` while the first call is being served."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(
        String(OWNER_LENGTH), primary_key=True, default=acting_owner, server_default=LOCAL
    )
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    holder: Mapped[str] = mapped_column(String(ID_LENGTH))
    status: Mapped[int | None]
    headers: Mapped[dict[str, Any] | None]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(default=now_plus(), index=True)


class ApiKeyRow(Table):
    """A key to the API. Of the key itself only the SHA-256 is kept; `scopes` are separated by spaces."""

    __tablename__ = "api_keys"

    id: Mapped[str] = _id("key")
    name: Mapped[str] = mapped_column(String(200))
    owner: Mapped[str] = mapped_column(String(OWNER_LENGTH))
    scopes: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now_plus())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AllowanceRow(Table):
    """The requests that an owner may still make: a bucket that fills by the limit's rate."""

    __tablename__ = "request_allowances"

    owner: Mapped[str] = mapped_column(String(OWNER_LENGTH), primary_key=True)
    tokens: Mapped[float]
    filled_at: Mapped[datetime] = mapped_column(default=now_plus())


class OwnerLimitRow(Table):
    """A limit of one owner's own, in place of the settings'; infinite where it has none of the kind."""

    __tablename__ = "owner_limits"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(OWNER_LENGTH), primary_key=True)
    value: Mapped[float]


class DeviceUseRow(Table):
    """How long an owner's fits have held devices on one day (UTC)."""

    __tablename__ = "device_use"

    owner: Mapped[str] = mapped_column(String(OWNER_LENGTH), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    seconds: Mapped[float] = mapped_column(default=0.0)
