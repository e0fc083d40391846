"""What mathematics says of every family, as equations between two ways to the same numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from service.mixture import COVARIANCE_TYPES, FitOptions, GaussianMixture, fit
from service.mixture.components import Components
from service.mixture.families import FAMILIES, Family
from service.mixture.optimizers import Objective, make_optimizer
from service.mixture.optimizers.em_coordinates import coordinates, from_coordinates
from service.mixture.standardization import standardize
from service.mixture.starts import random_start, restart_generator
from service.mixture.statistics import Statistics, StatisticsPass
from tests.mixture.problems import gold_mixture, gold_points, random_mixture, reference_figures
from tests.mixture.test_families import WITH_UPDATE, random_shares
from tests.mixture.test_statistics import plain_points

CORRELATED = ("full", "tied", "VVV", "EEE")


def member(name: str, n_components: int, n_features: int, seed: int) -> tuple[Components, GaussianMixture]:
    """A random member of a family, as components and as a mixture."""
    family = FAMILIES[name].for_features(n_features)
    form = family.unconstrained(n_components, n_features)
    generator = torch.Generator().manual_seed(seed)
    rows = 0.4 * torch.randn(1, form.size, dtype=torch.float64, generator=generator)
    components, _ = form.at(rows)
    covariances = family.stored(components.covariances()[0]).contiguous()
    weights = components.log_weights[0].exp()
    mixture = GaussianMixture.from_parameters(
        weights=weights / weights.sum(),
        means=components.means[0],
        covariances=covariances,
        covariance_type=family.storage_type,
    )
    return components, mixture


def plain_log_likelihood(
    components: Components, points: Tensor, weights: Tensor, regularization: float
) -> Tensor:
    """sum_n w_n log sum_k of the densities of points (D, N) as they are defined, for autograd, (R,)."""
    difference = points.T - components.means.unsqueeze(2)
    cholesky = components.precisions_cholesky
    if components.diagonal:
        squares = (difference * cholesky.unsqueeze(2)).square().sum(-1)
        traces = cholesky.square().sum(-1)
    else:
        squares = (difference @ cholesky).square().sum(-1)
        traces = cholesky.square().sum((-2, -1))
    peaks = components.log_weights + components.log_determinants() - 0.5 * regularization * traces
    joint = peaks.unsqueeze(-1) - 0.5 * squares - 0.5 * len(points) * math.log(2 * math.pi)
    return torch.logsumexp(joint, 1) @ weights


# Autograd through the exercise's own form of the others is in test_gradients.
@pytest.mark.parametrize("name", [name for name in COVARIANCE_TYPES if name not in CORRELATED])
@pytest.mark.parametrize(("n_components", "n_features"), [(3, 1), (1, 2), (2, 3)])
def test_fishers_gradient_is_autograds_in_every_family(name, n_components, n_features):
    family = FAMILIES[name].for_features(n_features)
    form = family.unconstrained(n_components, n_features)
    generator = torch.Generator().manual_seed(2)
    rows = 0.4 * torch.randn(2, form.size, dtype=torch.float64, generator=generator)
    points = torch.randn(n_features, 25, dtype=torch.float64, generator=generator)
    weights = torch.rand(25, dtype=torch.float64, generator=generator)
    passed = StatisticsPass(
        plain_points(points, weights), diagonal=family.diagonal, radial=family.radial, regularization=0.1
    )
    components, pullback = form.at(rows)
    statistics = passed(components)
    numbers = rows.clone().requires_grad_()
    value = plain_log_likelihood(form.at(numbers)[0], points, weights, 0.1)
    (expected,) = torch.autograd.grad(value.sum(), numbers)
    torch.testing.assert_close(statistics.log_likelihood, value.detach(), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(pullback(statistics), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", COVARIANCE_TYPES)
def test_the_density_of_every_family_integrates_to_one(name):
    _, mixture = member(name, 3, 2, seed=4)
    deviations = mixture.standard_deviations()
    low = (mixture.means - 9 * deviations).amin(0)
    high = (mixture.means + 9 * deviations).amax(0)
    # With steps well below the narrowest width the trapezoid rule is exact to rounding for Gaussians.
    narrowest = float(torch.linalg.eigvalsh(mixture.full_covariances()).amin().sqrt())
    axes = [
        torch.arange(float(a), float(b), 0.5 * narrowest, dtype=torch.float64)
        for a, b in zip(low, high, strict=True)
    ]
    grid = torch.cartesian_prod(*axes)
    total = float(mixture.log_density(grid).exp().sum()) * (0.5 * narrowest) ** 2
    assert total == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", WITH_UPDATE)
@pytest.mark.parametrize("n_features", [2, 4])
def test_the_gradient_vanishes_at_the_closed_form_update(name, n_features):
    family = FAMILIES[name]
    weights, shares = random_shares(name, n_features=n_features, seed=7)
    cholesky, valid = family.precisions_cholesky(weights, family.reduce(weights, shares))
    assert bool(valid.all())
    means = torch.zeros(1, 3, n_features, dtype=torch.float64)
    form = family.unconstrained(3, n_features)
    _, pullback = form.at(form.rows_of(Components(weights.log(), means, cholesky)))
    counts = weights.view(1, 3, *[1] * (shares.ndim - 2))
    gradient = pullback(Statistics(weights.new_zeros(1), weights, means, counts * shares, None))
    assert float(gradient.abs().max()) < 1e-8


@pytest.mark.parametrize(
    ("name", "alias"), [("full", "VVV"), ("tied", "EEE"), ("diag", "VVI"), ("spherical", "VII")]
)
def test_a_name_and_its_alias_give_the_same_fit(name, alias):
    ours, theirs = (fit(gold_points(200), FitOptions((2,), (kind,), n_init=2)) for kind in (name, alias))
    assert (ours.result["covariance_type"], theirs.result["covariance_type"]) == (name, alias)
    assert torch.equal(ours.mixture.covariances, theirs.mixture.covariances)
    assert ours.mixture.covariance_type == theirs.mixture.covariance_type
    assert ours.result["n_parameters"] == theirs.result["n_parameters"]


def objective_of(
    points: Tensor, family: Family, n_components: int, regularization: float = 1e-6
) -> Objective:
    data = standardize(points, None, common_scale=family.common_scale, dtype=torch.float64, device="cpu")
    passes = StatisticsPass(
        data, diagonal=family.diagonal, radial=family.radial, regularization=regularization
    )
    return Objective(passes, family, n_components)


@pytest.mark.parametrize("name", WITH_UPDATE)
@torch.inference_mode()
def test_a_step_of_em_never_lowers_the_likelihood_in_any_family(name):
    family = FAMILIES[name]
    objective = objective_of(gold_points(200), family, 4)
    seeds = [restart_generator(0, restart) for restart in range(4)]
    components = random_start(objective.statistics.data, family, 4, seeds)
    values = []
    for _ in range(30):
        sums = objective.statistics(components)
        values.append(sums.log_likelihood / 200)
        components, valid = from_coordinates(family, coordinates(family, sums), 4, 2)
        assert bool(valid.all())
    climbs = torch.stack(values).diff(dim=0)
    assert float(climbs.min()) >= -1e-12
    assert float(climbs[0].min()) > 1e-3


@pytest.mark.parametrize("name", WITH_UPDATE)
@torch.inference_mode()
def test_accelerated_em_never_accepts_a_lower_likelihood_and_hands_back_no_worse(name):
    family = FAMILIES[name]
    points = next(f["points"] for f in reference_figures() if f["dataset"] == "iris")
    objective = objective_of(points, family, 3)
    optimizer: Any = make_optimizer({"name": "em"}, family, 150)
    seeds = [restart_generator(1, restart) for restart in range(3)]
    state = optimizer.start(objective, random_start(objective.statistics.data, family, 3, seeds), seeds)
    accepted = []
    for _ in range(25):
        state = optimizer.step(objective, state)
        # Not what the optimiser says of itself: passes of their own over what it took and would return.
        taken, valid = from_coordinates(family, state["last_x"], 3, 4)
        assert bool(valid.all())
        accepted.append(objective.statistics(taken).log_likelihood / 150)
        handed_back = objective.statistics(optimizer.components(objective, state)).log_likelihood / 150
        assert bool((handed_back >= accepted[-1] - 1e-10).all())
    assert float(torch.stack(accepted).diff(dim=0).min()) >= -1e-10


def permuted(mixture: GaussianMixture, components: Tensor, features: Tensor) -> GaussianMixture:
    covariances = mixture.full_covariances()[components][:, features][:, :, features]
    return GaussianMixture(
        mixture.weights[components], mixture.means[components][:, features], covariances, "full"
    )


@pytest.mark.parametrize("name", COVARIANCE_TYPES)
def test_permuting_points_components_or_features_permutes_the_fit(name):
    points, _ = random_mixture(3, 3, seed=3).sample(150, 0)
    points = points.T.contiguous()
    start = random_mixture(3, 3, seed=3)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(1))
    turned, same = torch.tensor([2, 0, 1]), torch.arange(3)

    def fitted(columns: Tensor, mixture: GaussianMixture) -> GaussianMixture:
        initialization = {"method": "mixture", "mixture": mixture}
        options = FitOptions((3,), (name,), initialization=initialization, n_init=1, tolerance=1e-9)
        answer = fit(columns, options).mixture
        assert answer is not None
        return answer

    plain = fitted(points, start)
    others = [
        (fitted(points[:, order], start), same),
        (fitted(points, permuted(start, turned, same)), same),
        (fitted(points[turned], permuted(start, same, turned)), turned),
    ]
    for other, features in others:
        expected = permuted(plain, same, features)
        torch.testing.assert_close(other.weights, expected.weights, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(other.means, expected.means, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(other.full_covariances(), expected.covariances, rtol=1e-3, atol=1e-3)
        values = [
            float(m.log_density(x.T.contiguous()).sum())
            for m, x in ((plain, points), (other, points[features]))
        ]
        assert values[0] == pytest.approx(values[1], abs=1e-6)


@pytest.mark.parametrize("name", ["VVV", "EEE", "VEE", "EVV"])
def test_a_linear_map_of_all_features_shifts_the_likelihood_by_its_determinant(name):
    points = gold_points(400)
    mapping = torch.tensor([[2.0, 1.0], [-0.5, 3.0]], dtype=torch.float64)
    shift = torch.tensor([10.0, -4.0], dtype=torch.float64)
    start = gold_mixture()
    moved = GaussianMixture(
        start.weights, start.means @ mapping.T + shift, mapping @ start.covariances @ mapping.T, "full"
    )

    def reached(columns: Tensor, mixture: GaussianMixture) -> float:
        initialization = {"method": "mixture", "mixture": mixture}
        options = FitOptions(
            (3,), (name,), initialization=initialization, n_init=1, tolerance=1e-11, regularization=0
        )
        return float(fit(columns, options).result["log_likelihood"])

    before = reached(points, start)
    after = reached(mapping @ points + shift[:, None], moved)
    assert after == pytest.approx(before - 400 * math.log(6.5), abs=1e-6)


@pytest.mark.parametrize("name", COVARIANCE_TYPES)
def test_weights_count_points_in_every_family(name):
    points = gold_points(240)
    start = {"method": "mixture", "mixture": gold_mixture()}
    options = FitOptions((3,), (name,), initialization=start, n_init=1, tolerance=1e-10)
    weights = torch.randint(0, 3, (240,), generator=torch.Generator().manual_seed(0)).double()
    repeated = fit(points.repeat_interleave(weights.long(), dim=1), options).result
    weighted = fit(points, options, sample_weights=weights).result
    for field in ("log_likelihood", "mean_log_likelihood", "bic", "aic", "icl"):
        assert weighted[field] == pytest.approx(repeated[field], rel=1e-8)
