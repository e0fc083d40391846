"""Samples, block by block."""

import numpy as np
import pytest
import torch
from scipy import stats

from service.mixture import GaussianMixture
from tests.mixture.problems import random_mixture

# One on either side of where the way of computing changes, and one whose blocks are short.
N_FEATURES = [1, 3, 4, 100]


def drawn_by_definition(mixture: GaussianMixture, seed: int, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Point after point, each from its block's stream."""
    rows, n_features = mixture.sample_block_rows, mixture.n_features
    edges = np.cumsum(mixture.weights.numpy())
    points, components = [], []
    for start in range(0, n_samples, rows):
        sequence = np.random.SeedSequence(seed, spawn_key=(start // rows,))
        stream = np.random.Generator(np.random.PCG64DXSM(sequence))
        uniform = stream.random(rows)
        for i in range(min(rows, n_samples - start)):
            k = int(np.searchsorted(edges / edges[-1], uniform[i], side="right"))
            noise = stream.standard_normal(n_features)
            points.append(mixture.means[k].numpy() + mixture.covariances_cholesky[k].numpy() @ noise)
            components.append(k)
    return np.array(points), np.array(components)


@pytest.mark.parametrize("n_features", N_FEATURES)
def test_samples_are_what_their_definition_says(n_features):
    mixture = random_mixture(3, n_features, seed=1)
    n_samples = mixture.sample_block_rows + 50
    points, components = mixture.sample(n_samples, 5)
    expected_points, expected_components = drawn_by_definition(mixture, 5, n_samples)
    np.testing.assert_array_equal(components, expected_components)
    np.testing.assert_allclose(points, expected_points, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n_components", [6, 200])
def test_components_come_as_often_as_their_weights_say(n_components):
    """Either way of choosing, and no component whose weight is zero, be it the first, the last or between."""
    weights = np.random.default_rng(0).uniform(0.5, 2, n_components)
    weights[[0, n_components // 2, -1]] = 0
    weights /= weights.sum()
    mixture = GaussianMixture.from_parameters(
        weights=weights,
        means=np.arange(n_components)[:, None],
        covariances=np.full(n_components, 1e-6),
        covariance_type="spherical",
    )
    n_samples = 3 * mixture.sample_block_rows + 5
    points, components = mixture.sample(n_samples, 0)
    assert torch.equal(points[:, 0].round().long(), components)
    counts = np.bincount(components, minlength=n_components)
    assert (counts[weights == 0] == 0).all()
    there = weights > 0
    assert stats.chisquare(counts[there], n_samples * weights[there]).pvalue > 1e-3


@pytest.mark.parametrize("n_features", [2, 100])
def test_a_seed_names_the_same_points_however_many_are_drawn_and_in_whatever_order(n_features):
    mixture = random_mixture(4, n_features, seed=2)
    rows = mixture.sample_block_rows
    whole, components = mixture.sample(2 * rows + 7, 3)
    for block, length in ((2, 7), (0, rows), (1, rows), (0, 2 * rows), (1, rows + 7)):
        again, labels = mixture.sample_from_block(3, block, length)
        assert torch.equal(again, whole[block * rows :][:length])
        assert torch.equal(labels, components[block * rows :][:length])
    for n_samples in (1, 10, rows + 1):
        assert torch.equal(mixture.sample(n_samples, 3)[1], components[:n_samples])
        torch.testing.assert_close(mixture.sample(n_samples, 3)[0], whole[:n_samples], rtol=1e-13, atol=1e-13)


def test_blocks_and_seeds_have_nothing_to_do_with_one_another():
    mixture = GaussianMixture.from_parameters(
        weights=[1], means=[[0]], covariances=[1], covariance_type="spherical"
    )
    rows = mixture.sample_block_rows
    points = mixture.sample(4 * rows, 0)[0][:, 0].numpy()
    assert stats.kstest(points, "norm").pvalue > 1e-3
    blocks = points.reshape(4, rows)
    others = np.stack([mixture.sample(rows, seed)[0][:, 0].numpy() for seed in (1, 2)])
    correlations = np.corrcoef(np.concatenate([blocks, others]))
    assert np.abs(correlations - np.eye(6)).max() < 5 / rows**0.5
    neighbours = np.corrcoef(points[:-1], points[1:])[0, 1]
    assert abs(neighbours) < 5 / len(points) ** 0.5
