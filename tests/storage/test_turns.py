"""Turns at writing: one at a time, and none has two while another waits."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.storage.turns import Turns
from tests.serving import until
from tests.storage.making import is_locked


def test_who_waits_goes_before_who_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "database"
    ours, theirs = Turns(path), Turns(path)
    order = []

    def wait() -> None:
        with theirs.taken(60.0):
            order.append("who waited")

    thread = threading.Thread(target=wait)
    with ours.taken(60.0):
        thread.start()
        until(lambda: is_locked(tmp_path / "database.next"))
    with ours.taken(60.0):
        order.append("who came again")
    thread.join()
    assert order == ["who waited", "who came again"]


@pytest.mark.parametrize("path", [None, "database"])
def test_who_waits_too_long_is_told_and_the_next_goes_on(tmp_path: Path, path: str | None) -> None:
    ours = Turns(None if path is None else tmp_path / path)
    theirs = ours if path is None else Turns(tmp_path / path)
    with ours.taken(60.0), pytest.raises(TimeoutError), theirs.taken(0.01):
        pass
    with theirs.taken(60.0):
        pass
    with ours.taken(60.0):
        pass


def test_a_turn_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from service.storage.turns import Turns\n"
        "with Turns(Path(sys.argv[1])).taken(60):\n"
        "    print('mine', flush=True)\n"
        "    time.sleep(600)"
    )
    path = tmp_path / "database"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mine\n"
        with pytest.raises(TimeoutError), Turns(path).taken(0.01):
            pass
        process.kill()
    with Turns(path).taken(60.0):
        pass
