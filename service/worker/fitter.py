"""The process that does the fitting: it has the device, and no database.

Its supervisor may kill it at any moment; it ends by itself when its supervisor is gone.
"""

import logging
import os
import queue
import signal
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from service.mixture import Progress
from service.storage.dataset_store import DatasetStore
from service.worker import device, fitting
from service.worker.messages import Checkpointed, Ended, Failed, Progressed, Ready, Refused, Start, Stop

logger = logging.getLogger(__name__)
_PROGRESS_SECONDS = 0.25


def main(connection: Connection, wanted_device: str, store_folder: Path) -> None:
    """Does one fit after another as they come through the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the supervisor decides
    try:
        found = device.detect(wanted_device)
    except ValueError as error:
        connection.send(Refused(str(error)))
        return
    store = DatasetStore(store_folder)
    inbox = _Inbox(connection)
    connection.send(Ready(found))
    while True:
        start = inbox.starts.get()
        connection.send(_fit(start, store, found.device, connection, inbox))


class _Inbox:
    """Reads what the supervisor says while the main thread computes."""

    def __init__(self, connection: Connection) -> None:
        self.starts: queue.SimpleQueue[Start] = queue.SimpleQueue()
        self.told_to_stop = False
        self._connection = connection
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # the supervisor is gone: nobody could use what is being computed
            if isinstance(message, Stop):
                self.told_to_stop = True
            else:
                self.told_to_stop = False
                self.starts.put(message)


def _fit(start: Start, store: DatasetStore, device_name: str, connection: Connection, inbox: _Inbox) -> Ended:
    begun = last_told = time.monotonic()
    last: Progress | None = None

    def tell(progress: Progress) -> None:
        connection.send(Progressed(_as_contract(progress, time.monotonic() - begun)))

    def watch(progress: Progress) -> str | None:
        nonlocal last, last_told
        last, now = progress, time.monotonic()
        if now - last_told >= _PROGRESS_SECONDS:
            last_told = now
            tell(progress)
        return fitting.STOPPED if inbox.told_to_stop else None

    try:
        ended = fitting.run(
            start, store, device_name, watch, lambda state: connection.send(Checkpointed(state))
        )
        if last is not None:
            tell(last)
        return ended
    except RuntimeError as error:
        if "CUDA" in str(error):
            raise  # the device's state is unknown: end the process, and let another try
        return _internal(start, error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the fit must end and say so
        return _internal(start, error)


def _internal(start: Start, error: Exception) -> Failed:
    logger.exception("fit %s failed", start.claim.fit_id, exc_info=error)
    return Failed(
        "INTERNAL", f"The fit failed inside the service ({type(error).__name__}); its log has the details."
    )


def _as_contract(progress: Progress, elapsed_seconds: float) -> dict[str, Any]:
    done = progress.step / max(progress.max_steps, 1)
    return {
        "step": progress.step,
        "max_steps": progress.max_steps,
        "restarts_done": progress.restarts_done,
        "n_init": progress.n_init,
        "log_likelihood": progress.log_likelihood,
        "elapsed_seconds": round(elapsed_seconds, 3),
        "remaining_seconds": round(elapsed_seconds * (1 / done - 1), 3) if done > 0 else None,
    }
