"""`mixserve doctor`: what is wrong with an installation."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from service.commands.command_line import DataDir, settings_from
from service.commands.connection import FAILED, Url
from service.commands.output import write_json

if TYPE_CHECKING:
    from service.settings import Settings

_LITTLE_BYTES = 2**30


class State(StrEnum):
    """How a thing is."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


class Finding(NamedTuple):
    """What was found out about one thing, and what to do about it."""

    check: str
    state: State
    message: str


def doctor(
    data_dir: DataDir = None,
    host: Annotated[str, typer.Option(help="Where `mixserve serve` is to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, for programs.")] = False,
    url: Url = None,
) -> None:
    """Says what is wrong with this installation, and what to do about it; changes nothing.

    Example: mixserve doctor --data-dir ./mixserve-data

    Exit codes: 0 nothing is wrong; 1 something is.
    """
    settings = settings_from(data_dir)
    findings = list(_findings(settings, host, port, url))
    if as_json:
        write_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{finding.state.value:<8} {finding.check:<13} {finding.message}")
    if any(finding.state is State.WRONG for finding in findings):
        raise typer.Exit(FAILED)


def _findings(settings: "Settings", host: str, port: int, url: str | None) -> Iterator[Finding]:
    yield from _tried("dependencies", _dependencies)
    yield from _tried("data folder", lambda: _folder(settings.data_dir))
    if settings.dataset_store_url:
        yield from _tried("dataset store", lambda: _folder(settings.dataset_store_folder))
    yield from _tried("database", lambda: _database(settings))
    yield from _tried("SQLite", lambda: _sqlite(settings))
    yield from _tried("devices", _devices)
    yield from _tried("port", lambda: _port(host, port))
    if url is not None:
        yield from _tried("service", lambda: _service(url))


def _tried(check: str, look: Callable[[], tuple[State, str] | None]) -> Iterator[Finding]:
    """Yields what a check finds; one that cannot even look is a finding too."""
    try:
        found = look()
    except Exception as error:  # noqa: BLE001 - the next checks may tell why
        found = State.WRONG, f"{type(error).__name__}: {error}"
    if found is not None:
        yield Finding(check, *found)


def _dependencies() -> tuple[State, str]:
    required = [line for line in metadata.requires("mixserve") or [] if "extra ==" not in line]
    missing = []
    for line in required:
        name = "".join(letter if letter.isalnum() or letter in "-_." else " " for letter in line).split()[0]
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return State.WRONG, f"not installed: {', '.join(missing)}; install mixserve again with pip"
    extras = [name for name in ("matplotlib", "scikit-learn") if not _installed(name)]
    without = f"; without {', '.join(extras)} (extras plots, sklearn)" if extras else ""
    return State.OK, f"{len(required)} packages, torch {metadata.version('torch')}{without}"


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _folder(folder: Path) -> tuple[State, str]:
    folder = folder.resolve()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        return State.WRONG, f"{there} is no folder; choose another --data-dir"
    if not os.access(there, os.W_OK | os.X_OK):
        return State.WRONG, f"{there} cannot be written to by this user; choose another --data-dir"
    free = shutil.disk_usage(there).free
    text = f"{folder}{'' if there == folder else ' (not made yet)'}, {free / 2**30:.1f} GiB free"
    if free < _LITTLE_BYTES:
        return State.WARNING, f"{text}: points may not find room; free some, or choose another --data-dir"
    return State.OK, text


def _database(settings: "Settings") -> tuple[State, str]:
    from service.errors import ServiceError
    from service.storage import migrations
    from service.storage.database import Database

    url = settings.resolved_database_url
    file = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite") and not file.exists():
        return State.OK, f"{file} (not made yet: `mixserve serve` or `mixserve migrate` makes it)"
    database = Database(url)
    try:
        found, wanted = migrations.current_revision(database), migrations.head_revision()
    except ServiceError as error:
        return State.WRONG, error.detail
    finally:
        database.close()
    if found != wanted:
        return State.WRONG, f"its schema is at {found}, not {wanted}: run `mixserve migrate`"
    return State.OK, f"answers; its schema is at {found}"


def _sqlite(settings: "Settings") -> tuple[State, str] | None:
    from service.storage.database import sqlite_journal_mode, sqlite_version

    if not settings.resolved_database_url.startswith("sqlite"):
        return None
    version = sqlite_version()
    text = ".".join(map(str, version))
    if sqlite_journal_mode(version) == "WAL":
        return State.OK, f"{text}, with a write-ahead log"
    return State.WARNING, (
        f"{text} can corrupt a write-ahead log with several writers, so a slower rollback journal is kept; "
        "3.51.3 or later, 3.50.7 and 3.44.6 are sound"
    )


def _devices() -> tuple[State, str]:
    from service.worker.device import detect, slots

    found = [detect(device) for device in dict.fromkeys(slots("auto", None))]
    return State.OK, ", ".join(
        f"{device.device} ({device.name}, {device.memory_bytes / 2**30:.1f} GiB)" for device in found
    )


def _port(host: str, port: int) -> tuple[State, str]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            return State.WARNING, (
                f"{host}:{port}: {error.strerror}; a service may run there; else choose another --port"
            )
    return State.OK, f"{host}:{port} is free"


def _service(url: str) -> tuple[State, str]:
    from service.client import Client

    with Client(url, retries=0) as client:
        checks = client.health().checks
    return State.OK, f"{url} answers: {', '.join(f'{name} {text}' for name, text in checks.items())}"
