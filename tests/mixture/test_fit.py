from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from service.mixture import COVARIANCE_TYPES, FitOptions, GaussianMixture, InvalidFit, Progress, fit
from service.mixture.candidates import run_candidate
from service.mixture.families import FAMILIES
from service.mixture.standardization import standardize
from tests.mixture.problems import gold_mixture, gold_points, reference_figures

FIGURES = reference_figures()


def refit(options: FitOptions, **changes: Any) -> FitOptions:
    return FitOptions(**{**vars(options), **changes})


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "figure", FIGURES, ids=[f"{f['dataset']}-{f['covariance_type']}-{f['n_components']}" for f in FIGURES]
)
def test_published_figures_are_reached_with_default_settings(figure):
    options = FitOptions((figure["n_components"],), (figure["covariance_type"],))
    report = fit(figure["points"], options)
    assert report.outcome == "converged"
    assert report.result["log_likelihood"] >= figure["reach_log_likelihood"] - 1e-3
    assert report.result["n_parameters"] == figure["n_parameters"]
    assert not report.result["optima"][0]["spurious"]
    assert report.result["bic"] == pytest.approx(
        figure["n_parameters"] * math.log(figure["points"].shape[1]) - 2 * report.result["log_likelihood"]
    )


@pytest.mark.parametrize("optimizer", ["em", "lbfgs"])
def test_the_reported_log_likelihood_is_of_the_returned_mixture(optimizer):
    points = gold_points()
    report = fit(points, FitOptions((3,), optimizer={"name": optimizer}))
    assert report.mixture is not None
    expected = float(report.mixture.log_density(points.T.contiguous()).sum())
    assert report.result["log_likelihood"] == pytest.approx(expected, rel=1e-13)
    assert report.result["mean_log_likelihood"] == pytest.approx(expected / 1000, rel=1e-13)
    best = report.result["optima"][0]["mean_log_likelihood"]
    assert best == pytest.approx(expected / 1000, abs=1e-9)
    shares = report.mixture.responsibilities(points.T)
    entropy = -float(shares.amax(1).log().sum())
    assert report.result["icl"] == pytest.approx(report.result["bic"] + 2 * entropy, rel=1e-12)
    assert report.result["aic"] == pytest.approx(2 * 17 - 2 * expected, rel=1e-12)
    assert report.mixture.weights.tolist() == sorted(report.mixture.weights.tolist(), reverse=True)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical", "VEI", "EEV", "VEE"])
@pytest.mark.parametrize("optimizer", ["em", "lbfgs"])
def test_all_optimisers_find_the_optimum_that_em_finds(covariance_type, optimizer):
    points = gold_points()
    best = fit(points, FitOptions((3,), (covariance_type,), tolerance=1e-9)).result["log_likelihood"]
    report = fit(points, FitOptions((3,), (covariance_type,), optimizer={"name": optimizer}))
    assert report.outcome == "converged"
    assert report.result["log_likelihood"] == pytest.approx(best, abs=2e-3)


def test_full_batch_em_never_lowers_the_likelihood():
    seen: list[float] = []

    def watch(progress: Progress) -> None:
        seen.extend(progress.restart_log_likelihoods.values())

    points = next(f for f in FIGURES if f["dataset"] == "iris" and f["n_components"] == 3)["points"]
    for seed in range(5):
        seen.clear()
        fit(points, FitOptions((3,), n_init=1, seed=seed, initialization={"method": "random"}), watch=watch)
        assert len(seen) > 5
        assert all(later >= earlier - 1e-7 for earlier, later in itertools.pairwise(seen))


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_an_affine_change_of_the_data_changes_the_likelihood_by_the_jacobian(covariance_type):
    points = gold_points(500)
    scale = torch.tensor(
        [[3.0], [3.0 if FAMILIES[covariance_type].common_scale else 1e-3]], dtype=torch.float64
    )
    changed = points * scale + torch.tensor([[100.0], [-2.0]], dtype=torch.float64)
    options = FitOptions((3,), (covariance_type,), tolerance=1e-9)
    before, after = (fit(x, options).result["log_likelihood"] for x in (points, changed))
    assert after == pytest.approx(before - 500 * float(scale.log().sum()), abs=1e-6)


def test_permuting_points_and_features_changes_nothing_but_order():
    points = gold_points(400)
    start = {"method": "mixture", "mixture": gold_mixture()}
    options = FitOptions((3,), initialization=start, tolerance=1e-10)
    plain = fit(points, options)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    shuffled = fit(points[:, order], options)
    gold = gold_mixture()
    turned_start = GaussianMixture(
        gold.weights.flip(0), gold.means.flip(0, 1), gold.covariances.flip(0, 1, 2), "full"
    )
    turned = fit(
        points.flip(0), refit(options, initialization={"method": "mixture", "mixture": turned_start})
    )
    for other in (shuffled, turned):
        assert other.result["log_likelihood"] == pytest.approx(plain.result["log_likelihood"], abs=1e-8)
    torch.testing.assert_close(turned.mixture.means.flip(1), plain.mixture.means, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shuffled.mixture.covariances, plain.mixture.covariances, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["em", "lbfgs"])
def test_weights_count_points(optimizer):
    points = gold_points(300)
    start = {"method": "mixture", "mixture": gold_mixture()}
    options = FitOptions((3,), initialization=start, n_init=1, optimizer={"name": optimizer}, tolerance=1e-10)
    plain = fit(points, options).result
    ones = fit(points, options, sample_weights=torch.ones(300)).result
    doubled = fit(torch.cat([points, points], dim=1), options).result
    twos = fit(points, options, sample_weights=torch.full((300,), 2.0)).result
    with_zeros = fit(
        torch.cat([points, 5 + points], dim=1),
        options,
        sample_weights=torch.cat([torch.ones(300), torch.zeros(300)]),
    ).result
    for name in ("log_likelihood", "bic", "aic", "icl"):
        assert ones[name] == pytest.approx(plain[name], rel=1e-9)
        assert with_zeros[name] == pytest.approx(plain[name], rel=1e-9)
        assert twos[name] == pytest.approx(doubled[name], rel=1e-9)
    assert twos["log_likelihood"] == pytest.approx(2 * plain["log_likelihood"], rel=1e-7)


def test_the_same_request_gives_the_same_bits_and_another_seed_other_starts():
    points = gold_points()
    options = FitOptions((4,), ("full", "diag"), n_init=4)
    first, second = fit(points, options), fit(points, options)
    assert torch.equal(first.mixture.covariances, second.mixture.covariances)
    assert {**first.result, "elapsed_seconds": 0} == {**second.result, "elapsed_seconds": 0}
    other = fit(points, refit(options, seed=1))
    assert other.result["candidates"] != first.result["candidates"]


@pytest.mark.parametrize(
    "optimizer", [{"name": "em"}, {"name": "lbfgs"}, {"name": "sgd"}, {"name": "adam", "batch_size": 100}]
)
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_a_restart_is_the_same_whatever_runs_beside_it(optimizer, covariance_type):
    data = standardize(gold_points(300), None, common_scale=False, dtype=torch.float64, device="cpu")
    options = FitOptions(
        (3,), optimizer=optimizer, n_init=1, initialization={"method": "random"}, max_steps=200
    )

    def ends(n_init: int) -> list[float]:
        candidate = run_candidate(data, 3, covariance_type, refit(options, n_init=n_init), lambda *_: None)
        return [optimum.mean_log_likelihood for optimum in candidate.optima]

    (alone,) = ends(1)
    assert min(abs(value - alone) for value in ends(6)) < 1e-9


def test_selection_lists_every_pair_and_takes_the_lowest_bic():
    report = fit(gold_points(), FitOptions((1, 2, 3, 4), ("full", "spherical"), n_init=4))
    rows = report.result["candidates"]
    pairs = [(row["n_components"], row["covariance_type"]) for row in rows]
    assert pairs == [(k, kind) for k in (1, 2, 3, 4) for kind in ("full", "spherical")]
    assert min(rows, key=lambda row: row["bic"])["bic"] == report.result["bic"]
    assert (report.result["n_components"], report.result["covariance_type"]) == (3, "full")
    json.dumps(report.result, allow_nan=False)


def test_held_out_points_are_judged_by_and_not_learned_from():
    points = gold_points()
    report = fit(points, FitOptions((1, 3), criterion="held_out", held_out_fraction=0.2, n_init=3))
    values = [row["held_out_log_likelihood"] for row in report.result["candidates"]]
    assert report.result["held_out_log_likelihood"] == max(values)
    assert report.result["n_components"] == 3
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    held_out = points[:, order[:200]].T
    expected = float(report.mixture.log_density(held_out.contiguous()).sum())
    assert report.result["held_out_log_likelihood"] == pytest.approx(expected, rel=1e-12)


def test_held_out_points_count_by_their_weights():
    points = gold_points(400)
    weights = 3 * torch.rand(400, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    options = FitOptions((3,), criterion="held_out", held_out_fraction=0.25, n_init=2)
    report = fit(points, options, sample_weights=weights)
    chosen = torch.randperm(400, generator=torch.Generator().manual_seed(0))[:100]
    expected = float(report.mixture.log_density(points[:, chosen].T.contiguous()) @ weights[chosen])
    assert report.result["held_out_log_likelihood"] == pytest.approx(expected, rel=1e-12)
    # A point without weight is in neither part.
    more = torch.cat([points, 100 + points], dim=1)
    padded = fit(more, options, sample_weights=torch.cat([weights, torch.zeros(400, dtype=torch.float64)]))
    assert padded.result["held_out_log_likelihood"] == report.result["held_out_log_likelihood"]


@pytest.mark.parametrize("criterion", ["bic", "aic", "icl", "held_out"])
def test_each_criterion_chooses_by_its_own_column_of_one_table(criterion):
    points = next(f for f in FIGURES if f["dataset"] == "iris")["points"]
    options = FitOptions((2, 3, 4), ("full", "tied", "VEI"), criterion=criterion, n_init=3)
    result = fit(points, options).result
    rows = [row for row in result["candidates"] if not row["optima"][0]["spurious"]]
    for row in result["candidates"]:
        assert all(math.isfinite(row[name]) for name in ("log_likelihood", "bic", "aic", "icl"))
        assert (row["held_out_log_likelihood"] is not None) == (criterion == "held_out")
    column = "held_out_log_likelihood" if criterion == "held_out" else criterion
    best = (max if criterion == "held_out" else min)(rows, key=lambda row: row[column])
    names = ("n_components", "covariance_type", column)
    assert [result[name] for name in names] == [best[name] for name in names]


@pytest.mark.parametrize("asked", ["cancelled", "timed_out", "released"])
def test_a_watched_fit_ends_when_asked(asked):
    seen: list[Progress] = []

    def watch(progress: Progress) -> str | None:
        seen.append(progress)
        return asked if len(seen) == 5 else None

    report = fit(gold_points(), FitOptions((6,), optimizer={"name": "sgd"}, tolerance=0), watch=watch)
    assert report.outcome == asked
    assert report.mixture is None
    assert len(seen) == 5
    assert [progress.step for progress in seen] == [1, 2, 3, 4, 5]
    assert all(len(progress.restart_log_likelihoods) == 8 for progress in seen)


def test_progress_runs_over_all_candidates():
    seen: list[Progress] = []
    fit(gold_points(200), FitOptions((2, 1), n_init=3), watch=seen.append)
    assert {progress.n_init for progress in seen} == {6}
    done = [progress.restarts_done for progress in seen]
    assert done == sorted(done)
    assert done[-1] >= 3
    best = [progress.log_likelihood for progress in seen]
    assert best == sorted(best)


BAD_FITS = [
    ({"n_components": (11,)}, None, ("n_components",), "10 points cannot hold 11"),
    ({"n_components": (0,)}, None, ("n_components",), "at least 1"),
    ({}, torch.zeros(10), ("dataset", "weights"), "all weights are zero"),
    ({}, -torch.ones(10), ("dataset", "weights"), "negative"),
    ({}, torch.ones(9), ("dataset", "weights"), "there are 10 points"),
    ({"covariance_type": ("round",)}, None, ("covariance_type",), "'round' is not one of"),
    ({"optimizer": {"name": "newton"}}, None, ("optimizer",), "not one of"),
    ({"optimizer": {"name": "em", "learning_rate": 1}}, None, ("optimizer",), "takes no learning_rate"),
    ({"n_init": 0}, None, ("n_init",), "at least 1"),
    ({"tolerance": -1.0}, None, ("tolerance",), "zero or positive"),
    (
        {"initialization": {"method": "mixture", "mixture": gold_mixture()}},
        None,
        ("initialization", "mixture"),
        "components",
    ),
]


@pytest.mark.parametrize(("changes", "weights", "path", "says"), BAD_FITS)
def test_what_cannot_be_fitted_is_refused_by_name(changes, weights, path, says):
    with pytest.raises(InvalidFit) as caught:
        fit(normal(2, 10), FitOptions(**{"n_components": (2,), **changes}), sample_weights=weights)
    assert caught.value.path == path
    assert says in str(caught.value)


def test_minibatch_progress_is_near_the_log_likelihood_of_all_points():
    points = gold_points(1000)
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)

    options = FitOptions(
        (3,),
        optimizer={"name": "sgd", "learning_rate": 0.01, "batch_size": 10},
        initialization={"method": "kmeans++"},
        n_init=2,
        tolerance=0,
        max_steps=1000,
    )
    final = fit(points, options, watch=watch).result["log_likelihood"]
    # The steps wander around the optimum, so a little lower; a single batch of ten would lie far off.
    assert seen[-1].log_likelihood == pytest.approx(final, rel=0.1)
    assert seen[-1].log_likelihood < final
    assert max(seen[-1].restart_log_likelihoods.values()) == seen[-1].log_likelihood
