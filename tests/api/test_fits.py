"""/v1/fits at the door: what is queued, what is refused, and what a queue without workers answers."""

import time
from typing import Any

import httpx
import pytest

from tests.api.test_problems import assert_problem
from tests.serving import GOLD

SMALL = {"points": [[0.0, 1.0], [1.0, 0.5], [2.0, 2.5], [3.0, 0.0]]}


def queued(http: httpx.Client, **request: Any) -> dict[str, Any]:
    response = http.post("/v1/fits", json={"dataset": SMALL, "n_components": 2} | request)
    assert response.status_code == 202, response.text
    fit = response.json()
    assert response.headers["location"] == f"/v1/fits/{fit['id']}"
    return fit


def test_a_fit_is_queued_with_every_default_filled_in(http: httpx.Client) -> None:
    fit = queued(http, metadata={"who": "me", "n": 3}, priority=5)
    assert fit["status"] == "queued"
    assert (fit["attempt"], fit["priority"], fit["metadata"]) == (0, 5, {"who": "me", "n": 3})
    assert fit["started_at"] is fit["finished_at"] is fit["result"] is fit["error"] is fit["progress"] is None
    assert fit["request"] == {
        "dataset": {"id": fit["dataset_id"], "weights_sha256": None},
        "n_components": 2,
        "covariance_type": "full",
        "optimizer": {"name": "auto"},
        "initialization": {"method": "kmeans++"},
        "n_init": 8,
        "tolerance": 1e-6,
        "max_steps": 1000,
        "regularization": 1e-6,
        "selection": {"criterion": "bic"},
        "seed": 0,
        "device": "auto",
        "devices": 1,
        "dtype": "float64",
        "priority": 5,
        "timeout_seconds": None,
        "metadata": {"who": "me", "n": 3},
    }
    assert http.get(f"/v1/fits/{fit['id']}").json() == fit
    assert http.get(f"/v1/datasets/{fit['dataset_id']}/points").json()["points"] == SMALL["points"]


@pytest.mark.parametrize(
    ("optimizer", "filled"),
    [
        ({"name": "sgd"}, {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "batch_size": None}),
        ({"name": "adam", "batch_size": 2}, {"name": "adam", "learning_rate": 0.01, "batch_size": 2}),
        ({"name": "em"}, {"name": "em"}),
        ({"name": "lbfgs"}, {"name": "lbfgs"}),
        ({}, None),
    ],
)
def test_optimizers(http: httpx.Client, optimizer: dict[str, Any], filled: dict[str, Any] | None) -> None:
    if filled is None:
        assert_problem(
            http.post("/v1/fits", json={"dataset": SMALL, "n_components": 1, "optimizer": optimizer}), 422
        )
    else:
        assert queued(http, optimizer=optimizer)["request"]["optimizer"] == filled


def test_a_start_from_a_stored_mixture_is_kept_in_full(http: httpx.Client) -> None:
    mixture = http.post("/v1/mixtures", json=GOLD).json()
    start = {"method": "mixture", "mixture_id": mixture["id"]}
    request = {"dataset": {"gold": GOLD, "n_samples": 10}, "n_components": 3, "initialization": start}
    kept = queued(http, **request)["request"]["initialization"]
    assert kept["mixture"] == {name: mixture[name] for name in GOLD}
    wrong = http.post("/v1/fits", json=request | {"n_components": 2})
    assert assert_problem(wrong, 422)["errors"][0]["pointer"] == "/n_components"
    wrong = http.post("/v1/fits", json=request | {"dataset": {"points": [[1.0], [2.0], [3.0]]}})
    assert assert_problem(wrong, 422)["errors"][0]["pointer"] == "/initialization"
    gone = http.post("/v1/fits", json=request | {"initialization": start | {"mixture_id": "nope"}})
    assert_problem(gone, 404, "MIXTURE_NOT_FOUND")
    both = http.post("/v1/fits", json=request | {"initialization": start | {"mixture": GOLD}})
    assert_problem(both, 422)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"n_components": 5}, "/n_components"),
        ({"n_components": [1, 2, 5]}, "/n_components"),
        ({"n_components": 0}, "/n_components"),
        ({"n_components": []}, "/n_components"),
        ({"n_components": 2, "selection": {"criterion": "held_out", "fraction": 0.9}}, "/n_components"),
        ({"dataset": SMALL | {"weights": [1, 1]}}, "/dataset/weights"),
        ({"dataset": SMALL | {"weights": [0, 0, 0, 0]}}, "/dataset"),
        ({"dataset": SMALL | {"weights": [1, 1, 1, -1]}}, "/dataset/weights/3"),
        ({"dataset": {}}, "/dataset"),
        ({"dataset": {"gold": GOLD, "points": [[1]]}}, "/dataset"),
        ({"dataset": {"gold": GOLD | {"weights": [1]}}}, "/dataset/gold/means"),
        ({"covariance_type": "round"}, "/covariance_type"),
        ({"covariance_type": ["VVV", "EVE"], "optimizer": {"name": "em"}}, "/optimizer"),
        ({"optimizer": {"name": "sgd", "momentum": 1}}, "/optimizer/momentum"),
        ({"optimizer": {"name": "em", "learning_rate": 1}}, "/optimizer/learning_rate"),
        ({"n_init": 0}, "/n_init"),
        ({"regularization": -1}, "/regularization"),
        ({"device": "tpu"}, "/device"),
        ({"device": "cuda"}, "/device"),
        ({"devices": 0}, "/devices"),
        ({"devices": "many"}, "/devices"),
        ({"dtype": "float16"}, "/dtype"),
        ({"timeout_seconds": 0}, "/timeout_seconds"),
        ({"metadata": {"a": "x" * 20_000}}, "/metadata"),
        ({"metadata": {"a": "\u0000"}}, "/metadata"),
        ({"n_component": 2}, "/n_component"),
    ],
)
def test_fits_that_are_refused(http: httpx.Client, change: dict[str, Any], pointer: str) -> None:
    before = [http.get(f"/v1/{noun}?page_size=1").json()["items"] for noun in ("fits", "datasets")]
    problem = assert_problem(http.post("/v1/fits", json={"dataset": SMALL, "n_components": 2} | change), 422)
    assert problem["errors"][0]["pointer"] == pointer
    assert [http.get(f"/v1/{noun}?page_size=1").json()["items"] for noun in ("fits", "datasets")] == before


def test_metadata_that_is_not_finite_is_refused(http: httpx.Client) -> None:
    body = b'{"dataset": {"points": [[1]]}, "n_components": 1, "metadata": {"a": [1e999]}}'
    response = http.post("/v1/fits", content=body, headers={"Content-Type": "application/json"})
    assert assert_problem(response, 422)["errors"][0]["pointer"] == "/metadata"


def test_a_dataset_that_is_not_there(http: httpx.Client) -> None:
    assert_problem(http.post("/v1/fits", json={"dataset": {"id": "nope"}, "n_components": 1}), 404)


def test_a_queued_fit_keeps_its_dataset_until_cancelled(http: httpx.Client) -> None:
    fit = queued(http)
    path, dataset = f"/v1/fits/{fit['id']}", f"/v1/datasets/{fit['dataset_id']}"
    assert fit["id"] in assert_problem(http.delete(dataset), 409, "DATASET_IN_USE")["detail"]
    assert_problem(http.delete(path), 409, "FIT_NOT_ENDED")
    cancelled = http.post(f"{path}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert cancelled["finished_at"] is not None
    assert http.post(f"{path}/cancel").json() == cancelled
    assert http.delete(dataset).status_code == 204
    assert http.get(path).json()["dataset_id"] == fit["dataset_id"]
    assert http.delete(path).status_code == 204
    assert_problem(http.get(path), 404, "FIT_NOT_FOUND")
    assert_problem(http.get(f"{path}/events"), 404)


def test_lists_are_filtered(http: httpx.Client) -> None:
    first = queued(http)
    second = queued(http, dataset={"id": first["dataset_id"]})
    http.post(f"/v1/fits/{second['id']}/cancel")

    def listed(query: str) -> list[str]:
        return [item["id"] for item in http.get(f"/v1/fits?{query}").json()["items"]]

    mine = f"dataset_id={first['dataset_id']}"
    assert listed(mine) == [second["id"], first["id"]]
    assert listed(f"{mine}&status=queued") == [first["id"]]
    assert listed(f"{mine}&status=cancelled") == [second["id"]]
    assert listed(f"{mine}&status=failed") == []
    assert_problem(http.get("/v1/fits?status=asleep"), 422)
    assert_problem(http.get("/v1/fits?dataset_id=%00"), 422)


def test_waiting_ends_when_the_time_is_over_or_the_fit_ends(http: httpx.Client) -> None:
    begun = time.monotonic()
    response = http.post("/v1/fits", json={"dataset": SMALL, "n_components": 1}, headers={"Prefer": "wait=1"})
    assert (response.status_code, response.headers["preference-applied"]) == (202, "wait=1")
    assert response.json()["status"] == "queued"
    assert time.monotonic() - begun >= 1
    path = f"/v1/fits/{response.json()['id']}"
    http.post(f"{path}/cancel")
    ended = http.get(path, headers={"Prefer": "respond-async, wait=500"})
    assert (ended.status_code, ended.headers["preference-applied"]) == (200, "wait=60")
    assert ended.json()["status"] == "cancelled"
    assert "preference-applied" not in http.get(path, headers={"Prefer": "wait=soon"}).headers


def test_weights_are_kept_by_their_hash(http: httpx.Client) -> None:
    fit = queued(http, dataset=SMALL | {"weights": [1, 0, 2.5, 1]})
    assert len(fit["request"]["dataset"]["weights_sha256"]) == 64
