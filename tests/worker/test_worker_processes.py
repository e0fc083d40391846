"""Worker processes that are told to end, killed, or left without their database."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from service.settings import Settings
from service.storage import checkpoints
from service.storage.tables import WorkerRow
from tests.storage.making import events_of
from tests.worker.conftest import LONG, WorkerProcess, environment, is_running, running, until


def _n_workers(worker: WorkerProcess) -> int:
    with worker.database.read() as session:
        return session.scalar(select(func.count()).select_from(WorkerRow)) or 0


def _checkpoint_step(worker: WorkerProcess, fit_id: str) -> int:
    """Returns the step at which whoever does a fit next goes on."""
    state = checkpoints.read(worker.database, fit_id)
    assert state is not None
    with np.load(io.BytesIO(state), allow_pickle=False) as archive:
        step: int = json.loads(archive["running:loop"].tobytes())["n_steps"]
    return step


def test_a_worker_told_to_end_gives_its_fit_back(settings: Settings) -> None:
    with running(settings) as worker:
        fit_id = worker.queue(**LONG)
        begun = worker.begun(fit_id)
        fitter = worker.fitter
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(10) == 0
        row = worker.when(fit_id, lambda row: True)
        assert (row.status, row.error, row.attempt, row.n_workers_lost) == ("queued", None, 1, 0)
        assert (row.token, row.lease_expires_at, row.worker_id) == (None, None, None)
        kinds = [data["status"] for _, kind, data in events_of(worker.database, fit_id) if kind == "status"]
        assert kinds == ["queued", "running", "queued"]
        assert _checkpoint_step(worker, fit_id) >= begun.progress["step"]  # type: ignore[index]
        assert _n_workers(worker) == 0
        until(lambda: not is_running(fitter))
        assert "Traceback" not in worker.end()


def test_a_killed_workers_fit_is_taken_over_and_its_process_ends(settings: Settings) -> None:
    brief = settings.model_copy(update={"lease_seconds": 2.0})
    with running(brief) as first:
        fit_id = first.queue(**LONG)
        first.begun(fit_id)
        fitter = first.fitter
        first.process.kill()
        until(lambda: not is_running(fitter), within_seconds=10)
        with running(brief) as second:
            row = second.when(fit_id, lambda row: row.attempt == 2)
            assert (row.status, row.n_workers_lost) == ("running", 1)
            second.cancel(fit_id)
            assert second.ended(fit_id).status == "cancelled"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_signal_to_the_whole_group_counts_as_no_loss(settings: Settings) -> None:
    """As a service manager sends it: supervisor and fitter get it at once."""
    with running(settings) as worker:
        fit_id = worker.queue(**LONG)
        begun = worker.begun(fit_id)
        for process_id in (worker.process.pid, worker.fitter):
            os.kill(process_id, signal.SIGTERM)
        assert worker.process.wait(10) == 0
        row = worker.when(fit_id, lambda row: True)
        assert (row.status, row.n_workers_lost) == ("queued", 0)
        assert _checkpoint_step(worker, fit_id) >= begun.progress["step"]  # type: ignore[index]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_worker_told_to_end_while_it_starts_does(settings: Settings) -> None:
    with running(settings) as worker:
        until(lambda: worker.fitter)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(10) == 0


def test_a_fit_outlives_a_restart_of_its_database(own_postgresql_server: Any, tmp_path: Path) -> None:
    url = own_postgresql_server.create(migrated=True)
    with running(Settings(data_dir=tmp_path, database_url=url)) as worker:
        fit_id = worker.queue(**(LONG | {"max_steps": 1500}))
        begun = worker.begun(fit_id)
        own_postgresql_server.stop()
        own_postgresql_server.start()
        row = worker.ended(fit_id)
        assert (row.status, row.attempt) == ("succeeded", 1)
        assert row.started_at == begun.started_at


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    command = [sys.executable, "-m", "service", "worker", "--device", "cuda:99"]
    ended = subprocess.run(
        command, env=environment(settings), capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert "cuda:99" in ended.stderr
    assert "cpu" in ended.stderr  # what to use instead
    assert "Traceback" not in ended.stderr


def test_the_supervisor_does_without_torch() -> None:
    code = (
        "import sys, service.cli, service.worker.supervisor, service.worker.keeper\n"
        "print([name for name in ('torch', 'service.mixture') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
