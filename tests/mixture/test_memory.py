from __future__ import annotations

import pytest
import torch

from service.mixture import FitOptions, estimate_fit_bytes, fit


@pytest.mark.parametrize(("n_samples", "n_features"), [(1, 1), (1000, 2), (10**7, 2), (10**5, 64)])
def test_the_estimate_holds_the_points_and_grows_with_everything(n_samples, n_features):
    options = FitOptions((3,))
    estimate = estimate_fit_bytes(n_samples, n_features, options)
    assert estimate > 2 * 8 * n_samples * n_features
    assert estimate_fit_bytes(2 * n_samples, n_features, options) > estimate
    assert estimate_fit_bytes(n_samples, 2 * n_features, options) > estimate
    assert estimate_fit_bytes(n_samples, n_features, FitOptions((30,))) > estimate
    assert estimate_fit_bytes(n_samples, n_features, FitOptions((3,), n_init=80)) > estimate


def test_a_fit_takes_no_more_than_its_estimate():
    options = FitOptions((4,), n_init=2, max_steps=3)
    points = torch.randn(8, 200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fit(points[:, :100].contiguous(), options)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        fit(points, options)
    live = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    assert peak > 8 * points.numel()
    assert peak + 8 * points.numel() < estimate_fit_bytes(200_000, 8, options)
