"""Which restarts go on, which share an end, and what is told of those left behind."""

from __future__ import annotations

import pytest
import torch

from service.mixture import FitOptions, fit
from service.mixture.families import FAMILIES
from service.mixture.standardization import standardize
from service.mixture.starts import clustered_start, restart_generator
from tests.mixture.problems import gold_mixture, gold_points, reference_figures

FAITHFUL = next(figure for figure in reference_figures() if figure["dataset"] == "faithful")["points"]


def test_restarts_that_begin_alike_run_as_one_and_share_its_end():
    start = {"method": "mixture", "mixture": gold_mixture()}
    points = gold_points()
    alone = fit(points, FitOptions((3,), initialization=start, n_init=1))
    together = fit(points, FitOptions((3,), initialization=start, n_init=8))
    assert torch.equal(alone.mixture.covariances, together.mixture.covariances)
    assert [optimum["hits"] for optimum in together.result["optima"]] == [8]
    assert together.result["n_passes"] == alone.result["n_passes"]


def test_every_restart_is_told_of_and_those_left_behind_are_no_better():
    optima = fit(FAITHFUL, FitOptions((3,))).result["optima"]
    assert sum(optimum["hits"] for optimum in optima) == 8
    best, *others = optima
    left = [optimum for optimum in others if optimum["outcome"] == "left_behind"]
    assert best["outcome"] == "converged"
    assert left
    assert all(optimum["mean_log_likelihood"] < best["mean_log_likelihood"] for optimum in left)


def test_restarts_left_behind_have_their_turn_when_all_others_turn_out_spurious(monkeypatch):
    first = fit(FAITHFUL, FitOptions((3,), seed=3)).result["optima"][0]
    floor = 1.1 * first["smallest_eigenvalue"]
    monkeypatch.setattr("service.mixture.stages.SMALLEST_FLOOR", floor)
    report = fit(FAITHFUL, FitOptions((3,), seed=3))
    optima = report.result["optima"]
    assert report.outcome == "converged"
    assert not optima[0]["spurious"]
    assert optima[0]["smallest_eigenvalue"] > floor
    assert optima[0]["mean_log_likelihood"] < first["mean_log_likelihood"]
    assert any(optimum["spurious"] for optimum in optima)
    assert not any(optimum["outcome"] == "left_behind" for optimum in optima)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_a_screened_start_is_the_same_whatever_is_screened_beside_it(covariance_type):
    family = FAMILIES[covariance_type]
    data = standardize(
        gold_points(500), None, common_scale=family.common_scale, dtype=torch.float64, device="cpu"
    )

    def means(n_restarts: int) -> torch.Tensor:
        generators = [restart_generator(0, restart) for restart in range(n_restarts)]
        return clustered_start(data, family, 4, generators, (10, 0, 0, 0)).components.means

    few, many = means(2), means(9)
    torch.testing.assert_close(few, many[:2], rtol=0, atol=1e-9)
