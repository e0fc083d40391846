"""`mixserve serve`: the HTTP server, and the workers beside it."""

import gc
import os
import signal
import socket
import sys

import torch
import typer
import uvicorn

from service.admitting import admitting
from service.allocation import keep_freed_memory
from service.api.services import Services
from service.app import create_app
from service.protocol import protocol
from service.settings import Settings
from service.storage import migrations
from service.worker.device import slots
from service.worker.keeper import Keeper

_GRACE_SECONDS = 5
_SWITCH_SECONDS = 0.0005
# In each of its turns libuv takes one connection from each socket that listens. With a single one, those who
# come new wait far longer than all others when there is much to do: a thousand of them for seconds. But each
# new one wakes all of these in vain, which takes some microseconds of each.
_MORE_DOORS = 15


class _Server(uvicorn.Server):
    """A server that sends waiting clients away when it is told to end, so that they do not hold it up."""

    def __init__(self, config: uvicorn.Config, services: Services, keeper: Keeper) -> None:
        super().__init__(config)
        self._services = services
        self._keeper = keeper

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the server; its workers write their checkpoints while the last requests are answered."""
        self._keeper.tell()
        self._services.watcher.drain()
        await super().shutdown(sockets)


def serve(settings: Settings, listener: socket.socket, n_workers: int | None, device: str) -> None:
    """Serves HTTP on a bound socket until SIGTERM, with worker processes beside it.

    Raises:
        ValueError: The device is not there.
        OSError: The data folder cannot be used.
        ServiceError: The database cannot be used.
    """
    keep_freed_memory()
    app = create_app(settings)
    services: Services = app.state.services
    migrations.upgrade(services.database)
    keeper = Keeper(slots(device, n_workers), _environment(settings), settings.lease_seconds)
    config = uvicorn.Config(
        app,
        http=admitting(protocol(settings), services.admission),
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    gc.freeze()
    # What computes has threads of its own (scoring), with one of torch's each. A thread that runs Python lets
    # the others have their turn soon, or each step of a small request would wait five milliseconds.
    torch.set_num_threads(1)
    sys.setswitchinterval(_SWITCH_SECONDS)
    host, port = listener.getsockname()[:2]
    typer.echo(f"mixserve listens at http://{f'[{host}]' if ':' in host else host}:{port}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the server has its own
    keeper.start()
    try:
        _Server(config, services, keeper).run(
            sockets=[listener, *(listener.dup() for _ in range(_MORE_DOORS))]
        )
    except KeyboardInterrupt:
        pass
    finally:
        keeper.stop()


def _environment(settings: Settings) -> dict[str, str]:
    """Returns the environment that gives a worker process the same settings."""
    given = {
        f"MIXSERVE_{name.upper()}": "" if value is None else str(value)
        for name, value in settings.model_dump().items()
    }
    return {**os.environ, **given}
