"""A server removes what is older than it was told to keep."""

from pathlib import Path

import pytest

from tests.acceptance.test_service import SHORT
from tests.conftest import Backend
from tests.serving import serving, until


def test_old_fits_go_and_their_mixtures_stay(
    backend: Backend, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = ""
    if backend == "postgresql":
        url = request.getfixturevalue("postgresql_server").create(migrated=False)
    with serving(tmp_path, database_url=url, retention_days=1) as server, server.client() as http:
        fit = http.post("/v1/fits", json=SHORT, headers={"Prefer": "wait=60"}).json()
        assert http.get(f"/v1/fits/{fit['id']}").status_code == 200
    with (
        serving(tmp_path, workers=0, database_url=url, retention_days=1e-6) as server,
        server.client() as http,
    ):
        until(lambda: http.get(f"/v1/fits/{fit['id']}").status_code == 404)
        assert http.get(f"/v1/fits/{fit['id']}/events").status_code == 404
        assert http.get(f"/v1/mixtures/{fit['result']['mixture_id']}").status_code == 200
        assert http.get(f"/v1/datasets/{fit['dataset_id']}/points").status_code == 200
