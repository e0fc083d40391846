"""Refusals: always a problem document, saying what was wrong and never repeating it."""

import json
import socket
import time
from typing import Any

import httpx
import pytest

from tests.serving import GOLD, Server

NONSENSE = [
    pytest.param(b'{"points": [' + b'["x"],' * 1_600_000 + b"[1]]}", id="strings"),
    pytest.param(b'{"points": [' + b"[1]," * 2_500_000 + b"[1,2]]}", id="ragged at the end"),
    pytest.param(b"[" * 10_000_000, id="deep"),
    pytest.param(b'{"points": [[' + b"9" * 10_000_000 + b"]]}", id="one long number"),
    pytest.param(b"\xff" * 10_000_000, id="not UTF-8"),
    pytest.param(b'{"' + b"a" * 10_000_000 + b'": 1}', id="one long key"),
    pytest.param(b'{"name": "' + b"a" * 10_000_000 + b'", "points": [[1]]}', id="one long name"),
]


def assert_problem(response: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Returns the problem that a response is."""
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["instance"] == response.request.url.path
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"].endswith((".", "}")), problem["detail"]
    assert problem["code"] == problem["code"].upper()
    assert problem["type"] == "urn:mixserve:problem:" + problem["code"].lower().replace("_", "-")
    if code is not None:
        assert problem["code"] == code
    return problem


def post(http: httpx.Client, path: str, content: bytes, **headers: str) -> httpx.Response:
    return http.post(path, content=content, headers={"Content-Type": "application/json"} | headers)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/fits/", 404),
        ("PUT", "/v1/fits", 405),
        ("DELETE", "/livez", 405),
        ("GET", "/v1/fits/fit_00000000000000000000000000", 404),
        ("GET", "/v1/fits/%00", 404),
        ("GET", "/v1/datasets/..%2f..%2fetc", 404),
        ("GET", "/v1/mixtures/" + "m" * 5000, 404),
        ("DELETE", "/v1/datasets/dat_00000000000000000000000000", 404),
        ("DELETE", "/v1/mixtures/nope", 404),
        ("POST", "/v1/fits/nope/cancel", 404),
        ("DELETE", "/v1/fits/nope", 404),
        ("GET", "/v1/fits/nope/events", 404),
        ("GET", "/v1/datasets/nope/points", 404),
    ],
)
def test_what_is_not_there(http: httpx.Client, method: str, path: str, status: int) -> None:
    response = http.request(method, path)
    assert_problem(response, status)


def test_a_wrong_method_is_told_the_right_ones(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    for template, operations in paths.items():
        path = template.format(dataset_id="x", fit_id="x", mixture_id="x")
        response = http.request("PATCH", path)
        assert_problem(response, 405, "METHOD_NOT_ALLOWED")
        methods = {method.upper() for method in operations}
        if "GET" in methods:
            methods.add("HEAD")
        assert response.headers["allow"].split(", ") == sorted(methods)


@pytest.mark.parametrize(
    "line", [b"FETCH / HTTP/1.1", b"GET", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nA"]
)
def test_what_is_no_request_is_a_problem_too(http: httpx.Client, line: bytes) -> None:
    with socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=30) as connection:
        connection.sendall(line + b"\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head.lower()
    assert json.loads(body)["code"] == "BAD_REQUEST"


def test_head_is_answered_as_get_is_without_the_body(http: httpx.Client) -> None:
    dataset = http.post("/v1/datasets", json={"gold": GOLD, "n_samples": 10, "seed": 0}).json()
    fit = http.post("/v1/fits", json={"dataset": {"id": dataset["id"]}, "n_components": 1}).json()
    path = f"/v1/datasets/{dataset['id']}"
    for asked in (
        "/",
        "/docs",
        "/openapi.json",
        "/livez",
        "/v1/fits",
        path,
        f"{path}/points",
        "/v1/fits/nope",
    ):
        head, get = http.head(asked), http.get(asked)
        assert head.status_code == get.status_code
        assert head.content == b""
        for name in ("content-type", "content-length", "etag"):
            assert head.headers.get(name) == get.headers.get(name)
    assert http.head(path, headers={"If-None-Match": http.head(path).headers["etag"]}).status_code == 304
    assert http.head("/v1/fits/nope/cancel").status_code == 405
    # Nobody takes this fit from the queue, so its stream would not end; and the connection stays good.
    events = http.head(f"/v1/fits/{fit['id']}/events")
    assert events.headers["content-type"].startswith("text/event-stream")
    assert http.post(f"/v1/fits/{fit['id']}/cancel").json()["status"] == "cancelled"


@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/fits", "/v1/mixtures"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"3",
        b'"x"',
        b"{}",
        b'{"nonsense": 1}',
        b"\xff\xfe",
        b'{"a": "\\ud800"}',
        b"NaN",
    ],
)
def test_bodies_that_are_no_request(http: httpx.Client, path: str, body: bytes) -> None:
    problem = assert_problem(post(http, path, body), 422)
    assert 1 <= len(problem["errors"]) <= 20
    assert "pydantic" not in str(problem)


@pytest.mark.parametrize("body", NONSENSE)
def test_ten_megabytes_of_nonsense_are_refused_quickly(sqlite_api: Server, body: bytes) -> None:
    # No database has a part in it.
    with sqlite_api.client() as http:
        post(http, "/v1/datasets", b"{}")  # a connection that stands
        begun = time.perf_counter()
        reference = _seconds_to_read(body)
        response = post(http, "/v1/datasets", body)
        seconds = time.perf_counter() - begun - reference
    assert_problem(response, 422)
    assert len(response.content) < 4000
    # In units of what Python's own parser takes for as large a body that is fine, about half a second.
    assert seconds < 5 * reference


def _seconds_to_read(body: bytes) -> float:
    fine = b"[" + b"[1.5]," * (len(body) // 6) + b"[1]]"
    begun = time.perf_counter()
    json.loads(fine)
    return time.perf_counter() - begun


def test_errors_point_at_their_places_and_repeat_nothing(http: httpx.Client) -> None:
    secret = "hunter2-hunter2"
    body = {
        "dataset": {"gold": GOLD | {"weights": [0.2, 0.4, secret]}},
        "n_components": [3, secret],
        "covariance_type": secret,
        "optimizer": {"name": "sgd", "learning_rate": secret},
        "initialization": {"method": "kmeans++", "mixture_id": secret},
        "tolerance": -1,
        "selection": {"criterion": secret},
    }
    response = http.post("/v1/fits", json=body)
    problem = assert_problem(response, 422, "INVALID_REQUEST")
    assert {error["pointer"] for error in problem["errors"]} == {
        "/dataset/gold/weights/2",
        "/n_components/1",
        "/covariance_type",
        "/optimizer/learning_rate",
        "/initialization/mixture_id",
        "/tolerance",
        "/selection",
    }
    assert secret not in response.text


def test_at_most_twenty_errors(http: httpx.Client) -> None:
    body = {f"unknown_{i}": i for i in range(100)} | {"points": [[1.0]]}
    assert len(assert_problem(http.post("/v1/datasets", json=body), 422)["errors"]) == 20


def test_unknown_query_parameters_are_refused_everywhere(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert len(paths) >= 15
    for template, operations in paths.items():
        path = template.format(dataset_id="x", fit_id="x", mixture_id="x")
        for method in operations:
            json = {} if method == "post" else None
            problem = assert_problem(http.request(method, f"{path}?no_such=1", json=json), 422)
            assert problem["errors"][0]["pointer"] == "/no_such"


@pytest.mark.parametrize(
    "query", ["page_size=1&page_size=1", "page_size=1&page_size=x", "status=&status=queued"]
)
def test_query_parameters_are_given_once(http: httpx.Client, query: str) -> None:
    problem = assert_problem(http.get(f"/v1/fits?{query}"), 422)
    assert problem["errors"] == [{"pointer": f"/{query.partition('=')[0]}", "message": "must be given once"}]


def test_media_types_that_are_not_spoken(http: httpx.Client) -> None:
    assert_problem(http.post("/v1/datasets", data={"points": "1"}), 415, "UNSUPPORTED_MEDIA_TYPE")
    assert_problem(http.get("/v1/fits", headers={"Accept": "text/html"}), 406, "NOT_ACCEPTABLE")
    assert_problem(http.get("/v1/fits", headers={"Accept": "nonsense"}), 406, "NOT_ACCEPTABLE")
    assert_problem(http.get("/v1/fits", headers={"Accept": "application/json;q=0"}), 406, "NOT_ACCEPTABLE")
    assert http.get("/v1/fits", headers={"Accept": "text/html, application/*;q=0.1"}).status_code == 200


def test_a_refused_accept_changes_nothing(http: httpx.Client) -> None:
    name = "never made"
    body = {"points": [[1.0]], "name": name}
    assert_problem(http.post("/v1/datasets", json=body, headers={"Accept": "image/png"}), 406)
    assert name not in {item["name"] for item in http.get("/v1/datasets").json()["items"]}


def test_request_ids_are_taken_when_well_formed(http: httpx.Client) -> None:
    for given, kept in [
        ("abc-1.2_3", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        ("", False),
    ]:
        answered = http.get("/livez", headers={"X-Request-Id": given}).headers["x-request-id"]
        assert (answered == given) is kept
        assert len(answered) >= 16 or kept
