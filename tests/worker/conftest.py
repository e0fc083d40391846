"""A worker as a real process, on a database and a dataset store of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from service.settings import Settings
from service.storage import fits, migrations
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.tables import FitRow
from tests.storage.making import add_dataset, fit_row, queue_fit

PATIENCE_SECONDS = 60.0
"""How long to wait for what takes a second on an idle machine."""

POINTS = np.random.default_rng(0).normal([[0.0, 0.0]] * 150 + [[4.0, 4.0]] * 150, 1.0)
LONG = {
    "n_components": 2,
    "n_init": 1,
    "tolerance": 0,
    "max_steps": 10**9,
    "optimizer": {"name": "sgd", "learning_rate": 0.001, "batch_size": 10},
}


def until(what: Callable[[], Any], within_seconds: float = PATIENCE_SECONDS) -> Any:
    """Returns the first true answer."""
    deadline = time.monotonic() + within_seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.01)
    return answer


def is_running(process_id: int) -> bool:
    """Whether there is such a process, one that has ended but was not waited for left out."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def fitters_of(process_id: int) -> list[int]:
    """Returns the fitter processes that a worker process has."""
    try:
        children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
        commands = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [child for child, command in commands.items() if b"spawn_main" in command]


class WorkerProcess:
    """`mixserve worker` as a process."""

    def __init__(self, settings: Settings, *arguments: str) -> None:
        self.settings = settings
        self.database = Database(settings.resolved_database_url)
        self.store = DatasetStore(settings.dataset_store_folder)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", "worker", "--device", "cpu", *arguments],
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    @property
    def fitter(self) -> int:
        """The process that does its fits."""
        found: int = until(lambda: fitters_of(self.process.pid))[0]
        return found

    def queue(self, points: ArrayLike = POINTS, **fields: Any) -> str:
        """Returns the identifier of a new fit of these points."""
        return queue_fit(self.database, add_dataset(self.database, self.store, points), **fields)

    def cancel(self, fit_id: str) -> None:
        """Asks for a fit to be cancelled."""
        with self.database.write() as session:
            fits.cancel(session, fit_id)

    def when(self, fit_id: str, true: Callable[[FitRow], Any]) -> FitRow:
        """Returns a fit once something is true of it."""

        def look() -> FitRow | None:
            row = fit_row(self.database, fit_id)
            return row if true(row) else None

        found: FitRow = until(look)
        return found

    def begun(self, fit_id: str) -> FitRow:
        """Returns a fit that is in the middle of its work."""
        return self.when(fit_id, lambda row: row.status == "running" and row.progress)

    def ended(self, fit_id: str) -> FitRow:
        """Returns a fit that has ended."""
        return self.when(fit_id, lambda row: row.finished_at)

    def end(self, number: int = signal.SIGTERM) -> str:
        """Ends the process by a signal; returns what it has logged."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            _, logged = self.process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            self.process.kill()
            self.database.close()
        return logged.decode()


def environment(settings: Settings) -> dict[str, str]:
    """Returns the environment of a worker with these settings, which computes on one thread."""
    given = {
        f"MIXSERVE_{name.upper()}": str(getattr(settings, name))
        for name in (
            "data_dir",
            "database_url",
            "lease_seconds",
            "max_attempts",
            "checkpoint_seconds",
            "worker_devices",
        )
        if getattr(settings, name) is not None
    }
    return {**os.environ, **given, "OMP_NUM_THREADS": "1"}


@contextmanager
def running(settings: Settings, *arguments: str) -> Iterator[WorkerProcess]:
    """A worker process, ended at the end."""
    worker = WorkerProcess(settings, *arguments)
    try:
        yield worker
    finally:
        worker.end()


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of a worker on a database of this test's own."""
    return Settings(data_dir=tmp_path, database_url=database_url)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def worker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """A worker that the tests of a file share, since starting one takes seconds; each leaves it idle."""
    folder = tmp_path_factory.mktemp("worker")
    server = request.getfixturevalue("postgresql_server") if request.param == "postgresql" else None
    url = server.create(migrated=True) if server else f"sqlite:///{folder / 'shared.sqlite3'}"
    settings = Settings(data_dir=folder, database_url=url, checkpoint_seconds=0.2)
    database = Database(url)
    migrations.upgrade(database)
    database.close()
    with running(settings) as shared:
        yield shared
    if server:
        server.drop(url)
