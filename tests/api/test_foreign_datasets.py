"""Datasets by URL over HTTP: registered, looked at, deleted, refused."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.api.conftest import FOREIGN
from tests.serving import Server

ROWS = np.random.default_rng(0).normal([170.0, 60.0], [10.0, 5.0], (4000, 2))


@pytest.fixture
def folder(server: Server, request: pytest.FixtureRequest) -> Path:
    """A folder of this test's own that the service may read."""
    made = server.data_dir / FOREIGN / request.node.originalname
    made.mkdir(parents=True, exist_ok=True)
    write(made)
    return made


def write(folder: Path, rows: Any = ROWS, **more: Any) -> None:
    table = pa.table({"height": rows[:, 0], "weight": rows[:, 1]} | more)
    pq.write_table(table, folder / "0.parquet", row_group_size=250)


def register(http: httpx.Client, folder: Path, status: int = 201, **fields: Any) -> dict[str, Any]:
    headers = fields.pop("headers", {})
    answer = http.post("/v1/datasets", json={"url": f"file://{folder}"} | fields, headers=headers)
    assert answer.status_code == status, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_a_dataset_by_url_is_one_like_others(http: httpx.Client, folder: Path) -> None:
    made = register(http, folder, name="people")
    assert made["source"] == "url"
    assert (made["name"], made["url"]) == ("people", f"file://{folder}")
    assert (made["n_samples"], made["n_features"], made["columns"]) == (4000, 2, ["height", "weight"])
    assert made["size_bytes"] == (folder / "0.parquet").stat().st_size
    assert (made["statistics"], made["gold"]) == (None, None)
    path = f"/v1/datasets/{made['id']}"
    assert http.get(path).json() == made
    assert made in http.get("/v1/datasets").json()["items"]
    points = http.get(f"{path}/points?offset=249&limit=3")
    np.testing.assert_array_equal(points.json()["points"], ROWS[249:252])
    again = http.get(f"{path}/points?offset=249&limit=3", headers={"If-None-Match": points.headers["ETag"]})
    assert again.status_code == 304
    npy = http.get(f"{path}/points", headers={"Accept": "application/x-npy"})
    assert npy.content.endswith(ROWS.tobytes())
    assert http.delete(path).status_code == 204
    assert (folder / "0.parquet").exists()
    assert http.get(path).status_code == 404


def test_a_sample_is_drawn_from_some_row_groups(http: httpx.Client, folder: Path) -> None:
    path = f"/v1/datasets/{register(http, folder)['id']}/points"
    drawn = http.get(f"{path}?sample=100&seed=3").json()
    places = np.array(drawn["indices"])
    assert (len(places), drawn["n_samples"]) == (100, 4000)
    assert (np.diff(places) > 0).all()
    np.testing.assert_array_equal(drawn["points"], ROWS[places])
    assert len(np.unique(places // 250)) <= 8
    assert http.get(f"{path}?sample=100&seed=3").json() == drawn
    assert http.get(f"{path}?sample=100&seed=4").json() != drawn
    most = http.get(f"{path}?sample=3000").json()["indices"]
    assert len(set(most)) == 3000
    assert http.get(f"{path}?sample=9999").json()["indices"] == list(range(4000))


def test_columns_are_picked_and_ordered(http: httpx.Client, folder: Path) -> None:
    write(folder, name=["somebody"] * 4000)
    refused = register(http, folder, 422)
    assert refused["code"] == "INVALID_POINTS"
    assert "name; take only others with columns=height,weight" in refused["detail"]
    made = register(http, folder, columns=["weight", "height"])
    points = http.get(f"/v1/datasets/{made['id']}/points?limit=2").json()["points"]
    np.testing.assert_array_equal(points, ROWS[:2, ::-1])


def test_the_same_key_registers_once(http: httpx.Client, folder: Path) -> None:
    headers = {"Idempotency-Key": f"register {folder}"}
    made = register(http, folder, headers=headers)
    write(folder, ROWS[:10])
    assert register(http, folder, headers=headers) == made
    assert register(http, folder, 422, headers=headers, name="another")["code"] == "IDEMPOTENCY_KEY_REUSED"
    other = register(http, folder)
    assert other["sha256"] != made["sha256"]


@pytest.mark.parametrize("tail", ["", "?limit=1", "?sample=5"])
def test_points_of_changed_files_are_a_conflict(http: httpx.Client, folder: Path, tail: str) -> None:
    made = register(http, folder)
    write(folder, ROWS + 1)
    answer = http.get(f"/v1/datasets/{made['id']}/points{tail}")
    assert (answer.status_code, answer.json()["code"]) == (409, "DATASET_CHANGED")
    assert "0.parquet is not what it was" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"url": "file:///etc"}, "URL_NOT_ALLOWED", "/url"),
        ({"url": "http://169.254.169.254/latest"}, "URL_NOT_ALLOWED", "/url"),
        ({"url": "s3://bucket/x?endpoint_override=127.0.0.1"}, "URL_NOT_ALLOWED", "/url"),
        ({"url": ""}, "URL_NOT_ALLOWED", "/url"),
        ({"url": "s3://x\u0000y"}, "URL_NOT_ALLOWED", "/url"),
        ({"url": 5}, "INVALID_REQUEST", "/url"),
        ({"url": ["file:///etc"]}, "INVALID_REQUEST", "/url"),
        ({"url": "x" * 2000}, "INVALID_REQUEST", "/url"),
        ({"url": "file:///x", "points": [[1.0]]}, "INVALID_REQUEST", ""),
        ({"url": "file:///x", "n_samples": 5}, "INVALID_REQUEST", ""),
        ({"url": "file:///x", "columns": []}, "INVALID_REQUEST", "/columns"),
    ],
)
def test_what_is_no_url_to_be_read(http: httpx.Client, body: dict[str, Any], code: str, pointer: str) -> None:
    refused = http.post("/v1/datasets", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert refused.json()["errors"][0]["pointer"] == pointer


def test_what_is_not_there(http: httpx.Client, folder: Path) -> None:
    assert register(http, folder / "none", 422)["code"] == "URL_UNREADABLE"
    (folder / "empty").mkdir(exist_ok=True)
    assert register(http, folder / "empty", 422)["code"] == "URL_UNREADABLE"
    assert register(http, folder, 422, columns=["height", "age"])["code"] == "INVALID_POINTS"


def test_a_fit_is_queued_but_not_in_minibatches_that_fetch_all(http: httpx.Client, folder: Path) -> None:
    data = {"id": register(http, folder)["id"]}
    minibatches = {"name": "adam", "batch_size": 10}
    body = {"dataset": data, "n_components": 2, "optimizer": minibatches}
    refused = http.post("/v1/fits", json=body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/optimizer/batch_size"
    fit = http.post("/v1/fits", json=body | {"optimizer": {"name": "adam"}})
    assert fit.status_code == 202
    in_use = http.delete(f"/v1/datasets/{data['id']}")
    assert (in_use.status_code, in_use.json()["code"]) == (409, "DATASET_IN_USE")
    assert http.post(f"/v1/fits/{fit.json()['id']}/cancel").json()["status"] == "cancelled"
    assert http.delete(f"/v1/datasets/{data['id']}").status_code == 204
