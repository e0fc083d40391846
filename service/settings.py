"""The settings of one process, read once from the environment and passed on from there."""

import os
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_PREFIX = re.compile(r"(?:file://(?=/)|s3://[a-z0-9][a-z0-9.-]*(?=/|$))[^%\\?#@\s]*")


class Settings(BaseSettings):
    """Settings with the environment prefix `MIXSERVE_`. Sizes are in bytes, durations in seconds.

    Only `cli.py` and `create_app` read it from the environment; everything else is handed one.
    """

    model_config = SettingsConfigDict(
        env_prefix="MIXSERVE_", frozen=True, extra="forbid", env_ignore_empty=True
    )

    data_dir: Path = Field(Path("mixserve-data"), description="SQLite file and dataset store")
    database_url: str = Field("", description="SQLite in the data folder, or postgresql+psycopg://...")
    dataset_store_url: str = Field(
        "", description="a folder in the data folder, file:///folder, or s3://bucket"
    )
    dataset_cache_bytes: int = Field(
        2**34, ge=1, description="of datasets in an object store, how much is kept on this machine's disk"
    )
    dataset_prefixes: str = Field(
        "",
        description="datasets may stay where they are below these URLs, separated by spaces: file:///folder, "
        "s3://bucket/folder?region=...; none unless given, so that nothing is fetched for anybody",
    )
    row_group_cache_bytes: int = Field(
        2**31,
        ge=0,
        description="of a dataset that stays where it is, how much a fit keeps in memory, decoded",
    )
    lease_seconds: float = Field(
        30.0, gt=0, description="a worker silent for this long loses its fit to another"
    )
    checkpoint_seconds: float = Field(
        10.0, ge=0, description="how much work of a long fit the loss of its worker may cost"
    )
    ray_address: str = Field(
        "",
        description="host:port of a Ray cluster's head; workers have their fits done there",
    )
    ray_cpus_per_rank: int = Field(
        1, ge=1, description="of a Ray cluster's cores, how many a fit, or each rank of one, is given"
    )
    max_attempts: int = Field(3, ge=1, description="after so many lost workers a fit fails with WORKER_LOST")
    max_body_bytes: int = Field(2**30, ge=1, description="larger bodies, decompressed, get 413")
    max_head_bytes: int = Field(2**16, ge=1000, description="a larger first line with headers gets 431")
    head_seconds: float = Field(
        20.0, gt=0, description="a first line with headers that takes longer gets 408"
    )
    body_seconds: float = Field(
        60.0,
        gt=0,
        description="a body that in so long does not go on by 100 bytes a second gets 408, and a client that "
        "does not read its answer at that pace is cut off",
    )
    max_dataset_bytes: int = Field(2**33, ge=1, description="larger datasets, as float64, get 422")
    max_answer_bytes: int = Field(2**33, ge=1, description="answers to questions that are larger get 422")
    max_queueing_seconds: float = Field(
        0.5, gt=0, description="requests that would wait longer for their turn get 503"
    )
    request_threads: int = Field(
        8, ge=1, description="do what requests have to do with the database; more do not do more"
    )
    scoring_threads: int | None = Field(
        None, ge=1, description="compute answers to large questions; as many as cores unless given"
    )
    worker_devices: int | None = Field(
        None,
        ge=1,
        description="that a fit may have of each worker; all GPUs it may use, or cores, unless given",
    )
    max_queued_fits: int = Field(10_000, ge=1, description="beyond it POST /v1/fits gets 429")
    owner_requests_per_second: float | None = Field(
        None, gt=0, description="requests beyond it, of one owner on all replicas, get 429; none: no limit"
    )
    owner_request_burst: int | None = Field(
        None, ge=1, description="requests that an owner may make at once; none: what it may make in 10 s"
    )
    owner_max_queued_fits: int | None = Field(None, ge=1, description="more of one owner's get 429")
    owner_max_running_fits: int | None = Field(
        None, ge=1, description="of one owner at a time, on all workers; more stay queued"
    )
    owner_max_stored_bytes: int | None = Field(None, ge=1, description="points of one owner, as float64")
    owner_max_device_seconds: float | None = Field(
        None, gt=0, description="that one owner's fits hold devices, each day (UTC); then new fits get 429"
    )
    idempotency_seconds: float = Field(
        86_400.0, ge=86_400.0, description="how long an Idempotency-Key is kept"
    )
    retention_days: float | None = Field(
        None, gt=0, description="ended fits older than this are removed; none: kept until deleted"
    )
    cors_origins: str = Field(
        "",
        description="origins whose pages may call the API, separated by spaces; * for any; none unless given",
    )
    docs: bool = Field(True, description="whether /docs and /openapi.json are there")
    otlp_endpoint: str = Field("", description="where to send traces, such as http://collector:4318")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: lines for people on a terminal, JSON elsewhere"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least to write")
    auth: Literal["none", "keys", "trusted-network"] = Field(
        "none",
        description="none: loopback only; keys: requests carry one; "
        "trusted-network: the network itself keeps strangers out",
    )

    @field_validator("dataset_store_url")
    @classmethod
    def _known_store(cls, url: str) -> str:
        scheme, separator, _ = url.partition("://")
        if separator and scheme not in ("file", "s3"):
            raise ValueError(
                f"a dataset store at {scheme}:// is not supported; give a folder, file:///folder or s3://bucket"
            )
        return url

    @field_validator("dataset_prefixes")
    @classmethod
    def _plain_prefixes(cls, prefixes: str) -> str:
        for prefix in prefixes.split():
            base, _, _ = prefix.partition("?")
            parts = base.rstrip("/").split("/")[3:]
            if not _PREFIX.fullmatch(base) or any(part in ("", ".", "..") for part in parts):
                raise ValueError(
                    f"{base!r} is no prefix of datasets; give file:///folder or s3://bucket/folder, without "
                    "credentials, % and parts that are empty, . or ..; behind it, ?region=... where needed"
                )
        return prefixes

    @model_validator(mode="after")
    def _known_database(self) -> Self:
        scheme = self.resolved_database_url.partition(":")[0]
        if scheme not in ("sqlite", "postgresql", "postgresql+psycopg"):
            raise ValueError(
                f"MIXSERVE_DATABASE_URL has the scheme {scheme!r}; use sqlite:/// or postgresql+psycopg://"
            )
        return self

    @model_validator(mode="after")
    def _guarded_cluster(self) -> Self:
        host, _, port = self.ray_address.rpartition(":")
        if self.ray_address and not (host and port.isdecimal()):
            raise ValueError(f"MIXSERVE_RAY_ADDRESS is {self.ray_address!r}; give the head's host:port")
        # Whoever reaches a cluster without tokens runs what they like on it, and hears what is said there.
        if host not in ("", "127.0.0.1", "localhost", "[::1]") and os.environ.get("RAY_AUTH_MODE") != "token":
            raise ValueError(
                f"the Ray cluster at {self.ray_address} is not on this machine: set RAY_AUTH_MODE=token, "
                "with the cluster's token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            )
        return self

    @property
    def has_owner_limits(self) -> bool:
        """Whether an owner may do or have too much of something."""
        limits = (name for name in type(self).model_fields if name.startswith("owner_"))
        return any(getattr(self, name) is not None for name in limits)

    @property
    def resolved_database_url(self) -> str:
        """The database's URL, with the default in the data folder filled in."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'mixserve.sqlite3'}"

    @property
    def remote_store_url(self) -> str:
        """The object store's URL, empty when the points are in a folder."""
        return self.dataset_store_url if self.dataset_store_url.startswith("s3://") else ""

    @property
    def store_place(self) -> tuple[Path, str, int, str, int]:
        """What the dataset store is made from."""
        return (
            self.dataset_store_folder,
            self.remote_store_url,
            self.dataset_cache_bytes,
            self.dataset_prefixes,
            self.row_group_cache_bytes,
        )

    @property
    def dataset_store_folder(self) -> Path:
        """The folder that holds the points; or, beside an object store, its copies of them."""
        if self.remote_store_url:
            return (self.data_dir / "dataset-cache").resolve()
        return Path(self.dataset_store_url.removeprefix("file://") or self.data_dir / "datasets").resolve()
