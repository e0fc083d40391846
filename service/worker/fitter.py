"""The process that does the fitting: it has the device, and no database.

Its supervisor may kill it at any moment; it ends by itself when its supervisor is gone.
"""

import signal
from multiprocessing.connection import Connection

from service.storage.dataset_store import DatasetStore, StorePlace
from service.worker import device, gang
from service.worker.messages import Finished, Lost, Ready, Refused, Start
from service.worker.reporting import Inbox, Reporter, finished


def main(connection: Connection, wanted_device: str, n_devices: int | None, store_place: StorePlace) -> None:
    """Does one fit after another as they come through the connection."""
    ignore_signals()
    try:
        found = device.detect(wanted_device, n_devices)
    except ValueError as error:
        connection.send(Refused(str(error)))
        return
    store = DatasetStore(*store_place)
    inbox = Inbox(connection)
    connection.send(Ready(found))
    while True:
        start = inbox.starts.get()
        devices = gang.devices_for(start.claim, found)
        if len(devices) == 1:
            connection.send(finished(start, store, found.device, Reporter(connection, inbox)))
        else:
            connection.send(_by_ranks(start, devices, store_place, connection, inbox))


def _by_ranks(
    start: Start, devices: list[str], store_place: StorePlace, connection: Connection, inbox: Inbox
) -> Finished | Lost:
    try:
        with gang.Gang(start, devices, store_place) as ranks:
            ignore_signals()  # torch's launcher has taken them
            return gang.finished(ranks, connection, inbox)
    except gang.GangLost as lost:
        return Lost(str(lost))


def ignore_signals() -> None:
    """Leaves signals to the supervisor: Ctrl-C reaches the whole terminal, SIGTERM often a whole group."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
