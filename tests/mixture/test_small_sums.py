"""The pass over few points: mixtures as rows of one product, on this thread alone."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from service.mixture.small_sums import SmallSums


def problem(n_samples: int, n_rows: int = 123) -> tuple[torch.Tensor, np.ndarray]:
    """Features (n_rows, n_samples) and coefficients (3, 5, n_rows)."""
    generator = np.random.default_rng(0)
    phi = torch.from_numpy(generator.random((n_rows, n_samples)))
    return phi, -generator.random((3, 5, n_rows))


@pytest.mark.parametrize("together", [1, 2, 3])
@pytest.mark.parametrize("n_samples", [5, 201])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n_rows", [3, 15, 123])
def test_a_mixture_has_the_same_bits_beside_others(monkeypatch, together, n_samples, dtype, n_rows):
    phi, theta = problem(n_samples, n_rows)
    monkeypatch.setattr("service.mixture.small_sums.PRODUCT", 15 * 5 * 100)
    phi = phi.to(dtype)
    joint = torch.from_numpy(theta[1]) @ phi.double()
    log_densities = torch.logsumexp(joint, 0)
    expected = float(log_densities.sum()), (joint - log_densities).exp() @ phi.double().T
    monkeypatch.setattr("service.mixture.small_sums.BLOCK_NUMBERS", together * 5 * n_samples)
    every, alone = SmallSums(phi, None)(theta), SmallSums(phi, None)(theta[1:2])
    for all_of_them, one, exact in zip(every, alone, expected, strict=True):
        np.testing.assert_array_equal(one[0], all_of_them[1])
        np.testing.assert_allclose(one[0], exact, rtol=1e-12 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("n_rows", [6, 123])
def test_other_threads_have_no_part_in_it(n_rows):
    phi, theta = problem(1000 if n_rows > 100 else 4000, n_rows)  # too little to be shared out
    passed = SmallSums(phi, None)
    began = time.monotonic()
    while time.monotonic() < began + 0.2:  # threads that worked before may look for more for a while
        passed(theta)
    before = time.process_time(), time.thread_time()
    for _ in range(50):
        passed(theta)
    everyone, this_one = time.process_time() - before[0], time.thread_time() - before[1]
    assert everyone < 1.5 * this_one
