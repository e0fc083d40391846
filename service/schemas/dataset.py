"""Datasets: points that are posted, or drawn from a gold mixture."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from service.schemas.mixture import GOLD, MixtureSpecification
from service.schemas.numbers import (
    Answer,
    Body,
    Columns,
    Count,
    Name,
    Points,
    Seed,
    Weight,
    require_exactly_one,
)

ALL_ZERO = "weights are all zero; give at least one point a weight above 0"


class _Drawn(Body):
    """Fields of a dataset drawn from a gold mixture, which no other must carry."""

    points: Points | None = None
    gold: MixtureSpecification | None = None
    n_samples: Count | None = Field(None, description="with gold: how many points to draw; 1000 unless given")
    seed: Seed | None = Field(None, description="with gold: 0 unless given")

    @model_validator(mode="after")
    def _draw_fields_go_with_gold(self) -> Self:
        for name in ("n_samples", "seed"):
            if self.gold is None and getattr(self, name) is not None:
                raise ValueError(f"{name} goes with gold")
        return self


class DatasetCreation(_Drawn):
    """Points, a gold mixture to draw them from, or the URL of files that hold them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"points": [[1.0, 2.0], [3.0, 4.5]], "name": "two points", "columns": ["height", "width"]},
                {"gold": GOLD, "n_samples": 1000, "seed": 0, "name": "gold"},
                {"url": "s3://measurements/2026/november", "columns": ["height", "width"]},
            ]
        }
    )

    url: str | None = Field(
        None,
        max_length=1024,
        description="of a Parquet file, or of a folder of such, below one of `MIXSERVE_DATASET_PREFIXES`: "
        "`s3://bucket/folder` or `file:///folder`. Its points are read where they are, whenever they are "
        "needed, and never stored; the files must not change. Every column must hold numbers, unless "
        "`columns` picks some",
    )
    name: Name | None = None
    columns: Columns | None = Field(
        None, description="names of the features; with url: the columns to take, in this order"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        require_exactly_one(self, ("points", "gold", "url"))
        return self


class DatasetReference(_Drawn):
    """The data of a fit: a stored dataset by id, or one given inline and stored on the way."""

    id: str | None = Field(None, max_length=64)
    weights: Annotated[list[Weight], Field(min_length=1)] | None = Field(
        None, description="(N,), each at least 0, not all 0: how much each point counts in this fit"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        require_exactly_one(self, ("id", "points", "gold"))
        if self.weights is not None and not any(self.weights):
            raise ValueError(ALL_ZERO)
        return self


class FeatureStatistics(Answer):
    """Per feature, in data units; the standard deviation divides by N."""

    mean: list[float | str]
    standard_deviation: list[float | str]
    minimum: list[float | str]
    maximum: list[float | str]


class Dataset(Answer):
    """A stored dataset. It never changes."""

    id: str
    name: str | None
    source: Literal["upload", "gold", "url"]
    n_samples: int
    n_features: int
    columns: list[str] | None
    sha256: Annotated[
        str,
        Field(
            description="of the points as little-endian float64, row by row, behind their shape; by URL, "
            "where they were not read: of the URL, the columns, and each file's name, size, footer, and ETag "
            "or time of change"
        ),
    ]
    size_bytes: Annotated[
        int, Field(description="of the points as float64; by URL: of the files as they are")
    ]
    statistics: Annotated[
        FeatureStatistics | None, Field(description="null for a dataset by URL, whose points were not read")
    ]
    gold: Annotated[
        dict[str, object] | None, Field(description="the mixture drawn from, with n_samples and seed")
    ]
    url: Annotated[str | None, Field(description="where the files are that hold the points")]
    created_at: datetime


class DatasetPoints(Answer):
    """A run of a dataset's points, or a sample of them."""

    points: Annotated[list[list[float]], Field(description="(n, D)")]
    components: Annotated[list[int] | None, Field(description="(n,), gold datasets: the true component")] = (
        None
    )
    indices: Annotated[
        list[int] | None, Field(description="(n,), with sample: the place of each point in the dataset")
    ] = None
    offset: int
    n_samples: Annotated[int, Field(description="of the whole dataset")]
