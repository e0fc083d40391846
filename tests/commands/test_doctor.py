"""`mixserve doctor` on installations that are well, and on ones that are not."""

import json
import socket
from pathlib import Path

import pytest

from service.storage import migrations
from service.storage.database import Database
from tests.commands.conftest import Run
from tests.serving import Server


def states(run: Run, *arguments: object, code: int = 0) -> dict[str, tuple[str, str]]:
    found = json.loads(run("doctor", "--json", *arguments, code=code).stdout)
    return {each["check"]: (each["state"], each["message"]) for each in found}


def test_nothing_is_wrong_with_a_service_that_runs(run: Run, server: Server) -> None:
    found = states(run, "--data-dir", server.data_dir, "--port", server.url.rpartition(":")[2])
    checks = {"dependencies", "data folder", "database", "SQLite", "devices", "port", "service"}
    assert found.keys() == checks
    assert {found[name][0] for name in checks - {"port", "SQLite"}} == {"ok"}
    assert found["port"][0] == "warning"
    assert found["SQLite"][0] in ("ok", "warning")
    lines = run("doctor", "--data-dir", server.data_dir).stdout.splitlines()
    assert len(lines) == len(checks)


def test_a_folder_that_is_not_there_yet_is_not_made(run: Run, tmp_path: Path) -> None:
    found = states(run, "--data-dir", tmp_path / "new")
    assert "not made yet" in found["data folder"][1]
    assert "not made yet" in found["database"][1]
    assert not (tmp_path / "new").exists()


def test_a_database_that_was_never_migrated_or_is_none(run: Run, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'mixserve.sqlite3'}")
    migrations.upgrade(database)
    migrations.downgrade(database, "base")
    database.close()
    state, message = states(run, "--data-dir", tmp_path, code=1)["database"]
    assert (state, "mixserve migrate" in message) == ("wrong", True)
    (tmp_path / "mixserve.sqlite3").write_text("no database at all, but long enough to look like one " * 99)
    assert states(run, "--data-dir", tmp_path, code=1)["database"][0] == "wrong"


def test_a_data_folder_that_is_a_file_and_a_database_that_is_away(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # taken, and nobody listens
        port = listener.getsockname()[1]
        monkeypatch.setenv("MIXSERVE_DATABASE_URL", f"postgresql+psycopg://127.0.0.1:{port}/none")
        found = states(run, "--data-dir", tmp_path / "file", "--port", port, code=1)
    assert found["data folder"][0] == found["database"][0] == "wrong"
    assert "SQLite" not in found


def test_a_service_that_is_away(run: Run, tmp_path: Path) -> None:
    ended = run("doctor", "--data-dir", tmp_path, "--url", "http://127.0.0.1:9", code=1)
    assert "wrong    service" in ended.stdout
    assert ended.stderr == ""
