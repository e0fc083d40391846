"""The mixture specification and the answers about mixtures."""

import sys
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, WithJsonSchema, model_validator

from service.schemas.numbers import Answer, Body, Columns, Count, Name, Number, Points, Rows, Seed

CovarianceType = Literal["full", "tied", "diag", "spherical"]
Matrices = list[Rows]


def _only_numbers(value: Any, place: str = "covariances", depth: int = 3) -> Any:
    """Returns numbers, or lists of them nested at most three deep; refuses the first that is neither."""
    if isinstance(value, list) and depth > 0:
        return [_only_numbers(item, f"{place}[{index}]", depth - 1) for index, item in enumerate(value)]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{place} must be a finite number" + (" or a list of them" if depth else ""))
    return float(value)


def _numbers_or_lists(depth: int) -> dict[str, Any]:
    """Returns the JSON Schema of a number, or of lists of numbers that are nested at most so deep."""
    number = {"type": "number"}
    if depth == 0:
        return number
    return {"anyOf": [number, {"type": "array", "items": _numbers_or_lists(depth - 1)}]}


Covariances = Annotated[
    list[Any],
    Field(
        min_length=1,
        description="full (K, D, D), tied (D, D), diag (K, D), spherical (K); squared data units",
    ),
    AfterValidator(_only_numbers),
    WithJsonSchema({"type": "array", "minItems": 1, "items": _numbers_or_lists(depth=2)}),
]

GOLD: dict[str, JsonValue] = {
    "weights": [0.2, 0.4, 0.4],
    "means": [[-1, -1], [-1, 1], [1, 1]],
    "covariances": [[[0.25, 0], [0, 0.04]], [[0.09, 0], [0, 0.09]], [[0.16, 0.16], [0.16, 0.25]]],
    "covariance_type": "full",
}
"""The gold mixture of the contract, as an example."""


class MixtureSpecification(Body):
    """The parameters of a Gaussian mixture.

    `covariances` has scikit-learn's shape for its `covariance_type`. In its place `standard_deviations`
    (K, D) may be given, and with them, for `full`, `correlations` (K, D, D).
    """

    model_config = ConfigDict(json_schema_extra={"examples": [GOLD]})

    weights: Annotated[list[Number], Field(min_length=1, description="(K,), sum to 1 within 1e-6")]
    means: Annotated[Rows, Field(min_length=1, description="(K, D), data units")]
    covariances: Covariances | None = None
    covariance_type: CovarianceType = "full"
    standard_deviations: Annotated[Rows, Field(description="(K, D), data units")] | None = None
    correlations: Annotated[Matrices, Field(description="(K, D, D), ones on the diagonal")] | None = None

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if (self.covariances is None) == (self.standard_deviations is None):
            raise ValueError("give either covariances or standard_deviations, and not both")
        if self.correlations is not None and self.standard_deviations is None:
            raise ValueError("correlations go with standard_deviations, not with covariances")
        return self


class MixtureCreation(MixtureSpecification):
    """A mixture to keep, with an optional name and names of its features."""

    name: Name | None = None
    columns: Columns | None = None


class MixtureParameters(Answer):
    """Parameters in canonical order: falling weight, ties by first mean."""

    weights: list[float]
    means: list[list[float]]
    covariances: Annotated[
        list[float] | list[list[float]] | list[list[list[float]]],
        Field(description="full (K, D, D), tied (D, D), diag (K, D), spherical (K); squared data units"),
    ]
    covariance_type: CovarianceType


class Mixture(MixtureParameters):
    """A stored mixture. It never changes."""

    id: str
    name: str | None
    columns: list[str] | None
    n_components: int
    n_features: int
    precisions: Annotated[list[list[list[float]]], Field(description="(K, D, D)")]
    standard_deviations: Annotated[list[list[float]], Field(description="(K, D), data units")]
    correlations: Annotated[list[list[list[float]]], Field(description="(K, D, D)")]
    fit_id: str | None
    created_at: datetime


class PointsBody(Body):
    """Points to ask about."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"points": [[0.0, 0.0], [1.0, 1.0]]}]})

    points: Points
    columns: Annotated[
        Columns | None, Field(description="put in the order of the mixture's, if that has names, too")
    ] = None


class SamplesRequest(Body):
    """How many points to draw. Without a seed they are fresh each time, and the seed used comes back."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"n_samples": 5, "seed": 0}]})

    n_samples: Count = 1000
    seed: Seed | None = None


class LogDensityAnswer(Answer):
    """Log-densities in nats."""

    log_density: Annotated[list[float | str], Field(description="(N,), nats")]
    component_log_density: Annotated[
        list[list[float | str]] | None, Field(description="(N, K), nats: log N(x; mean_k, covariance_k)")
    ] = None


class ResponsibilitiesAnswer(Answer):
    """Posterior probabilities of the components, and the likeliest one, for each point."""

    responsibilities: Annotated[list[list[float]], Field(description="(N, K), rows sum to 1")]
    labels: Annotated[list[int], Field(description="(N,), index of the largest responsibility")]


class SamplesAnswer(Answer):
    """Points drawn independently, in the order drawn."""

    points: Annotated[list[list[float]], Field(description="(N, D), data units")]
    components: Annotated[list[int], Field(description="(N,), the component each point was drawn from")]
    seed: Annotated[int, Field(description="draws the same points again")]
