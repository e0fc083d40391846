"""The demo as people run it: what it shows, what it leaves, and that it always cleans up."""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.serving import environment, until

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo.py"
PNG = b"\x89PNG\r\n\x1a\n"
END_SECONDS = 30


class Demo:
    """A demo that runs in a folder of its own, with its temporary files in another."""

    def __init__(self, folder: Path, *arguments: str, **streams: int) -> None:
        self.folder = folder / "here"
        self.temporary = folder / "temporary"
        self.folder.mkdir()
        self.temporary.mkdir()
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [sys.executable, str(DEMO), *arguments],
            cwd=self.folder,
            env=environment(database_url="postgresql+psycopg://nobody.invalid/not-the-demo's")
            | {"TMPDIR": str(self.temporary), "PYTHONPATH": paths, "TERM": "xterm", "COLUMNS": "120"},
            # A test run started in the background ignores Ctrl-C, and so would what it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | streams,
        )
        self.said = ""

    def listen(self, read: Callable[[], bytes]) -> Thread:
        """Collects what the demo says, in a thread, until it has nothing more to say."""

        def collect() -> None:
            while True:
                try:
                    heard = read()
                except OSError:  # a terminal whose other end is closed
                    return
                if not heard:
                    return
                self.said += heard.decode(errors="replace")

        thread = Thread(target=collect, daemon=True)
        thread.start()
        return thread

    def address(self) -> str:
        found = re.search(r"ready at (?:\x1b\[[0-9;]*m)*(http://[0-9.:]+)", self.said)
        return found[1] if found else ""

    def left_nothing_behind(self) -> bool:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{self.address()}/livez", trust_env=False)
        return list(self.temporary.iterdir()) == []


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Demo]:
    """Yields a demo that writes to a pipe."""
    demo = Demo(folder, *arguments)
    assert demo.process.stdout is not None
    stdout = demo.process.stdout
    thread = demo.listen(lambda: os.read(stdout.fileno(), 65536))
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.process.terminate()
        demo.process.wait(END_SECONDS)
        thread.join()
        stdout.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A demo that has run to its end."""
    with running(tmp_path_factory.mktemp("demo")) as demo:
        demo.process.wait(170)
    return demo


def test_it_ends_by_itself_and_leaves_nothing_but_two_pictures(finished: Demo):
    assert finished.process.returncode == 0, finished.said
    assert finished.left_nothing_behind()
    pictures = sorted(finished.folder.rglob("*"))
    assert [str(path.relative_to(finished.folder)) for path in pictures] == [
        "mixserve-demo", "mixserve-demo/faithful.png", "mixserve-demo/gold.png",
    ]  # fmt: skip
    for picture in pictures[1:]:
        content = picture.read_bytes()
        assert content.startswith(PNG)
        assert len(content) > 20_000


def test_it_says_where_the_service_is_at_its_start_and_at_its_end(finished: Demo):
    assert finished.said.count(finished.address()) >= 2
    assert finished.said.rindex(finished.address()) > finished.said.index("faithful.png")


def test_true_and_learned_parameters_stand_side_by_side(finished: Demo):
    rows = re.findall(r"(mean x|mean y|correlation) +(-?[\d.]+) +(-?[\d.]+) +[+-]", finished.said)
    assert [(name, float(true)) for name, true, _ in rows] == [
        ("mean x", -1), ("mean y", -1), ("correlation", 0),
        ("mean x", -1), ("mean y", 1), ("correlation", 0),
        ("mean x", 1), ("mean y", 1), ("correlation", 0.8),
    ]  # fmt: skip
    assert all(abs(float(true) - float(learned)) < 0.2 for _, true, learned in rows)
    assert re.search(r"log-likelihood +-16\d\d\.\d+", finished.said)
    assert re.search(r"KL\(gold \|\| learned\) +0\.0", finished.said)
    assert re.search(r"-1, 1 +-0\.3462 +-0\.27", finished.said)  # the gold log-density, in closed form


def test_the_real_file_gets_the_published_choice(finished: Demo):
    """Mclust's example: three components with a common covariance, BIC 2314.3 (its sign turned there)."""
    assert re.search(r"3 +tied +11 +-1126\.3\d +2314\.\d+ +0\.00", finished.said)
    assert "chosen: 3 components, tied covariances" in finished.said


def test_a_signal_in_the_middle_cleans_up(tmp_path: Path):
    with running(tmp_path) as demo:
        until(lambda: "running" in demo.said or demo.process.poll() is not None, 90)
        demo.process.send_signal(signal.SIGTERM)
        assert demo.process.wait(END_SECONDS) == 128 + signal.SIGTERM
        assert "Traceback" not in demo.said
        assert demo.left_nothing_behind()


def test_two_signals_in_a_row_clean_up(tmp_path: Path):
    with running(tmp_path) as demo:
        until(lambda: "running" in demo.said or demo.process.poll() is not None, 90)
        for _ in range(2):
            demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(END_SECONDS) == 130
        assert "Traceback" not in demo.said
        assert demo.left_nothing_behind()


def test_a_signal_before_the_service_is_ready_cleans_up(tmp_path: Path):
    with running(tmp_path) as demo:
        until(lambda: list(demo.temporary.rglob("server.log")), 60)
        demo.process.send_signal(signal.SIGHUP)
        assert demo.process.wait(END_SECONDS) == 128 + signal.SIGHUP
        assert list(demo.temporary.iterdir()) == []


def test_a_service_that_does_not_start_is_said_plainly(tmp_path: Path):
    (tmp_path / "uvicorn.py").write_text("import sys\nsys.exit('no room on this machine')\n")
    demo_environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    ended = subprocess.run(
        [sys.executable, str(DEMO)],
        cwd=tmp_path,
        env=demo_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "the service did not start" in ended.stderr
    assert "no room on this machine" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_on_a_terminal_it_stays_until_enter(tmp_path: Path):
    controller, terminal = pty.openpty()
    demo = Demo(tmp_path, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    thread = demo.listen(lambda: os.read(controller, 65536))
    try:
        until(lambda: "press Enter" in demo.said or demo.process.poll() is not None, 170)
        assert demo.process.poll() is None
        assert httpx.get(f"{demo.address()}/readyz", trust_env=False).status_code == 200
        assert "━" in demo.said  # the progress bar
        os.write(controller, b"\n")
        assert demo.process.wait(END_SECONDS) == 0
        assert demo.left_nothing_behind()
    finally:
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.wait()
        thread.join()
        os.close(controller)
