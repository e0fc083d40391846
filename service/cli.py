"""The command `mixserve`."""

import os
import signal
import socket
import sys
import threading
from types import FrameType
from typing import Annotated, Any

import typer

from service.commands import backups, doctor, fit, kept, keys, limits, questions
from service.commands.command_line import DataDir, fail, said_plainly, settings_from
from service.garbage import look_seldom
from service.logs import start_logging
from service.settings import Settings
from service.tracing import start_tracing

app = typer.Typer(
    help="Fits Gaussian mixture models by gradient descent, and answers questions about them over HTTP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

for asked in (fit.fit, questions.score, questions.responsibilities, questions.sample, questions.plot):
    app.command()(asked)
app.add_typer(kept.fits, name="fits")
app.add_typer(kept.datasets, name="datasets")
app.add_typer(kept.mixtures, name="mixtures")
app.command()(doctor.doctor)
app.command()(backups.backup)
app.command()(backups.restore)
app.add_typer(keys.app, name="keys")
app.add_typer(limits.app, name="limits")

Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1 ...")]
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    data_dir: DataDir = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Default: one per GPU, or one. 0: API only.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Starts everything on one machine: migrates the database, serves HTTP, keeps workers.

    Example: mixserve serve --port 8000 --data-dir ./mixserve-data
    """
    settings = settings_from(data_dir)
    start_logging(settings.log_level, settings.log_format)
    _require_guarded(host, settings)
    from service import server

    listener = _listen(host, port)
    with said_plainly():
        server.serve(settings, listener, workers, device)


@app.command()
def worker(
    data_dir: DataDir = None,
    device: Device = "auto",
    kept: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Runs a worker alone: it takes fits from the queue and does them on one device.

    Example: MIXSERVE_DATABASE_URL=postgresql+psycopg://db/mixserve mixserve worker --device cuda:0
    """
    settings = settings_from(data_dir)
    start_logging(settings.log_level, settings.log_format)
    from service.storage.database import Database
    from service.worker.fitter_process import DeviceMissing, FitterDied
    from service.worker.keeper import pulse
    from service.worker.supervisor import Supervisor

    with said_plainly():
        database = Database(settings.resolved_database_url, lease_seconds=settings.lease_seconds)
        tracing = start_tracing(settings, "mixserve-worker")
    supervisor = Supervisor(settings, database, device, tracing)

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        supervisor.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if kept:
        threading.Thread(target=_stop_when_stdin_closes, args=(supervisor,), daemon=True).start()
        threading.Thread(target=pulse, daemon=True).start()
    try:
        supervisor.run()
    except DeviceMissing as error:
        fail(str(error))
    except FitterDied as error:
        fail(f"the process that does the fits did not start: {error}")
    finally:
        tracing.close()


@app.command()
def migrate(data_dir: DataDir = None) -> None:
    """Brings the database's schema up to date.

    Example: MIXSERVE_DATABASE_URL=postgresql+psycopg://db/mixserve mixserve migrate
    """
    settings = settings_from(data_dir)
    from service.storage import migrations
    from service.storage.database import Database

    with said_plainly():
        database = Database(settings.resolved_database_url)
        migrations.upgrade(database)
    typer.echo(f"the schema is at {migrations.current_revision(database)}")


def main() -> None:
    """Runs the command."""
    # Torch's threads wait by spinning unless told before it loads; beside other work on the same cores that
    # makes a fit many times slower. Worker processes inherit it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    look_seldom()
    app(prog_name="mixserve")


def _require_guarded(host: str, settings: Settings) -> None:
    """Refuses to listen to the world without asking who is there."""
    if settings.auth == "none" and host not in _LOOPBACK:
        fail(
            f"--host {host} would let anybody on the network in, since MIXSERVE_AUTH is none. Set "
            "MIXSERVE_AUTH=keys and make a key with `mixserve keys create NAME`, or listen at 127.0.0.1. "
            "Where the network itself is closed, as between containers, say so with "
            "MIXSERVE_AUTH=trusted-network."
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle off only where it is: 40 ms an answer otherwise.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        fail(f"cannot listen at {host}:{port}: {error.strerror}; choose another --port, or 0 for a free one")
    return listener


def _stop_when_stdin_closes(supervisor: Any) -> None:
    os.read(sys.stdin.fileno(), 1)
    supervisor.stop()
