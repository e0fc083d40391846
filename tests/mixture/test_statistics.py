from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

from service.mixture import GaussianMixture
from service.mixture.components import Components
from service.mixture.density import log_density
from service.mixture.features import PairFeatures
from service.mixture.shards import ALONE, Shards
from service.mixture.standardization import StandardizedPoints, standardize
from service.mixture.statistics import Statistics, StatisticsPass
from tests import oracles
from tests.mixture.problems import random_mixture


def plain_points(points: torch.Tensor, weights: torch.Tensor | None = None) -> StandardizedPoints:
    """Points (D, N) taken as they are."""
    n_features, n_samples = points.shape
    total = float(n_samples) if weights is None else float(weights.sum())
    one = torch.ones(n_features, dtype=torch.float64)
    return StandardizedPoints(points, weights, total, 0 * one, one, Shards.of(ALONE, n_samples))


def in_form(passed: StatisticsPass, form: str, components: Components) -> Statistics:
    """The statistics in the form of that name."""
    return passed._added(components, getattr(passed, f"_{form}")(components))[0]


def components_of(*mixtures, diagonal: bool = False) -> Components:
    cholesky = torch.stack([mixture.precisions_cholesky for mixture in mixtures])
    if diagonal:
        cholesky = cholesky.diagonal(dim1=-2, dim2=-1)
    return Components(
        torch.stack([mixture.log_weights for mixture in mixtures]),
        torch.stack([mixture.means for mixture in mixtures]),
        cholesky,
    )


def expected_sums(mixture, points, weights):
    """Log-likelihood, counts, first and second moments about zero, from the oracle."""
    parameters = mixture.weights.numpy(), mixture.means.numpy(), mixture.full_covariances().numpy()
    shares = oracles.responsibilities(points, *parameters) * weights[:, None]
    second = np.einsum("nk,ni,nj->kij", shares, points, points)
    log_likelihood = weights @ oracles.log_density(points, *parameters)
    return log_likelihood, shares.sum(0), shares.T @ points, second


def about_zero(statistics: Statistics) -> tuple[torch.Tensor, torch.Tensor]:
    return statistics.about(torch.zeros_like(statistics.first))


@pytest.mark.parametrize("form", ["features", "centred", "kept", "small"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n_features", "diagonal"), [(1, False), (3, False), (1, True), (4, True)])
def test_every_form_of_the_pass_equals_the_oracle(monkeypatch, form, weighted, n_features, diagonal):
    monkeypatch.setattr("service.mixture.feature_sums.CHUNK_BYTES", 4096)
    monkeypatch.setattr("service.mixture.centred.CHUNK_NUMBERS", 1000)
    monkeypatch.setattr("service.mixture.feature_sums.SMALL_NUMBERS", 1 << 20 if form == "small" else 0)
    if form not in ("kept", "small"):
        monkeypatch.setattr("service.mixture.feature_sums.KEPT_FEATURES_BYTES", 0)
    kind = "diag" if diagonal else "full"
    mixtures = [random_mixture(4, n_features, seed, kind) for seed in (1, 2)]
    generator = torch.Generator().manual_seed(3)
    points = 3 * torch.randn(n_features, 301, dtype=torch.float64, generator=generator)
    weights = 2 * torch.rand(301, dtype=torch.float64, generator=generator)
    weights[::7] = 0
    passed = StatisticsPass(
        plain_points(points, weights if weighted else None), diagonal=diagonal, regularization=0.0
    )
    components = components_of(*mixtures, diagonal=diagonal)
    statistics = in_form(passed, form, components) if form == "centred" else passed(components)
    assert (statistics.origin is not None) == (form == "centred")
    first, second = about_zero(statistics)
    counted = weights.numpy() if weighted else np.ones(301)
    for r, mixture in enumerate(mixtures):
        expected = expected_sums(mixture, points.T.numpy(), counted)
        np.testing.assert_allclose(statistics.log_likelihood[r], expected[0], rtol=1e-11)
        np.testing.assert_allclose(statistics.counts[r], expected[1], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(first[r], expected[2], rtol=1e-9, atol=1e-9)
        expected_second = np.einsum("kii->ki", expected[3]) if diagonal else expected[3]
        np.testing.assert_allclose(second[r], expected_second, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n_features", [1, 2, 3, 4, 5, 8])
def test_pair_features_hold_every_product_once(n_features):
    points = torch.randn(n_features, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features = PairFeatures(n_features, points.device)
    phi = features.rows_of(points)
    assert phi.shape == (1 + n_features * (n_features + 1) // 2 + n_features, 5)
    assert torch.equal(features.constant(phi.T), torch.ones(5, dtype=torch.float64))
    assert torch.equal(features.linear(phi.T), points.T)
    assert torch.equal(features.second_moments(phi.T), points.T[:, :, None] * points.T[:, None, :])


def test_points_beyond_the_range_of_exp_are_counted_right():
    mixture = random_mixture(3, 2, seed=1)
    points = torch.tensor([[0.0, 100.0, -3000.0, 2.0], [0.0, 5.0, 40.0, 1.0]], dtype=torch.float64)
    statistics = StatisticsPass(plain_points(points), diagonal=False, regularization=0.0)(
        components_of(mixture)
    )
    expected = expected_sums(mixture, points.T.numpy(), np.ones(4))
    np.testing.assert_allclose(statistics.log_likelihood[0], expected[0], rtol=1e-11)
    np.testing.assert_allclose(statistics.counts[0], expected[1], rtol=1e-8)


def test_a_narrow_component_takes_the_centred_form_and_a_wide_one_does_not():
    narrow, wide = random_mixture(2, 2, seed=1), random_mixture(2, 2, seed=2)
    components = components_of(narrow, wide)
    scale = torch.tensor([1e5, 1.0], dtype=torch.float64).view(2, 1, 1, 1)
    components = Components(components.log_weights, components.means, components.precisions_cholesky * scale)
    near = components.means[0].T + 1e-5 * torch.randn(
        2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    points = torch.cat([near, near + 1], dim=1)
    statistics = StatisticsPass(plain_points(points), diagonal=False, regularization=0.0)(components)
    assert statistics.origin is not None
    assert torch.equal(statistics.origin[0], components.means[0])
    assert torch.equal(statistics.origin[1], torch.zeros(2, 2, dtype=torch.float64))
    for r in range(2):
        cholesky = components.precisions_cholesky[r]
        covariances = torch.linalg.inv(cholesky @ cholesky.mT)
        expected = oracles.log_density(
            points.T.numpy(),
            components.log_weights[r].exp().numpy(),
            components.means[r].numpy(),
            covariances.numpy(),
        )
        np.testing.assert_allclose(statistics.log_likelihood[r], expected.sum(), rtol=1e-9)


@pytest.mark.parametrize("narrow", [0, 1, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("small", [False, True])
def test_likelihoods_alone_are_those_of_whole_statistics(monkeypatch, narrow, weighted, kept, small):
    monkeypatch.setattr("service.mixture.feature_sums.CHUNK_BYTES", 4096)
    monkeypatch.setattr("service.mixture.feature_sums.SMALL_NUMBERS", 1 << 20 if small else 0)
    monkeypatch.setattr("service.mixture.feature_sums.KEPT_FEATURES_BYTES", 1 << 20 if kept else 0)
    monkeypatch.setattr("service.mixture.centred.CHUNK_NUMBERS", 1000)
    components = components_of(random_mixture(3, 2, seed=1), random_mixture(3, 2, seed=2))
    components.precisions_cholesky[:narrow] *= 1e5  # so many mixtures in the centred form
    generator = torch.Generator().manual_seed(3)
    points = components.means[0, :1].T + 1e-5 * torch.randn(2, 301, dtype=torch.float64, generator=generator)
    points[0, 0] = 1e5  # where all densities underflow
    weights = 2 * torch.rand(301, dtype=torch.float64, generator=generator) if weighted else None
    plain, regularized = (
        StatisticsPass(plain_points(points, weights), diagonal=False, regularization=regularization)
        for regularization in (0.0, 0.3)
    )
    expected = plain(components).log_likelihood
    for some in (components, components.quick()):  # what is regularised has no part in it
        found = torch.as_tensor(regularized.log_likelihoods(some))
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("outlier", [1e3, 1e6])
def test_points_far_out_take_no_digits_from_a_narrow_component_without_correlations(outlier):
    # A feature that is nearly constant but for an outlier, whose square is up to 1e20 times its variance.
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(2, 200, dtype=torch.float64, generator=generator)
    points[1] *= 1e-4
    points[1, 7] = outlier
    weights, means = torch.tensor([0.4, 0.6], dtype=torch.float64), torch.tensor([[-1.0, 0.0], [1.0, 1e-4]])
    variances = torch.tensor([[1.0, 1e-8], [2.0, 2e-8]], dtype=torch.float64)
    mixture = GaussianMixture(weights, means.double(), variances, "diag")
    passed = StatisticsPass(plain_points(points), diagonal=True, regularization=0.0)
    statistics = passed(components_of(mixture, diagonal=True))
    assert statistics.origin is None
    expected = expected_sums(mixture, points.T.numpy(), np.ones(200))
    np.testing.assert_allclose(statistics.log_likelihood[0], expected[0], rtol=1e-12)
    np.testing.assert_allclose(statistics.counts[0], expected[1], rtol=1e-9)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("form", ["features", "centred"])
def test_regularization_is_a_penalty_whose_update_adds_it_to_the_diagonal(diagonal, form):
    mixture = random_mixture(2, 2, seed=5, covariance_type="diag" if diagonal else "full")
    points = torch.randn(2, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    regularization = 0.3
    passed = StatisticsPass(plain_points(points), diagonal=diagonal, regularization=regularization)
    components = components_of(mixture, diagonal=diagonal)
    statistics = in_form(passed, form, components) if form == "centred" else passed(components)
    traces = mixture.precisions().diagonal(dim1=-2, dim2=-1).sum(-1)
    joint = mixture.component_log_density(points.T) + mixture.log_weights - 0.5 * regularization * traces
    torch.testing.assert_close(statistics.log_likelihood[0], torch.logsumexp(joint, 1).sum())
    shares = torch.softmax(joint, 1)
    means, covariances = statistics.moments()
    for k in range(2):
        torch.testing.assert_close(means[0, k], shares[:, k] @ points.T / shares[:, k].sum())
        expected = torch.cov(points, correction=0, aweights=shares[:, k])
        expected = expected + regularization * torch.eye(2, dtype=torch.float64)
        torch.testing.assert_close(covariances[0, k], expected.diagonal() if diagonal else expected)


def test_minibatches_over_all_points_equal_the_whole():
    points = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    passed = StatisticsPass(plain_points(points, weights), diagonal=False, regularization=0.1)
    components = components_of(random_mixture(3, 3, 1), random_mixture(3, 3, 2))
    whole = passed(components)
    order = torch.stack([torch.arange(50), torch.arange(50).flip(0)])
    halves = [passed.minibatch(components, order[:, :20]), passed.minibatch(components, order[:, 20:])]
    for name in ("log_likelihood", "counts", "first", "second"):
        torch.testing.assert_close(sum(getattr(half, name) for half in halves), getattr(whole, name))


def test_the_centred_form_agrees_with_forty_digits():
    # A component a millionth wide, tilted, beside a wide one: squares about zero would lose every digit.
    mpmath.mp.dps = 40
    mean = [1.25, -0.75]
    narrow = [[1e-12, 0.9e-12], [0.9e-12, 1e-12]]
    mixture = GaussianMixture.from_parameters(
        weights=[0.3, 0.7], means=[mean, [0.0, 0.0]], covariances=[narrow, [[1.0, 0.0], [0.0, 1.0]]]
    )
    generator = torch.Generator().manual_seed(0)
    points = torch.cat(
        [
            mixture.means[0] + 1e-6 * torch.randn(6, 2, dtype=torch.float64, generator=generator),
            torch.randn(6, 2, dtype=torch.float64, generator=generator),
        ]
    )
    passed = StatisticsPass(plain_points(points.T.contiguous()), diagonal=False, regularization=0.0)
    statistics = passed(components_of(mixture))
    assert statistics.origin is not None

    def density(point: list[float], k: int) -> mpmath.mpf:
        covariance = mpmath.matrix(mixture.covariances[k].tolist())
        offset = mpmath.matrix(
            [a - mpmath.mpf(b) for a, b in zip(point, mixture.means[k].tolist(), strict=True)]
        )
        square = (offset.T * mpmath.inverse(covariance) * offset)[0]
        return mpmath.exp(-square / 2) / (2 * mpmath.pi * mpmath.sqrt(mpmath.det(covariance)))

    total, counts = mpmath.mpf(0), [mpmath.mpf(0), mpmath.mpf(0)]
    for point in points.tolist():
        exact = [mpmath.mpf(x) for x in point]
        shares = [mpmath.mpf(w) * density(exact, k) for k, w in enumerate(mixture.weights.tolist())]
        total += mpmath.log(sum(shares))
        counts = [count + share / sum(shares) for count, share in zip(counts, shares, strict=True)]
    assert float(statistics.log_likelihood[0]) == pytest.approx(float(total), rel=1e-9)
    assert statistics.counts[0].tolist() == pytest.approx([float(count) for count in counts], rel=1e-9)
    assert float(mixture.log_density(points).sum()) == pytest.approx(float(total), rel=1e-10)


@pytest.mark.parametrize(("n_features", "n_components"), [(256, 2), (2, 1024), (64, 16)])
def test_many_features_and_many_components_agree_with_the_centred_form(n_features, n_components):
    mixture = random_mixture(n_components, n_features, seed=0, covariance_type="full")
    points, _ = mixture.sample(60, 0)
    passed = StatisticsPass(plain_points(points.T.contiguous()), diagonal=False, regularization=0.0)
    components = components_of(mixture)
    by_features, centred = (in_form(passed, form, components) for form in ("by_features", "centred"))
    expected = mixture.log_density(points).sum()
    torch.testing.assert_close(by_features.log_likelihood[0], expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(centred.log_likelihood[0], expected, rtol=1e-11, atol=0)
    torch.testing.assert_close(by_features.counts, centred.counts, rtol=1e-7, atol=1e-9)
    for about in zip(about_zero(by_features), about_zero(centred), strict=True):
        torch.testing.assert_close(*about, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("diagonal", [False, True])
def test_float32_passes_stay_within_their_bound(diagonal):
    mixture = random_mixture(3, 3, seed=1, covariance_type="diag" if diagonal else "full")
    points, _ = mixture.sample(500, 0)
    wide = StatisticsPass(plain_points(points.T.contiguous()), diagonal=diagonal, regularization=0.0)
    narrow = StatisticsPass(
        plain_points(points.T.float().contiguous()), diagonal=diagonal, regularization=0.0
    )
    components = components_of(mixture, diagonal=diagonal)
    expected, given = wide(components), narrow(components)
    torch.testing.assert_close(given.log_likelihood / 500, expected.log_likelihood / 500, rtol=0, atol=1e-5)
    torch.testing.assert_close(given.counts, expected.counts, rtol=1e-4, atol=1e-3)
    assert given.counts.dtype == torch.float64


@pytest.mark.parametrize("n_features", [1, 3])
def test_spherical_features_give_the_sums_of_diagonal_ones(n_features):
    mixture = random_mixture(4, n_features, seed=1, covariance_type="spherical")
    points = plain_points(mixture.sample(200, 0)[0].T.contiguous())
    components = components_of(mixture, diagonal=True)
    expected = StatisticsPass(points, diagonal=True, regularization=0.2)(components)
    passed = StatisticsPass(points, diagonal=True, radial=True, regularization=0.2)
    given = passed(components)
    assert passed.features.n_rows == n_features + 2
    for name in ("log_likelihood", "counts", "first"):
        torch.testing.assert_close(getattr(given, name), getattr(expected, name))
    torch.testing.assert_close(given.second.sum(-1), expected.second.sum(-1))
    torch.testing.assert_close(given.moments()[1].mean(-1), expected.moments()[1].mean(-1))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_a_log_density_is_never_further_off_than_the_bound(dtype, bound):
    generator = torch.Generator().manual_seed(0)
    forms = set()
    for exponent in range(8):
        mixture = random_mixture(3, 3, seed=exponent)
        components = components_of(mixture)
        narrow = Components(
            components.log_weights, components.means, components.precisions_cholesky * 10**exponent
        )
        # One point alone near a component, so that no other error can hide the largest.
        offset = torch.randn(3, dtype=torch.float64, generator=generator) * 10.0**-exponent
        point = (mixture.means[exponent % 3] + offset).to(dtype).view(3, 1)
        statistics = StatisticsPass(plain_points(point), diagonal=False, regularization=0.0)(narrow)
        forms.add(statistics.origin is None)
        expected = log_density(
            point.T.double(), narrow.log_weights[0], narrow.means[0], narrow.precisions_cholesky[0]
        )
        assert float((statistics.log_likelihood - expected).abs()) <= bound
    assert forms == {True, False}


def test_regularisation_is_added_whatever_the_order_in_which_factors_lie():
    points = torch.randn(3, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    data = standardize(points, None, common_scale=False, dtype=torch.float64, device="cpu")
    factors = torch.eye(3, dtype=torch.float64).expand(1, 2, 3, 3).contiguous() * 1e4
    means = torch.zeros(1, 2, 3, dtype=torch.float64)
    turned = factors.mT.contiguous().mT
    log_weights = torch.full((1, 2), 0.5, dtype=torch.float64).log()
    second = []
    for cholesky in (factors, turned):
        components = Components(log_weights, means, cholesky)
        for given in (components, components.quick()):
            statistics = StatisticsPass(data, diagonal=False, regularization=0.25)(given)
            second.append(torch.as_tensor(statistics.second))
    plain = StatisticsPass(data, diagonal=False, regularization=0.0)(Components(log_weights, means, factors))
    expected = plain.second + 0.25 * plain.counts[..., None, None] * torch.eye(3, dtype=torch.float64)
    for found in second:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
