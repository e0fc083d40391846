"""The dataset store in an object store: moto's S3 on this machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.errors import ServiceError
from service.storage import datasets, upkeep
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.datasets import NewDataset
from service.storage.remote_files import RemoteFiles
from tests.object_store import bucket_of_this_machine
from tests.serving import GOLD, serving
from tests.storage.making import written

POINTS = np.random.default_rng(0).standard_normal((1000, 3))


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an empty bucket."""
    with bucket_of_this_machine() as query:
        yield f"s3://points/datasets?{query}"


@pytest.fixture
def url(bucket: str, request: pytest.FixtureRequest) -> str:
    """The URL of a prefix of this test's own."""
    return bucket.replace("/datasets?", f"/{request.node.originalname}?")


def _published(store: DatasetStore, rows: np.ndarray) -> str:  # type: ignore[type-arg]
    with store.draft(rows.shape[1]) as draft:
        store.publish(written(draft, rows))
        return draft.sha256


def _names(url: str) -> set[str]:
    return {Path(name).stem for name in RemoteFiles(url).names(-60)}


def test_another_machine_reads_what_one_wrote(url: str, tmp_path: Path) -> None:
    sha256 = _published(DatasetStore(tmp_path / "one", url), POINTS)
    assert _names(url) == {sha256}
    other = DatasetStore(tmp_path / "other", url)
    assert not other.path(sha256).exists()
    np.testing.assert_array_equal(other.open(sha256).columns(), POINTS.T)
    assert other.path(sha256).exists()
    assert list((tmp_path / "other" / "drafts").iterdir()) == []
    other.remove(sha256)
    assert _names(url) == set()
    with pytest.raises(FileNotFoundError):
        DatasetStore(tmp_path / "third", url).open(sha256)


def test_equal_points_are_stored_once(url: str, tmp_path: Path) -> None:
    for machine in ("one", "other", "one"):
        _published(DatasetStore(tmp_path / machine, url), POINTS)
    assert len(_names(url)) == 1


def test_what_a_delete_took_between_sending_and_the_row_is_sent_again(url: str, tmp_path: Path) -> None:
    store = DatasetStore(tmp_path / "one", url)
    with store.draft(3) as draft:
        written(draft, POINTS)
        assert _names(url) == {draft.sha256}
        RemoteFiles(url).remove(f"{draft.sha256[:2]}/{draft.sha256}.arrow")
        store.publish(draft)
        assert _names(url) == {draft.sha256}


def test_copies_are_bounded_and_those_in_use_stay_readable(url: str, tmp_path: Path) -> None:
    rows = [POINTS + index for index in range(4)]
    writer = DatasetStore(tmp_path / "one", url)
    hashes = [_published(writer, part) for part in rows]
    size = writer.path(hashes[0]).stat().st_size
    store = DatasetStore(tmp_path / "other", url, cache_bytes=2 * size)
    first = store.open(hashes[0])
    os.utime(store.path(hashes[0]), (1.0, 1.0))
    for sha256 in hashes[1:]:
        store.open(sha256)
        assert store.path(sha256).exists()
    assert sum(store.path(sha256).exists() for sha256 in hashes) == 2
    assert not store.path(hashes[0]).exists()
    np.testing.assert_array_equal(first.columns(), rows[0].T)
    np.testing.assert_array_equal(store.open(hashes[0]).columns(), rows[0].T)


def test_deleting_leaves_neither_files_nor_rows(url: str, tmp_path: Path, database: Database) -> None:
    store = DatasetStore(tmp_path / "one", url)
    ids = []
    for _ in range(2):
        with store.draft(3) as draft, database.write() as session:
            ids.append(datasets.add(database, store, session, NewDataset(written(draft, POINTS))).id)
    datasets.delete(database, store, ids[0])
    assert len(_names(url)) == 1
    datasets.delete(database, store, ids[1])
    assert _names(url) == set()
    orphan = _published(store, POINTS)
    assert upkeep.sweep(database, store, 3600) == 0
    assert upkeep.sweep(database, store, -60) == 1
    assert orphan not in _names(url)


def test_a_store_that_does_not_answer_is_said_so(tmp_path: Path) -> None:
    url = "s3://points/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    store = DatasetStore(tmp_path, url)
    with pytest.raises(ServiceError) as refused:
        store.open("0" * 64)
    assert (refused.value.code, refused.value.status) == ("STORE_UNAVAILABLE", 503)


def test_a_fit_goes_over_points_in_an_object_store(url: str, tmp_path: Path) -> None:
    with serving(tmp_path, dataset_store_url=url) as server, server.client() as http:
        body = {"dataset": {"gold": GOLD, "n_samples": 500}, "n_components": 3, "n_init": 2}
        fit = http.post("/v1/fits", json=body, headers={"Prefer": "wait=60"}).json()
        assert fit["status"] == "succeeded", fit
        path = f"/v1/datasets/{fit['dataset_id']}"
        assert len(http.get(f"{path}/points").json()["points"]) == 500
        assert len(_names(url)) == 2
        assert http.delete(path).status_code == 204
        assert _names(url) == set()
