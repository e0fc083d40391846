"""A running service as a process of its own, as users have it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 60
END_SECONDS = 15
_ADDRESS = re.compile(r"mixserve listens at (http://\S+)")

GOLD: dict[str, Any] = {
    "weights": [0.2, 0.4, 0.4],
    "means": [[-1, -1], [-1, 1], [1, 1]],
    "covariances": [[[0.25, 0], [0, 0.04]], [[0.09, 0], [0, 0.09]], [[0.16, 0.16], [0.16, 0.25]]],
    "covariance_type": "full",
}


@dataclass
class Server:
    """A process of `mixserve serve`, its address, and all that it has said."""

    process: subprocess.Popen[str]
    data_dir: Path
    url: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, **{"timeout": 90, "trust_env": False} | options)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(END_SECONDS)


def environment(**settings: Any) -> dict[str, str]:
    """Returns the environment for a process with these MIXSERVE_ settings and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIXSERVE_")}
    return kept | {f"MIXSERVE_{name.upper()}": str(value) for name, value in settings.items()}


def command(*arguments: str) -> list[str]:
    """Returns the command line of `mixserve`, run by this interpreter with warnings as they come."""
    return [sys.executable, "-m", "service", *arguments]


@contextmanager
def serving(data_dir: Path, *, workers: int = 1, port: int = 0, **settings: Any) -> Iterator[Server]:
    """Yields a server that answers (and, with workers, is ready), ended at the end of the block."""
    process = subprocess.Popen(
        command("serve", "--port", str(port), "--data-dir", str(data_dir), "--workers", str(workers)),
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    server = Server(process, data_dir)
    reader = threading.Thread(target=_read, args=(server,), daemon=True)
    reader.start()
    try:
        _wait_until_up(server, "/readyz" if workers else "/livez")
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def until(condition: Any, seconds: float = 30.0, pause: float = 0.02) -> Any:
    """Returns the first true value of a condition; fails when none comes in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(pause)


def _read(server: Server) -> None:
    assert server.process.stdout is not None
    for line in server.process.stdout:
        server.lines.append(line)
        if match := _ADDRESS.search(line):
            server.url = match[1]


def _wait_until_up(server: Server, path: str) -> None:
    def up() -> bool:
        assert server.process.poll() is None, f"the server ended:\n{server.log}"
        if not server.url:
            return False
        try:
            return http.get(server.url + path).is_success
        except httpx.TransportError:
            return False

    # One client: making another for each look would take more of the processor than the server's start does.
    with httpx.Client(trust_env=False) as http:
        until(up, START_SECONDS, pause=0.05)
