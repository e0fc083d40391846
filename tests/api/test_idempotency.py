"""Idempotency keys: the same call twice makes one thing."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.api.test_fits import SMALL
from tests.api.test_problems import assert_problem
from tests.serving import GOLD

CALLS = [
    ("/v1/datasets", {"points": [[1.0], [2.0]]}, {"points": [[1.0], [3.0]]}),
    ("/v1/mixtures", GOLD, GOLD | {"name": "other"}),
    ("/v1/fits", {"dataset": SMALL, "n_components": 1}, {"dataset": SMALL, "n_components": 2}),
]


@pytest.mark.parametrize(("path", "body", "other"), CALLS)
def test_the_same_key_and_body_give_the_first_answer_again(
    http: httpx.Client, path: str, body: dict[str, object], other: dict[str, object]
) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    first = http.post(path, json=body, headers=headers)
    again = http.post(path, json=body, headers=headers)
    assert first.is_success
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["content-type"] == first.headers["content-type"]
    assert_problem(http.post(path, json=other, headers=headers), 422, "IDEMPOTENCY_KEY_REUSED")
    fresh = http.post(path, json=body, headers={"Idempotency-Key": str(uuid.uuid4())})
    assert fresh.json()["id"] != first.json()["id"]


def test_a_key_is_for_one_path(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    assert http.post("/v1/mixtures", json=GOLD, headers=headers).is_success
    body = {"gold": GOLD, "n_samples": 3}
    assert_problem(http.post("/v1/datasets", json=body, headers=headers), 422, "IDEMPOTENCY_KEY_REUSED")


def test_many_calls_at_once_make_one_thing(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    body = {"gold": GOLD, "n_samples": 300_000, "name": headers["Idempotency-Key"][:8]}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: http.post("/v1/datasets", json=body, headers=headers), range(8)))
    made = [answer for answer in answers if answer.status_code == 201]
    assert len({answer.json()["id"] for answer in made}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in made) == 1
    for answer in answers:
        if answer.status_code != 201:
            assert_problem(answer, 409, "IDEMPOTENCY_KEY_IN_USE")
            assert answer.headers["retry-after"] == "1"
    listed = http.get("/v1/datasets?page_size=200").json()["items"]
    assert sum(item["name"] == body["name"] for item in listed) == 1


def test_a_refused_call_leaves_its_key_free(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    assert_problem(http.post("/v1/mixtures", json=GOLD | {"weights": [1, 1, 1]}, headers=headers), 422)
    assert_problem(
        http.post("/v1/fits", json={"dataset": {"id": "x"}, "n_components": 1}, headers=headers), 404
    )
    assert http.post("/v1/mixtures", json=GOLD, headers=headers).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "é"])
def test_keys_that_are_none(http: httpx.Client, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    assert_problem(http.post("/v1/mixtures", json=GOLD, headers=headers), 422)
