from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from service.mixture import FitOptions, InvalidFit, fit
from service.mixture.components import Components
from service.mixture.families import FAMILIES
from tests.mixture.problems import gold_points, random_mixture, reference_figures

FOURTEEN = ["EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV"]
WITH_UPDATE = [name for name in FOURTEEN if FAMILIES[name].closed_form]


def random_shares(
    name: str, n_components: int = 3, n_features: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Weights (1, K) and covariances of shares (1, K, D, D) or (1, K, D), nothing special about them."""
    mixture = random_mixture(n_components, n_features, seed)
    covariances = mixture.covariances
    if FAMILIES[name].diagonal:
        covariances = covariances.diagonal(dim1=-2, dim2=-1)
    return mixture.weights[None], covariances[None]


def expected_score(weights: Tensor, shares: Tensor, components: Components) -> float:
    """sum_k weight_k (log|precision_k| - tr(precision_k share_k)) / 2."""
    cholesky = components.precisions_cholesky
    if components.diagonal:
        fit_terms = (cholesky.square() * shares).sum(-1)
    else:
        fit_terms = ((cholesky @ cholesky.mT) * shares).sum((-2, -1))
    return float((weights * (components.log_determinants() - 0.5 * fit_terms)).sum())


# mclust's nMclustParams less means and weights, for d = 4 and G = 3.
COUNTS = {
    "EII": 1, "VII": 3, "EEI": 4, "VEI": 6, "EVI": 10, "VVI": 12, "EEE": 10,
    "VEE": 12, "EVE": 16, "VVE": 18, "EEV": 22, "VEV": 24, "EVV": 28, "VVV": 30,
}  # fmt: skip


@pytest.mark.parametrize("name", FOURTEEN)
def test_free_parameters_are_mclusts(name):
    assert FAMILIES[name].n_covariance_parameters(3, 4) == COUNTS[name]
    assert FAMILIES[name].n_parameters(3, 4) == COUNTS[name] + 12 + 2


@pytest.mark.parametrize("name", FOURTEEN)
def test_unconstrained_numbers_have_the_rank_of_the_free_parameters(name):
    family = FAMILIES[name]
    form = family.unconstrained(2, 3)
    rows = 0.4 * torch.randn(1, form.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def flat(numbers: Tensor) -> Tensor:
        components, _ = form.at(numbers)
        return torch.cat(
            [part.flatten() for part in (components.log_weights, components.means, components.covariances())]
        )

    step = 1e-6
    columns = [
        (flat(rows + step * unit) - flat(rows - step * unit)) / (2 * step)
        for unit in torch.eye(form.size, dtype=torch.float64)
    ]
    values = torch.linalg.svdvals(torch.stack(columns))
    assert int((values > 1e-5 * values[0]).sum()) == family.n_parameters(2, 3)


@pytest.mark.parametrize("name", FOURTEEN)
def test_unconstrained_numbers_come_back_from_their_components(name):
    family = FAMILIES[name]
    form = family.unconstrained(3, 3)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(2, form.size, dtype=torch.float64, generator=generator)
        components, _ = form.at(rows)
        again, _ = form.at(form.rows_of(components))
        torch.testing.assert_close(again.covariances(), components.covariances(), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(again.means, components.means)


@pytest.mark.parametrize("name", WITH_UPDATE)
@pytest.mark.parametrize("seed", range(3))
def test_no_member_of_the_family_beats_the_closed_form_update(name, seed):
    family = FAMILIES[name]
    weights, shares = random_shares(name, seed=seed)
    cholesky, valid = family.precisions_cholesky(weights, family.reduce(weights, shares))
    assert bool(valid.all())
    updated = Components(weights.log(), torch.zeros(1, 3, 3, dtype=torch.float64), cholesky)
    best = expected_score(weights, shares, updated)
    form = family.unconstrained(3, 3)
    rows = form.rows_of(updated)
    torch.testing.assert_close(form.at(rows)[0].covariances(), updated.covariances(), rtol=1e-8, atol=1e-9)
    generator = torch.Generator().manual_seed(seed)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(20):
            step = torch.zeros_like(rows)
            step[:, 12:] = size * torch.randn(1, form.size - 12, dtype=torch.float64, generator=generator)
            assert expected_score(weights, shares, form.at(rows + step)[0]) <= best + 1e-9


@pytest.mark.parametrize("name", FOURTEEN)
def test_a_fit_is_a_member_of_its_family_and_no_worse_than_a_smaller_one(name):
    points = gold_points(600)
    report = fit(points, FitOptions((3,), (name,), n_init=4, tolerance=1e-8))
    assert report.outcome == "converged"
    assert report.result["covariance_type"] == name
    assert report.result["n_parameters"] == FAMILIES[name].n_parameters(3, 2)
    covariances = report.mixture.full_covariances()
    values, axes = torch.linalg.eigh(covariances)
    volumes = values.log().mean(-1)
    if name[0] == "E":
        torch.testing.assert_close(volumes, volumes[:1].expand(3), rtol=1e-6, atol=1e-6)
    if name[1] == "E" and name[2] != "E":
        turned = name[2] == "V"
        shapes = values.log() if turned else covariances.diagonal(dim1=1, dim2=2).log()
        shapes = shapes - shapes.mean(-1, keepdim=True)
        torch.testing.assert_close(shapes, shapes[:1].expand_as(shapes), rtol=1e-6, atol=1e-6)
    turned_back = covariances if name[2] == "I" else axes[0].T @ covariances @ axes[0]
    if name[2] in "EI":
        diagonal = torch.diag_embed(turned_back.diagonal(dim1=1, dim2=2))
        torch.testing.assert_close(turned_back, diagonal, rtol=1e-6, atol=1e-6)


SMALLER = [
    ("EII", "VII"), ("EII", "EEI"), ("EEI", "VEI"), ("EEI", "EVI"), ("VEI", "VVI"), ("EVI", "VVI"),
    ("EEI", "EEE"), ("EEE", "VEE"), ("EEE", "EVE"), ("VEE", "VVE"), ("EVE", "VVE"), ("EEE", "EEV"),
    ("EEV", "VEV"), ("EEV", "EVV"), ("EVE", "EVV"), ("VEV", "VVV"), ("EVV", "VVV"), ("VVE", "VVV"),
    ("VEE", "VEV"), ("VVI", "VVE"),
]  # fmt: skip


def test_a_wider_family_reaches_at_least_the_likelihood_of_a_narrower_one():
    points = next(f["points"] for f in reference_figures() if f["dataset"] == "iris")
    reached = {}
    for name in FOURTEEN:
        report = fit(points, FitOptions((2,), (name,), n_init=4, tolerance=1e-8))
        reached[name] = report.result["log_likelihood"]
    for narrow, wide in SMALLER:
        assert reached[wide] >= reached[narrow] - 1e-3, (narrow, wide)


# mclust's BIC table of iris for G = 2, in its sign; a correct fit reaches or exceeds each.
IRIS_TWO = {
    "EII": -1123.4117, "VII": -1012.2352, "EEI": -1042.9679, "VEI": -956.2823, "EVI": -1007.3082,
    "VVI": -857.5515, "EEE": -688.0972, "VEE": -656.3270, "EVE": -657.2263, "VVE": -605.1841,
    "EEV": -644.5997, "VEV": -561.7285, "EVV": -658.3306, "VVV": -574.0178,
}  # fmt: skip


@pytest.mark.parametrize("name", FOURTEEN)
def test_mclusts_bic_of_iris_is_reached_in_every_family(name):
    points = next(f["points"] for f in reference_figures() if f["dataset"] == "iris")
    bic = fit(points, FitOptions((2,), (name,))).result["bic"]
    assert bic <= -IRIS_TWO[name] + 0.01
    assert bic == pytest.approx(-IRIS_TWO[name], abs=1.0)


@pytest.mark.parametrize("name", FOURTEEN)
def test_families_of_one_feature_agree_with_tied_or_full(name):
    points = gold_points(300)[:1]
    twin = {"E": "tied", "V": "full"}[name[0]]
    ours, expected = (fit(points, FitOptions((2,), (kind,), n_init=4)).result for kind in (name, twin))
    assert ours["log_likelihood"] == pytest.approx(expected["log_likelihood"], abs=1e-3)
    assert ours["n_parameters"] == expected["n_parameters"]


@pytest.mark.parametrize("name", FOURTEEN)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs"])
def test_gradient_optimisers_fit_every_family(name, optimizer):
    points = gold_points(300)
    best = fit(points, FitOptions((2,), (name,), n_init=4)).result["log_likelihood"]
    request = {"name": optimizer} if optimizer == "lbfgs" else {"name": optimizer, "learning_rate": 0.05}
    report = fit(points, FitOptions((2,), (name,), n_init=4, optimizer=request, max_steps=400))
    assert report.result["log_likelihood"] > best - 3.0


@pytest.mark.parametrize("name", ["EVE", "VVE"])
def test_em_is_refused_where_there_is_no_closed_form(name):
    with pytest.raises(InvalidFit, match="no closed-form update"):
        fit(gold_points(50), FitOptions((2,), (name,), optimizer={"name": "em"}))
    assert fit(gold_points(50), FitOptions((2,), (name,), n_init=1)).result["optimizer"] == "lbfgs"


def test_one_component_has_its_closed_form_in_every_family():
    points = gold_points(200) * torch.tensor([[1.0], [5.0]], dtype=torch.float64)
    covariance = np.cov(points.numpy(), bias=True)
    for name in FOURTEEN:
        closed = fit(points, FitOptions((1,), (name,), n_init=1, regularization=0)).result
        expected = {
            "I": np.eye(2) * np.trace(covariance) / 2 if name[1] == "I" else np.diag(np.diag(covariance)),
            "E": covariance,
            "V": covariance,
        }[name[2]]
        log_likelihood = -0.5 * 200 * (2 * math.log(2 * math.pi) + np.linalg.slogdet(expected)[1] + 2)
        assert closed["closed_form"]["log_likelihood"] == pytest.approx(log_likelihood, rel=1e-10)
        assert closed["log_likelihood"] == pytest.approx(log_likelihood, rel=1e-7)
