"""Data on which other libraries fail: an answer or a clear refusal, never NaN."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from service.mixture import COVARIANCE_TYPES, FitOptions, InvalidFit, fit


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


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical", "VEE", "VVE", "EEV"])
@pytest.mark.parametrize("optimizer", ["auto", "lbfgs"])
@pytest.mark.parametrize("case", HARD)
def test_hard_data_get_an_answer_or_a_clear_refusal(case, optimizer, covariance_type):
    points, n_components = HARD[case]
    points = points if points is not None else normal(2, 1)
    options = FitOptions((n_components,), (covariance_type,), optimizer={"name": optimizer}, max_steps=150)
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
