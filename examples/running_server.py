"""A `mixserve serve` of one's own: a child process in an empty data folder, without a trace afterwards."""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

_SAYS_WHERE = "mixserve listens at "
_START_SECONDS = 120.0
_END_SECONDS = 15.0
_LOG = "server.log"
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DidNotStart(Exception):
    """The server ended, or did not get ready in time; the message holds the end of its log."""


@contextmanager
def running_server(**settings: str) -> Iterator[str]:
    """Yields the address of a server that is ready; ends it and removes its data whatever happens.

    Args:
        **settings: its own, by their names in the environment; none but these.

    Raises:
        DidNotStart: it did not get ready.
    """
    with tempfile.TemporaryDirectory(prefix="mixserve-demo-") as folder:
        process = None
        try:
            with _signals_held():
                process = _started(Path(folder), settings)
            yield _ready_address(process, Path(folder) / _LOG)
        finally:
            if process:
                _end(process)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Puts off Ctrl-C and its like to the end of the block: no process is started and then forgotten."""
    held: list[int] = []
    handlers = {number: signal.signal(number, lambda n, _: held.append(n)) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


def _started(folder: Path, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    with (folder / _LOG).open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "service", "serve", "--port", "0", "--data-dir", f"{folder}/data"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=_environment() | settings,
            start_new_session=True,  # Ctrl-C is for the demo, which then ends the server in good order
        )


def _environment() -> dict[str, str]:
    """The environment without the service's settings, which could name a database that matters."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MIXSERVE_")}


def _ready_address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    address = ""
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DidNotStart(f"it ended with status {process.returncode}:\n{_end_of(log)}")
        address = address or _announced(process)
        if address and _is_ready(address):
            return address
        time.sleep(0.1)
    raise DidNotStart(f"it was not ready after {_START_SECONDS:.0f} s:\n{_end_of(log)}")


def _announced(process: subprocess.Popen[bytes]) -> str:
    """The address, once the server has said it."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], 0)[0]:
        return ""
    line = process.stdout.readline().decode()
    return line.removeprefix(_SAYS_WHERE).strip() if line.startswith(_SAYS_WHERE) else ""


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(lines[-15:]) or "(its log is empty)"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and its workers, however impatient the person is."""
    with _signals_held():
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
