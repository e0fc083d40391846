"""The process that does the fitting: it has the device, and no database.

Its supervisor may kill it at any moment; it ends by itself when its supervisor is gone.
"""

import logging
import signal
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

from structlog.contextvars import bound_contextvars

from service.settings import Settings
from service.storage.dataset_store import DatasetStore, StorePlace
from service.storage.workers import Device
from service.worker import device, gang
from service.worker.messages import Finished, Lost, Ready, Refused, Start
from service.worker.reporting import Inbox, Reporter, finished

logger = logging.getLogger(__name__)


def main(
    connection: Connection,
    wanted_device: str,
    n_devices: int | None,
    store_place: StorePlace,
    settings: Settings | None = None,
) -> None:
    """Does one fit after another as they come through the connection; ranks log as the settings say."""
    ignore_signals()
    try:
        found = device.detect(wanted_device, n_devices)
    except ValueError as error:
        connection.send(Refused(str(error)))
        return
    store = DatasetStore(*store_place)
    ranks = partial(gang.Gang, store_place=store_place, settings=settings)
    inbox = Inbox(connection)
    connection.send(Ready(found))
    while True:
        start = inbox.starts.get()
        with bound_contextvars(fit_id=start.claim.fit_id, worker_id=start.worker_id):
            try:
                connection.send(_fit(start, found, store, connection, inbox, ranks))
            except Exception:
                logger.exception("the process that does the fits ends")
                raise SystemExit(1) from None


def _fit(
    start: Start,
    found: Device,
    store: DatasetStore,
    connection: Connection,
    inbox: Inbox,
    ranks: Callable[[Start, list[str]], gang.Gang],
) -> Finished | Lost:
    devices = gang.devices_for(start.claim, found)
    if len(devices) == 1:
        return finished(start, store, found.device, Reporter(connection, inbox))
    return _by_ranks(start, devices, connection, inbox, ranks)


def _by_ranks(
    start: Start,
    devices: list[str],
    connection: Connection,
    inbox: Inbox,
    ranks: Callable[[Start, list[str]], gang.Gang],
) -> Finished | Lost:
    try:
        with ranks(start, devices) as begun:
            ignore_signals()  # torch's launcher has taken them
            return gang.finished(begun, connection, inbox)
    except gang.GangLost as lost:
        return Lost(str(lost))


def ignore_signals() -> None:
    """Leaves signals to the supervisor: Ctrl-C reaches the whole terminal, SIGTERM often a whole group."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
