"""The keeper: workers that die are started again, ever later, and none outlives its server."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from service.settings import Settings
from service.worker import keeper
from service.worker.keeper import Keeper
from tests.worker.conftest import environment, is_running, until

NOTE_AND_DIE = "import sys, time; open(sys.argv[1], 'a').write(f'{time.time()}\\n'); sys.exit(3)"
NOTE_AND_STAY = (
    "import os, sys; open(sys.argv[1], 'a').write(f'{os.getpid()}:{sys.argv[2]}\\n'); sys.stdin.read()"
)
STAY_WHATEVER_HAPPENS = (
    "import os, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"
    "time.sleep(600)"
)


def _keeper(monkeypatch: pytest.MonkeyPatch, notes: Path, code: str, n_workers: int = 1) -> Keeper:
    notes.touch()
    monkeypatch.setattr(keeper, "_command", lambda device: [sys.executable, "-c", code, str(notes), device])
    return Keeper([f"cuda:{index}" for index in range(n_workers)], {}, 30)


def _lines(notes: Path, n_lines: int) -> list[str]:
    found: list[str] = until(lambda: (lines := notes.read_text().split()) and len(lines) >= n_lines and lines)
    return found


def test_a_dying_worker_is_started_again_ever_later(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(keeper, "_FIRST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(keeper, "_LONGEST_PAUSE_SECONDS", 0.8)
    keeping = _keeper(monkeypatch, tmp_path / "notes", NOTE_AND_DIE)
    keeping.start()
    times = [float(line) for line in _lines(tmp_path / "notes", 5)]
    keeping.stop()
    pauses = [later - earlier for earlier, later in pairwise(times)]
    for pause, at_least in zip(pauses, [0.1, 0.2, 0.4, 0.8], strict=False):
        assert pause >= at_least * 0.95
    # Whoever could start another has ended too.
    assert not any(thread.is_alive() for thread in keeping._threads)


def test_each_slot_has_its_worker_and_all_end_with_a_stop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keeping = _keeper(monkeypatch, tmp_path / "notes", NOTE_AND_STAY, n_workers=3)
    keeping.start()
    told = [line.split(":", 1) for line in _lines(tmp_path / "notes", 3)]
    process_ids = {int(process_id) for process_id, _ in told}
    assert sorted(device for _, device in told) == ["cuda:0", "cuda:1", "cuda:2"]
    assert len(process_ids) == 3
    keeping.stop()
    assert not any(is_running(process_id) for process_id in process_ids)


def test_a_worker_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(keeper, "_END_SECONDS", 0.2)
    keeping = _keeper(monkeypatch, tmp_path / "notes", STAY_WHATEVER_HAPPENS)
    keeping.start()
    process_id = int(_lines(tmp_path / "notes", 1)[0])
    keeping.stop()
    until(lambda: not is_running(process_id))


def test_a_worker_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "_FIRST_PAUSE_SECONDS", 0.01)
    keeping = _keeper(monkeypatch, tmp_path / "notes", NOTE_AND_STAY)
    working = keeper._command
    monkeypatch.setattr(keeper, "_command", lambda _: [str(tmp_path / "nothing")])
    keeping.start()
    until(lambda: "could not be started" in caplog.text)
    monkeypatch.setattr(keeper, "_command", working)
    _lines(tmp_path / "notes", 1)
    keeping.stop()


def test_nothing_to_keep_is_nothing_to_do() -> None:
    keeping = Keeper([], {}, 30)
    keeping.start()
    assert keeping._threads == []
    keeping.stop()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_worker_ends_when_its_server_is_killed(settings: Settings) -> None:
    code = (
        "import os, time\n"
        "from service.worker.keeper import Keeper\n"
        "keeping = Keeper(['cpu'], os.environ, 30)\n"
        "keeping.start()\n"
        "while keeping._processes[0] is None:\n"
        "    time.sleep(0.01)\n"
        "print(keeping._processes[0].pid, flush=True)\n"
        "time.sleep(600)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, env=environment(settings), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdout is not None
        worker = int(server.stdout.readline())
        assert is_running(worker)
        server.kill()
    until(lambda: not is_running(worker))
