"""Pictures over HTTP: of mixtures given, and of fits that a worker has done."""

import struct
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.api import drawing
from service.errors import ServiceError
from tests.api.test_mixtures import created
from tests.api.test_problems import assert_problem
from tests.serving import GOLD, Server

MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png"}


def drawn(response: httpx.Response, image_format: str) -> bytes:
    """Returns a picture, which must be one."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == MEDIA_TYPES[image_format]
    assert response.headers["x-content-type-options"] == "nosniff"
    if image_format == "png":
        assert response.content.startswith(b"\x89PNG\r\n\x1a\n")
        assert min(struct.unpack(">II", response.content[16:24])) > 400
    else:
        assert ET.fromstring(response.content).tag == "{http://www.w3.org/2000/svg}svg"
    return response.content


@pytest.fixture(scope="module")
def mixture(http: httpx.Client) -> dict[str, Any]:
    return created(http, **GOLD, columns=["length", "width"])


@pytest.mark.parametrize("kind", ["scatter", "density"])
@pytest.mark.parametrize("image_format", ["svg", "png"])
def test_a_given_mixture_is_drawn_the_same_each_time(
    http: httpx.Client, mixture: dict[str, Any], kind: str, image_format: str
) -> None:
    path = f"/v1/mixtures/{mixture['id']}/plot.{image_format}?kind={kind}"
    first = http.get(path)
    assert drawn(first, image_format) == drawn(http.get(path), image_format)
    again = http.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_each_picture_has_a_tag_of_its_own(http: httpx.Client, mixture: dict[str, Any]) -> None:
    queries = ["", "?kind=density", "?features=1,0"]
    paths = [f"/v1/mixtures/{mixture['id']}/plot.{kind}{query}" for kind in MEDIA_TYPES for query in queries]
    assert len({http.get(path).headers["etag"] for path in paths}) == len(paths)


def test_one_feature_is_a_histogram_or_a_curve(http: httpx.Client) -> None:
    one = created(http, weights=[0.5, 0.5], means=[[0.0], [4.0]], covariances=[[[1.0]], [[1.0]]])
    pictures = {
        drawn(http.get(f"/v1/mixtures/{one['id']}/plot.svg?kind={kind}&features=0"), "svg")
        for kind in ("scatter", "density")
    }
    assert len(pictures) == 2
    problem = assert_problem(http.get(f"/v1/mixtures/{one['id']}/plot.svg?features=0,1"), 422)
    assert "only one feature" in problem["detail"]


@pytest.mark.parametrize(
    "features", ["0", "0,0", "0,2", "-1,0", "0, 1", "a,b", "", "0,1,0", "01,1", "9" * 99]
)
def test_features_that_are_not_there_are_refused(
    http: httpx.Client, mixture: dict[str, Any], features: str
) -> None:
    problem = assert_problem(
        http.get(f"/v1/mixtures/{mixture['id']}/plot.svg", params={"features": features}), 422
    )
    assert problem["errors"][0]["pointer"] == "/features"
    assert "as in 0,1" in problem["errors"][0]["message"]


def test_what_cannot_be_had_is_said(http: httpx.Client, mixture: dict[str, Any]) -> None:
    path = f"/v1/mixtures/{mixture['id']}/plot"
    assert_problem(http.get(f"{path}.gif"), 404)
    assert_problem(http.get(f"{path}.svg?kind=loss"), 422)
    assert_problem(http.get(f"{path}.svg?colour=red"), 422)
    assert_problem(http.get(f"{path}.svg", headers={"Accept": "image/png"}), 406)
    assert_problem(http.get("/v1/mixtures/mix_nothing/plot.svg"), 404)
    assert_problem(http.get("/v1/fits/fit_nothing/plot.svg"), 404)
    assert http.get(f"{path}.png", headers={"Accept": "image/*"}).status_code == 200


def test_a_fit_that_waits_has_nothing_to_draw(http: httpx.Client) -> None:
    fit = http.post("/v1/fits", json={"dataset": {"points": [[0.0], [1.0]]}, "n_components": 1}).json()
    for kind in ("loss", "criteria", "recovery"):
        problem = assert_problem(http.get(f"/v1/fits/{fit['id']}/plot.svg?kind={kind}"), 409)
        assert problem["code"] == "NOTHING_TO_PLOT"
        assert problem["detail"].startswith("The fit is queued")


def test_without_matplotlib_the_answer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("service.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    import service

    monkeypatch.delattr(service, "plots", raising=False)
    with pytest.raises(ServiceError) as refused:
        drawing.plots_room()
    assert (refused.value.status, refused.value.code) == (501, "PLOTS_NOT_INSTALLED")
    assert "pip install 'mixserve[plots]'" in refused.value.detail


@pytest.fixture(scope="module")
def worked(plain_server: Server) -> Iterator[httpx.Client]:
    """A service with a worker, whose answers are not held against the document: their statuses are, above."""
    with plain_server.client() as client:
        yield client


def fitted(http: httpx.Client, **body: Any) -> dict[str, Any]:
    fit = http.post("/v1/fits", json=body, headers={"Prefer": "wait=60"}).json()
    assert fit["status"] == "succeeded", fit
    return fit


def test_the_pictures_of_a_fit(worked: httpx.Client) -> None:
    dataset = worked.post(
        "/v1/datasets", json={"gold": GOLD, "n_samples": 4000, "columns": ["x", "y"]}
    ).json()
    chosen = fitted(
        worked, dataset={"id": dataset["id"]}, n_components=[2, 3], covariance_type=["full", "diag"], n_init=2
    )
    path = f"/v1/fits/{chosen['id']}"
    tags = set()
    for kind in ("loss", "criteria", "recovery"):
        for image_format in MEDIA_TYPES:
            first, second = (worked.get(f"{path}/plot.{image_format}?kind={kind}") for _ in range(2))
            assert drawn(first, image_format) == drawn(second, image_format)
            tags.add(first.headers["etag"])
            known = {"If-None-Match": first.headers["etag"]}
            assert worked.get(f"{path}/plot.{image_format}?kind={kind}", headers=known).status_code == 304
    assert len(tags) == 6
    assert worked.get(f"{path}/plot.png?kind=recovery&features=1,0").status_code == 200

    events = worked.get(f"{path}/events", headers={"Accept": "application/json"}).json()["items"]
    told = [event for event in events if event["type"] == "progress"]
    traced = {
        (t["n_components"], t["covariance_type"], t["restart"]) for e in told for t in e["data"]["traces"]
    }
    # A restart that stands where another one does is run with it, as one.
    candidates = {(k, kind) for k in (2, 3) for kind in ("full", "diag")}
    assert {(k, kind) for k, kind, _ in traced} == candidates
    assert {restart for _, _, restart in traced} <= {0, 1}
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert (events[-2]["type"], events[-1]["data"]["status"]) == ("progress", "succeeded")
    assert "traces" not in worked.get(path).json()["progress"]

    picture = f"/v1/mixtures/{chosen['result']['mixture_id']}/plot.png"
    before = worked.get(picture)
    worked.delete(f"/v1/datasets/{dataset['id']}")
    after = worked.get(picture, headers={"If-None-Match": before.headers["etag"]})
    assert drawn(after, "png") != drawn(before, "png")  # samples in place of the points that are gone
    problem = worked.get(f"{path}/plot.svg?kind=recovery", headers={"Cache-Control": "no-cache"})
    assert (problem.status_code, problem.json()["code"]) == (409, "NOTHING_TO_PLOT")
    assert "deleted" in problem.json()["detail"]


def test_a_fit_without_a_choice_or_a_truth_says_so(worked: httpx.Client) -> None:
    points = [[float(i % 7), float(i % 5)] for i in range(70)]
    plain = fitted(worked, dataset={"points": points}, n_components=1, n_init=1)
    for kind, says in (("criteria", "as a list"), ("recovery", "gold mixture")):
        answer = worked.get(f"/v1/fits/{plain['id']}/plot.svg?kind={kind}")
        assert (answer.status_code, answer.json()["code"]) == (409, "NOTHING_TO_PLOT")
        assert says in answer.json()["detail"]
    assert worked.get(f"/v1/fits/{plain['id']}/plot.svg").status_code == 200
