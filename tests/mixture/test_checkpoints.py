from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from service.mixture import FitOptions, FitReport, InvalidFit, Progress, centred, fit
from service.mixture.components import Components
from service.mixture.feature_sums import FeatureSums
from service.mixture.features import PairFeatures
from service.mixture.journal import Entry
from service.mixture.midway import Midway, Sums
from service.mixture.pieces import Pieces, Step
from service.mixture.statistics import Statistics, StatisticsPass
from tests.mixture.problems import gold_points

SGD = {"name": "sgd", "batch_size": 37}


def checkpoints_of(options: FitOptions, **more: Any) -> tuple[FitReport, list[bytes]]:
    """The report, and the checkpoint before every single step."""
    written: list[bytes] = []
    report = fit(gold_points(300), options, checkpoint=written.append, checkpoint_seconds=0.0, **more)
    return report, written


def same(one: FitReport, other: FitReport) -> None:
    assert one.mixture is not None
    assert other.mixture is not None
    assert torch.equal(one.mixture.weights, other.mixture.weights)
    assert torch.equal(one.mixture.means, other.mixture.means)
    assert torch.equal(one.mixture.covariances, other.mixture.covariances)
    assert {**one.result, "elapsed_seconds": 0} == {**other.result, "elapsed_seconds": 0}


@pytest.mark.parametrize(
    "optimizer",
    [{"name": "em"}, {"name": "lbfgs"}, {"name": "sgd"}, {"name": "adam"}, SGD, {**SGD, "name": "adam"}],
)
def test_a_fit_resumed_anywhere_gives_the_same_numbers(optimizer):
    options = FitOptions((2, 3), ("full", "diag"), optimizer=optimizer, n_init=3, max_steps=40)
    report, written = checkpoints_of(options)
    assert len(written) > 10
    for place in (0, 1, len(written) // 3, 2 * len(written) // 3, len(written) - 1):
        resumed = fit(gold_points(300), options, resume=written[place])
        same(resumed, report)


@pytest.mark.parametrize("optimizer", [{"name": "em"}, {"name": "sgd"}, SGD])
def test_a_fit_released_at_any_step_goes_on_to_the_same_numbers(optimizer, monkeypatch):
    monkeypatch.setattr("service.mixture.stages.SAMPLE_POINTS", 50)
    monkeypatch.setattr("service.mixture.stages.SAMPLE_POINTS_PER_PARAMETER", 1)
    options = FitOptions((2, 3), optimizer=optimizer, n_init=3, max_steps=25)
    undisturbed = fit(gold_points(300), options)
    states: list[bytes] = []
    n_steps = n_releases = 0
    while True:
        due = n_steps + 2

        def watch(_: Progress, due: int = due) -> str | None:
            nonlocal n_steps
            n_steps += 1
            return "released" if n_steps >= due else None

        n_written, resume = len(states), states[-1] if states else None
        report = fit(
            gold_points(300),
            options,
            watch=watch,
            checkpoint=states.append,
            checkpoint_seconds=3600.0,
            resume=resume,
        )
        if report.outcome != "released":
            break
        n_releases += 1
        # One each, or two where a loop came to its end at that step; never for want of time.
        assert len(states) - n_written in (1, 2)
        assert report.mixture is None
    assert n_releases > 3
    same(report, undisturbed)


@pytest.mark.parametrize("asked", ["cancelled", "timed_out"])
def test_a_fit_that_is_not_to_go_on_writes_no_checkpoint(asked):
    written: list[bytes] = []
    report = fit(
        gold_points(300),
        FitOptions((3,)),
        watch=lambda _: asked,
        checkpoint=written.append,
        checkpoint_seconds=3600.0,
    )
    assert (report.outcome, written) == (asked, [])


def test_a_checkpoint_of_minibatches_does_not_grow_with_the_points():
    sizes = []
    for n_samples in (300, 3000):
        written: list[bytes] = []
        options = FitOptions((3,), optimizer=SGD, n_init=2, max_steps=3)
        fit(gold_points(n_samples), options, checkpoint=written.append, checkpoint_seconds=0.0)
        sizes.append(len(written[-1]))
    assert abs(sizes[1] - sizes[0]) < 300 * 8  # an order of the points alone has ten times as much more


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_a_checkpoint_of_em_keeps_symmetric_matrices_once(covariance_type):
    points = torch.randn(40, 600, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    options = FitOptions((3,), (covariance_type,), optimizer={"name": "em"}, n_init=2, max_steps=14)
    written: list[bytes] = []
    report = fit(points, options, checkpoint=written.append, checkpoint_seconds=0.0)
    of_steps = [checkpoint for checkpoint in written if b"running:state:" in checkpoint]
    with np.load(io.BytesIO(of_steps[-1]), allow_pickle=False) as archive:
        running = {name: archive[name] for name in archive.files if name.startswith("running:state:")}
    kept = [name for name in running if name.endswith(":packed")]
    assert len(kept) == 6
    n_matrices = 1 if covariance_type == "tied" else 3
    assert {running[name].shape[-1] for name in kept} == {3 * 41 + n_matrices * 820}
    same(fit(points, options, resume=of_steps[-3]), report)


def test_a_resumed_fit_does_not_do_its_steps_again():
    options = FitOptions(
        (3,),
        optimizer={"name": "sgd"},
        initialization={"method": "random"},
        n_init=2,
        max_steps=30,
        tolerance=0,
    )
    _, written = checkpoints_of(options)
    steps: list[int] = []

    def note(progress: Progress) -> None:
        steps.append(progress.step)

    fit(gold_points(300), options, resume=written[20], watch=note)
    assert steps == list(range(21, 31))


def test_both_stages_of_a_large_fit_resume(monkeypatch):
    monkeypatch.setattr("service.mixture.stages.SAMPLE_POINTS", 50)
    monkeypatch.setattr("service.mixture.stages.SAMPLE_POINTS_PER_PARAMETER", 1)
    options = FitOptions((3,), n_init=4)
    report, written = checkpoints_of(options)
    assert report.result["n_passes"] < report.result["n_steps"]
    for checkpoint in written:
        same(fit(gold_points(300), options, resume=checkpoint), report)


def test_a_checkpoint_is_plain_arrays_and_counts_the_time_before():
    options = FitOptions((3,), n_init=2)
    report, written = checkpoints_of(options)
    with np.load(io.BytesIO(written[-1]), allow_pickle=False) as archive:
        assert all(archive[name].dtype != object for name in archive.files)
    resumed = fit(gold_points(300), options, resume=written[-1])
    assert resumed.result["elapsed_seconds"] > 0
    assert report.result["elapsed_seconds"] > 0


def test_checkpoints_are_not_written_more_often_than_asked():
    written: list[bytes] = []
    fit(gold_points(300), FitOptions((3,)), checkpoint=written.append, checkpoint_seconds=3600.0)
    assert written == []


@pytest.mark.parametrize("resume", [b"", b"nonsense", b"PK\x03\x04 torn"])
def test_bytes_that_are_no_checkpoint_are_refused(resume):
    with pytest.raises(InvalidFit, match="no checkpoint") as caught:
        fit(gold_points(300), FitOptions((3,)), resume=resume)
    assert caught.value.path == ("resume",)


def test_a_checkpoint_of_another_fit_is_refused():
    _, written = checkpoints_of(FitOptions((3,), n_init=2))
    with pytest.raises(InvalidFit, match="another fit"):
        fit(gold_points(300), FitOptions((3,), n_init=2, seed=1), resume=written[0])
    with pytest.raises(InvalidFit, match="another fit"):
        fit(gold_points(301), FitOptions((3,), n_init=2), resume=written[0])


def journalled_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the search for starts fall into more pieces than so few points would."""
    monkeypatch.setattr("service.mixture.kmeans.CHUNK_NUMBERS", 2 * 3 * 300)
    monkeypatch.setattr("service.mixture.kmeans.PIECE_WORK", 2 * 3 * 2 * 300)
    monkeypatch.setattr("service.mixture.screening.PIECE_WORK", 2 * 3 * 6 * 300)


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the steps of every kind of work that a fit does."""
    done: Counter[str] = Counter()
    result = Pieces.result

    def counting(self: Pieces, name: str, begin: Callable[[], Entry], step: Step, n_steps: int) -> Entry:
        def noted(state: Entry, n_before: int) -> tuple[Entry, bool]:
            done[name.split()[0]] += 1
            return step(state, n_before)

        return result(self, name, begin, noted, n_steps)

    monkeypatch.setattr(Pieces, "result", counting)
    return done


@pytest.mark.parametrize("method", ["kmeans++", "kmeans"])
def test_a_fit_lost_while_it_seeks_its_starts_loses_one_piece_of_that_work(method, monkeypatch):
    journalled_starts(monkeypatch)
    options = FitOptions((3,), n_init=5, initialization={"method": method}, max_steps=2)
    done = counted(monkeypatch)
    report, written = checkpoints_of(options)
    in_all = Counter(done)
    assert min(in_all[kind] for kind in ("spread", "lloyd", "clusters", "climb")) > 1
    for place in range(0, in_all.total(), 3):
        done.clear()
        same(fit(gold_points(300), options, resume=written[place]), report)
        assert done.total() == in_all.total() - place


def test_a_fit_released_while_it_seeks_its_starts_goes_on_from_there(monkeypatch):
    journalled_starts(monkeypatch)
    options = FitOptions((3,), n_init=3, max_steps=2)
    done = counted(monkeypatch)
    undisturbed = fit(gold_points(300), options)
    in_all = done.total()
    done.clear()
    written: list[bytes] = []
    outcomes = []
    for due in range(0, 2 * in_all, 2):
        report = fit(
            gold_points(300),
            options,
            ask=lambda due=due: "released" if done.total() >= due else None,
            checkpoint=written.append,
            checkpoint_seconds=3600.0,
            resume=written[-1] if written else None,
        )
        outcomes.append(report.outcome)
        if report.outcome != "released":
            break
        assert report.mixture is None
    assert len(outcomes) > 10
    assert len(written) == len(outcomes) - 1
    assert done.total() == in_all
    same(report, undisturbed)


@pytest.mark.parametrize("asked", ["cancelled", "timed_out"])
def test_a_fit_told_to_end_before_its_first_step_does(asked):
    written: list[bytes] = []
    report = fit(
        gold_points(300),
        FitOptions((3,)),
        ask=lambda: asked,
        checkpoint=written.append,
        checkpoint_seconds=0.0,
    )
    assert (report.outcome, report.mixture, written) == (asked, None, [])


def test_what_is_kept_of_a_finished_candidate_are_its_optima(monkeypatch):
    options = FitOptions((2, 3), n_init=4, max_steps=5)
    report, written = checkpoints_of(options)
    passes = []
    original = StatisticsPass.__call__

    def noted(self: StatisticsPass, components: Components) -> Statistics:
        passes.append(components.means.shape[1])
        return original(self, components)

    monkeypatch.setattr(StatisticsPass, "__call__", noted)
    of_steps = [checkpoint for checkpoint in written if b"running:state:" in checkpoint]
    same(fit(gold_points(300), options, resume=of_steps[-1]), report)
    assert set(passes) == {3}  # none for the first candidate any more


def one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes no two slices at a time, or another would have been gone through but not yet kept."""
    monkeypatch.setattr("service.mixture.midway.run_parallel", lambda task, n: [task(i) for i in range(n)])


def in_slices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cuts a pass over 300 points into five slices; returns the places of those that are gone through."""
    for name, value in {"KEPT_FEATURES_BYTES": 0, "CHUNK_BYTES": 1, "SMALLEST_CHUNK": 64}.items():
        monkeypatch.setattr(f"service.mixture.feature_sums.{name}", value)
    done: list[int] = []
    slice_ = FeatureSums._slice

    def noted(self: FeatureSums, theta: torch.Tensor, starts: range, width: int, alone: bool) -> Sums:
        done.append(starts[0])
        return slice_(self, theta, starts, width, alone)

    monkeypatch.setattr(FeatureSums, "_slice", noted)
    one_after_the_other(monkeypatch)
    return done


@pytest.mark.parametrize("optimizer", ["em", "lbfgs"])
def test_a_fit_lost_in_the_middle_of_a_pass_loses_one_slice_of_it(optimizer, monkeypatch):
    done = in_slices(monkeypatch)
    options = FitOptions((3,), optimizer={"name": optimizer}, n_init=2, max_steps=4)
    lost_in_the_middle(options, done, b"midway:features:theta")


def lost_in_the_middle(options: FitOptions, done: list[int], kept: bytes) -> None:
    """Resumes a fit from checkpoints that keep sums of some slices; none of those is gone through again."""
    written: list[tuple[int, bytes]] = []

    def keep(checkpoint: bytes) -> None:
        written.append((len(done), checkpoint))

    report = fit(gold_points(300), options, checkpoint=keep, checkpoint_seconds=0.0)
    in_all = len(done)
    middle = [(n_before, checkpoint) for n_before, checkpoint in written if kept in checkpoint]
    assert len(middle) > 10
    for n_before, checkpoint in middle[:: max(1, len(middle) // 12)]:
        done.clear()
        same(fit(gold_points(300), options, resume=checkpoint), report)
        assert len(done) == in_all - n_before


def test_a_fit_lost_in_the_middle_of_a_centred_pass_loses_one_slice_of_it(monkeypatch):
    done = []
    sums = centred._Form.sums

    def noted(self: centred._Form, starts: range) -> Sums:
        done.append(starts[0])
        return sums(self, starts)

    monkeypatch.setattr(centred._Form, "sums", noted)
    one_after_the_other(monkeypatch)
    monkeypatch.setattr(centred, "CHUNK_NUMBERS", 30 * 2 * 3 * 2)
    magnitude = PairFeatures.magnitude  # beyond any bound, so that nothing is left to features
    monkeypatch.setattr(PairFeatures, "magnitude", lambda *given: magnitude(*given) * float("inf"))
    options = FitOptions((3,), optimizer={"name": "em"}, n_init=2, max_steps=4)
    lost_in_the_middle(options, done, b"midway:centred:theta")


def test_slices_that_others_points_would_give_are_not_taken_for_ones_own(monkeypatch):
    in_slices(monkeypatch)
    sums, theta = [], torch.zeros(1, 2, 6, dtype=torch.float64)
    for n_samples in (300, 360):
        passes = FeatureSums(gold_points(n_samples), None, PairFeatures(2, torch.device("cpu")))
        entries: list[Entry] = []

        def keep(entries: list[Entry] = entries, midway: Midway = passes.midway) -> None:
            entries.append(midway.entry())

        with passes.midway.offering(keep):
            sums.append(passes(theta))
        resumed = FeatureSums(gold_points(300), None, PairFeatures(2, torch.device("cpu")))
        resumed.midway.resume(entries[-1], torch.device("cpu"))
        with resumed.midway.offering(lambda: None):
            again = resumed(theta)
        assert torch.equal(again[1], sums[0][1])
