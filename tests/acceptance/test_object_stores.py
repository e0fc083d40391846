"""A dataset that stays in an object store, from its registration to a fit of it, and a page about it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect
from pyarrow import fs
from typer.testing import CliRunner

from service.cli import app
from service.client import Client, FitUnsuccessful, Unprocessable
from tests.acceptance.browsing import Visit
from tests.object_store import bucket_of_this_machine
from tests.serving import Server, serving

ROWS = np.concatenate([np.random.default_rng(0).normal(place, 1.0, (1500, 2)) for place in (0.0, 8.0)])


@pytest.fixture(scope="module")
def query() -> Iterator[str]:
    with bucket_of_this_machine() as parameters:
        yield parameters


@pytest.fixture(scope="module")
def server(query: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that may read below one prefix, keeps few of its numbers, and stores next to nothing."""
    prefix = f"s3://points/shared?{query}"
    limits = {"owner_max_stored_bytes": 1, "row_group_cache_bytes": 8000}
    with serving(tmp_path_factory.mktemp("data"), dataset_prefixes=prefix, **limits) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, trust_env=False, retries=0) as opened:
        yield opened


def write(query: str, folder: str, rows: np.ndarray) -> None:  # type: ignore[type-arg]
    files, _ = fs.FileSystem.from_uri(f"s3://points?{query}")
    for number, part in enumerate(np.array_split(rows, 3)):
        table = pa.table({"height": part[:, 0], "width": part[:, 1]})
        pq.write_table(table, f"points/{folder}/{number}.parquet", filesystem=files, row_group_size=300)


def test_a_fit_goes_over_points_where_they_are(
    client: Client, server: Server, query: str, visit: Visit
) -> None:
    write(query, "shared/people", ROWS)
    dataset = client.register("s3://points/shared/people", name="people")
    assert (dataset.source, dataset.n_samples, dataset.columns) == ("url", 3000, ["height", "width"])
    np.testing.assert_array_equal(client.points(dataset.id), ROWS)
    result = client.fit(dataset_id=dataset.id, n_components=2, n_init=2).wait(progress=False)
    np.testing.assert_allclose(sorted(result.mixture.means), [[0, 0], [8, 8]], atol=0.2)
    by_ranks = client.fit(dataset_id=dataset.id, n_components=2, n_init=2, devices=2).wait(progress=False)
    assert by_ranks.log_likelihood == pytest.approx(result.log_likelihood, rel=1e-9)
    assert client.plot("mixtures", result.mixture_id).startswith(b"<?xml")
    assert list(server.data_dir.rglob("*.arrow")) == []

    visit.page.goto(f"/#/datasets/{dataset.id}")
    expect(visit.page.get_by_text("registered at s3://points/shared/people")).to_be_visible()
    expect(visit.page.get_by_role("rowheader", name="width")).to_be_visible()
    assert visit.complaints == []


def test_a_fit_of_files_that_have_changed_fails_and_says_so(client: Client, query: str) -> None:
    write(query, "shared/changing", ROWS)
    dataset = client.register("s3://points/shared/changing")
    write(query, "shared/changing", ROWS + 1)
    with pytest.raises(FitUnsuccessful, match=r"0\.parquet is not what it was") as failed:
        client.fit(dataset_id=dataset.id, n_components=2).wait(progress=False)
    assert failed.value.code == "DATASET_CHANGED"


def test_the_command_line_registers(server: Server, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(query, "shared/columns", ROWS)
    monkeypatch.setenv("MIXSERVE_URL", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    arguments = ["datasets", "register", "s3://points/shared/columns", "--columns", "width"]
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout)["columns"] == ["width"]
    refused = CliRunner().invoke(app, ["datasets", "register", "s3://points/other"])
    assert refused.exit_code == 1
    assert "it must be below one of s3://points/shared" in refused.output


def test_other_buckets_and_folders_are_not_read(client: Client, query: str, tmp_path: Path) -> None:
    write(query, "shared-too/people", ROWS)
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "x.parquet")
    for url in ("s3://points/shared-too/people", "s3://points", f"file://{tmp_path}/x.parquet"):
        with pytest.raises(Unprocessable) as refused:
            client.register(url)
        assert refused.value.code == "URL_NOT_ALLOWED"
