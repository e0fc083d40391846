"""One fit: from a claim to its result, on one device, without a database."""

import logging
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import torch

from service.codecs.column_file import ColumnFile
from service.errors import ServiceError
from service.mixture import (
    ALONE,
    ASKED,
    BlockedPoints,
    FitOptions,
    FitReport,
    GaussianMixture,
    Group,
    InvalidFit,
    MappedBlocks,
    Points,
    Progress,
    estimate_fit_bytes,
    fit,
    in_memory,
    is_out_of_memory,
    recover,
    stays_on_disk,
)
from service.storage import datasets
from service.storage.dataset_store import DatasetStore
from service.storage.queue import Claim
from service.worker.fetching import fetched
from service.worker.messages import Ended, Failed, Start, Stopped, Succeeded

logger = logging.getLogger(__name__)
Watch = Callable[[Progress], str | None]
Keep = Callable[[bytes], None]
Ask = Callable[[], str | None]


def run(
    start: Start,
    store: DatasetStore,
    device: str,
    watch: Watch,
    keep: Keep,
    ask: Ask = lambda: None,
    group: Group = ALONE,
) -> Ended:
    """Returns how the fit ended.

    Args:
        start: The fit.
        store: Where its points are.
        device: Where to compute, by torch's name.
        watch: Called at each step; returns one of `ASKED` to stop, or None to go on.
        keep: Called now and then with a state to go on from.
        ask: Called before the first step and behind the last, again and again; answers as `watch` does.
        group: The ranks that do it together, each on its own share of the points; only rank 0 of them is
            asked by `watch` and `ask`, and has something to `keep`.
    """
    try:
        return _run(start, store, device, watch, keep, ask, group)
    except InvalidFit as error:
        return Failed("INVALID_FIT", str(error))
    except ServiceError as error:  # of points that are elsewhere: changed, gone, or no points
        return Failed(error.code, error.detail)
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        return Failed("OUT_OF_MEMORY", _too_little_memory(start.claim, device, error))


def _run(
    start: Start, store: DatasetStore, device: str, watch: Watch, keep: Keep, ask: Ask, group: Group
) -> Ended:
    claim = start.claim
    points = _points(store, claim, group)
    weights = None if claim.weights_sha256 is None else _own(store.open(claim.weights_sha256), group)
    report = _resumed(
        start,
        partial(
            fit,
            points,
            options_of(claim.request),
            sample_weights=weights,
            device="cpu" if claim.request["device"] == "cpu" else device,
            watch=watch,
            ask=ask,
            checkpoint=keep,
            checkpoint_seconds=start.checkpoint_seconds,
            group=group,
        ),
    )
    if report.outcome in ASKED:
        return Stopped()
    if report.mixture is None:
        return Failed("FIT_COLLAPSED", report.message)
    recovery = _recovery(claim, store, points, report.mixture, group)
    result = _result(claim, report, report.mixture) | {"devices": group.size, "recovery": recovery}
    return Succeeded(result, parameters_of(report.mixture))


def _points(store: DatasetStore, claim: Claim, group: Group) -> Points:
    """Returns a rank's share (D, n) of a fit's points: few of them in memory, many where they lie."""
    if claim.url is None:
        return points_of(store.open(claim.dataset_sha256), group)
    folder = datasets.folder_of(store, claim.url, claim.files or [], claim.columns or [])
    offset, n_rows = _share(folder.n_rows, group)
    points = fetched(folder, store.row_group_cache_bytes, offset, n_rows)
    return points if stays_on_disk(n_rows, folder.n_columns) else in_memory(points)


def points_of(file: ColumnFile, group: Group = ALONE) -> Points:
    """Returns a rank's share (D, n) of a dataset's points, a run of them, as long as any other's.

    Few of them are in memory, many where they lie in their mapped file, of which a rank reads its own part.
    """
    offset, n_rows = _share(file.n_rows, group)
    if not stays_on_disk(n_rows, file.n_columns):
        return torch.from_numpy(file.columns(offset, n_rows))
    layout = file.layout(offset, n_rows)
    return BlockedPoints(
        MappedBlocks(
            file.n_columns,
            torch.from_numpy(layout.numbers),
            torch.from_numpy(layout.starts),
            torch.from_numpy(layout.offsets),
            torch.from_numpy(layout.strides),
        )
    )


def _share(n_rows: int, group: Group) -> tuple[int, int]:
    """Returns the first row of a rank's share, and how many it has."""
    start, stop = (n_rows * place // group.size for place in (group.rank, group.rank + 1))
    return start, stop - start


def _own(file: ColumnFile, group: Group) -> torch.Tensor:
    """Returns what a file of one column has for a rank's share of the points (n,)."""
    return torch.from_numpy(file.columns(*_share(file.n_rows, group))[0])


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


def _result(claim: Claim, report: FitReport, mixture: GaussianMixture) -> dict[str, Any]:
    parameters = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in parameters_of(mixture).items()
    }
    asked = claim.request
    if not isinstance(asked["n_components"], list) and not isinstance(asked["covariance_type"], list):
        report.result["candidates"] = None  # there was nothing to choose from
    return {"mixture": parameters} | report.result


def _recovery(
    claim: Claim, store: DatasetStore, points: Points, mixture: GaussianMixture, group: Group
) -> dict[str, Any] | None:
    if claim.gold is None or claim.components_sha256 is None:
        return None
    names = ("weights", "means", "covariances", "covariance_type", "standard_deviations", "correlations")
    gold = GaussianMixture.from_parameters(**{name: claim.gold[name] for name in names if name in claim.gold})
    components = _own(store.open(claim.components_sha256), group)
    return recover(gold, mixture, points, components, seed=claim.request["seed"], group=group)
