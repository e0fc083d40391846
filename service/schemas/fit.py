"""Fits: what a client asks for, and what it reads while and after the service works on it."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Strict, Tag, model_validator

from service.schemas.dataset import DatasetReference
from service.schemas.mixture import GOLD, MixtureParameters, MixtureSpecification
from service.schemas.numbers import (
    WHOLE,
    Answer,
    Body,
    Count,
    Metadata,
    Number,
    One,
    Seed,
    Several,
    one_or_several,
    require_exactly_one,
)

FitStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINAL_STATUSES = ("succeeded", "failed", "cancelled")

# scikit-learn's four, and mclust's fourteen: volume, shape and orientation, each Equal, Variable or Identity.
Family = Literal[
    "full", "tied", "diag", "spherical",
    "EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV",
]  # fmt: skip
Rate = Annotated[Number, Field(gt=0)]


def _named(field: str) -> ConfigDict:
    """Says of a model with a default for the field that tells it from others that clients must give it."""
    return ConfigDict(json_schema_extra={"required": [field]})


class Auto(Body):
    """Lets the service choose; `result.optimizer` says what it chose."""

    model_config = _named("name")

    name: Literal["auto"] = "auto"


class ExpectationMaximization(Body):
    """EM with Anderson acceleration."""

    name: Literal["em"]


class Lbfgs(Body):
    """L-BFGS with a strong Wolfe line search."""

    name: Literal["lbfgs"]


class Adam(Body):
    """Adam on the mean log-likelihood, full batch or minibatches in fresh random order each pass."""

    name: Literal["adam"]
    learning_rate: Rate = 0.01
    batch_size: Count | None = Field(None, description="null: all points")


class Sgd(Body):
    """Gradient descent with momentum on the mean log-likelihood, full batch or minibatches."""

    name: Literal["sgd"]
    learning_rate: Rate = 0.01
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    batch_size: Count | None = Field(None, description="null: all points")


Optimizer = Annotated[Auto | ExpectationMaximization | Lbfgs | Adam | Sgd, Field(discriminator="name")]


class Start(Body):
    """A start that the service makes from the data; `random` is the exercise's."""

    model_config = _named("method")

    # Generators of clients cannot make two names of kmeans++ and kmeans by themselves.
    method: Literal["kmeans++", "kmeans", "random"] = Field(
        "kmeans++", json_schema_extra={"x-enum-varnames": ["KMEANS_PLUS_PLUS", "KMEANS", "RANDOM"]}
    )


class MixtureStart(Body):
    """A start from given parameters, or from those of a stored mixture."""

    method: Literal["mixture"]
    mixture: MixtureSpecification | None = None
    mixture_id: str | None = Field(None, max_length=64)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        require_exactly_one(self, ("mixture", "mixture_id"))
        return self


Initialization = Annotated[Start | MixtureStart, Field(discriminator="method")]


class InformationCriterion(Body):
    """A criterion computed on the data fitted; the lowest wins."""

    model_config = _named("criterion")

    criterion: Literal["bic", "aic", "icl"] = "bic"


class HeldOut(Body):
    """The log-likelihood of points kept out of the fit; the highest wins."""

    criterion: Literal["held_out"]
    fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.1


Selection = Annotated[InformationCriterion | HeldOut, Field(discriminator="criterion")]

Components = Annotated[
    Annotated[Count, One] | Annotated[list[Count], Field(min_length=1, max_length=100), Several],
    one_or_several,
]
Families = Annotated[
    Annotated[Family, One] | Annotated[list[Family], Field(min_length=1, max_length=20), Several],
    one_or_several,
]


Devices = Annotated[
    Annotated[int, Field(ge=1, le=1024), WHOLE, One] | Annotated[Literal["auto"], Tag("tag:auto")],
    Discriminator(lambda value: "tag:auto" if isinstance(value, str) else "tag:one"),
]


class FitRequest(Body):
    """Everything that a fit depends on. A fit is a function of its dataset, its request and its seed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"dataset": {"gold": GOLD, "n_samples": 1000, "seed": 0}, "n_components": 3, "seed": 0}
            ]
        }
    )

    dataset: DatasetReference
    n_components: Components = Field(description="one number, or a list to choose from")
    covariance_type: Families = Field("full", description="one family, or a list to choose from")
    optimizer: Optimizer = Field(default_factory=Auto)
    initialization: Initialization = Field(default_factory=Start)
    n_init: Annotated[int, Strict(), Field(ge=1, le=10_000), WHOLE] = Field(
        8, description="restarts, the best is kept"
    )
    tolerance: Annotated[Number, Field(ge=0)] = Field(
        1e-6, description="on the mean log-likelihood per point; 0 runs every step"
    )
    max_steps: Annotated[int, Strict(), Field(ge=1, le=10**9), WHOLE] = Field(
        1000, description="updates of the parameters, minibatches counted one by one"
    )
    regularization: Annotated[Number, Field(ge=0)] = Field(
        1e-6, description="added to covariance diagonals, in units of the feature's variance"
    )
    selection: Selection = Field(default_factory=InformationCriterion)
    seed: Seed = 0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:\d{1,3})$")] = "auto"
    devices: Devices = Field(
        1,
        description="how many GPUs, or cores of a CPU, share the points, each with a process of its own; "
        "auto: a GPU for each GiB of points, as far as the worker has them, and one process on a CPU, whose "
        "cores share its work in any case",
    )
    dtype: Literal["float64", "float32"] = "float64"
    priority: Annotated[int, Field(ge=-1000, le=1000), WHOLE] = Field(0, description="higher goes first")
    timeout_seconds: Annotated[Number, Field(gt=0)] | None = None
    metadata: Metadata = Field(default_factory=dict)


class FitProgress(Answer):
    """How far a fit has come."""

    step: int
    max_steps: int
    restarts_done: int
    n_init: int
    log_likelihood: Annotated[float | str | None, Field(description="the best so far, total, nats")]
    elapsed_seconds: float
    remaining_seconds: Annotated[
        float | None, Field(description="an estimate from the steps so far; null: unknown")
    ]


class FitError(Answer):
    """Why a fit failed."""

    code: Annotated[
        str, Field(description="FIT_COLLAPSED, OUT_OF_MEMORY, TIMED_OUT, WORKER_LOST, INTERNAL ...")
    ]
    message: str


class Optimum(Answer):
    """One of the distinct optima that the restarts ran into."""

    model_config = ConfigDict(extra="allow")

    mean_log_likelihood: Annotated[float | str | None, Field(description="null: the restart collapsed")]
    hits: Annotated[int, Field(description="restarts known to have ended there")]
    outcome: Annotated[
        str,
        Field(
            description="converged, max_steps_reached, collapsed, non_finite; or left_behind: behind the best"
            " by more than it could expect to gain, and not followed to its end"
        ),
    ]
    smallest_eigenvalue: Annotated[float | str | None, Field(description="in units of feature variances")]
    smallest_weight: float | str | None
    spurious: Annotated[bool, Field(description="a component sits at the regularisation floor")]


class ClosedForm(Answer):
    """What a single component has in closed form."""

    mixture: MixtureParameters
    log_likelihood: float | str


class FitResult(Answer):
    """What a fit ended in."""

    model_config = ConfigDict(extra="allow")

    mixture_id: str
    mixture: MixtureParameters
    n_components: int
    covariance_type: str
    outcome: Literal["converged", "max_steps_reached"]
    optimizer: Annotated[dict[str, Any] | str, Field(description="what ran, where the request said auto")]
    log_likelihood: Annotated[float | str, Field(description="total, nats")]
    mean_log_likelihood: Annotated[float | str, Field(description="per point, nats")]
    n_parameters: int
    bic: float | str
    aic: float | str
    icl: float | str
    held_out_log_likelihood: float | str | None
    n_steps: int
    n_passes: Annotated[float, Field(description="passes over the data")]
    elapsed_seconds: float
    device: str
    devices: Annotated[int, Field(description="how many shared the points")] = 1
    dtype: str
    optima: Annotated[list[Optimum], Field(description="distinct optima found, best first")]
    candidates: Annotated[
        list[dict[str, Any]] | None, Field(description="a row per pair when a list was given")
    ]
    closed_form: ClosedForm | None
    recovery: Annotated[
        dict[str, Any] | None, Field(description="gold datasets: how well the truth was found")
    ]


class Fit(Answer):
    """A fit, as it stands."""

    id: str
    status: FitStatus
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: Annotated[int, Field(description="how often a worker has begun it")]
    priority: int
    metadata: dict[str, Any]
    dataset_id: str
    # The title keeps generators of clients from taking it for the schema FitRequest.
    request: Annotated[
        dict[str, Any], Field(title="Filled request", description="the request with every default filled in")
    ]
    progress: FitProgress | None
    result: FitResult | None
    error: FitError | None


class FitEvent(Answer):
    """Something that happened to a fit.

    The `data` of `progress` is the fit's `progress` with `traces`: of every restart what is new since the
    event before, as {n_components, covariance_type, restart, steps, log_likelihoods} (nats, to nine digits).
    Every step is told at first and later each that is a twentieth further, besides the last one, so that a
    trace stays short: about 100 steps of the first 1000. At most 512 restarts of a fit are traced. A fit that
    goes on after the loss of its worker tells the steps again that it does again.
    """

    id: Annotated[int, Field(description="grows by one from 1 within a fit")]
    type: Literal["status", "progress", "log"]
    created_at: datetime
    data: dict[str, Any]
