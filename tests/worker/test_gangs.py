"""Fits on several devices, by a real worker: one process for each, which begin and end together."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.settings import Settings
from service.storage import checkpoints, migrations
from service.storage.database import Database
from service.storage.queue import Claim
from service.storage.tables import FitRow, MixtureRow
from service.storage.workers import Device
from service.worker.gang import devices_for
from tests.worker.conftest import LONG, WorkerProcess, fitters_of, is_running, running, until

BRIEF = LONG | {"max_steps": 500}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker for all of them, which keeps checkpoints every now and then."""
    folder = tmp_path_factory.mktemp("gangs")
    settings = Settings(data_dir=folder, checkpoint_seconds=0.1, worker_devices=2)
    database = Database(settings.resolved_database_url)
    migrations.upgrade(database)
    database.close()
    with running(settings) as shared:
        yield shared


def _parameters(worker: WorkerProcess, row: FitRow) -> dict[str, Any]:
    assert row.status == "succeeded", row.error
    assert row.result is not None
    with worker.database.read() as session:
        mixture = session.get_one(MixtureRow, row.result["mixture_id"])
        return {name: getattr(mixture, name) for name in ("weights", "means", "covariances")}


@pytest.fixture(scope="module")
def alone(worker: WorkerProcess) -> FitRow:
    """A brief fit that one process has done."""
    return worker.ended(worker.queue(**BRIEF))


GIB = 1 << 30


@pytest.mark.parametrize(
    ("asked", "device", "size_bytes", "expected"),
    [
        ({"devices": 3}, ("cuda:0", 4), 8, ["cuda:0", "cuda:1", "cuda:2"]),
        ({"devices": 1}, ("cuda:1", 1), 8, ["cuda:1"]),
        ({"devices": 2}, ("cpu", 2), 8, ["cpu", "cpu"]),
        ({"devices": 2, "device": "cpu"}, ("cuda:0", 2), 8, ["cpu", "cpu"]),
        ({"devices": "auto"}, ("cuda:0", 4), 8, ["cuda:0"]),
        ({"devices": "auto"}, ("cuda:0", 4), 2 * GIB, ["cuda:0", "cuda:1", "cuda:2"]),
        ({"devices": "auto"}, ("cuda:0", 4), 9 * GIB, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        ({"devices": "auto"}, ("cpu", 8), 9 * GIB, ["cpu"]),
    ],
)
def test_auto_goes_by_the_size_of_the_points(
    asked: dict[str, Any], device: tuple[str, int], size_bytes: int, expected: list[str]
) -> None:
    request = {"device": "auto"} | asked
    claim = Claim("fit", "", "", 1, request, None, None, "", None, None, None, size_bytes // 16, 2)
    there = Device(device[0], "", 1, device[1])
    assert devices_for(claim, there) == expected


def test_a_fit_goes_on_when_a_rank_is_killed_to_the_result_of_one_process(
    worker: WorkerProcess, alone: FitRow
) -> None:
    fit_id = worker.queue(**BRIEF, devices=2)
    until(lambda: checkpoints.read(worker.database, fit_id))
    ranks = fitters_of(worker.fitter)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    row = worker.ended(fit_id)
    assert (row.attempt, row.n_workers_lost) == (2, 1)
    assert row.result is not None
    assert alone.result is not None
    assert (row.result["devices"], alone.result["devices"]) == (2, 1)
    assert row.result["log_likelihood"] == pytest.approx(alone.result["log_likelihood"], rel=1e-12)
    for name, expected in _parameters(worker, alone).items():
        np.testing.assert_allclose(_parameters(worker, row)[name], expected, rtol=1e-9, atol=1e-9)
    assert not any(is_running(rank) for rank in ranks)


def _addresses_listened_at(process_id: int) -> set[str]:
    """The addresses, as the kernel writes them, at which a process takes connections."""
    links = set()
    for file in Path(f"/proc/{process_id}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            links.add(os.readlink(file))
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{process_id}/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in links}


def test_a_gang_is_cancelled_at_its_next_step(worker: WorkerProcess) -> None:
    fit_id = worker.queue(**LONG, devices=2)
    worker.begun(fit_id)
    fitter = worker.fitter
    ranks = fitters_of(fitter)
    for process_id in (*ranks, fitter):
        assert _addresses_listened_at(process_id) <= {"0100007F"}  # 127.0.0.1
    assert any(map(_addresses_listened_at, ranks))  # gloo
    worker.cancel(fit_id)
    assert worker.ended(fit_id).status == "cancelled"
    until(lambda: not any(is_running(rank) for rank in ranks))
    assert is_running(fitter)  # it was asked, and had no need to be killed


def test_a_gang_ends_at_its_time_limit_and_be_it_while_it_starts(worker: WorkerProcess) -> None:
    fit_id = worker.queue(**LONG, devices=2, timeout_seconds=0.3)
    fitter = worker.fitter
    ranks = until(lambda: fitters_of(fitter))
    row = worker.ended(fit_id)
    assert (row.status, row.error["code"]) == ("failed", "TIMED_OUT")  # type: ignore[index]
    until(lambda: not any(is_running(rank) for rank in [*ranks, fitter]))


def test_no_rank_outlives_its_worker_and_be_it_frozen(worker: WorkerProcess) -> None:
    worker.begun(worker.queue(**LONG, devices=2))
    ranks = fitters_of(worker.fitter)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGSTOP)
    worker.process.kill()
    until(lambda: not any(is_running(rank) for rank in ranks))
