"""Who goes first: priority, then age; and small fits do not wait for huge ones."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.test_faults import working
from tests.acceptance.test_service import ENDLESS, SHORT
from tests.conftest import Backend
from tests.serving import serving, until


@pytest.fixture
def settings(backend: Backend, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    url = ""
    if backend == "postgresql":
        url = request.getfixturevalue("postgresql_server").create(migrated=False)
    return {"data_dir": tmp_path, "database_url": url, "lease_seconds": 5}


def _submitted(http: httpx.Client, **request: Any) -> str:
    response = http.post("/v1/fits", json=request)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def test_priority_then_age_decide(settings: dict[str, Any]) -> None:
    with serving(workers=0, **settings) as server, server.client() as http:
        priorities = [0, 3, 0, -2, 3, 0]
        fits = [_submitted(http, **SHORT, priority=priority) for priority in priorities]
        with working(**settings):
            ended = [http.get(f"/v1/fits/{fit}", headers={"Prefer": "wait=60"}).json() for fit in fits]
        assert {fit["status"] for fit in ended} == {"succeeded"}
        begun = sorted(ended, key=lambda fit: fit["started_at"])
        assert [fit["id"] for fit in begun] == [fits[index] for index in (1, 4, 0, 2, 5, 3)]


def test_small_fits_do_not_wait_for_huge_ones(settings: dict[str, Any]) -> None:
    with serving(workers=2, **settings) as server, server.client() as http:
        until(lambda: len(http.get("/v1/workers").json()["items"]) == 2)
        huge = [_submitted(http, **ENDLESS, priority=9) for _ in range(3)]
        until(lambda: http.get(f"/v1/fits/{huge[0]}").json()["status"] == "running")
        for _ in range(3):
            small = http.post("/v1/fits", json=SHORT, headers={"Prefer": "wait=60"}).json()
            assert small["status"] == "succeeded"
            assert [http.get(f"/v1/fits/{fit}").json()["status"] for fit in huge] == [
                "running",
                "queued",
                "queued",
            ]
        # The second goes when the first has gone.
        http.post(f"/v1/fits/{huge[0]}/cancel")
        until(lambda: http.get(f"/v1/fits/{huge[1]}").json()["status"] == "running")
        for fit in huge:
            http.post(f"/v1/fits/{fit}/cancel")
