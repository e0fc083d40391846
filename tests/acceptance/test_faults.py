"""What the service does while the things it stands on are away: its database, its disk."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.test_service import ENDLESS, SHORT, begun, fitter
from tests.api.test_problems import assert_problem
from tests.conftest import PostgresqlServer
from tests.serving import END_SECONDS, GOLD, command, environment, serving, until

EVENT_STREAM = {"Accept": "text/event-stream"}


def test_a_database_that_restarts_costs_nothing_but_patience(
    tmp_path: Path, own_postgresql_server: PostgresqlServer
) -> None:
    url = own_postgresql_server.create(migrated=True)
    with ExitStack() as stack:
        server = stack.enter_context(serving(tmp_path, database_url=url, lease_seconds=2))
        http = stack.enter_context(server.client())
        request = ENDLESS | {"max_steps": 5_000}
        path = begun(http, max_steps=5_000)
        working = fitter(server)
        stream = stack.enter_context(http.stream("GET", f"{path}/events", headers=EVENT_STREAM))
        lines = stream.iter_lines()
        next(line for line in lines if line.startswith("id: 2"))
        own_postgresql_server.stop()
        assert [line for line in lines if line][-1].startswith("retry:")
        for method, where, body in [
            ("GET", path, None),
            ("POST", "/v1/fits", SHORT),
            ("POST", "/v1/datasets", {"gold": GOLD}),
            ("GET", "/v1/mixtures", None),
            ("POST", f"{path}/cancel", None),
            ("GET", f"{path}/events", None),
        ]:
            response = http.request(method, where, json=body)
            assert_problem(response, 503, "DATABASE_UNAVAILABLE")
            assert int(response.headers["retry-after"]) >= 1
        assert http.get("/livez").status_code == 200
        assert http.get("/readyz").status_code == 503
        own_postgresql_server.start()
        fit = until(lambda: _ended(http, path), seconds=90)
        assert (fit["status"], fit["attempt"]) == ("succeeded", 1)
        assert fitter(server) == working
        until(lambda: http.get("/readyz").status_code == 200)
        undisturbed = http.post("/v1/fits", json=request, headers={"Prefer": "wait=60"}).json()
        assert fit["result"]["mixture"] == undisturbed["result"]["mixture"]


def _ended(http: httpx.Client, path: str) -> dict[str, Any] | None:
    response = http.get(path)
    if response.status_code != 200:
        return None
    fit: dict[str, Any] = response.json()
    return fit if fit["status"] not in ("queued", "running") else None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of eight megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_and_survived(small_disk: Path) -> None:
    with serving(small_disk / "data") as server, server.client() as http:
        kept = http.post("/v1/datasets", json={"gold": GOLD, "n_samples": 1000}).json()
        too_large = {"gold": GOLD, "n_samples": 2_000_000}
        assert_problem(http.post("/v1/datasets", json=too_large), 507, "STORAGE_FULL")
        drafts = small_disk / "data" / "datasets" / "drafts"
        assert list(drafts.iterdir()) == []
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(bytes(8 * 2**20))
        assert_problem(http.post("/v1/datasets", json={"gold": GOLD}), 507, "STORAGE_FULL")
        assert_problem(http.post("/v1/fits", json={"dataset": {"id": kept["id"]}, "n_components": 3}), 507)
        assert http.get(f"/v1/datasets/{kept['id']}/points").status_code == 200
        assert [item["id"] for item in http.get("/v1/datasets").json()["items"]] == [kept["id"]]
        ballast.unlink()
        request = {"dataset": {"id": kept["id"]}, "n_components": 3}
        fit = http.post("/v1/fits", json=request, headers={"Prefer": "wait=60"}).json()
        assert fit["status"] == "succeeded"


def test_a_frozen_worker_is_replaced(tmp_path: Path) -> None:
    # On SQLite a worker frozen inside a transaction locks everybody out, so it cannot be left to wake.
    with serving(tmp_path, lease_seconds=2) as server, server.client() as http:
        path = begun(http)
        frozen = parent(fitter(server))
        os.kill(frozen, signal.SIGSTOP)
        until(lambda: (http.get(path).json().get("attempt")) == 2)
        assert not Path(f"/proc/{frozen}").exists()
        assert f"worker process {frozen} has given no sign of life" in server.log
        http.post(f"{path}/cancel")
        until(lambda: http.get(path).json()["status"] == "cancelled")


def test_what_a_frozen_worker_writes_on_waking_is_refused(
    tmp_path: Path, postgresql_server: PostgresqlServer
) -> None:
    url = postgresql_server.create(migrated=True)
    settings: dict[str, Any] = {"database_url": url, "lease_seconds": 2, "data_dir": tmp_path}
    with ExitStack() as stack:
        server = stack.enter_context(serving(workers=0, **settings))
        http = stack.enter_context(server.client())
        first = stack.enter_context(working(**settings))
        path = begun(http)
        first.send_signal(signal.SIGSTOP)
        try:
            stack.enter_context(working(**settings))
            until(lambda: http.get(path).json()["attempt"] == 2)
        finally:
            first.send_signal(signal.SIGCONT)
        assert first.stderr is not None
        assert any("has been taken over" in line for line in first.stderr)
        events = http.get(f"{path}/events?page_size=200", headers={"Accept": "application/json"}).json()[
            "items"
        ]
        claims = [event["data"] for event in events if event["data"].get("status") == "running"]
        assert [claim["attempt"] for claim in claims] == [1, 2]
        assert claims[0]["worker_id"] != claims[1]["worker_id"]
        http.post(f"{path}/cancel")
        until(lambda: http.get(path).json()["status"] == "cancelled")


@contextmanager
def working(**settings: Any) -> Iterator[subprocess.Popen[str]]:
    """Yields a worker alone, ended at the end of the block."""
    process = subprocess.Popen(
        command("worker", "--device", "cpu"), env=environment(**settings), stderr=subprocess.PIPE, text=True
    )
    with process:
        yield process
        process.terminate()
        process.wait(END_SECONDS)


def parent(process_id: int) -> int:
    """Returns a process's parent."""
    return int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[1])
