"""The processes of one service, to be killed at any moment; those without a keeper are started again."""

import os
import random
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.serving import END_SECONDS, START_SECONDS, command, environment, until

_KINDS = {
    b"\0serve\0": "server",
    b"\0worker\0": "worker",
    b"spawn_main": "fitter",
    b"resource_tracker": "resource tracker",
}


@dataclass
class Member:
    """A process that nobody keeps alive but the fleet, as a service manager would."""

    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None


class Fleet:
    """A server with two workers; on PostgreSQL also a second API replica and a worker alone.

    Args:
        folder: Where data and logs go.
        database_url: Empty for SQLite in that folder.
        settings: MIXSERVE_ settings of all processes.
    """

    def __init__(self, folder: Path, database_url: str, **settings: Any) -> None:
        self.folder = folder
        self._environment = environment(data_dir=folder / "data", database_url=database_url, **settings)
        # Children inherit it, so that it finds all processes of this fleet, orphans too.
        self._mark = f"MIXSERVE_DATA_DIR={folder / 'data'}".encode()
        ports = [_free_port() for _ in range(2 if database_url else 1)]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self._members = [Member(("serve", "--workers", "2", "--port", str(ports[0])))]
        if database_url:
            self._members.append(Member(("serve", "--workers", "0", "--port", str(ports[1]))))
            self._members.append(Member(("worker",)))

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def tend(self) -> None:
        """Starts what has ended and has no keeper."""
        for member in self._members:
            if member.process is None or member.process.poll() is not None:
                with (self.folder / "log").open("ab") as log:
                    member.process = subprocess.Popen(
                        command(*member.arguments), env=self._environment, stdout=log, stderr=log
                    )

    def processes(self) -> dict[int, str]:
        """Returns what each living process of the fleet is, by its id."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = _kind((folder / "cmdline").read_bytes())
            except OSError:  # it has ended, or is another user's
                continue
        return found

    def kill_one(self, kind: str, chance: random.Random) -> bool:
        """Kills a process of this kind, if one is alive; returns whether one was."""
        alive = sorted(number for number, its_kind in self.processes().items() if its_kind == kind)
        if not alive:
            return False
        try:
            os.kill(chance.choice(alive), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def stop(self) -> list[str]:
        """Ends all processes kindly, and returns what was wrong with that."""
        findings = []
        for member in self._members:
            if member.process is not None:
                # One that has just been started again knows no signal yet, and no kindness.
                until(lambda process=member.process: _ended_or_heeds(process), START_SECONDS)
                member.process.terminate()
        for member in self._members:
            if member.process is not None:
                try:
                    status = member.process.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    findings.append(f"{member.arguments} did not end within {END_SECONDS} s of SIGTERM")
                    continue
                if status != 0:
                    findings.append(f"{member.arguments} ended with {status} on SIGTERM")
        deadline = time.monotonic() + END_SECONDS
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process_id, kind in left.items():
            findings.append(f"a {kind} was left over: process {process_id}")
            os.kill(process_id, signal.SIGKILL)
        return findings


def _ended_or_heeds(process: "subprocess.Popen[bytes]") -> bool:
    """Whether a process has ended, or has a handler for SIGTERM by now."""
    if process.poll() is not None:
        return True
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _kind(command_line: bytes) -> str:
    return next((kind for word, kind in _KINDS.items() if word in command_line), "process being born")
