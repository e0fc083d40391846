"""/v1/mixtures, and what a mixture can be asked."""

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.api import mixtures
from service.api.specifications import mixture_of_row, size_bytes
from service.app import create_app
from service.errors import Unprocessable
from service.settings import Settings
from service.storage import migrations
from service.storage.tables import MixtureRow
from tests import oracles
from tests.api.test_problems import assert_problem
from tests.serving import GOLD


def created(http: httpx.Client, **body: Any) -> dict[str, Any]:
    response = http.post("/v1/mixtures", json=body)
    assert response.status_code == 201, response.text
    return response.json()


def test_a_given_mixture_in_canonical_order(http: httpx.Client) -> None:
    mixture = created(http, **GOLD, name="gold", columns=["x", "y"])
    assert mixture["weights"] == [0.4, 0.4, 0.2]
    assert mixture["means"] == [[-1, 1], [1, 1], [-1, -1]]
    assert (mixture["n_components"], mixture["n_features"], mixture["fit_id"]) == (3, 2, None)
    assert (mixture["name"], mixture["columns"]) == ("gold", ["x", "y"])
    covariances = np.array(mixture["covariances"])
    assert np.array(mixture["precisions"]) == pytest.approx(np.linalg.inv(covariances))
    deviations = np.sqrt(covariances[:, [0, 1], [0, 1]])
    assert np.array(mixture["standard_deviations"]) == pytest.approx(deviations)
    assert np.array(mixture["correlations"])[1, 0, 1] == pytest.approx(0.8)
    response = http.get(f"/v1/mixtures/{mixture['id']}")
    assert response.json() == mixture
    again = http.get(f"/v1/mixtures/{mixture['id']}", headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304


def test_deviations_and_correlations_say_the_same(http: httpx.Client) -> None:
    correlation = [[[1, 0], [0, 1]], [[1, 0], [0, 1]], [[1, 0.8], [0.8, 1]]]
    body = {
        "weights": GOLD["weights"],
        "means": GOLD["means"],
        "standard_deviations": [[0.5, 0.2], [0.3, 0.3], [0.4, 0.5]],
        "correlations": correlation,
    }
    told, given = created(http, **body), created(http, **GOLD)
    assert np.array(told["covariances"]) == pytest.approx(np.array(given["covariances"]))


@pytest.mark.parametrize(
    ("covariance_type", "covariances"),
    [("tied", [[2.0, 0.5], [0.5, 1.0]]), ("diag", [[1.0, 2.0], [3.0, 4.0]]), ("spherical", [1.5, 2.5])],
)
def test_shapes_of_covariances(http: httpx.Client, covariance_type: str, covariances: list[Any]) -> None:
    body = {"weights": [0.5, 0.5], "means": [[0.0, 0.0], [1.0, 1.0]]}
    mixture = created(http, **body, covariance_type=covariance_type, covariances=covariances)
    assert mixture["covariances"] == covariances
    assert np.array(mixture["precisions"]).shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("change", "pointer", "saying"),
    [
        ({"weights": [0.2, 0.4, 0.5]}, "/weights", "1.1"),
        ({"weights": [-0.2, 0.8, 0.4]}, "/weights", "-0.2"),
        ({"weights": [0.2, 0.8]}, "", ""),
        ({"means": [[0, 0], [1], [2, 2]]}, "/means", ""),
        ({"covariances": [[[1, 2], [2, 1]], *GOLD["covariances"][1:]]}, "/covariances/0", "eigenvalue"),
        ({"covariances": [[[1, 0.5], [0.2, 1]], *GOLD["covariances"][1:]]}, "/covariances/0", "symmetric"),
        ({"covariances": [1, 1, 1]}, "/covariances", "shape"),
        ({"covariance_type": "diag"}, "/covariances", "shape"),
        ({"covariances": None}, "", "covariances"),
        ({"standard_deviations": [[1, 1]] * 3}, "", "both"),
        ({"columns": ["only one"]}, "/columns", "2 features"),
    ],
)
def test_mixtures_that_are_refused(
    http: httpx.Client, change: dict[str, Any], pointer: str, saying: str
) -> None:
    problem = assert_problem(http.post("/v1/mixtures", json={**GOLD, **change}), 422)
    assert problem["errors"][0]["pointer"].startswith(pointer)
    assert saying in problem["detail"]


@pytest.mark.parametrize(
    ("weights", "means", "deviations", "points"),
    [
        pytest.param([1.0], [[5.0]], [[2.0]], [[5.0], [85.0], [-75.0]], id="one feature, forty deviations"),
        pytest.param(
            [0.5, 0.5], [[1e3, 1e3], [1e3 + 1e-5, 1e3]], [[1e-6, 1e-6]] * 2, [[1e3, 1e3]], id="narrow"
        ),
        pytest.param(
            [0.3, 0.7], [[0, 0, 0], [1, 2, 3]], [[1, 2, 3], [0.1, 1, 10]], [[40, 80, 120]], id="tails"
        ),
    ],
)
def test_answers_equal_the_definition(
    http: httpx.Client, weights: list[Any], means: list[Any], deviations: list[Any], points: list[Any]
) -> None:
    mixture = created(http, weights=weights, means=means, standard_deviations=deviations)
    arrays = (
        np.array(points, float),
        np.array(mixture["weights"]),
        np.array(mixture["means"], float),
        np.array(mixture["covariances"]),
    )
    path = f"/v1/mixtures/{mixture['id']}"
    answer = http.post(f"{path}/log-density?per_component=true", json={"points": points}).json()
    assert answer["log_density"] == pytest.approx(oracles.log_density(*arrays), rel=1e-10)
    by_component = oracles.component_log_density(arrays[0], arrays[2], arrays[3])
    assert np.array(answer["component_log_density"]) == pytest.approx(by_component, rel=1e-10)
    answer = http.post(f"{path}/responsibilities", json={"points": points}).json()
    posterior = oracles.responsibilities(*arrays)
    assert np.array(answer["responsibilities"]) == pytest.approx(posterior, rel=1e-10)
    assert answer["labels"] == posterior.argmax(1).tolist()


def test_samples_are_reproducible_by_seed_and_fresh_without(http: httpx.Client) -> None:
    mixture = created(http, **GOLD)
    path = f"/v1/mixtures/{mixture['id']}/samples"
    first = http.post(path, json={"n_samples": 50, "seed": 3}).json()
    assert http.post(path, json={"n_samples": 50, "seed": 3}).json() == first
    fresh, other = (http.post(path, json={"n_samples": 50}).json() for _ in range(2))
    assert fresh["seed"] != other["seed"]
    assert fresh["points"] != other["points"]
    assert http.post(path, json={"n_samples": 50, "seed": fresh["seed"]}).json() == fresh
    assert len(http.post(path, json={}).json()["points"]) == 1000


def test_samples_come_mixed_with_the_right_moments(http: httpx.Client) -> None:
    mixture = created(http, **GOLD)
    drawn = http.post(f"/v1/mixtures/{mixture['id']}/samples", json={"n_samples": 20_000, "seed": 0}).json()
    points, components = np.array(drawn["points"]), np.array(drawn["components"])
    changes = np.count_nonzero(np.diff(components)) / len(components)
    weights = np.array(mixture["weights"])
    assert changes == pytest.approx(1 - np.sum(weights**2), abs=0.02)
    for k in range(3):
        own = points[components == k]
        assert own.mean(0) == pytest.approx(np.array(mixture["means"][k]), abs=0.03)
        assert np.cov(own.T) == pytest.approx(np.array(mixture["covariances"][k]), abs=0.02)


def test_questions_that_are_refused(http: httpx.Client) -> None:
    mixture = created(http, **GOLD, columns=["x", "y"])
    path = f"/v1/mixtures/{mixture['id']}"
    for question in ("log-density", "responsibilities"):
        problem = assert_problem(
            http.post(f"{path}/{question}", json={"points": [[1]]}), 422, "FEATURES_MISMATCH"
        )
        assert "x, y" in problem["detail"]
        assert_problem(http.post(f"{path}/{question}", json={"points": []}), 422)
        assert_problem(http.post(f"/v1/mixtures/nope/{question}", json={"points": [[1, 2]]}), 404)
    problem = assert_problem(
        http.post(f"{path}/samples", json={"n_samples": 10**12}), 422, "ANSWER_TOO_LARGE"
    )
    assert str(10**12) in problem["detail"]
    assert_problem(http.post(f"{path}/samples", json={"n_samples": 0}), 422)
    assert_problem(http.post(f"{path}/samples", json={"seed": -1}), 422)
    assert_problem(http.post(f"{path}/log-density?per_component=perhaps", json={"points": [[1, 2]]}), 422)


def test_a_deleted_mixture_is_gone(http: httpx.Client) -> None:
    mixture = created(http, **GOLD)
    density = f"/v1/mixtures/{mixture['id']}/log-density"
    assert http.post(density, json={"points": [[0, 0]]}).status_code == 200
    assert http.delete(f"/v1/mixtures/{mixture['id']}").status_code == 204
    assert_problem(http.post(density, json={"points": [[0, 0]]}), 404, "MIXTURE_NOT_FOUND")
    assert_problem(http.get(f"/v1/mixtures/{mixture['id']}"), 404, "MIXTURE_NOT_FOUND")
    assert_problem(http.post(f"/v1/mixtures/{mixture['id']}/samples", json={}), 404)


def test_one_point_of_a_single_component(http: httpx.Client) -> None:
    mixture = created(http, weights=[1], means=[[0]], covariances=[4], covariance_type="spherical")
    answer = http.post(f"/v1/mixtures/{mixture['id']}/log-density", json={"points": [[2]]}).json()
    assert answer["log_density"] == [
        pytest.approx(-0.5 - math.log(2) - 0.5 * math.log(2 * math.pi), rel=1e-14)
    ]


ASKED = [
    {"points": [[0.25, -0.5]]},
    {"points": [[0, 1], [2, 3], [-40, 1e200]]},
    {"points": [[1, 2]] * 20},
    {"points": []},
    {"points": [[1, 2], [3]]},
    {"points": [[1, 2, 3]]},
    {"points": [["1", 2]]},
    {"points": [[None, 2]]},
    {"points": [[1, 2]], "more": 1},
    {"point": [[1, 2]]},
    [[1, 2]],
]


@pytest.mark.parametrize("question", ["log-density", "responsibilities"])
def test_small_questions_are_answered_as_all_others(http: httpx.Client, question: str) -> None:
    path = f"/v1/mixtures/{created(http, **GOLD)['id']}/{question}"
    for body in [*(json.dumps(asked) for asked in ASKED), "", "{", '{"points": [[NaN, 1]]}']:
        answers = [
            http.post(path, content=body, headers={"Content-Type": "application/json", "Accept": accept})
            for accept in ("*/*", "application/json;q=0.9")  # the second is not looked at in the event loop
        ]
        quick, thorough = (answer.json() for answer in answers)
        for answer in (quick, thorough):
            answer.pop("request_id", None)
        assert quick == thorough, body
        assert answers[0].status_code == answers[1].status_code


def test_small_questions_of_a_large_mixture(http: httpx.Client) -> None:
    k, d = 40, 20
    mixture = created(
        http,
        weights=[1 / k] * k,
        means=np.eye(k, d).tolist(),
        covariances=[2.0] * k,
        covariance_type="spherical",
    )
    answer = http.post(f"/v1/mixtures/{mixture['id']}/log-density", json={"points": [[0.0] * d] * 20}).json()
    expected = math.log((20 * math.exp(-0.25) + 20) / 40) - 0.5 * d * math.log(4 * math.pi)
    assert answer["log_density"] == pytest.approx([expected] * 20, rel=1e-12)


def test_a_page_of_large_mixtures_has_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(Settings(data_dir=tmp_path))
    migrations.upgrade(app.state.services.database)
    monkeypatch.setattr(mixtures, "_MOST_PAGE_BYTES", 2 * size_bytes(3, 2))

    async def pages() -> tuple[list[str], list[list[str]]]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://in.process") as http:
            made = [(await http.post("/v1/mixtures", json=GOLD)).json()["id"] for _ in range(3)]
            found: list[list[str]] = []
            token: str | None = ""
            while token is not None:
                query = {"page_size": "3"} | ({"page_token": token} if token else {})
                page = (await http.get("/v1/mixtures", params=query)).json()
                found.append([item["id"] for item in page["items"]])
                token = page.get("next_page_token")
        return made, found

    made, found = asyncio.run(pages())
    assert found == [made[:0:-1], made[:1]]


def test_a_stored_mixture_may_be_too_large_for_an_answer() -> None:
    for use, n_features in ((mixtures.as_answer, 4700), (mixture_of_row, 8200)):
        with pytest.raises(Unprocessable) as refused:
            use(spherical(1, n_features))
        assert refused.value.code == "ANSWER_TOO_LARGE"


def test_the_largest_mixture_that_a_fit_may_have_can_be_asked() -> None:
    assert mixture_of_row(spherical(1024, 256)).n_components == 1024


def spherical(n_components: int, n_features: int) -> MixtureRow:
    weights = np.full(n_components, 1 / n_components)
    parameters = {"means": np.zeros((n_components, n_features)), "covariances": np.ones(n_components)}
    return MixtureRow(id="mix_1", covariance_type="spherical", weights=weights, **parameters)
