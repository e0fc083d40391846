"""Data on which other libraries fail: an answer or a clear refusal, never NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from service.mixture import COVARIANCE_TYPES, FitOptions, InvalidFit, fit
from tests.mixture.problems import gold_points, random_mixture, reference_figures


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_constant_feature_is_refused(covariance_type):
    points = torch.cat([normal(1, 50), torch.full((1, 50), 3.3)])
    with pytest.raises(InvalidFit, match="feature 1 is constant"):
        fit(points, FitOptions((2,), (covariance_type,)))


HARD = {
    "K = N": (normal(2, 5), 5),
    "N < D": (normal(9, 6), 2),
    "one point": (None, 1),
    "two distinct points": (torch.tensor([[0.0, 1.0], [0.0, 1.0]]).repeat(1, 20).double(), 3),
    "many duplicates": (normal(2, 4).repeat(1, 25), 3),
    "a tiny and a huge scale": (normal(2, 100) * torch.tensor([[1e-8], [1e8]]).double() + 1e-9, 3),
    "far from the origin": (normal(2, 100) + 1e7, 2),
    "collinear": (normal(1, 100).repeat(2, 1), 2),
}


def attempts() -> Iterator[tuple[str, str, str, str]]:
    """Every family as it is asked for, the common ones also by another optimiser and in float32."""
    for case in HARD:
        for covariance_type in COVARIANCE_TYPES:
            yield case, covariance_type, "auto", "float64"
        for covariance_type in ("full", "diag", "VEE"):
            yield case, covariance_type, "lbfgs", "float64"
            yield case, covariance_type, "auto", "float32"


@pytest.mark.parametrize(("case", "covariance_type", "optimizer", "dtype"), list(attempts()))
def test_hard_data_get_an_answer_or_a_clear_refusal(case, covariance_type, optimizer, dtype):
    points, n_components = HARD[case]
    points = points if points is not None else normal(2, 1)
    options = FitOptions(
        (n_components,),
        (covariance_type,),
        optimizer={"name": optimizer},
        n_init=4,
        max_steps=100,
        dtype=dtype,
    )
    if case == "one point":
        with pytest.raises(InvalidFit, match="constant"):
            fit(points, options)
        return
    report = fit(points, options)
    json.dumps(report.result, allow_nan=False)
    assert report.message
    if report.mixture is not None:
        for numbers in (report.mixture.weights, report.mixture.means, report.mixture.covariances):
            assert torch.isfinite(numbers).all()
        assert math.isfinite(report.result["log_likelihood"])
        density = report.mixture.log_density(points.T.contiguous())
        assert float(density.sum()) == pytest.approx(report.result["log_likelihood"])


def test_when_everything_collapses_the_message_says_what_to_change():
    points = normal(2, 4).repeat(1, 25)
    report = fit(points, FitOptions((3,), regularization=0.0))
    assert report.outcome == "collapsed"
    assert report.mixture is None
    assert "raise regularization" in report.message
    assert sum(optimum["hits"] for optimum in report.result["optima"]) == 8


def test_a_spurious_optimum_is_marked_and_does_not_win():
    # Thirty points on one spot beside an honest cloud: a component there has no bound but the regularisation.
    points = torch.cat([normal(2, 200), torch.full((2, 30), 3.0).double()], dim=1)
    alone = fit(points, FitOptions((2,)))
    assert alone.result["optima"][0]["spurious"]
    assert "regularisation floor" in alone.message
    report = fit(points, FitOptions((1, 2)))
    assert report.result["n_components"] == 1
    assert report.result["candidates"][1]["optima"][0]["spurious"]


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_a_scale_of_all_features_changes_the_likelihood_by_no_more_than_its_logarithm(scale, covariance_type):
    options = FitOptions((2,), (covariance_type,), n_init=2)
    points = gold_points(200)
    plain, scaled = (fit(x, options).result["mean_log_likelihood"] for x in (points, scale * points))
    assert scaled == pytest.approx(plain - 2 * math.log(scale), abs=1e-7)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical", "VEE"])
def test_float32_fits_points_ten_million_deviations_from_the_origin(covariance_type):
    points = 1e4 + 1e-3 * gold_points()
    wide = fit(points, FitOptions((3,), (covariance_type,), n_init=4))
    narrow = fit(points, FitOptions((3,), (covariance_type,), n_init=4, dtype="float32"))
    assert narrow.outcome == "converged"
    assert narrow.result["mean_log_likelihood"] == pytest.approx(wide.result["mean_log_likelihood"], abs=1e-5)


def test_float32_fits_a_component_a_thousand_times_as_narrow_as_another():
    points = torch.cat([2 + 1e-2 * normal(2, 500), 3 * normal(2, 500, seed=1)], dim=1)
    wide, narrow = (fit(points, FitOptions((2,), n_init=2, dtype=d)) for d in ("float64", "float32"))
    assert narrow.result["mean_log_likelihood"] == pytest.approx(wide.result["mean_log_likelihood"], abs=1e-5)
    assert not narrow.result["optima"][0]["spurious"]


def test_float32_fits_many_features():
    mixture = random_mixture(8, 32, seed=0)
    points = mixture.sample(2000, 0)[0].T.contiguous()
    start = {"method": "mixture", "mixture": mixture}
    wide, narrow = (
        fit(points, FitOptions((8,), n_init=1, initialization=start, dtype=d)) for d in ("float64", "float32")
    )
    assert narrow.outcome == "converged"
    assert narrow.result["mean_log_likelihood"] == pytest.approx(wide.result["mean_log_likelihood"], abs=1e-4)


def test_float32_points_a_few_of_their_last_places_apart_are_not_constant():
    points = (1e4 + 1e-2 * gold_points()).float()
    assert len(points[1].unique()) < 60
    expected = fit(points.double(), FitOptions((3,), n_init=2)).result["mean_log_likelihood"]
    for dtype in ("float64", "float32"):
        report = fit(points, FitOptions((3,), n_init=2, dtype=dtype))
        assert report.result["mean_log_likelihood"] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(InvalidFit, match="feature 1 is constant"):
        fit(torch.stack([points[0], torch.full((1000,), 3.3)]), FitOptions((2,)))


def test_an_honest_restart_wins_over_likelier_spurious_ones():
    # Iris in three full components: restarts that shrink onto a few points reach a higher likelihood.
    figures = (f for f in reference_figures() if f["dataset"] == "iris")
    points = next(figures)["points"]
    optima = fit(points, FitOptions((3,), n_init=24, initialization={"method": "random"})).result["optima"]
    spurious = [o["mean_log_likelihood"] for o in optima if o["spurious"]]
    honest = [o["mean_log_likelihood"] for o in optima if o["outcome"] == "converged" and not o["spurious"]]
    assert spurious
    assert max(spurious) > max(honest)
    assert optima[0]["mean_log_likelihood"] == max(honest)
    assert sum(o["hits"] for o in optima) == 24
