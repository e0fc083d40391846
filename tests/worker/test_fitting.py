"""One fit without a database: what its stored request becomes, and how it may end."""

import errno
import re
import sys
from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch

from service.mixture import GaussianMixture, InvalidFit, Progress
from service.mixture.options import DTYPES
from service.storage.dataset_store import DatasetStore
from service.storage.queue import Claim
from service.worker import fitting
from service.worker.messages import Ended, Failed, Start, Stopped, Succeeded
from tests.storage.making import stored_request, written

DATASET_ID = "dat_" + "0" * 26
POINTS = np.random.default_rng(0).normal([0.0, 5.0], [1.0, 2.0], (60, 2))


def _stored(store: DatasetStore, rows: Any) -> str:
    with store.draft(np.shape(rows)[1]) as draft:
        store.publish(written(draft, rows))
        return draft.sha256


def _claim(store: DatasetStore, points: Any = POINTS, weights: Any = None, **fields: Any) -> Claim:
    return Claim(
        fit_id="fit",
        owner="local",
        token="tok",
        attempt=1,
        request=stored_request(DATASET_ID, **fields),
        timeout_seconds=None,
        weights_sha256=None if weights is None else _stored(store, np.array(weights)[:, None]),
        dataset_sha256=_stored(store, points),
        components_sha256=None,
        gold=None,
        columns=None,
        n_samples=len(points),
        n_features=len(points[0]),
    )


def _go_on(_: Progress) -> None:
    return None


def _run(
    claim: Claim,
    store: DatasetStore,
    watch: fitting.Watch = _go_on,
    checkpoints: Any = None,
    resume: bytes | None = None,
) -> Ended:
    """Returns how the fit ended, every step a checkpoint when they are collected."""
    keep = (lambda _: None) if checkpoints is None else checkpoints.append
    seconds = 1e9 if checkpoints is None else 0.0
    return fitting.run(Start(claim, seconds, resume), store, "cpu", watch, keep)


def test_a_fit_of_one_component_has_the_points_moments(store: DatasetStore) -> None:
    ended = _run(_claim(store, regularization=0, n_init=1), store)
    assert isinstance(ended, Succeeded)
    np.testing.assert_allclose(ended.parameters["means"], [POINTS.mean(axis=0)], atol=1e-6)
    np.testing.assert_allclose(ended.parameters["covariances"], [np.cov(POINTS.T, bias=True)], atol=1e-5)
    for name in ("weights", "means", "covariances"):
        np.testing.assert_array_equal(ended.result["mixture"][name], ended.parameters[name])
    assert ended.result["recovery"] is None


def test_weights_say_how_often_a_point_counts(store: DatasetStore) -> None:
    weights = np.arange(60) % 3
    weighted = _run(_claim(store, weights=weights * 1.0, n_init=1), store)
    repeated = _run(_claim(store, np.repeat(POINTS, weights, axis=0), n_init=1), store)
    assert isinstance(weighted, Succeeded)
    assert isinstance(repeated, Succeeded)
    np.testing.assert_allclose(weighted.parameters["means"], repeated.parameters["means"], atol=1e-6)
    assert weighted.result["log_likelihood"] == pytest.approx(repeated.result["log_likelihood"], rel=1e-6)


def test_a_fit_stops_when_it_is_told(store: DatasetStore) -> None:
    steps = []

    def stop_at_third(progress: Progress) -> str | None:
        steps.append(progress.step)
        return "cancelled" if len(steps) == 3 else None

    claim = _claim(store, tolerance=0, max_steps=1000, n_init=2, n_components=2)
    assert _run(claim, store, stop_at_third) == Stopped()
    assert steps == [1, 2, 3]


def test_a_fit_goes_on_from_its_checkpoint_to_the_same_numbers(store: DatasetStore) -> None:
    sgd = {"name": "sgd", "batch_size": 10}
    claim = _claim(store, n_components=2, n_init=2, tolerance=0, max_steps=60, optimizer=sgd)
    undisturbed = _run(claim, store)
    checkpoints: list[bytes] = []
    _run(claim, store, lambda progress: "cancelled" if progress.step == 40 else None, checkpoints)
    steps: list[int] = []
    resumed = _run(claim, store, lambda p: steps.append(p.step), resume=checkpoints[-1])
    assert isinstance(undisturbed, Succeeded)
    assert isinstance(resumed, Succeeded)
    assert min(steps) > 30
    for name in ("weights", "means", "covariances"):
        np.testing.assert_array_equal(resumed.parameters[name], undisturbed.parameters[name])


@pytest.mark.parametrize(
    "damage", [lambda _: b"", lambda _: b"nonsense", lambda whole: whole[: len(whole) // 2]]
)
def test_a_checkpoint_of_no_use_is_left_aside(store: DatasetStore, damage: Any) -> None:
    claim = _claim(store, n_components=2, n_init=1, max_steps=20)
    checkpoints: list[bytes] = []
    undisturbed = _run(claim, store, checkpoints=checkpoints)
    begun_anew = _run(claim, store, resume=damage(checkpoints[0]))
    assert isinstance(undisturbed, Succeeded)
    assert isinstance(begun_anew, Succeeded)
    np.testing.assert_array_equal(begun_anew.parameters["means"], undisturbed.parameters["means"])


def test_a_fit_begins_where_it_is_told(store: DatasetStore) -> None:
    given = {
        "weights": [0.25, 0.75],
        "means": [[0.0, 5.0], [1.0, 4.0]],
        "covariances": [[1.0, 2.0], [3.0, 4.0]],
        "covariance_type": "diag",
    }
    start = {"method": "mixture", "mixture": given}
    request = stored_request(DATASET_ID, n_components=2, covariance_type="diag")
    options = fitting.options_of(request | {"initialization": start})
    mixture = options.initialization["mixture"]
    assert isinstance(mixture, GaussianMixture)
    for name in ("weights", "means", "covariances"):
        assert (
            getattr(mixture, name).sort(0).values.tolist()
            == torch.tensor(given[name]).sort(0).values.tolist()
        )


def test_every_field_of_a_request_reaches_the_fit() -> None:
    fields = {
        "n_components": [2, 3],
        "covariance_type": ["full", "diag"],
        "optimizer": {"name": "sgd", "learning_rate": 0.5, "momentum": 0.25, "batch_size": 7},
        "n_init": 4,
        "tolerance": 1e-3,
        "max_steps": 17,
        "regularization": 1e-2,
        "selection": {"criterion": "held_out", "fraction": 0.25},
        "seed": 99,
        "dtype": "float32",
    }
    options = fitting.options_of(stored_request(DATASET_ID, **fields))
    assert (options.n_components, options.covariance_type) == ((2, 3), ("full", "diag"))
    assert dict(options.optimizer) == fields["optimizer"]
    assert (options.criterion, options.held_out_fraction) == ("held_out", 0.25)
    for name in ("n_init", "tolerance", "max_steps", "regularization", "seed", "dtype"):
        assert getattr(options, name) == fields[name]
    assert fitting.options_of(stored_request(DATASET_ID)).n_components == (1,)


def _too_much_for_a_cpu(*_: Any, **__: Any) -> None:
    torch.empty(1 << 50, dtype=torch.float64)


def _too_much_for_python(*_: Any, **__: Any) -> None:
    raise MemoryError


def _too_much_for_a_gpu(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("fit", [_too_much_for_a_cpu, _too_much_for_python, _too_much_for_a_gpu])
def test_memory_that_does_not_suffice_is_said_so(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch, fit: Any
) -> None:
    monkeypatch.setattr(fitting, "fit", fit)
    ended = _run(_claim(store), store)
    assert isinstance(ended, Failed)
    assert ended.code == "OUT_OF_MEMORY"


def test_points_that_do_not_fit_into_memory_are_said_so(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "open", _too_much_for_python)
    ended = _run(_claim(store), store)
    assert isinstance(ended, Failed)
    assert ended.code == "OUT_OF_MEMORY"


SMALL = {"n_components": 2, "n_init": 2, "max_steps": 5}
STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "looking at the points": ("fit:extremes", {}),
    "standardising": ("fit:standardize", {}),
    "centres": ("starts:spread_centres", {}),
    "screening": ("starts:screened", {}),
    "small products": ("small_sums:SmallSums.__call__", {}),
    "products": ("feature_sums:FeatureSums._by_slices", {}),
    "centred form": ("statistics:centred_sums", {}),
    "minibatch": (
        "statistics:StatisticsPass.minibatch",
        {"optimizer": {"name": "sgd", "batch_size": 10}},
    ),
    "line search": ("optimizers.lbfgs:LimitedMemoryBfgs.step", {"optimizer": {"name": "lbfgs"}}),
    "report": ("report:Table.report", {}),
}


@pytest.mark.parametrize(("place", "fields"), STAGES.values(), ids=STAGES)
def test_memory_that_ends_in_any_stage_is_said_so(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch, place: str, fields: dict[str, Any]
) -> None:
    reached = []

    def too_much(*_: Any, **__: Any) -> None:
        reached.append(place)
        _too_much_for_a_cpu()

    if "centred" in place:
        monkeypatch.setattr("service.mixture.statistics.ERROR_BOUND", dict.fromkeys(DTYPES.values(), -1.0))
        fields = {"tolerance": 0}
    if "_by_slices" in place:
        monkeypatch.setattr("service.mixture.feature_sums.SMALL_NUMBERS", 0)
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    monkeypatch.setattr(reduce(getattr, owners, sys.modules[f"service.mixture.{module}"]), name, too_much)
    ended = _run(_claim(store, **SMALL, **fields), store)
    assert reached
    assert isinstance(ended, Failed)
    assert ended.code == "OUT_OF_MEMORY"
    assert re.search(r"needs about \d{6,} bytes", ended.message)


def test_a_file_that_cannot_be_mapped_for_want_of_memory_is_said_so(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(store, "open", no_room)
    ended = _run(_claim(store), store)
    assert isinstance(ended, Failed)
    assert ended.code == "OUT_OF_MEMORY"


def test_other_errors_pass_through(store: DatasetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(fitting, "fit", break_down)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        _run(_claim(store), store)


def test_what_cannot_be_fitted_is_said_so(store: DatasetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise InvalidFit("points must be finite", ("dataset",))

    monkeypatch.setattr(fitting, "fit", refuse)
    assert _run(_claim(store), store) == Failed("INVALID_FIT", "points must be finite")
