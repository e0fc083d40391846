"""The exercise that the service grew from, each part as a request over HTTP."""

from typing import Any

import httpx
import pytest
import torch

from service.mixture import FitOptions
from service.mixture.families import FAMILIES
from service.mixture.standardization import standardize
from service.mixture.starts import random_start, restart_generator
from tests.mixture.test_exercise import naive_log_likelihood, univariate_points
from tests.serving import GOLD

EVERY_STEP = {"tolerance": 0, "initialization": {"method": "random"}}
SGD = {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}


@pytest.fixture(scope="module")
def univariate_id(http: httpx.Client) -> str:
    points = univariate_points().T.tolist()
    return http.post("/v1/datasets", json={"points": points, "columns": ["x"]}).json()["id"]


@pytest.fixture(scope="module")
def gold_id(http: httpx.Client) -> str:
    return http.post("/v1/datasets", json={"gold": GOLD, "n_samples": 1000, "seed": 0}).json()["id"]


def fitted(http: httpx.Client, dataset_id: str, **request: Any) -> dict[str, Any]:
    """Returns the result of a fit that runs every step from a random start."""
    body = {"dataset": {"id": dataset_id}, **EVERY_STEP, **request}
    fit = http.post("/v1/fits", json=body, headers={"Prefer": "wait=60"}).json()
    assert fit["status"] == "succeeded", fit
    return fit["result"]


def points_of(http: httpx.Client, dataset_id: str) -> torch.Tensor:
    """Returns a dataset's points (D, N)."""
    points = http.get(f"/v1/datasets/{dataset_id}/points").json()["points"]
    return torch.tensor(points, dtype=torch.float64).T.contiguous()


def options(n_components: int, covariance_type: str, optimizer: dict[str, Any], max_steps: int) -> FitOptions:
    return FitOptions(
        (n_components,),
        (covariance_type,),
        optimizer=optimizer,
        initialization={"method": "random"},
        n_init=1,
        tolerance=0,
        regularization=0,
        max_steps=max_steps,
    )


@pytest.mark.parametrize(("batch_size", "max_steps"), [(None, 1000), (10, 10_000)])
def test_a_univariate_gaussian_by_sgd_beside_its_closed_form(
    http: httpx.Client, univariate_id: str, batch_size: int | None, max_steps: int
) -> None:
    optimizer = SGD | {"batch_size": batch_size}
    result = fitted(http, univariate_id, n_components=1, n_init=1, optimizer=optimizer, max_steps=max_steps)
    closed = result["closed_form"]["mixture"]
    assert result["mixture"]["means"][0][0] == pytest.approx(closed["means"][0][0], abs=0.05)
    deviation, closed_deviation = (m["covariances"][0][0][0] ** 0.5 for m in (result["mixture"], closed))
    assert deviation == pytest.approx(closed_deviation, abs=0.05)
    assert closed["means"][0][0] == pytest.approx(5, abs=0.25)
    assert closed_deviation == pytest.approx(2, abs=0.2)
    assert result["n_steps"] == max_steps
    assert result["n_passes"] == pytest.approx(1000 if batch_size is None else 100)


def test_univariate_minibatches_are_the_naive_computation(http: httpx.Client, univariate_id: str) -> None:
    points = univariate_points()
    generator = restart_generator(0, 0)
    data = standardize(points, None, common_scale=False, dtype=torch.float64, device="cpu")
    random_start(data, FAMILIES["full"], 1, [generator])
    batches: list[torch.Tensor | None] = []
    for _ in range(10):
        batches.extend(torch.randperm(1000, generator=generator).split(10))
    optimizer = SGD | {"batch_size": 10}
    naive = naive_log_likelihood(points, options(1, "full", optimizer, 1000), batches)
    request = {"n_init": 1, "max_steps": 1000, "regularization": 0, "optimizer": optimizer}
    result = fitted(http, univariate_id, n_components=1, **request)
    assert result["log_likelihood"] == pytest.approx(naive, abs=1e-6)


def test_the_gold_mixture_is_sampled_with_its_labels(http: httpx.Client, gold_id: str) -> None:
    drawn = http.get(f"/v1/datasets/{gold_id}/points").json()
    points = torch.tensor(drawn["points"], dtype=torch.float64)
    components = torch.tensor(drawn["components"])
    for k, (weight, mean, covariance) in enumerate(
        zip(GOLD["weights"], GOLD["means"], GOLD["covariances"], strict=True)
    ):
        own = points[components == k]
        assert len(own) / 1000 == pytest.approx(weight, abs=0.06)
        assert own.mean(0).tolist() == pytest.approx(mean, abs=0.12)
        assert own.T.cov().flatten().tolist() == pytest.approx([*covariance[0], *covariance[1]], abs=0.08)
    third = points[components == 2]
    assert float(third.T.corrcoef()[0, 1]) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(
    ("n_components", "covariance_type", "optimizer"),
    [
        (3, "diag", SGD | {"learning_rate": 0.1}),
        (6, "diag", SGD | {"learning_rate": 0.1}),
        (3, "full", SGD),
        (3, "full", {"name": "adam", "learning_rate": 0.01}),
    ],
    ids=["three diagonal", "six diagonal", "full", "full by Adam"],
)
def test_a_thousand_steps_are_the_naive_computation(
    http: httpx.Client, gold_id: str, n_components: int, covariance_type: str, optimizer: dict[str, Any]
) -> None:
    request = {"covariance_type": covariance_type, "optimizer": optimizer, "n_init": 1, "regularization": 0}
    result = fitted(http, gold_id, n_components=n_components, **request)
    assert result["n_steps"] == 1000
    wanted = options(n_components, covariance_type, optimizer, 1000)
    naive = naive_log_likelihood(points_of(http, gold_id), wanted, [None] * 1000)
    assert result["log_likelihood"] == pytest.approx(naive, abs=1e-6)


def test_six_diagonal_components_reach_a_higher_likelihood_than_three(
    http: httpx.Client, gold_id: str
) -> None:
    three, six = (
        fitted(http, gold_id, n_components=k, covariance_type="diag", optimizer=SGD | {"learning_rate": 0.1})
        for k in (3, 6)
    )
    assert six["log_likelihood"] > three["log_likelihood"] + 10


@pytest.mark.parametrize("optimizer", [SGD, {"name": "adam"}], ids=["sgd", "adam"])
def test_a_full_mixture_recovers_gold_and_reports_every_restart(
    http: httpx.Client, gold_id: str, optimizer: dict[str, Any]
) -> None:
    result = fitted(http, gold_id, n_components=3, optimizer=optimizer, n_init=8)
    assert sum(optimum["hits"] for optimum in result["optima"]) == 8
    means = [optimum["mean_log_likelihood"] for optimum in result["optima"]]
    assert means == sorted(means, reverse=True)
    assert result["mean_log_likelihood"] == pytest.approx(means[0], abs=1e-9)
    assert result["recovery"]["adjusted_rand_index"] > 0.97
    assert result["recovery"]["kl"]["value"] < 0.05
    mixture = http.get(f"/v1/mixtures/{result['mixture_id']}").json()
    correlations = sorted(rows[0][1] for rows in mixture["correlations"])
    assert correlations[-1] == pytest.approx(0.8, abs=0.06)
    samples = http.post(f"/v1/mixtures/{mixture['id']}/samples", json={"n_samples": 4000, "seed": 1}).json()
    drawn = torch.tensor(samples["points"], dtype=torch.float64)
    assert drawn.mean(0).tolist() == pytest.approx(points_of(http, gold_id).mean(1).tolist(), abs=0.08)
