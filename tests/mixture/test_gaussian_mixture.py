from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from service.mixture import GaussianMixture, InvalidMixture
from service.mixture.arrays import log_sum_exp
from tests import oracles
from tests.mixture.problems import gold_mixture, random_mixture

TYPES = ["full", "tied", "diag", "spherical"]


def numpy_parameters(mixture: GaussianMixture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return mixture.weights.numpy(), mixture.means.numpy(), mixture.full_covariances().numpy()


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize(
    ("n_components", "n_features", "n_samples"), [(1, 1, 1), (3, 2, 7), (5, 4, 1), (1, 3, 9)]
)
def test_density_and_responsibilities_equal_the_oracle(covariance_type, n_components, n_features, n_samples):
    mixture = random_mixture(n_components, n_features, seed=n_samples, covariance_type=covariance_type)
    points = 3 * torch.randn(
        n_samples, n_features, dtype=torch.float64, generator=torch.Generator().manual_seed(5)
    )
    parameters = numpy_parameters(mixture)
    np.testing.assert_allclose(
        mixture.component_log_density(points),
        oracles.component_log_density(points.numpy(), *parameters[1:]),
        rtol=1e-10,
    )
    np.testing.assert_allclose(
        mixture.log_density(points), oracles.log_density(points.numpy(), *parameters), rtol=1e-10
    )
    np.testing.assert_allclose(
        mixture.responsibilities(points),
        oracles.responsibilities(points.numpy(), *parameters),
        rtol=1e-10,
        atol=1e-300,
    )


def test_forty_standard_deviations_out():
    mixture = gold_mixture()
    directions = torch.tensor([[1.0, 0.0], [0.0, -1.0], [-0.6, 0.8]], dtype=torch.float64)
    points = torch.cat(
        [mixture.means[k] + 40 * directions * mixture.standard_deviations()[k] for k in range(3)]
    )
    expected = oracles.log_density(points.numpy(), *numpy_parameters(mixture))
    np.testing.assert_allclose(mixture.log_density(points), expected, rtol=1e-10)


def test_a_component_of_width_a_millionth_beside_means_of_a_thousand():
    mixture = GaussianMixture.from_parameters(
        weights=[0.5, 0.5],
        means=[[1e3, -1e3], [1e3 + 3, 1e3]],
        covariances=[[[1e-12, 0.5e-12], [0.5e-12, 1e-12]], [[1, 0], [0, 1]]],
    )
    points = mixture.means[0] + 1e-6 * torch.tensor([[0.3, 1.0], [40.0, -40.0], [0, 0]], dtype=torch.float64)
    mean, covariance = mixture.means[0].numpy(), mixture.full_covariances()[0].numpy()
    expected = stats.multivariate_normal(mean, covariance).logpdf(points.numpy())
    np.testing.assert_allclose(mixture.component_log_density(points)[:, 0], expected, rtol=1e-10)
    expected = oracles.log_density(points.numpy(), *numpy_parameters(mixture))
    np.testing.assert_allclose(mixture.log_density(points), expected, rtol=1e-10)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_one_point_gives_the_same_as_many(covariance_type):
    mixture = random_mixture(3, 2, seed=1, covariance_type=covariance_type)
    points = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points[-3:] = torch.tensor([[1e200, 1.0], [-1e5, 3e4], [0.0, -1e300]], dtype=torch.float64)
    together = mixture.log_density(points)
    alone = torch.cat([mixture.log_density(point[None]) for point in points])
    torch.testing.assert_close(alone, together, rtol=1e-13, atol=1e-13)
    together = mixture.responsibilities(points)
    alone = torch.cat([mixture.responsibilities(point[None]) for point in points])
    torch.testing.assert_close(alone, together, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("covariance_type", TYPES[1:])
def test_answers_are_those_of_the_same_mixture_with_full_covariances(covariance_type):
    mixture = random_mixture(4, 3, seed=6, covariance_type=covariance_type)
    full = GaussianMixture(mixture.weights, mixture.means, mixture.full_covariances(), "full")
    points = 3 * torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    points[-4:] = torch.tensor([[1e200, 1, 0], [-1e300, 0, 2], [3e4, -1e5, 1], [torch.nan, 0, 0]])
    for question in ("log_density", "component_log_density", "responsibilities"):
        own, expected = getattr(mixture, question)(points), getattr(full, question)(points)
        torch.testing.assert_close(own, expected, rtol=1e-13, atol=1e-13, equal_nan=True)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_chunks_change_nothing(covariance_type, monkeypatch):
    mixture = random_mixture(4, 3, seed=2, covariance_type=covariance_type)
    points = torch.randn(101, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points[50] = 1e200  # whose squares overflow
    questions = mixture.log_density, mixture.component_log_density, mixture.responsibilities
    whole = [question(points) for question in questions]
    monkeypatch.setattr("service.mixture.density.CHUNK_NUMBERS", 60)
    for question, expected in zip(questions, whole, strict=True):
        torch.testing.assert_close(question(points), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_density_integrates_to_one(covariance_type):
    mixture = random_mixture(3, 1, seed=3, covariance_type=covariance_type)
    total, _ = integrate.quad(
        lambda x: float(mixture.log_density(torch.tensor([[x]], dtype=torch.float64)).exp()),
        -30,
        30,
        limit=200,
    )
    assert total == pytest.approx(1.0, abs=1e-9)


def test_responsibilities_far_beyond_the_range_of_squares():
    mixture = gold_mixture()
    answer = mixture.responsibilities(torch.tensor([[1e200, 1e200], [-1e300, 0.0]], dtype=torch.float64))
    assert torch.isfinite(answer).all()
    torch.testing.assert_close(answer.sum(1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("means", [[[0.0, 0.0], [1.0, 1.0]], [[-1.7e308, 0.0], [1.7e308, 0.0]]])
@pytest.mark.parametrize(
    "point",
    [[1e308, 1e308], [-1.6e308, 1.6e308], [1.6e308, 0.0], [1e200, 1e200], [0.0, 0.0], [3e307, -1e300]],
)
@pytest.mark.parametrize("n_samples", [1, 3])
def test_finite_points_get_numbers_up_to_the_end_of_the_range(point, means, n_samples):
    mixture = GaussianMixture.from_parameters(
        weights=[0.5, 0.5],
        means=means,
        covariances=[[[1e-6, 0.9e-6], [0.9e-6, 1e-6]], [[1.0, 0.0], [0.0, 2.0]]],
        covariance_type="full",
    )
    points = torch.tensor([point] * n_samples, dtype=torch.float64)
    inside = point == [0.0, 0.0] and means[0] == [0.0, 0.0]
    assert torch.isfinite(mixture.log_density(points)).all() == inside
    assert (torch.isneginf(mixture.log_density(points)) | inside).all()
    assert not torch.isnan(mixture.component_log_density(points)).any()
    shares = mixture.responsibilities(points)
    assert torch.isfinite(shares).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(n_samples, dtype=torch.float64))


def test_what_is_no_number_gets_none():
    mixture = GaussianMixture.from_parameters(
        weights=[1.0], means=[[0.0]], covariances=[[[1.0]]], covariance_type="full"
    )
    points = torch.tensor([[0.0], [math.nan], [1.0]], dtype=torch.float64)
    assert torch.isnan(mixture.log_density(points)).tolist() == [False, True, False]


def test_zero_weight_components_have_no_part():
    parts = {"means": [[0.0], [5.0]], "covariances": [1.0, 2.0], "covariance_type": "spherical"}
    mixture = GaussianMixture.from_parameters(weights=[1.0, 0.0], **parts)
    points = torch.tensor([[5.0], [-1.0]], dtype=torch.float64)
    np.testing.assert_allclose(
        mixture.log_density(points), stats.norm(0, 1).logpdf(points[:, 0].numpy()), rtol=1e-12
    )
    for point, value in zip(points, mixture.log_density(points), strict=True):
        torch.testing.assert_close(mixture.log_density(point[None]), value[None], rtol=1e-13, atol=0)
    assert mixture.responsibilities(points)[:, 1].tolist() == [0.0, 0.0]
    assert (mixture.sample(1000, 0)[1] == 0).all()


@pytest.mark.parametrize("covariance_type", TYPES)
def test_precisions_invert_covariances(covariance_type):
    mixture = random_mixture(3, 4, seed=4, covariance_type=covariance_type)
    identity = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    torch.testing.assert_close(
        mixture.precisions() @ mixture.full_covariances(), identity, rtol=1e-12, atol=1e-12
    )
    upper = mixture.precisions_cholesky
    torch.testing.assert_close(upper, upper.triu())
    scales = mixture.standard_deviations()
    rebuilt = mixture.correlations() * scales[:, :, None] * scales[:, None, :]
    torch.testing.assert_close(rebuilt, mixture.full_covariances(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("covariance_type", "covariances"), [("full", 30), ("tied", 10), ("diag", 12), ("spherical", 3)]
)
def test_n_parameters_counts_free_numbers(covariance_type, covariances):
    mixture = random_mixture(3, 4, seed=0, covariance_type=covariance_type)
    assert mixture.n_parameters == 2 + 12 + covariances


@pytest.mark.parametrize("shape", [(4, 9), (2, 3, 5), (1, 2)])
def test_sums_of_exponentials_are_torchs_also_where_they_are_not_finite(shape):
    rows = 400 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows[..., 0, 0] = -torch.inf
    rows[..., :, 1] = -torch.inf
    if shape[-1] > 3:
        rows[..., 0, 2], rows[..., 0, 3] = torch.nan, torch.inf
    before = rows.clone()
    expected = torch.logsumexp(rows, dim=-2)
    torch.testing.assert_close(log_sum_exp(rows), expected, rtol=1e-14, atol=1e-14, equal_nan=True)
    torch.testing.assert_close(rows, before, rtol=0, atol=0, equal_nan=True)


def test_samples_have_the_mixtures_moments_and_labels():
    mixture = gold_mixture()
    n_samples = 200_000
    points, components = mixture.sample(n_samples, 0)
    assert components.dtype == torch.int64
    counts = torch.bincount(components, minlength=3)
    for k in range(3):
        share = points[components == k]
        error = mixture.weights[k] * (1 - mixture.weights[k])
        assert float(counts[k] / n_samples - mixture.weights[k]) == pytest.approx(
            0, abs=5 * float(error / n_samples) ** 0.5
        )
        torch.testing.assert_close(share.mean(0), mixture.means[k], rtol=0, atol=0.01)
        torch.testing.assert_close(torch.cov(share.T), mixture.covariances[k], rtol=0, atol=0.01)


def test_samples_are_in_random_order():
    _, components = gold_mixture().sample(3000, 0)
    expected = gold_mixture().weights
    for third in components.chunk(3):
        shares = torch.bincount(third, minlength=3) / 1000
        torch.testing.assert_close(shares.double(), expected, rtol=0, atol=0.06)


def test_samples_repeat_with_the_seed_and_touch_no_global_generator():
    before = torch.get_rng_state()
    first = gold_mixture().sample(100, 7)
    second = gold_mixture().sample(100, 7)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(before, torch.get_rng_state())


def test_canonical_order_is_by_falling_weight_then_first_mean():
    mixture = gold_mixture().in_canonical_order()
    assert mixture.weights.tolist() == [0.4, 0.4, 0.2]
    assert mixture.means.tolist() == [[-1, 1], [1, 1], [-1, -1]]
    assert mixture.covariances[1].tolist() == [[0.16, 0.16], [0.16, 0.25]]


def test_standard_deviations_and_correlations_stand_for_covariances():
    mixture = GaussianMixture.from_parameters(
        weights=[1], means=[[1, 2]], standard_deviations=[[0.4, 0.5]], correlations=[[[1, 0.8], [0.8, 1]]]
    )
    expected = torch.tensor([[[0.16, 0.16], [0.16, 0.25]]], dtype=torch.float64)
    torch.testing.assert_close(mixture.covariances, expected)
    diagonal = GaussianMixture.from_parameters(
        weights=[1], means=[[1, 2]], standard_deviations=[[0.4, 0.5]], covariance_type="diag"
    )
    torch.testing.assert_close(diagonal.covariances, torch.tensor([[0.16, 0.25]], dtype=torch.float64))


GOOD = {"weights": [0.5, 0.5], "means": [[0, 0], [1, 1]], "covariances": [[[1, 0], [0, 1]], [[1, 0], [0, 1]]]}
BAD = [
    ({"weights": [0.5, 0.4]}, ("weights",), "sum to 0.9"),
    ({"weights": [1.5, -0.5]}, ("weights", 1), "-0.5"),
    ({"weights": [[0.5, 0.5]]}, ("weights",), "must be"),
    ({"weights": []}, ("weights",), "non-empty"),
    ({"weights": [0.5, float("nan")]}, ("weights", 1), "finite"),
    ({"weights": ["a", "b"]}, ("weights",), "numbers"),
    ({"means": [[0, 0]]}, ("means",), "(2, D)"),
    ({"means": [[0, 0], [1]]}, ("means",), "ragged"),
    ({"means": [[0, 0], [1, float("inf")]]}, ("means", 1, 1), "finite"),
    ({"covariances": [[1, 0], [0, 1]]}, ("covariances",), "(2, 2, 2)"),
    ({"covariances": [[[1, 0], [0, 1]], [[1, 2], [2, 1]]]}, ("covariances", 1), "smallest eigenvalue is -1"),
    ({"covariances": [[[1, 0], [0, 1]], [[1, 1], [1, 1]]]}, ("covariances", 1), "component 1"),
    ({"covariances": [[[1, 0], [0, 1]], [[0, 0], [0, 0]]]}, ("covariances", 1), "eigenvalue is 0"),
    ({"covariances": [[[1, 0.1], [0.2, 1]], [[1, 0], [0, 1]]]}, ("covariances", 0), "symmetric"),
    ({"covariances": None}, ("covariances",), "either"),
    ({"covariance_type": "round"}, ("covariance_type",), "not one of"),
    ({"covariances": [[1, -1], [1, 1]], "covariance_type": "diag"}, ("covariances", 0), "component 0"),
    ({"covariances": [1, 0], "covariance_type": "spherical"}, ("covariances", 1), "component 1"),
    (
        {"covariances": None, "standard_deviations": [[1, 1], [1, -1]]},
        ("standard_deviations", 1, 1),
        "positive",
    ),
    (
        {
            "covariances": None,
            "standard_deviations": [[1, 1], [1, 1]],
            "correlations": [[[1, 0], [0, 2]]] * 2,
        },
        ("correlations", 0),
        "diagonal",
    ),
    ({"correlations": [[[1, 0], [0, 1]]] * 2}, ("correlations",), "standard_deviations"),
]


@pytest.mark.parametrize(("change", "path", "says"), BAD)
def test_bad_parameters_are_refused_by_name(change, path, says):
    with pytest.raises(InvalidMixture) as caught:
        GaussianMixture.from_parameters(**{**GOOD, **change})
    assert caught.value.path == path
    assert says in str(caught.value)


def test_weights_are_normalised_exactly():
    mixture = GaussianMixture.from_parameters(**{**GOOD, "weights": [0.5000002, 0.5000002]})
    assert mixture.weights.tolist() == [0.5, 0.5]
