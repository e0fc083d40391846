"""Strings and numbers made to hurt, in every place of every request: refused or kept as they are."""

import copy
import json
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.serving import GOLD

Path = tuple[str | int, ...]
STRINGS = {
    "NUL": "\x00",
    "NUL within": "a\x00b",
    "a way out": "../../../etc/passwd",
    "dots": "..",
    "markup": "<img src=x onerror=alert(1)>\"'&<script>alert(1)</script>",
    "SQL": "'; DROP TABLE fits; --",
    "a template": "{{7*7}}${7*7}%s%n",
    "mathematics": r"$\frac{1}{$",
    "lines": "a\r\nX-Injected: b",
    "a terminal": "\x1b[2J\x1b]0;x\x07",
    "right to left": "\u202egnp.exe",
    "no character": "\uffff\U0010ffff",
    "endless": "a" * 100_000,
    "nothing": "",
}
SURROGATES = [r'"\ud800"', r'"\udc00\ud800"']
NUMBERS = [
    *("1e308", "-1e308", "1.7976931348623157e308", "5e-324", "-0.0", "1e-300", "0", "-1", "0.5"),
    *("1" + "0" * 300, "9007199254740991", "9007199254740992", "9223372036854775808", "1e400", "-1e400"),
    *("1" + "0" * 400, "9" * 5000, "0." + "0" * 5000 + "1", "true", '"1"', "null", "[]", "{}"),
]
POINTS = [[0.0, 1.0], [1.0, 0.5], [2.0, 2.5], [3.0, 0.0]]
FIT = {
    "dataset": {"points": POINTS, "weights": [1, 1, 1, 0.5]},
    "n_components": [1, 2],
    "covariance_type": ["full", "diag"],
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.5, "batch_size": 2},
    "initialization": {"method": "kmeans"},
    "n_init": 2,
    "tolerance": 1e-6,
    "max_steps": 10,
    "regularization": 1e-6,
    "selection": {"criterion": "held_out", "fraction": 0.1},
    "seed": 0,
    "device": "cpu",
    "devices": 1,
    "dtype": "float64",
    "priority": 0,
    "timeout_seconds": 5,
    "metadata": {"a": "b", "c": {"d": ["e", 1]}},
}
BODIES: dict[str, list[dict[str, Any]]] = {
    "/v1/datasets": [
        {"points": [[1.0, 2.0]], "name": "a", "columns": ["b", "c"]},
        {"gold": GOLD, "n_samples": 5, "seed": 1, "name": "a", "columns": ["b", "c"]},
    ],
    "/v1/mixtures": [
        GOLD | {"name": "a", "columns": ["b", "c"]},
        {
            "weights": [1],
            "means": [[0, 0]],
            "standard_deviations": [[1, 2]],
            "correlations": [[[1, 0], [0, 1]]],
        },
    ],
    "/v1/fits": [
        FIT,
        FIT | {"dataset": {"id": "a"}},
        FIT
        | {"dataset": {"gold": GOLD, "n_samples": 9, "seed": 1}, "n_components": 3, "covariance_type": "VVE"},
        {"dataset": {"id": "a"}, "n_components": 3, "initialization": {"method": "mixture", "mixture": GOLD}},
        {
            "dataset": {"id": "a"},
            "n_components": 1,
            "initialization": {"method": "mixture", "mixture_id": "a"},
        },
    ],
    "/v1/mixtures/{mixture}/log-density": [{"points": POINTS, "columns": ["b", "c"]}],
    "/v1/mixtures/{mixture}/responsibilities": [{"points": POINTS}],
    "/v1/mixtures/{mixture}/samples": [{"n_samples": 3, "seed": 1}],
}


def leaves(value: Any, kind: type | tuple[type, ...], path: Path = ()) -> Iterator[Path]:
    """Yields where in a body values of a kind are; of long lists the first place tells for all."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, kind, (*path, name))
    elif isinstance(value, list):
        if value:
            yield from leaves(value[-1], kind, (*path, len(value) - 1))
    elif isinstance(value, kind) and not isinstance(value, bool):
        yield path


def replaced(body: dict[str, Any], path: Path, text: str) -> str:
    """Returns a body as JSON with another text, as it is, at a place."""
    changed = copy.deepcopy(body)
    parent: Any = changed
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = "@here@"
    return json.dumps(changed).replace('"@here@"', text)


@pytest.fixture(scope="module")
def mixture(http: httpx.Client) -> str:
    named = GOLD | {"columns": ["b", "c"]}
    return str(http.post("/v1/mixtures", json=named).raise_for_status().json()["id"])


def sent(http: httpx.Client, path: str, body: str) -> httpx.Response:
    answer = http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, f"{path} {body[:300]}: {answer.text[:500]}"
    return answer


@pytest.mark.parametrize("path", BODIES)
def test_strings_in_every_place(http: httpx.Client, mixture: str, path: str) -> None:
    others = cycle(text for name, text in STRINGS.items() if "NUL" not in name)
    for body in BODIES[path]:
        for place in leaves(body, str):
            refused = [json.dumps(STRINGS["NUL"]), json.dumps(STRINGS["NUL within"]), *SURROGATES]
            for text in refused:
                answer = sent(http, path.format(mixture=mixture), replaced(body, place, text))
                assert 400 <= answer.status_code < 500, (path, place, text)
            for text in islice(others, 4):  # each of them comes to some places
                sent(http, path.format(mixture=mixture), replaced(body, place, json.dumps(text)))


@pytest.mark.parametrize("path", BODIES)
def test_strings_as_names_of_fields(http: httpx.Client, mixture: str, path: str) -> None:
    for body in BODIES[path]:
        for text in STRINGS.values():
            answer = sent(http, path.format(mixture=mixture), json.dumps(body | {text: 1}))
            assert answer.status_code in (404, 422)
            assert (
                "<script>" not in answer.text or answer.headers["content-type"] == "application/problem+json"
            )


@pytest.mark.parametrize("path", BODIES)
def test_numbers_in_every_place(http: httpx.Client, mixture: str, path: str) -> None:
    numbers = cycle(NUMBERS)
    for body in BODIES[path]:
        for place in leaves(body, (int, float)):
            for number in islice(numbers, 9):  # no divisor of how many there are
                sent(http, path.format(mixture=mixture), replaced(body, place, number))


def test_strings_in_every_query_and_header(http: httpx.Client, mixture: str) -> None:
    document = http.get("/openapi.json").json()
    made = {"mixture_id": mixture, "dataset_id": "dat_x", "fit_id": "fit_x"}
    for template, operations in document["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", ()):
                for text in [*STRINGS.values(), "\ud800"]:
                    value = text.encode("utf-8", "surrogatepass")[:20_000]
                    kind, name = parameter["in"], parameter["name"]
                    path = template.format(**{**made, **({name: quote(value)} if kind == "path" else {})})
                    query = f"{name}={quote(value)}" if kind == "query" else None
                    # What is left out of a header is no part of one: tests of raw bytes have it.
                    header = value.translate(None, b"\x00\r\n").strip()
                    headers = {name.encode(): header} if kind == "header" else {}
                    answer = http.request(method, path, params=query, headers=headers, content=b"[]")
                    assert answer.status_code < 500, (template, name, text)


HUGE = 4700
"""So many features make matrices that no answer is to hold, of a mixture that takes some kilobytes itself."""
ROUND = {"weights": [1], "means": [[0] * HUGE], "covariances": [1], "covariance_type": "spherical"}
LONG = {"weights": [1], "means": [[0] * HUGE], "standard_deviations": [[1] * HUGE]}
NPY_HEAD = "{'descr': '<f8', 'fortran_order': False, 'shape': (%d, %d), }"
SIZES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a mixture's matrices": ("/v1/mixtures", ROUND, "INVALID_MIXTURE"),
    "a mixture's matrices by deviations": ("/v1/mixtures", LONG, "INVALID_MIXTURE"),
    "a gold mixture's matrices": ("/v1/datasets", {"gold": ROUND, "n_samples": 1}, "INVALID_MIXTURE"),
    "points drawn": ("/v1/datasets", {"gold": GOLD, "n_samples": 10**15}, "DATASET_TOO_LARGE"),
    "points drawn for a fit": (
        "/v1/fits",
        {"dataset": {"gold": GOLD, "n_samples": 10**15}, "n_components": 1},
        "DATASET_TOO_LARGE",
    ),
    "a fit's gold mixture": ("/v1/fits", {"dataset": {"gold": ROUND}, "n_components": 1}, "INVALID_MIXTURE"),
    "a mixture to start from": (
        "/v1/fits",
        FIT | {"n_components": 1, "initialization": {"method": "mixture", "mixture": ROUND}},
        "INVALID_MIXTURE",
    ),
    "components": ("/v1/fits", FIT | {"n_components": 2**53 - 1}, "INVALID_REQUEST"),
    "candidates": ("/v1/fits", FIT | {"n_components": list(range(1, 200))}, "INVALID_REQUEST"),
    "restarts": ("/v1/fits", FIT | {"n_init": 10**6}, "INVALID_REQUEST"),
    "steps": ("/v1/fits", FIT | {"max_steps": 10**12}, "INVALID_REQUEST"),
    "a minibatch": (
        "/v1/fits",
        FIT | {"optimizer": {"name": "sgd", "learning_rate": 0.1, "batch_size": 2**60}},
        "INVALID_REQUEST",
    ),
    "devices": ("/v1/fits", FIT | {"devices": 10**6}, "INVALID_REQUEST"),
    "samples": ("/v1/mixtures/{mixture}/samples", {"n_samples": 10**12}, "ANSWER_TOO_LARGE"),
    "names": (
        "/v1/mixtures/{mixture}/log-density",
        {"points": POINTS, "columns": [f"c{n}" for n in range(60_000)]},
        "INVALID_REQUEST",
    ),
}


@pytest.mark.parametrize("what", SIZES)
def test_what_a_body_asks_for_is_estimated_before_it_is_there(
    http: httpx.Client, mixture: str, what: str
) -> None:
    path, body, code = SIZES[what]
    answer = sent(http, path.format(mixture=mixture), json.dumps(body))
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text[:500]


@pytest.mark.parametrize("shape", [(10**15, 2), (2, 10**15), (10**9, 10**9)])
def test_what_a_head_says_is_estimated_before_it_is_there(
    http: httpx.Client, mixture: str, shape: tuple[int, int]
) -> None:
    head = (NPY_HEAD % shape).ljust(117).encode() + b"\n"
    body = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(64)
    for path in ("/v1/datasets", f"/v1/mixtures/{mixture}/log-density"):
        answer = http.post(path, content=body, headers={"Content-Type": "application/x-npy"})
        assert answer.status_code == 422, answer.text


def test_what_a_query_asks_for_is_no_more_than_there_is(http: httpx.Client, mixture: str) -> None:
    dataset = http.post("/v1/datasets", json={"points": POINTS}).json()["id"]
    for query in ("limit=9007199254740993", "sample=9007199254740993", f"limit={2**70}"):
        answer = http.get(f"/v1/datasets/{dataset}/points?{query}")
        assert answer.status_code in (200, 422), answer.text
        assert answer.status_code == 422 or len(answer.json()["points"]) == len(POINTS)
    for kind in ("fits", "datasets", "mixtures"):
        assert len(http.get(f"/v1/{kind}?page_size={2**60}").json()["items"]) <= 200
    answer = http.post(
        f"/v1/mixtures/{mixture}/log-density?columns={'a,' * 30_000}",
        content="0,1\n",
        headers={"Content-Type": "text/csv"},
    )
    assert answer.status_code == 422


def test_names_come_back_as_they_were_and_are_drawn(http: httpx.Client) -> None:
    kept = ("a way out", "markup", "a template", "mathematics")
    for name in kept:
        columns = [STRINGS[name], "b"]
        made = http.post("/v1/mixtures", json=GOLD | {"name": STRINGS[name], "columns": columns}).json()
        answer = http.get(f"/v1/mixtures/{made['id']}")
        assert (answer.json()["name"], answer.json()["columns"]) == (STRINGS[name], columns)
        assert answer.headers["content-type"] == "application/json"
        for kind in ("scatter", "density") if name == "markup" else ("density",):
            picture = http.get(f"/v1/mixtures/{made['id']}/plot.svg?kind={kind}")
            assert picture.status_code == 200, (name, picture.text)
            assert "<script" not in picture.text
            assert "onerror=alert(1)>" not in picture.text
