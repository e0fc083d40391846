"""One fit: from a claim to its result, on one device, without a database."""

import logging
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import torch

from service.codecs.column_file import ColumnFile
from service.mixture import (
    ASKED,
    BlockedPoints,
    FitOptions,
    FitReport,
    GaussianMixture,
    InvalidFit,
    MappedBlocks,
    Points,
    Progress,
    estimate_fit_bytes,
    fit,
    is_out_of_memory,
    recover,
    stays_on_disk,
)
from service.storage.dataset_store import DatasetStore
from service.storage.queue import Claim
from service.worker.messages import Ended, Failed, Start, Stopped, Succeeded

logger = logging.getLogger(__name__)
Watch = Callable[[Progress], str | None]
Keep = Callable[[bytes], None]
Ask = Callable[[], str | None]


def run(
    start: Start, store: DatasetStore, device: str, watch: Watch, keep: Keep, ask: Ask = lambda: None
) -> Ended:
    """Returns how the fit ended.

    Args:
        start: The fit.
        store: Where its points are.
        device: Where to compute, by torch's name.
        watch: Called at each step; returns one of `ASKED` to stop, or None to go on.
        keep: Called now and then with a state to go on from.
        ask: Called before the first step, again and again; answers as `watch` does.
    """
    try:
        return _run(start, store, device, watch, keep, ask)
    except InvalidFit as error:
        return Failed("INVALID_FIT", str(error))
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        return Failed("OUT_OF_MEMORY", _too_little_memory(start.claim, device, error))


def _run(start: Start, store: DatasetStore, device: str, watch: Watch, keep: Keep, ask: Ask) -> Ended:
    claim = start.claim
    points = points_of(store.open(claim.dataset_sha256))
    weights = None if claim.weights_sha256 is None else store.open(claim.weights_sha256).columns()[0]
    report = _resumed(
        start,
        partial(
            fit,
            points,
            options_of(claim.request),
            sample_weights=None if weights is None else torch.from_numpy(weights),
            device="cpu" if claim.request["device"] == "cpu" else device,
            watch=watch,
            ask=ask,
            checkpoint=keep,
            checkpoint_seconds=start.checkpoint_seconds,
        ),
    )
    if report.outcome in ASKED:
        return Stopped()
    if report.mixture is None:
        return Failed("FIT_COLLAPSED", report.message)
    return Succeeded(_result(claim, store, points, report, report.mixture), parameters_of(report.mixture))


def points_of(file: ColumnFile) -> Points:
    """Returns a dataset's points (D, N): few of them in memory, many where they lie in their mapped file."""
    if not stays_on_disk(file.n_rows, file.n_columns):
        return torch.from_numpy(file.columns())
    layout = file.layout()
    return BlockedPoints(
        MappedBlocks(
            file.n_columns,
            torch.from_numpy(layout.numbers),
            torch.from_numpy(layout.starts),
            torch.from_numpy(layout.offsets),
            torch.from_numpy(layout.strides),
        )
    )


def _too_little_memory(claim: Claim, device: str, error: Exception) -> str:
    device_type = device.partition(":")[0]
    needed = estimate_fit_bytes(claim.n_samples, claim.n_features, options_of(claim.request), device_type)
    reason = str(error) or "there was no more"
    return (
        f"The fit needs about {needed} bytes of memory, more than {device} had free, also in the smallest "
        f"chunks ({reason[:300]}). Use fewer components, restarts or points, or a simpler covariance_type."
    )


def _resumed(start: Start, fit_from: Callable[..., FitReport]) -> FitReport:
    """Returns the report of a fit that goes on from its checkpoint, or begins where that is of no use."""
    if start.checkpoint is not None:
        try:
            return fit_from(resume=start.checkpoint)
        except InvalidFit as error:
            if error.path != ("resume",):
                raise
            logger.warning("fit %s begins anew: %s", start.claim.fit_id, error)
    return fit_from()


def options_of(request: dict[str, Any]) -> FitOptions:
    """Returns a stored request as the numerical core's options."""

    def several(value: Any) -> tuple[Any, ...]:
        return tuple(value) if isinstance(value, list) else (value,)

    initialization = dict(request["initialization"])
    if initialization.get("mixture") is not None:
        initialization["mixture"] = GaussianMixture.from_parameters(**initialization["mixture"])
    selection = request["selection"]
    own = {
        "n_components": several(request["n_components"]),
        "covariance_type": several(request["covariance_type"]),
        "initialization": initialization,
        "criterion": selection["criterion"],
        "held_out_fraction": selection.get("fraction", 0.1),
    }
    shared = {field.name: request[field.name] for field in fields(FitOptions) if field.name in request}
    return FitOptions(**(shared | own))


def parameters_of(mixture: GaussianMixture) -> dict[str, Any]:
    """Returns a mixture's parameters as float64 arrays, by name."""
    return {
        "weights": mixture.weights.numpy(),
        "means": mixture.means.numpy(),
        "covariances": mixture.covariances.numpy(),
        "covariance_type": mixture.covariance_type,
    }


def _result(
    claim: Claim,
    store: DatasetStore,
    points: Points,
    report: FitReport,
    mixture: GaussianMixture,
) -> dict[str, Any]:
    parameters = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in parameters_of(mixture).items()
    }
    asked = claim.request
    if not isinstance(asked["n_components"], list) and not isinstance(asked["covariance_type"], list):
        report.result["candidates"] = None  # there was nothing to choose from
    return {"mixture": parameters} | report.result | {"recovery": _recovery(claim, store, points, mixture)}


def _recovery(
    claim: Claim, store: DatasetStore, points: Points, mixture: GaussianMixture
) -> dict[str, Any] | None:
    if claim.gold is None or claim.components_sha256 is None:
        return None
    names = ("weights", "means", "covariances", "covariance_type", "standard_deviations", "correlations")
    gold = GaussianMixture.from_parameters(**{name: claim.gold[name] for name in names if name in claim.gold})
    components = store.open(claim.components_sha256).columns()[0]
    return recover(gold, mixture, points, torch.from_numpy(components), seed=claim.request["seed"])
