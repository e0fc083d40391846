"""The pass over few points: its products in runs of points, each on this thread alone."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from service.mixture.small_sums import SmallSums


def problem(n_samples: int) -> tuple[torch.Tensor, np.ndarray]:
    """Features (123, n_samples) and coefficients (3, 10, 123)."""
    generator = np.random.default_rng(0)
    phi = torch.from_numpy(generator.random((123, n_samples)))
    return phi, -generator.random((3, 10, 123))


@pytest.mark.parametrize("product", [1, 1230 * 7, 1230 * 100])
def test_runs_of_points_add_up_to_all_of_them(monkeypatch, product):
    phi, theta = problem(200)
    whole = SmallSums(phi, None)(theta)
    monkeypatch.setattr("service.mixture.small_sums.PRODUCT", product)
    in_runs = SmallSums(phi, None)(theta)
    alone = SmallSums(phi, None)(theta[1:2])
    for all_at_once, added, one in zip(whole, in_runs, alone, strict=True):
        np.testing.assert_allclose(added, all_at_once, rtol=1e-12)
        np.testing.assert_array_equal(one[0], added[1])


def test_other_threads_have_no_part_in_it():
    phi, theta = problem(2000)
    passed = SmallSums(phi, None)
    began = time.monotonic()
    while time.monotonic() < began + 0.2:  # threads that worked before may look for more for a while
        passed(theta)
    before = time.process_time(), time.thread_time()
    for _ in range(50):
        passed(theta)
    everyone, this_one = time.process_time() - before[0], time.thread_time() - before[1]
    assert everyone < 1.5 * this_one
