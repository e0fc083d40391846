"""Backups of a service that goes on, and what comes back from them; what is no backup brings back nothing."""

import io
import itertools
import json
import sqlite3
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.codecs.compression import zstd_file
from service.errors import ServiceError
from service.storage import archives, backups, datasets, fits, migrations
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.tables import DatasetRow
from tests.serving import Server, command, environment, serving, until
from tests.storage.making import add_dataset, claimed, events_of, fit_row, queue_fit


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data folder, migrated."""
    with closing(Database(f"sqlite:///{tmp_path / 'data' / 'mixserve.sqlite3'}")) as database:
        migrations.upgrade(database)
    return tmp_path / "data"


@pytest.fixture
def kept(place: Path) -> Iterator[Database]:
    with closing(Database(f"sqlite:///{place / 'mixserve.sqlite3'}")) as database:
        yield database


def back_up(place: Path, archive: Path) -> dict[str, Any]:
    return backups.back_up(place / "mixserve.sqlite3", DatasetStore(place / "datasets"), archive)


def restore(archive: Path, to: Path) -> dict[str, Any]:
    return backups.restore(archive, to / "mixserve.sqlite3", to / "datasets")


def points_of(database: Database, store: DatasetStore, dataset_id: str) -> list[list[float]]:
    with database.read() as session:
        sha256 = datasets.get(session, dataset_id).sha256
    points: list[list[float]] = store.open(sha256).columns().T.tolist()
    return points


def test_all_comes_back_and_what_ran_is_queued(place: Path, kept: Database, tmp_path: Path) -> None:
    store = DatasetStore(place / "datasets")
    points = [[1.5, -0.0], [2.5, 4.0]]
    dataset_id = add_dataset(kept, store, points, components=[0, 1])
    running, waiting = queue_fit(kept, dataset_id), queue_fit(kept, dataset_id)
    with kept.write() as session:  # one whose points are with others
        elsewhere = {"source": "url", "url": "file:///elsewhere", "sha256": "0" * 64, "n_samples": 1}
        session.add(DatasetRow(n_features=1, size_bytes=8, columns=["x"], files=[], **elsewhere))
    held = claimed(kept)
    about = back_up(place, tmp_path / "one.tar.zst")
    assert (about["n_files"], about["revision"]) == (2, migrations.head_revision())
    assert (tmp_path / "one.tar.zst").stat().st_mode & 0o077 == 0  # the hashes of keys are in it
    assert list(store.drafts.iterdir()) == []
    restore(tmp_path / "one.tar.zst", tmp_path / "new" / "data")
    with closing(Database(f"sqlite:///{tmp_path / 'new' / 'data' / 'mixserve.sqlite3'}")) as back:
        again = DatasetStore(tmp_path / "new" / "data" / "datasets")
        assert points_of(back, again, dataset_id) == points
        row = fit_row(back, running)
        assert (row.status, row.token, row.attempt, row.n_workers_lost) == ("queued", None, 1, 0)
        assert events_of(back, running)[:-1] == events_of(kept, running)
        assert events_of(back, running)[-1][1:] == ("status", {"status": "queued"})
        assert (claimed(back).fit_id, claimed(back).fit_id) == (running, waiting)
    assert fit_row(kept, held.fit_id).token == held.token  # what goes on goes on


def test_an_earlier_revision_comes_back_at_todays(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    with closing(Database(f"sqlite:///{old / 'mixserve.sqlite3'}")) as database:
        migrations.upgrade(database, "0001")
    assert back_up(old, tmp_path / "old.tar.zst")["revision"] == "0001"
    restore(tmp_path / "old.tar.zst", new)
    with closing(Database(f"sqlite:///{new / 'mixserve.sqlite3'}")) as database:
        assert migrations.current_revision(database) == migrations.head_revision()


def repacked(archive: Path, changes: dict[str, bytes | None], **about: Any) -> Path:
    """Another archive, in which some files are others, or missing."""
    with (
        archive.open("rb") as raw,
        zstd_file(raw, "rb") as packed,
        tarfile.open(fileobj=packed, mode="r|") as members,
    ):
        files = {member.name: members.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    files["about.json"] = json.dumps(json.loads(files["about.json"]) | about).encode()
    target = archive.with_name("changed.tar.zst")
    with (
        target.open("wb") as raw,
        zstd_file(raw, "wb") as packed,
        tarfile.open(fileobj=packed, mode="w|") as made,
    ):
        for name, content in ({**files, **changes}).items():
            if content is not None:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                made.addfile(member, io.BytesIO(content))
    return target


def test_what_is_no_whole_backup_brings_back_nothing(place: Path, kept: Database, tmp_path: Path) -> None:
    add_dataset(kept, DatasetStore(place / "datasets"), [[1.0], [2.0]])
    whole = tmp_path / "whole.tar.zst"
    back_up(place, whole)
    (points,) = (path.name for path in place.rglob("*.arrow"))
    cut = tmp_path / "cut.tar.zst"
    flipped = bytearray(whole.read_bytes())
    cut.write_bytes(flipped[: len(flipped) // 2])
    other = tmp_path / "other.tar.zst"
    other.write_bytes(b"no archive at all")

    def refused(archive: Path, why: str) -> None:
        with pytest.raises(ValueError, match=why):
            restore(archive, tmp_path / "new")
        assert list((tmp_path / "new").iterdir()) == []

    refused(cut, "damaged")
    refused(other, "is no backup")
    refused(
        repacked(whole, {f"points/{points}": b"other points"}), f"points/{points} is not what was written"
    )
    refused(repacked(whole, {f"points/{points}": None}), f"points/{points} is not what was written")
    refused(repacked(whole, {"about.json": None}), "its end is missing")
    for name in ("../outside", "/tmp/outside", f"points/../{points}", "points/x.arrow", "other"):
        refused(repacked(whole, {name: b""}), "which no backup has")
    refused(repacked(whole, {}, revision="9999", version="9.0"), r"of mixserve 9.0, a later release")
    refused(repacked(whole, {}, format=2), "a later release")
    assert not (tmp_path / "outside").exists()
    restore(whole, tmp_path / "new")


def test_nothing_is_written_over_and_a_hole_is_told(place: Path, kept: Database, tmp_path: Path) -> None:
    add_dataset(kept, DatasetStore(place / "datasets"))
    target = tmp_path / "taken"
    target.write_text("mine")
    with pytest.raises(FileExistsError):
        back_up(place, target)
    assert target.read_text() == "mine"
    (points,) = place.rglob("*.arrow")
    points.unlink()
    with pytest.raises(ServiceError, match=points.name):
        back_up(place, tmp_path / "holed")
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "data"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("busy")) as running:
        yield running


def mixserve(*arguments: Any, **settings: Any) -> subprocess.CompletedProcess[str]:
    said = [str(argument) for argument in arguments]
    environ = environment(**settings)
    return subprocess.run(command(*said), env=environ, capture_output=True, text=True, check=False)


@dataclass
class Writers:
    """Clients that store datasets, have them fitted, and delete every other one again."""

    server: Server
    enough: threading.Event = field(default_factory=threading.Event)
    stored: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def write(self, number: int) -> None:
        with self.server.client() as http:
            for n in itertools.count():
                if self.enough.is_set():
                    return
                made = http.post("/v1/datasets", json={"points": [[float(number), float(n)], [0.0, 1.0]]})
                body = {"dataset": {"id": made.json().get("id", "")}, "n_components": 1, "n_init": 1}
                fit = http.post("/v1/fits", json=body, headers={"Prefer": "wait=5"} if n % 4 == 1 else {})
                self.failed += [answer.text for answer in (made, fit) if not answer.is_success]
                if n % 2:
                    http.delete(made.headers["location"])
                else:
                    self.stored.append(made.json()["id"])


def assert_whole(to: Path, stored: list[str]) -> None:
    """A folder has all that was stored, each with its points."""
    with closing(Database(f"sqlite:///{to / 'mixserve.sqlite3'}")) as back, back.read() as session:
        rows, more = datasets.page(session, 100_000, None)
        states = {row.status for row in fits.page(session, 100_000, None)[0]}
    assert not more
    assert {row.id for row in rows} >= set(stored)
    assert states
    assert "running" not in states
    store = DatasetStore(to / "datasets")
    assert all(store.open(row.sha256).n_rows == row.n_samples for row in rows)
    with closing(sqlite3.connect(to / "mixserve.sqlite3")) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_service_that_is_written_to_is_backed_up_as_of_one_moment(server: Server, tmp_path: Path) -> None:
    writers = Writers(server)
    threads = [threading.Thread(target=writers.write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(writers.stored) > 5)
    before = list(writers.stored)
    archive, to = tmp_path / "busy.tar.zst", tmp_path / "restored"
    done = mixserve("backup", archive, "--data-dir", server.data_dir)
    writers.enough.set()
    for thread in threads:
        thread.join()
    assert (done.returncode, writers.failed) == (0, []), done.stderr
    done = mixserve("restore", archive, "--data-dir", to)
    assert done.returncode == 0, done.stderr
    assert_whole(to, before)
    refused = mixserve("restore", archive, "--data-dir", server.data_dir)
    assert (refused.returncode, "is not empty" in refused.stderr) == (1, True)


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_postgresql_is_backed_up_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("MIXSERVE_DATABASE_URL", "postgresql+psycopg://127.0.0.1/none")
    refused = CliRunner().invoke(app, [command, str(tmp_path / "x")])
    assert (refused.exit_code, "docs/postgresql.md" in refused.stderr) == (1, True)
    assert not (tmp_path / "x").exists()


def test_archives_say_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"of a")
    archives.write(tmp_path / "b", [("one", tmp_path / "a")], {"said": 1})
    found = archives.read(tmp_path / "b", lambda name: tmp_path / "out" / name)
    assert (found["said"], (tmp_path / "out" / "one").read_bytes()) == (1, b"of a")
