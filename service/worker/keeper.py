"""Keeps worker processes alive beside the HTTP server of `mixserve serve`."""

import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_HEALTHY_SECONDS = 60.0
_END_SECONDS = 8.0
_START_SECONDS = 60.0
PULSE_SECONDS = 1.0


class Keeper:
    """Starts workers and starts them again when they die, after a pause that grows while they keep dying.

    Each worker holds the read end of a pipe to this process, and ends when that closes: none outlives a
    server that was killed. Through another it gives a sign of life every second; one that is silent for as
    long as a lease is killed, since frozen inside a transaction it would keep SQLite locked for everybody.
    """

    def __init__(self, devices: Sequence[str], environment: Mapping[str, str], lease_seconds: float) -> None:
        self._devices = list(devices)
        self._environment = dict(environment)
        self._longest_silence_seconds = max(lease_seconds, 2 * PULSE_SECONDS)
        self._stopping = threading.Event()
        self._told_at = 0.0
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * len(devices)
        self._threads = [
            threading.Thread(target=self._keep, args=(slot,), daemon=True) for slot in range(len(devices))
        ]

    def start(self) -> None:
        """Starts the workers."""
        for thread in self._threads:
            thread.start()

    def tell(self) -> None:
        """Tells the workers to end, and waits for none; they give their fits back. Again, it does nothing."""
        with self._lock:
            if self._stopping.is_set():
                return
            self._stopping.set()
            self._told_at = time.monotonic()
            for process in filter(None, self._processes):
                process.terminate()

    def stop(self) -> None:
        """Ends the workers, kindly at first."""
        self.tell()
        deadline = self._told_at + _END_SECONDS
        for process in filter(None, self._processes):
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.error("worker process %d did not end in time; killed", process.pid)
                process.kill()
        for thread in self._threads:
            thread.join(1.0)

    def _keep(self, slot: int) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            begun = time.monotonic()
            ending = self._serve_once(slot)
            if self._stopping.is_set():
                return
            if time.monotonic() - begun > _HEALTHY_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            logger.error("%s; another worker starts in %.1f s", ending, pause)
            self._stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _serve_once(self, slot: int) -> str:
        """Runs one worker process to its end, and says what that was."""
        with self._lock:
            if self._stopping.is_set():
                return "none was started"
            try:
                # A session of its own: Ctrl-C in a terminal is for the server, which then ends its workers.
                process = subprocess.Popen(  # noqa: S603 - our own command
                    _command(self._devices[slot]),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=self._environment,
                    start_new_session=True,
                )
            except OSError as error:
                return f"a worker process could not be started: {error}"
            self._processes[slot] = process
        with process:  # closes its pipes at the end
            self._listen(process)
        return f"worker process {process.pid} ended with {process.returncode}"

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Returns when a worker has ended, by itself or for its silence."""
        assert process.stdout is not None, "it has a pipe"  # noqa: S101
        pulse = process.stdout.fileno()
        patience = _START_SECONDS
        while select.select([pulse], [], [], patience)[0]:
            if not os.read(pulse, 4096):
                process.wait()
                return
            patience = self._longest_silence_seconds
        logger.error("worker process %d has given no sign of life for %.1f s; killed", process.pid, patience)
        process.kill()
        process.wait()


def pulse() -> None:
    """Gives a worker's signs of life, for ever; a broken pipe ends it, for then the keeper is gone."""
    with suppress(BrokenPipeError):
        while True:
            os.write(sys.stdout.fileno(), b".")
            time.sleep(PULSE_SECONDS)


def _command(device: str) -> list[str]:
    return [sys.executable, "-m", "service", "worker", "--device", device, "--kept"]
