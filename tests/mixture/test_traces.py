"""The log-likelihood by step of every restart: what is noted, what is left out, what comes together again."""

import itertools
import math

import pytest

from service.mixture import FitOptions, Progress, Traces, fit
from service.mixture.traces import MOST_RESTARTS, is_noted, joined
from tests.mixture.problems import gold_points


def told(step: int, values: dict[int, float], **fields: int) -> Progress:
    given = {"n_candidates": 1, "n_components": 2, "covariance_type": "full", "rehearsed": 0} | fields
    return Progress(step, 1000, 0, 8, 0.0, values, **given)


@pytest.mark.parametrize(("n_steps", "most"), [(20, 20), (1000, 110), (100_000, 200)])
def test_a_trace_stays_short_however_many_steps(n_steps: int, most: int):
    noted = [step for step in range(1, n_steps + 1) if is_noted(step)]
    assert noted[:20] == list(range(1, 21))
    assert len(noted) <= most
    gaps = [later / earlier for earlier, later in itertools.pairwise(noted[19:])]
    assert all(gap < 1.11 for gap in gaps)


def test_the_last_step_is_there_wherever_it_falls():
    traces = Traces()
    assert not is_noted(33)
    assert not is_noted(31)
    for step in range(1, 34):
        traces.add(told(step, {0: float(step), 1: -float(step)} if step < 32 else {0: float(step)}))
    first, second = joined(traces.take(last=True))
    assert (first["steps"][-1], first["log_likelihoods"][-1]) == (33, 33.0)
    assert (second["steps"][-1], second["log_likelihoods"][-1]) == (31, -31.0)


def test_parts_come_together_in_order_and_what_was_told_twice_counts_once():
    traces = Traces()
    traces.add(told(1, {0: -9.0}))
    traces.add(told(2, {0: -5.0}))
    parts = traces.take()
    resumed = Traces()
    resumed.add(told(2, {0: -5.0}))
    resumed.add(told(3, {0: -4.123456789123}))
    parts += resumed.take(last=True)
    assert joined(parts) == [
        {
            "n_components": 2,
            "covariance_type": "full",
            "restart": 0,
            "steps": [1, 2, 3],
            "log_likelihoods": [-9.0, -5.0, -4.12345679],
        }
    ]
    assert traces.take() == []


def test_a_fit_of_many_restarts_or_candidates_traces_some_of_each():
    traces = Traces()
    traces.add(told(1, dict.fromkeys(range(2000), -1.0)))
    assert len(traces.take()) == MOST_RESTARTS
    for n_components in range(1, 1001):
        values = dict.fromkeys(range(8), -1.0)
        traces.add(told(1, values, n_candidates=1000, n_components=n_components))
    assert len(traces.take()) == 1000


@pytest.mark.parametrize("n_samples", [300, 25_000])
def test_the_traces_of_a_fit_rise_to_its_optima(n_samples: int):
    """Of a fit on all points, and of one that looks at a sample first."""
    traces = Traces()
    points = gold_points(n_samples)

    def watch(progress: Progress) -> None:
        traces.add(progress)

    report = fit(points, FitOptions((2, 3), n_init=3, initialization={"method": "random"}), watch=watch)
    whole = joined(traces.take(last=True))
    assert {(t["n_components"], t["restart"]) for t in whole} == {(k, r) for k in (2, 3) for r in range(3)}
    assert all(trace["steps"] == sorted(set(trace["steps"])) for trace in whole)
    best = max(trace["log_likelihoods"][-1] for trace in whole if trace["n_components"] == 3)
    # The objective is regularised, and each step tells the likelihood from which it went.
    assert best == pytest.approx(report.result["log_likelihood"], rel=1e-4)
    assert all(math.isfinite(value) for trace in whole for value in trace["log_likelihoods"])
