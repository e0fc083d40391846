"""The number contract, wherever numbers go in or come out."""

import json
import math

import httpx
import pytest

from tests.api.test_problems import assert_problem, post
from tests.serving import GOLD

BAD = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    '"1.5"',
    "true",
    "null",
    "[]",
    "{}",
    "0x10",
    "+1",
    "1.",
]
PLACES = [
    ("/v1/datasets", '{"points": [[1.0, %s]]}'),
    ("/v1/mixtures", '{"weights": [%s], "means": [[0]], "covariances": [[[1]]]}'),
    ("/v1/mixtures", '{"weights": [1], "means": [[%s]], "covariances": [[[1]]]}'),
    ("/v1/mixtures", '{"weights": [1], "means": [[0]], "covariances": [[[%s]]]}'),
    ("/v1/mixtures", '{"weights": [1], "means": [[0]], "standard_deviations": [[%s]]}'),
    ("/v1/fits", '{"dataset": {"points": [[1],[2],[%s]]}, "n_components": 1}'),
    ("/v1/fits", '{"dataset": {"points": [[1],[2]], "weights": [1, %s]}, "n_components": 1}'),
    ("/v1/fits", '{"dataset": {"points": [[1],[2]]}, "n_components": %s}'),
    ("/v1/fits", '{"dataset": {"points": [[1],[2]]}, "n_components": 1, "tolerance": %s}'),
    ("/v1/fits", '{"dataset": {"points": [[1],[2]]}, "n_components": 1, "seed": %s}'),
]


@pytest.mark.parametrize(("path", "template"), PLACES)
@pytest.mark.parametrize("number", BAD)
def test_what_is_no_finite_number_is_refused(
    http: httpx.Client, path: str, template: str, number: str
) -> None:
    assert_problem(post(http, path, (template % number).encode()), 422)


def test_a_whole_number_may_have_a_point(http: httpx.Client) -> None:
    template = '{"dataset": {"points": [[1],[2],[3]]}, "n_components": [%s], "n_init": %s, "priority": %s}'
    request = (
        post(http, "/v1/fits", (template % ("2.0", "3e0", "1.0")).encode())
        .raise_for_status()
        .json()["request"]
    )
    assert [request["n_components"], request["n_init"], request["priority"]] == [[2], 3, 1]
    assert "." not in json.dumps([request["n_components"], request["n_init"], request["priority"]])
    assert_problem(post(http, "/v1/fits", (template % ("2.5", "3", "1")).encode()), 422)
    assert_problem(post(http, "/v1/fits", (template % ("2", "0.0", "1")).encode()), 422)


def test_points_keep_every_bit(http: httpx.Client) -> None:
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2.0**53 + 2, -1e-200, 123456789.123456789]
    dataset = http.post("/v1/datasets", json={"points": [[number] for number in numbers]}).json()
    back = http.get(f"/v1/datasets/{dataset['id']}/points").json()["points"]
    assert [number.hex() for (number,) in back] == [number.hex() for number in numbers]


def test_numbers_that_are_not_finite_are_written_as_strings(http: httpx.Client) -> None:
    mixture = http.post("/v1/mixtures", json=GOLD).json()
    asked = {"points": [[1e308, -1e308], [0, 0]]}
    response = http.post(f"/v1/mixtures/{mixture['id']}/log-density?per_component=true", json=asked)
    answer = json.loads(response.text, parse_constant=lambda name: pytest.fail(f"bare {name}"))
    assert answer["log_density"][0] == "-Infinity"
    assert math.isfinite(answer["log_density"][1])
    assert answer["component_log_density"][0] == ["-Infinity"] * 3
