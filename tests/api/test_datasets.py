"""/v1/datasets."""

import hashlib
import struct
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.test_problems import assert_problem
from tests.serving import GOLD


def test_posted_points(http: httpx.Client) -> None:
    points = [[1.5, -2.0, 3.25], [4.0, 5.5, -6.0]]
    body = {"points": points, "name": "Höhe × Breite", "columns": ["a", "b", "c"]}
    response = http.post("/v1/datasets", json=body)
    assert response.status_code == 201
    dataset = response.json()
    assert response.headers["location"] == f"/v1/datasets/{dataset['id']}"
    assert dataset["source"] == "upload"
    assert (dataset["n_samples"], dataset["n_features"], dataset["size_bytes"]) == (2, 3, 48)
    assert (dataset["name"], dataset["columns"], dataset["gold"]) == (body["name"], body["columns"], None)
    assert dataset["created_at"].endswith("Z")
    packed = struct.pack("<6d", *points[0], *points[1]) + b"2x3 float64"
    assert dataset["sha256"] == hashlib.sha256(packed).hexdigest()
    assert dataset["statistics"]["mean"] == pytest.approx([2.75, 1.75, -1.375])
    assert dataset["statistics"]["standard_deviation"] == pytest.approx([1.25, 3.75, 4.625])
    assert dataset["statistics"]["minimum"] == [1.5, -2.0, -6.0]
    assert dataset["statistics"]["maximum"] == [4.0, 5.5, 3.25]
    assert http.get(response.headers["location"]).json() == dataset
    assert http.get(f"/v1/datasets/{dataset['id']}/points").json() == {
        "points": points,
        "offset": 0,
        "n_samples": 2,
    }


def test_gold_points_with_their_components(http: httpx.Client) -> None:
    body = {"gold": GOLD, "n_samples": 5000, "seed": 7, "name": "gold"}
    dataset = http.post("/v1/datasets", json=body).json()
    assert dataset["source"] == "gold"
    assert {**dataset["gold"], "covariances": None} == {
        **GOLD,
        "n_samples": 5000,
        "seed": 7,
        "covariances": None,
    }
    assert np.array(dataset["gold"]["covariances"]).tolist() == GOLD["covariances"]
    drawn = http.get(f"/v1/datasets/{dataset['id']}/points").json()
    points, components = np.array(drawn["points"]), np.array(drawn["components"])
    assert points.shape == (5000, 2)
    shares = np.bincount(components, minlength=3) / 5000
    assert shares == pytest.approx(GOLD["weights"], abs=0.03)
    for k in range(3):
        own = points[components == k]
        assert own.mean(0) == pytest.approx(np.array(GOLD["means"][k], float), abs=0.06)
        assert np.cov(own.T) == pytest.approx(np.array(GOLD["covariances"][k]), abs=0.03)
    again = http.post("/v1/datasets", json=body).json()
    assert again["sha256"] == dataset["sha256"]
    assert again["id"] != dataset["id"]
    other = http.post("/v1/datasets", json=body | {"seed": 8}).json()
    assert other["sha256"] != dataset["sha256"]


def test_runs_of_points(http: httpx.Client) -> None:
    dataset = http.post("/v1/datasets", json={"gold": GOLD, "n_samples": 100}).json()
    whole = http.get(f"/v1/datasets/{dataset['id']}/points").json()
    part = http.get(f"/v1/datasets/{dataset['id']}/points?offset=90&limit=20").json()
    assert part["points"] == whole["points"][90:]
    assert part["components"] == whole["components"][90:]
    assert http.get(f"/v1/datasets/{dataset['id']}/points?offset=100").json()["points"] == []
    assert_problem(http.get(f"/v1/datasets/{dataset['id']}/points?limit=0"), 422)
    assert_problem(http.get(f"/v1/datasets/{dataset['id']}/points?offset=-1"), 422)


def test_what_never_changes_has_an_etag(http: httpx.Client) -> None:
    dataset = http.post("/v1/datasets", json={"gold": GOLD, "n_samples": 10}).json()
    paths = [f"/v1/datasets/{dataset['id']}{rest}" for rest in ("", "/points", "/points?limit=3")]
    tags = []
    for path in paths:
        tag = http.get(path).headers["etag"]
        assert not tag.startswith("W/")
        known = http.get(path, headers={"If-None-Match": f'"other", {tag}'})
        assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
        assert http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
        tags.append(tag)
    assert len(set(tags)) == 3


def test_deleted_points_are_gone_and_shared_ones_stay(http: httpx.Client) -> None:
    first, second = (http.post("/v1/datasets", json={"points": [[41.5], [42.5]]}).json() for _ in range(2))
    assert first["sha256"] == second["sha256"]
    assert http.delete(f"/v1/datasets/{first['id']}").status_code == 204
    assert_problem(http.get(f"/v1/datasets/{first['id']}"), 404, "DATASET_NOT_FOUND")
    assert_problem(http.delete(f"/v1/datasets/{first['id']}"), 404)
    assert http.get(f"/v1/datasets/{second['id']}/points").json()["points"] == [[41.5], [42.5]]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"points": []}, "/points"),
        ({"points": [[]]}, "/points/0"),
        ({"points": [[1], [2, 3]]}, "/points"),
        ({"points": [[1]], "gold": GOLD}, ""),
        ({"name": "x"}, ""),
        ({"points": [[1]], "n_samples": 5}, ""),
        ({"points": [[1, 2]], "columns": ["a"]}, "/columns"),
        ({"points": [[1, 2]], "columns": ["a", "a"]}, "/columns"),
        ({"points": [[1]], "name": "nul\u0000"}, "/name"),
        ({"gold": GOLD, "n_samples": 0}, "/n_samples"),
        ({"gold": GOLD, "columns": ["a"]}, "/columns"),
        ({"gold": GOLD | {"means": [[-1, -1], [-1, 1]]}}, "/gold/means"),
        ({"gold": GOLD | {"weights": [0.5, 0.4, 0.4]}}, "/gold/weights"),
        ({"gold": GOLD | {"covariances": GOLD["covariances"][:2]}}, "/gold/covariances"),
        (
            {"gold": GOLD | {"covariances": [[[1, 2], [2, 1]], *GOLD["covariances"][1:]]}},
            "/gold/covariances/0",
        ),
    ],
)
def test_datasets_that_are_refused(http: httpx.Client, body: dict[str, Any], pointer: str) -> None:
    before = http.get("/v1/datasets?page_size=1").json()["items"]
    problem = assert_problem(http.post("/v1/datasets", json=body), 422)
    assert problem["errors"][0]["pointer"] == pointer
    assert http.get("/v1/datasets?page_size=1").json()["items"] == before


def test_sizes_are_estimated_before_anything_is_drawn(http: httpx.Client) -> None:
    problem = assert_problem(http.post("/v1/datasets", json={"gold": GOLD, "n_samples": 10**15}), 422)
    assert problem["code"] == "DATASET_TOO_LARGE"
    assert str(16 * 10**15) in problem["detail"]


def test_a_sample_is_distinct_points_in_order_and_the_same_again(http: httpx.Client) -> None:
    dataset = http.post("/v1/datasets", json={"gold": GOLD, "n_samples": 2000}).json()
    path = f"/v1/datasets/{dataset['id']}/points"
    whole = http.get(path).json()
    sample = http.get(f"{path}?sample=300&seed=7")
    taken = sample.json()
    assert len(taken["indices"]) == 300
    assert taken["indices"] == sorted(set(taken["indices"]))
    assert taken["points"] == [whole["points"][index] for index in taken["indices"]]
    assert taken["components"] == [whole["components"][index] for index in taken["indices"]]
    assert taken["n_samples"] == 2000
    # Every tenth of the dataset has about its share of them.
    assert np.histogram(taken["indices"], bins=10, range=(0, 2000))[0] == pytest.approx([30] * 10, abs=20)
    known = {"If-None-Match": sample.headers["etag"]}
    assert http.get(f"{path}?sample=300&seed=7", headers=known).status_code == 304
    assert http.get(f"{path}?sample=300&seed=8", headers=known).json()["indices"] != taken["indices"]
    assert http.get(f"{path}?sample=5000").json()["points"] == whole["points"]


@pytest.mark.parametrize(
    "query", ["sample=0", "sample=1.5", "sample=5&seed=-1", "sample=5&limit=2", "sample=5&offset=1"]
)
def test_samples_that_make_no_sense_are_refused(http: httpx.Client, query: str) -> None:
    dataset = http.post("/v1/datasets", json={"points": [[1.0], [2.0]]}).json()
    assert_problem(http.get(f"/v1/datasets/{dataset['id']}/points?{query}"), 422)
